//! torchvision's proposals and RPN losses.

use detect::config;
use detect::geometry::Size;
use detect::nms;
use detect::rules::torchvision;
use tch::{Kind, Tensor};

use crate::detector::assign::{Draws, Quota, Thresholds, match_regions, objectness};
use crate::detector::coder::{Coder, Coding as _};
use crate::detector::rpn::{Candidates, Proposals, Read, RpnOutput, most_in_training};
use crate::detector::{ahead, boxes, losses};
use crate::nn::Mode;

/// Where smooth L1 turns from a parabola into a line.
pub const SMOOTH_L1_BETA: f64 = 1. / 9.;

/// Anchors moved by their deltas: `[N, H * W * A, 4]`, not clipped, without gradient.
pub fn decode(output: &RpnOutput) -> Tensor {
    tch::no_grad(|| {
        let n = output.deltas.size()[0];
        let deltas = output.deltas.reshape([-1, 4]);
        let anchors = boxes::upload(&output.anchors, deltas.device()).repeat([n, 1]);
        Coder::TORCHVISION_RPN.decode(&deltas, &anchors).reshape([n, -1, 4])
    })
}

/// How many anchors NMS chooses among, of at `most` (0: all).
fn count(output: &RpnOutput, most: usize) -> i64 {
    let all = output.anchors.size()[0];
    if most == 0 { all } else { all.min(most as i64) }
}

/// Boxes of each image among which NMS chooses: the `count` best by logit, which is their score here, best first,
/// clipped.
fn candidates(output: &RpnOutput, sizes: &[Size], count: i64) -> Vec<Candidates> {
    let decoded = decode(output);
    let logits = output.objectness.squeeze_dim(2); // [N, H W A]
    let (logits, best) = logits.topk(count, 1, true, true); // [N, count]
    let of_image = |(image, &size): (usize, &Size)| {
        let image = image as i64;
        let picked = decoded.select(0, image).index_select(0, &best.select(0, image));
        // In the order of logits to the last bit, which rounding might turn around in probabilities.
        Candidates { boxes: boxes::clip(&picked, size), scores: logits.select(0, image) }
    };
    sizes.iter().enumerate().map(of_image).collect()
}

/// What became a proposal, with its probability for a score.
fn scored(picked: Proposals) -> Proposals {
    Proposals { scores: picked.scores.sigmoid(), ..picked }
}

/// The best proposals of each image: the top by logit, clipped, without slivers, after NMS.
pub fn proposals(
    settings: &config::Rpn,
    output: &RpnOutput,
    sizes: &[Size],
    mode: Mode,
) -> Vec<Proposals> {
    let (pre, post) = if mode.is_train() {
        (settings.pre_nms_train, settings.post_nms_train)
    } else {
        (settings.pre_nms_eval, settings.post_nms_eval)
    };
    tch::no_grad(|| {
        let candidates = candidates(output, sizes, count(output, pre));
        let one = |(of, read): (&Candidates, Read)| {
            let Read { boxes, scores } = read;
            scored(of.pick(&torchvision::proposals(&boxes, &scores, settings.nms_iou, post)))
        };
        candidates.iter().zip(Candidates::read(&candidates)).map(one).collect()
    })
}

/// What [`proposals`] gives in training, without waiting for the device.
pub fn proposals_ahead(
    settings: &config::Rpn,
    output: &RpnOutput,
    sizes: &[Size],
) -> Option<Vec<Proposals>> {
    let count = count(output, settings.pre_nms_train);
    if !(1..=ahead::MOST).contains(&count) {
        return None;
    }
    let limit = nms::largest_f32_at_most(settings.nms_iou);
    let most = most_in_training(settings, output);
    let one = |of: &Candidates| {
        let corners = |from: i64| of.boxes.narrow(1, from, 2);
        let large = (corners(2) - corners(0)).ge(f64::from(torchvision::SMALLEST_PROPOSAL));
        let (kept, settled) = ahead::suppress(&of.boxes, &large.all_dim(1, false), limit);
        scored(of.pick_ahead(&kept, settled, most))
    };
    Some(tch::no_grad(|| candidates(output, sizes, count).iter().map(one).collect()))
}

/// Adds to `matches` `[A]` every anchor whose IoU *equals* the best of some ground truth, with the ground
/// truth that *it* overlaps most. torchvision's quirk is kept: a ground truth that nothing overlaps has a
/// best IoU of 0 and thereby makes every anchor positive.
///
/// # Shapes
/// IoU `[G, A]`, `G > 0`, to `[A]` int64.
pub fn rescue_best(iou: &Tensor, matches: &Tensor) -> Tensor {
    let (best_of_truth, _) = iou.max_dim(1, true); // [G, 1]
    let rescued = iou.eq_tensor(&best_of_truth).any_dim(0, false); // [A]
    let (_, ground_truth) = iou.max_dim(0, false); // [A]
    ground_truth.where_self(&rescued, matches)
}

/// What each anchor should say: labels `[A]` f32 (1 object, 0 background, -1 unused) and the index
/// of its ground truth `[A]`, for ground truths `[G, 4]`.
pub fn assign(settings: &config::Rpn, anchors: &Tensor, gt_boxes: &Tensor) -> (Tensor, Tensor) {
    tch::no_grad(|| {
        if gt_boxes.size()[0] == 0 {
            let none = Tensor::zeros([anchors.size()[0]], (Kind::Int64, anchors.device()));
            return (none.to_kind(Kind::Float), none);
        }
        let (positive, negative) = (settings.positive_iou, settings.negative_iou);
        let iou = boxes::iou(gt_boxes, anchors);
        let matches = match_regions(&iou, Thresholds { positive, negative });
        objectness(&rescue_best(&iou, &matches))
    })
}

/// Losses of objectness and of boxes: means over anchors sampled in each image, and how many these are. Which anchor
/// learns what hangs on nothing that the network says, and is decided on the CPU, where `gt_boxes` `[G, 4]` are.
pub fn losses(
    settings: &config::Rpn,
    output: &RpnOutput,
    gt_boxes: &[Tensor],
    draws: Draws<'_>,
) -> (Tensor, Tensor, usize) {
    let device = output.deltas.device();
    let quota = Quota::new(settings.sampled, settings.positive_fraction);
    let mut logits = Vec::new();
    let mut targets = Vec::new();
    let mut deltas = Vec::new();
    let mut delta_targets = Vec::new();
    let mut used = 0;
    for (image, gt) in gt_boxes.iter().enumerate() {
        let (labels, matched) = assign(settings, &output.anchors, gt);
        let (positive, negative) = draws.anchors(image, &labels, quota);
        let sampled = Tensor::cat(&[&positive, &negative], 0);
        used += sampled.size()[0];
        targets.push(labels.index_select(0, &sampled));
        let image = image as i64;
        let objectness = output.objectness.select(0, image).squeeze_dim(1); // [H W A]
        logits.push(objectness.index_select(0, &boxes::upload(&sampled, device)));
        if positive.size()[0] > 0 {
            let truth = gt.index_select(0, &matched.index_select(0, &positive));
            let anchors = output.anchors.index_select(0, &positive);
            delta_targets.push(Coder::TORCHVISION_RPN.encode(&truth, &anchors));
            let positive = boxes::upload(&positive, device);
            deltas.push(output.deltas.select(0, image).index_select(0, &positive));
        }
    }
    let targets = boxes::upload(&Tensor::cat(&targets, 0), device);
    let objectness = losses::binary_cross_entropy_mean(&Tensor::cat(&logits, 0), &targets);
    let box_reg = if deltas.is_empty() {
        // Keeps the graph whole: gradients of zero rather than none.
        output.deltas.sum(Kind::Float) * 0.
    } else {
        let targets = boxes::upload(&Tensor::cat(&delta_targets, 0), device);
        let sum = losses::smooth_l1_sum(&Tensor::cat(&deltas, 0), &targets, SMOOTH_L1_BETA);
        sum / used.max(1) as f64
    };
    (objectness, box_reg, used as usize)
}
