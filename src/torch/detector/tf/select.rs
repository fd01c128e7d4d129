//! From class logits and deltas to detections: TensorFlow's selection (its `post_processing.py`).

use detect::config;
use detect::geometry::{Box2, Detection, Label, Size};
use detect::nms::first_apart;
use tch::{Kind, Tensor};

use crate::detector::coder::Coder;
use crate::detector::roi::RoiOutput;
use crate::detector::{boxes, post};

/// The detections of each image in pixels of the network's input, best score first.
///
/// Scores are softmax probabilities above `score_floor`; NMS runs within each class on boxes as decoded, at
/// most `max_per_class` are kept of one, and only then boxes are clipped and dropped where nothing is left.
///
/// # Shapes
/// `regions`: for each image `[R_i, 4]`, in the order of `output`.
pub fn select(
    output: &RoiOutput,
    regions: &[Tensor],
    sizes: &[Size],
    settings: &config::Roi,
) -> Vec<Vec<Detection>> {
    let classes = output.class_logits.size()[1] as usize - 1; // K
    let scores = output.class_logits.softmax(1, None::<Kind>).narrow(1, 1, classes as i64);
    let scores = boxes::to_vec(&scores); // [R, K]
    let decoded = Coder::TF.decode(&output.box_regression, &Tensor::cat(regions, 0));
    let decoded = boxes::from_tensor(&decoded); // [R, K]
    post::of_each_image(regions, sizes, classes, |rows, size| {
        select_one(&scores[rows.clone()], &decoded[rows], classes, size, settings)
    })
}

/// `scores` and `decoded` are `[R, K]` of one image.
fn select_one(
    scores: &[f32],
    decoded: &[Box2],
    classes: usize,
    size: Size,
    settings: &config::Roi,
) -> Vec<Detection> {
    let most = if settings.max_per_class == 0 { usize::MAX } else { settings.max_per_class };
    let mut found = Vec::new();
    for class in 0..classes {
        let of_class = |i: usize| i * classes + class;
        let rows = 0..scores.len() / classes;
        let scores: Vec<f32> = rows.clone().map(|i| scores[of_class(i)]).collect();
        let boxes: Vec<Box2> = rows.map(|i| decoded[of_class(i)]).collect();
        let (floor, iou) = (settings.score_floor as f32, settings.nms_iou as f32);
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
