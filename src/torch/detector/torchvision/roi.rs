//! torchvision's sampling of regions and their losses.

use detect::config;
use tch::{Kind, Tensor};

use super::rpn::SMOOTH_L1_BETA;
use crate::detector::ahead::Held;
use crate::detector::assign::{Draws, Places, Quota, classes};
use crate::detector::coder::{Coder, Coding as _};
use crate::detector::roi::{RoiOutput, Sampled};
use crate::detector::rpn::Proposals;
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

/// Draws the regions of each image that learn, from its proposals, of which there can be `most`, and its ground truths.
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
        let (gt_boxes, gt_labels) = (&gt_boxes[image], &gt_labels[image]);
        let [proposals, truths] = [&of.boxes, gt_boxes].map(|boxes| boxes.size()[0]);
        let regions = Tensor::cat(&[&of.boxes, gt_boxes], 0);
        let (labels, matched) = assign(settings, &regions, gt_boxes, gt_labels);
        let places = Places { most: most as i64, proposals, truths };
        let (indices, held) = draws.regions(image, &labels, quota, places, of.unread.as_ref());
        let boxes = regions.index_select(0, &indices);
        let targets = if truths == 0 {
            boxes.zeros_like()
        } else {
            let truth = gt_boxes.index_select(0, &matched.index_select(0, &indices));
            Coder::TORCHVISION_ROI.encode(&truth, &boxes)
        };
        (Sampled { labels: labels.index_select(0, &indices), indices, boxes, targets }, held)
    };
    let (sampled, held): (Vec<_>, Vec<_>) =
        tch::no_grad(|| proposals.iter().enumerate().map(one).unzip());
    (sampled, Held::all(held))
}

/// Losses of the classes, with labels smoothed by `smoothing`, and of the boxes: means over all sampled regions
/// of the batch.
pub fn losses(output: &RoiOutput, sampled: &[Sampled], smoothing: f64) -> (Tensor, Tensor) {
    let join =
        |f: fn(&Sampled) -> &Tensor| Tensor::cat(&sampled.iter().map(f).collect::<Vec<_>>(), 0);
    let (labels, targets) = (join(|s| &s.labels), join(|s| &s.targets));
    let count = labels.size()[0];
    let classifier = losses::cross_entropy_mean(&output.class_logits, &labels, smoothing);
    // Not -1 for the classes: there may be no region at all.
    let columns = output.box_regression.size()[1] / 4;
    let deltas = output.box_regression.reshape([-1, columns, 4]); // [R, K + 1, 4]
    // The four columns of each region's own class.
    let class = labels.reshape([-1, 1, 1]).expand([-1, 1, 4], false);
    let deltas = deltas.gather(1, &class, false).squeeze_dim(1); // [R, 4]
    let each = losses::smooth_l1_of(&deltas, &targets, &labels.gt(0), SMOOTH_L1_BETA);
    (classifier, each.sum(None::<Kind>) / count.max(1) as f64)
}
