//! Two results files side by side, with bootstrap intervals over images (Efron 1979).
//!
//! An interval tells how far the difference could come from the choice of images. Both files are
//! scored on the same draw of images each time, so that what they share cancels out.

use std::collections::HashSet;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::outcomes::{CategoryOutcomes, Outcomes};
use crate::eval::error::EvalError;
use crate::eval::id::Id;
use crate::eval::read::GroundTruth;
use crate::eval::results::Results;
use crate::eval::settings::Settings;

/// At most so many draws.
const MOST_RESAMPLES: usize = 100_000;
/// Draws of fewer images that hold a truth are too much alike to tell anything.
const FEWEST_IMAGES: usize = 5;
/// As in the metric: added to the number of detections, so that it is never 0.
const SMALLEST: f64 = f64::EPSILON;

/// How the intervals are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Draws of images, 1 to 100,000.
    pub resamples: usize,
    /// The same seed gives the same intervals, with any number of threads.
    pub seed: u64,
    /// Share of the draws that an interval holds, between 0 and 1.
    pub confidence: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, seed: 0, confidence: 0.95 }
    }
}

/// One number of two results files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Of the first file.
    pub first: f64,
    /// Of the second file.
    pub second: f64,
    /// First less second: above 0 where the first is better.
    pub difference: f64,
    /// Lower end of the interval of the difference.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Images that hold a truth that counts.
    pub images: usize,
    /// The interval lies wholly above or wholly below 0, and at least five images hold a truth: from
    /// fewer, an interval is too short to be believed.
    pub excludes_zero: bool,
}

/// A category in both files; none of the numbers where no truth of it counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CategoryDifference {
    /// COCO's id; none for all categories together.
    pub id: Option<Id>,
    /// Its name.
    pub name: String,
    /// Mean over the IoU thresholds.
    pub ap: Option<Difference>,
    /// At IoU 0.5.
    pub ap50: Option<Difference>,
}

/// Two results files side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Mean over categories and IoU thresholds; none without any truth.
    pub ap: Option<Difference>,
    /// At IoU 0.5; none where that is not among the thresholds.
    pub ap50: Option<Difference>,
    /// By ascending id.
    pub per_category: Vec<CategoryDifference>,
    /// Draws of images.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Share of the draws that an interval holds.
    pub confidence: f64,
}

/// Compares two results files on the same truth, in the first area range of the settings.
///
/// # Errors
/// As [`evaluate_with`](crate::eval::evaluate_with); also for options out of their range.
pub fn compare(
    gt: &GroundTruth,
    first: &Results,
    second: &Results,
    settings: &Settings,
    options: Bootstrap,
) -> Result<Comparison, EvalError> {
    let Bootstrap { resamples, seed, confidence } = options;
    let wrong = |problem: String| Err(EvalError::Settings { problem });
    if resamples == 0 || resamples > MOST_RESAMPLES {
        return wrong(format!("{resamples} resamples; 1 to {MOST_RESAMPLES} can be drawn"));
    }
    if !(confidence > 0. && confidence < 1.) {
        return wrong(format!("a confidence lies between 0 and 1, not at {confidence}"));
    }
    let first = Outcomes::new(gt, first, settings, 0)?;
    let second = Outcomes::new(gt, second, settings, 0)?;
    let sides = [Side::new(&first), Side::new(&second)];
    let count = first.images.last().map_or(0, |&last| last + 1);

    let mut once = vec![0; count];
    first.images.iter().for_each(|&image| once[image] = 1);
    let measured = Sample::new(&sides, &once, &mut Space::default());
    let samples: Vec<Sample> = (0..resamples)
        .into_par_iter()
        .map_init(
            || (Space::default(), vec![0; count]),
            |(space, weights), number| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(number as u64);
                draw(&first.images, &mut rng, weights);
                Sample::new(&sides, weights, space)
            },
        )
        .collect();

    let difference = |images: usize, number: &dyn Fn(&Sample) -> Option<[f64; 2]>| {
        let [a, b] = number(&measured)?;
        // A draw without any truth of the category says nothing of it.
        let mut all: Vec<f64> = samples.iter().filter_map(number).map(|[a, b]| a - b).collect();
        all.sort_unstable_by(f64::total_cmp);
        let tail = (1. - confidence) / 2.;
        let (low, high) = if all.is_empty() {
            (a - b, a - b)
        } else {
            (quantile(&all, tail), quantile(&all, 1. - tail))
        };
        let excludes_zero = images >= FEWEST_IMAGES && (low > 0. || high < 0.);
        let difference = a - b;
        Some(Difference { first: a, second: b, difference, low, high, images, excludes_zero })
    };
    let per_category = first
        .categories
        .iter()
        .enumerate()
        .map(|(k, category)| {
            let images = images_of([category]);
            CategoryDifference {
                id: category.id.clone(),
                name: category.name.clone(),
                ap: difference(images, &|s| s.categories[k].map(|c| c.ap)),
                ap50: difference(images, &|s| s.categories[k].and_then(|c| c.ap50)),
            }
        })
        .collect();
    let images = images_of(&first.categories);
    Ok(Comparison {
        ap: difference(images, &|s| s.mean(|c| Some(c.ap))),
        ap50: difference(images, &|s| s.mean(|c| c.ap50)),
        per_category,
        resamples,
        seed,
        confidence,
    })
}

/// Images that hold a truth of one of the categories.
fn images_of<'a>(categories: impl IntoIterator<Item = &'a CategoryOutcomes>) -> usize {
    let truths = categories.into_iter().flat_map(|c| &c.truths);
    truths.map(|t| t.image).collect::<HashSet<_>>().len()
}

/// How often each image is drawn, as many draws as there are images.
fn draw(images: &[usize], rng: &mut ChaCha8Rng, weights: &mut [u32]) {
    weights.fill(0);
    for _ in images {
        weights[images[rng.random_range(0..images.len())]] += 1;
    }
}

/// Of sorted numbers, between two of them in proportion, as `numpy.quantile` gives it.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, rest) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * rest
}

/// AP and AP50 of a category in both files.
#[derive(Clone, Copy)]
struct CategoryAp {
    ap: [f64; 2],
    ap50: Option<[f64; 2]>,
}

/// What one draw of images gives; none for a category without a truth in it.
struct Sample {
    categories: Vec<Option<CategoryAp>>,
}

impl Sample {
    fn new(sides: &[Side; 2], weights: &[u32], space: &mut Space) -> Self {
        let [first, second] = sides;
        let categories = first
            .categories
            .iter()
            .zip(&second.categories)
            .map(|(a, b)| {
                let mut score = |side: &Side, rows| side.score(rows, weights, space);
                let (a, b) = (score(first, a)?, score(second, b)?);
                let ap50 = a.1.zip(b.1).map(|(a, b)| [a, b]);
                Some(CategoryAp { ap: [a.0, b.0], ap50 })
            })
            .collect();
        Self { categories }
    }

    /// Over the categories that have a truth.
    fn mean(&self, number: impl Fn(&CategoryAp) -> Option<[f64; 2]>) -> Option<[f64; 2]> {
        let (mut sum, mut count) = ([0.; 2], 0);
        for [a, b] in self.categories.iter().flatten().filter_map(number) {
            sum = [sum[0] + a, sum[1] + b];
            count += 1;
        }
        (count > 0).then(|| sum.map(|s| s / f64::from(count)))
    }
}

/// One results file, prepared for being scored many times.
struct Side {
    thresholds: usize,
    half: Option<usize>,
    recalls: Vec<f64>,
    categories: Vec<CategoryRows>,
}

struct CategoryRows {
    /// What counts at some threshold, best first: its image and its bits.
    rows: Vec<(u32, u64, u64)>,
    /// Images of the truths.
    truths: Vec<u32>,
}

/// Space that is used again.
#[derive(Default)]
struct Space {
    misses: Vec<u64>,
    hits: Vec<u64>,
    /// For each threshold the counts of true and false positives behind each hit.
    events: Vec<Vec<(u64, u64)>>,
}

impl Side {
    fn new(outcomes: &Outcomes) -> Self {
        let rows = |category: &CategoryOutcomes| CategoryRows {
            rows: category
                .rows
                .iter()
                .filter(|row| row.hit | row.miss != 0)
                .map(|row| (row.image, row.hit, row.miss))
                .collect(),
            truths: category.truths.iter().map(|t| t.image).collect(),
        };
        Self {
            thresholds: outcomes.thresholds.len(),
            half: outcomes.thresholds.iter().position(|&t| t == 0.5),
            // `numpy.linspace(0, 1, 101)`, as the metric has it.
            recalls: (0..=100).map(|r| if r == 100 { 1. } else { f64::from(r) * 0.01 }).collect(),
            categories: outcomes.categories.iter().map(rows).collect(),
        }
    }

    /// AP and AP50 of a category where each image stands there as often as `weights` say.
    ///
    /// The order of the rows does not depend on the draw, so that no draw sorts anything. A hit that
    /// counts several times makes as many points of the curve; the last of them has the highest
    /// precision and recall, so that it alone matters.
    fn score(
        &self,
        category: &CategoryRows,
        weights: &[u32],
        space: &mut Space,
    ) -> Option<(f64, Option<f64>)> {
        let truths: u64 = category.truths.iter().map(|&i| u64::from(weights[i as usize])).sum();
        if truths == 0 {
            return None;
        }
        let Space { misses, hits, events } = space;
        let count = self.thresholds;
        misses.clear();
        misses.resize(count, 0);
        hits.clear();
        hits.resize(count, 0);
        events.iter_mut().for_each(Vec::clear);
        events.resize_with(count, Vec::new);
        let all = u64::MAX >> (64 - count);
        // Most rows are wrong at every threshold; one number counts these for all.
        let mut wrong = 0;
        for &(image, hit, miss) in &category.rows {
            let weight = u64::from(weights[image as usize]);
            if weight == 0 {
                continue;
            }
            if miss == all {
                wrong += weight;
                continue;
            }
            for t in 0..count {
                if hit >> t & 1 == 1 {
                    hits[t] += weight;
                    events[t].push((hits[t], misses[t] + wrong));
                } else if miss >> t & 1 == 1 {
                    misses[t] += weight;
                }
            }
        }
        // The hits with which each recall point is reached; rounding may shift the quotient by one.
        let needs: Vec<u64> = self
            .recalls
            .iter()
            .map(|&recall| {
                let about = (recall * truths as f64) as u64;
                let reaches = |hits: &u64| *hits as f64 / truths as f64 >= recall;
                (about.saturating_sub(1)..=about + 1).find(reaches).unwrap_or(about + 2)
            })
            .collect();
        let mut sum = 0.;
        let mut half = None;
        for (t, events) in events.iter().enumerate() {
            let mut left = events.iter().rev().peekable();
            let (mut best, mut area) = (0_f64, 0.);
            for &need in needs.iter().rev() {
                while let Some((hits, misses)) = left.next_if(|(hits, _)| *hits >= need) {
                    let (hits, misses) = (*hits as f64, *misses as f64);
                    best = best.max(hits / ((misses + hits) + SMALLEST));
                }
                area += best;
            }
            let area = area / self.recalls.len() as f64;
            sum += area;
            half = half.or((self.half == Some(t)).then_some(area));
        }
        Some((sum / count as f64, half))
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
