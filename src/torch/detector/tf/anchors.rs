//! TensorFlow's anchors (its `grid_anchor_generator.py`): every ratio and size at each cell of the map.
//!
//! They are centred on `stride * index`, whatever the size of the input, and not rounded. Order: y, x, then
//! ratio-major (all sizes of the first ratio first).

use detect::config::Anchors;
use detect::rules;
use tch::Tensor;

use crate::detector::boxes;

/// Anchors of a whole map of `grid` (height, width) cells, `stride` pixels apart.
///
/// # Shapes
/// `[H * W * A, 4]`, on the CPU.
pub fn of_map(anchors: &Anchors, grid: [i64; 2], stride: i64) -> Tensor {
    boxes::at_cells(&boxes::to_tensor(&rules::anchors::tf(anchors)), grid, [stride; 2])
}
