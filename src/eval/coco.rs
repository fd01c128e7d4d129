//! The evaluation as a whole: from entries to the numbers (`COCOeval.summarize`).

use ndarray::{Array4, Array5};
use rayon::prelude::*;

use super::cells::Cells;
use super::curves::{Curves, Problem, RECALLS};
use super::error::EvalError;
use super::id::Id;
use super::mean::mean;
use super::read::GroundTruth;
use super::results::Results;
use super::settings::Settings;

/// Names of the twelve numbers of the default settings, in pycocotools' order.
pub const STAT_NAMES: [&str; 12] =
    ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"];

/// What the metric says of a set of detections. -1 stands for "no truth to measure by".
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// The numbers in pycocotools' order; with the default settings, those that [`STAT_NAMES`] names.
    pub stats: Vec<Stat>,
    /// The full arrays, where the settings ask for them.
    pub arrays: Option<Arrays>,
    /// One entry a category that was scored, by id; one in all where categories are pooled.
    pub per_category: Vec<CategoryScore>,
    /// Images that were scored.
    pub images: usize,
    /// Detections that were given.
    pub detections: usize,
    /// What a reader of the numbers should know: ids that pycocotools mistakes, detections left out.
    pub warnings: Vec<String>,
}

/// One of the numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Stat {
    /// `AP`, `AP50`, `APs`, `AR100`, ...
    pub name: String,
    /// Average precision, or else average recall.
    pub is_precision: bool,
    /// The lowest and the highest IoU threshold.
    pub iou: (f64, f64),
    /// Name of the area range.
    pub area: String,
    /// Detections of an image and category that count.
    pub max_detections: usize,
    /// -1 where there is no truth, or no such threshold among those of the settings.
    pub value: f64,
}

/// `COCOeval.eval`: T IoU thresholds, R recall points, K categories, A area ranges, M numbers of
/// detections. -1 where a category has no truth in the range.
#[derive(Debug, Clone)]
pub struct Arrays {
    /// `[T, R, K, A, M]`
    pub precision: Array5<f64>,
    /// `[T, K, A, M]`: the highest recall.
    pub recall: Array4<f64>,
    /// `[T, R, K, A, M]`: the score at which each recall point is reached, 0 where it is not.
    pub scores: Array5<f64>,
}

impl Evaluation {
    /// The number of that name.
    pub fn stat(&self, name: &str) -> Option<f64> {
        self.stats.iter().find(|stat| stat.name == name).map(|stat| stat.value)
    }

    /// The numbers alone.
    pub fn values(&self) -> Vec<f64> {
        self.stats.iter().map(|stat| stat.value).collect()
    }
}

/// The numbers of one category. -1 where it has no truth.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoryScore {
    /// COCO's id; none for all categories together.
    pub id: Option<Id>,
    /// Its name; its id where the annotations give none.
    pub name: String,
    /// Mean over the IoU thresholds.
    pub ap: f64,
    /// At IoU 0.50; -1 where that is not among the thresholds.
    pub ap50: f64,
    /// Highest recall with the most detections an image, mean over the IoU thresholds.
    pub ar: f64,
    /// True boxes that count (crowds do not).
    pub ground_truths: usize,
    /// Detections that were given.
    pub detections: usize,
}

/// Scores `results` against `gt` with the default settings, as [`evaluate_with`] does.
///
/// # Errors
/// As [`evaluate_with`].
pub fn evaluate(gt: &GroundTruth, results: &Results) -> Result<Evaluation, EvalError> {
    evaluate_with(gt, results, &Settings::default())
}

/// Scores `results` against `gt`. Without any detection, categories that have truth score 0.
///
/// The work is spread over rayon's threads; the result does not depend on how many there are.
///
/// # Errors
/// [`EvalError::Settings`] and [`EvalError::UnknownChoice`] for settings that do not fit,
/// [`EvalError::UnknownImages`] for detections on images that are not listed, [`EvalError::Entry`]
/// for an entry that counts and lacks something.
pub fn evaluate_with(
    gt: &GroundTruth,
    results: &Results,
    settings: &Settings,
) -> Result<Evaluation, EvalError> {
    let mut cells = Cells::new(gt, results, settings)?;
    let warnings = std::mem::take(&mut cells.warnings);
    let problem = Problem { gt, results, settings, cells: &cells };
    let curves = cells
        .by_category
        .par_iter()
        .map(|range| Curves::new(problem, &cells.ranges[range.clone()]))
        .collect::<Result<Vec<_>, _>>()?;
    let summary = Summary { settings, curves: &curves };
    let per_category = curves
        .iter()
        .enumerate()
        .map(|(k, curves)| {
            let category = cells.categories.get(k).filter(|_| !settings.class_agnostic);
            let category = category.map(|&place| &gt.categories[place]);
            let one = Summary { settings, curves: std::slice::from_ref(curves) };
            CategoryScore {
                id: category.map(|c| c.id.clone()),
                name: category.map_or_else(|| "all categories".to_owned(), |c| c.name.clone()),
                ap: one.precision(0, None),
                ap50: one.precision(0, Some(0.5)),
                ar: one.recall(0, settings.max_detections.len() - 1),
                ground_truths: curves.ground_truths[0],
                detections: curves.detections,
            }
        })
        .collect();
    Ok(Evaluation {
        stats: summary.stats(),
        arrays: settings.arrays.then(|| summary.arrays()),
        per_category,
        images: cells.images.len(),
        detections: results.detections.len(),
        warnings,
    })
}

struct Summary<'a> {
    settings: &'a Settings,
    curves: &'a [Curves],
}

impl Summary<'_> {
    fn thresholds(&self) -> usize {
        self.settings.iou_thresholds.len()
    }

    /// Numbers of detections of which precision is kept.
    fn kept(&self) -> usize {
        if self.settings.arrays { self.settings.max_detections.len() } else { 1 }
    }

    /// Mean precision with the most detections, at one IoU or at all thresholds: over all entries at
    /// once, by threshold, recall point, category (not over means of categories).
    fn precision(&self, area: usize, iou: Option<f64>) -> f64 {
        let block = (area + 1) * self.kept() - 1;
        let thresholds = self.settings.iou_thresholds.iter().enumerate();
        let thresholds = thresholds.filter(|&(_, &t)| iou.is_none_or(|iou| iou == t));
        mean(thresholds.flat_map(|(t, _)| {
            (0..RECALLS).flat_map(move |r| {
                let at = (block * self.thresholds() + t) * RECALLS + r;
                self.curves.iter().map(move |curves| curves.precision[at])
            })
        }))
    }

    /// Mean of the highest recall, over all entries by threshold and category.
    fn recall(&self, area: usize, m: usize) -> f64 {
        let block = area * self.settings.max_detections.len() + m;
        mean((0..self.thresholds()).flat_map(|t| {
            let at = block * self.thresholds() + t;
            self.curves.iter().map(move |curves| curves.recall[at])
        }))
    }

    fn stats(&self) -> Vec<Stat> {
        let Settings { iou_thresholds, area_ranges, max_detections, .. } = self.settings;
        let ends = (iou_thresholds[0], iou_thresholds[iou_thresholds.len() - 1]);
        let last = max_detections.len() - 1;
        let stat = |name: String, is_precision, iou, area: usize, m: usize, value| Stat {
            name,
            is_precision,
            iou,
            area: area_ranges[area].name.clone(),
            max_detections: max_detections[m],
            value,
        };
        // Each mean of precisions goes over a number for each category, threshold and recall point.
        let mut asked = vec![(0, None), (0, Some(0.5)), (0, Some(0.75))];
        asked.extend((1..area_ranges.len()).map(|area| (area, None)));
        let values: Vec<f64> =
            asked.par_iter().map(|&(area, iou)| self.precision(area, iou)).collect();
        let mut stats: Vec<Stat> = asked
            .iter()
            .zip(values)
            .map(|(&(area, iou), value)| {
                let name = match iou {
                    Some(iou) => format!("AP{:.0}", iou * 100.),
                    None => format!("AP{}", self.suffix(area)),
                };
                stat(name, true, iou.map_or(ends, |iou| (iou, iou)), area, last, value)
            })
            .collect();
        stats.extend((0..=last).map(|m| {
            stat(format!("AR{}", max_detections[m]), false, ends, 0, m, self.recall(0, m))
        }));
        stats.extend((1..area_ranges.len()).map(|area| {
            let name = format!("AR{}", self.suffix(area));
            stat(name, false, ends, area, last, self.recall(area, last))
        }));
        stats
    }

    /// What stands behind `AP` for an area range: s, m and l for COCO's own, else its name.
    fn suffix(&self, area: usize) -> String {
        match (area, &*self.settings.area_ranges[area].name) {
            (0, _) => String::new(),
            (_, "small") => "s".to_owned(),
            (_, "medium") => "m".to_owned(),
            (_, "large") => "l".to_owned(),
            (_, name) => format!("_{name}"),
        }
    }

    fn arrays(&self) -> Arrays {
        let (areas, most) = (self.settings.area_ranges.len(), self.settings.max_detections.len());
        let (t_count, k_count) = (self.thresholds(), self.curves.len());
        let shape = (t_count, RECALLS, k_count, areas, most);
        let sampled = |part: fn(&Curves) -> &Vec<f64>| {
            Array5::from_shape_fn(shape, |(t, r, k, a, m)| {
                part(&self.curves[k])[((a * most + m) * t_count + t) * RECALLS + r]
            })
        };
        Arrays {
            precision: sampled(|c| &c.precision),
            recall: Array4::from_shape_fn((t_count, k_count, areas, most), |(t, k, a, m)| {
                self.curves[k].recall[(a * most + m) * t_count + t]
            }),
            scores: sampled(|c| &c.scores),
        }
    }
}
