//! Inference on a CPU without a tensor library: frozen networks on slices of floats.
//!
//! Everything is `[.., H, W, C]` with channels innermost, so that a pixel is a vector and a pointwise convolution is
//! a matrix product over rows of pixels. What a network decides on plain numbers stands in [`crate::rules`], shared
//! with the engine on tensors.
//!
//! - `layers`, `walk`, `work`, `layout`, `program`, `network`: the featurizer, from the plan that the tensor path walks, too, to steps of
//!   `detect-kernel`, which go through `workers`;
//! - [`map`]: a feature map;
//! - [`dense`]: a linear layer on rows;
//! - [`detector`]: Faster R-CNN on any [`Featurizer`].

pub mod dense;
pub mod detector;
mod layers;
mod layout;
pub mod map;
mod models;
mod network;
mod program;
mod walk;
mod work;
mod workers;

use crate::geometry::Size;
use map::Map;
pub use models::{Classifier, Cpu, Detector, Features};

/// What the heads of a detector need to know of a featurizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutSpec {
    /// Channels of the trunk's map.
    pub channels: usize,
    /// Input pixels for each of its cells.
    pub stride: usize,
    /// Length of the vector that the tail gives for a region.
    pub tail_channels: usize,
}

/// A featurizer in two parts: the trunk sees the image once, the tail sees each region.
pub trait Featurizer: Sync {
    /// Sizes of what it gives.
    fn spec(&self) -> CutSpec;
    /// `[N, H, W, 3]` of `images` images of `size` to `[N, H / stride, W / stride, C]`.
    fn trunk(&self, pixels: &[f32], images: usize, size: Size) -> Map;
    /// `[R, k, k, C]` to `[R, D]`.
    fn tail(&self, crops: &Map) -> Vec<f32>;
}
