//! The verbs that need tensors: from arguments to a library call to stdout.

mod eval;
mod features;
mod images;
mod train;

use detect::cli::{self, Cli, Command};
use detect::failure::Exit;

/// Runs a command line; what needs no tensors runs as in `detect`.
pub fn run(cli: &Cli) -> anyhow::Result<Exit> {
    match &cli.command {
        None => images::run(&cli.detect),
        Some(Command::Train(args)) => train::run(args),
        Some(Command::Features(args)) => features::run(args),
        Some(Command::Eval(args)) if args.annotations.is_none() => eval::run(args),
        Some(_) => cli::run(cli),
    }
}
