//! Overlaps of masks.

use super::rle::{Pair, Rle};

/// A mask and what its overlaps are measured with.
#[derive(Debug, Clone)]
pub struct Mask {
    rle: Rle,
    bounding_box: [f64; 4],
    area: u32,
}

impl From<Rle> for Mask {
    fn from(rle: Rle) -> Self {
        Self { bounding_box: rle.bounding_box(), area: rle.area(), rle }
    }
}

impl Mask {
    /// IoU with a truth. Of a crowd it is the share of this mask that lies in it. Masks whose boxes
    /// meet but whose images differ in size give -1, as in pycocotools.
    pub fn overlap(&self, truth: &Self, crowd: bool) -> f64 {
        // Most masks of an image do not meet, and need no walk along them.
        if !meet(&self.bounding_box, &truth.bounding_box) {
            return 0.;
        }
        if self.rle.size() != truth.rle.size() {
            return -1.;
        }
        let (intersection, union) = overlap(self.rle.counts(), truth.rle.counts());
        if intersection == 0 {
            return 0.;
        }
        f64::from(intersection) / f64::from(if crowd { self.area } else { union })
    }
}

/// Overlap of each detection with each truth, row by row: `[D, G]`; see [`Mask::overlap`].
///
/// # Panics
/// Unless `crowd` has as many entries as `truths`.
pub fn ious(detections: &[&Rle], truths: &[&Rle], crowd: &[bool]) -> Vec<f64> {
    assert_eq!(truths.len(), crowd.len(), "one crowd flag a truth");
    let masks = |all: &[&Rle]| all.iter().map(|&rle| rle.clone().into()).collect::<Vec<Mask>>();
    let truths = masks(truths);
    let of = |detection: Mask| {
        let pairs = truths.iter().zip(crowd);
        pairs.map(|(truth, &crowd)| detection.overlap(truth, crowd)).collect::<Vec<_>>()
    };
    masks(detections).into_iter().flat_map(of).collect()
}

/// Whether boxes have a pixel in common.
fn meet(a: &[f64; 4], b: &[f64; 4]) -> bool {
    let along = |axis: usize| {
        (a[axis] + a[axis + 2]).min(b[axis] + b[axis + 2]) - a[axis].max(b[axis]) > 0.
    };
    along(0) && along(1)
}

/// Pixels in both and in any.
fn overlap(a: &[u32], b: &[u32]) -> (u32, u32) {
    let (mut intersection, mut union) = (0, 0);
    for step in Pair::new(a, b) {
        let (in_a, in_b) = step.inside;
        intersection += if in_a & in_b { step.pixels } else { 0 };
        union += if in_a | in_b { step.pixels } else { 0 };
        if step.at_empty {
            break; // as pycocotools does, be it the end or not
        }
    }
    (intersection, union)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;

    #[test]
    fn overlaps() {
        let mask = |size: Size, counts: &[u32]| Rle::new(size, counts.to_vec()).unwrap();
        let size = Size::new(2, 5);
        let (left, right, all) =
            (mask(size, &[0, 4, 6]), mask(size, &[2, 6, 2]), mask(size, &[0, 10]));
        let (empty, other) = (mask(size, &[10]), mask(Size::new(5, 2), &[0, 10]));
        let truths = [&right, &right, &all, &all, &empty, &other];
        let crowd = [false, true, false, true, true, false];
        assert_eq!(ious(&[&left], &truths, &crowd), [2. / 8., 2. / 4., 0.4, 1., 0., -1.]);
        assert_eq!(ious(&[&empty, &empty], &truths[..2], &crowd[..2]), [0.; 4]);
        assert_eq!(ious(&[], &truths, &crowd), [0.; 0]);
    }
}
