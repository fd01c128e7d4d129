//! TensorFlow's sampling of regions and their losses (its `faster_rcnn_meta_arch.py`).

use detect::config;
use tch::{Kind, Reduction, Tensor};

use super::{SMOOTH_L1_BETA, rpn};
use crate::detector::assign::{Draws, Stage, classes, sample};
use crate::detector::coder::{Coder, Coding as _};
use crate::detector::roi::{RoiOutput, Sampled};

/// For each region `[R, 4]` its class `[R]` (0 background) and its deltas `[R, 4]` to its ground truth,
/// which mean nothing for background.
pub fn assign(
    settings: &config::Roi,
    regions: &Tensor,
    gt_boxes: &Tensor,
    gt_labels: &Tensor,
) -> (Tensor, Tensor) {
    if gt_boxes.size()[0] == 0 {
        let none = Tensor::zeros([regions.size()[0]], (Kind::Int64, regions.device()));
        return (none, regions.zeros_like());
    }
    let (labels, matched) = classes(&rpn::iou(gt_boxes, regions), gt_labels, settings.positive_iou);
    (labels, Coder::TF.encode(&gt_boxes.index_select(0, &matched), regions))
}

/// Draws the regions of each image that learn, from its proposals alone: ground truths are not among them.
pub fn sample_regions(
    settings: &config::Roi,
    proposals: &[Tensor],
    gt_boxes: &[Tensor],
    gt_labels: &[Tensor],
    draws: Draws<'_>,
) -> Vec<Sampled> {
    let one = |(image, proposals): (usize, &Tensor)| {
        draws.start(image, Stage::Regions);
        let (gt_boxes, gt_labels) = (&gt_boxes[image], &gt_labels[image]);
        let (labels, targets) = assign(settings, proposals, gt_boxes, gt_labels);
        let (positive, negative) = sample(&labels, settings.sampled, settings.positive_fraction);
        let indices = Tensor::cat(&[&positive, &negative], 0).sort(0, false).0;
        Sampled {
            boxes: proposals.index_select(0, &indices),
            labels: labels.index_select(0, &indices),
            targets: targets.index_select(0, &indices),
            positive: Sampled::places(&positive, &indices),
            indices,
        }
    };
    tch::no_grad(|| proposals.iter().enumerate().map(one).collect())
}

/// Losses of the classes, with labels smoothed by `smoothing`, and of the boxes: each image's sum over the number of its sampled regions, and the
/// mean of the images.
pub fn losses(output: &RoiOutput, sampled: &[Sampled], smoothing: f64) -> (Tensor, Tensor) {
    let kind = output.class_logits.kind();
    let join =
        |f: fn(&Sampled) -> &Tensor| Tensor::cat(&sampled.iter().map(f).collect::<Vec<_>>(), 0);
    let (labels, targets) = (join(|s| &s.labels), join(|s| &s.targets).to_kind(kind));
    let share = |s: &Sampled| {
        let each = sampled.len() as f64 * s.labels.size()[0].max(1) as f64;
        s.labels.to_kind(kind).full_like(1. / each)
    };
    let shares = Tensor::cat(&sampled.iter().map(share).collect::<Vec<_>>(), 0); // [R]
    let none = Reduction::None;
    let each =
        output.class_logits.cross_entropy_loss::<Tensor>(&labels, None, none, -100, smoothing);
    let classifier = (each * &shares).sum(None::<Kind>);
    let positive = Sampled::positive_of_all(sampled); // [P]
    let picked = |xs: &Tensor| xs.index_select(0, &positive);
    // The four columns of each object's own class; the background, class 0, has none.
    let class = (picked(&labels) - 1).reshape([-1, 1, 1]).expand([-1, 1, 4], false);
    let classes = output.box_regression.size()[1] / 4; // K
    let deltas = output.box_regression.reshape([-1, classes, 4]);
    let deltas = picked(&deltas).gather(1, &class, false).squeeze_dim(1); // [P, 4]
    let each = deltas.smooth_l1_loss(&picked(&targets), none, SMOOTH_L1_BETA);
    let box_reg = (each * picked(&shares).unsqueeze(1)).sum(None::<Kind>);
    (classifier, box_reg)
}
