//! PIL's resize and torchvision's centre crop of it, to the bit.
//!
//! Own code rather than a resizing crate: those round their weights to other widths, and all of them
//! make the whole resized image, of which a crop needs a part; a picture one pixel wide and a million
//! high would take gigabytes. Here only the pixels under the crop are made.
//!
//! It is the PIL that the published figures were measured with: across first, then down. Pillow 13 turns
//! that round where a tall image shrinks, to be faster, and gets samples that differ by one level.

use super::super::image::Rgb;
use crate::geometry::Size;

/// A resampling kernel.
pub(super) struct Kernel {
    /// Its value is 0 from here on, both ways.
    radius: f64,
    value: fn(f64) -> f64,
}

/// The triangle.
pub(super) const BILINEAR: Kernel = Kernel { radius: 1., value: |x| (1. - x.abs()).max(0.) };

/// Keys's cubic with a = -1/2.
pub(super) const BICUBIC: Kernel = Kernel {
    radius: 2.,
    value: |x| {
        const A: f64 = -0.5;
        let x = x.abs();
        if x < 1. {
            ((A + 2.) * x - (A + 3.)) * x * x + 1.
        } else if x < 2. {
            (((x - 5.) * x + 8.) * x - 4.) * A
        } else {
            0.
        }
    },
};

/// Weights are integers of this many fractional bits: a sum of 8-bit samples with a sign, and one bit to
/// spare for kernels that overshoot, fills 32.
const FRACTION_BITS: u32 = 32 - 8 - 2;

/// Resizes so that the short side is `short` pixels, and gives the central `to` of that: interleaved RGB,
/// black where the resized image does not reach.
pub(super) fn short_side_and_centre(
    image: &Rgb,
    short: usize,
    to: Size,
    kernel: &Kernel,
) -> Vec<u8> {
    let Size { height, width } = image.size;
    // The long side is rounded down.
    let (tall, wide) = if width <= height {
        (short * height / width, short)
    } else {
        (short, short * width / height)
    };
    let (rows, columns) = (Window::centre(tall, to.height), Window::centre(wide, to.width));
    let down = Taps::new(height, tall, rows, kernel);
    let across = Taps::new(width, wide, columns, kernel);

    // Across, in the rows that are needed alone; 8 bits in between, as PIL has it.
    let (first, last) = down.reach();
    let stride = 3 * width;
    let row = 3 * columns.length;
    let mut narrow = vec![0_u8; row * (last - first)];
    let sources = image.pixels.chunks_exact(stride).skip(first);
    for (out, source) in narrow.chunks_exact_mut(row).zip(sources) {
        for (pixel, (start, weights)) in out.as_chunks_mut::<3>().0.iter_mut().zip(across.iter()) {
            let mut sums = [HALF; 3];
            for (sample, &weight) in source[3 * start..].as_chunks::<3>().0.iter().zip(weights) {
                for c in 0..3 {
                    sums[c] += i32::from(sample[c]) * weight;
                }
            }
            *pixel = sums.map(to_8_bits);
        }
    }
    let mut out = vec![0; 3 * to.height * to.width];
    let places = out.chunks_exact_mut(3 * to.width).skip(rows.padding);
    let mut sums = vec![0; row];
    for (place, (start, weights)) in places.zip(down.iter()) {
        sums.fill(HALF);
        for (source, &weight) in narrow.chunks_exact(row).skip(start - first).zip(weights) {
            for (sum, &sample) in sums.iter_mut().zip(source) {
                *sum += i32::from(sample) * weight;
            }
        }
        for (sample, &sum) in place[3 * columns.padding..].iter_mut().zip(&sums) {
            *sample = to_8_bits(sum);
        }
    }
    out
}

/// Rounds to the nearest when the fraction is cut off.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

fn to_8_bits(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// The pixels of one axis of the resized image that a crop shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// The first one.
    start: usize,
    /// How many.
    length: usize,
    /// Black pixels before them.
    padding: usize,
}

impl Window {
    /// torchvision's `CenterCrop` to `crop` pixels out of `side`.
    fn centre(side: usize, crop: usize) -> Self {
        match side.checked_sub(crop) {
            None => Self { start: 0, length: side, padding: (crop - side) / 2 },
            Some(rest) => {
                // Python's round: halves go to the even number.
                let down = rest / 2;
                let start = if rest % 2 == 1 && down % 2 == 1 { down + 1 } else { down };
                Self { start, length: crop, padding: 0 }
            }
        }
    }
}

/// For each pixel of a window: the first source pixel, and the weights of it and those that follow.
struct Taps {
    starts: Vec<usize>,
    /// Where each pixel's weights end.
    ends: Vec<usize>,
    weights: Vec<i32>,
}

impl Taps {
    /// Of an axis of `from` pixels that is resized to `to`, of which `window` is made.
    fn new(from: usize, to: usize, window: Window, kernel: &Kernel) -> Self {
        // PIL has the sides of the source as 32-bit floats.
        let scale = f64::from(from as f32) / to as f64;
        // Shrinking stretches the kernel over all that falls into a pixel.
        let stretch = scale.max(1.);
        let radius = kernel.radius * stretch;
        let mut taps = Self { starts: Vec::new(), ends: Vec::new(), weights: Vec::new() };
        for i in window.start..window.start + window.length {
            let centre = (i as f64 + 0.5) * scale;
            // A cast cuts off, and stops at 0.
            let start = (centre - radius + 0.5) as usize;
            let end = ((centre + radius + 0.5) as usize).min(from);
            let offset = |j: usize| (j as f64 - centre + 0.5) * (1. / stretch);
            let values: Vec<f64> = (start..end).map(|j| (kernel.value)(offset(j))).collect();
            let sum: f64 = values.iter().sum();
            taps.starts.push(start);
            taps.weights.extend(values.iter().map(|v| {
                let weight = if sum == 0. { *v } else { v / sum };
                // Halves away from zero.
                (weight * f64::from(1 << FRACTION_BITS) + 0.5_f64.copysign(weight)) as i32
            }));
            taps.ends.push(taps.weights.len());
        }
        taps
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let weights = begins.zip(&self.ends).map(|(begin, &end)| &self.weights[begin..end]);
        self.starts.iter().copied().zip(weights)
    }

    /// The first source pixel that is read, and the one after the last.
    fn reach(&self) -> (usize, usize) {
        let first = self.starts.first().copied().unwrap_or(0);
        (first, self.iter().map(|(start, weights)| start + weights.len()).max().unwrap_or(first))
    }
}
