//! What both families share in deciding which region learns what: thresholds, and balanced sampling.

use tch::{Device, Kind, Tensor};

use super::boxes::upload;

/// A region under the lower threshold.
pub const BELOW: i64 = -1;
/// A region between the two thresholds: it is not used.
pub const BETWEEN: i64 = -2;

/// Which IoU makes a region positive or negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// IoU from which a region is positive.
    pub positive: f64,
    /// IoU under which it is negative.
    pub negative: f64,
}

/// For each region the ground truth it overlaps most, or [`BELOW`] or [`BETWEEN`].
///
/// # Shapes
/// IoU `[G, A]`, `G > 0`, to `[A]` int64.
pub fn match_regions(iou: &Tensor, thresholds: Thresholds) -> Tensor {
    let Thresholds { positive, negative } = thresholds;
    let (best, ground_truth) = iou.max_dim(0, false); // [A]
    ground_truth
        .masked_fill(&best.lt(negative), BELOW)
        .masked_fill(&best.ge(negative).logical_and(&best.lt(positive)), BETWEEN)
}

/// What `matches` `[A]` of anchors mean: labels `[A]` f32 (1 object, 0 background, -1 unused) and the
/// index of the ground truth `[A]`, 0 where there is none.
pub fn objectness(matches: &Tensor) -> (Tensor, Tensor) {
    let labels = matches
        .ge(0)
        .to_kind(Kind::Float)
        .masked_fill(&matches.eq(BELOW), 0.)
        .masked_fill(&matches.eq(BETWEEN), -1.);
    (labels, matches.clamp_min(0))
}

/// What a region `[R]` is: the class (0 background) of the ground truth that it overlaps most, if by
/// `threshold` or more, and the index of that truth.
///
/// # Shapes
/// IoU `[G, R]` and `gt_labels` `[G]`, `G > 0`, to `[R]` twice.
pub fn classes(iou: &Tensor, gt_labels: &Tensor, threshold: f64) -> (Tensor, Tensor) {
    let thresholds = Thresholds { positive: threshold, negative: threshold };
    let matches = match_regions(iou, thresholds);
    let ground_truth = matches.clamp_min(0);
    let labels = gt_labels.index_select(0, &ground_truth).masked_fill(&matches.eq(BELOW), 0);
    (labels, ground_truth)
}

/// Where the draws of a batch come from.
#[derive(Debug, Clone, Copy)]
pub enum Draws<'a> {
    /// libtorch's generator goes on.
    GoOn,
    /// It is set to a seed for each image, so that an image's draws do not hang on the batch it is in.
    Seeds(&'a [i64]),
}

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// Anchors.
    Anchors,
    /// Regions.
    Regions,
}

impl Draws<'_> {
    /// The draws of `stage` of `image` come next.
    pub fn start(self, image: usize, stage: Stage) {
        if let Self::Seeds(seeds) = self {
            // Neighbours in seeds and stages have nothing in common: libtorch mixes seeds itself.
            tch::manual_seed(seeds[image].wrapping_mul(2).wrapping_add(stage as i64));
        }
    }
}

/// Draws at most `count` regions, at most `fraction` of them positive; negatives fill the rest.
///
/// Two permutations are drawn from libtorch's generator, first of the positives. Gives the indices of
/// the positives and of the negatives, each rising, on the device of `labels`. How many there are decides what is
/// drawn, so that it is drawn on the CPU: a GPU is waited for once, and draws what a CPU draws.
///
/// # Shapes
/// `labels` `[A]`: positive from 1 on, 0 negative, below 0 unused.
pub fn sample(labels: &Tensor, count: usize, fraction: f64) -> (Tensor, Tensor) {
    let device = labels.device();
    let labels = labels.to_device(Device::Cpu);
    let indices = |mask: Tensor| mask.nonzero().squeeze_dim(1);
    let (positive, negative) = (indices(labels.ge(1)), indices(labels.eq(0)));
    let (of_positive, of_negative) = (positive.size()[0], negative.size()[0]);
    let positives = of_positive.min((count as f64 * fraction) as i64);
    let negatives = of_negative.min(count as i64 - positives);
    let draw = |from: &Tensor, of: i64, n: i64| {
        let picked = Tensor::randperm(of, (Kind::Int64, Device::Cpu)).narrow(0, 0, n);
        upload(&from.index_select(0, &picked).sort(0, false).0, device)
    };
    (draw(&positive, of_positive, positives), draw(&negative, of_negative, negatives))
}
