//! Precision and recall of one category over all images (`COCOeval.accumulate`).

use std::cmp::Ordering;

use ndarray::{Array3, Array4};

use super::matching::{AREAS, MOST_DETECTIONS, Row, THRESHOLDS, is_ignored, match_cell};
use super::read::{GroundTruth, ResultEntry, Results};

/// Recall points at which precision is sampled.
pub(super) const RECALLS: usize = 101;
/// Detections of an image and category that count, best first.
pub(super) const MAX_DETECTIONS: [usize; 3] = [1, 10, MOST_DETECTIONS];

/// An image (by its place among the sorted ids) and an entry on it (by its place in its list).
pub(super) type OnImage = (usize, usize);

/// Higher scores first; scores that are no number last. Equal ones (0 and -0 too) are left in order.
pub(super) fn best_first(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The curves of one category.
pub(super) struct Curves {
    pub(super) precision: Array4<f64>, // [T, R, A, M]
    pub(super) scores: Array4<f64>,    // [T, R, A, M]
    pub(super) recall: Array3<f64>,    // [T, A, M]
    /// True boxes that count, by area range.
    pub(super) ground_truths: [usize; AREAS],
}

impl Curves {
    /// Of the true boxes by image and then in file order, and the detections by image, best first.
    pub(super) fn new(
        gt: &GroundTruth,
        truths: &[OnImage],
        results: &Results,
        dets: &[OnImage],
    ) -> Self {
        let mut rows = match_images(gt, truths, results, dets);
        // Stable: equal scores stay in the order of image ids, then in file order.
        rows.sort_by(|a, b| best_first(a.score, b.score));

        let m = MAX_DETECTIONS.len();
        let mut curves = Self {
            precision: Array4::from_elem((THRESHOLDS, RECALLS, AREAS, m), -1.),
            scores: Array4::from_elem((THRESHOLDS, RECALLS, AREAS, m), -1.),
            recall: Array3::from_elem((THRESHOLDS, AREAS, m), -1.),
            ground_truths: std::array::from_fn(|area| {
                truths.iter().filter(|t| !is_ignored(&gt.annotations[t.1], area)).count()
            }),
        };
        let recall_points = recall_points();
        for (m, &most) in MAX_DETECTIONS.iter().enumerate() {
            let rows: Vec<&Row> = rows.iter().filter(|row| row.place < most).collect();
            for area in 0..AREAS {
                let truths = curves.ground_truths[area];
                if truths == 0 {
                    continue; // stays -1: left out of every mean
                }
                for t in 0..THRESHOLDS {
                    let curve = Curve::new(&rows, area, t, truths);
                    curves.recall[[t, area, m]] = curve.recall.last().copied().unwrap_or(0.);
                    let mut row = 0;
                    for (r, &point) in recall_points.iter().enumerate() {
                        while row < rows.len() && curve.recall[row] < point {
                            row += 1;
                        }
                        let reached = row < rows.len();
                        curves.precision[[t, r, area, m]] =
                            if reached { curve.precision[row] } else { 0. };
                        curves.scores[[t, r, area, m]] = if reached { rows[row].score } else { 0. };
                    }
                }
            }
        }
        curves
    }
}

/// The rows of all images of one category, images by ascending id.
fn match_images(
    gt: &GroundTruth,
    mut truths: &[OnImage],
    results: &Results,
    mut dets: &[OnImage],
) -> Vec<Row> {
    let mut rows = Vec::with_capacity(dets.len());
    while let Some(&(image, _)) = dets.first() {
        let there = dets.iter().take_while(|d| d.0 == image).count();
        let kept: Vec<&ResultEntry> =
            dets[..there.min(MOST_DETECTIONS)].iter().map(|d| &results.entries[d.1]).collect();
        dets = &dets[there..];

        truths = &truths[truths.partition_point(|t| t.0 < image)..];
        let there = truths.iter().take_while(|t| t.0 == image).count();
        let on_image: Vec<_> = truths[..there].iter().map(|t| &gt.annotations[t.1]).collect();
        match_cell(&kept, &on_image, &mut rows);
    }
    rows
}

/// Recall and precision after each detection.
struct Curve {
    recall: Vec<f64>,
    /// The highest precision at this recall or a higher one.
    precision: Vec<f64>,
}

impl Curve {
    fn new(rows: &[&Row], area: usize, t: usize, truths: usize) -> Self {
        let mut recall = Vec::with_capacity(rows.len());
        let mut precision = Vec::with_capacity(rows.len());
        let (mut hits, mut misses) = (0., 0.);
        for row in rows {
            if row.ignored[area] >> t & 1 == 0 {
                if row.matched[area] >> t & 1 == 1 { hits += 1. } else { misses += 1. }
            }
            recall.push(hits / truths as f64);
            // The epsilon guards 0 / 0, and makes a single hit 0.9999999999999998.
            precision.push(hits / ((misses + hits) + f64::EPSILON));
        }
        for i in (1..precision.len()).rev() {
            if precision[i] > precision[i - 1] {
                precision[i - 1] = precision[i];
            }
        }
        Self { recall, precision }
    }
}

/// `numpy.linspace(0, 1, 101)`: multiples of 0.01 as a product of doubles, which is not k / 100.
fn recall_points() -> [f64; RECALLS] {
    std::array::from_fn(|k| if k == 100 { 1. } else { k as f64 * 0.01 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_are_no_number_go_last_and_zeros_tie() {
        let mut scores = [f64::NAN, -0., 0.5, f64::NEG_INFINITY, 0., f64::INFINITY];
        scores.sort_by(|a, b| best_first(*a, *b));
        assert_eq!(scores[..2], [f64::INFINITY, 0.5]);
        assert!(scores[2].is_sign_negative() && scores[2] == 0. && scores[3].is_sign_positive());
        assert_eq!(scores[4], f64::NEG_INFINITY);
        assert!(scores[5].is_nan());
    }
}
