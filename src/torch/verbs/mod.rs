//! `detect train`; and the verbs of `detect` on tensors.

mod run_folder;
mod together;
mod train;

use detect::cli::{self, Cli, Command};
use detect::failure::Exit;

use crate::predict::Torch;

/// Runs a command line: the verbs are those of `detect`, with networks of tensors.
pub fn run(cli: &Cli) -> anyhow::Result<Exit> {
    match &cli.command {
        Some(Command::Train(args)) => train::run(args),
        _ => cli::run::<Torch>(cli),
    }
}
