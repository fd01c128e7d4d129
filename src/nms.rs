//! Non-maximum suppression on plain slices: as torchvision's CPU kernel does it, and as TensorFlow's.
//!
//! Kept without tensors so that every engine shares it; the oracles are `torchvision.ops.nms` 0.26 and the
//! selections of TensorFlow's detector.

use std::cmp::Ordering;

use crate::geometry::Box2;

/// Indices of the boxes that survive, best score first.
///
/// A box is dropped when its IoU (f32) with a better one that was kept is greater than `threshold`
/// (f64, as in torchvision's CPU kernel: an IoU of exactly `0.3f32` exceeds 0.3). Equal scores keep
/// their order. A NaN IoU (two empty boxes) drops nothing.
///
/// # Panics
/// If `boxes` and `scores` differ in length.
pub fn nms(boxes: &[Box2], scores: &[f32], threshold: f64) -> Vec<usize> {
    let order = by_score(scores);
    suppress(boxes, &order, threshold)
}

/// [`nms`] within each group (class, pyramid level): boxes of different groups never meet.
///
/// The result is one list over all groups, best score first, equal scores in their order.
///
/// Differs: torchvision shifts the groups apart by coordinates for short inputs, which separates them
/// only while no coordinate is negative; here they are always apart. Where the two agree the kept set
/// is the same.
///
/// # Panics
/// If the three slices differ in length.
pub fn batched_nms(boxes: &[Box2], scores: &[f32], groups: &[usize], threshold: f64) -> Vec<usize> {
    assert_eq!(boxes.len(), groups.len(), "one group a box");
    let order = by_score(scores);
    let count = groups.iter().max().map_or(0, |g| g + 1);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); count];
    for &i in &order {
        members[groups[i]].push(i);
    }
    let mut kept = vec![false; boxes.len()];
    for member in &members {
        for i in suppress(boxes, member, threshold) {
            kept[i] = true;
        }
    }
    order.into_iter().filter(|&i| kept[i]).collect()
}

/// Indices of the first `most` boxes that survive TensorFlow's `NonMaxSuppression`, best score first.
///
/// Only scores above `floor` take part. A box is dropped when its IoU with a better one that was kept is
/// greater than `threshold`, both f32; equal scores keep their order; a box without area overlaps nothing.
/// The search ends with the last box that is picked, so that the work is that of `most` times the boxes
/// that had to be looked at.
///
/// # Panics
/// If `boxes` and `scores` differ in length.
pub fn first_apart(
    boxes: &[Box2],
    scores: &[f32],
    floor: f32,
    threshold: f32,
    most: usize,
) -> Vec<usize> {
    assert_eq!(boxes.len(), scores.len(), "one score a box");
    let mut order: Vec<usize> = (0..scores.len()).filter(|&i| scores[i] > floor).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept = Columns::default();
    let mut picked = Vec::new();
    for i in order {
        if picked.len() == most {
            break;
        }
        if !kept.any_overlaps(boxes[i], threshold) {
            kept.push(boxes[i]);
            picked.push(i);
        }
    }
    picked
}

/// Indices of the `most` best scores, best first; equal scores in their order, NaN first.
///
/// Differs: torch's `topk` may give equal scores in any order.
pub fn best(scores: &[f32], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let compare = |&a: &usize, &b: &usize| falling(scores[a], scores[b]).then(a.cmp(&b));
    if most < order.len() {
        // Before this one are the better ones, in any order.
        order.select_nth_unstable_by(most, compare);
        order.truncate(most);
    }
    order.sort_unstable_by(compare);
    order
}

/// Boxes by coordinate, for a loop that the compiler turns into vector code.
#[derive(Default)]
struct Columns {
    x1: Vec<f32>,
    y1: Vec<f32>,
    x2: Vec<f32>,
    y2: Vec<f32>,
}

impl Columns {
    fn push(&mut self, b: Box2) {
        self.x1.push(b.x1);
        self.y1.push(b.y1);
        self.x2.push(b.x2);
        self.y2.push(b.y2);
    }

    /// Whether the IoU of `b` with one of the boxes is above `threshold`.
    fn any_overlaps(&self, b: Box2, threshold: f32) -> bool {
        /// Boxes between two looks at the result.
        const BLOCK: usize = 64;
        let area = b.area();
        if area <= 0. {
            return false;
        }
        let blocks = self.x1.chunks(BLOCK).zip(self.y1.chunks(BLOCK));
        let blocks = blocks.zip(self.x2.chunks(BLOCK).zip(self.y2.chunks(BLOCK)));
        for ((x1, y1), (x2, y2)) in blocks {
            let mut hit = false;
            for ((&x1, &y1), (&x2, &y2)) in x1.iter().zip(y1).zip(x2.iter().zip(y2)) {
                let other = (x2 - x1) * (y2 - y1);
                let w = (b.x2.min(x2) - b.x1.max(x1)).max(0.);
                let h = (b.y2.min(y2) - b.y1.max(y1)).max(0.);
                let inter = w * h;
                let above = inter / (area + other - inter) > threshold;
                hit |= above && other > 0.;
            }
            if hit {
                return true;
            }
        }
        false
    }
}

/// Indices by falling score, stable; NaN first, as torch sorts.
fn by_score(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| falling(scores[a], scores[b]));
    order
}

/// The larger number first; NaN before all.
fn falling(a: f32, b: f32) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        _ => b.partial_cmp(&a).expect("neither is NaN"),
    }
}

/// The greedy pass over `order`.
///
/// Coordinates are copied into columns in score order, so that the inner loop runs over contiguous
/// memory without a branch and the compiler turns it into vector code.
fn suppress(boxes: &[Box2], order: &[usize], threshold: f64) -> Vec<usize> {
    let n = order.len();
    let column = |f: fn(Box2) -> f32| order.iter().map(|&i| f(boxes[i])).collect::<Vec<f32>>();
    let (x1, y1) = (column(|b| b.x1), column(|b| b.y1));
    let (x2, y2) = (column(|b| b.x2), column(|b| b.y2));
    let area = column(Box2::area);
    // `f64::from(iou) > threshold` for an f32 `iou` is `iou > limit` with the largest f32 <= threshold.
    let limit = largest_f32_at_most(threshold);
    let mut dropped = vec![false; n];
    let mut kept = Vec::new();
    for i in 0..n {
        if dropped[i] {
            continue;
        }
        kept.push(order[i]);
        let (ax1, ay1, ax2, ay2, a) = (x1[i], y1[i], x2[i], y2[i], area[i]);
        let rest = i + 1..n;
        for ((((d, &bx1), (&by1, &bx2)), &by2), &b) in dropped[rest.clone()]
            .iter_mut()
            .zip(&x1[rest.clone()])
            .zip(y1[rest.clone()].iter().zip(&x2[rest.clone()]))
            .zip(&y2[rest.clone()])
            .zip(&area[rest])
        {
            let w = (ax2.min(bx2) - ax1.max(bx1)).max(0.);
            let h = (ay2.min(by2) - ay1.max(by1)).max(0.);
            let inter = w * h;
            *d |= inter / (a + b - inter) > limit;
        }
    }
    kept
}

/// The largest f32 that is not above `x`.
pub fn largest_f32_at_most(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) > x { near.next_down() } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_compared_in_double_precision() {
        // IoU 0.3 exactly as f32 is greater than 0.3 as f64 (spec: cases `iou_equals_threshold_*`).
        assert!(f64::from(0.3_f32) > 0.3);
        assert_eq!(largest_f32_at_most(0.3), 0.3_f32.next_down());
        assert_eq!(largest_f32_at_most(0.5), 0.5);
        assert_eq!(largest_f32_at_most(0.7), 0.7_f32);
    }

    #[test]
    fn the_best_are_the_first_of_a_stable_sort() {
        let scores = [0.5, f32::NAN, 2., -1., 2., 0.5, f32::INFINITY];
        let all = [1, 6, 2, 4, 0, 5, 3];
        for most in 0..9 {
            assert_eq!(best(&scores, most), all[..most.min(7)], "{most}");
        }
        assert!(best(&[], 3).is_empty());
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(nms(&[], &[], 0.5).is_empty());
        assert!(batched_nms(&[], &[], &[], 0.5).is_empty());
    }

    #[test]
    fn the_first_apart_follow_tensorflow_at_every_edge() {
        let b = Box2::new(0., 0., 10., 10.);
        let half = Box2::new(0., 0., 10., 5.); // IoU with b is exactly 0.5
        let away = Box2::new(20., 0., 30., 10.);
        let empty = Box2::new(3., 3., 3., 8.);
        let apart = |boxes: &[Box2], scores: &[f32], floor, threshold, most| {
            first_apart(boxes, scores, floor, threshold, most)
        };
        // An IoU that equals the threshold does not suppress, a score that equals the floor does not count.
        assert_eq!(apart(&[b, half], &[0.9, 0.8], 0., 0.5, 9), [0, 1]);
        assert_eq!(apart(&[b, half], &[0.9, 0.8], 0., 0.49, 9), [0]);
        assert_eq!(apart(&[b, away], &[0.9, 0.], 0., 0.5, 9), [0]);
        assert_eq!(apart(&[b, away], &[f32::NAN, 0.1], 0., 0.5, 9), [1]);
        // Of equal scores the first is kept.
        assert_eq!(apart(&[away, b, b], &[0.5, 0.7, 0.7], 0., 0.5, 9), [1, 0]);
        // Boxes without area overlap nothing, themselves included.
        assert_eq!(apart(&[b, empty, empty], &[0.9, 0.8, 0.7], 0., 0.1, 9), [0, 1, 2]);
        assert_eq!(apart(&[b, away], &[0.1, 0.2], 0., 0.5, 1), [1]);
        assert!(apart(&[b], &[0.1], 0., 0.5, 0).is_empty());
        // The thresholds are f32 here: 0.6f32 is above 0.6, and torchvision's comparison would drop.
        let six = Box2::new(0., 0., 10., 6.);
        assert_eq!(six.iou(b), 0.6);
        assert_eq!(apart(&[b, six], &[0.9, 0.8], 0., 0.6, 9), [0, 1]);
        assert_eq!(nms(&[b, six], &[0.9, 0.8], 0.6), [0]);
    }

    #[test]
    fn groups_do_not_meet() {
        let b = Box2::new(-8., -8., 2., 2.);
        assert_eq!(nms(&[b, b, b], &[0.1, 0.3, 0.2], 0.5), [1]);
        assert_eq!(batched_nms(&[b, b, b], &[0.1, 0.3, 0.2], &[0, 1, 0], 0.5), [1, 2]);
    }
}
