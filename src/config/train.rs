//! The sections that say what the network learns from, and how.

use serde::{Deserialize, Serialize};

use super::{Clip, Optimizer, WeightDecay};

/// Which splits of the data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Learned from.
    pub train: String,
    /// Evaluated on during training.
    pub val: String,
    /// How often an epoch shows each image of `train`.
    pub sampling: EpochSampling,
    /// Share of the images under which a category counts as rare, for `sampling = "class_balanced"`.
    pub rare_under: f64,
}

/// How often an epoch shows each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochSampling {
    /// Once.
    Uniform,
    /// Images of rare categories more often: repeat factor sampling (Gupta et al. 2019, section 4.2).
    ClassBalanced,
}

/// Training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Images that go through the network together.
    pub batch: usize,
    /// Batches a step: their gradients count as those of one large batch.
    pub accumulate: usize,
    /// Whether cells are computed again in the backward pass, for less memory: a step takes about a third
    /// longer.
    pub recompute: bool,
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
    /// The rule that moves the weights.
    pub optimizer: Optimizer,
    /// How weights shrink.
    pub weight_decay: WeightDecay,
    /// What holds gradients down.
    pub clip: Clip,
    /// Parts that do not learn, by name: globs such as `backbone.cell_stem_*`. Their batch norm uses its
    /// running statistics.
    pub freeze: Vec<String>,
    /// Share of a region's class that is spread over all classes evenly; 0 is off.
    pub label_smoothing: f64,
    /// Steps in a row that may be passed over because a loss or a gradient is not finite; 0 stops at the first.
    pub skip_non_finite: usize,
    /// What each of the losses counts.
    pub loss_weights: LossWeights,
    /// Steps in which scheduled drop path reaches its full strength; 0 takes all.
    pub drop_path_steps: usize,
    /// Moving average of the weights, which is what is evaluated and kept.
    pub ema: Ema,
    /// Random changes to the images.
    pub augment: Augment,
    /// Reading images.
    pub loader: Loader,
    /// What convolutions and matrix products of a training step compute in.
    pub precision: Precision,
    /// Whether the kept model stores its large tensors in half precision. Its figures were taken before.
    pub half_precision_model: bool,
    /// Epochs between two evaluations; 0 evaluates at the end alone.
    pub eval_every: usize,
    /// The number of an evaluation that says which model is best.
    pub best_by: Metric,
    /// The run ends early after this many evaluations without a better one; 0 is off.
    pub patience: usize,
    /// Steps between two checkpoints; the end always has one.
    pub checkpoint_every: usize,
    /// Steps between two lines of the log.
    pub log_every: usize,
}

/// What convolutions and matrix products of a training step compute in. Weights, sums and evaluation are float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// `Bf16` on a GPU that computes in it, else `Float32`.
    Auto,
    /// float32.
    Float32,
    /// bfloat16.
    Bf16,
    /// float16, with a scaled loss.
    Fp16,
}

/// How the learning rate falls after warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// Half a cosine, which would reach 0 at the step after the last.
    Cosine,
    /// Times `factor` at each of `milestones`, which are shares of all steps (0 to 1).
    Step {
        /// When, as shares of all steps, rising.
        milestones: Vec<f64>,
        /// How much.
        factor: f64,
    },
    /// Times `factor` every `epochs` epochs: how NASNet's classifiers were trained.
    Exponential {
        /// How much.
        factor: f64,
        /// When.
        epochs: f64,
        /// Whether it falls at once, or a little each step.
        staircase: bool,
    },
}

impl Schedule {
    /// The factor on `lr` at `step` of `total`, of which `per_epoch` make an epoch, without warm-up.
    pub fn factor(&self, step: usize, total: usize, per_epoch: usize) -> f64 {
        let done = step as f64 / total.max(1) as f64;
        match self {
            Self::Constant => 1.,
            Self::Cosine => 0.5 * (1. + (std::f64::consts::PI * done).cos()),
            Self::Step { milestones, factor } => {
                factor.powi(milestones.iter().filter(|&&m| done >= m).count() as i32)
            }
            Self::Exponential { factor, epochs, staircase } => {
                let times = step as f64 / (epochs * per_epoch.max(1) as f64);
                factor.powf(if *staircase { times.floor() } else { times })
            }
        }
    }
}

impl Train {
    /// The learning rate of `step` (from 0) of `total`, of which `per_epoch` make an epoch.
    pub fn lr_at(&self, step: usize, total: usize, per_epoch: usize) -> f64 {
        let warm = ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.);
        self.lr * warm * self.schedule.factor(step, total, per_epoch)
    }

    /// How far scheduled drop path has come at `step` of `total`, 0 to 1.
    pub fn drop_path_progress(&self, step: usize, total: usize) -> f64 {
        let full = if self.drop_path_steps > 0 { self.drop_path_steps } else { total.max(1) };
        (step as f64 / full as f64).min(1.)
    }

    /// Steps in all for an epoch of `images`.
    pub fn total_steps(&self, images: usize) -> usize {
        if self.steps > 0 { self.steps } else { self.epochs * self.steps_per_epoch(images) }
    }

    /// Batches of the steps before `step` in epochs of `images`: a step takes `accumulate` of them, but no epoch
    /// ends within a batch or a step.
    pub fn batches_before(&self, step: usize, images: usize) -> usize {
        let (steps, batches) = (self.steps_per_epoch(images), images.div_ceil(self.batch).max(1));
        step / steps * batches + step % steps * self.accumulate
    }

    /// Steps of an epoch of `images`; the last one is short where they do not divide.
    pub fn steps_per_epoch(&self, images: usize) -> usize {
        images.div_ceil(self.batch * self.accumulate).max(1)
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
    /// Of the classes of the whole image, which a head of its own learns, in training only; 0 makes no such head.
    #[serde(default)]
    pub auxiliary: f64,
}

impl LossWeights {
    /// The plain sum: torchvision's.
    pub const ONES: Self = Self { objectness: 1., rpn_box: 1., class: 1., box_: 1., auxiliary: 0. };
}

/// A number of an evaluation, by COCO's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "COCO's names, in COCO's order")]
pub enum Metric {
    AP,
    AP50,
    AP75,
    APs,
    APm,
    APl,
    AR1,
    AR10,
    AR100,
    ARs,
    ARm,
    ARl,
}

impl Metric {
    /// This one of the 12 numbers in COCO's order; -1 where nothing could be measured.
    pub fn of(self, stats: &[f64]) -> f64 {
        stats[self as usize]
    }
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
    /// The short side is one of these instead, each as likely; the limit of the long side stays. Empty is off.
    pub short_sides: Vec<usize>,
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
    fn rates_follow_the_table() {
        let mut train = crate::config::Config::recipe("tiny", &[]).unwrap().train;
        train.lr = 2.;
        train.warmup_steps = 4;
        let (total, per_epoch) = (100, 10);
        let step = Schedule::Step { milestones: vec![0.5, 0.75], factor: 0.1 };
        let staircase = Schedule::Exponential { factor: 0.5, epochs: 2.5, staircase: true };
        let smooth = Schedule::Exponential { factor: 0.5, epochs: 2.5, staircase: false };
        // The step, and the rates there: constant, step, cosine, both exponentials. Worked out by hand.
        let half = std::f64::consts::FRAC_1_SQRT_2;
        let table = [
            (0, [0.5, 0.5, 0.5, 0.5, 0.5]),
            (3, [2., 2., 1.995_561_964_603_08, 2., 1.840_375_301_249_750_1]),
            (24, [2., 2., 1.728_968_627_421_411_6, 2., 1.028_113_826_656_066_5]),
            (25, [2., 2., 1. + half, 1., 1.]),
            (49, [2., 2., 1.031_410_759_078_128_3, 1., 0.514_056_913_328_033_3]),
            (50, [2., 0.2, 1., 0.5, 0.5]),
            (75, [2., 0.02, 1. - half, 0.25, 0.25]),
        ];
        let schedules = [Schedule::Constant, step, Schedule::Cosine, staircase, smooth];
        for (at, expected) in table {
            for (schedule, expected) in schedules.iter().zip(expected) {
                train.schedule = schedule.clone();
                let found = train.lr_at(at, total, per_epoch);
                assert!((found - expected).abs() < 1e-12, "{schedule:?} at {at}: {found}");
            }
        }
        // Warm-up rises evenly to its end.
        train.schedule = Schedule::Constant;
        assert_eq!([0, 1, 2, 3, 4].map(|s| train.lr_at(s, 9, 1)), [0.5, 1., 1.5, 2., 2.]);
    }

    #[test]
    fn steps_count_batches_times_accumulation() {
        let mut train = crate::config::Config::recipe("tiny", &[]).unwrap().train;
        (train.batch, train.accumulate, train.epochs) = (4, 2, 3);
        assert_eq!([8, 9, 16].map(|images| train.total_steps(images)), [3, 6, 6]);
        // 9 images: batches of 4, 4 | 1 and again.
        assert_eq!([0, 1, 2, 3, 4].map(|step| train.batches_before(step, 9)), [0, 2, 3, 5, 6]);
        train.accumulate = 1;
        assert_eq!([0, 1, 2, 3, 4].map(|step| train.batches_before(step, 9)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn metrics_are_at_their_places() {
        let stats: [f64; 12] = std::array::from_fn(|i| i as f64);
        let found = [Metric::AP, Metric::APs, Metric::AR100, Metric::ARl].map(|m| m.of(&stats));
        assert_eq!(found, [0., 3., 8., 11.]);
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
