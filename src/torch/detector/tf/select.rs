//! From class logits and deltas to detections: TensorFlow's selection (its `post_processing.py`).

use detect::config;
use detect::geometry::{Detection, Size};
use detect::rules::tf;
use tch::{Kind, Tensor};

use crate::detector::coder::{Coder, Coding as _};
use crate::detector::roi::RoiOutput;
use crate::detector::{boxes, post};

/// The detections of each image in pixels of the network's input, best score first; see [`tf::detections`].
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
        let decoded = &decoded[rows.clone()];
        tf::detections(&scores[rows], classes, |i| decoded[i], size, settings)
    })
}
