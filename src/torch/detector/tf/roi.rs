//! TensorFlow's sampling of regions and their losses (its `faster_rcnn_meta_arch.py`).

use detect::config;
use tch::{Kind, Reduction, Tensor};

use super::{SMOOTH_L1_BETA, rpn};
use crate::detector::ahead::Held;
use crate::detector::assign::{Draws, Places, Quota, classes};
use crate::detector::coder::{Coder, Coding as _};
use crate::detector::losses::smooth_l1_of;
use crate::detector::roi::{RoiOutput, Sampled};
use crate::detector::rpn::Proposals;

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

/// Draws the regions of each image that learn, from its proposals alone, of which there can be `most`: ground truths are
/// not among them.
pub fn sample_regions(
    settings: &config::Roi,
    most: usize,
    proposals: &[Proposals],
    gt_boxes: &[Tensor],
    gt_labels: &[Tensor],
    draws: Draws<'_>,
) -> (Vec<Sampled>, Held) {
    let quota = Quota::new(settings.sampled, settings.positive_fraction);
    let one = |(image, of): (usize, &Proposals)| {
        let (labels, targets) = assign(settings, &of.boxes, &gt_boxes[image], &gt_labels[image]);
        let places = Places { most: most as i64, proposals: of.boxes.size()[0], truths: 0 };
        let (indices, held) = draws.regions(image, &labels, quota, places, of.unread.as_ref());
        let sampled = Sampled {
            boxes: of.boxes.index_select(0, &indices),
            labels: labels.index_select(0, &indices),
            targets: targets.index_select(0, &indices),
            indices,
        };
        (sampled, held)
    };
    let (sampled, held): (Vec<_>, Vec<_>) =
        tch::no_grad(|| proposals.iter().enumerate().map(one).unzip());
    (sampled, Held::all(held))
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
    // The four columns of each object's own class; the background, class 0, has none, and none is read for it.
    let class = (&labels - 1).clamp_min(0).reshape([-1, 1, 1]).expand([-1, 1, 4], false);
    let classes = output.box_regression.size()[1] / 4; // K
    let deltas = output.box_regression.reshape([-1, classes, 4]);
    let deltas = deltas.gather(1, &class, false).squeeze_dim(1); // [R, 4]
    let each = smooth_l1_of(&deltas, &targets, &labels.gt(0), SMOOTH_L1_BETA);
    let box_reg = (each * shares.unsqueeze(1)).sum(None::<Kind>);
    (classifier, box_reg)
}
