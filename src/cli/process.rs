//! A verb as a whole process: its talk, its error and its exit code.

use std::process::ExitCode;

use crate::failure::{Exit, out_of_memory};

const LESS_MEMORY: &str = "try a smaller --batch or --image-size; in training, --accumulate keeps the batch and takes it in parts";

/// Runs `body` as the whole program: prints its error once, catches a panic, and gives the exit code.
pub fn finish(body: impl FnOnce() -> anyhow::Result<Exit> + std::panic::UnwindSafe) -> ExitCode {
    end(body).into()
}

/// [`finish`] for a program that has to know how it ends.
#[expect(clippy::print_stderr, reason = "the one place that prints an error")]
pub fn end(body: impl FnOnce() -> anyhow::Result<Exit> + std::panic::UnwindSafe) -> Exit {
    start_tracing();
    std::panic::set_hook(Box::new(|info| {
        // Told below, if nobody finds a way to go on with less.
        if out_of_memory(info.payload()).is_some() {
            return;
        }
        // One line, and how to report it: a backtrace would bury both.
        eprintln!("error: internal error (a bug in detect): {info}");
        eprintln!("       please report it with the command that you ran");
    }));
    match std::panic::catch_unwind(body) {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) if is_broken_pipe(&error) => Exit::Done,
        Ok(Err(error)) => {
            eprintln!("error: {error:#}");
            let exit = Exit::of(&error);
            match exit {
                Exit::Internal => eprintln!(
                    "       this is a bug in detect: please report it with the command that you ran"
                ),
                Exit::Memory => eprintln!("       {LESS_MEMORY}"),
                _ => {}
            }
            exit
        }
        Err(payload) => match out_of_memory(&*payload) {
            Some(reason) => {
                eprintln!("error: out of memory: {reason}");
                eprintln!("       {LESS_MEMORY}");
                Exit::Memory
            }
            None => Exit::Internal,
        },
    }
}

/// Whether stdout was closed early (`detect ... | head -1`), which is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
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
        .try_init();
}
