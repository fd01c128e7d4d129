//! Published weight files, read one tensor at a time.
//!
//! A network of 400 MB is imported within little more than its own size: a reader lists what a file
//! holds, and the importer takes each tensor when it writes it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::{Element, StoredTensor, WeightsError};

/// What a file says of a tensor before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Kind of its elements.
    pub element: Element,
    /// Sides, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

/// A file of named tensors in some format.
pub trait Source: Debug {
    /// Every numeric tensor by the file's own name.
    fn tensors(&self) -> &BTreeMap<String, TensorInfo>;

    /// Whether the file may hold constants that are no weights, as a graph does.
    fn has_other_constants(&self) -> bool {
        false
    }

    /// Reads one tensor: row-major, little-endian, of the shape that [`Self::tensors`] says. Where the
    /// format has a checksum it is verified here at the latest.
    fn read(&mut self, name: &str) -> Result<StoredTensor, WeightsError>;
}
