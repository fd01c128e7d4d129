//! `detect features`: every named intermediate of a featurizer.

use detect::cli::FeaturesArgs;
use detect::fail;
use detect::failure::Exit;

pub(super) fn run(_args: &FeaturesArgs) -> anyhow::Result<Exit> {
    fail!(Exit::Usage, "`detect features` is not built yet")
}
