//! `detect doctor`.

use super::DoctorArgs;
use crate::failure::Exit;

pub(super) fn run(_args: &DoctorArgs) -> anyhow::Result<Exit> {
    crate::fail!(Exit::Usage, "`detect doctor` is not built yet")
}
