//! `detect-torch`: the verbs that need libtorch. People call `detect`, which hands over to this program.

use std::process::ExitCode;

use clap::Parser as _;
use detect::cli::{self, Cli};

fn main() -> ExitCode {
    cli::finish(|| detect_torch::verbs::run(&Cli::parse()))
}
