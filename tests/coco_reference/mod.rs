//! COCO's box metric as plain loops over its rules: slow, and sharing nothing with the evaluator.

#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) id: i64,
    pub(crate) image: i64,
    pub(crate) category: i64,
    pub(crate) bbox: [f64; 4],
    pub(crate) area: f64,
    pub(crate) crowd: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Det {
    pub(crate) image: i64,
    pub(crate) category: i64,
    pub(crate) bbox: [f64; 4],
    pub(crate) score: f64,
}

/// The arrays flat, in C order.
pub(crate) struct Reference {
    pub(crate) precision: Vec<f64>, // [T, R, K, A, M]
    pub(crate) scores: Vec<f64>,    // [T, R, K, A, M]
    pub(crate) recall: Vec<f64>,    // [T, K, A, M]
    pub(crate) stats: [f64; 12],
}

const RANGES: [[f64; 2]; 4] = [[0., 1e10], [0., 1024.], [1024., 9216.], [9216., 1e10]];
const MOST: [usize; 3] = [1, 10, 100];

/// What became of one detection.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Hit,
    Miss,
    Ignored,
}

/// `images` and `categories` ascending and distinct, ids of truths distinct.
pub(crate) fn reference(
    images: &[i64],
    categories: &[i64],
    truths: &[Truth],
    dets: &[Det],
) -> Reference {
    let thresholds: Vec<f64> = (0..10)
        .map(|t| if t == 9 { 0.95 } else { 0.5 + f64::from(t) * ((0.95 - 0.5) / 9.) })
        .collect();
    let points: Vec<f64> =
        (0..101).map(|r| if r == 100 { 1. } else { f64::from(r) * 0.01 }).collect();
    let (t_count, r_count, k_count) = (thresholds.len(), points.len(), categories.len());
    let mut precision = vec![-1.; t_count * r_count * k_count * 12];
    let mut scores = precision.clone();
    let mut recall = vec![-1.; t_count * k_count * 12];
    for (t, &threshold) in thresholds.iter().enumerate() {
        for (k, &category) in categories.iter().enumerate() {
            for (a, &range) in RANGES.iter().enumerate() {
                for (m, &most) in MOST.iter().enumerate() {
                    let real = truths
                        .iter()
                        .filter(|g| g.category == category && !ignored(g, range))
                        .count();
                    if real == 0 {
                        continue;
                    }
                    let mut all: Vec<(f64, Fate)> = Vec::new();
                    for &image in images {
                        let here = |i: i64, c: i64| i == image && c == category;
                        let gts: Vec<&Truth> =
                            truths.iter().filter(|g| here(g.image, g.category)).collect();
                        let ds: Vec<&Det> =
                            dets.iter().filter(|d| here(d.image, d.category)).collect();
                        let fates = match_image(&gts, &ds, range, threshold);
                        all.extend(fates.into_iter().take(most));
                    }
                    all.sort_by(|x, y| y.0.partial_cmp(&x.0).unwrap());
                    let (curve, last) = curve(&all, real);
                    recall[((t * k_count + k) * 4 + a) * 3 + m] = last;
                    for (r, &point) in points.iter().enumerate() {
                        let at = (((t * r_count + r) * k_count + k) * 4 + a) * 3 + m;
                        let first = curve.iter().position(|&(rc, _)| rc >= point);
                        precision[at] = first.map_or(0., |i| curve[i].1);
                        scores[at] = first.map_or(0., |i| all[i].0);
                    }
                }
            }
        }
    }
    let stats = stats(&precision, &recall, r_count * k_count * 12, k_count * 12);
    Reference { precision, scores, recall, stats }
}

fn ignored(truth: &Truth, range: [f64; 2]) -> bool {
    truth.crowd || truth.area < range[0] || truth.area > range[1]
}

/// The score and fate of each detection on one image, best first, at most 100.
fn match_image(
    truths: &[&Truth],
    dets: &[&Det],
    range: [f64; 2],
    threshold: f64,
) -> Vec<(f64, Fate)> {
    let mut dets = dets.to_vec();
    dets.sort_by(|x, y| y.score.partial_cmp(&x.score).unwrap());
    dets.truncate(100);
    let real = truths.iter().filter(|g| !ignored(g, range));
    let rest = truths.iter().filter(|g| ignored(g, range));
    let truths: Vec<&Truth> = real.chain(rest).copied().collect();
    let mut used = vec![false; truths.len()];
    let mut fates = Vec::new();
    for det in dets {
        let mut best = threshold;
        let mut chosen = None;
        for (g, truth) in truths.iter().enumerate() {
            if used[g] && !truth.crowd {
                continue;
            }
            // A real truth was found already: ignored ones are not looked at.
            if let Some(c) = chosen {
                let chosen: &Truth = truths[c];
                if !ignored(chosen, range) && ignored(truth, range) {
                    break;
                }
            }
            let iou = overlap(det.bbox, truth);
            // An overlap that is no number passes.
            if iou.is_nan() || best.is_nan() || iou >= best {
                best = iou;
                chosen = Some(g);
            }
        }
        let size = det.bbox[2] * det.bbox[3];
        let out_of_range = size < range[0] || size > range[1];
        let unmatched = if out_of_range { Fate::Ignored } else { Fate::Miss };
        let fate = match chosen {
            None => unmatched,
            Some(g) => {
                used[g] = true;
                match (ignored(truths[g], range), truths[g].id) {
                    (true, _) => Fate::Ignored,
                    (false, 0) => unmatched,
                    (false, _) => Fate::Hit,
                }
            }
        };
        fates.push((det.score, fate));
    }
    fates
}

fn overlap([dx, dy, dw, dh]: [f64; 4], truth: &Truth) -> f64 {
    let [gx, gy, gw, gh] = truth.bbox;
    let w = f64::min(dx + dw, gx + gw) - f64::max(dx, gx);
    let h = f64::min(dy + dh, gy + gh) - f64::max(dy, gy);
    if w <= 0. || h <= 0. {
        return 0.;
    }
    let i = w * h;
    let u = if truth.crowd { dw * dh } else { (dw * dh + gw * gh) - i };
    i / u
}

/// (recall, best precision from here on) after each detection, and the last recall.
fn curve(all: &[(f64, Fate)], real: usize) -> (Vec<(f64, f64)>, f64) {
    let mut points = Vec::new();
    for n in 1..=all.len() {
        let count = |fate| all[..n].iter().filter(|d| d.1 == fate).count() as f64;
        let (tp, fp) = (count(Fate::Hit), count(Fate::Miss));
        points.push((tp / real as f64, tp / (fp + tp + f64::EPSILON)));
    }
    let highest: Vec<(f64, f64)> = (0..points.len())
        .map(|n| (points[n].0, points[n..].iter().map(|p| p.1).fold(0., f64::max)))
        .collect();
    let last = highest.last().map_or(0., |p| p.0);
    (highest, last)
}

fn stats(precision: &[f64], recall: &[f64], p_stride: usize, r_stride: usize) -> [f64; 12] {
    // Flat arrays end in [A, M]; a stride is one threshold's worth.
    let mean = |x: &[f64], a: usize, m: usize| {
        let kept: Vec<f64> =
            x.iter().skip(a * 3 + m).step_by(12).copied().filter(|&x| x > -1.).collect();
        if kept.is_empty() { -1. } else { kept.iter().sum::<f64>() / kept.len() as f64 }
    };
    let at = |t: usize| &precision[t * p_stride..(t + 1) * p_stride];
    assert_eq!(recall.len(), 10 * r_stride);
    [
        mean(precision, 0, 2),
        mean(at(0), 0, 2),
        mean(at(5), 0, 2),
        mean(precision, 1, 2),
        mean(precision, 2, 2),
        mean(precision, 3, 2),
        mean(recall, 0, 0),
        mean(recall, 0, 1),
        mean(recall, 0, 2),
        mean(recall, 1, 2),
        mean(recall, 2, 2),
        mean(recall, 3, 2),
    ]
}
