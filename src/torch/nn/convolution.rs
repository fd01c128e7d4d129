//! Convolution without bias: every convolution of NASNet, the classifier apart.

use tch::Tensor;
use tch::nn::Path;

use super::linear::Init;
use super::same;

/// A square convolution without bias.
#[derive(Debug)]
pub struct Convolution {
    /// `[C_out, C_in / groups, k, k]`.
    pub weight: Tensor,
    stride: i64,
    groups: i64,
}

impl Convolution {
    /// Makes `path.weight`. With `groups = C_in` it is depthwise.
    pub fn new(
        path: &Path,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> Self {
        let shape = [outputs, inputs / groups, kernel, kernel].map(|n| n as i64);
        let weight = Init::PytorchDefault.weight(path, "weight", &shape);
        Self { weight, stride: stride as i64, groups: groups as i64 }
    }

    /// A 1x1 convolution of stride 1.
    pub fn pointwise(path: &Path, inputs: usize, outputs: usize) -> Self {
        Self::new(path, inputs, outputs, 1, 1, 1)
    }

    /// A convolution of each channel by itself.
    pub fn depthwise(path: &Path, channels: usize, kernel: usize, stride: usize) -> Self {
        Self::new(path, channels, channels, kernel, stride, channels)
    }

    /// With TensorFlow's SAME padding.
    ///
    /// # Shapes
    /// `[N, C_in, H, W]` to `[N, C_out, ceil(H / stride), ceil(W / stride)]`.
    pub fn same(&self, xs: &Tensor) -> Tensor {
        let kernel = self.weight.size()[2];
        let (xs, padding) = same::pad(xs, kernel, self.stride);
        self.with_padding(&xs, padding)
    }

    /// Without padding.
    ///
    /// # Shapes
    /// `[N, C_in, H, W]` to `[N, C_out, floor((H - k) / stride) + 1, ..]`.
    pub fn valid(&self, xs: &Tensor) -> Tensor {
        self.with_padding(xs, [0, 0])
    }

    fn with_padding(&self, xs: &Tensor, padding: [i64; 2]) -> Tensor {
        xs.conv2d::<Tensor>(
            &self.weight,
            None,
            [self.stride, self.stride],
            padding,
            [1, 1],
            self.groups,
        )
    }
}
