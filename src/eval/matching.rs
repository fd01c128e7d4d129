//! Which detection finds which true box, for one image and category (`COCOeval.evaluateImg`).
//!
//! The matching itself (`Matcher`) says of every pair it makes in which area range and at which
//! threshold it makes it. The curves count these pairs; whoever asks what became of a detection gets
//! them as [`CellMatches`].

use super::cells::Cells;
use super::error::EvalError;
use super::overlap::Overlaps;
use super::read::{Annotation, GroundTruth};
use super::results::{Detection, Results};
use super::settings::{AreaRange, Settings};

/// Overlap of a detection and a true box; of a crowd, the share of the detection that lies in it.
///
/// The order of operations is that of pycocotools' C code, so that the last bit agrees. It has no
/// guard against 0 / 0: the result is then NaN, which every comparison below takes for a match.
#[inline]
pub(super) fn iou(det: &[f64; 4], gt: &[f64; 4], crowd: bool) -> f64 {
    let [dx, dy, dw, dh] = *det;
    let [gx, gy, gw, gh] = *gt;
    let w = (dx + dw).min(gx + gw) - dx.max(gx);
    if w <= 0. {
        return 0.;
    }
    let h = (dy + dh).min(gy + gh) - dy.max(gy);
    if h <= 0. {
        return 0.;
    }
    let intersection = w * h;
    let det_area = dw * dh;
    let union = if crowd { det_area } else { (det_area + gw * gh) - intersection };
    intersection / union
}

/// What stands in one image and category: detections best first, truths in file order.
pub(super) struct Cell<'a> {
    pub(super) dets: &'a [&'a Detection],
    pub(super) gts: &'a [&'a Annotation],
    /// Overlaps `[D, G]` where they are not those of the boxes.
    pub(super) overlaps: Option<&'a [f64]>,
}

/// A pair: in this area range and at this threshold the detection finds the truth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) area: usize,
    pub(super) threshold: usize,
    /// Place among the detections of the cell.
    pub(super) det: usize,
    /// Place among the truths of the cell.
    pub(super) gt: usize,
    /// The truth does not count in this area range.
    pub(super) ignored: bool,
}

/// Space that is used again from cell to cell.
#[derive(Default)]
pub(super) struct Matcher {
    overlaps: Vec<f64>, // [reaching, G]
    /// Detections that overlap a truth by the least threshold.
    reaching: Vec<Reaching>,
    candidates: Vec<Near>, // detection by detection, then in the order in which truths are tried
    order: Vec<usize>,
    /// For each truth the last round in which it was taken.
    taken: Vec<u32>,
}

/// A detection that may find something.
struct Reaching {
    det: usize,
    /// Its largest overlap; infinite where one of them is NaN.
    largest: f64,
    has_nan: bool,
    /// Where its candidates end.
    end: usize,
}

/// A truth that a detection may find.
#[derive(Clone, Copy)]
struct Near {
    overlap: f64,
    gt: usize,
    ignored: bool,
    crowd: bool,
}

impl Matcher {
    /// Matches a cell, and calls `found` for each pair.
    pub(super) fn run(
        &mut self,
        cell: &Cell<'_>,
        thresholds: &[f64],
        areas: &[AreaRange],
        mut found: impl FnMut(Pair),
    ) {
        let least = thresholds.iter().copied().fold(HIGHEST, f64::min);
        self.find_reaching(cell, least);
        if self.reaching.is_empty() {
            return;
        }
        let gts = cell.gts;
        self.taken.clear();
        self.taken.resize(gts.len(), 0);
        let mut round = 0;
        for (area, range) in areas.iter().enumerate() {
            let ignored = |g: usize| gts[g].ignore || range.excludes(gts[g].area);
            // Real truths first, so that one of them wins over any ignored one.
            self.order.clear();
            self.order.extend((0..gts.len()).filter(|&g| !ignored(g)));
            let real = self.order.len();
            self.order.extend((0..gts.len()).filter(|&g| ignored(g)));
            self.find_candidates(gts, real, least);
            for (threshold, &t) in thresholds.iter().enumerate() {
                let t = t.min(HIGHEST);
                round += 1;
                let mut first = 0;
                for &Reaching { det, largest, end, .. } in &self.reaching {
                    let candidates = &self.candidates[first..end];
                    first = end;
                    if largest < t {
                        continue;
                    }
                    if let Some(near) = best(candidates, t, &self.taken, round) {
                        self.taken[near.gt] = round;
                        found(Pair { area, threshold, det, gt: near.gt, ignored: near.ignored });
                    }
                }
            }
        }
    }

    fn find_reaching(&mut self, cell: &Cell<'_>, least: f64) {
        self.overlaps.clear();
        self.reaching.clear();
        for (det, detection) in cell.dets.iter().enumerate() {
            let start = self.overlaps.len();
            let (mut largest, mut has_nan) = (0., false);
            let given = cell.overlaps.map(|all| &all[det * cell.gts.len()..]);
            self.overlaps.extend(cell.gts.iter().enumerate().map(|(g, gt)| {
                let overlap = match given {
                    None => iou(&detection.bbox, &gt.bbox, gt.crowd),
                    Some(row) => row[g],
                };
                largest = if overlap > largest { overlap } else { largest };
                has_nan |= overlap.is_nan();
                overlap
            }));
            if largest < least && !has_nan {
                self.overlaps.truncate(start);
                continue;
            }
            let largest = if has_nan { f64::INFINITY } else { largest };
            self.reaching.push(Reaching { det, largest, has_nan, end: 0 });
        }
    }

    fn find_candidates(&mut self, gts: &[&Annotation], real: usize, least: f64) {
        self.candidates.clear();
        for (reaching, overlaps) in self.reaching.iter_mut().zip(self.overlaps.chunks(gts.len())) {
            for (place, &gt) in self.order.iter().enumerate() {
                // Once the best overlap is NaN, every truth that follows is taken for better.
                if reaching.has_nan || overlaps[gt] >= least {
                    let (ignored, crowd) = (place >= real, gts[gt].crowd);
                    self.candidates.push(Near { overlap: overlaps[gt], gt, ignored, crowd });
                }
            }
            reaching.end = self.candidates.len();
        }
    }
}

/// pycocotools takes an overlap of 1 less this for one of 1.
const HIGHEST: f64 = 1. - 1e-10;

/// The truth that a detection finds: the last of those that overlap most.
#[inline]
fn best(candidates: &[Near], threshold: f64, taken: &[u32], round: u32) -> Option<Near> {
    let mut best = threshold;
    let mut found: Option<Near> = None;
    for near in candidates {
        if taken[near.gt] == round && !near.crowd {
            continue;
        }
        if near.ignored && found.is_some_and(|f| !f.ignored) {
            break;
        }
        if near.overlap < best {
            continue;
        }
        best = near.overlap;
        found = Some(*near);
    }
    found
}

/// What became of the detections and truths of one image and category.
#[derive(Debug, Clone)]
pub struct CellMatches {
    /// Place of the image among [`GroundTruth::image_ids`].
    pub image: usize,
    /// Place of the category among [`GroundTruth::categories`]; 0 where categories are pooled.
    pub category: usize,
    /// Places of the detections in [`Results::detections`], best first, as many as count.
    pub detections: Vec<usize>,
    /// Places of the true boxes in [`GroundTruth::annotations`].
    pub truths: Vec<usize>,
    /// `[T, D]`: the place in `truths` of what the detection finds at a threshold (area range `all`).
    pub matches: Vec<Option<usize>>,
    /// `[D, G]`: overlaps.
    pub overlaps: Vec<f64>,
}

impl CellMatches {
    /// What a detection (by its place in `detections`) finds at a threshold (by its place in the
    /// settings): a place in `truths`. A truth that is ignored takes its detection out of the count.
    pub fn found(&self, threshold: usize, detection: usize) -> Option<usize> {
        self.matches[threshold * self.detections.len() + detection]
    }
}

/// Matches all images and categories as [`evaluate`](super::evaluate) does, in the first area range,
/// and hands the cells over one by one: by category, then by image.
///
/// Returns what overlaps are measured of.
///
/// # Errors
/// As [`evaluate`](super::evaluate).
pub fn match_cells(
    gt: &GroundTruth,
    results: &Results,
    settings: &Settings,
    mut take: impl FnMut(CellMatches),
) -> Result<Overlaps, EvalError> {
    let cells = Cells::new(gt, results, settings)?;
    let mut matcher = Matcher::default();
    let areas = &settings.area_ranges[..1];
    for cell in &cells.ranges {
        let detections = cells.best_detections(cell, settings.most());
        let truths: Vec<usize> = cells.truths(cell).iter().map(|&g| g as usize).collect();
        let dets: Vec<_> = detections.iter().map(|&d| &results.detections[d]).collect();
        let gts: Vec<_> = truths.iter().map(|&g| &gt.annotations[g]).collect();
        let mut matches = vec![None; settings.iou_thresholds.len() * dets.len()];
        let given =
            cells.overlaps.of_cell(detections.iter().copied(), &truths.iter().copied(), &gts);
        let pieces = Cell { dets: &dets, gts: &gts, overlaps: given.as_deref() };
        matcher.run(&pieces, &settings.iou_thresholds, areas, |pair| {
            matches[pair.threshold * dets.len() + pair.det] = Some(pair.gt);
        });
        take(CellMatches {
            image: cells.images[cell.image as usize],
            category: cells.categories.get(cell.category as usize).copied().unwrap_or(0),
            overlaps: given.unwrap_or_else(|| {
                let pairs = dets.iter().flat_map(|d| gts.iter().map(move |g| (d, g)));
                pairs.map(|(d, g)| iou(&d.bbox, &g.bbox, g.crowd)).collect()
            }),
            detections,
            truths,
            matches,
        });
    }
    Ok(cells.overlaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps() {
        let box10 = [0., 0., 10., 10.];
        assert_eq!(iou(&box10, &box10, false), 1.);
        assert_eq!(iou(&[5., 0., 10., 10.], &box10, false), 50. / 150.);
        // Boxes that only touch do not overlap: there is no +1 for the last pixel.
        assert_eq!(iou(&[10., 0., 10., 10.], &box10, false), 0.);
        // Of a crowd, the share of the detection.
        assert_eq!(iou(&[5., 0., 10., 10.], &box10, true), 0.5);
        // Areas that underflow give 0 / 0.
        let tiny = [0., 0., 1e-200, 1e-200];
        assert!(iou(&tiny, &tiny, false).is_nan());
    }
}
