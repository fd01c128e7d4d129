//! TensorFlow's way from what the layers say to proposals and detections.

use rayon::prelude::*;

use super::roi::RoiOutput;
use super::softmax;
use crate::config;
use crate::geometry::{Box2, Detection, Size};
use crate::rules::anchors::Grid;
use crate::rules::{Coder, tf};

/// Anchors moved by their `deltas` `[H * W * A, 4]`, not clipped. They lead from the *clipped* anchors.
pub fn decode(anchors: &Grid, deltas: &[f32], padded: Size) -> Vec<Box2> {
    let decode = |(i, deltas)| Coder::TF.apply(deltas, anchors.at(i).clipped(padded));
    deltas.par_chunks_exact(4).enumerate().map(decode).collect()
}

/// The best proposals of an image of `size` in an input of `padded`, clipped to the image, with their scores.
///
/// # Shapes
/// `logits` `[H * W * A, 2]`, `deltas` `[H * W * A, 4]`.
pub fn proposals(
    settings: &config::Rpn,
    anchors: &Grid,
    logits: &[f32],
    deltas: &[f32],
    size: Size,
    padded: Size,
) -> Vec<(Box2, f32)> {
    let boxes = decode(anchors, deltas, padded);
    let scores: Vec<f32> = logits.chunks_exact(2).filter_map(|pair| softmax(pair).nth(1)).collect();
    let (iou, most) = (settings.nms_iou, settings.post_nms_eval);
    let kept = tf::proposals(&boxes, &scores, size, iou, most);
    kept.into_iter().map(|i| (boxes[i].clipped(size), scores[i])).collect()
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
    let rows = output.class_logits.chunks_exact(classes + 1);
    let scores: Vec<f32> = rows.flat_map(|row| softmax(row).skip(1)).collect();
    let decoded = |i: usize| {
        let deltas = &output.box_regression[4 * i..4 * i + 4];
        Coder::TF.apply(deltas, regions[i / classes])
    };
    tf::detections(&scores, classes, decoded, size, settings)
}
