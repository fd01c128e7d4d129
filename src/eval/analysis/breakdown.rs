//! Counts by size of the box, and by how many truths an image has.

use serde::Serialize;

use super::curve::ratio;
use super::outcomes::Outcomes;
use crate::eval::read::GroundTruth;
use crate::eval::results::Results;

/// Sides of the square bins in pixels that are used unless others are asked for; COCO's own borders
/// 32 and 96 are among them.
pub const SIDES: [f64; 9] = [0., 16., 32., 64., 96., 128., 256., 512., f64::INFINITY];
/// First numbers of truths of the bins that are used unless others are asked for.
pub const CROWDS: [usize; 6] = [0, 1, 2, 4, 8, 16];

/// Boxes whose area lies from `low` squared to below `high` squared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SizeBin {
    /// Side of the smallest square inside, in pixels.
    pub low: f64,
    /// Side of the smallest square that is too large, in pixels; none for the last bin.
    pub high: Option<f64>,
    /// Truths whose annotated area lies in the bin.
    pub truths: usize,
    /// Those of them that are found.
    pub found: usize,
    /// Detections that count and whose own w * h lies in the bin.
    pub detections: usize,
    /// Those of them that find a truth.
    pub true_positives: usize,
}

impl SizeBin {
    /// Share of the truths that are found; 0 without any.
    pub fn recall(&self) -> f64 {
        ratio(self.found, self.truths)
    }

    /// Share of the detections that are right; 0 without any.
    pub fn precision(&self) -> f64 {
        ratio(self.true_positives, self.detections)
    }
}

/// By size, of the detections with at least this score. `sides` ascend; areas outside all bins, and
/// those that are no numbers, are in none.
pub fn by_size(
    gt: &GroundTruth,
    results: &Results,
    outcomes: &Outcomes,
    score: f64,
    sides: &[f64],
) -> Vec<SizeBin> {
    let mut bins: Vec<SizeBin> = sides
        .windows(2)
        .map(|pair| SizeBin {
            low: pair[0],
            high: Some(pair[1]).filter(|high| high.is_finite()),
            truths: 0,
            found: 0,
            detections: 0,
            true_positives: 0,
        })
        .collect();
    let place = |area: f64| {
        let inside = |pair: &[f64]| area >= pair[0] * pair[0] && area < pair[1] * pair[1];
        sides.windows(2).position(inside)
    };
    for category in &outcomes.categories {
        let area = |t: usize| gt.annotations()[category.truths[t].annotation as usize].area;
        for bin in (0..category.truths.len()).filter_map(|t| place(area(t))) {
            bins[bin].truths += 1;
        }
        for row in category.rows.iter().take_while(|row| row.score >= score) {
            if let Some(bin) = row.found.and_then(|t| place(area(t as usize))) {
                bins[bin].found += 1;
            }
            let detection = row.detection as usize;
            let area = results.area(detection, &results.detections()[detection]);
            let counts = (row.hit | row.miss) >> outcomes.at & 1 == 1;
            if let Some(bin) = place(area).filter(|_| counts) {
                bins[bin].detections += 1;
                bins[bin].true_positives += usize::from(row.found.is_some());
            }
        }
    }
    bins
}

/// Images with a number of truths from `low` to `high`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CrowdBin {
    /// Fewest truths, of all categories together.
    pub low: usize,
    /// Most truths; none for the last bin.
    pub high: Option<usize>,
    /// Images that are scored.
    pub images: usize,
    /// Their truths.
    pub truths: usize,
    /// Detections on them that find a truth.
    pub true_positives: usize,
    /// Detections on them that find none.
    pub false_positives: usize,
}

impl CrowdBin {
    /// Share of the truths that are found; 0 without any.
    pub fn recall(&self) -> f64 {
        ratio(self.true_positives, self.truths)
    }

    /// Share of the detections that are right; 0 without any.
    pub fn precision(&self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_positives)
    }
}

/// By truths an image, of the detections with at least this score. `firsts` ascend: the fewest truths
/// of each bin; images with fewer than the first of them are in none.
pub fn by_crowd(outcomes: &Outcomes, score: f64, firsts: &[usize]) -> Vec<CrowdBin> {
    // Places of images reach to the last one that is scored.
    let count = outcomes.images.last().map_or(0, |&last| last + 1);
    let mut images = vec![(0, 0, 0); count];
    for category in &outcomes.categories {
        for truth in &category.truths {
            images[truth.image as usize].0 += 1;
        }
        for row in category.rows.iter().take_while(|row| row.score >= score) {
            let image = &mut images[row.image as usize];
            image.1 += (row.hit >> outcomes.at & 1) as usize;
            image.2 += (row.miss >> outcomes.at & 1) as usize;
        }
    }
    let mut bins: Vec<CrowdBin> = firsts
        .iter()
        .enumerate()
        .map(|(i, &low)| CrowdBin {
            low,
            high: firsts.get(i + 1).map(|next| next - 1),
            images: 0,
            truths: 0,
            true_positives: 0,
            false_positives: 0,
        })
        .collect();
    for &image in &outcomes.images {
        let (truths, hits, misses) = images[image];
        let Some(bin) = firsts.partition_point(|&low| low <= truths).checked_sub(1) else {
            continue;
        };
        let bin = &mut bins[bin];
        bin.images += 1;
        bin.truths += truths;
        bin.true_positives += hits;
        bin.false_positives += misses;
    }
    bins
}
