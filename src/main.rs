//! `detect`: parses the command line, does what needs no libtorch, hands the rest to `detect-torch`.

use std::process::ExitCode;

use clap::Parser as _;
use detect::cli::{self, Cli};

fn main() -> ExitCode {
    cli::finish(|| cli::detect(&Cli::parse()))
}
