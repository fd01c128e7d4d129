//! Files that hold weights, without a tensor library.

pub mod file;

pub use file::{Contents, Element, StoredTensor, WeightsError};
