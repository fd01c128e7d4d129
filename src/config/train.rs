//! The sections that say what the network learns from, and how.

use serde::{Deserialize, Serialize};

/// Which splits of the data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Learned from.
    pub train: String,
    /// Evaluated on during training.
    pub val: String,
}

/// Training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Images a step.
    pub batch: usize,
    /// Passes over the training split; the number of steps where `steps` is 0.
    pub epochs: usize,
    /// Steps in all; 0 takes `epochs`.
    pub steps: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// Learning rate after warm-up.
    pub lr: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// Steps in which the rate rises from 0 to `lr`.
    pub warmup_steps: usize,
    /// SGD's momentum.
    pub momentum: f64,
    /// Added to the gradient, times the weight, as SGD of `torch` does.
    pub weight_decay: f64,
    /// Whether batch norm's gamma and beta decay too.
    pub decay_norm: bool,
    /// Whether the weights outside the featurizer decay too.
    pub decay_heads: bool,
    /// The gradient's global norm is held to this; 0 is off.
    pub clip_norm: f64,
    /// What each of the four losses counts.
    pub loss_weights: LossWeights,
    /// Steps in which scheduled drop path reaches its full strength; 0 takes all.
    pub drop_path_steps: usize,
    /// Moving average of the weights, which is what is evaluated and kept.
    pub ema: Ema,
    /// Random changes to the images.
    pub augment: Augment,
    /// Reading images.
    pub loader: Loader,
    /// Whether the kept model stores its large tensors in half precision. Figures are then those of the
    /// stored file.
    pub half_precision_model: bool,
    /// Epochs between two evaluations; 0 evaluates at the end alone.
    pub eval_every: usize,
    /// Steps between two checkpoints; the end always has one.
    pub checkpoint_every: usize,
    /// Steps between two lines of the log.
    pub log_every: usize,
}

/// How the learning rate falls after warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// Half a cosine, to 0 at the last step.
    Cosine,
    /// Times `factor` at each of `milestones`, which are shares of all steps (0 to 1).
    Step {
        /// When, as shares of all steps, rising.
        milestones: Vec<f64>,
        /// How much.
        factor: f64,
    },
}

impl Schedule {
    /// The factor on `lr` at `step` of `total`, without warm-up.
    pub fn factor(&self, step: usize, total: usize) -> f64 {
        let done = step as f64 / total.max(1) as f64;
        match self {
            Self::Constant => 1.,
            Self::Cosine => 0.5 * (1. + (std::f64::consts::PI * done).cos()),
            Self::Step { milestones, factor } => {
                factor.powi(milestones.iter().filter(|&&m| done >= m).count() as i32)
            }
        }
    }
}

impl Train {
    /// The learning rate of `step` (from 0) of `total`.
    pub fn lr_at(&self, step: usize, total: usize) -> f64 {
        let warm = ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.);
        self.lr * warm * self.schedule.factor(step, total)
    }

    /// How far scheduled drop path has come at `step` of `total`, 0 to 1.
    pub fn drop_path_progress(&self, step: usize, total: usize) -> f64 {
        let full = if self.drop_path_steps > 0 { self.drop_path_steps } else { total.max(1) };
        (step as f64 / full as f64).min(1.)
    }

    /// Steps in all for a training split of `images`.
    pub fn total_steps(&self, images: usize) -> usize {
        if self.steps > 0 { self.steps } else { self.epochs * images.div_ceil(self.batch) }
    }
}

/// Factors on the losses, all of whose sum is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossWeights {
    /// Of the anchors' objectness.
    pub objectness: f64,
    /// Of the anchors' boxes.
    pub rpn_box: f64,
    /// Of the regions' classes.
    pub class: f64,
    /// Of the regions' boxes.
    #[serde(rename = "box")]
    pub box_: f64,
}

impl LossWeights {
    /// The plain sum: torchvision's.
    pub const ONES: Self = Self { objectness: 1., rpn_box: 1., class: 1., box_: 1. };
}

/// Moving average of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// Share of the average that stays at each step; 0 is off. It starts lower, at (1 + t) / (10 + t).
    pub decay: f64,
}

/// Random changes to the training images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Probability of a mirror image.
    pub flip: f64,
    /// Probability of an upside-down image: only where up and down mean nothing, as under a microscope.
    pub vertical_flip: f64,
    /// The short side is drawn between these multiples of `input.resize.short_side`.
    pub scale: [f64; 2],
    /// Brightness, contrast and saturation are multiplied by 1 +- this.
    pub color: f64,
}

/// Reading images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loader {
    /// Threads that decode and resize.
    pub threads: usize,
    /// Batches that are ready ahead of time.
    pub prefetch: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_fall_as_they_say() {
        let step = Schedule::Step { milestones: vec![0.5, 0.75], factor: 0.1 };
        assert_eq!(step.factor(49, 100), 1.);
        assert_eq!(step.factor(50, 100), 0.1);
        assert!((step.factor(80, 100) - 0.01).abs() < 1e-12);
        assert_eq!(Schedule::Cosine.factor(0, 10), 1.);
        assert!((Schedule::Cosine.factor(5, 10) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn drop_path_rises_over_its_own_steps_or_over_all() {
        let mut train = crate::config::Config::recipe("tiny", &[]).unwrap().train;
        train.drop_path_steps = 0;
        assert_eq!(train.drop_path_progress(5, 10), 0.5);
        train.drop_path_steps = 4;
        assert_eq!([1, 8].map(|step| train.drop_path_progress(step, 10)), [0.25, 1.]);
    }
}
