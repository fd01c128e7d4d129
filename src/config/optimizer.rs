//! How gradients move weights: the rule, the weights' decay, and clipping.

use serde::{Deserialize, Serialize};

/// The rule that turns gradients into steps, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent: `v = momentum v + g`, `w = w - lr v`.
    Sgd {
        /// Share of the velocity that stays, 0 to under 1.
        momentum: f64,
    },
    /// TensorFlow 1's RMSProp, which NASNet was trained with: `s = rho s + (1 - rho) g^2` from `s = 1` on,
    /// `v = momentum v + lr g / sqrt(s + eps)`, `w = w - v`.
    #[serde(rename = "rmsprop")]
    RmsProp {
        /// Share of the mean square that stays, 0 to under 1. TensorFlow calls it decay.
        rho: f64,
        /// Share of the velocity that stays, 0 to under 1.
        momentum: f64,
        /// Added to the mean square *inside* the square root.
        eps: f64,
    },
    /// Adam with bias correction (Kingma and Ba 2015); AdamW (Loshchilov and Hutter 2019) where
    /// `weight_decay.how` is `decoupled`.
    AdamW {
        /// Shares of the mean and of the mean square that stay, each 0 to under 1.
        betas: [f64; 2],
        /// Added to the root of the mean square.
        eps: f64,
    },
}

/// Weights that shrink.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightDecay {
    /// How much; 0 is off.
    pub rate: f64,
    /// Where it enters.
    pub how: Decay,
    /// Whether batch norm's gamma and beta, and biases, decay too.
    pub norm: bool,
    /// Whether the weights outside the featurizer decay too.
    pub heads: bool,
}

/// Where the decay of weights enters a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// `rate w` is added to the gradient before it is clipped: TensorFlow's L2 term inside the loss.
    BeforeClipping,
    /// `rate w` is added to the clipped gradient: PyTorch's optimizers.
    AfterClipping,
    /// `w = w - lr rate w`, and the gradient knows nothing of it: AdamW.
    Decoupled,
}

/// What holds gradients down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Clip {
    /// Nothing.
    None,
    /// All gradients are scaled by one factor so that their common norm is at most `norm`.
    Global {
        /// The largest norm.
        norm: f64,
    },
    /// The gradient of each tensor is scaled by itself, as TensorFlow's legacy trainer of detectors does.
    PerTensor {
        /// The largest norm.
        norm: f64,
    },
}

impl Optimizer {
    /// Refuses numbers that can't work: the key under `train.optimizer`, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        const SHARE: &str = "must be at least 0 and under 1";
        let share = |key, x: f64| if (0. ..1.).contains(&x) { Ok(()) } else { Err((key, SHARE)) };
        let positive = |eps: f64| {
            let fine = eps > 0. && eps.is_finite();
            if fine { Ok(()) } else { Err(("train.optimizer.eps", "must be positive")) }
        };
        match *self {
            Self::Sgd { momentum } => share("train.optimizer.momentum", momentum),
            Self::RmsProp { rho, momentum, eps } => {
                share("train.optimizer.rho", rho)?;
                share("train.optimizer.momentum", momentum)?;
                positive(eps)
            }
            Self::AdamW { betas, eps } => {
                share("train.optimizer.betas", betas[0])?;
                share("train.optimizer.betas", betas[1])?;
                positive(eps)
            }
        }
    }
}

impl Clip {
    /// The largest norm, where there is one.
    pub fn norm(self) -> Option<f64> {
        match self {
            Self::None => None,
            Self::Global { norm } | Self::PerTensor { norm } => Some(norm),
        }
    }
}
