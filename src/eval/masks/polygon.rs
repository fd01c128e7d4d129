//! Outlines drawn as maskApi draws them.
//!
//! It magnifies the image five times, walks each edge in whole steps, and wherever the walk passes
//! the middle of a column of pixels (from 5c + 2 to 5c + 3) marks the row in which it does: there the
//! mask begins or ends in that column. Only these steps are worked out here, so that an edge costs
//! time and space by the columns it crosses in the image, however long it is.

use super::error::MaskError;
use super::rle::{Combine, Rle, pixels};
use crate::geometry::Size;

const SCALE: f64 = 5.;

/// Magnified coordinates from here on are refused; 32 bits hold the difference of any two others.
const FARTHEST: f64 = (1 << 30) as f64;

/// Marks of one segmentation. 64 MiB; the largest of COCO have some thousands.
const MOST_MARKS: usize = 1 << 24;

impl Rle {
    /// The union of polygons, each x, y, x, y, ... in pixels of an image of this size. What lies
    /// outside of the image is cut off, and parts that an outline encloses twice are left out.
    ///
    /// # Errors
    /// If the size is 0 or absurd, there is no polygon, the first has less than three points, or one has an
    /// odd number of coordinates, one that is not finite or beyond 2 * 10^8, or more edges than can
    /// be drawn.
    pub fn from_polygons(polygons: &[Vec<f64>], size: Size) -> Result<Self, MaskError> {
        pixels(size)?;
        let mut room = MOST_MARKS;
        let mut parts = Vec::new();
        for (polygon, numbers) in polygons.iter().enumerate() {
            let count = numbers.len();
            if count % 2 == 1 {
                return Err(MaskError::Odd { polygon, count });
            }
            if count < 6 {
                if polygon > 0 {
                    // A point or a line encloses nothing. pycocotools takes one, too, but for the first, where four numbers
                    // are a box to it.
                    continue;
                }
                return Err(MaskError::Few { polygon, count });
            }
            parts.push(draw(numbers, polygon, size, &mut room)?);
        }
        // In pairs, so that thousands of parts beside a large one do not cost thousands of walks
        // along it. The union is the same in any order.
        while parts.len() > 1 {
            parts = parts
                .chunks(2)
                .map(|pair| Self::combine(pair, Combine::Union))
                .collect::<Result<_, _>>()?;
        }
        parts.pop().ok_or(MaskError::NoPolygon)
    }

    /// A box: x, y, width, height in pixels.
    ///
    /// # Errors
    /// If the size is 0 or absurd, or a corner is not finite or beyond 2 * 10^8.
    pub fn from_box(bbox: [f64; 4], size: Size) -> Result<Self, MaskError> {
        let [x1, y1] = [bbox[0], bbox[1]];
        let [x2, y2] = [x1 + bbox[2], y1 + bbox[3]];
        draw(&[x1, y1, x1, y2, x2, y2, x2, y1], 0, size, &mut { MOST_MARKS })
    }
}

/// Magnified, in whole steps.
type Point = [i32; 2];

fn draw(numbers: &[f64], polygon: usize, size: Size, room: &mut usize) -> Result<Rle, MaskError> {
    let pixels = pixels(size)?;
    let mut place = 0;
    let mut step = |value: f64| {
        let magnified = SCALE * value + 0.5;
        let index = place;
        place += 1;
        if magnified.abs() < FARTHEST {
            Ok(magnified as i32)
        } else {
            Err(MaskError::Coordinate { polygon, index, value })
        }
    };
    let mut points: Vec<Point> = Vec::with_capacity(numbers.len() / 2);
    for xy in numbers.chunks_exact(2) {
        points.push([step(xy[0])?, step(xy[1])?]);
    }
    let mut marks = Vec::new();
    let ends = points.iter().skip(1).chain(points.first());
    for (&from, &to) in points.iter().zip(ends) {
        let edge = Edge::new(from, to);
        let columns = edge.columns(size.width as u32);
        *room = room.checked_sub(columns.len()).ok_or(MaskError::Outline { most: MOST_MARKS })?;
        edge.mark(columns, size.height as u32, &mut marks);
    }
    Ok(Rle::from_checked(size, runs(marks, pixels)))
}

/// An edge, turned so that its longer side ascends.
struct Edge {
    start: Point,
    end: Point,
    /// Steps along the longer side.
    steps: i32,
    /// Change of the other coordinate in a step.
    slope: f64,
    steep: bool,
}

impl Edge {
    fn new(from: Point, to: Point) -> Self {
        let (dx, dy) = ((to[0] - from[0]).abs(), (to[1] - from[1]).abs());
        let steep = dx < dy;
        let along = usize::from(steep);
        let (start, end) = if from[along] > to[along] { (to, from) } else { (from, to) };
        let steps = dx.max(dy);
        // NaN for a point; it crosses no column.
        let slope = f64::from(end[1 - along] - start[1 - along]) / f64::from(steps);
        Self { start, end, steps, slope, steep }
    }

    /// Columns of the image whose middle it crosses.
    fn columns(&self, width: u32) -> std::ops::Range<u32> {
        let (low, high) = (self.start[0].min(self.end[0]), self.start[0].max(self.end[0]));
        // The first c with 5c + 2 >= low, and the first with 5c + 3 > high.
        let first = (low + 2).div_euclid(5).max(0) as u32;
        let end = (high + 2).div_euclid(5).max(0) as u32;
        first..end.min(width).max(first)
    }

    /// The coordinate across the longer side after some steps.
    fn across(&self, step: i32) -> i32 {
        let from = self.start[usize::from(!self.steep)];
        // In this order, and cut off towards 0, as in C.
        (f64::from(from) + self.slope * f64::from(step) + 0.5) as i32
    }

    fn mark(&self, columns: std::ops::Range<u32>, height: u32, marks: &mut Vec<u32>) {
        for column in columns {
            let left = (5 * column + 2) as i32;
            let y = if self.steep {
                self.start[1] + self.steps_before(left)
            } else {
                let step = left - self.start[0];
                self.across(step).min(self.across(step + 1))
            };
            marks.push(column * height + row(y, height));
        }
    }

    /// Of a steep edge: the last step before it passes from `left` to the right or back.
    fn steps_before(&self, left: i32) -> i32 {
        let passed = |step| (self.across(step) > left) == (self.slope > 0.);
        let (mut before, mut after) = (0, self.steps);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if passed(middle) { after = middle } else { before = middle }
        }
        before
    }
}

/// The row of pixels that begins at or below a magnified one.
fn row(y: i32, height: u32) -> u32 {
    let y = (f64::from(y) + 0.5) / SCALE - 0.5;
    y.max(0.).min(f64::from(height)).ceil() as u32
}

/// Runs between marks. A place that is marked twice is not marked.
fn runs(mut marks: Vec<u32>, pixels: u32) -> Vec<u32> {
    marks.sort_unstable();
    let mut counts = Vec::with_capacity(marks.len() + 1);
    let mut last = 0;
    for same in marks.chunk_by(|a, b| a == b) {
        // A mark behind the last pixel changes nothing.
        if same.len() % 2 == 1 && same[0] < pixels {
            counts.push(same[0] - last);
            last = same[0];
        }
    }
    counts.push(pixels - last);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_of_whole_pixels_fills_them() {
        let size = Size::new(4, 5);
        let square = vec![1., 1., 1., 3., 4., 3., 4., 1.];
        let mask = Rle::from_polygons(std::slice::from_ref(&square), size).unwrap();
        assert_eq!(mask.counts(), [5, 2, 2, 2, 2, 2, 5]);
        assert_eq!(mask.bounding_box(), [1., 1., 3., 2.]);
        assert_eq!(Rle::from_box([1., 1., 3., 2.], size), Ok(mask.clone()));
        // The same again changes nothing; going round twice leaves nothing.
        assert_eq!(Rle::from_polygons(&[square.clone(), square.clone()], size), Ok(mask));
        let twice = [square.clone(), square].concat();
        assert_eq!(Rle::from_polygons(&[twice], size).unwrap().counts(), [20]);
    }

    #[test]
    fn long_edges_cost_no_more_than_the_image() {
        // Edges of a thousand million steps; thousands of them take no time.
        let far = 2e8;
        let around: Vec<f64> = [-far, -far, -far, far, far, far, far, -far].repeat(2001);
        let mask = Rle::from_polygons(&[around], Size::new(30, 40)).unwrap();
        assert_eq!(mask.counts(), [0, 1200]);
        let slanted: Vec<f64> = [-far, -far, far, far, 1. - far, far].repeat(2001);
        let mask = Rle::from_polygons(&[slanted], Size::new(30, 30)).unwrap();
        assert_eq!(mask.bounding_box(), [0., 0., 30., 30.]);
    }

    #[test]
    fn points_and_lines_beside_a_polygon_enclose_nothing() {
        // `mask.merge(mask.frPyObjects([triangle, short], 40, 50))` of pycocotools 2.0.11: area 243, the triangle's.
        let (triangle, size) = (vec![10.2, 3.5, 30.7, 6.1, 22.4, 28.9], Size::new(40, 50));
        let alone = Rle::from_polygons(std::slice::from_ref(&triangle), size).unwrap();
        assert_eq!(alone.area(), 243);
        for short in [vec![5.5, 5.2, 29.3, 17.8], vec![12., 12.], vec![7.5, 1.2, 7.5, 39.9]] {
            let both = Rle::from_polygons(&[triangle.clone(), short.clone()], size);
            assert_eq!(both.as_ref(), Ok(&alone), "{short:?}");
            assert!(Rle::from_polygons(&[short, triangle.clone()], size).is_err());
        }
    }

    #[test]
    fn too_many_marks_are_refused() {
        let size = Size::new(1, MOST_MARKS / 4);
        let across = [0., 0., (MOST_MARKS / 4) as f64, 0.];
        let error = Rle::from_polygons(&[across.repeat(3)], size).unwrap_err();
        assert_eq!(error, MaskError::Outline { most: MOST_MARKS });
    }

    #[test]
    fn places_out_of_reach_are_refused() {
        for value in [f64::NAN, f64::INFINITY, -1e10, 214_748_364.8] {
            let error = Rle::from_box([0., value, 1., 1.], Size::new(5, 5)).unwrap_err();
            assert!(matches!(error, MaskError::Coordinate { index: 1, .. }), "{error}");
        }
    }
}
