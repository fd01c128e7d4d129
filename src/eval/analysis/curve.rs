//! Precision, recall and F1 as the score threshold goes down, and the threshold with the best F1.

use serde::Serialize;

use super::outcomes::{CategoryOutcomes, Outcomes, Row, descending};

/// Counts of the detections with at least a score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// The score threshold.
    pub score: f64,
    /// Detections that find a truth.
    pub true_positives: usize,
    /// Detections that find none.
    pub false_positives: usize,
    /// Truths that are not found.
    pub false_negatives: usize,
}

impl Point {
    /// Share of the detections that are right; 0 without any.
    pub fn precision(&self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Share of the truths that are found; 0 without any.
    pub fn recall(&self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Harmonic mean of both.
    pub fn f1(&self) -> f64 {
        let wrong = self.false_positives + self.false_negatives;
        ratio(2 * self.true_positives, 2 * self.true_positives + wrong)
    }
}

pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0. } else { part as f64 / whole as f64 }
}

/// One point for each score that occurs, descending. Detections whose score is no number are under
/// every threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Empty without detections.
    pub points: Vec<Point>,
    /// Truths that count.
    pub truths: usize,
}

impl Curve {
    /// Of one category.
    pub fn of_category(outcomes: &Outcomes, category: &CategoryOutcomes) -> Self {
        Self::of(category.rows.iter(), outcomes.at, category.truths.len())
    }

    /// Of the detections of all categories together.
    pub fn overall(outcomes: &Outcomes) -> Self {
        let mut rows: Vec<&Row> = outcomes.categories.iter().flat_map(|c| &c.rows).collect();
        rows.sort_by(|a, b| descending(a.score, b.score));
        Self::of(rows.into_iter(), outcomes.at, outcomes.truths())
    }

    fn of<'a>(rows: impl Iterator<Item = &'a Row>, at: usize, truths: usize) -> Self {
        let mut points: Vec<Point> = Vec::new();
        let (mut hits, mut misses) = (0, 0);
        for row in rows.take_while(|row| !row.score.is_nan()) {
            hits += (row.hit >> at & 1) as usize;
            misses += (row.miss >> at & 1) as usize;
            let point = Point {
                score: row.score,
                true_positives: hits,
                false_positives: misses,
                false_negatives: truths - hits,
            };
            match points.last_mut() {
                // The threshold can't part equal scores.
                Some(last) if last.score == row.score => *last = point,
                _ => points.push(point),
            }
        }
        Self { points, truths }
    }

    /// The counts of the detections with at least this score.
    pub fn at(&self, score: f64) -> Point {
        let reached = self.points.partition_point(|p| p.score >= score);
        match reached.checked_sub(1) {
            Some(last) => Point { score, ..self.points[last] },
            None => {
                Point { score, true_positives: 0, false_positives: 0, false_negatives: self.truths }
            }
        }
    }

    /// The point with the best F1, at the highest score of several; none where nothing is found.
    pub fn best(&self) -> Option<Point> {
        let mut best: Option<Point> = None;
        for point in self.points.iter().filter(|p| p.true_positives > 0) {
            if best.is_none_or(|best| point.f1() > best.f1()) {
                best = Some(*point);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(rows: &[(f64, bool)], truths: usize) -> Curve {
        let rows: Vec<Row> = rows
            .iter()
            .map(|&(score, hit)| Row {
                score,
                image: 0,
                detection: 0,
                hit: u64::from(hit),
                miss: u64::from(!hit),
                found: None,
            })
            .collect();
        Curve::of(rows.iter(), 0, truths)
    }

    #[test]
    fn equal_scores_stand_or_fall_together() {
        let curve = curve(&[(0.9, true), (0.5, false), (0.5, true), (0.1, false)], 4);
        assert_eq!(curve.points.len(), 3);
        // 1 of 1, 2 of 3 and 2 of 4 are right; 1, 2 and 2 of 4 are found.
        let f1: Vec<f64> = curve.points.iter().map(Point::f1).collect();
        assert_eq!(f1, [2. / 5., 4. / 7., 4. / 8.]);
        let best = curve.best().unwrap();
        assert_eq!((best.score, best.precision(), best.recall()), (0.5, 2. / 3., 0.5));
        assert_eq!(curve.at(0.6), Point { score: 0.6, ..curve.points[0] });
        assert_eq!(curve.at(0.95).false_negatives, 4);
    }

    #[test]
    fn nothing_found_has_no_best_threshold() {
        assert_eq!(curve(&[], 3).best(), None);
        assert_eq!(curve(&[(0.9, false), (f64::NAN, true)], 3).best(), None);
        assert_eq!(curve(&[], 0).at(0.).recall(), 0.);
    }
}
