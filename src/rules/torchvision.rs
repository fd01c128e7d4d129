//! torchvision's selections.

use crate::config;
use crate::geometry::{Box2, Detection, Label, Size};
use crate::nms::{batched_nms, nms};

/// Proposals narrower or lower than this are dropped, in pixels of the network's input.
pub const SMALLEST_PROPOSAL: f32 = 1e-3;

/// Detections narrower or lower than this are dropped, in pixels of the network's input.
const SMALLEST_DETECTION: f32 = 1e-2;

/// Whether a box is at least `side` wide and high.
pub fn is_large(bbox: Box2, side: f32) -> bool {
    bbox.width() >= side && bbox.height() >= side
}

/// Which of the `boxes` of an image, clipped to it, become proposals, best first: at most `most`, without
/// slivers, after NMS.
///
/// # Panics
/// If `boxes` and `scores` differ in length.
pub fn proposals(boxes: &[Box2], scores: &[f32], iou: f64, most: usize) -> Vec<usize> {
    assert_eq!(boxes.len(), scores.len(), "one score a box");
    let large: Vec<usize> =
        (0..boxes.len()).filter(|&i| is_large(boxes[i], SMALLEST_PROPOSAL)).collect();
    let boxes: Vec<Box2> = large.iter().map(|&i| boxes[i]).collect();
    let scores: Vec<f32> = large.iter().map(|&i| scores[i]).collect();
    let mut kept = nms(&boxes, &scores, iou);
    kept.truncate(most);
    kept.into_iter().map(|i| large[i]).collect()
}

/// The detections of an image of `size`, in pixels of the network's input, best score first.
///
/// One region may give several classes. Scores are softmax probabilities `[R, K + 1]` above `score_floor`, the
/// background's first; `decoded(i)` is the box of score `i`, which is clipped to the image before NMS.
pub fn detections(
    scores: &[f32],
    classes: usize,
    decoded: impl Fn(usize) -> Box2,
    size: Size,
    settings: &config::Roi,
) -> Vec<Detection> {
    let mut found = Vec::new();
    for (i, &score) in scores.iter().enumerate() {
        let class = i % (classes + 1);
        // A score that is no number is above nothing.
        let above = f64::from(score) > settings.score_floor;
        if class == 0 || !above {
            continue;
        }
        let bbox = decoded(i).clipped(size);
        if is_large(bbox, SMALLEST_DETECTION) {
            found.push(Detection { bbox, label: Label(class - 1), score });
        }
    }
    let boxes: Vec<Box2> = found.iter().map(|d| d.bbox).collect();
    let scores: Vec<f32> = found.iter().map(|d| d.score).collect();
    let groups: Vec<usize> = found.iter().map(|d| d.label.0).collect();
    let mut kept = batched_nms(&boxes, &scores, &groups, settings.nms_iou);
    kept.truncate(settings.max_detections);
    kept.into_iter().map(|i| found[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_score_that_is_no_number_is_no_detection() {
        let settings = Config::recipe("peer_c4", &[]).unwrap().roi;
        // Background and one class, of three regions; torchvision keeps `scores > threshold`.
        let scores = [0.1, 0.9, f32::NAN, f32::NAN, 0.96, 0.04];
        let bbox = |i: usize| Box2::new(10. * i as f32, 5., 10. * i as f32 + 8., 20.);
        let found = detections(&scores, 1, bbox, Size::new(100, 100), &settings);
        assert_eq!(found.iter().map(|d| d.score).collect::<Vec<_>>(), [0.9]);
    }
}
