//! The verbs that need tensors: from arguments to a library call to stdout.

mod classify;
mod eval;
mod features;
mod images;
mod inputs;
mod run_folder;
mod train;

use detect::cli::{self, Cli, Command, Task};
use detect::failure::Exit;

/// Runs a command line; what needs no tensors runs as in `detect`.
pub fn run(cli: &Cli) -> anyhow::Result<Exit> {
    match &cli.command {
        None => images::run(&cli.detect),
        Some(Command::Train(args)) => train::run(args),
        Some(Command::Features(args)) => features::run(args),
        Some(Command::Classify(args)) => classify::run(args),
        Some(Command::Eval(args)) if cli.needs_torch() => match args.task {
            Task::Detection => eval::run(args),
            Task::Classification => classify::evaluate(args),
        },
        Some(_) => cli::run(cli),
    }
}
