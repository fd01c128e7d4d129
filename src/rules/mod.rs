//! What a detector decides on plain numbers: one copy for every engine.
//!
//! Two families of rules ([`config::Rules`](crate::config::Rules)) differ in the anchors of a cell, in the code of a
//! box, in which boxes become proposals and in which become detections. How the numbers are computed, with tensors
//! or without, is the engine's.

pub mod anchors;
pub mod coder;
pub mod tf;
pub mod torchvision;

pub use coder::Coder;

use crate::geometry::{Detection, Size};

/// Detections moved from the network's input to the original image: the one crossing between the two.
/// They are not clipped again: neither family does.
pub fn to_original(detections: &mut [Detection], resized: Size, original: Size) {
    let ratio = |original: usize, resized: usize| original as f32 / resized as f32;
    let (sy, sx) = (ratio(original.height, resized.height), ratio(original.width, resized.width));
    for detection in detections {
        detection.bbox = detection.bbox.scaled(sy, sx);
    }
}
