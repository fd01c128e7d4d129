//! A mask as the lengths of its runs.

use super::error::MaskError;
use crate::geometry::Size;

/// The largest mask, in pixels. Beyond it pycocotools' own text form of the counts breaks.
pub const MAX_PIXELS: u32 = (1 << 29) - 1;

/// A mask: lengths of runs down the columns, from the left, in turn outside and inside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    size: Size,
    /// Their sum is the number of pixels, so that walks along two masks end together.
    counts: Vec<u32>,
}

/// How masks are combined into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Pixels in any of them.
    Union,
    /// Pixels in all of them.
    Intersection,
}

/// The number of pixels, if a mask can have as many.
pub(super) fn pixels(size: Size) -> Result<u32, MaskError> {
    size.height
        .checked_mul(size.width)
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| (1..=MAX_PIXELS).contains(n))
        .ok_or(MaskError::ImageSize { size })
}

impl Rle {
    /// A mask of these runs. The first lies outside (0 where the mask starts at once). Empty runs
    /// are kept, as pycocotools keeps them.
    ///
    /// # Errors
    /// If the size is 0 or absurd, or the runs do not fill it.
    pub fn new(size: Size, counts: Vec<u32>) -> Result<Self, MaskError> {
        let pixels = pixels(size)?;
        let sum = counts.iter().map(|&n| u64::from(n)).sum();
        if sum != u64::from(pixels) {
            return Err(MaskError::Sum { runs: counts.len(), sum, pixels, size });
        }
        Ok(Self { size, counts })
    }

    /// Of runs that are known to be right.
    pub(super) fn from_checked(size: Size, counts: Vec<u32>) -> Self {
        debug_assert!(!counts.is_empty());
        Self { size, counts }
    }

    /// Height and width.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Lengths of runs, first outside of the mask.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Pixels in the mask.
    pub fn area(&self) -> u32 {
        self.counts.iter().skip(1).step_by(2).sum()
    }

    /// The smallest box around the mask: x, y, width, height in pixels; zeros where it has no run.
    ///
    /// A mask whose only runs are empty gets pycocotools' numbers for it: a box behind the image,
    /// with sides that wrapped around 32 bits.
    pub fn bounding_box(&self) -> [f64; 4] {
        if self.counts.len() < 2 {
            return [0.; 4];
        }
        let (height, width) = (self.size.height as u32, self.size.width as u32);
        let (mut left, mut top, mut right, mut bottom) = (width, height, 0, 0);
        let mut start = 0;
        for run in self.counts.chunks_exact(2) {
            start += run[0];
            if run[1] > 0 {
                let last = start + run[1] - 1;
                let (first_column, last_column) = (start / height, last / height);
                left = left.min(first_column);
                right = right.max(last_column);
                if first_column < last_column {
                    (top, bottom) = (0, height - 1);
                } else {
                    top = top.min(start % height);
                    bottom = bottom.max(last % height);
                }
            }
            start += run[1];
        }
        let extent = |from: u32, to: u32| f64::from(to.wrapping_sub(from).wrapping_add(1));
        [f64::from(left), f64::from(top), extent(left, right), extent(top, bottom)]
    }

    /// Masks of one size combined. One alone stays as it is, empty runs included.
    ///
    /// Where empty runs of two masks meet, pycocotools leaves the rest of the image out, and hangs
    /// on such a mask later. Here the rest is kept. Polygons never lead to that.
    ///
    /// # Errors
    /// If there is none, or the sizes differ.
    pub fn combine(masks: &[Self], how: Combine) -> Result<Self, MaskError> {
        let (first, others) = masks.split_first().ok_or(MaskError::NoPolygon)?;
        let mut counts = first.counts.clone();
        for other in others {
            if other.size != first.size {
                return Err(MaskError::Sizes { first: first.size, other: other.size });
            }
            counts = combine_two(&counts, &other.counts, how);
        }
        Ok(Self::from_checked(first.size, counts))
    }
}

/// Two rows of runs, walked side by side in the largest steps in which neither changes.
pub(super) struct Pair<'a> {
    a: Side<'a>,
    b: Side<'a>,
    /// Pixels not walked yet.
    rest: u32,
}

struct Side<'a> {
    left: u32, // of the present run
    inside: bool,
    rest: std::slice::Iter<'a, u32>,
}

impl<'a> Side<'a> {
    #[inline]
    fn new(counts: &'a [u32]) -> Self {
        let mut rest = counts.iter();
        Self { left: rest.next().copied().unwrap_or(0), inside: false, rest }
    }

    #[inline]
    fn advance(&mut self, step: u32) {
        self.left -= step;
        if self.left == 0
            && let Some(&next) = self.rest.next()
        {
            self.left = next;
            self.inside = !self.inside;
        }
    }
}

impl<'a> Pair<'a> {
    #[inline]
    pub(super) fn new(a: &'a [u32], b: &'a [u32]) -> Self {
        Self { a: Side::new(a), b: Side::new(b), rest: a.iter().sum() }
    }
}

/// A step: how many pixels, whether they are inside of the first and of the second mask.
pub(super) struct Step {
    pub(super) pixels: u32,
    pub(super) inside: (bool, bool),
    /// The same after it.
    pub(super) next: (bool, bool),
    /// Both masks are at an empty run, or at their end.
    pub(super) at_empty: bool,
    pub(super) last: bool,
}

impl Iterator for Pair<'_> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        if self.rest == 0 {
            return None;
        }
        let pixels = self.a.left.min(self.b.left);
        let inside = (self.a.inside, self.b.inside);
        self.a.advance(pixels);
        self.b.advance(pixels);
        self.rest -= pixels;
        Some(Step {
            pixels,
            inside,
            next: (self.a.inside, self.b.inside),
            at_empty: self.a.left == 0 && self.b.left == 0,
            last: self.rest == 0,
        })
    }
}

fn combine_two(a: &[u32], b: &[u32], how: Combine) -> Vec<u32> {
    let value = |(a, b): (bool, bool)| match how {
        Combine::Union => a || b,
        Combine::Intersection => a && b,
    };
    let mut counts = Vec::with_capacity(a.len() + b.len());
    let (mut run, mut now) = (0, false);
    for step in Pair::new(a, b) {
        run += step.pixels;
        let next = value(step.next);
        if next != now || step.last {
            counts.push(run);
            run = 0;
        }
        now = next;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rle(height: usize, width: usize, counts: &[u32]) -> Rle {
        Rle::new(Size::new(height, width), counts.to_vec()).unwrap()
    }

    #[test]
    fn runs_must_fill_an_image_of_a_possible_size() {
        let refused = |height, width, counts: &[u32]| {
            Rle::new(Size::new(height, width), counts.to_vec()).unwrap_err()
        };
        assert!(matches!(refused(2, 3, &[2, 3]), MaskError::Sum { sum: 5, pixels: 6, .. }));
        assert!(matches!(refused(2, 3, &[]), MaskError::Sum { runs: 0, sum: 0, .. }));
        // Sums are wider than a count.
        assert!(matches!(refused(2, 3, &[u32::MAX, 7]), MaskError::Sum { .. }));
        assert!(matches!(refused(0, 3, &[]), MaskError::ImageSize { .. }));
        assert!(matches!(refused(1 << 20, 1 << 20, &[0]), MaskError::ImageSize { .. }));
        assert!(matches!(refused(usize::MAX, 2, &[0]), MaskError::ImageSize { .. }));
    }

    #[test]
    fn areas_and_boxes() {
        // Columns of 3: the last pixel of the first one and the first of the second.
        let mask = rle(3, 4, &[2, 2, 8]);
        assert_eq!(mask.area(), 2);
        assert_eq!(mask.bounding_box(), [0., 0., 2., 3.]);
        assert_eq!(rle(3, 4, &[4, 1, 7]).bounding_box(), [1., 1., 1., 1.]);
        assert_eq!(rle(3, 4, &[12]).bounding_box(), [0.; 4]);
        assert_eq!(rle(3, 4, &[0, 12]).bounding_box(), [0., 0., 4., 3.]);
    }

    #[test]
    fn empty_runs_that_meet_leave_nothing_out() {
        let mask = rle(2, 3, &[2, 0, 1, 2, 1]);
        let masks = [mask.clone(), mask.clone(), rle(2, 3, &[2, 0, 2, 2]), mask];
        let union = Rle::combine(&masks, Combine::Union).unwrap();
        assert_eq!((union.area(), union.counts().iter().sum::<u32>()), (3, 6));
        let common = Rle::combine(&masks, Combine::Intersection).unwrap();
        assert_eq!((common.area(), common.counts().iter().sum::<u32>()), (1, 6));
    }

    #[test]
    fn masks_of_several_sizes_are_not_combined() {
        let masks = [rle(3, 4, &[12]), rle(4, 3, &[12])];
        let error = Rle::combine(&masks, Combine::Union).unwrap_err();
        assert!(matches!(error, MaskError::Sizes { .. }));
        assert!(Rle::combine(&[], Combine::Union).is_err());
    }
}
