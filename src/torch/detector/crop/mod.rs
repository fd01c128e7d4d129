//! Crops: a small map of fixed size for each region, without a kernel of our own.
//!
//! In each of the three kinds the value of a bin comes from a rectangle of map cells, whose rows and
//! columns are found separately. libtorch has the weighted sum (and the maximum) over a list of cells as
//! `embedding_bag`, on every device; the sum has a deterministic backward pass, and on a CPU it is several
//! times faster than torchvision's kernel.

mod crop_and_resize;
mod roi_align;
mod roi_pool;

pub use crop_and_resize::{CropAndResize, Interpolation};
use detect::config::{Crop, DetectorSection};
use detect::geometry::Size;
pub use roi_align::RoiAlign;
pub use roi_pool::RoiPool;
use tch::{Kind, Tensor};

use crate::nn::nchw;

/// Crops in memory together: 57 of the published detector, thousands of a small one.
const MOST_BYTES: usize = 256 << 20;

/// The crop that a configuration names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cropper {
    /// torchvision's.
    RoiAlign(RoiAlign),
    /// TensorFlow's.
    CropAndResize(CropAndResize),
}

impl Cropper {
    /// As `section` says, on a map of `stride` pixels a cell.
    pub fn new(section: &DetectorSection, stride: i64) -> Self {
        let size = [section.crop_size as i64; 2];
        match section.crop {
            Crop::RoiAlign => Self::RoiAlign(RoiAlign {
                bins: size,
                scale: 1. / stride as f64,
                sampling_ratio: section.sampling_ratio as i64,
                aligned: false,
            }),
            Crop::CropAndResize => Self::CropAndResize(CropAndResize {
                size,
                interpolation: Interpolation::Bilinear,
                extrapolation: 0.,
            }),
        }
    }

    /// How many crops of `map` `[N, C, H, W]` are to be in memory together: at least 1.
    pub fn at_once(&self, map: &Tensor) -> usize {
        let [_, channels, _, _] = nchw(map);
        let [bins_y, bins_x] = match self {
            Self::RoiAlign(align) => align.bins,
            Self::CropAndResize(crop) => crop.size,
        };
        let bytes = (channels * bins_y * bins_x) as usize * map.kind().elt_size_in_bytes();
        (MOST_BYTES / bytes.max(1)).max(1)
    }

    /// Crops of every image's regions, image by image.
    ///
    /// # Shapes
    /// `map` `[N, C, H, W]` of inputs of `padded` pixels, `regions` N times `[R_i, 4]` in those pixels, to
    /// `[sum R_i, C, k, k]`.
    pub fn crops(&self, map: &Tensor, regions: &[Tensor], padded: Size) -> Tensor {
        match self {
            Self::RoiAlign(align) => align.crops(map, regions),
            Self::CropAndResize(crop) => {
                let boxes = crop_and_resize::as_shares(&Tensor::cat(regions, 0), padded);
                crop.crops(map, &boxes, &image_of_each(regions))
            }
        }
    }
}

/// For each region, all images in one list, the index of its image: `[sum R_i]` int64.
fn image_of_each(regions: &[Tensor]) -> Tensor {
    let of_image = |(i, r): (usize, &Tensor)| r.select(1, 0).full_like(i as f64);
    let images: Vec<Tensor> = regions.iter().enumerate().map(of_image).collect();
    Tensor::cat(&images, 0).to_kind(Kind::Int64)
}

/// For each bin along one axis of each region the cells that it mixes, and how much of each.
struct Mix {
    /// `[R, bins, entries]` int64.
    cells: Tensor,
    /// `[R, bins, entries]`.
    weights: Tensor,
}

/// Weighted sums over the cells of each bin.
///
/// # Shapes
/// `map` `[N, C, H, W]`; `images` `[R]`, whose image each region lies in; to `[R, C, bins_y, bins_x]` with
/// channels innermost in memory.
fn weighted_sum(map: &Tensor, images: &Tensor, rows: &Mix, columns: &Mix) -> Tensor {
    let (y, x) = outer(&rows.weights, &columns.weights);
    bag(map, images, [&rows.cells, &columns.cells], Some((y * x).to_kind(map.kind())))
}

/// The largest value among the cells of each bin. Shapes as in [`weighted_sum`].
fn largest(map: &Tensor, images: &Tensor, rows: &Tensor, columns: &Tensor) -> Tensor {
    bag(map, images, [rows, columns], None)
}

/// Lays out two `[R, bins, entries]` for every pair of a row's and a column's entries:
/// `[R, bins_y, bins_x, entries_y, entries_x]`.
fn outer(rows: &Tensor, columns: &Tensor) -> (Tensor, Tensor) {
    (rows.unsqueeze(2).unsqueeze(4), columns.unsqueeze(1).unsqueeze(3))
}

/// The sum of each bin's cells by `weights`, or without them the maximum.
fn bag(map: &Tensor, images: &Tensor, cells: [&Tensor; 2], weights: Option<Tensor>) -> Tensor {
    const SUM: i64 = 0;
    const MAX: i64 = 2;
    let [_, channels, height, width] = nchw(map);
    let (y, x) = outer(cells[0], cells[1]);
    let first = (images * (height * width)).reshape([-1, 1, 1, 1, 1]);
    let cells = first + y * width + x; // [R, bins_y, bins_x, entries_y, entries_x]
    let size = cells.size();
    let (regions, bins_y, bins_x, entries) = (size[0], size[1], size[2], size[3] * size[4]);
    let table = map.permute([0, 2, 3, 1]).reshape([-1, channels]); // [N H W, C]
    if regions == 0 {
        // A part of the map, so that it has a gradient: of zeros.
        return table.narrow(0, 0, 0).reshape([0, channels, bins_y, bins_x]);
    }
    let bags = regions * bins_y * bins_x;
    let starts = Tensor::arange(bags, (Kind::Int64, map.device())) * entries;
    let mode = if weights.is_some() { SUM } else { MAX };
    let weights = weights.map(|w| w.reshape([-1]));
    let cells = cells.reshape([-1]);
    let (crops, ..) =
        Tensor::embedding_bag(&table, &cells, &starts, false, mode, false, weights, false);
    crops.reshape([regions, bins_y, bins_x, channels]).permute([0, 3, 1, 2])
}
