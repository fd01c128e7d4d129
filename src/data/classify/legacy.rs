//! TensorFlow 1's `resize_bilinear` with `align_corners=False`, in its order of operations.
//!
//! Output pixel `i` is read at `i * in / out`: pixels are points at their top left corners, which later
//! versions call a mistake, but which the checkpoints were measured with. Nothing is smoothed.

use super::super::image::Rgb;
use super::Region;
use crate::geometry::Size;

/// Two source pixels of an output pixel, and how far it lies on the way from one to the other.
struct Tap {
    low: usize,
    high: usize,
    way: f32,
}

fn taps(from: usize, to: usize) -> impl Iterator<Item = Tap> {
    let scale = from as f32 / to as f32;
    (0..to).map(move |i| {
        let place = i as f32 * scale;
        let low = place.floor();
        // Rounding may carry the last place over the border.
        let inside = |p: f32| (p as usize).min(from - 1);
        Tap { low: inside(low), high: inside(place.ceil()), way: place - low }
    })
}

/// Writes `region` of `image`, resized to `to`, as `(x - mean) / std` of samples in 0 to 1.
pub(super) fn resize(
    image: &Rgb,
    region: Region,
    to: Size,
    [mean, std]: [[f32; 3]; 2],
    out: &mut [f32],
) {
    // `convert_image_dtype` multiplies by the reciprocal.
    let unit: [f32; 256] = std::array::from_fn(|v| v as f32 * (1. / 255.));
    let columns: Vec<Tap> = taps(region.size.width, to.width).collect();
    let row = |y: usize| {
        let start = (region.top + y) * image.size.width + region.left;
        &image.pixels[3 * start..][..3 * region.size.width]
    };
    for (out, tap) in out.chunks_exact_mut(3 * to.width).zip(taps(region.size.height, to.height)) {
        let (upper, lower) = (row(tap.low), row(tap.high));
        for (pixel, column) in out.as_chunks_mut::<3>().0.iter_mut().zip(&columns) {
            for c in 0..3 {
                let at = |row: &[u8], x: usize| unit[usize::from(row[3 * x + c])];
                let across = |row: &[u8]| {
                    let left = at(row, column.low);
                    left + (at(row, column.high) - left) * column.way
                };
                let (top, bottom) = (across(upper), across(lower));
                let value = top + (bottom - top) * tap.way;
                pixel[c] = (value - mean[c]) / std[c];
            }
        }
    }
}
