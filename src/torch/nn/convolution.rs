//! Convolution without bias: every convolution of NASNet, the classifier apart.

use tch::Tensor;
use tch::nn::Path;

use super::linear::Init;
use super::same;

/// How a convolution walks over its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// Down and across.
    pub stride: [i64; 2],
    /// Distance of the kernel's taps.
    pub dilation: i64,
    /// With as many groups as channels it is depthwise.
    pub groups: i64,
}

impl Walk {
    /// Every pixel, all channels.
    pub const DENSE: Self = Self { stride: [1, 1], dilation: 1, groups: 1 };
}

/// A convolution without bias.
#[derive(Debug)]
pub struct Convolution {
    /// `[C_out, C_in / groups, k_h, k_w]`.
    pub weight: Tensor,
    walk: Walk,
}

impl Convolution {
    /// Makes the tensor `name` (dotted) of `shape` `[C_out, C_in / groups, k_h, k_w]` under `path`.
    pub fn new(path: &Path, name: &str, shape: &[usize], walk: Walk) -> Self {
        let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let (path, leaf) = super::place(path, name);
        Self { weight: Init::PytorchDefault.weight(&path, leaf, &shape), walk }
    }

    /// With TensorFlow's SAME padding.
    ///
    /// # Shapes
    /// `[N, C_in, H, W]` to `[N, C_out, ceil(H / stride), ceil(W / stride)]`.
    pub fn same(&self, xs: &Tensor) -> Tensor {
        let size = self.weight.size();
        let reach = |k: i64| (k - 1) * self.walk.dilation + 1;
        let (xs, padding) = same::pad(xs, [reach(size[2]), reach(size[3])], self.walk.stride);
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
        let Walk { stride, dilation, groups } = self.walk;
        xs.conv2d::<Tensor>(&self.weight, None, stride, padding, [dilation, dilation], groups)
    }
}
