//! From pixels to the network's input: normalise and resize, as torch does or as TensorFlow 1 did.

use super::Rgb;
use crate::config::{Input, Sampling};
use crate::geometry::Size;

/// Writes `image`, resized to `to` and normalised as `input` says, into `out`, whose rows start every
/// `out_row` floats.
///
/// # Panics
/// If `out` or `out_row` is too short, or a size is 0.
pub fn fill(image: &Rgb, input: &Input, to: Size, out: &mut [f32], out_row: usize) {
    let write = match input.resize.sampling() {
        Sampling::Centres => resize_normalized,
        Sampling::Corners => resize_from_corners_normalized,
    };
    write(image, to, input.mean, input.std, out, out_row);
}

/// Writes `(pixel / 255 - mean) / std`, resized to `to`, into `out`.
///
/// The resize is torch's `upsample_bilinear2d` with `align_corners=False` and `antialias=False`; the
/// sampling ratio is that of the integer sizes. `out` holds interleaved RGB rows that start every
/// `out_row` floats, so that it can be a part of a padded batch; what lies beyond a row is not touched.
///
/// # Panics
/// If `out` or `out_row` is too short, or a size is 0.
pub fn resize_normalized(
    image: &Rgb,
    to: Size,
    mean: [f32; 3],
    std: [f32; 3],
    out: &mut [f32],
    out_row: usize,
) {
    // Normalisation is linear, and so is interpolation whose weights sum to 1: the two commute. So a
    // sample becomes `gain * interpolated + bias`.
    let gain = std.map(|s| 1. / (255. * s));
    let bias = [0, 1, 2].map(|c| -mean[c] / std[c]);
    resize(&image.pixels, image.size, to, [gain, bias], out, out_row);
}

/// [`resize_normalized`] of samples that are floats already: `(sample - mean) / std`.
///
/// `samples` are interleaved RGB rows of an image of `size`.
pub fn resize_normalized_f32(
    (samples, size): (&[f32], Size),
    to: Size,
    mean: [f32; 3],
    std: [f32; 3],
    out: &mut [f32],
    out_row: usize,
) {
    let gain = std.map(|s| 1. / s);
    let bias = [0, 1, 2].map(|c| -mean[c] / std[c]);
    resize(samples, size, to, [gain, bias], out, out_row);
}

/// As [`resize_normalized`], with TensorFlow 1's `resize_bilinear` (`align_corners=False`, no half-pixel
/// centres) in its float order: across, down, then the normalisation. Output pixel `i` lies at source
/// coordinate `i * in / out`.
///
/// # Panics
/// If `out` or `out_row` is too short, or a size is 0.
pub fn resize_from_corners_normalized(
    image: &Rgb,
    to: Size,
    mean: [f32; 3],
    std: [f32; 3],
    out: &mut [f32],
    out_row: usize,
) {
    let from = image.size;
    assert!(from.height > 0 && from.width > 0, "cannot resize an empty image ({from})");
    assert!(out_row >= 3 * to.width, "rows of {out_row} floats can't hold {} pixels", to.width);
    let (gain, bias) = (std.map(|s| 1. / (255. * s)), [0, 1, 2].map(|c| -mean[c] / std[c]));
    let columns: Vec<Tap> = taps_from_corners(from.width, to.width).collect();
    let row_of = |y: usize| image.pixels[y * 3 * from.width..][..3 * from.width].as_chunks::<3>().0;
    for (y, down) in taps_from_corners(from.height, to.height).enumerate() {
        let (upper, lower) = (row_of(down.low), row_of(down.high));
        let row = &mut out[y * out_row..][..3 * to.width];
        for (pixel, across) in row.as_chunks_mut::<3>().0.iter_mut().zip(&columns) {
            for c in 0..3 {
                let mixed = |row: &[[u8; 3]]| {
                    let (low, high) =
                        (f32::from(row[across.low][c]), f32::from(row[across.high][c]));
                    low + (high - low) * across.weight
                };
                let (top, bottom) = (mixed(upper), mixed(lower));
                pixel[c] = gain[c] * (top + (bottom - top) * down.weight) + bias[c];
            }
        }
    }
}

/// The taps along one axis where output pixel `i` lies at `i * from / to`.
fn taps_from_corners(from: usize, to: usize) -> impl Iterator<Item = Tap> {
    let scale = from as f32 / to as f32;
    (0..to).map(move |i| {
        let source = i as f32 * scale;
        let low = (source as usize).min(from - 1);
        Tap { low, high: (low + 1).min(from - 1), weight: source - source.floor() }
    })
}

/// The two source indices of an output index, and the weight of the second.
#[derive(Clone, Copy)]
struct Tap {
    low: usize,
    high: usize,
    weight: f32,
}

/// The taps along one axis, in the float arithmetic of torch.
fn taps(from: usize, to: usize) -> impl Iterator<Item = Tap> {
    let scale = from as f32 / to as f32;
    (0..to).map(move |i| {
        let source = (scale * (i as f32 + 0.5) - 0.5).max(0.);
        let low = (source as usize).min(from - 1);
        let high = (low + 1).min(from - 1);
        Tap { low, high, weight: (source - low as f32).clamp(0., 1.) }
    })
}

fn resize<S: Copy + Into<f32>>(
    samples: &[S],
    from: Size,
    to: Size,
    [gain, bias]: [[f32; 3]; 2],
    out: &mut [f32],
    out_row: usize,
) {
    assert!(from.height > 0 && from.width > 0, "cannot resize an empty image ({from})");
    assert_eq!(samples.len(), 3 * from.height * from.width, "samples of an image of {from}");
    assert!(out_row >= 3 * to.width, "rows of {out_row} floats can't hold {} pixels", to.width);
    let stride = 3 * from.width;
    let columns: Vec<Column> = taps(from.width, to.width)
        .map(|t| Column { begin: 3 * t.low, weights: [1. - t.weight, t.weight] })
        .collect();
    // Down first: it runs along whole rows, which the compiler vectorises. Across comes second, on the
    // one blended row. Behind its last pixel stands the same again, which is that pixel's right neighbour, and one
    // float to spare: a pixel is read and written as four floats, which the processor takes at once.
    let mut blended = vec![0f32; stride + 4];
    let four = |v: [f32; 3]| [v[0], v[1], v[2], 0.];
    let (gain, bias) = (four(gain), four(bias));
    for (y, tap) in taps(from.height, to.height).enumerate() {
        let upper = &samples[tap.low * stride..][..stride];
        let lower = &samples[tap.high * stride..][..stride];
        blend(&mut blended[..stride], upper, lower, [1. - tap.weight, tap.weight]);
        blended.copy_within(stride - 3..stride, stride);
        spread(&mut out[y * out_row..][..3 * to.width], &blended, &columns, gain, bias);
    }
}

/// Where the left one of the two source pixels of an output pixel begins in a row of floats, and what each
/// counts.
struct Column {
    begin: usize,
    weights: [f32; 2],
}

/// The weighted sum of two rows.
fn blend<S: Copy + Into<f32>>(out: &mut [f32], upper: &[S], lower: &[S], weights: [f32; 2]) {
    for ((b, &u), &l) in out.iter_mut().zip(upper).zip(lower) {
        *b = weights[0] * u.into() + weights[1] * l.into();
    }
}

/// A row of pixels between those of `row`.
fn spread(out: &mut [f32], row: &[f32], columns: &[Column], gain: [f32; 4], bias: [f32; 4]) {
    // Written out, because `array::map` becomes a call for each pixel.
    let pixel = |column: &Column| {
        let both = row[column.begin..].first_chunk::<7>().expect("the row has a pixel to spare");
        let [left, right] = column.weights;
        let channel = |c: usize| gain[c] * (left * both[c] + right * both[3 + c]) + bias[c];
        [channel(0), channel(1), channel(2), channel(3)]
    };
    let Some((last, others)) = columns.split_last() else { return };
    for (i, column) in others.iter().enumerate() {
        // The fourth float is what the next pixel overwrites.
        *out[3 * i..].first_chunk_mut().expect("another pixel follows") = pixel(column);
    }
    out[3 * others.len()..].copy_from_slice(&pixel(last)[..3]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_only_normalises() {
        let image = Rgb { size: Size::new(1, 2), pixels: vec![0, 51, 255, 255, 102, 0] };
        let mut out = [9f32; 8];
        resize_normalized(&image, image.size, [0.5; 3], [0.5, 0.25, 1.], &mut out, 8);
        let expected = [-1., -1.2, 0.5, 1., -0.4, -0.5, 9., 9.];
        for (got, want) in out.iter().zip(expected) {
            assert!((got - want).abs() < 1e-6, "{out:?}");
        }
    }

    #[test]
    fn doubling_interpolates_between_centres_and_repeats_the_border() {
        // By hand: centres of the output lie at -0.25 (clamped to 0), 0.25, 0.75, 1.25 (clamped to 1).
        let samples = [0f32, 0., 0., 1., 1., 1.];
        let mut out = [0f32; 12];
        let to = Size::new(1, 4);
        resize_normalized_f32((&samples, Size::new(1, 2)), to, [0.; 3], [1.; 3], &mut out, 12);
        let red: Vec<f32> = out.iter().copied().step_by(3).collect();
        assert_eq!(red, [0., 0.25, 0.75, 1.]);
    }

    #[test]
    fn each_sample_is_down_then_across_then_normalised_to_the_last_bit() {
        let from = Size::new(7, 9);
        let pixels: Vec<u8> = (0..3 * 7 * 9).map(|i| (i * i * 31 % 251) as u8).collect();
        let (mean, std) = ([0.5, 0.25, 0.1], [0.5, 0.2, 0.7]);
        for to in [(1, 1), (3, 4), (7, 9), (16, 23)].map(|(h, w)| Size::new(h, w)) {
            let image = Rgb { size: from, pixels: pixels.clone() };
            let mut out = vec![0.; 3 * to.height * to.width];
            resize_normalized(&image, to, mean, std, &mut out, 3 * to.width);
            let place = |i: usize, from: usize, to: usize| {
                let at = (from as f32 / to as f32 * (i as f32 + 0.5) - 0.5).max(0.);
                let low = at as usize;
                (low, (low + 1).min(from - 1), at - low as f32)
            };
            for (i, got) in out.into_iter().enumerate() {
                let (y, x, c) = (i / 3 / to.width, i / 3 % to.width, i % 3);
                let (top, bottom, v) = place(y, from.height, to.height);
                let (left, right, u) = place(x, from.width, to.width);
                let sample = |y: usize, x: usize| f32::from(pixels[3 * (y * from.width + x) + c]);
                let column = |x| (1. - v) * sample(top, x) + v * sample(bottom, x);
                let mixed = (1. - u) * column(left) + u * column(right);
                let want = 1. / (255. * std[c]) * mixed + -mean[c] / std[c];
                assert_eq!(got, want, "{y}, {x}, {c} of {to}");
            }
        }
    }

    #[test]
    fn doubling_from_corners_starts_at_the_first_pixel() {
        // By hand: outputs lie at 0, 0.5, 1 and 1.5, whose right neighbour is the last pixel again.
        let image = Rgb { size: Size::new(1, 2), pixels: vec![0, 0, 0, 255, 255, 255] };
        let mut out = [0f32; 12];
        let to = Size::new(1, 4);
        resize_from_corners_normalized(&image, to, [0.; 3], [1.; 3], &mut out, 12);
        let red: Vec<f32> = out.iter().copied().step_by(3).collect();
        assert_eq!(red, [0., 0.5, 1., 1.]);
    }

    #[test]
    fn padding_between_rows_is_not_touched() {
        let image = Rgb { size: Size::new(5, 7), pixels: vec![255; 105] };
        let mut out = vec![7f32; 3 * 32];
        resize_normalized(&image, Size::new(3, 4), [0.; 3], [1.; 3], &mut out, 32);
        for row in out.chunks(32) {
            assert!(row[..12].iter().all(|v| (v - 1.).abs() < 1e-6));
            assert!(row[12..].iter().all(|&v| v == 7.));
        }
    }
}
