//! From class logits and deltas to detections: torchvision's selection.

use detect::config;
use detect::geometry::{Box2, Detection, Label, Size};
use detect::nms::batched_nms;
use tch::{Kind, Tensor};

use crate::detector::coder::Coder;
use crate::detector::roi::RoiOutput;
use crate::detector::{boxes, post};

/// Detections narrower or lower than this are dropped, in pixels of the network's input.
const SMALLEST_SIDE: f32 = 1e-2;

/// The detections of each image in pixels of the network's input, best score first.
///
/// One region may give several classes. Scores are softmax probabilities above `score_floor`; boxes are
/// clipped to the image before NMS.
///
/// # Shapes
/// `regions`: for each image `[R_i, 4]`, in the order of `output`.
pub fn select(
    output: &RoiOutput,
    regions: &[Tensor],
    sizes: &[Size],
    settings: &config::Roi,
) -> Vec<Vec<Detection>> {
    let classes = output.class_logits.size()[1] as usize; // K + 1
    let scores = boxes::to_vec(&output.class_logits.softmax(1, Kind::Float)); // [R, K + 1]
    let decoded = Coder::TORCHVISION_ROI.decode(&output.box_regression, &Tensor::cat(regions, 0));
    let decoded = boxes::from_tensor(&decoded); // [R, K + 1]
    post::of_each_image(regions, sizes, classes, |rows, size| {
        select_one(&scores[rows.clone()], &decoded[rows], classes, size, settings)
    })
}

/// `scores` and `decoded` are `[R, K + 1]` of one image.
fn select_one(
    scores: &[f32],
    decoded: &[Box2],
    classes: usize,
    size: Size,
    settings: &config::Roi,
) -> Vec<Detection> {
    let mut found = Vec::new();
    for (i, (&score, bbox)) in scores.iter().zip(decoded).enumerate() {
        let class = i % classes;
        if class == 0 || f64::from(score) <= settings.score_floor {
            continue;
        }
        let bbox = bbox.clipped(size);
        if bbox.width() >= SMALLEST_SIDE && bbox.height() >= SMALLEST_SIDE {
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
