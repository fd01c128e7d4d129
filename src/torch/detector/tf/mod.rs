//! The rules of TensorFlow's Object Detection API, as its published `faster_rcnn_nas` uses them.
//!
//! What was found out about them, and from which of its files, is told at each function. Boxes are
//! `(x1, y1, x2, y2)` and deltas `(dx, dy, dw, dh)` here as everywhere; TensorFlow's `y` comes first, which
//! reading its weights turns.

pub mod anchors;
pub mod roi;
pub mod rpn;
pub mod select;

use detect::config::{self, Anchors, Config, Rules};
use detect::geometry::{Detection, Size};
use tch::Tensor;

use super::ahead::Held;
use super::assign::Draws;
use super::family::{Family, Layers};
use super::roi::{RoiOutput, Sampled};
use super::rpn::{Proposals, RpnOutput, most_in_training};
use crate::nn::{Init, Mode};

/// What the layers of TensorFlow's heads are.
pub const LAYERS: Layers = Layers {
    objectness: Rules::Tf.objectness() as i64,
    activation: Tensor::relu6,
    background_box: Rules::Tf.background_box(),
    predictors: Init::Xavier,
};

/// Where smooth L1 turns from a parabola into a line.
pub const SMOOTH_L1_BETA: f64 = 1.;

/// The family.
#[derive(Debug)]
pub struct Tf {
    anchors: Anchors,
    rpn: config::Rpn,
    roi: config::Roi,
    label_smoothing: f64,
    stride: i64,
}

impl Tf {
    /// With the numbers of `config`, on a map of `stride` pixels a cell.
    pub fn new(config: &Config, stride: i64) -> Self {
        let Config { anchors, rpn, roi, .. } = config.clone();
        Self { anchors, rpn, roi, label_smoothing: config.train.label_smoothing, stride }
    }
}

impl Family for Tf {
    fn layers(&self) -> Layers {
        LAYERS
    }

    fn anchors(&self, grid: [i64; 2], _padded: Size) -> Tensor {
        anchors::of_map(&self.anchors, grid, self.stride)
    }

    /// In training they are dropped with what is said of them, else they are clipped: deltas then lead
    /// from the *clipped* anchors.
    fn at_border(&self, output: RpnOutput, padded: Size, mode: Mode) -> RpnOutput {
        if mode.is_train() {
            rpn::inside_only(&output, padded)
        } else {
            RpnOutput { anchors: super::boxes::clip(&output.anchors, padded), ..output }
        }
    }

    fn proposals(&self, output: &RpnOutput, sizes: &[Size], mode: Mode) -> Vec<Proposals> {
        rpn::proposals(&self.rpn, output, sizes, mode)
    }

    fn proposals_ahead(&self, output: &RpnOutput, sizes: &[Size]) -> Option<Vec<Proposals>> {
        rpn::proposals_ahead(&self.rpn, output, sizes)
    }

    fn rpn_losses(
        &self,
        output: &RpnOutput,
        gt_boxes: &[Tensor],
        draws: Draws<'_>,
    ) -> (Tensor, Tensor, usize) {
        let sample = |(image, gt): (usize, &Tensor)| {
            rpn::sample_anchors(&self.rpn, &output.anchors, gt, image, draws)
        };
        let sampled: Vec<_> = gt_boxes.iter().enumerate().map(sample).collect();
        let (objectness, box_reg) = rpn::losses(output, &sampled);
        (objectness, box_reg, sampled.len())
    }

    fn sample(
        &self,
        output: &RpnOutput,
        proposals: &[Proposals],
        gt_boxes: &[Tensor],
        gt_labels: &[Tensor],
        draws: Draws<'_>,
    ) -> (Vec<Sampled>, Held) {
        let most = most_in_training(&self.rpn, output);
        roi::sample_regions(&self.roi, most, proposals, gt_boxes, gt_labels, draws)
    }

    fn roi_losses(&self, output: &RoiOutput, sampled: &[Sampled]) -> (Tensor, Tensor) {
        roi::losses(output, sampled, self.label_smoothing)
    }

    fn roi_count(&self, sampled: &[Sampled]) -> usize {
        sampled.len() // images
    }

    fn select(
        &self,
        output: &RoiOutput,
        regions: &[Tensor],
        sizes: &[Size],
    ) -> Vec<Vec<Detection>> {
        select::select(output, regions, sizes, &self.roi)
    }
}
