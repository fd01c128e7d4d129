//! `detect`: parses the command line, does what needs no tensors, hands the rest to `detect-torch`.

use std::process::ExitCode;

use clap::Parser as _;
use detect::cli::{self, Cli};

fn main() -> ExitCode {
    cli::finish(|| {
        let cli = Cli::parse();
        if cli.needs_torch() { cli::handover::to_torch() } else { cli::run(&cli) }
    })
}
