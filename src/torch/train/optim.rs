//! SGD with momentum, PyTorch's convention, with a state that can be saved: and the moving average.

use std::collections::BTreeMap;
use std::path::Path;

use detect::config::Train;
use detect::weights::{Contents, WeightsError};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::weights::{load_into, named_variables};

/// A weight that learns.
#[derive(Debug)]
struct Parameter {
    weight: Tensor,
    velocity: Tensor,
    decay: f64,
}

/// Stochastic gradient descent with momentum: `v = m v + (g + d w)`, `w = w - lr v`.
#[derive(Debug)]
pub struct Sgd {
    parameters: BTreeMap<String, Parameter>,
    momentum: f64,
    clip_norm: f64,
}

impl Sgd {
    /// Over every trainable variable of `store`.
    pub fn new(store: &VarStore, settings: &Train) -> Self {
        let learns = |(_, weight): &(String, Tensor)| weight.requires_grad();
        let parameter = |(name, weight): (String, Tensor)| {
            // Batch norm's gamma and beta, and biases, have one dimension.
            let decays = (settings.decay_norm || weight.dim() > 1)
                && (settings.decay_heads || name.starts_with("backbone."));
            let decay = if decays { settings.weight_decay } else { 0. };
            let velocity = weight.detach().zeros_like();
            (name, Parameter { weight, velocity, decay })
        };
        Self {
            parameters: named_variables(store).into_iter().filter(learns).map(parameter).collect(),
            momentum: settings.momentum,
            clip_norm: settings.clip_norm,
        }
    }

    /// The state by name: `<weight's name>` to its velocity.
    pub fn state(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.parameters.iter().map(|(name, p)| (name.as_str(), &p.velocity))
    }

    /// Forgets all gradients.
    pub fn zero_grad(&mut self) {
        for parameter in self.parameters.values_mut() {
            parameter.weight.zero_grad();
        }
    }

    /// The gradients' global norm. Waits for the device.
    pub fn gradient_norm(&self) -> f64 {
        tch::no_grad(|| {
            let gradients = self.parameters.values().map(|p| p.weight.grad());
            let norms: Vec<Tensor> = gradients.filter(Tensor::defined).map(|g| g.norm()).collect();
            Tensor::stack(&norms, 0).norm().double_value(&[])
        })
    }

    /// Moves every weight, with the gradients clipped as their global `norm` demands.
    pub fn step(&mut self, lr: f64, norm: f64) {
        // torch's `clip_grad_norm_`: the tiny term keeps a norm of 0 from dividing.
        let clip = if self.clip_norm > 0. { (self.clip_norm / (norm + 1e-6)).min(1.) } else { 1. };
        tch::no_grad(|| {
            for Parameter { weight, velocity, decay } in self.parameters.values_mut() {
                let mut gradient = weight.grad();
                if !gradient.defined() {
                    continue; // not part of this step's graph
                }
                if clip < 1. {
                    let _ = gradient.g_mul_scalar_(clip);
                }
                if *decay > 0. {
                    let _ = gradient.g_add_(&(&*weight * *decay));
                }
                let _ = velocity.g_mul_scalar_(self.momentum);
                let _ = velocity.g_add_(&gradient);
                let _ = weight.g_sub_(&(&*velocity * lr));
            }
        });
    }

    /// Takes over a saved state: a velocity for each weight.
    pub fn load(&self, contents: &Contents, path: &Path) -> Result<(), WeightsError> {
        let targets = self.parameters.iter().map(|(n, p)| (n.clone(), p.velocity.shallow_clone()));
        load_into(targets.collect(), contents, "", path)
    }
}

/// Moves every variable of `average` towards that of `model`, running statistics included.
///
/// The decay starts low, so that the average forgets the start quickly.
pub fn update_average(average: &VarStore, model: &VarStore, decay: f64, step: usize) {
    let decay = decay.min((1 + step) as f64 / (10 + step) as f64);
    tch::no_grad(|| {
        let model = named_variables(model);
        for (name, mut mean) in named_variables(average) {
            let now = &model[&name];
            if mean.kind() == Kind::Int64 {
                mean.copy_(now);
            } else {
                let _ = mean.lerp_(now, 1. - decay);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use detect::config::Config;
    use tch::Device;

    #[test]
    fn what_decays_is_what_the_recipe_says() {
        let store = VarStore::new(Device::Cpu);
        for name in ["backbone.conv", "backbone.bn", "rpn.conv"] {
            let shape: &[i64] = if name.ends_with("bn") { &[2] } else { &[2, 2] };
            let (module, leaf) = name.split_once('.').unwrap();
            let _weight = (store.root() / module).ones(leaf, shape);
        }
        let mut settings = Config::recipe("tiny", &[]).unwrap().train;
        settings.weight_decay = 0.5;
        let decays = |settings: &Train| {
            let sgd = Sgd::new(&store, settings);
            let decays: Vec<String> = (sgd.parameters.iter())
                .filter(|(_, parameter)| parameter.decay > 0.)
                .map(|(name, _)| name.clone())
                .collect();
            decays.join(" ")
        };
        for (norm, heads, expected) in [
            (false, true, "backbone.conv rpn.conv"),
            (false, false, "backbone.conv"),
            (true, false, "backbone.bn backbone.conv"),
        ] {
            (settings.decay_norm, settings.decay_heads) = (norm, heads);
            assert_eq!(decays(&settings), expected);
        }
    }
}
