//! How the program ends: exit codes, and errors that carry one.
//!
//! Any `anyhow::Error` can be given an exit code on its way up with [`OrExit::or_exit`]; `main` prints
//! the chain once and ends with [`Exit::of`]. An error without a code is a bug of ours.

use std::any::Any;
use std::fmt;

/// The exit codes of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Done, but at least one input failed; each was named on stderr.
    SomeInputsFailed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Bad data set or file.
    Data = 3,
    /// Bad weights.
    Weights = 4,
    /// Disk or output.
    Output = 5,
    /// The run folder is in use by another process.
    Busy = 6,
    /// Out of memory.
    Memory = 7,
    /// The loss is not finite.
    NonFinite = 8,
    /// A bug in this program.
    Internal = 9,
    /// Stopped by SIGINT after saving.
    Interrupted = 130,
    /// Stopped by SIGTERM or SIGUSR1 after saving.
    Terminated = 143,
}

impl Exit {
    /// The code that `error` carries, or [`Exit::Internal`] where it carries none.
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(|e| e.downcast_ref::<Coded>()).map_or(Self::Internal, |c| c.exit)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error and the exit code it leads to. Shown as the error itself.
#[derive(Debug)]
struct Coded {
    exit: Exit,
    error: anyhow::Error,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The whole chain on one line: the outer error prints only its own links.
        write!(f, "{:#}", self.error)
    }
}

impl std::error::Error for Coded {}

/// Gives an error its exit code.
pub trait OrExit<T> {
    /// Ends the program with `exit` if this error reaches `main`. A code given earlier wins.
    fn or_exit(self, exit: Exit) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> anyhow::Result<T> {
        self.map_err(|error| with_exit(exit, error.into()))
    }
}

/// `error`, with an exit code unless it has one.
pub fn with_exit(exit: Exit, error: anyhow::Error) -> anyhow::Error {
    let coded = error.chain().find_map(|e| e.downcast_ref::<Coded>()).is_some();
    if coded { error } else { anyhow::Error::new(Coded { exit, error }) }
}

/// `bail!` with an exit code: `return fail!(Exit::Usage, "no such split '{name}'")`.
#[macro_export]
macro_rules! fail {
    ($exit:expr, $($message:tt)*) => {
        Err($crate::failure::with_exit($exit, anyhow::anyhow!($($message)*)))
    };
}

/// The message of a panic.
pub fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// What a tensor library's panic says of memory that ran out; `None` where it is about something else.
/// There is no type for it, on a CPU or on a GPU: the message is all there is.
pub fn out_of_memory(payload: &(dyn Any + Send)) -> Option<String> {
    const MARKS: [&str; 7] = [
        "DefaultCPUAllocator: can't allocate memory",
        "DefaultCPUAllocator: not enough memory",
        "CUDA out of memory",
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "std::bad_alloc",
    ];
    let text = panic_text(payload);
    let at = MARKS.iter().find_map(|mark| text.find(mark))?;
    // Up to the end of the line, which an error shown by its `Debug` has as two characters.
    let line = text[at..].split(['\n', '"']).next().unwrap_or_default();
    Some(line.split("\\n").next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_first_code_wins_and_the_whole_chain_is_shown() {
        let inner: anyhow::Result<()> =
            Err(anyhow::anyhow!("no space left")).context("cannot write x");
        let outer = inner
            .or_exit(Exit::Output)
            .context("saving the checkpoint")
            .or_exit(Exit::Usage)
            .expect_err("it is an error");
        assert_eq!(Exit::of(&outer), Exit::Output);
        assert_eq!(format!("{outer:#}"), "saving the checkpoint: cannot write x: no space left");
    }

    #[test]
    fn only_memory_that_ran_out_is_told_as_such() {
        let of = |text: &str| out_of_memory(&text.to_owned() as &(dyn Any + Send));
        // As tch 0.24 panics on a CPU and on a GPU.
        let cpu = r#"called `Result::unwrap()` on an `Err` value: Torch("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes. Error code 12 (Cannot allocate memory)\nException raised from alloc_cpu")"#;
        let expected = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes. Error code 12 (Cannot allocate memory)";
        assert_eq!(of(cpu).as_deref(), Some(expected));
        let gpu = "CUDA out of memory. Tried to allocate 2 GiB.\nException";
        assert_eq!(of(gpu).as_deref(), Some("CUDA out of memory. Tried to allocate 2 GiB."));
        assert_eq!(of("mat1 and mat2 shapes cannot be multiplied"), None);
        assert_eq!(out_of_memory(&7_i32), None);
    }

    #[test]
    fn an_error_without_a_code_is_a_bug() {
        assert_eq!(Exit::of(&anyhow::anyhow!("what?")), Exit::Internal);
    }
}
