//! `detect check`.

use super::CheckArgs;
use crate::failure::Exit;

pub(super) fn run(_args: &CheckArgs) -> anyhow::Result<Exit> {
    crate::fail!(Exit::Usage, "`detect check` is not built yet")
}
