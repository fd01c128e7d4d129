//! Layers: what NASNet's cells are made of, with TensorFlow's padding.
//!
//! A layer is a struct with named tensors and a `forward`; parameter names are the published ones.

mod channel_norm;
mod convolution;
mod linear;
mod norm;
pub mod same;
pub mod synchronised;
mod unit;

pub use channel_norm::{ChannelNorm, Over};
pub use convolution::{Convolution, Walk};
pub use linear::{Init, Linear};
pub use norm::{BatchNorm, NormSettings};
pub use unit::Unit;

use tch::Tensor;
use tch::nn::Path;

/// Whether the network learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Learning. `progress` is the share of all steps that are done, for scheduled drop path.
    Train {
        /// 0 to 1.
        progress: f64,
    },
    /// A second forward pass of the same, for the gradients alone: batch norm leaves its running
    /// statistics as they are.
    Again {
        /// 0 to 1.
        progress: f64,
    },
    /// Not learning: batch norm uses its running statistics, no path is dropped.
    Eval,
}

impl Mode {
    /// Whether this is training.
    pub fn is_train(self) -> bool {
        self.progress().is_some()
    }

    /// The share of all steps that are done, in training.
    pub fn progress(self) -> Option<f64> {
        match self {
            Self::Train { progress } | Self::Again { progress } => Some(progress),
            Self::Eval => None,
        }
    }

    /// The mode of a second pass.
    #[must_use]
    pub fn again(self) -> Self {
        match self {
            Self::Train { progress } => Self::Again { progress },
            other => other,
        }
    }
}

/// `[N, C, H, W]` of a map.
///
/// # Panics
/// If it has another rank: a bug of ours, named with the shape that came.
#[track_caller]
pub fn nchw(map: &Tensor) -> [i64; 4] {
    let size = map.size();
    <[i64; 4]>::try_from(size.as_slice())
        .unwrap_or_else(|_| panic!("expected [N, C, H, W], got {size:?}"))
}

/// The same tensor with channels innermost in memory, which libtorch's convolutions then keep.
///
/// # Shapes
/// `[N, C, H, W]` to the same.
pub fn channels_last(map: &Tensor) -> Tensor {
    map.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Where the tensor with the dotted name `name` lies under `path`, and its last word: published names
/// are dotted, and tch takes one step at a time.
fn place<'p, 'n>(path: &Path<'p>, name: &'n str) -> (Path<'p>, &'n str) {
    match name.rsplit_once('.') {
        Some((module, leaf)) => (at(path, module), leaf),
        None => (path.clone(), name),
    }
}

/// The place `dotted` under `path`: published names are dotted, and tch takes one step at a time.
pub fn at<'a>(path: &Path<'a>, dotted: &str) -> Path<'a> {
    dotted.split('.').fold(path.clone(), |path, step| path / step)
}

/// Held by a test that draws numbers: all threads draw from libtorch's one generator.
#[cfg(test)]
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
