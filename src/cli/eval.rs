//! `detect eval`.

use super::EvalArgs;
use crate::failure::Exit;

pub(super) fn run(_args: &EvalArgs) -> anyhow::Result<Exit> {
    crate::fail!(Exit::Usage, "`detect eval` is not built yet")
}
