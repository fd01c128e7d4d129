//! The evaluation as a whole: entries to categories, and the twelve numbers (`COCOeval.summarize`).

use std::collections::HashMap;

use ndarray::{Array4, Array5, s};
use rayon::prelude::*;

use super::curves::{Curves, MAX_DETECTIONS, OnImage, RECALLS, best_first};
use super::error::EvalError;
use super::matching::{AREAS, THRESHOLDS};
use super::read::{GroundTruth, Results};

/// Names of the twelve numbers, in pycocotools' order.
pub const STAT_NAMES: [&str; 12] =
    ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"];

/// What the metric says of a set of detections. -1 stands for "no truth to measure by".
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// The twelve numbers; [`STAT_NAMES`] names them.
    pub stats: [f64; 12],
    /// `[T, R, K, A, M]`: IoU thresholds, recall points, categories by id, area ranges (all, small,
    /// medium, large), detections kept (1, 10, 100). -1 where a category has no truth in the range.
    pub precision: Array5<f64>,
    /// `[T, K, A, M]`: the highest recall.
    pub recall: Array4<f64>,
    /// `[T, R, K, A, M]`: the score at which each recall point is reached, 0 where it is not.
    pub scores: Array5<f64>,
    /// One entry a category of the annotations, by id.
    pub per_category: Vec<CategoryScore>,
    /// Images that were scored.
    pub images: usize,
    /// Detections that were given.
    pub detections: usize,
    /// What a reader of the numbers should know: ids that pycocotools mistakes, detections left out.
    pub warnings: Vec<String>,
}

impl Evaluation {
    /// The number of that name (one of [`STAT_NAMES`]).
    pub fn stat(&self, name: &str) -> Option<f64> {
        STAT_NAMES.iter().position(|n| *n == name).map(|i| self.stats[i])
    }
}

/// The numbers of one category. -1 where it has no truth.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoryScore {
    /// COCO's id.
    pub id: i64,
    /// Its name; its id where the annotations give none.
    pub name: String,
    /// Mean over IoU 0.50 to 0.95.
    pub ap: f64,
    /// At IoU 0.50.
    pub ap50: f64,
    /// Highest recall with 100 detections an image, mean over IoU 0.50 to 0.95.
    pub ar100: f64,
    /// True boxes that count (crowds do not).
    pub ground_truths: usize,
    /// Detections that were given.
    pub detections: usize,
}

/// Scores `results` against `gt`. Without any detection, categories that have truth score 0.
///
/// Categories are spread over rayon's threads; the result does not depend on how many there are.
///
/// # Errors
/// [`EvalError::UnknownImages`] for detections on images that are not listed, [`EvalError::Entry`]
/// for an entry that counts and lacks something.
pub fn evaluate(gt: &GroundTruth, results: &Results) -> Result<Evaluation, EvalError> {
    let mut warnings = Vec::new();
    let truths = truths_by_category(gt, &mut warnings)?;
    let detections = detections_by_category(gt, results, &mut warnings)?;
    let curves: Vec<Curves> = truths
        .par_iter()
        .zip(&detections)
        .map(|(truths, detections)| Curves::new(gt, truths, results, detections))
        .collect();

    let k = curves.len();
    let mut precision =
        Array5::from_elem((THRESHOLDS, RECALLS, k, AREAS, MAX_DETECTIONS.len()), -1.);
    let mut scores = precision.clone();
    let mut recall = Array4::from_elem((THRESHOLDS, k, AREAS, MAX_DETECTIONS.len()), -1.);
    for (k, one) in curves.iter().enumerate() {
        precision.slice_mut(s![.., .., k, .., ..]).assign(&one.precision);
        scores.slice_mut(s![.., .., k, .., ..]).assign(&one.scores);
        recall.slice_mut(s![.., k, .., ..]).assign(&one.recall);
    }
    let per_category = gt
        .categories
        .iter()
        .zip(&curves)
        .zip(&detections)
        .map(|((category, curves), detections)| CategoryScore {
            id: category.id,
            name: category.name.clone(),
            ap: mean(curves.precision.slice(s![.., .., 0, LAST])),
            ap50: mean(curves.precision.slice(s![0, .., 0, LAST])),
            ar100: mean(curves.recall.slice(s![.., 0, LAST])),
            ground_truths: curves.ground_truths[0],
            detections: detections.len(),
        })
        .collect();
    Ok(Evaluation {
        stats: summarize(&precision, &recall),
        precision,
        recall,
        scores,
        per_category,
        images: gt.images.len(),
        detections: results.entries.len(),
        warnings,
    })
}

/// Place of the largest of [`MAX_DETECTIONS`].
const LAST: usize = MAX_DETECTIONS.len() - 1;

/// The twelve means, each over all entries of its slice at once (not over means of categories).
fn summarize(precision: &Array5<f64>, recall: &Array4<f64>) -> [f64; 12] {
    // IoU 0.50 and 0.75 are thresholds 0 and 5, exactly.
    let ap = |area: usize| mean(precision.slice(s![.., .., .., area, LAST]));
    let ap_at = |t: usize| mean(precision.slice(s![t, .., .., 0, LAST]));
    let ar = |area: usize, m: usize| mean(recall.slice(s![.., .., area, m]));
    [
        ap(0),
        ap_at(0),
        ap_at(5),
        ap(1),
        ap(2),
        ap(3),
        ar(0, 0),
        ar(0, 1),
        ar(0, LAST),
        ar(1, LAST),
        ar(2, LAST),
        ar(3, LAST),
    ]
}

/// Mean of the entries above -1, in order, rounded as numpy rounds it; -1 without any.
fn mean<'a>(entries: impl IntoIterator<Item = &'a f64>) -> f64 {
    let kept: Vec<f64> = entries.into_iter().copied().filter(|&x| x > -1.).collect();
    if kept.is_empty() { -1. } else { pairwise_sum(&kept) / kept.len() as f64 }
}

/// `numpy.sum` of contiguous doubles: pairwise, with eight accumulators in blocks of up to 128.
fn pairwise_sum(x: &[f64]) -> f64 {
    if x.len() < 8 {
        return x.iter().fold(0., |sum, x| sum + x);
    }
    if x.len() <= 128 {
        let eights = x.chunks_exact(8);
        let tail = eights.remainder();
        let mut r = [0.; 8];
        for eight in eights {
            for (r, x) in r.iter_mut().zip(eight) {
                *r += x;
            }
        }
        let sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
        return tail.iter().fold(sum, |sum, x| sum + x);
    }
    let half = x.len() / 2 / 8 * 8;
    pairwise_sum(&x[..half]) + pairwise_sum(&x[half..])
}

/// For each category its annotations, by image and then in file order.
fn truths_by_category(
    gt: &GroundTruth,
    warnings: &mut Vec<String>,
) -> Result<Vec<Vec<OnImage>>, EvalError> {
    // As in pycocotools' dictionary, the last annotation of an id stands for every one that has it.
    let mut last: HashMap<i64, usize> = HashMap::with_capacity(gt.annotations.len());
    for (index, annotation) in gt.annotations.iter().enumerate() {
        last.insert(annotation.id, index);
    }
    let place = |index: usize| {
        let annotation = &gt.annotations[index];
        let image = gt.images.binary_search(&annotation.image_id).ok()?;
        Some((image, category_place(gt, annotation.category_id)?))
    };
    let mut occurrences: Vec<OnImage> = (0..gt.annotations.len())
        .filter_map(|index| place(index).map(|(image, _)| (image, index)))
        .collect();
    // Stable: file order within an image.
    occurrences.sort_by_key(|&(image, _)| image);

    let mut truths = vec![Vec::new(); gt.categories.len()];
    let mut first_problem: Option<usize> = None;
    for (_, index) in occurrences {
        let index = last[&gt.annotations[index].id];
        let Some((image, category)) = place(index) else { continue };
        truths[category].push((image, index));
        if gt.problems.contains_key(&index) {
            first_problem = Some(first_problem.map_or(index, |first| first.min(index)));
        }
    }
    if let Some(index) = first_problem {
        return Err(EvalError::Entry {
            file: gt.file.clone(),
            list: "annotations",
            index,
            problem: gt.problems[&index].clone(),
        });
    }
    for truths in &mut truths {
        truths.sort_by_key(|&(image, _)| image);
    }

    let repeated = gt.annotations.len() - last.len();
    if repeated > 0 {
        warnings.push(format!(
            "annotations with an id that a later one has too: {repeated}. As in pycocotools, the last \
             of them stands for all, which distorts these numbers; give each its own id"
        ));
    }
    if last.get(&0).is_some_and(|&index| place(index).is_some()) {
        warnings.push(
            "annotations with the id 0: 1. As in pycocotools, a detection that finds it counts as \
             having found nothing; number annotations from 1"
                .to_owned(),
        );
    }
    Ok(truths)
}

/// For each category its detections, by image, best first, equal scores in file order.
fn detections_by_category(
    gt: &GroundTruth,
    results: &Results,
    warnings: &mut Vec<String>,
) -> Result<Vec<Vec<OnImage>>, EvalError> {
    let mut detections = vec![Vec::new(); gt.categories.len()];
    let mut unknown_images = Unknown::default();
    let mut unknown_categories = Unknown::default();
    let mut first_problem = None;
    for (index, entry) in results.entries.iter().enumerate() {
        let Ok(image) = gt.images.binary_search(&entry.image_id) else {
            unknown_images.add(entry.image_id);
            continue;
        };
        let Some(category) = category_place(gt, entry.category_id) else {
            unknown_categories.add(entry.category_id);
            continue;
        };
        detections[category].push((image, index));
        if first_problem.is_none() && results.problems.contains_key(&index) {
            first_problem = Some(index);
        }
    }
    if unknown_images.entries > 0 {
        let advice = if unknown_images.entries == results.entries.len() {
            "none of the detections is on a listed image: is this the right annotations file, or one \
             of another split?"
        } else {
            "take these detections out, or use the annotations that list all images"
        };
        return Err(EvalError::UnknownImages {
            file: results.file.clone(),
            annotations: gt.file.clone(),
            detections: unknown_images.entries,
            all: results.entries.len(),
            first: unknown_images.first_ten(),
            advice,
        });
    }
    if let Some(index) = first_problem {
        return Err(EvalError::Entry {
            file: results.file.clone(),
            list: "results",
            index,
            problem: results.problems[&index].clone(),
        });
    }
    if unknown_categories.entries > 0 {
        let all = results.entries.len();
        let hint = if unknown_categories.entries == all {
            "; do both files use the same category ids?"
        } else {
            ""
        };
        warnings.push(format!(
            "{} of {all} detections have a category_id that the annotations do not list: {}. As in \
             pycocotools, they are left out{hint}",
            unknown_categories.entries,
            unknown_categories.first_ten(),
        ));
    }
    for detections in &mut detections {
        detections.sort_by(|a: &OnImage, b: &OnImage| {
            let score = |x: &OnImage| results.entries[x.1].score;
            a.0.cmp(&b.0).then_with(|| best_first(score(a), score(b)))
        });
    }
    Ok(detections)
}

fn category_place(gt: &GroundTruth, id: i64) -> Option<usize> {
    gt.categories.binary_search_by_key(&id, |c| c.id).ok()
}

/// Ids that were looked for in vain.
#[derive(Default)]
struct Unknown {
    entries: usize,
    /// Distinct ones, with their order of appearance.
    ids: HashMap<i64, usize>,
}

impl Unknown {
    fn add(&mut self, id: i64) {
        self.entries += 1;
        let next = self.ids.len();
        self.ids.entry(id).or_insert(next);
    }

    fn first_ten(&self) -> String {
        let mut ids: Vec<(usize, i64)> = self.ids.iter().map(|(&id, &order)| (order, id)).collect();
        ids.sort_unstable();
        let more = ids.len().saturating_sub(10);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let first: Vec<String> = ids.iter().take(10).map(|(_, id)| id.to_string()).collect();
        first.join(", ") + &more
    }
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "digits as they are printed elsewhere")]
mod tests {
    use super::*;

    #[test]
    fn sums_are_rounded_as_numpy_rounds_them() {
        // By numpy 2.4: (1 / numpy.arange(1, n + 1, dtype=float)).sum() for each n.
        let sums = [
            (7, 2.5928571428571425),
            (8, 2.7178571428571425),
            (9, 2.8289682539682537),
            (100, 5.187377517639621),
            (128, 5.433147092589173),
            (129, 5.440899030573669),
            (200, 5.878030948121444),
            (257, 6.128236013400938),
            (1000, 7.485470860550345),
        ];
        let x: Vec<f64> = (1..=1000).map(|i| 1. / f64::from(i)).collect();
        for (n, sum) in sums {
            assert_eq!(pairwise_sum(&x[..n]).to_bits(), f64::to_bits(sum), "{n}");
        }
        // The plain loop differs, so the test can tell.
        assert!(sums.iter().any(|&(n, sum)| x[..n].iter().sum::<f64>() != sum));
    }
}
