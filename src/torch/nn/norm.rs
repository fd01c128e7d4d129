//! Batch norm: live, over several processes, frozen, or with frozen statistics.

use detect::config::{Backbone, NormMode};
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::synchronised::{self, Shared};
use super::{Mode, nchw};
use crate::precision::widened;
use crate::shim;

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
            && matches!(self.settings.mode, NormMode::Live | NormMode::Synchronised)
            // `train.freeze` takes the gradient away.
            && self.weight.requires_grad();
        let again = live && matches!(mode, Mode::Again { .. });
        let shared = synchronised::current();
        if live && self.settings.mode == NormMode::Synchronised {
            return self.over(shared, xs, !again);
        }
        // What stands in for a batch that is not there teaches nothing.
        let learns_statistics = !again && (!live || shared.takes_part);
        let running = |statistic| learns_statistics.then_some(statistic);
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

    /// [`Self::forward`] of a norm whose batch is shared: its mean and variance are those of what all processes have,
    /// and so are the gradients. One process computes alike, so that a run does not hang on how many there are: between
    /// this and libtorch's kernel lies rounding, which a ReLU or a maximum can make a difference of.
    fn over(&self, shared: Shared, xs: &Tensor, learns_statistics: bool) -> Tensor {
        let [n, channels, h, w] = nchw(xs);
        let (wide, share) = (widened(xs), shared.share());
        let of_channel = |t: &Tensor| t.to_kind(wide.kind()).view([1, channels, 1, 1]);
        let sum = |xs: &Tensor| {
            let dims: &[i64] = &[0, 2, 3];
            xs.sum_dim_intlist(dims, false, None).to_kind(Kind::Double) * share
        };
        let values = Tensor::full([1], (n * h * w) as f64 * share, (Kind::Double, xs.device()));
        let sums = shim::summed(&Tensor::cat(&[sum(&wide), values], 0), shared.group); // [C + 1]
        let values = sums.narrow(0, channels, 1).detach().clamp_min(1.);
        let mean = sums.narrow(0, 0, channels) / &values;
        let centred = &wide - of_channel(&mean);
        let variance = shim::summed(&sum(&(&centred * &centred)), shared.group) / &values;
        if learns_statistics {
            tch::no_grad(|| {
                // As libtorch's: the variance that is kept is that of a sample.
                let unbiased = &variance * (&values / (&values - 1.).clamp_min(1.));
                // Nothing, where no process has anything.
                let weight = sums.narrow(0, channels, 1).sign() * self.settings.momentum;
                for (running, found) in
                    [(&self.running_mean, &mean), (&self.running_var, &unbiased)]
                {
                    let kind = running.kind();
                    let (found, weight) = (found.to_kind(kind), weight.to_kind(kind));
                    let _ = running.shallow_clone().lerp_tensor_(&found, &weight);
                }
            });
        }
        let scale = self.weight.to_kind(Kind::Double) * (variance + self.settings.eps).rsqrt();
        (centred * of_channel(&scale) + of_channel(&self.bias)).to_kind(xs.kind())
    }
}
