//! `detect IMAGE`.

use detect::cli::DetectArgs;
use detect::fail;
use detect::failure::Exit;

pub(super) fn run(_args: &DetectArgs) -> anyhow::Result<Exit> {
    fail!(Exit::Usage, "`detect IMAGE` is not built yet")
}
