//! Images and annotations: from files on disk to batches without tensors.

pub mod augment;
pub mod check;
pub mod classify;
pub mod coco;
pub mod convert;
mod fingerprint;
pub mod image;
pub mod image_folder;
pub mod layout;
pub mod loader;
mod raw;
pub mod sampling;
mod shelf;
mod turns;

use std::path::Path;

use serde::Serializer;

pub use coco::{Annotation, Category, Dataset, ImageRecord};
pub use fingerprint::Fingerprint;
pub use image_folder::ImageFolder;
pub use layout::splits;
pub(crate) use raw::plain_json;

/// A path in a report: JSON has no others than those in UTF-8, so what is not is replaced.
pub(crate) fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}
