//! TensorFlow's selections (its `faster_rcnn_meta_arch.py` and `post_processing.py`).

use crate::config;
use crate::geometry::{Box2, Detection, Label, Size};
use crate::nms::first_apart;

/// Proposals need a higher score.
pub const PROPOSAL_FLOOR: f32 = 0.;

/// Which of the decoded `boxes` of an image of `size` become proposals, best first: NMS runs over all of them as
/// they are and picks at most `most`; of what is picked those go of which clipping leaves nothing. The caller
/// clips the rest.
///
/// # Panics
/// If `boxes` and `scores` differ in length.
pub fn proposals(boxes: &[Box2], scores: &[f32], size: Size, iou: f64, most: usize) -> Vec<usize> {
    let mut kept = first_apart(boxes, scores, PROPOSAL_FLOOR, iou as f32, most);
    kept.retain(|&i| boxes[i].clipped(size).area() > 0.);
    kept
}

/// The detections of an image of `size`, in pixels of the network's input, best score first.
///
/// Scores are softmax probabilities `[R, K]` above `score_floor`, without the background's; `decoded(i)` is the box
/// of score `i`. NMS runs within each class on boxes as decoded, at most `max_per_class` are kept of one, and only
/// then boxes are clipped and dropped where nothing is left.
pub fn detections(
    scores: &[f32],
    classes: usize,
    decoded: impl Fn(usize) -> Box2,
    size: Size,
    settings: &config::Roi,
) -> Vec<Detection> {
    let most = if settings.max_per_class == 0 { usize::MAX } else { settings.max_per_class };
    let (floor, iou) = (settings.score_floor as f32, settings.nms_iou as f32);
    let mut found = Vec::new();
    for class in 0..classes {
        let of_class = (class..scores.len()).step_by(classes);
        let rows: Vec<usize> = of_class.filter(|&i| scores[i] > floor).collect();
        let boxes: Vec<Box2> = rows.iter().map(|&i| decoded(i)).collect();
        let scores: Vec<f32> = rows.iter().map(|&i| scores[i]).collect();
        for i in first_apart(&boxes, &scores, floor, iou, most) {
            found.push(Detection { bbox: boxes[i], label: Label(class), score: scores[i] });
        }
    }
    // Stable: of equal scores the lower class comes first.
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    for detection in &mut found {
        detection.bbox = detection.bbox.clipped(size);
    }
    found.retain(|detection| detection.bbox.area() > 0.);
    found.truncate(settings.max_detections);
    found
}
