//! RoIAlign (He et al. 2017), torchvision's rules: the mean of a few bilinear samples a bin.

use tch::{Kind, Tensor};

use super::{Mix, image_of_each, weighted_sum};
use crate::nn::nchw;

/// How regions are cut out of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiAlign {
    /// Height and width of a crop in bins.
    pub bins: [i64; 2],
    /// Map cells for each pixel of the boxes, such as 1/16.
    pub scale: f64,
    /// Samples along each side of a bin; 0 or less takes as many as the bin has cells, rounded up.
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
        assert_eq!(nchw(map)[0] as usize, regions.len(), "one list of regions an image");
        let boxes = Tensor::cat(regions, 0);
        self.crops_of(map, &boxes, &image_of_each(regions))
    }

    /// Crops of `boxes` `[R, 4]`, each in the image that `images` `[R]` int64 says.
    pub fn crops_of(&self, map: &Tensor, boxes: &Tensor, images: &Tensor) -> Tensor {
        let [_, _, height, width] = nchw(map);
        let [bins_y, bins_x] = self.bins;
        let [rows, columns] = tch::no_grad(|| {
            [self.axis(boxes, 1, bins_y, height), self.axis(boxes, 0, bins_x, width)]
        });
        weighted_sum(map, images, &rows, &columns)
    }

    /// The cells along an axis (0 is x) that each of its `bins` mixes, and their weights.
    fn axis(&self, boxes: &Tensor, axis: i64, bins: i64, cells: i64) -> Mix {
        let options = (Kind::Float, boxes.device());
        let offset = if self.aligned { 0.5 } else { 0. };
        let edge = |from: i64| boxes.select(1, axis + from) * self.scale - offset; // [R]
        let (start, end) = (edge(0), edge(2));
        let length = &end - &start;
        let length = if self.aligned { length } else { length.clamp_min(1.) };
        let bin = &length / bins as f64; // [R]
        let (most, samples) = self.samples(&bin);
        // Sample `s` of bin `b` lies at start + b * bin + (s + 1/2) * bin / samples.
        let column = |xs: &Tensor| xs.reshape([-1, 1, 1]);
        let bin_index = Tensor::arange(bins, options).reshape([1, -1, 1]);
        let index = Tensor::arange(most, options).reshape([1, 1, -1]); // [1, 1, S]
        let count = column(&samples);
        let at = column(&start)
            + bin_index * column(&bin)
            + (&index + 0.5) * column(&bin) / count.clamp_min(1.); // [R, bins, S]
        // A sample more than one cell outside counts as 0, but stays in the divisor.
        let inside =
            at.ge(-1.).logical_and(&at.le(cells as f64)).logical_and(&index.lt_tensor(&count));
        let last = (cells - 1) as f64;
        let at = at.clamp(0., last);
        let low = at.floor();
        let upper: Tensor = &at - &low;
        let share = inside.to_kind(Kind::Float) / count.clamp_min(1.); // [R, bins, S]
        let mix = |low: &Tensor, high: &Tensor| Tensor::stack(&[low, high], 3).flatten(2, 3);
        let lower: Tensor = 1. - &upper;
        Mix {
            cells: mix(&low, &(&low + 1.).clamp_max(last)).to_kind(Kind::Int64),
            weights: mix(&(lower * &share), &(upper * &share)),
        }
    }

    /// The largest number of samples along a bin of any region, and each region's, from the bins'
    /// sides in cells `[R]`.
    fn samples(&self, bin: &Tensor) -> (i64, Tensor) {
        if self.sampling_ratio > 0 {
            return (self.sampling_ratio, bin.full_like(self.sampling_ratio as f64));
        }
        let samples = bin.ceil();
        let most = if samples.numel() == 0 { 1. } else { samples.max().double_value(&[]) };
        ((most as i64).max(1), samples)
    }
}
