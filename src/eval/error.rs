//! Why a pair of files can't be scored: which file, which entry, and what to do.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::json::SyntaxError;

/// Why there is no score. `file` is the path, or `annotations` / `results` for data from memory.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The file can't be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no JSON.
    #[error("{} is not valid JSON: {problem} at byte {offset} (line {line})", file.display())]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// Bytes before the place.
        offset: usize,
        /// Line of the place, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// JSON, but not of the form that COCO gives such a file.
    #[error("{}: {problem}", file.display())]
    Form {
        /// Which file.
        file: PathBuf,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// An entry of a list lacks something or holds something unusable.
    #[error("{}: {list}[{index}]: {problem}", file.display())]
    Entry {
        /// Which file.
        file: PathBuf,
        /// `images`, `categories`, `annotations` or `results`.
        list: &'static str,
        /// Place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The results file is an empty list.
    #[error(
        "{} holds no detection at all, so there is nothing to score; did the detector run?",
        file.display()
    )]
    NoDetections {
        /// Which file.
        file: PathBuf,
    },
    /// The settings can't be evaluated.
    #[error("{problem}")]
    Settings {
        /// What is wrong.
        problem: String,
    },
    /// An image or a category is asked for that the annotations do not list.
    #[error("{} does not list all that is asked for; {what} ids that it lacks: {first}{advice}", annotations.display())]
    UnknownChoice {
        /// The annotations file.
        annotations: PathBuf,
        /// `image` or `category`.
        what: &'static str,
        /// The first ten distinct ids, and how many more there are.
        first: String,
        /// Of those that are names of categories, the ids; begins with what parts it from the rest.
        advice: String,
    },
    /// Detections on images that the annotations do not list.
    #[error(
        "{}: {detections} of {all} detections have an image_id that {} does not list: {first}; {advice}",
        file.display(),
        annotations.display()
    )]
    UnknownImages {
        /// The results file.
        file: PathBuf,
        /// The annotations file.
        annotations: PathBuf,
        /// Detections on such images.
        detections: usize,
        /// Detections in all.
        all: usize,
        /// The first ten distinct ids, in file order, and how many more there are.
        first: String,
        /// The likely cause.
        advice: &'static str,
    },
}

impl EvalError {
    pub(super) fn read(file: &Path, source: std::io::Error) -> Self {
        Self::Read { file: file.to_owned(), source }
    }

    /// `bytes` are those of the file, at least up to the place.
    pub(super) fn syntax(file: &Path, bytes: &[u8], error: &SyntaxError) -> Self {
        let before = &bytes[..error.offset.min(bytes.len())];
        Self::Syntax {
            file: file.to_owned(),
            offset: error.offset,
            line: before.split(|&b| b == b'\n').count(),
            problem: error.problem.to_owned(),
        }
    }
}
