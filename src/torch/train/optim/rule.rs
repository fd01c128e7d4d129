//! The rules that turn gradients into steps, each a few operations on flat tensors.

use detect::config::Optimizer;
use tch::Tensor;

/// A rule and what it remembers.
#[derive(Debug)]
pub(super) struct Rule {
    settings: Optimizer,
    /// SGD's and RMSProp's velocity, Adam's mean gradient.
    velocity: Tensor,
    /// RMSProp's and Adam's mean square.
    square: Option<Tensor>,
}

impl Rule {
    /// For weights like `weights`.
    pub(super) fn new(settings: Optimizer, weights: &Tensor) -> Self {
        let square = match settings {
            Optimizer::Sgd { .. } => None,
            // TensorFlow 1 starts from ones, which holds the first steps down.
            Optimizer::RmsProp { .. } => Some(weights.detach().ones_like()),
            Optimizer::AdamW { .. } => Some(weights.detach().zeros_like()),
        };
        Self { settings, velocity: weights.detach().zeros_like(), square }
    }

    /// What it remembers: `""` or what goes behind a weight's name in files, and the flat tensor.
    pub(super) fn state(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        [("", &self.velocity)].into_iter().chain(self.square.as_ref().map(|s| (".square", s)))
    }

    /// Moves `weights` by `gradients`, which it may overwrite. `step` counts from 0.
    pub(super) fn step(
        &mut self,
        weights: &mut Tensor,
        gradients: &mut Tensor,
        lr: f64,
        step: usize,
    ) {
        // `addcmul_` with a scalar tensor is one pass without a temporary; tch's `add` takes no factor.
        let scalar = |x: f64| Tensor::full([0_i64; 0], x, (weights.kind(), weights.device()));
        let (velocity, square) = (&mut self.velocity, self.square.as_mut());
        match (self.settings, square) {
            (Optimizer::Sgd { momentum }, _) => {
                let _ = velocity.g_mul_scalar_(momentum);
                let _ = velocity.g_add_(gradients);
                let _ = weights.addcmul_(velocity, &scalar(-lr));
            }
            (Optimizer::RmsProp { rho, momentum, eps }, Some(square)) => {
                let _ = square.lerp_(&gradients.square(), 1. - rho);
                let _ = gradients.g_mul_scalar_(lr);
                let _ = velocity.g_mul_scalar_(momentum);
                let _ = velocity.addcdiv_(gradients, &(&*square + eps).sqrt());
                let _ = weights.g_sub_(velocity);
            }
            (Optimizer::AdamW { betas, eps }, Some(square)) => {
                let [mean_bias, square_bias] = betas.map(|b| 1. - b.powf((step + 1) as f64));
                let _ = velocity.lerp_(gradients, 1. - betas[0]);
                let _ = square.lerp_(&gradients.square(), 1. - betas[1]);
                let root = (&*square / square_bias).sqrt() + eps;
                let _ = weights.addcdiv_(&(&*velocity * (-lr / mean_bias)), &root);
            }
            (_, None) => unreachable!("all but SGD have a mean square"),
        }
    }
}
