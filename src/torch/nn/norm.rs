//! Batch norm: live, frozen, or with frozen statistics.

use detect::config::{Backbone, NormMode};
use tch::Tensor;
use tch::nn::Path;

use super::Mode;

/// What all batch norms of a part of a network share.
#[derive(Debug, Clone, Copy)]
pub struct NormSettings {
    /// Added to the variance.
    pub eps: f64,
    /// Share of the batch's statistics in the running ones at each step.
    pub momentum: f64,
    /// Whether it learns during training.
    pub mode: NormMode,
}

impl NormSettings {
    /// Of the cells that see the image.
    pub fn trunk(section: &Backbone) -> Self {
        Self { eps: section.norm_eps, momentum: section.norm_momentum, mode: section.norm }
    }

    /// Of the cells from the second reduction on.
    pub fn tail(section: &Backbone) -> Self {
        Self { mode: section.tail_norm, ..Self::trunk(section) }
    }
}

/// Batch norm over channels.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    settings: NormSettings,
}

impl BatchNorm {
    /// Makes scale, offset, running mean and running variance under `path` by `names` (dotted): the
    /// identity at first.
    pub fn new(path: &Path, names: &[String; 4], channels: usize, settings: NormSettings) -> Self {
        let shape = [channels as i64];
        let [weight, bias, mean, var] = names.each_ref().map(|name| super::place(path, name));
        // Frozen batch norm does not learn its gamma and beta either.
        let frozen = settings.mode == NormMode::Frozen;
        let (weight, bias) = if frozen {
            (weight.0.ones_no_train(weight.1, &shape), bias.0.zeros_no_train(bias.1, &shape))
        } else {
            (weight.0.ones(weight.1, &shape), bias.0.zeros(bias.1, &shape))
        };
        Self {
            weight,
            bias,
            running_mean: mean.0.zeros_no_train(mean.1, &shape),
            running_var: var.0.ones_no_train(var.1, &shape),
            settings,
        }
    }

    /// `[N, C, H, W]` to the same. In training a live norm uses the batch's statistics and moves the
    /// running ones.
    pub fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let live = mode.is_train()
            && self.settings.mode == NormMode::Live
            // `train.freeze` takes the gradient away.
            && self.weight.requires_grad();
        let again = live && matches!(mode, Mode::Again { .. });
        let running = |statistic| (!again).then_some(statistic);
        xs.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            running(&self.running_mean),
            running(&self.running_var),
            live,
            self.settings.momentum,
            self.settings.eps,
            true,
        )
    }
}
