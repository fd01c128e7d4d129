//! Why a data set is not converted.

use std::io;
use std::path::PathBuf;

use crate::data::coco::DataError;
use crate::failure::Exit;

/// Why no folder was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum ConvertError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}{}: {problem}", path.display(), line.map_or(String::new(), |n| format!(", line {n}")))]
    Bad { path: PathBuf, line: Option<usize>, problem: String },
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(
        "{} is no data set in a form that is known (looked for: VOC's .xml files with <annotation>; \
         YOLO's data.yaml, obj.data, obj.names, classes.txt or folder labels/; .csv files with columns \
         for file, corners and class; .json files in COCO's form){passed}", path.display()
    )]
    Unknown { path: PathBuf, passed: String },
    #[error("{} could be {found}: say which with --from", path.display())]
    Several { path: PathBuf, found: String },
    #[error("{} has nothing in the form '{what}'", path.display())]
    Nothing { path: PathBuf, what: &'static str },
    #[error("nothing of {} could be used: {why}", path.display())]
    NothingLeft { path: PathBuf, why: String },
    #[error("{message}")]
    Usage { message: String },
    #[error("{} is not an empty folder: name one that does not exist yet", path.display())]
    Used { path: PathBuf },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl ConvertError {
    /// How the program ends with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Several { .. } | Self::Usage { .. } | Self::Used { .. } => Exit::Usage,
            Self::Write { .. } => Exit::Output,
            _ => Exit::Data,
        }
    }

    /// A [`ConvertError::Bad`].
    pub(super) fn bad(
        path: impl Into<PathBuf>,
        line: impl Into<Option<usize>>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Bad { path: path.into(), line: line.into(), problem: problem.into() }
    }
}
