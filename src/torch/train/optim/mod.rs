//! Optimizers over flat tensors, with a state that can be saved: decay, clipping, and the rule.

pub mod average;
pub mod flat;
mod rule;

use std::path::Path;

use detect::config::{Clip, Decay, Train, WeightDecay};
use detect::weights::{Contents, WeightsError};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::weights::load_into;
use flat::Layout;
use rule::Rule;

/// Moves the variables of a store that require a gradient.
#[derive(Debug)]
pub struct Optimizer {
    layout: Layout,
    weights: Tensor,
    gradients: Tensor,
    rule: Rule,
    clip: Clip,
    decay: WeightDecay,
    /// For clipping by tensor: how many elements each has.
    counts: Tensor,
}

/// Whether `weight` decays: batch norm's gamma and beta, and biases, have one dimension.
fn decays(decay: WeightDecay, name: &str, weight: &Tensor) -> bool {
    let heads = decay.heads || name.starts_with("backbone.");
    decay.rate > 0. && heads && (decay.norm || weight.dim() > 1)
}

impl Optimizer {
    /// Over every variable of `store` that requires a gradient. All variables of the store, and their
    /// gradients, become views into flat tensors.
    pub fn new(store: &VarStore, settings: &Train) -> Self {
        let decay = settings.weight_decay;
        let layout = Layout::of(store, |name, weight| decays(decay, name, weight));
        let weights = layout.gather(store);
        let gradients = layout.gather_gradients(store);
        let counts: Vec<i64> =
            layout.learning().iter().map(|s| s.range.end - s.range.start).collect();
        Self {
            rule: Rule::new(settings.optimizer, &layout.learned(&weights)),
            counts: Tensor::from_slice(&counts).to_device(store.device()),
            clip: settings.clip,
            layout,
            weights,
            gradients,
            decay,
        }
    }

    /// Where each variable lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All variables of the store.
    pub fn weights(&self) -> &Tensor {
        &self.weights
    }

    /// All gradients, and zeros behind them.
    pub fn gradients(&self) -> &Tensor {
        &self.gradients
    }

    /// The variables that do not learn: running statistics, and what is frozen.
    pub fn fixed(&self) -> Tensor {
        self.layout.fixed(&self.weights)
    }

    /// Forgets all gradients.
    pub fn zero_grad(&mut self) {
        let _ = self.gradients.zero_();
    }

    /// Divides all gradients by what the loss was multiplied by, a power of two.
    pub fn divide_gradients(&mut self, scale: f64) {
        if scale != 1. {
            let _ = self.gradients.g_mul_scalar_(scale.recip());
        }
    }

    /// Completes the gradients of a step by the decay that counts as a part of the loss, and gives their
    /// global norm. To be called once a step. Waits for the device.
    pub fn complete(&mut self) -> f64 {
        tch::no_grad(|| {
            if self.decay.how == Decay::BeforeClipping {
                self.add_decay();
            }
            flat::norm(&self.gradients).double_value(&[])
        })
    }

    /// Moves every weight by gradients of the global `norm`. `step` counts from 0.
    pub fn step(&mut self, lr: f64, norm: f64, step: usize) {
        tch::no_grad(|| {
            self.hold_down(norm);
            match self.decay.how {
                Decay::BeforeClipping => {}
                Decay::AfterClipping => self.add_decay(),
                Decay::Decoupled => {
                    let mut decayed = self.layout.decayed(&self.weights);
                    let _ = decayed.g_mul_scalar_(1. - lr * self.decay.rate);
                }
            }
            let mut weights = self.layout.learned(&self.weights);
            let mut gradients = self.layout.learned(&self.gradients);
            self.rule.step(&mut weights, &mut gradients, lr, step);
        });
    }

    fn add_decay(&mut self) {
        let rate = Tensor::full([0_i64; 0], self.decay.rate, (Kind::Float, self.weights.device()));
        let weights = self.layout.decayed(&self.weights);
        let _ = self.layout.decayed(&self.gradients).addcmul_(&weights, &rate);
    }

    /// Clips.
    fn hold_down(&mut self, norm: f64) {
        match self.clip {
            Clip::None => {}
            Clip::Global { norm: most } => {
                // torch's `clip_grad_norm_`: the tiny term keeps a norm of 0 from dividing.
                let factor = most / (norm + 1e-6);
                if factor < 1. {
                    let _ = self.gradients.g_mul_scalar_(factor);
                }
            }
            Clip::PerTensor { norm: most } => {
                let slots = self.layout.learning();
                if slots.is_empty() {
                    return;
                }
                let norms: Vec<Tensor> =
                    slots.iter().map(|slot| slot.of(&self.gradients).norm()).collect();
                // TensorFlow's `clip_by_norm`.
                let factors = (Tensor::stack(&norms, 0).clamp_min(most) / most).reciprocal();
                let mut gradients = self.layout.learned(&self.gradients);
                let all = gradients.numel() as i64;
                let _ =
                    gradients.g_mul_(&factors.repeat_interleave_self_tensor(&self.counts, 0, all));
            }
        }
    }

    /// What the rule remembers of each weight: `<weight's name>` to SGD's and RMSProp's velocity or Adam's
    /// mean gradient, `<weight's name>.square` to the mean square.
    pub fn state(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.rule.state().flat_map(|(suffix, flat)| {
            let named = move |slot: &flat::Slot| (format!("{}{suffix}", slot.name), slot.of(flat));
            self.layout.learning().iter().map(named)
        })
    }

    /// All that the next step hangs on, each as one tensor: the variables of the store, and what the rule remembers.
    pub fn flats(&self) -> impl Iterator<Item = &Tensor> {
        [&self.weights].into_iter().chain(self.rule.state().map(|(_, flat)| flat))
    }

    /// Takes over a saved state.
    pub fn load(&self, contents: &Contents, path: &Path) -> Result<(), WeightsError> {
        load_into(self.state().collect(), contents, "", path)
    }
}

#[cfg(test)]
mod tests;
