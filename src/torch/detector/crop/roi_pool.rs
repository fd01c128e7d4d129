//! RoI max pooling (Girshick 2015, Fast R-CNN), torchvision's rules.

use tch::{Kind, Tensor};

use super::{largest, outer};
use crate::nn::nchw;

/// How regions are cut out of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiPool {
    /// Height and width of a crop in bins.
    pub bins: [i64; 2],
    /// Map cells for each pixel of the boxes, such as 1/16.
    pub scale: f64,
}

impl RoiPool {
    /// The largest value in each bin of each region; 0 in bins without a cell.
    ///
    /// # Shapes
    /// `map` `[N, C, H, W]`, `boxes` `[R, 4]`, `images` `[R]` int64, to `[R, C, bins_y, bins_x]` with channels
    /// innermost in memory.
    pub fn crops(&self, map: &Tensor, boxes: &Tensor, images: &Tensor) -> Tensor {
        let [_, _, height, width] = nchw(map);
        let [(rows, some_y), (columns, some_x)] = tch::no_grad(|| {
            [self.axis(boxes, 1, self.bins[0], height), self.axis(boxes, 0, self.bins[1], width)]
        });
        let crops = largest(map, images, &rows, &columns);
        let (y, x) = outer(&some_y, &some_x);
        let some = (y * x).flatten(3, 4).squeeze_dim(3); // [R, bins_y, bins_x]
        crops * some.unsqueeze(1).to_kind(map.kind())
    }

    /// The cells of each bin along an axis (0 is x), filled up with its last one, `[R, bins, entries]`; and
    /// whether it has any (1 or 0), `[R, bins, 1]`.
    fn axis(&self, boxes: &Tensor, axis: i64, bins: i64, cells: i64) -> (Tensor, Tensor) {
        let options = (Kind::Float, boxes.device());
        // Halves are rounded away from 0, as C's `round` does, which torch's does not.
        let rounded = |i: i64| {
            let x = boxes.select(1, i) * self.scale;
            x.sign() * (x.abs() + 0.5).floor()
        };
        let (start, end) = (rounded(axis), rounded(axis + 2));
        let length = (&end - &start + 1.).clamp_min(1.);
        let bin = (length / bins as f64).unsqueeze(1); // [R, 1]
        let index = Tensor::arange(bins, options);
        let start = start.unsqueeze(1);
        let limit = |at: Tensor| (at + &start).clamp(0., cells as f64);
        let from = limit((&index * &bin).floor()); // [R, bins]
        let to = limit(((&index + 1.) * &bin).ceil());
        let count = &to - &from;
        let most = if count.numel() == 0 { 1. } else { count.max().double_value(&[]).max(1.) };
        let offset = Tensor::arange(most as i64, options); // [entries]
        let last = (&to - 1.).maximum(&from).clamp_max((cells - 1) as f64);
        let picked = (from.unsqueeze(2) + offset).minimum(&last.unsqueeze(2));
        (picked.to_kind(Kind::Int64), count.gt(0.).to_kind(Kind::Float).unsqueeze(2))
    }
}
