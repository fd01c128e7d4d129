//! `detect-torch`: the verbs that need libtorch. People call `detect`, which hands over to this program.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use detect::cli::{self, Cli};
use detect::failure::Exit;

fn main() -> ExitCode {
    let exit = cli::end(|| {
        // Asked by `detect doctor`; no verb of the command line.
        if std::env::args().nth(1).as_deref() == Some("doctor-torch") {
            writeln!(std::io::stdout(), "{}", detect_torch::device::describe())?;
            return Ok(Exit::Done);
        }
        detect_torch::verbs::run(&Cli::parse())
    });
    // After the error was told.
    detect_torch::ranks::leave(exit);
    exit.into()
}
