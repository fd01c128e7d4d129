//! NASNet's separable convolution: twice ReLU, depthwise, pointwise, batch norm.

use detect::nasnet::names;
use tch::Tensor;
use tch::nn::Path;

use super::{BatchNorm, Convolution, Mode, NormSettings, at};

/// One half: depthwise, pointwise, batch norm. The ReLU before it is the caller's.
#[derive(Debug)]
struct Half {
    depthwise: Convolution,
    pointwise: Convolution,
    norm: BatchNorm,
}

/// The whole operation. Only the first half is strided and changes the width.
#[derive(Debug)]
pub struct Separable {
    halves: [Half; 2],
}

impl Separable {
    /// Makes the tensors of the operation `name` (`<cell>.comb_iter_<row>_<side>`) under `path`.
    pub fn new(
        path: &Path,
        name: &str,
        kernel: usize,
        stride: usize,
        channels: [usize; 2],
        norm: NormSettings,
    ) -> Self {
        let [inputs, outputs] = channels;
        let half = |index: usize, inputs: usize, stride: usize| {
            let [depthwise, pointwise, norm_name] = names::separable(name, index);
            Half {
                depthwise: Convolution::depthwise(&at(path, &depthwise), inputs, kernel, stride),
                pointwise: Convolution::pointwise(&at(path, &pointwise), inputs, outputs),
                norm: BatchNorm::new(&at(path, &norm_name), outputs, norm),
            }
        };
        Self { halves: [half(0, inputs, stride), half(1, outputs, 1)] }
    }

    /// `activated` is the input after ReLU, which the caller shares among all that read it.
    ///
    /// # Shapes
    /// `[N, C_in, H, W]` to `[N, C_out, ceil(H / stride), ceil(W / stride)]`.
    pub fn forward(&self, activated: &Tensor, mode: Mode) -> Tensor {
        let [first, second] = &self.halves;
        let middle = first.forward(activated, mode).relu();
        second.forward(&middle, mode)
    }
}

impl Half {
    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        self.norm.forward(&self.pointwise.same(&self.depthwise.same(xs)), mode)
    }
}
