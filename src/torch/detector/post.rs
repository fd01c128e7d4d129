//! From pixels of the network's input to pixels of the original image.

use detect::geometry::{Detection, Size};

/// Detections moved from the network's input to the original image: the one crossing between the two.
/// They are not clipped again: neither family does.
pub fn to_original(detections: &mut [Detection], resized: Size, original: Size) {
    let ratio = |original: usize, resized: usize| original as f32 / resized as f32;
    let (sy, sx) = (ratio(original.height, resized.height), ratio(original.width, resized.width));
    for detection in detections {
        detection.bbox = detection.bbox.scaled(sy, sx);
    }
}
