//! TensorFlow's proposals and RPN losses (its `faster_rcnn_meta_arch.py`, `target_assigner.py`,
//! `argmax_matcher.py`).

use detect::config;
use detect::geometry::Size;
use detect::rules::tf;
use tch::{Kind, Reduction, Tensor};

use super::SMOOTH_L1_BETA;
use crate::detector::assign::{Draws, Quota, Thresholds, match_regions, objectness};
use crate::detector::coder::{Coder, Coding as _};
use crate::detector::losses::smooth_l1_sum;
use crate::detector::rpn::{Candidates, Proposals, Read, RpnOutput, most_in_training};
use crate::detector::{ahead, boxes};
use crate::nn::Mode;

/// Candidates for each proposal that is wanted, of a pass that does not wait: eight.
const AHEAD: i64 = 8;

/// Anchors of one image that learn, on the CPU.
#[derive(Debug)]
pub struct SampledAnchors {
    /// Indices of those that are objects: `[P]`.
    pub positive: Tensor,
    /// Of those that are background.
    pub negative: Tensor,
    /// Deltas of the objects to their ground truths: `[P, 4]`.
    pub targets: Tensor,
}

/// `output` without the anchors that cross the border of an input of `size`.
pub fn inside_only(output: &RpnOutput, size: Size) -> RpnOutput {
    let inside = boxes::clip(&output.anchors, size)
        .eq_tensor(&output.anchors)
        .all_dim(1, false)
        .nonzero()
        .squeeze_dim(1);
    let anchors = output.anchors.index_select(0, &inside);
    let inside = boxes::upload(&inside, output.deltas.device());
    RpnOutput {
        objectness: output.objectness.index_select(1, &inside),
        deltas: output.deltas.index_select(1, &inside),
        anchors,
    }
}

/// Anchors moved by their deltas: `[N, A, 4]`, not clipped, without gradient.
pub fn decode(output: &RpnOutput) -> Tensor {
    tch::no_grad(|| {
        let n = output.deltas.size()[0];
        let anchors = boxes::upload(&output.anchors, output.deltas.device()).repeat([n, 1]);
        Coder::TF.decode(&output.deltas.reshape([-1, 4]), &anchors).reshape([n, -1, 4])
    })
}

/// The best proposals of each image of all decoded anchors, clipped; see [`tf::proposals`].
pub fn proposals(
    settings: &config::Rpn,
    output: &RpnOutput,
    sizes: &[Size],
    mode: Mode,
) -> Vec<Proposals> {
    let most = if mode.is_train() { settings.post_nms_train } else { settings.post_nms_eval };
    tch::no_grad(|| {
        let decoded = decode(output); // [N, A, 4]
        let scores = output.objectness.softmax(2, None::<Kind>).select(2, 1); // [N, A]
        let of_image = |image| {
            let [boxes, scores] = [&decoded, &scores].map(|all| all.select(0, image as i64));
            Candidates { boxes, scores }
        };
        let candidates: Vec<_> = (0..sizes.len()).map(of_image).collect();
        let one = |((of, read), &size): ((&Candidates, Read), &Size)| {
            let Read { boxes, scores } = read;
            let kept = tf::proposals(&boxes, &scores, size, settings.nms_iou, most);
            let picked = of.pick(&kept);
            Proposals { boxes: boxes::clip(&picked.boxes, size), ..picked }
        };
        candidates.iter().zip(Candidates::read(&candidates)).zip(sizes).map(one).collect()
    })
}

/// What [`proposals`] gives in training, without waiting for the device. Among `AHEAD` times as many of the best as are
/// wanted there have to be enough that are not too close; else they are not settled.
pub fn proposals_ahead(
    settings: &config::Rpn,
    output: &RpnOutput,
    sizes: &[Size],
) -> Option<Vec<Proposals>> {
    let most = most_in_training(settings, output) as i64;
    let scores = |output: &RpnOutput| output.objectness.softmax(2, None::<Kind>).select(2, 1);
    let all = output.anchors.size()[0];
    let count = all.min(most * AHEAD);
    if !(1..=ahead::MOST).contains(&count) {
        return None;
    }
    tch::no_grad(|| {
        let decoded = decode(output); // [N, A, 4]
        let (scores, order) = scores(output).sort_stable(true, 1, true); // [N, A]
        let one = |(image, &size): (usize, &Size)| {
            let [scores, order] =
                [&scores, &order].map(|xs| xs.select(0, image as i64).narrow(0, 0, count));
            let boxes = decoded.select(0, image as i64).index_select(0, &order);
            let part = scores.gt(f64::from(tf::PROPOSAL_FLOOR));
            let (kept, settled) = ahead::suppress(&boxes, &part, settings.nms_iou as f32);
            let number = kept.cumsum(0, Kind::Int64); // counted from 1
            let enough = number.select(0, count - 1).ge(most);
            let settled = if count == all { settled } else { settled.logical_and(&enough) };
            let clipped = boxes::clip(&boxes, size);
            let corners = |from: i64| clipped.narrow(1, from, 2);
            let left = (corners(2) - corners(0)).prod_dim_int(1, false, None::<Kind>).gt(0.);
            let kept = kept.logical_and(&number.le(most)).logical_and(&left);
            Candidates { boxes: clipped, scores }.pick_ahead(&kept, settled, most as usize)
        };
        Some(sizes.iter().enumerate().map(one).collect())
    })
}

/// IoU `[G, A]`, 0 where nothing is shared, two boxes without area included.
pub fn iou(gt_boxes: &Tensor, regions: &Tensor) -> Tensor {
    boxes::iou(gt_boxes, regions).nan_to_num(0., None, None)
}

/// What each anchor should say: labels `[A]` f32 (1 object, 0 background, -1 unused) and the index of its
/// ground truth `[A]`, for ground truths `[G, 4]`.
pub fn assign(settings: &config::Rpn, anchors: &Tensor, gt_boxes: &Tensor) -> (Tensor, Tensor) {
    tch::no_grad(|| {
        if gt_boxes.size()[0] == 0 {
            let none = Tensor::zeros([anchors.size()[0]], (Kind::Int64, anchors.device()));
            return (none.to_kind(Kind::Float), none);
        }
        let (positive, negative) = (settings.positive_iou, settings.negative_iou);
        let iou = iou(gt_boxes, anchors);
        let matches = match_regions(&iou, Thresholds { positive, negative });
        objectness(&force_best(&iou, &matches))
    })
}

/// Gives each ground truth the first of the anchors that it overlaps most, whatever their IoU; where two want
/// the same, the first ground truth gets it.
///
/// # Shapes
/// IoU `[G, A]`, `G > 0` and `A > 0`, and matches `[A]` to `[A]` int64.
pub fn force_best(iou: &Tensor, matches: &Tensor) -> Tensor {
    if matches.size()[0] == 0 {
        return matches.shallow_clone();
    }
    let best = iou.argmax(1, true); // [G, 1]
    let order = Tensor::arange(iou.size()[1], (Kind::Int64, iou.device()));
    let wants = best.eq_tensor(&order).to_kind(Kind::Int64); // [G, A], a single 1 in each row
    let (wanted, first) = wants.max_dim(0, false); // [A]
    first.where_self(&wanted.gt(0), matches)
}

/// Draws the anchors of one image that learn: all on the CPU.
pub fn sample_anchors(
    settings: &config::Rpn,
    anchors: &Tensor,
    gt_boxes: &Tensor,
    image: usize,
    draws: Draws<'_>,
) -> SampledAnchors {
    let quota = Quota::new(settings.sampled, settings.positive_fraction);
    tch::no_grad(|| {
        let (labels, matched) = assign(settings, anchors, gt_boxes);
        let (positive, negative) = draws.anchors(image, &labels, quota);
        let reference = anchors.index_select(0, &positive);
        let targets = if gt_boxes.size()[0] == 0 {
            reference.shallow_clone() // of no anchor
        } else {
            let truth = gt_boxes.index_select(0, &matched.index_select(0, &positive));
            Coder::TF.encode(&truth, &reference)
        };
        SampledAnchors { positive, negative, targets }
    })
}

/// Losses of objectness and of boxes: each image's sum over the number of its sampled anchors, and the mean
/// of the images.
pub fn losses(output: &RpnOutput, sampled: &[SampledAnchors]) -> (Tensor, Tensor) {
    let one = |(image, of): (usize, &SampledAnchors)| {
        let (logits, deltas) = (
            output.objectness.select(0, image as i64), // [A, 2]
            output.deltas.select(0, image as i64),     // [A, 4]
        );
        let device = deltas.device();
        let indices = boxes::upload(&Tensor::cat(&[&of.positive, &of.negative], 0), device);
        let target = Tensor::cat(&[of.positive.ones_like(), of.negative.zeros_like()], 0);
        let target = boxes::upload(&target, device);
        let each = sampled.len() as f64 * indices.size()[0].max(1) as f64;
        let objectness = logits.index_select(0, &indices).cross_entropy_loss::<Tensor>(
            &target,
            None,
            Reduction::Sum,
            -100,
            0.,
        );
        let deltas = deltas.index_select(0, &boxes::upload(&of.positive, device));
        let targets = boxes::upload(&of.targets.to_kind(deltas.kind()), device);
        (objectness / each, smooth_l1_sum(&deltas, &targets, SMOOTH_L1_BETA) / each)
    };
    let (objectness, box_reg): (Vec<_>, Vec<_>) = sampled.iter().enumerate().map(one).unzip();
    let sum = |parts: &[Tensor]| Tensor::stack(parts, 0).sum(None::<Kind>);
    (sum(&objectness), sum(&box_reg))
}
