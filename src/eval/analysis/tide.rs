//! What kinds of errors cost how much average precision (Bolya et al., TIDE, ECCV 2020).
//!
//! The numbers are those of the authors' package `tidecv`, divided by 100. It matches in its own way:
//! the best detections of an image count whatever their category, crowds only excuse what would be
//! wrong, and the kinds of errors are tried in the order Loc, Cls, Dupe, Bkg, Both.
//!
//! Differs: images come in the order of their ids, not of the file, which decides between equal
//! scores on several images; an overlap that is no number counts as 0.

use std::collections::BTreeMap;

use serde::Serialize;

use super::outcomes::descending;
use crate::eval::error::EvalError;
use crate::eval::matching::match_cells;
use crate::eval::read::GroundTruth;
use crate::eval::results::Results;
use crate::eval::settings::Settings;

/// The kinds in the package's order.
pub const KINDS: [&str; 6] = ["Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"];
const CLS: usize = 0;
const LOC: usize = 1;
const BOTH: usize = 2;
const DUPE: usize = 3;
const BKG: usize = 4;
const MISS: usize = 5;

/// The breakdown of one results file. Average precision goes from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tide {
    /// As TIDE counts it; close to, not the same as the metric's.
    pub ap: f64,
    /// AP gained if all errors of a kind of [`KINDS`] were fixed; at least 0.
    pub gains: [f64; 6],
    /// Errors of each kind.
    pub counts: [usize; 6],
    /// AP gained if all false positives scored lowest.
    pub false_positives: f64,
    /// AP gained if there were no truths that nothing found.
    pub false_negatives: f64,
}

/// Breaks down the errors at an IoU threshold; overlaps up to `background` are none. The paper's are
/// 0.5 and 0.1. Of the settings, the choice of images and categories and the most detections (here of
/// an image) count.
///
/// # Errors
/// As [`evaluate_with`](crate::eval::evaluate_with).
pub fn tide(
    gt: &GroundTruth,
    results: &Results,
    settings: &Settings,
    threshold: f64,
    background: f64,
) -> Result<Tide, EvalError> {
    let settings = Settings { iou_thresholds: vec![threshold], ..settings.clone() };
    let most = settings.max_detections.last().copied().unwrap_or(0);
    let mut images: BTreeMap<usize, Image> = BTreeMap::new();
    let overlaps = match_cells(gt, results, &settings, |cell| {
        let image = images.entry(cell.image).or_default();
        image.detections.extend(cell.detections.iter().map(|&place| (place, cell.category)));
        image.truths.extend(cell.truths.iter().map(|&place| (place, cell.category)));
    })?;
    let mut run = Run { threshold, background, ..Run::default() };
    for mut image in images.into_values() {
        let score = |place: usize| results.detections()[place].score;
        image.detections.sort_unstable();
        image.detections.sort_by(|a, b| descending(score(a.0), score(b.0)));
        image.detections.truncate(most);
        image.truths.sort_unstable();
        let overlap = |detection: usize, truth: usize, crowd: bool| {
            overlaps.of(gt, results, detection, truth, crowd)
        };
        run.add(gt, results, &image, &overlap);
    }
    Ok(run.breakdown())
}

/// Places in the lists, with categories.
#[derive(Default)]
struct Image {
    detections: Vec<(usize, usize)>,
    truths: Vec<(usize, usize)>,
}

/// A detection as average precision sees it.
#[derive(Clone, Copy)]
struct Point {
    category: usize,
    score: f64,
    right: bool,
}

struct Error {
    kind: usize,
    /// None for what is excused, and for a truth that is missed.
    before: Option<Point>,
    /// The category of the truth that a fix would make it find, and that truth.
    target: Option<(usize, usize)>,
    score: f64,
}

/// A truth that counts.
struct Truth {
    category: usize,
    used: bool,
    /// The best of the errors that could find it: its score and its place among the errors.
    rescue: Option<(f64, usize)>,
}

/// Which truths of an image are asked for.
type Wanted<'a> = dyn Fn(usize) -> bool + 'a;

/// The overlap of a detection and a truth by their places; with `true` that with a crowd.
type Overlap<'a> = dyn Fn(usize, usize, bool) -> f64 + 'a;

#[derive(Default)]
struct Run {
    threshold: f64,
    background: f64,
    points: Vec<Point>,
    errors: Vec<Error>,
    truths: Vec<Truth>,
}

impl Run {
    fn add(&mut self, gt: &GroundTruth, results: &Results, image: &Image, overlap: &Overlap<'_>) {
        let annotation = |place: usize| &gt.annotations()[place];
        let (crowds, truths): (Vec<_>, Vec<_>) =
            image.truths.iter().partition(|t| annotation(t.0).ignore);
        let first = self.truths.len();
        self.truths.extend(truths.iter().map(|&(_, category)| Truth {
            category,
            used: false,
            rescue: None,
        }));
        let number = |overlap: f64| if overlap.is_nan() { 0. } else { overlap };
        let overlaps: Vec<Vec<f64>> = (0..image.detections.len())
            .map(|d| {
                let place = image.detections[d].0;
                truths.iter().map(|t| number(overlap(place, t.0, false))).collect()
            })
            .collect();
        let same = |d: usize, g: usize| image.detections[d].1 == truths[g].1;
        let best = |d: usize, wanted: &Wanted<'_>| {
            largest(truths.len(), |g| if wanted(g) { overlaps[d][g] } else { 0. })
        };
        let found: Vec<bool> = (0..image.detections.len())
            .map(|d| {
                let (g, overlap) = best(d, &|g| same(d, g) && !self.truths[first + g].used);
                let found = overlap >= self.threshold && !truths.is_empty();
                if found {
                    self.truths[first + g].used = true;
                }
                found
            })
            .collect();
        for (d, &(place, category)) in image.detections.iter().enumerate() {
            let score = results.detections()[place].score;
            let excused = !found[d]
                && crowds.iter().any(|&(crowd, of)| {
                    of == category && overlap(place, crowd, true) > self.threshold
                });
            let point = Point { category, score, right: found[d] };
            if !excused {
                self.points.push(point);
            }
            if found[d] {
                continue;
            }
            let (kind, truth) = if truths.is_empty() {
                (BKG, None)
            } else {
                self.kind(&|wanted| best(d, &|g| wanted(g)), &|g| same(d, g), first)
            };
            let target = truth.filter(|&g| !self.truths[g].used);
            let target = target.map(|g| (self.truths[g].category, g));
            if let Some((_, g)) = target {
                let rescue = &mut self.truths[g].rescue;
                if rescue.is_none_or(|(best, _)| score > best) {
                    *rescue = Some((score, self.errors.len()));
                }
            }
            let before = (!excused).then_some(point);
            self.errors.push(Error { kind, before, target, score });
        }
        for g in first..self.truths.len() {
            let Truth { category, used, rescue } = self.truths[g];
            if !used && rescue.is_none() {
                let target = Some((category, g));
                self.errors.push(Error { kind: MISS, before: None, target, score: 0. });
            }
        }
    }

    /// What is wrong with a detection of an image with truths, and the truth that it concerns where
    /// a fix could make it find that one.
    fn kind(
        &self,
        best: &dyn Fn(&Wanted<'_>) -> (usize, f64),
        same: &Wanted<'_>,
        first: usize,
    ) -> (usize, Option<usize>) {
        let (g, overlap) = best(same);
        if self.background <= overlap && overlap <= self.threshold {
            return (LOC, Some(first + g));
        }
        let (g, overlap) = best(&|g| !same(g));
        if overlap >= self.threshold {
            return (CLS, Some(first + g));
        }
        if best(&|g| same(g) && self.truths[first + g].used).1 >= self.threshold {
            return (DUPE, None);
        }
        if best(&|_| true).1 <= self.background { (BKG, None) } else { (BOTH, None) }
    }

    fn breakdown(&self) -> Tide {
        let categories = self.points.iter().map(|p| p.category);
        let categories = categories.chain(self.truths.iter().map(|t| t.category));
        let count = categories.max().map_or(0, |last| last + 1);
        let mut truths = vec![0; count];
        let mut missed = vec![0; count];
        for truth in &self.truths {
            truths[truth.category] += 1;
            missed[truth.category] += usize::from(!truth.used);
        }
        let ap = mean_ap(self.points.iter().copied(), &truths);
        let gains = std::array::from_fn(|kind| {
            let mut truths = truths.clone();
            if kind == MISS {
                for error in self.errors.iter().filter(|e| e.kind == MISS) {
                    truths[error.target.map_or(0, |t| t.0)] -= 1;
                }
            }
            (mean_ap(self.fixed(Some(kind)), &truths) - ap).max(0.)
        });
        let mut counts = [0; 6];
        for error in &self.errors {
            counts[error.kind] += 1;
        }
        let sunk = self.fixed(None).map(|p| Point { score: f64::from(u8::from(p.right)), ..p });
        let left: Vec<usize> = truths.iter().zip(&missed).map(|(all, lost)| all - lost).collect();
        Tide {
            ap,
            gains,
            counts,
            false_positives: mean_ap(sunk, &truths) - ap,
            false_negatives: mean_ap(self.fixed(None), &left) - ap,
        }
    }

    /// The detections with all errors of a kind fixed. As in the package, what was wrong stands
    /// before what was right, which decides between equal scores.
    fn fixed(&self, kind: Option<usize>) -> impl Iterator<Item = Point> + '_ {
        let errors = self.errors.iter().enumerate().filter_map(move |(place, error)| {
            if kind != Some(error.kind) {
                return error.before;
            }
            // One error alone can find a truth, whatever its kind; the others go.
            let (category, truth) = error.target?;
            let (_, rescuer) = self.truths[truth].rescue?;
            (rescuer == place).then_some(Point { category, score: error.score, right: true })
        });
        errors.chain(self.points.iter().copied().filter(|p| p.right))
    }
}

/// The first place of the largest number, and that number; 0 and 0 without any.
fn largest(count: usize, number: impl Fn(usize) -> f64) -> (usize, f64) {
    let mut best = (0, 0.);
    for place in 0..count {
        let number = number(place);
        if number > best.1 {
            best = (place, number);
        }
    }
    best
}

/// Mean over the categories that have a detection or a truth.
fn mean_ap(points: impl Iterator<Item = Point>, truths: &[usize]) -> f64 {
    let mut by_category = vec![Vec::new(); truths.len()];
    for point in points {
        by_category[point.category].push((point.score, point.right));
    }
    let (mut sum, mut count) = (0., 0);
    for (points, &truths) in by_category.iter_mut().zip(truths) {
        if truths > 0 || !points.is_empty() {
            sum += average_precision(points, truths);
            count += 1;
        }
    }
    if count == 0 { 0. } else { sum / f64::from(count) }
}

fn average_precision(points: &mut [(f64, bool)], truths: usize) -> f64 {
    if truths == 0 {
        return 0.;
    }
    points.sort_by(|a, b| descending(a.0, b.0));
    let mut right = 0;
    let mut curve: Vec<(f64, f64)> = (1..)
        .zip(points.iter())
        .map(|(all, point)| {
            right += usize::from(point.1);
            (right as f64 / truths as f64, right as f64 / f64::from(all))
        })
        .collect();
    for i in (1..curve.len()).rev() {
        curve[i - 1].1 = curve[i - 1].1.max(curve[i].1);
    }
    let sampled = (0..=100).map(|r| {
        let at = curve.partition_point(|point| point.0 < f64::from(r) / 100.);
        curve.get(at).map_or(0., |point| point.1)
    });
    sampled.sum::<f64>() / 101.
}
