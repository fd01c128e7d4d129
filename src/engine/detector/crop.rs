//! Crops: a small map of fixed size for each region.
//!
//! In both kinds the value of a bin is a weighted sum over a rectangle of map cells, whose rows and columns are found
//! separately: a few cells along each axis, the same for all channels.

use rayon::prelude::*;

use crate::config::{Crop, DetectorSection};
use crate::engine::map::Map;
use crate::geometry::{Box2, Size};

/// Crops in memory together, for each thread: 2 of the published detector, hundreds of a small one. The maps that become of
/// them are to stay in the processor's caches, and a thread is to have some hundred rows for the weights that it reads.
const BYTES_A_THREAD: usize = 12 << 20;

/// A region of an image of the batch, in pixels of the network's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Which image.
    pub image: usize,
    /// Where.
    pub bbox: Box2,
}

/// How regions are cut out of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cropper {
    /// Height and width of a crop in bins.
    pub bins: [usize; 2],
    /// Whose rule.
    pub kind: Kind,
}

/// A rule for crops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// RoIAlign (He et al. 2017) of torchvision, `aligned = False`: the mean of a few bilinear samples a bin, of
    /// regions at least one cell wide and high.
    RoiAlign {
        /// Map cells for each pixel of the boxes, such as 1/16.
        scale: f32,
        /// Samples along each side of a bin; 0 takes as many as the bin has cells, rounded up.
        sampling_ratio: usize,
    },
    /// TensorFlow's crop and resize: one bilinear sample a bin, corners of the crop on corners of the box, 0 where a
    /// sample is outside the map, however little.
    CropAndResize,
}

/// The cells along an axis that each bin mixes, and how much of each.
struct Axis {
    /// Of all bins, one after the other; no cell twice in a bin.
    mix: Vec<(usize, f32)>,
    /// Where each bin's end.
    ends: Vec<usize>,
}

impl Axis {
    fn of_bins(&self) -> impl Iterator<Item = &[(usize, f32)]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.mix[start..end])
    }

    fn of_bin(&self, bin: usize) -> &[(usize, f32)] {
        let start = if bin == 0 { 0 } else { self.ends[bin - 1] };
        &self.mix[start..self.ends[bin]]
    }

    /// Adds `weight` of the sample at `at`, which lies within the map, to the bin that begins at `start`.
    fn add(&mut self, start: usize, at: f32, cells: usize, weight: f32) {
        let low = at.floor();
        let upper = at - low;
        let low = low as usize;
        for (cell, share) in [(low, 1. - upper), ((low + 1).min(cells - 1), upper)] {
            if share == 0. {
                continue;
            }
            match self.mix[start..].iter_mut().find(|(there, _)| *there == cell) {
                Some((_, sum)) => *sum += share * weight,
                None => self.mix.push((cell, share * weight)),
            }
        }
    }
}

impl Cropper {
    /// As `section` says, on a map of `stride` pixels a cell.
    pub fn new(section: &DetectorSection, stride: usize) -> Self {
        let kind = match section.crop {
            Crop::RoiAlign => {
                Kind::RoiAlign { scale: 1. / stride as f32, sampling_ratio: section.sampling_ratio }
            }
            Crop::CropAndResize => Kind::CropAndResize,
        };
        Self { bins: [section.crop_size; 2], kind }
    }

    /// How many crops of a map of `channels` are to be in memory together, with the threads that there are: at least 1.
    pub fn at_once(&self, channels: usize) -> usize {
        let bytes = channels * self.bins[0] * self.bins[1] * size_of::<f32>();
        (rayon::current_num_threads() * BYTES_A_THREAD / bytes.max(1)).max(1)
    }

    /// The crop of each region of inputs of `padded` pixels, into `crops`, which becomes `[R, k, k, C]`.
    pub fn crops(&self, map: &Map, regions: &[Region], padded: Size, crops: &mut Map) {
        let [bins_y, bins_x] = self.bins;
        (crops.images, crops.height, crops.width) = (regions.len(), bins_y, bins_x);
        crops.channels = map.channels;
        crops.data.resize(crops.pixels() * map.channels, 0.);
        if crops.data.is_empty() {
            return;
        }
        let axes: Vec<[Axis; 2]> =
            regions.par_iter().map(|r| self.axes(map, r.bbox, padded)).collect();
        crops.data.par_chunks_mut(bins_x * map.channels).enumerate().for_each(|(i, row)| {
            let (region, bin_y) = (i / bins_y, i % bins_y);
            let [ys, xs] = &axes[region];
            let (image, ys) = (regions[region].image, ys.of_bin(bin_y));
            for (out, xs) in row.chunks_exact_mut(map.channels).zip(xs.of_bins()) {
                mix(map, image, ys, xs, out);
            }
        });
    }

    /// Rows and columns.
    fn axes(&self, map: &Map, bbox: Box2, padded: Size) -> [Axis; 2] {
        let [bins_y, bins_x] = self.bins;
        match self.kind {
            Kind::RoiAlign { scale, sampling_ratio } => [
                align(bbox.y1 * scale, bbox.y2 * scale, bins_y, sampling_ratio, map.height),
                align(bbox.x1 * scale, bbox.x2 * scale, bins_x, sampling_ratio, map.width),
            ],
            Kind::CropAndResize => {
                // Pixel p of the input lies at p / size * (cells - 1) on the map, not at p / stride. TensorFlow
                // multiplies by the reciprocal, and where that rounds up the last row of samples falls outside.
                let (y, x) = (1. / padded.height as f32, 1. / padded.width as f32);
                [
                    resize(bbox.y1 * y, bbox.y2 * y, bins_y, map.height),
                    resize(bbox.x1 * x, bbox.x2 * x, bins_x, map.width),
                ]
            }
        }
    }
}

/// RoIAlign from `start` to `end` in cells.
fn align(start: f32, end: f32, bins: usize, sampling_ratio: usize, cells: usize) -> Axis {
    let bin = (end - start).max(1.) / bins as f32;
    let samples = if sampling_ratio > 0 { sampling_ratio } else { bin.ceil() as usize };
    let share = 1. / samples.max(1) as f32;
    let mut axis = Axis { mix: Vec::new(), ends: Vec::with_capacity(bins) };
    for index in 0..bins {
        let first = axis.mix.len();
        for sample in 0..samples {
            let at = start + index as f32 * bin + (sample as f32 + 0.5) * bin / samples as f32;
            // A sample more than one cell outside counts as 0, but stays in the divisor.
            if (-1. ..=cells as f32).contains(&at) {
                axis.add(first, at.clamp(0., (cells - 1) as f32), cells, share);
            }
        }
        axis.ends.push(axis.mix.len());
    }
    axis
}

/// Crop and resize from `from` to `to` in shares of the last cell's place; swapped ends flip the crop.
fn resize(from: f32, to: f32, bins: usize, cells: usize) -> Axis {
    let last = (cells - 1) as f32;
    let mut axis = Axis { mix: Vec::new(), ends: Vec::with_capacity(bins) };
    for index in 0..bins {
        let at = if bins > 1 {
            let step = (to - from) * last / (bins - 1) as f32;
            from * last + index as f32 * step
        } else {
            (from + to) * 0.5 * last
        };
        let first = axis.mix.len();
        if (0. ..=last).contains(&at) {
            axis.add(first, at, cells, 1.);
        }
        axis.ends.push(axis.mix.len());
    }
    axis
}

/// The weighted sum of the cells in which rows and columns cross, into `out` `[C]`.
fn mix(map: &Map, image: usize, ys: &[(usize, f32)], xs: &[(usize, f32)], out: &mut [f32]) {
    let row = |&(y, by_y): &(usize, f32)| {
        xs.iter().map(move |&(x, by_x)| (by_y * by_x, map.run(image, y, x, 1)))
    };
    let mut cells = ys.iter().flat_map(row);
    let mut fresh = true;
    while let Some(first) = cells.next() {
        // Of cells that are not there nothing is added.
        let mut next = || cells.next().unwrap_or((0., first.1));
        let four = [first, next(), next(), next()];
        if fresh {
            each(out, four, |out, sum| *out = sum);
        } else {
            each(out, four, |out, sum| *out += sum);
        }
        fresh = false;
    }
    if fresh {
        out.fill(0.);
    }
}

/// One loop over channels, which the compiler turns into vector code.
fn each(out: &mut [f32], cells: [(f32, &[f32]); 4], put: impl Fn(&mut f32, f32)) {
    let [(wa, a), (wb, b), (wc, c), (wd, d)] = cells;
    let rows = a.iter().zip(b).zip(c.iter().zip(d));
    for (out, ((a, b), (c, d))) in out.iter_mut().zip(rows) {
        put(out, wa * a + wb * b + wc * c + wd * d);
    }
}
