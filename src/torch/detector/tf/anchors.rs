//! TensorFlow's anchors (its `grid_anchor_generator.py`): every ratio and size at each cell of the map.
//!
//! They are centred on `stride * index`, whatever the size of the input, and not rounded. Order: y, x, then
//! ratio-major (all sizes of the first ratio first).

use detect::config::Anchors;
use tch::{Device, Kind, Tensor};

use crate::detector::boxes::upload;

/// Widths and heights of the anchors of a cell: `[A]` twice.
fn sides(anchors: &Anchors) -> (Tensor, Tensor) {
    // TensorFlow's aspect ratio is width over height, and so are its float expressions.
    let aspect = Tensor::from_slice(&anchors.ratios).reciprocal().sqrt().unsqueeze(1); // [ratios, 1]
    let size = Tensor::from_slice(&anchors.sizes).unsqueeze(0); // [1, sizes]
    ((&size * &aspect).reshape([-1]), (size / aspect).reshape([-1]))
}

/// Anchors of a whole map of `grid` (height, width) cells, `stride` pixels apart.
///
/// # Shapes
/// `[H * W * A, 4]`.
pub fn of_map(anchors: &Anchors, grid: [i64; 2], stride: i64, device: Device) -> Tensor {
    let (width, height) = sides(anchors);
    let (width, height) = (upload(&width, device), upload(&height, device)); // [A]
    let [ys, xs] = grid.map(|n| Tensor::arange(n, (Kind::Float, device)) * stride);
    let grids = Tensor::meshgrid_indexing(&[&ys, &xs], "ij");
    let centre = |axis: usize| grids[axis].reshape([-1, 1]); // [H * W, 1]
    let (y, x) = (centre(0), centre(1));
    let (half_w, half_h) = (width * 0.5, height * 0.5);
    let corners = [&x - &half_w, &y - &half_h, &x + &half_w, &y + &half_h];
    Tensor::stack(&corners, 2).reshape([-1, 4]) // [H * W, A, 4] -> [H * W * A, 4]
}
