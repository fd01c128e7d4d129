//! The confusion matrix that fits the metric: within a category the metric's own pairs stand. Only
//! what these leave over, false positives and truths not found, is paired across categories.

use std::collections::BTreeMap;

use serde::Serialize;

use super::outcomes::{Outcomes, descending};
use crate::eval::read::GroundTruth;
use crate::eval::results::Results;

/// Counts of truths by row and of detections by column. The last row and column are the background:
/// a detection where nothing is, a truth that nothing found.
///
/// Each row of a category adds up to its truths, each column to its true and false positives; the
/// diagonal is its true positives. Crowds and what is matched with them are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Categories, without the background.
    pub names: Vec<String>,
    /// `[K + 1, K + 1]`, row by row.
    pub counts: Vec<usize>,
}

impl Confusion {
    /// Truths of a category (by its place) that are detected as another; K is the background.
    pub fn count(&self, truth: usize, detected: usize) -> usize {
        self.counts[truth * (self.names.len() + 1) + detected]
    }

    /// Of the detections with at least this score, at the IoU threshold `outcomes.at`.
    ///
    /// What is left over pairs within its image, best score first, each with the free truth of
    /// another category that it overlaps most (the last of equals), at least by the threshold.
    pub fn new(gt: &GroundTruth, results: &Results, outcomes: &Outcomes, score: f64) -> Self {
        let names: Vec<String> = outcomes.categories.iter().map(|c| c.name.clone()).collect();
        let (background, side) = (names.len(), names.len() + 1);
        let mut counts = vec![0; side * side];
        let mut left: BTreeMap<u32, LeftOver> = BTreeMap::new();
        for (k, category) in outcomes.categories.iter().enumerate() {
            let mut found = vec![false; category.truths.len()];
            for row in category.rows.iter().take_while(|row| row.score >= score) {
                if let Some(truth) = row.found {
                    found[truth as usize] = true;
                    counts[k * side + k] += 1;
                } else if row.miss >> outcomes.at & 1 == 1 {
                    let image = left.entry(row.image).or_default();
                    image.detections.push((k, row.score, row.detection));
                }
            }
            for (truth, _) in category.truths.iter().zip(&found).filter(|(_, found)| !**found) {
                left.entry(truth.image).or_default().truths.push((k, truth.annotation));
            }
        }
        let threshold = outcomes.thresholds[outcomes.at];
        for LeftOver { mut detections, truths } in left.into_values() {
            detections.sort_by(|a, b| descending(a.1, b.1));
            let mut free = vec![true; truths.len()];
            for (k, _, detection) in detections {
                let mut best = threshold;
                let mut pair = None;
                for (g, &(of, annotation)) in truths.iter().enumerate() {
                    let overlap = if of == k || !free[g] {
                        continue;
                    } else {
                        let (d, g) = (detection as usize, annotation as usize);
                        outcomes.overlaps.of(gt, results, d, g, false)
                    };
                    if overlap >= best {
                        best = overlap;
                        pair = Some(g);
                    }
                }
                let row = pair.map_or(background, |g| {
                    free[g] = false;
                    truths[g].0
                });
                counts[row * side + k] += 1;
            }
            for ((k, _), _) in truths.iter().zip(&free).filter(|(_, free)| **free) {
                counts[k * side + background] += 1;
            }
        }
        Self { names, counts }
    }

    /// The largest counts off the diagonal between two categories: truth, detected as, count.
    pub fn largest(&self, most: usize) -> Vec<(usize, usize, usize)> {
        let k = self.names.len();
        let mut all: Vec<_> = (0..k)
            .flat_map(|row| (0..k).map(move |column| (row, column)))
            .filter(|(row, column)| row != column)
            .map(|(row, column)| (row, column, self.count(row, column)))
            .filter(|cell| cell.2 > 0)
            .collect();
        all.sort_by_key(|cell| std::cmp::Reverse(cell.2));
        all.truncate(most);
        all
    }
}

/// What one image has left over.
#[derive(Default)]
struct LeftOver {
    detections: Vec<(usize, f64, u32)>,
    truths: Vec<(usize, u32)>,
}
