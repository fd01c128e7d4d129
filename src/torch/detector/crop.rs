//! RoIAlign (He et al. 2017) without a kernel of its own.
//!
//! Bilinear sampling and averaging are separable: a region's crop is `Y F X^T` with one interpolation
//! matrix along each axis. As matrix products it runs on every device, and its backward pass, again
//! matrix products, is deterministic.

use detect::geometry::Size;
use tch::{Kind, Tensor};

use crate::nn::nchw;

/// How regions are cut out of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiAlign {
    /// Side of a crop in bins.
    pub bins: i64,
    /// Map cells for each pixel of the boxes, such as 1/16.
    pub scale: f64,
    /// Samples along each side of a bin; 0 takes `ceil(region side / bins)`.
    pub sampling_ratio: i64,
    /// Whether pixel centres lie at half coordinates (`aligned = True` of torchvision). Without it
    /// regions are at least one cell wide and high.
    pub aligned: bool,
}

impl RoiAlign {
    /// Crops of every image's regions, image by image.
    ///
    /// # Shapes
    /// `map` `[N, C, H, W]`, `regions` N times `[R_i, 4]`, to `[sum R_i, C, bins, bins]` with channels
    /// innermost in memory.
    ///
    /// # Panics
    /// If there is not one list of regions an image.
    pub fn crops(&self, map: &Tensor, regions: &[Tensor]) -> Tensor {
        let [n, channels, height, width] = nchw(map);
        assert_eq!(n as usize, regions.len(), "one list of regions an image");
        let bins = self.bins;
        let crops: Vec<Tensor> = regions
            .iter()
            .enumerate()
            .map(|(image, boxes)| {
                let r = boxes.size()[0];
                let plane = map.select(0, image as i64).permute([1, 2, 0]); // [H, W, C]
                let rows = self.interpolation(boxes, 1, height).to_kind(map.kind()); // [R, bins, H]
                let columns = self.interpolation(boxes, 0, width).to_kind(map.kind()); // [R, bins, W]
                let tall = rows
                    .reshape([r * bins, height])
                    .mm(&plane.reshape([height, width * channels])) // [R bins, W C]
                    .reshape([r, bins, width, channels]);
                columns.unsqueeze(1).matmul(&tall) // [R, bins, bins, C]
            })
            .collect();
        Tensor::cat(&crops, 0).permute([0, 3, 1, 2]) // [R, C, bins, bins]
    }

    /// Weights of the `cells` along an axis (0 is x) for each bin of each region: the mean over the
    /// bin's samples of their bilinear weights.
    ///
    /// # Shapes
    /// `[R, 4]` to `[R, bins, cells]` f32.
    fn interpolation(&self, boxes: &Tensor, axis: i64, cells: i64) -> Tensor {
        let options = (Kind::Float, boxes.device());
        let offset = if self.aligned { 0.5 } else { 0. };
        let edge = |from: i64| boxes.select(1, axis + from) * self.scale - offset; // [R]
        let (start, end) = (edge(0), edge(2));
        let length = &end - &start;
        let length = if self.aligned { length } else { length.clamp_min(1.) };
        let bin = &length / self.bins as f64; // [R]
        let (most, samples) = self.samples(&length);
        // Sample `s` of bin `b` lies at start + b * bin + (s + 1/2) * bin / samples.
        let bins = Tensor::arange(self.bins, options).reshape([1, -1, 1]);
        let index = Tensor::arange(most, options).reshape([1, 1, -1]); // [1, 1, S]
        let column = |xs: &Tensor| xs.reshape([-1, 1, 1]);
        let count = column(&samples);
        let at = column(&start) + bins * column(&bin) + (&index + 0.5) * column(&bin) / &count; // [R, bins, S]
        // Outside by more than one cell a sample counts as 0, but stays in the divisor.
        let inside = at.ge(-1.).logical_and(&at.le(cells as f64)).logical_and(&index.lt_tensor(&count));
        let at = at.clamp(0., (cells - 1) as f64).unsqueeze(3); // [R, bins, S, 1]
        let cell = Tensor::arange(cells, options);
        let weights: Tensor = 1. - (at - cell).abs();
        let weights = weights.clamp_min(0.); // [R, bins, S, cells]
        let weights = weights * inside.unsqueeze(3).to_kind(Kind::Float);
        weights.sum_dim_intlist([2].as_slice(), false, Kind::Float) / count.clamp_min(1.)
    }

    /// The largest number of samples of any region, and each region's: `[R]`.
    fn samples(&self, length: &Tensor) -> (i64, Tensor) {
        if self.sampling_ratio > 0 {
            return (self.sampling_ratio, length.full_like(self.sampling_ratio as f64));
        }
        let samples = (length / self.bins as f64).ceil();
        let most = if samples.numel() == 0 { 1. } else { samples.max().double_value(&[]) };
        ((most as i64).max(1), samples)
    }
}

/// The scale that torchvision infers for a map: the power of two nearest to map cells per pixel of the
/// highest image of the batch, before padding.
pub fn inferred_scale(map: &Tensor, sizes: &[Size]) -> f64 {
    let [_, _, height, _] = nchw(map);
    let highest = sizes.iter().map(|s| s.height).max().unwrap_or(1);
    (height as f64 / highest as f64).log2().round().exp2()
}
