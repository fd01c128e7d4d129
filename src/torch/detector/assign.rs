//! Which region learns what: matching with ground truths, and balanced sampling.

use tch::{Kind, Tensor};

/// A region under the lower threshold.
pub const BELOW: i64 = -1;
/// A region between the two thresholds: it is not used.
pub const BETWEEN: i64 = -2;

/// How regions are matched with ground truths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matching {
    /// IoU from which a region is positive.
    pub positive: f64,
    /// IoU under which it is negative.
    pub negative: f64,
    /// Whether each ground truth's best regions are positive whatever their IoU (RPN only).
    pub rescue_best: bool,
}

/// For each region the ground truth it overlaps most, or [`BELOW`] or [`BETWEEN`].
///
/// With `rescue_best` every region whose IoU *equals* the best of some ground truth is matched, with
/// the ground truth that *it* overlaps most. torchvision's quirk is kept: a ground truth that nothing
/// overlaps has a best IoU of 0 and thereby makes every region positive.
///
/// # Shapes
/// IoU `[G, A]`, `G > 0`, to `[A]` int64.
pub fn match_regions(iou: &Tensor, matching: Matching) -> Tensor {
    let (best, ground_truth) = iou.max_dim(0, false); // [A]
    let mut matches = ground_truth
        .masked_fill(&best.lt(matching.negative), BELOW)
        .masked_fill(&best.ge(matching.negative).logical_and(&best.lt(matching.positive)), BETWEEN);
    if matching.rescue_best {
        let (best_of_truth, _) = iou.max_dim(1, true); // [G, 1]
        let rescued = iou.eq_tensor(&best_of_truth).any_dim(0, false); // [A]
        matches = ground_truth.where_self(&rescued, &matches);
    }
    matches
}

/// Draws at most `count` regions, at most `fraction` of them positive; negatives fill the rest.
///
/// Two permutations are drawn from libtorch's generator, first of the positives. Gives the indices of
/// the positives and of the negatives, each rising.
///
/// # Shapes
/// `labels` `[A]`: positive from 1 on, 0 negative, below 0 unused.
pub fn sample(labels: &Tensor, count: usize, fraction: f64) -> (Tensor, Tensor) {
    let indices = |mask: Tensor| mask.nonzero().squeeze_dim(1);
    let (positive, negative) = (indices(labels.ge(1)), indices(labels.eq(0)));
    let (of_positive, of_negative) = (positive.size()[0], negative.size()[0]);
    let positives = of_positive.min((count as f64 * fraction) as i64);
    let negatives = of_negative.min(count as i64 - positives);
    let draw = |from: &Tensor, of: i64, n: i64| {
        let picked = Tensor::randperm(of, (Kind::Int64, labels.device())).narrow(0, 0, n);
        from.index_select(0, &picked).sort(0, false).0
    };
    (draw(&positive, of_positive, positives), draw(&negative, of_negative, negatives))
}
