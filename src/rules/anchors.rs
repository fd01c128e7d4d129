//! Anchors around the origin: every size with every ratio, ratio-major (all sizes of the first ratio first).
//!
//! Those of a cell of the map are the same, moved to where the family centres them; see [`Grid`].

use crate::config::Anchors;
use crate::geometry::{Box2, Size};

/// torchvision's: corners are rounded half to even.
pub fn torchvision(anchors: &Anchors) -> Vec<Box2> {
    // The float expressions are torchvision's: a half that is rounded must be the same half.
    of_each(anchors, |ratio, size| {
        let h_ratio = ratio.sqrt();
        let w_ratio = 1. / h_ratio;
        let half = |side: f32| (side / 2.).round_ties_even();
        [half(w_ratio * size), half(h_ratio * size)]
    })
}

/// TensorFlow's (its `grid_anchor_generator.py`): not rounded.
pub fn tf(anchors: &Anchors) -> Vec<Box2> {
    // TensorFlow's aspect ratio is width over height, and so are its float expressions.
    of_each(anchors, |ratio, size| {
        let aspect = (1. / ratio).sqrt();
        [size * aspect * 0.5, size / aspect * 0.5]
    })
}

/// `half` gives half the width and half the height for a ratio and a size.
fn of_each(anchors: &Anchors, half: impl Fn(f32, f32) -> [f32; 2]) -> Vec<Box2> {
    let pairs = anchors.ratios.iter().flat_map(|&r| anchors.sizes.iter().map(move |&s| (r, s)));
    pairs
        .map(|(ratio, size)| {
            let [w, h] = half(ratio, size);
            Box2::new(-w, -h, w, h)
        })
        .collect()
}

/// The anchors of a whole map. Order: y, x, then as at a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Around the origin.
    pub cell: Vec<Box2>,
    /// Cells of the map.
    pub cells: Size,
    /// Pixels from one cell to the next, down and to the right. The first is centred on 0.
    pub step: [usize; 2],
}

impl Grid {
    /// torchvision's: a cell is `padded size / cells` pixels, whole, and anchors are centred on its *top left corner*.
    pub fn torchvision(anchors: &Anchors, cells: Size, padded: Size) -> Self {
        let step = [padded.height / cells.height.max(1), padded.width / cells.width.max(1)];
        Self { cell: torchvision(anchors), cells, step }
    }

    /// TensorFlow's: `stride` pixels apart, whatever the size of the input.
    pub fn tf(anchors: &Anchors, cells: Size, stride: usize) -> Self {
        Self { cell: tf(anchors), cells, step: [stride; 2] }
    }

    /// How many anchors there are.
    pub fn len(&self) -> usize {
        self.cells.height * self.cells.width * self.cell.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Anchor `index`, not clipped.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn at(&self, index: usize) -> Box2 {
        let (place, anchor) = (index / self.cell.len(), index % self.cell.len());
        let (row, column) = (place / self.cells.width, place % self.cells.width);
        assert!(row < self.cells.height, "anchor {index} of {}", self.len());
        let (y, x) = ((row * self.step[0]) as f32, (column * self.step[1]) as f32);
        let b = self.cell[anchor];
        Box2::new(x + b.x1, y + b.y1, x + b.x2, y + b.y2)
    }
}
