//! torchvision's way from what the layers say to proposals and detections.

use super::roi::RoiOutput;
use super::{sigmoid, softmax};
use crate::config;
use crate::geometry::{Box2, Detection, Size};
use crate::nms;
use crate::rules::anchors::Grid;
use crate::rules::{Coder, torchvision};

/// The best proposals of an image of `size`, clipped to it: the top by logit, without slivers, after NMS; with
/// their scores.
///
/// # Shapes
/// `logits` `[H * W * A]`, `deltas` `[H * W * A, 4]`.
pub fn proposals(
    settings: &config::Rpn,
    anchors: &Grid,
    logits: &[f32],
    deltas: &[f32],
    size: Size,
) -> Vec<(Box2, f32)> {
    let most = if settings.pre_nms_eval == 0 { logits.len() } else { settings.pre_nms_eval };
    let best = nms::best(logits, most);
    let decode = |&i: &usize| {
        Coder::TORCHVISION_RPN.apply(&deltas[4 * i..4 * i + 4], anchors.at(i)).clipped(size)
    };
    let boxes: Vec<Box2> = best.iter().map(decode).collect();
    let scores: Vec<f32> = best.iter().map(|&i| sigmoid(logits[i])).collect();
    let kept = torchvision::proposals(&boxes, &scores, settings.nms_iou, settings.post_nms_eval);
    kept.into_iter().map(|i| (boxes[i], scores[i])).collect()
}

/// The detections of an image of `size`, best score first.
///
/// # Shapes
/// `output` of the image's own `regions` `[R]`, for `classes` classes.
pub fn detections(
    settings: &config::Roi,
    output: &RoiOutput,
    regions: &[Box2],
    classes: usize,
    size: Size,
) -> Vec<Detection> {
    let columns = classes + 1;
    let scores: Vec<f32> = output.class_logits.chunks_exact(columns).flat_map(softmax).collect();
    let decoded = |i: usize| {
        let deltas = &output.box_regression[4 * i..4 * i + 4];
        Coder::TORCHVISION_ROI.apply(deltas, regions[i / columns])
    };
    torchvision::detections(&scores, classes, decoded, size, settings)
}
