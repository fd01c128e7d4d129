//! Networks that are ready for images, whatever computes them: what the verbs ask of an engine.
//!
//! The native engine is [`engine`](crate::engine); the package `detect-torch` has another, on tensors.

use crate::data::loader::Batch;
use crate::geometry::{Detection, Size};
use crate::weights::{ClassifierInfo, ModelInfo, StoredTensor};

/// Prepared images of one size.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// Normalised red, green, blue, `[N, H, W, 3]`.
    pub pixels: &'a [f32],
    /// N; may be 0.
    pub count: usize,
    /// H and W, at least 3.
    pub size: Size,
}

/// A detector with its weights.
pub trait DetectorModel {
    /// Configuration and categories.
    fn info(&self) -> &ModelInfo;

    /// The detections of each image in *original* pixels, best score first.
    ///
    /// # Panics
    /// Where memory runs out, with a message that [`out_of_memory`](crate::failure::out_of_memory) knows.
    fn detect(&self, batch: &Batch) -> Vec<Vec<Detection>>;
}

/// A classifier with its weights.
pub trait ClassifierModel {
    /// Network, preprocessing and classes.
    fn info(&self) -> &ClassifierInfo;

    /// A logit of each class for each image: N lists of K. Images of another size than the
    /// preprocessing's are taken too.
    ///
    /// # Panics
    /// As [`DetectorModel::detect`].
    fn logits(&self, images: Images<'_>) -> Vec<Vec<f32>>;
}

/// A featurizer with its weights, with its classifier where the file has one.
pub trait FeatureModel {
    /// Every named intermediate, raw (before ReLU), in the order of computation, and `logits` at the end
    /// where there is a classifier: `[N, C, H, W]` and `[N, K]`, in 32 bits.
    ///
    /// # Panics
    /// As [`DetectorModel::detect`].
    fn maps(&self, images: Images<'_>) -> Vec<(String, StoredTensor)>;

    /// The last of them alone, without keeping the others.
    ///
    /// # Panics
    /// As [`DetectorModel::detect`].
    fn last(&self, images: Images<'_>) -> StoredTensor;
}
