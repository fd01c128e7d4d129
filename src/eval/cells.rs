//! Entries sorted into cells: what lies on one image and is of one category.
//!
//! Only cells that hold something exist, so that a thousand categories on a hundred thousand images
//! cost no more than their boxes.

use std::collections::HashMap;
use std::ops::Range;

use super::choice::{Unknown, chosen};
use super::error::EvalError;
use super::id::Id;
use super::overlap::Overlaps;
use super::read::GroundTruth;
use super::results::Results;
use super::settings::{IouType, Settings};

/// What is not in any cell: on an image or of a category that is not asked for.
const LEFT_OUT: u32 = u32::MAX;
/// On an image or of a category that the annotations do not list.
const UNLISTED: u32 = u32::MAX - 1;

/// The cells of a pair of files, by category and then by image.
pub(super) struct Cells<'a> {
    results: &'a Results,
    /// Images that are scored, as places in the list of the annotations.
    pub(super) images: Vec<usize>,
    /// Categories that are scored, as places in the list of the annotations.
    pub(super) categories: Vec<usize>,
    pub(super) ranges: Vec<CellRange>,
    /// For each category (one in all where they are pooled) its cells.
    pub(super) by_category: Vec<Range<usize>>,
    detections: Vec<u32>,
    truths: Vec<u32>,
    /// What overlaps are measured of.
    pub(super) overlaps: Overlaps,
    /// What a reader of the numbers should know.
    pub(super) warnings: Vec<String>,
}

/// A cell: stretches of the sorted detections and truths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CellRange {
    pub(super) category: u32,
    pub(super) image: u32,
    pub(super) detections: Range<u32>,
    pub(super) truths: Range<u32>,
}

/// An entry (by its place in its list) on its way to its cell.
#[derive(Clone, Copy)]
struct Placed {
    category: u32,
    image: u32,
    entry: u32,
}

impl<'a> Cells<'a> {
    pub(super) fn new(
        gt: &GroundTruth,
        results: &'a Results,
        settings: &Settings,
    ) -> Result<Self, EvalError> {
        settings.check()?;
        let images = chosen(gt, "image", settings.images.as_deref(), &gt.images)?;
        let category_ids: Vec<Id> = gt.categories.iter().map(|c| c.id.clone()).collect();
        let categories = chosen(gt, "category", settings.categories.as_deref(), &category_ids)?;
        let place = Places {
            images: (&gt.images, &rank_of(gt.images.len(), &images)),
            categories: (&category_ids, &rank_of(category_ids.len(), &categories)),
            pooled: settings.class_agnostic,
            repeats: match settings.categories {
                Some(_) => vec![1; categories.len()],
                None => gt.repeats.clone(),
            },
            image_count: images.len(),
            category_count: categories.len(),
        };
        let mut warnings = Vec::new();
        let truths = truths(gt, &place, settings.fix_id_zero, &mut warnings);
        let detections = detections(gt, results, &place, &mut warnings)?;

        let mut cells = Self {
            results,
            ranges: Vec::new(),
            by_category: Vec::new(),
            detections: detections.iter().map(|d| d.entry).collect(),
            truths: truths.iter().map(|t| t.entry).collect(),
            overlaps: Overlaps::default(),
            warnings,
            images,
            categories,
        };
        cells.join(&detections, &truths, settings.class_agnostic);
        cells.check(gt, settings)?;
        if settings.iou_type == IouType::Segm {
            cells.draw_masks(gt)?;
        }
        Ok(cells)
    }

    fn draw_masks(&mut self, gt: &GroundTruth) -> Result<(), EvalError> {
        let (overlaps, other_sizes) =
            Overlaps::of_masks(gt, self.results, &self.detections, &self.truths)?;
        self.overlaps = overlaps;
        let (boxes, all) = (self.results.boxes_as_masks, self.results.detections.len());
        if boxes > 0 {
            let which = if boxes == all {
                "no detection has".to_owned()
            } else {
                format!("{boxes} of {all} detections lack")
            };
            self.warnings.push(format!(
                "{which} a mask (`segmentation`). As in pycocotools, their boxes are taken as masks"
            ));
        }
        if other_sizes > 0 {
            self.warnings.push(format!(
                "masks of another size than their image: {other_sizes}. As in pycocotools, they \
                 overlap nothing of the right size"
            ));
        }
        Ok(())
    }

    /// Makes the cells out of both sorted lists.
    fn join(&mut self, detections: &[Placed], truths: &[Placed], pooled: bool) {
        let key = |p: &Placed| (if pooled { 0 } else { p.category }, p.image);
        let count = if pooled { 1 } else { self.categories.len() };
        let (mut d, mut t) = (0, 0);
        self.by_category = vec![0..0; count];
        while d < detections.len() || t < truths.len() {
            let next = match (detections.get(d).map(key), truths.get(t).map(key)) {
                (Some(a), Some(b)) => a.min(b),
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => break,
            };
            let (first_d, first_t) = (d as u32, t as u32);
            while detections.get(d).is_some_and(|p| key(p) == next) {
                d += 1;
            }
            while truths.get(t).is_some_and(|p| key(p) == next) {
                t += 1;
            }
            let at = self.ranges.len();
            let of_category = &mut self.by_category[next.0 as usize];
            if of_category.end == of_category.start {
                of_category.start = at;
            }
            of_category.end = at + 1;
            self.ranges.push(CellRange {
                category: next.0,
                image: next.1,
                detections: first_d..d as u32,
                truths: first_t..t as u32,
            });
        }
    }

    /// Truths of a cell, as places in their list, in file order.
    pub(super) fn truths(&self, cell: &CellRange) -> &[u32] {
        &self.truths[cell.truths.start as usize..cell.truths.end as usize]
    }

    /// Detections of some cells that follow each other, as places in their list: by cell, in file order.
    pub(super) fn detections(&self, cells: &[CellRange]) -> &[u32] {
        match (cells.first(), cells.last()) {
            (Some(first), Some(last)) => {
                &self.detections[first.detections.start as usize..last.detections.end as usize]
            }
            _ => &[],
        }
    }

    /// The detections of a cell as places in their list, best first and equal scores in file order.
    pub(super) fn best_detections(&self, cell: &CellRange, most: usize) -> Vec<usize> {
        let mut detections: Vec<usize> =
            self.detections(std::slice::from_ref(cell)).iter().map(|&d| d as usize).collect();
        detections.sort_by_key(|&d| score_key(self.results.detections[d].score));
        detections.truncate(most);
        detections
    }

    /// Whether everything in the cells can be used.
    fn check(&self, gt: &GroundTruth, settings: &Settings) -> Result<(), EvalError> {
        if !gt.problems.is_empty()
            && let Some(&index) = self.truths.iter().filter(|t| gt.problems.contains_key(t)).min()
        {
            return Err(gt.entry_error(index, gt.problems[&index].clone()));
        }
        let problems = &self.results.problems;
        if problems.is_empty() {
            return Ok(());
        }
        let looked_at = self.ranges.iter().flat_map(|cell| {
            let all = cell.detections.start as usize..cell.detections.end as usize;
            let all = self.detections[all]
                .iter()
                .copied()
                .filter(|d| problems.get(d).is_some_and(|p| !p.if_kept));
            let kept = self.best_detections(cell, settings.most()).into_iter().map(|d| d as u32);
            all.chain(kept.filter(|d| problems.contains_key(d)))
        });
        match looked_at.min() {
            None => Ok(()),
            Some(index) => Err(self.results.entry_error(index, problems[&index].text.clone())),
        }
    }
}

/// Higher scores have lower keys; 0 and -0 have one; what is no number comes last.
pub(super) fn score_key(score: f64) -> u64 {
    if score.is_nan() {
        return u64::MAX;
    }
    let bits = (score + 0.).to_bits();
    if bits >> 63 == 1 { bits } else { !(bits | 1 << 63) }
}

/// For each listed id its number among the chosen ones.
fn rank_of(listed: usize, chosen: &[usize]) -> Vec<u32> {
    let mut ranks = vec![LEFT_OUT; listed];
    for (rank, &place) in (0..).zip(chosen) {
        ranks[place] = rank;
    }
    ranks
}

/// From ids to numbers among the chosen images and categories.
struct Places<'a> {
    images: (&'a [Id], &'a [u32]),
    categories: (&'a [Id], &'a [u32]),
    pooled: bool,
    /// How often each category counts where they are pooled.
    repeats: Vec<usize>,
    image_count: usize,
    category_count: usize,
}

impl Places<'_> {
    /// For ids that entries name, by number.
    fn of(list: (&[Id], &[u32]), ids: &[Id]) -> Vec<u32> {
        let place = |id| list.0.binary_search(id).map_or(UNLISTED, |place| list.1[place]);
        ids.iter().map(place).collect()
    }

    /// By category and then by image, or the other way where categories are pooled; else as they are.
    fn sort(&self, placed: Vec<Placed>) -> Vec<Placed> {
        let by_image = |placed| buckets(placed, self.image_count, |p| p.image);
        let by_category = |placed| buckets(placed, self.category_count, |p| p.category);
        if !self.pooled {
            return by_category(by_image(placed));
        }
        let mut pooled = by_category(placed);
        if self.repeats.iter().any(|&repeats| repeats > 1) {
            let of_category = pooled.chunk_by(|a, b| a.category == b.category);
            pooled =
                of_category.flat_map(|c| c.repeat(self.repeats[c[0].category as usize])).collect();
        }
        by_image(pooled)
    }
}

/// Stable counting sort.
fn buckets(placed: Vec<Placed>, count: usize, key: impl Fn(&Placed) -> u32) -> Vec<Placed> {
    if placed.is_sorted_by_key(&key) {
        return placed;
    }
    let mut next = vec![0; count + 1];
    for p in &placed {
        next[key(p) as usize + 1] += 1;
    }
    for i in 1..next.len() {
        next[i] += next[i - 1];
    }
    let mut sorted = placed.clone();
    for p in placed {
        let to = &mut next[key(&p) as usize];
        sorted[*to] = p;
        *to += 1;
    }
    sorted
}

/// The annotations that are scored, sorted; one may stand there more than once.
fn truths(
    gt: &GroundTruth,
    place: &Places<'_>,
    fix_id_zero: bool,
    warnings: &mut Vec<String>,
) -> Vec<Placed> {
    let images = Places::of(place.images, &gt.named_images);
    let categories = Places::of(place.categories, &gt.named_categories);
    let placed = |entry: u32| {
        let annotation = &gt.annotations[entry as usize];
        let image = images[annotation.image as usize];
        let category = categories[annotation.category as usize];
        Placed { category, image, entry }
    };
    let is_in = |p: &Placed| p.image < UNLISTED && p.category < UNLISTED;
    let count = gt.annotations.len() as u32;
    let last = last_of_ids(gt);
    let mut all: Vec<Placed> = (0..count).map(placed).collect();
    if let Some(last) = &last {
        // As in pycocotools' dictionary, the last annotation of an id stands for every one that has
        // it; they are looked up image by image.
        all.retain(|p| p.image < UNLISTED && (place.pooled || p.category < UNLISTED));
        all.sort_by_key(|p| p.image);
        all = all.iter().map(|p| placed(last[p.entry as usize])).collect();
        let repeated = last.iter().zip(0..).filter(|&(&last, i)| last != i).count();
        warnings.push(format!(
            "annotations with an id that a later one has too: {repeated}. As in pycocotools, the last \
             of them stands for all, which distorts these numbers; give each its own id"
        ));
    }
    all.retain(is_in);
    let zeros = all.iter().filter(|p| gt.is_zero(p.entry) == Some(true)).count();
    if zeros > 0 && !fix_id_zero {
        warnings.push(format!(
            "annotations with the id 0: {zeros}. As in pycocotools, a detection that finds it counts as \
             having found nothing; --fix-id-zero counts it, or number annotations from 1"
        ));
    }
    place.sort(all)
}

/// For each annotation the last one of the same id; none where each has its own.
fn last_of_ids(gt: &GroundTruth) -> Option<Vec<u32>> {
    let mut ids: Vec<i64> = gt.annotations.iter().map(|a| a.id).collect();
    // Most files number them upwards.
    if !ids.is_sorted() {
        ids.sort_unstable();
    }
    if gt.odd_ids.is_empty() && ids.windows(2).all(|pair| pair[0] != pair[1]) {
        return None;
    }
    drop(ids);
    let all: Vec<Id> = (0..gt.annotations.len() as u32).map(|i| gt.id_of(i)).collect();
    let last: HashMap<&Id, u32> = all.iter().zip(0..).collect();
    (last.len() < all.len()).then(|| all.iter().map(|id| last[id]).collect())
}

/// The detections that are scored, sorted.
fn detections(
    gt: &GroundTruth,
    results: &Results,
    place: &Places<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Placed>, EvalError> {
    let images = Places::of(place.images, &results.image_ids);
    let categories = Places::of(place.categories, &results.category_ids);
    let all = results.detections.len();
    let count = |unlisted: &[u32], of: fn(&super::results::Detection) -> u32, ids: &[Id]| {
        let mut unknown = Unknown::default();
        if unlisted.contains(&UNLISTED) {
            for detection in &results.detections {
                let number = of(detection) as usize;
                if unlisted[number] == UNLISTED {
                    unknown.add(&ids[number], 1);
                }
            }
        }
        unknown
    };
    let unknown = count(&images, |d| d.image, &results.image_ids);
    if unknown.entries > 0 {
        let advice = if let Some(advice) = unknown.of_other_kind(&gt.images) {
            advice
        } else if unknown.entries == all {
            "none of the detections is on a listed image: is this the right annotations file, or one \
             of another split?"
        } else {
            "take these detections out, or use the annotations that list all images"
        };
        return Err(EvalError::UnknownImages {
            file: results.file.clone(),
            annotations: gt.file().to_owned(),
            detections: unknown.entries,
            all,
            first: unknown.first_ten(),
            advice,
        });
    }
    let unknown = count(&categories, |d| d.category, &results.category_ids);
    if unknown.entries > 0 {
        let hint = match unknown.of_other_kind(place.categories.0) {
            Some(advice) => format!("; {advice}"),
            None if unknown.entries == all => {
                "; do both files use the same category ids?".to_owned()
            }
            None => String::new(),
        };
        warnings.push(format!(
            "{} of {all} detections have a category_id that the annotations do not list: {}. As in \
             pycocotools, they are left out{hint}",
            unknown.entries,
            unknown.first_ten(),
        ));
    }
    let (mut odd_scores, mut odd_boxes) = (0, 0);
    let mut placed = Vec::with_capacity(all);
    placed.extend(results.detections.iter().zip(0..).filter_map(|(detection, entry)| {
        let image = images[detection.image as usize];
        let category = categories[detection.category as usize];
        (image < UNLISTED && category < UNLISTED).then(|| {
            odd_scores += usize::from(!detection.score.is_finite());
            odd_boxes += usize::from(detection.has_odd_box());
            Placed { category, image, entry }
        })
    }));
    if odd_scores > 0 {
        warnings.push(format!(
            "{odd_scores} of {all} detections have a score that is no finite number. As in pycocotools, \
             they count, those that are no number behind all others"
        ));
    }
    if odd_boxes > 0 {
        warnings.push(format!(
            "{odd_boxes} of {all} detections have a bbox with a number that is not finite, or a width or \
             height below 0. As in pycocotools, they count as they are"
        ));
    }
    Ok(place.sort(placed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_are_no_number_go_last_and_zeros_tie() {
        let scores = [f64::INFINITY, 0.5, 1e-300, 0., -1e-300, -2., f64::NEG_INFINITY, f64::NAN];
        assert!(scores.map(score_key).is_sorted_by(|a, b| a < b));
        assert_eq!(score_key(0.), score_key(-0.));
        assert_eq!(score_key(f64::NAN), score_key(-f64::NAN));
    }
}
