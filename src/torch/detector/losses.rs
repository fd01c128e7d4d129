//! The four losses of Faster R-CNN, and an auxiliary one.

use detect::config::LossWeights;
use tch::{Reduction, Tensor};

/// The losses of a batch: scalars that carry gradients.
#[derive(Debug)]
pub struct Losses {
    /// Cross-entropy of the regions' classes.
    pub classifier: Tensor,
    /// Smooth L1 of the regions' boxes.
    pub box_reg: Tensor,
    /// Cross-entropy of the anchors' objectness.
    pub objectness: Tensor,
    /// Smooth L1 of the anchors' boxes.
    pub rpn_box_reg: Tensor,
    /// Binary cross-entropy of the classes of whole images, where a head learns them.
    pub auxiliary: Option<Tensor>,
}

impl Losses {
    /// Names of the parts that are Faster R-CNN's, as torchvision calls them.
    pub const NAMES: [&'static str; 4] =
        ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"];

    /// All names.
    pub const ALL: [&'static str; 5] = {
        let [classifier, box_reg, objectness, rpn_box_reg] = Self::NAMES;
        [classifier, box_reg, objectness, rpn_box_reg, "loss_auxiliary"]
    };

    /// The parts in the order of [`Self::NAMES`].
    pub fn parts(&self) -> [&Tensor; 4] {
        [&self.classifier, &self.box_reg, &self.objectness, &self.rpn_box_reg]
    }

    /// What is minimised: the sum of the parts by their weights.
    pub fn total(&self, weights: &LossWeights) -> Tensor {
        let total = &self.classifier * weights.class
            + &self.box_reg * weights.box_
            + &self.objectness * weights.objectness
            + &self.rpn_box_reg * weights.rpn_box;
        match &self.auxiliary {
            Some(auxiliary) => total + auxiliary * weights.auxiliary,
            None => total,
        }
    }

    /// Values in the order of [`Self::ALL`], each times its weight.
    pub fn weighted(values: [f64; 5], weights: &LossWeights) -> [f64; 5] {
        let [classifier, box_reg, objectness, rpn_box_reg, auxiliary] = values;
        [
            classifier * weights.class,
            box_reg * weights.box_,
            objectness * weights.objectness,
            rpn_box_reg * weights.rpn_box,
            auxiliary * weights.auxiliary,
        ]
    }

    /// The parts in the order of [`Self::ALL`] in one tensor `[5]`, without gradient; 0 for what is not there.
    pub fn stacked(&self) -> Tensor {
        let [classifier, box_reg, objectness, rpn_box_reg] = self.parts();
        let none = self.auxiliary.is_none().then(|| classifier.zeros_like());
        let auxiliary = self.auxiliary.as_ref().or(none.as_ref()).expect("one of the two");
        Tensor::stack(&[classifier, box_reg, objectness, rpn_box_reg, auxiliary], 0).detach()
    }

    /// The parts of [`Self::stacked`] as numbers. Waits for the device.
    pub fn values(&self) -> [f64; 5] {
        let values = crate::detector::boxes::to_vec(&self.stacked());
        [0, 1, 2, 3, 4].map(|i| f64::from(values[i]))
    }
}

/// What the losses of a batch are means over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// Of objectness and the anchors' boxes: anchors, or images.
    pub anchors: f64,
    /// Of classes and the regions' boxes: regions, or images.
    pub regions: f64,
    /// Of the classes of whole images.
    pub images: f64,
}

impl Counts {
    /// Of nothing.
    pub const ZERO: Self = Self { anchors: 0., regions: 0., images: 0. };

    /// `weights` for a batch of these counts, whose losses are to add up with those of others to the losses
    /// of one batch of the counts `whole`.
    #[must_use]
    pub fn share(self, whole: Self, weights: &LossWeights) -> LossWeights {
        let share = |of: fn(Self) -> f64| of(self) / of(whole).max(1.);
        let (anchors, regions) = (share(|counts| counts.anchors), share(|counts| counts.regions));
        LossWeights {
            objectness: weights.objectness * anchors,
            rpn_box: weights.rpn_box * anchors,
            class: weights.class * regions,
            box_: weights.box_ * regions,
            auxiliary: weights.auxiliary * share(|counts| counts.images),
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.anchors += other.anchors;
        self.regions += other.regions;
        self.images += other.images;
    }
}

/// Sum of smooth L1, which turns from a parabola into a line at `beta`.
pub fn smooth_l1_sum(predicted: &Tensor, target: &Tensor, beta: f64) -> Tensor {
    predicted.smooth_l1_loss(target, Reduction::Sum, beta)
}

/// Smooth L1 of the rows `[R, 4]` that `count` `[R]`, as of [`smooth_l1_sum`]; others are 0, whatever stands in them.
pub fn smooth_l1_of(predicted: &Tensor, target: &Tensor, count: &Tensor, beta: f64) -> Tensor {
    let left_out = count.logical_not().unsqueeze(1);
    let [predicted, target] = [predicted, target].map(|xs| xs.masked_fill(&left_out, 0.));
    predicted.smooth_l1_loss(&target, Reduction::None, beta)
}

/// Mean cross-entropy of one logit a region against 0 or 1.
pub fn binary_cross_entropy_mean(logits: &Tensor, target: &Tensor) -> Tensor {
    logits.binary_cross_entropy_with_logits::<Tensor>(target, None, None, Reduction::Mean)
}

/// Mean cross-entropy of `[R, K + 1]` logits against `[R]` classes, of which the share `smoothing` is spread
/// over all `K + 1` evenly (Szegedy et al. 2016, section 7).
pub fn cross_entropy_mean(logits: &Tensor, target: &Tensor, smoothing: f64) -> Tensor {
    logits.cross_entropy_loss::<Tensor>(target, None, Reduction::Mean, -100, smoothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    use crate::detector::roi::{RoiOutput, Sampled};
    use crate::detector::{tf, torchvision};

    #[test]
    fn smoothed_labels_are_pytorch_s_in_both_families() {
        let logits = Tensor::from_slice2(&[[1_f32, 2., 3.], [0., -1., 0.5]]);
        let labels = Tensor::from_slice(&[2_i64, 0]);
        let boxes = logits.new_zeros([2, 4], (logits.kind(), logits.device()));
        let sampled = Sampled {
            indices: labels.shallow_clone(),
            boxes: boxes.shallow_clone(),
            targets: boxes,
            labels: labels.shallow_clone(),
        };
        let output = |columns: i64| RoiOutput {
            class_logits: logits.shallow_clone(),
            box_regression: logits.new_zeros([2, columns], (logits.kind(), logits.device())),
        };
        // torch.nn.functional.cross_entropy(.., label_smoothing=..)
        for (smoothing, expected) in [(0., 0.755_868_3), (0.1, 0.814_201_6), (0.5, 1.047_535)] {
            let plain = cross_entropy_mean(&logits, &labels, smoothing);
            let sampled = std::slice::from_ref(&sampled);
            let torchvision = torchvision::roi::losses(&output(12), sampled, smoothing).0;
            let tf = tf::roi::losses(&output(8), sampled, smoothing).0;
            for found in [plain, torchvision, tf].map(|loss| loss.double_value(&[])) {
                assert!((found - expected).abs() < 1e-6, "{smoothing}: {found}");
            }
        }
    }

    #[test]
    fn no_region_is_a_loss_that_is_not_finite_and_no_panic() {
        let empty = |columns: i64| Tensor::zeros([0, columns], (Kind::Float, Device::Cpu));
        let none = Tensor::zeros([0], (Kind::Int64, Device::Cpu));
        let sampled = Sampled {
            indices: none.shallow_clone(),
            boxes: empty(4),
            targets: empty(4),
            labels: none,
        };
        let output = RoiOutput { class_logits: empty(3), box_regression: empty(12) };
        let (classifier, box_reg) = torchvision::roi::losses(&output, &[sampled], 0.);
        // The mean of nothing, as in torch.
        assert!(classifier.double_value(&[]).is_nan());
        assert_eq!(box_reg.double_value(&[]), 0.);
    }
}
