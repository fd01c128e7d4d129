//! What became of each detection and each true box, category by category: the ground that every
//! analysis stands on. The matching is the metric's own, so that counts agree with its curves.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::eval::error::EvalError;
use crate::eval::id::Id;
use crate::eval::matching::match_cells;
use crate::eval::overlap::Overlaps;
use crate::eval::read::GroundTruth;
use crate::eval::results::Results;
use crate::eval::settings::Settings;

/// Detections and truths of a pair of files, matched in the first area range of the settings.
#[derive(Debug, Clone)]
pub struct Outcomes {
    /// The IoU thresholds of the settings; bit t of a row speaks of the t-th.
    pub thresholds: Vec<f64>,
    /// Place among them of the one that [`Row::found`] speaks of.
    pub at: usize,
    /// Images that are scored, as places among [`GroundTruth::image_ids`], ascending.
    pub images: Vec<usize>,
    /// By ascending id; one in all where categories are pooled.
    pub categories: Vec<CategoryOutcomes>,
    /// What overlaps are measured of.
    pub(super) overlaps: Overlaps,
}

/// Detections and truths of one category.
#[derive(Debug, Clone)]
pub struct CategoryOutcomes {
    /// COCO's id; none for all categories together.
    pub id: Option<Id>,
    /// Its name.
    pub name: String,
    /// Detections that are kept, best first, as the metric orders them.
    pub rows: Vec<Row>,
    /// Truths that count (crowds do not), by image.
    pub truths: Vec<Truth>,
}

/// A detection. Where both bits of a threshold are 0, it counts neither way.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Confidence.
    pub score: f64,
    /// Place of its image among [`GroundTruth::image_ids`].
    pub image: u32,
    /// Its place in [`Results::detections`].
    pub detection: u32,
    /// Bit t: a true positive at threshold t.
    pub hit: u64,
    /// Bit t: a false positive at threshold t.
    pub miss: u64,
    /// Place in [`CategoryOutcomes::truths`] of what it finds at the threshold `at`.
    pub found: Option<u32>,
}

/// A true box that counts.
#[derive(Debug, Clone, Copy)]
pub struct Truth {
    /// Its place in [`GroundTruth::annotations`].
    pub annotation: u32,
    /// Place of its image among [`GroundTruth::image_ids`].
    pub image: u32,
}

impl Outcomes {
    /// Matches `results` with `gt`; `at` is the place of the IoU threshold that single pairs are
    /// wanted of.
    ///
    /// # Errors
    /// As [`evaluate_with`](crate::eval::evaluate_with); also where `at` is no place of a threshold.
    pub fn new(
        gt: &GroundTruth,
        results: &Results,
        settings: &Settings,
        at: usize,
    ) -> Result<Self, EvalError> {
        settings.check()?;
        let count = settings.iou_thresholds.len();
        if at >= count {
            let problem = format!("there is no IoU threshold number {at} among {count}");
            return Err(EvalError::Settings { problem });
        }
        let places: Vec<usize> = if settings.class_agnostic {
            vec![0]
        } else {
            chosen(gt.categories().iter().map(|c| &c.id), settings.categories.as_deref())
        };
        let mut categories: Vec<CategoryOutcomes> = places
            .iter()
            .map(|&place| {
                let category = gt.categories().get(place).filter(|_| !settings.class_agnostic);
                CategoryOutcomes {
                    id: category.map(|c| c.id.clone()),
                    name: category.map_or_else(|| "all categories".to_owned(), |c| c.name.clone()),
                    rows: Vec::new(),
                    truths: Vec::new(),
                }
            })
            .collect();
        let range = &settings.area_ranges[0];
        let outside = |area: f64| area < range.low || area > range.high;
        let overlaps = match_cells(gt, results, settings, |cell| {
            let Ok(rank) = places.binary_search(&cell.category) else { return };
            let category = &mut categories[rank];
            let image = cell.image as u32;
            // For each truth of the cell its place in the list of those that count.
            let counted: Vec<Option<u32>> = cell
                .truths
                .iter()
                .map(|&place| {
                    let annotation = &gt.annotations()[place];
                    if annotation.ignore || outside(annotation.area) {
                        return None;
                    }
                    category.truths.push(Truth { annotation: place as u32, image });
                    Some(category.truths.len() as u32 - 1)
                })
                .collect();
            // What pycocotools takes for not found, see `Settings::fix_id_zero`.
            let lost =
                |g: usize| !settings.fix_id_zero && gt.is_zero(cell.truths[g] as u32) == Some(true);
            for (d, &detection) in cell.detections.iter().enumerate() {
                let found = &results.detections()[detection];
                let counts = !outside(results.area(detection, found));
                let (score, detection) = (found.score, detection as u32);
                let mut row = Row { score, image, detection, hit: 0, miss: 0, found: None };
                for t in 0..count {
                    match cell.found(t, d).map(|g| (g, counted[g])) {
                        Some((_, None)) => {}
                        Some((g, Some(place))) if !lost(g) => {
                            row.hit |= 1 << t;
                            if t == at {
                                row.found = Some(place);
                            }
                        }
                        _ if counts => row.miss |= 1 << t,
                        _ => {}
                    }
                }
                category.rows.push(row);
            }
        })?;
        for category in &mut categories {
            // Cells come by image, so that the stable sort leaves ties in the metric's order.
            category.rows.sort_by(|a, b| descending(a.score, b.score));
        }
        let images = chosen(gt.image_ids().iter(), settings.images.as_deref());
        Ok(Self { thresholds: settings.iou_thresholds.clone(), at, images, categories, overlaps })
    }

    /// Truths that count, of all categories.
    pub fn truths(&self) -> usize {
        self.categories.iter().map(|c| c.truths.len()).sum()
    }
}

/// Higher scores first, what is no number last.
pub(super) fn descending(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Which of the listed ids are asked for; a number that was asked for may stand there as a text.
fn chosen<'a>(listed: impl Iterator<Item = &'a Id>, wanted: Option<&[Id]>) -> Vec<usize> {
    let Some(wanted) = wanted else { return (0..listed.count()).collect() };
    let ids: HashSet<&Id> = wanted.iter().collect();
    let texts: HashSet<String> = wanted.iter().map(ToString::to_string).collect();
    let is_in = |id: &Id| ids.contains(id) || matches!(id, Id::Text(text) if texts.contains(text));
    listed.enumerate().filter(|(_, id)| is_in(id)).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_comes_last() {
        let mut scores = [0.5, f64::NAN, 0.75, -0., 0., f64::NEG_INFINITY];
        scores.sort_by(|a, b| descending(*a, *b));
        assert_eq!(format!("{scores:?}"), "[0.75, 0.5, -0.0, 0.0, -inf, NaN]");
    }

    #[test]
    fn ids_are_chosen_as_the_metric_chooses_them() {
        let listed = [Id::from(1), Id::from(2), Id::Text("7".to_owned())];
        assert_eq!(chosen(listed.iter(), None), [0, 1, 2]);
        assert_eq!(chosen(listed.iter(), Some(&[Id::from(7), Id::from(2)])), [1, 2]);
    }
}
