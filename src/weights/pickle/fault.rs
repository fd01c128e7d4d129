//! What can go wrong while a file is read, before it is known as which file's error it ends.

use std::io;
use std::path::Path;

use crate::weights::WeightsError;

/// An error that does not know its file yet.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file can't be read.
    Io(io::Error),
    /// The file is wrong, and where.
    Broken(String),
}

impl Fault {
    /// `what` went wrong at `place`.
    pub(super) fn at(self, place: &str) -> Self {
        match self {
            Self::Broken(what) => Self::Broken(format!("{place}: {what}")),
            io @ Self::Io(_) => io,
        }
    }

    /// The error of the file `path`.
    pub(super) fn of(self, path: &Path) -> WeightsError {
        match self {
            Self::Io(source) => WeightsError::Read { path: path.into(), source },
            Self::Broken(reason) => {
                WeightsError::Broken { path: path.into(), format: "PyTorch", reason }
            }
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Broken("it ends too early".into()),
            // What the decoder of deflated data says of data that is none.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                Self::Broken(format!("its compressed data is damaged ({error})"))
            }
            _ => Self::Io(error),
        }
    }
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Broken(what)
    }
}

impl From<&str> for Fault {
    fn from(what: &str) -> Self {
        Self::Broken(what.into())
    }
}

/// The memory that reading a file may still take. What is taken is never given back: the sum of all
/// that was ever made is bounded, and the time with it.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    whole: u64,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { left: bytes, whole: bytes }
    }

    /// Takes `bytes`, before they are allocated.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Fault> {
        let Some(left) = self.left.checked_sub(bytes) else {
            return Err(Fault::Broken(format!(
                "its description would take more than {} bytes of memory, too much for a file of its size",
                self.whole
            )));
        };
        self.left = left;
        Ok(())
    }
}
