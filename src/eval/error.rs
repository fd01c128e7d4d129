//! Why a pair of files can't be scored: which file, which entry, and what to do.

use std::path::PathBuf;

use thiserror::Error;

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
