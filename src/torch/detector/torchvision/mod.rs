//! torchvision's rules.

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

/// What the layers of torchvision's heads are.
pub const LAYERS: Layers = Layers {
    objectness: Rules::Torchvision.objectness() as i64,
    activation: Tensor::relu,
    background_box: Rules::Torchvision.background_box(),
    predictors: Init::PytorchDefault,
};

/// The family.
#[derive(Debug)]
pub struct Torchvision {
    anchors: Anchors,
    rpn: config::Rpn,
    roi: config::Roi,
    label_smoothing: f64,
}

impl Torchvision {
    /// With the numbers of `config`.
    pub fn new(config: &Config) -> Self {
        let Config { anchors, rpn, roi, .. } = config.clone();
        Self { anchors, rpn, roi, label_smoothing: config.train.label_smoothing }
    }
}

impl Family for Torchvision {
    fn layers(&self) -> Layers {
        LAYERS
    }

    fn anchors(&self, grid: [i64; 2], padded: Size) -> Tensor {
        let padded = [padded.height, padded.width].map(|side| side as i64);
        anchors::of_map(&self.anchors, grid, padded)
    }

    /// Nothing: they stay as they are.
    fn at_border(&self, output: RpnOutput, _padded: Size, _mode: Mode) -> RpnOutput {
        output
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
        rpn::losses(&self.rpn, output, gt_boxes, draws)
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
        sampled.iter().map(|image| image.labels.size()[0] as usize).sum()
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
