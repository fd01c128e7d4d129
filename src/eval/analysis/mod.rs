//! Analyses of a results file beyond the metric's numbers: where precision and recall come from, what
//! is taken for what, which errors cost how much, and whether another file does better.
//!
//! [`outcomes`] holds what became of each detection; [`curve`], [`confusion`] and [`breakdown`] count
//! it. `tide` breaks down errors, `compare` sets two files side by side. [`analyse`] runs them all,
//! [`report`] words them, [`html`] shows them on one page (with the plots of `svg`).

pub mod breakdown;
pub mod compare;
pub mod confusion;
pub mod curve;
pub mod html;
pub mod outcomes;
pub mod report;
mod svg;
pub mod tide;

use super::error::EvalError;
use super::id::Id;
use super::read::GroundTruth;
use super::results::Results;
use super::settings::Settings;
use breakdown::{CROWDS, CrowdBin, SIDES, SizeBin, by_crowd, by_size};
use confusion::Confusion;
use curve::{Curve, Point};
use outcomes::Outcomes;
use tide::{Tide, tide};

/// What is analysed. The default is IoU 0.5 and the score threshold with the best F1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// IoU from which a detection finds a truth, above 0 and up to 1.
    pub iou: f64,
    /// Detections below this score are left out of matrix and counts; none for the score with the
    /// best F1 over all categories.
    pub score: Option<f64>,
    /// Up to this IoU an error is one of the background (TIDE).
    pub background: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { iou: 0.5, score: None, background: 0.1 }
    }
}

/// One category.
#[derive(Debug, Clone)]
pub struct CategoryAnalysis {
    /// COCO's id; none for all categories together.
    pub id: Option<Id>,
    /// Its name.
    pub name: String,
    /// Counts by score.
    pub curve: Curve,
    /// The point of the curve with the best F1; none where nothing is found.
    pub best: Option<Point>,
}

/// All analyses of one results file.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// IoU from which a detection finds a truth.
    pub iou: f64,
    /// The score threshold of matrix and counts.
    pub score: f64,
    /// Of all categories together.
    pub overall: Curve,
    /// The point of it with the best F1; none where nothing is found.
    pub best: Option<Point>,
    /// By ascending id.
    pub per_category: Vec<CategoryAnalysis>,
    /// What is taken for what.
    pub confusion: Confusion,
    /// Errors and their cost.
    pub tide: Tide,
    /// Counts by size of the box.
    pub sizes: Vec<SizeBin>,
    /// Counts by truths an image.
    pub crowds: Vec<CrowdBin>,
}

/// Analyses `results` against `gt`. The IoU thresholds of the settings do not count here.
///
/// # Errors
/// As [`evaluate_with`](super::evaluate_with); also for options out of their range.
pub fn analyse(
    gt: &GroundTruth,
    results: &Results,
    settings: &Settings,
    options: Options,
) -> Result<Analysis, EvalError> {
    let Options { iou, score, background } = options;
    // An overlap of 0 is no overlap.
    if !(iou > 0. && iou <= 1. && (0. ..=1.).contains(&background)) {
        let problem = format!(
            "errors are analysed at an IoU above 0 and up to 1, with one of 0 to 1 for the background, \
             not at {iou} and {background}"
        );
        return Err(EvalError::Settings { problem });
    }
    let settings = Settings { iou_thresholds: vec![iou], ..settings.clone() };
    let outcomes = Outcomes::new(gt, results, &settings, 0)?;
    let overall = Curve::overall(&outcomes);
    let best = overall.best();
    let lowest = overall.points.last().map_or(0., |p| p.score);
    let score = score.or(best.map(|b| b.score)).unwrap_or(lowest);
    let per_category = outcomes
        .categories
        .iter()
        .map(|category| {
            let curve = Curve::of_category(&outcomes, category);
            let best = curve.best();
            CategoryAnalysis { id: category.id.clone(), name: category.name.clone(), curve, best }
        })
        .collect();
    Ok(Analysis {
        iou,
        score,
        overall,
        best,
        per_category,
        confusion: Confusion::new(gt, results, &outcomes, score),
        tide: tide(gt, results, &settings, iou, background)?,
        sizes: by_size(gt, results, &outcomes, score, &SIDES),
        crowds: by_crowd(&outcomes, score, &CROWDS),
    })
}
