//! From class logits and deltas to detections: torchvision's selection.

use detect::config;
use detect::geometry::{Detection, Size};
use detect::rules::torchvision;
use tch::{Kind, Tensor};

use crate::detector::coder::{Coder, Coding as _};
use crate::detector::roi::RoiOutput;
use crate::detector::{boxes, post};

/// The detections of each image in pixels of the network's input, best score first; see
/// [`torchvision::detections`].
///
/// # Shapes
/// `regions`: for each image `[R_i, 4]`, in the order of `output`.
pub fn select(
    output: &RoiOutput,
    regions: &[Tensor],
    sizes: &[Size],
    settings: &config::Roi,
) -> Vec<Vec<Detection>> {
    let columns = output.class_logits.size()[1] as usize; // K + 1
    let scores = boxes::to_vec(&output.class_logits.softmax(1, Kind::Float)); // [R, K + 1]
    let decoded = Coder::TORCHVISION_ROI.decode(&output.box_regression, &Tensor::cat(regions, 0));
    let decoded = boxes::from_tensor(&decoded); // [R, K + 1]
    post::of_each_image(regions, sizes, columns, |rows, size| {
        let decoded = &decoded[rows.clone()];
        torchvision::detections(&scores[rows], columns - 1, |i| decoded[i], size, settings)
    })
}
