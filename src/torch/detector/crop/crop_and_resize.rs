//! TensorFlow's crop and resize: one sample a bin, corners of the crop on corners of the box.

use detect::geometry::Size;
use tch::{Kind, Tensor};

use super::{Mix, outer, weighted_sum};
use crate::detector::boxes::upload;
use crate::nn::nchw;

/// Boxes of pixels of an input of `size` in the form that [`CropAndResize::crops`] reads: pixel `p` of the
/// input lies at `p / size * (H - 1)` on the map, not at `p / stride`.
///
/// Differs from a division: TensorFlow multiplies by the reciprocal, and where that rounds up the last row of
/// samples falls outside.
///
/// # Shapes
/// `[R, 4]` `(x1, y1, x2, y2)` to `[R, 4]` `(y1, x1, y2, x2)`.
pub(super) fn as_shares(boxes: &Tensor, size: Size) -> Tensor {
    let (y, x) = (1. / size.height as f32, 1. / size.width as f32);
    let shares = boxes * upload(&Tensor::from_slice(&[x, y, x, y]), boxes.device());
    swap_axes(&shares)
}

/// `(x1, y1, x2, y2)` to `(y1, x1, y2, x2)` and back.
fn swap_axes(boxes: &Tensor) -> Tensor {
    let order = upload(&Tensor::from_slice(&[1_i64, 0, 3, 2]), boxes.device());
    boxes.index_select(1, &order)
}

/// How a sample between cells gets its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// From the four cells around it.
    Bilinear,
    /// From the nearest cell, halves away from 0.
    Nearest,
}

/// How regions are cut out of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CropAndResize {
    /// Height and width of a crop.
    pub size: [i64; 2],
    /// Between cells.
    pub interpolation: Interpolation,
    /// Value of samples outside the map, however little.
    pub extrapolation: f64,
}

impl CropAndResize {
    /// Crops of boxes in TensorFlow's form: `(y1, x1, y2, x2)` in shares of `(H - 1, W - 1)`; swapped
    /// corners flip the crop.
    ///
    /// # Shapes
    /// `map` `[N, C, H, W]`, `boxes` `[R, 4]`, `images` `[R]` int64, to `[R, C, h, w]` with channels innermost
    /// in memory.
    pub fn crops(&self, map: &Tensor, boxes: &Tensor, images: &Tensor) -> Tensor {
        let [_, _, height, width] = nchw(map);
        let [(rows, inside_y), (columns, inside_x)] = tch::no_grad(|| {
            let corner = |i| boxes.select(1, i);
            [
                self.axis(&corner(0), &corner(2), self.size[0], height),
                self.axis(&corner(1), &corner(3), self.size[1], width),
            ]
        });
        let crops = weighted_sum(map, images, &rows, &columns);
        if self.extrapolation == 0. {
            return crops; // outside, all weights are 0
        }
        let (y, x) = outer(&inside_y.unsqueeze(2), &inside_x.unsqueeze(2));
        let outside: Tensor = 1. - (y * x).flatten(3, 4).squeeze_dim(3); // [R, h, w]
        crops + outside.unsqueeze(1) * self.extrapolation
    }

    /// The cells that each sample along an axis of `cells` cells mixes, and whether it is inside
    /// (1 or 0) `[R, samples]`.
    fn axis(&self, from: &Tensor, to: &Tensor, samples: i64, cells: i64) -> (Mix, Tensor) {
        let last = (cells - 1) as f64;
        let (from, to) = (from.unsqueeze(1), to.unsqueeze(1)); // [R, 1]
        let at = if samples > 1 {
            let step = (&to - &from) * last / (samples - 1) as f64;
            &from * last + Tensor::arange(samples, (Kind::Float, from.device())) * step
        } else {
            (&from + &to) * 0.5 * last
        }; // [R, samples]
        let inside = at.ge(0.).logical_and(&at.le(last)).to_kind(Kind::Float);
        let at = at.clamp(0., last);
        let (cells, weights) = match self.interpolation {
            Interpolation::Bilinear => {
                let low = at.floor();
                let upper: Tensor = &at - &low;
                let lower: Tensor = 1. - &upper;
                let pair = |a: &Tensor, b: &Tensor| Tensor::stack(&[a, b], 2);
                (pair(&low, &at.ceil()), pair(&lower, &upper))
            }
            // Coordinates are not negative here, so that this rounds halves away from 0.
            Interpolation::Nearest => {
                ((&at + 0.5).floor().unsqueeze(2), at.ones_like().unsqueeze(2))
            }
        };
        let mix = Mix { cells: cells.to_kind(Kind::Int64), weights: weights * inside.unsqueeze(2) };
        (mix, inside)
    }
}
