//! Anchor boxes: every size and ratio at each cell of the map.
//!
//! torchvision's rules: ratio is height over width, corners are rounded half to even, and anchors are
//! centred on the *top-left corner* of a cell of `padded size / grid` pixels (whole). Order: y, x, then
//! ratio-major (all sizes of the first ratio first). Not clipped, not filtered at the border.

use detect::config::Anchors;
use detect::rules;
use tch::Tensor;

use crate::detector::boxes;

/// Anchors around the origin: `[A, 4]`, whole numbers.
pub fn of_cell(anchors: &Anchors) -> Tensor {
    boxes::to_tensor(&rules::anchors::torchvision(anchors))
}

/// Anchors of a whole map of `grid` (height, width) cells over an input of `padded` pixels.
///
/// # Shapes
/// `[H * W * A, 4]`, on the CPU.
pub fn of_map(anchors: &Anchors, grid: [i64; 2], padded: [i64; 2]) -> Tensor {
    let step = [0, 1].map(|axis| padded[axis] / grid[axis].max(1));
    boxes::at_cells(&of_cell(anchors), grid, step)
}
