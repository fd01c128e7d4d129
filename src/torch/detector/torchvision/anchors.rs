//! Anchor boxes: every size and ratio at each cell of the map.
//!
//! torchvision's rules: ratio is height over width, corners are rounded half to even, and anchors are
//! centred on the *top-left corner* of a cell of `padded size / grid` pixels (whole). Order: y, x, then
//! ratio-major (all sizes of the first ratio first). Not clipped, not filtered at the border.

use detect::config::Anchors;
use tch::{Device, Kind, Tensor};

use crate::detector::boxes::upload;

/// Anchors around the origin: `[A, 4]`, whole numbers.
pub fn of_cell(anchors: &Anchors) -> Tensor {
    let sizes = Tensor::from_slice(&anchors.sizes);
    let ratios = Tensor::from_slice(&anchors.ratios);
    // The float expressions are torchvision's: a half that is rounded must be the same half.
    let h_ratios = ratios.sqrt();
    let w_ratios = h_ratios.reciprocal();
    let side = |ratios: &Tensor| (ratios.unsqueeze(1) * sizes.unsqueeze(0)).reshape([-1]);
    let (ws, hs) = (side(&w_ratios), side(&h_ratios));
    (Tensor::stack(&[&-&ws, &-&hs, &ws, &hs], 1) / 2.).round()
}

/// Anchors of a whole map of `grid` (height, width) cells over an input of `padded` pixels.
///
/// # Shapes
/// `[H * W * A, 4]`.
pub fn of_map(anchors: &Anchors, grid: [i64; 2], padded: [i64; 2], device: Device) -> Tensor {
    let shifts =
        |n: i64, pixels: i64| Tensor::arange(n, (Kind::Float, device)) * (pixels / n.max(1));
    let (ys, xs) = (shifts(grid[0], padded[0]), shifts(grid[1], padded[1]));
    let grids = Tensor::meshgrid_indexing(&[&ys, &xs], "ij");
    let (ys, xs) = (grids[0].reshape([-1]), grids[1].reshape([-1]));
    let shift = Tensor::stack(&[&xs, &ys, &xs, &ys], 1); // [H * W, 4]
    (shift.unsqueeze(1) + upload(&of_cell(anchors), device).unsqueeze(0)).reshape([-1, 4])
}
