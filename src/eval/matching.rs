//! Which detection finds which true box, for one image and category (`COCOeval.evaluateImg`).

use super::read::{Annotation, ResultEntry};

/// IoU thresholds 0.50 to 0.95.
pub(super) const THRESHOLDS: usize = 10;
/// Area ranges: all, small, medium, large.
pub(super) const AREAS: usize = 4;
/// Detections kept for an image and category.
pub(super) const MOST_DETECTIONS: usize = 100;

/// Names of the area ranges.
pub(super) const AREA_NAMES: [&str; AREAS] = ["all", "small", "medium", "large"];
/// Bounds of the area ranges in square pixels, both inside the range.
const AREA_RANGES: [(f64, f64); AREAS] = [(0., 1e10), (0., 1024.), (1024., 9216.), (9216., 1e10)];

/// The thresholds as `numpy.linspace(0.5, 0.95, 10)` gives them: 0.9 is one unit in the last place
/// short of the decimal.
pub(super) fn thresholds() -> [f64; THRESHOLDS] {
    let step = (0.95 - 0.5) / 9.;
    std::array::from_fn(|k| if k == 9 { 0.95 } else { k as f64 * step + 0.5 })
}

/// How one detection fared. Bit t of a mask speaks of threshold t.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) score: f64,
    /// Place among the detections of its image and category, best first.
    pub(super) place: usize,
    /// By area range: it found a true box (which may be an ignored one).
    pub(super) matched: [u16; AREAS],
    /// By area range: it counts neither for nor against the detector.
    pub(super) ignored: [u16; AREAS],
}

/// Whether a true box does not count in an area range. An area that is no number is in all of them.
pub(super) fn is_ignored(gt: &Annotation, area: usize) -> bool {
    gt.ignore || outside(gt.area, area)
}

fn outside(size: f64, area: usize) -> bool {
    let (low, high) = AREA_RANGES[area];
    size < low || size > high
}

/// Overlap of a detection and a true box; of a crowd, the share of the detection that lies in it.
///
/// The order of operations is that of pycocotools' C code, so that the last bit agrees. It has no
/// guard against 0 / 0: the result is then NaN, which every comparison below takes for a match.
fn iou(det: &[f64; 4], gt: &Annotation) -> f64 {
    let [dx, dy, dw, dh] = *det;
    let [gx, gy, gw, gh] = gt.bbox;
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
    let union = if gt.crowd { det_area } else { (det_area + gw * gh) - intersection };
    intersection / union
}

/// Matches the detections of one image and category (best first, at most [`MOST_DETECTIONS`]) with
/// its true boxes (in file order), and adds one row a detection.
pub(super) fn match_cell(dets: &[&ResultEntry], gts: &[&Annotation], rows: &mut Vec<Row>) {
    let thresholds = thresholds();
    let overlaps: Vec<f64> =
        dets.iter().flat_map(|d| gts.iter().map(|g| iou(&d.bbox, g))).collect(); // [D, G]
    let overlap = |det: usize, gt: usize| overlaps[det * gts.len() + gt];
    // Most detections overlap nothing by half and need no look at any threshold. `<` keeps NaN.
    let reaching: Vec<usize> = (0..dets.len())
        .filter(|&d| !(0..gts.len()).all(|g| overlap(d, g) < thresholds[0]))
        .collect();

    let first_row = rows.len();
    for (place, det) in dets.iter().enumerate() {
        let size = det.bbox[2] * det.bbox[3];
        // What a detection that finds nothing gets.
        let ignored = std::array::from_fn(|area| if outside(size, area) { u16::MAX } else { 0 });
        rows.push(Row { score: det.score, place, matched: [0; AREAS], ignored });
    }
    if reaching.is_empty() {
        return;
    }

    let mut taken = vec![false; gts.len()];
    for area in 0..AREAS {
        let ignored: Vec<bool> = gts.iter().map(|g| is_ignored(g, area)).collect();
        // Real truths first, so that one of them wins over any ignored one.
        let mut order: Vec<usize> = (0..gts.len()).collect();
        order.sort_by_key(|&g| ignored[g]);
        for (t, &threshold) in thresholds.iter().enumerate() {
            let bit = 1 << t;
            taken.fill(false);
            for &d in &reaching {
                let mut best = threshold;
                let mut found: Option<usize> = None;
                for &g in &order {
                    if taken[g] && !gts[g].crowd {
                        continue;
                    }
                    if ignored[g] && found.is_some_and(|f| !ignored[f]) {
                        break;
                    }
                    if overlap(d, g) < best {
                        continue;
                    }
                    best = overlap(d, g);
                    found = Some(g);
                }
                let Some(g) = found else { continue };
                taken[g] = true;
                let row = &mut rows[first_row + d];
                if gts[g].id == 0 {
                    // pycocotools keeps the id of the truth and takes 0 for "none": the truth is
                    // used up, and yet the detection counts as having found nothing.
                    row.ignored[area] |= if ignored[g] { bit } else { 0 };
                    continue;
                }
                row.matched[area] |= bit;
                if ignored[g] {
                    row.ignored[area] |= bit;
                } else {
                    row.ignored[area] &= !bit;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(bbox: [f64; 4], crowd: bool) -> Annotation {
        let area = bbox[2] * bbox[3];
        Annotation { id: 1, image_id: 1, category_id: 1, bbox, area, ignore: crowd, crowd }
    }

    #[test]
    fn the_thresholds_are_numpys() {
        let bits = thresholds().map(f64::to_bits);
        let decimal = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.899_999_999_999_999_9, 0.95];
        assert_eq!(bits, decimal.map(f64::to_bits));
    }

    #[test]
    fn overlaps() {
        let box10 = truth([0., 0., 10., 10.], false);
        assert_eq!(iou(&[0., 0., 10., 10.], &box10), 1.);
        assert_eq!(iou(&[5., 0., 10., 10.], &box10), 50. / 150.);
        // Boxes that only touch do not overlap: there is no +1 for the last pixel.
        assert_eq!(iou(&[10., 0., 10., 10.], &box10), 0.);
        // Of a crowd, the share of the detection.
        assert_eq!(iou(&[5., 0., 10., 10.], &truth([0., 0., 10., 10.], true)), 0.5);
        // Areas that underflow give 0 / 0.
        let tiny = truth([0., 0., 1e-200, 1e-200], false);
        assert!(iou(&tiny.bbox, &tiny).is_nan());
    }
}
