//! A verb as a whole process: its talk, its error and its exit code.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::failure::{Exit, out_of_memory};

const LESS_MEMORY: &str = "try a smaller --batch or --image-size; in training, --accumulate keeps the batch and takes it in parts";

/// Runs `body` as the whole program: prints its error once, catches a panic, and gives the exit code.
pub fn finish(body: impl FnOnce() -> anyhow::Result<Exit> + std::panic::UnwindSafe) -> ExitCode {
    end(body).into()
}

/// [`finish`] for a program that has to know how it ends.
pub fn end(body: impl FnOnce() -> anyhow::Result<Exit> + std::panic::UnwindSafe) -> Exit {
    start_tracing();
    std::panic::set_hook(Box::new(|info| {
        // Told below, if nobody finds a way to go on with less.
        if out_of_memory(info.payload()).is_some() {
            return;
        }
        // One line, and how to report it: a backtrace would bury both.
        tell(format_args!("error: internal error (a bug in detect): {info}"));
        tell(format_args!("       please report it with the command that you ran"));
    }));
    match std::panic::catch_unwind(body) {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) if is_broken_pipe(&error) => Exit::Done,
        Ok(Err(error)) => {
            if is_of_stdout(&error) {
                tell(format_args!("error: cannot write to standard output: {error}"));
                return Exit::Output;
            }
            tell(format_args!("error: {error:#}"));
            let exit = Exit::of(&error);
            match exit {
                Exit::Internal => tell(format_args!(
                    "       this is a bug in detect: please report it with the command that you ran"
                )),
                Exit::Memory => tell(format_args!("       {LESS_MEMORY}")),
                _ => {}
            }
            exit
        }
        Err(payload) => match out_of_memory(&*payload) {
            Some(reason) => {
                tell(format_args!("error: out of memory: {reason}"));
                tell(format_args!("       {LESS_MEMORY}"));
                Exit::Memory
            }
            None => Exit::Internal,
        },
    }
}

/// Whether stdout was closed early (`detect ... | head -1`), which is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Whether what was to be printed could not be: that alone is passed on as the system told it.
fn is_of_stdout(error: &anyhow::Error) -> bool {
    error.is::<io::Error>() && error.chain().count() == 1
}

/// Prints a line of an error. Where that can't be done, the exit code still tells.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Talk goes to stderr without times; `RUST_LOG` says how much.
fn start_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second call (tests) changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_target(false)
        .without_time()
        // It would tell on stderr that stderr can't be written to, and panic.
        .log_internal_errors(false)
        .try_init();
}
