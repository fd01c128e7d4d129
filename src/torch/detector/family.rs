//! What a family of rules decides between the layers, which all families share.

use std::fmt::Debug;

use detect::config::{Config, Rules};
use detect::geometry::{Detection, Size};
use tch::Tensor;

use super::ahead::Held;
use super::assign::Draws;
use super::roi::{RoiOutput, Sampled};
use super::rpn::{Proposals, RpnOutput};
use super::tf::Tf;
use super::torchvision::Torchvision;
use crate::backbone::CutSpec;
use crate::nn::{Init, Mode};

/// What a family decides about the heads' layers.
#[derive(Debug, Clone, Copy)]
pub struct Layers {
    /// Objectness logits of an anchor: one for a sigmoid, or background and object for a softmax.
    pub objectness: i64,
    /// After the RPN's 3x3 convolution.
    pub activation: fn(&Tensor) -> Tensor,
    /// Whether the background has four columns among the boxes of a region.
    pub background_box: bool,
    /// How the predictors of a region start.
    pub predictors: Init,
}

/// A family of rules, complete.
pub trait Family: Debug + Send {
    /// The heads' layers.
    fn layers(&self) -> Layers;

    /// The anchors of a map of `grid` (height, width) cells over an input of `padded` pixels, as the
    /// network's outputs count them: `[H * W * A, 4]`, on the CPU.
    fn anchors(&self, grid: [i64; 2], padded: Size) -> Tensor;

    /// What becomes of anchors that cross the border of the input, and of what is said of them.
    fn at_border(&self, output: RpnOutput, padded: Size, mode: Mode) -> RpnOutput;

    /// The best regions of each image. Waits for the device.
    fn proposals(&self, output: &RpnOutput, sizes: &[Size], mode: Mode) -> Vec<Proposals>;

    /// The same in training without waiting, as many of each image as there can be. None where there is no anchor, or
    /// NMS would have to choose among too many ([`ahead::MOST`](super::ahead::MOST)).
    fn proposals_ahead(&self, output: &RpnOutput, sizes: &[Size]) -> Option<Vec<Proposals>>;

    /// Losses of objectness and of boxes over anchors that are sampled in each image, and the number of
    /// things that both are means over. Truths `[G, 4]` are on the CPU.
    fn rpn_losses(
        &self,
        output: &RpnOutput,
        gt_boxes: &[Tensor],
        draws: Draws<'_>,
    ) -> (Tensor, Tensor, usize);

    /// Draws the regions of each image that learn, from its proposals, which were made of `output`, and its truths
    /// `[G, 4]` and `[G]`. Waits for the device unless the proposals are unread.
    fn sample(
        &self,
        output: &RpnOutput,
        proposals: &[Proposals],
        gt_boxes: &[Tensor],
        gt_labels: &[Tensor],
        draws: Draws<'_>,
    ) -> (Vec<Sampled>, Held);

    /// Losses of classes and of boxes over the sampled regions.
    fn roi_losses(&self, output: &RoiOutput, sampled: &[Sampled]) -> (Tensor, Tensor);

    /// The number of things that both are means over.
    fn roi_count(&self, sampled: &[Sampled]) -> usize;

    /// The detections of each image in pixels of the network's input, best score first.
    fn select(&self, output: &RoiOutput, regions: &[Tensor], sizes: &[Size])
    -> Vec<Vec<Detection>>;
}

/// The family that `config` names, for a map as `spec` says.
pub fn of(config: &Config, spec: CutSpec) -> Box<dyn Family> {
    match config.detector.rules {
        Rules::Torchvision => Box::new(Torchvision::new(config)),
        Rules::Tf => Box::new(Tf::new(config, spec.stride)),
    }
}
