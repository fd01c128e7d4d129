//! torchvision's sampling of regions and their losses.

use detect::config;
use tch::{Kind, Tensor};

use super::rpn::SMOOTH_L1_BETA;
use crate::detector::assign::{Draws, Stage, classes, sample};
use crate::detector::coder::{Coder, Coding as _};
use crate::detector::roi::{RoiOutput, Sampled};
use crate::detector::{boxes, losses};

/// For each region `[R, 4]` its class `[R]` (0 background) and the index of its ground truth `[R]`.
fn assign(
    settings: &config::Roi,
    regions: &Tensor,
    gt_boxes: &Tensor,
    gt_labels: &Tensor,
) -> (Tensor, Tensor) {
    let none = || Tensor::zeros([regions.size()[0]], (Kind::Int64, regions.device()));
    if gt_boxes.size()[0] == 0 {
        return (none(), none());
    }
    classes(&boxes::iou(gt_boxes, regions), gt_labels, settings.positive_iou)
}

/// Draws the regions of each image that learn, from its proposals and its ground truths.
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
        let regions = Tensor::cat(&[proposals, gt_boxes], 0);
        let (labels, matched) = assign(settings, &regions, gt_boxes, gt_labels);
        let (positive, negative) = sample(&labels, settings.sampled, settings.positive_fraction);
        let indices = Tensor::cat(&[&positive, &negative], 0).sort(0, false).0;
        let boxes = regions.index_select(0, &indices);
        let targets = if gt_boxes.size()[0] == 0 {
            boxes.zeros_like()
        } else {
            let truth = gt_boxes.index_select(0, &matched.index_select(0, &indices));
            Coder::TORCHVISION_ROI.encode(&truth, &boxes)
        };
        let positive = Sampled::places(&positive, &indices);
        Sampled { labels: labels.index_select(0, &indices), positive, indices, boxes, targets }
    };
    tch::no_grad(|| proposals.iter().enumerate().map(one).collect())
}

/// Losses of the classes, with labels smoothed by `smoothing`, and of the boxes: means over all sampled regions
/// of the batch.
pub fn losses(output: &RoiOutput, sampled: &[Sampled], smoothing: f64) -> (Tensor, Tensor) {
    let join =
        |f: fn(&Sampled) -> &Tensor| Tensor::cat(&sampled.iter().map(f).collect::<Vec<_>>(), 0);
    let (labels, targets) = (join(|s| &s.labels), join(|s| &s.targets));
    let count = labels.size()[0];
    let classifier = losses::cross_entropy_mean(&output.class_logits, &labels, smoothing);
    let positive = Sampled::positive_of_all(sampled); // [P]
    // Not -1 for the classes: there may be no region at all.
    let columns = output.box_regression.size()[1] / 4;
    let deltas = output.box_regression.reshape([-1, columns, 4]); // [R, K + 1, 4]
    // The four columns of each object's own class.
    let class = labels.index_select(0, &positive).reshape([-1, 1, 1]).expand([-1, 1, 4], false);
    let deltas = deltas.index_select(0, &positive).gather(1, &class, false).squeeze_dim(1); // [P, 4]
    let targets = targets.index_select(0, &positive);
    let box_reg = losses::smooth_l1_sum(&deltas, &targets, SMOOTH_L1_BETA) / count.max(1) as f64;
    (classifier, box_reg)
}
