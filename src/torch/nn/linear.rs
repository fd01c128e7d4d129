//! Linear layers and convolutions with bias, and how weights start.

use tch::Tensor;
use tch::nn::Path;
use tch::nn::init::Init as TchInit;

/// How a weight starts.
#[derive(Debug, Clone, Copy)]
pub enum Init {
    /// PyTorch's default for linear layers and convolutions: uniform within `1 / sqrt(fan_in)`.
    PytorchDefault,
    /// Uniform within `sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio 2010), with biases of 0.
    Xavier,
    /// Normal with mean 0, with biases of 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

impl Init {
    /// Makes the trainable weight `path.name` of `shape`, whose first dimension counts the outputs.
    pub fn weight(self, path: &Path, name: &str, shape: &[i64]) -> Tensor {
        let fan_in: i64 = shape[1..].iter().product();
        let init = match self {
            Self::PytorchDefault => {
                let up = 1. / (fan_in.max(1) as f64).sqrt();
                TchInit::Uniform { lo: -up, up }
            }
            Self::Xavier => {
                let fan_out = shape[0] * shape[2..].iter().product::<i64>();
                let up = (6. / (fan_in + fan_out).max(1) as f64).sqrt();
                TchInit::Uniform { lo: -up, up }
            }
            Self::Normal { std } => TchInit::Randn { mean: 0., stdev: std },
        };
        path.var(name, shape, init)
    }
}

/// `y = x W^T + b`, also as a convolution where the weight has four dimensions.
#[derive(Debug)]
pub struct Linear {
    /// `[outputs, inputs]` or `[outputs, inputs, k, k]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Tensor,
}

impl Linear {
    /// Makes `path.weight` of `shape` and `path.bias`.
    pub fn new(path: &Path, shape: &[i64], init: Init) -> Self {
        let weight = init.weight(path, "weight", shape);
        let bias = match init {
            Init::PytorchDefault => {
                let fan_in: i64 = shape[1..].iter().product();
                let up = 1. / (fan_in.max(1) as f64).sqrt();
                path.var("bias", &shape[..1], TchInit::Uniform { lo: -up, up })
            }
            Init::Normal { .. } | Init::Xavier => path.zeros("bias", &shape[..1]),
        };
        Self { weight, bias }
    }

    /// `[R, inputs]` to `[R, outputs]`.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        xs.linear(&self.weight, Some(&self.bias))
    }

    /// As a convolution of stride 1 that keeps the size: `[N, inputs, H, W]` to `[N, outputs, H, W]`.
    pub fn convolve(&self, xs: &Tensor) -> Tensor {
        let padding = self.weight.size()[2] / 2;
        xs.conv2d(&self.weight, Some(&self.bias), [1, 1], [padding, padding], [1, 1], 1)
    }
}
