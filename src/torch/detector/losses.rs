//! The four losses of Faster R-CNN.

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
}

impl Losses {
    /// Names of the parts, as torchvision calls them.
    pub const NAMES: [&'static str; 4] =
        ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"];

    /// The parts in the order of [`Self::NAMES`].
    pub fn parts(&self) -> [&Tensor; 4] {
        [&self.classifier, &self.box_reg, &self.objectness, &self.rpn_box_reg]
    }

    /// What is minimised: the sum of the parts by their weights.
    pub fn total(&self, weights: &LossWeights) -> Tensor {
        let [classifier, box_reg, objectness, rpn_box_reg] = Self::weighted(self.parts(), weights);
        classifier + box_reg + objectness + rpn_box_reg
    }

    /// Parts in the order of [`Self::NAMES`], each times its weight.
    pub fn weighted<T>(parts: [T; 4], weights: &LossWeights) -> [T::Output; 4]
    where
        T: std::ops::Mul<f64>,
    {
        let [classifier, box_reg, objectness, rpn_box_reg] = parts;
        [
            classifier * weights.class,
            box_reg * weights.box_,
            objectness * weights.objectness,
            rpn_box_reg * weights.rpn_box,
        ]
    }

    /// The parts as numbers. Waits for the device.
    pub fn values(&self) -> [f64; 4] {
        let stacked = Tensor::stack(&self.parts(), 0).detach();
        let values = crate::detector::boxes::to_vec(&stacked);
        [0, 1, 2, 3].map(|i| f64::from(values[i]))
    }
}

/// Sum of smooth L1, which turns from a parabola into a line at `beta`.
pub fn smooth_l1_sum(predicted: &Tensor, target: &Tensor, beta: f64) -> Tensor {
    predicted.smooth_l1_loss(target, Reduction::Sum, beta)
}

/// Mean cross-entropy of one logit a region against 0 or 1.
pub fn binary_cross_entropy_mean(logits: &Tensor, target: &Tensor) -> Tensor {
    logits.binary_cross_entropy_with_logits::<Tensor>(target, None, None, Reduction::Mean)
}

/// Mean cross-entropy of `[R, K + 1]` logits against `[R]` classes.
pub fn cross_entropy_mean(logits: &Tensor, target: &Tensor) -> Tensor {
    logits.cross_entropy_loss::<Tensor>(target, None, Reduction::Mean, -100, 0.)
}
