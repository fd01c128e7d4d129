//! Region proposal network (Ren et al. 2015, section 3.1), torchvision's rules.

use detect::config::{self, Anchors};
use detect::geometry::Size;
use detect::nms::nms;
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::assign::{BELOW, BETWEEN, Matching, match_regions, sample};
use super::{anchors, boxes, coder, losses};
use crate::backbone::CutSpec;
use crate::nn::{Init, Linear, Mode, at, nchw};

/// Proposals narrower or lower than this are dropped, in pixels of the network's input.
const SMALLEST_SIDE: f64 = 1e-3;

/// The network and its rules.
#[derive(Debug)]
pub struct Rpn {
    conv: Linear,
    cls_logits: Linear,
    bbox_pred: Linear,
    settings: config::Rpn,
    anchors: Anchors,
}

/// What the network says of a batch.
#[derive(Debug)]
pub struct RpnOutput {
    /// Logits, one an anchor: `[N, H * W * A]`.
    pub objectness: Tensor,
    /// `[N, H * W * A, 4]`.
    pub deltas: Tensor,
    /// The same for every image: `[H * W * A, 4]`.
    pub anchors: Tensor,
}

/// Proposals of one image.
#[derive(Debug)]
pub struct Proposals {
    /// `[R, 4]`, clipped to the image, best first, without gradient.
    pub boxes: Tensor,
    /// Objectness, 0 to 1: `[R]`.
    pub scores: Tensor,
}

impl Rpn {
    /// Makes `path.head.*` on a map as `spec` says.
    pub fn new(path: &Path, settings: &config::Rpn, anchors: &Anchors, spec: CutSpec) -> Self {
        let (c, a) = (spec.channels, anchors.per_cell() as i64);
        let init = Init::Normal { std: 0.01 };
        let head = path / "head";
        Self {
            conv: Linear::new(&at(&head, "conv.0.0"), &[c, c, 3, 3], init),
            cls_logits: Linear::new(&(&head / "cls_logits"), &[a, c, 1, 1], init),
            bbox_pred: Linear::new(&(&head / "bbox_pred"), &[4 * a, c, 1, 1], init),
            settings: settings.clone(),
            anchors: anchors.clone(),
        }
    }

    /// The raw maps: objectness `[N, A, H, W]` and deltas `[N, 4 A, H, W]`, anchor-major.
    pub fn head(&self, map: &Tensor) -> (Tensor, Tensor) {
        let hidden = self.conv.convolve(map).relu();
        (self.cls_logits.convolve(&hidden), self.bbox_pred.convolve(&hidden))
    }

    /// Objectness and deltas of every anchor, in the order of the anchors.
    ///
    /// # Shapes
    /// `map` `[N, C, H, W]` of a batch of `pixels` `[N, 3, H', W']`.
    pub fn predict(&self, map: &Tensor, pixels: &Tensor) -> RpnOutput {
        let (objectness, deltas) = self.head(map);
        let [n, _, height, width] = nchw(map);
        let [_, _, padded_height, padded_width] = nchw(pixels);
        RpnOutput {
            objectness: objectness.permute([0, 2, 3, 1]).reshape([n, -1]),
            // [N, A * 4, H, W] -> [N, H, W, A * 4] -> [N, H W A, 4]
            deltas: deltas.permute([0, 2, 3, 1]).reshape([n, -1, 4]),
            anchors: anchors::of_map(
                &self.anchors,
                [height, width],
                [padded_height, padded_width],
                map.device(),
            ),
        }
    }

    /// Anchors moved by their deltas: `[N, H * W * A, 4]`, not clipped, without gradient.
    pub fn decode(&self, output: &RpnOutput) -> Tensor {
        tch::no_grad(|| {
            let n = output.deltas.size()[0];
            let deltas = output.deltas.reshape([-1, 4]);
            let anchors = output.anchors.repeat([n, 1]);
            coder::decode(&deltas, &anchors, coder::RPN_WEIGHTS).reshape([n, -1, 4])
        })
    }

    /// The best proposals of each image: the top by logit, clipped, without slivers, after NMS.
    pub fn proposals(&self, output: &RpnOutput, sizes: &[Size], mode: Mode) -> Vec<Proposals> {
        let (pre, post) = if mode.is_train() {
            (self.settings.pre_nms_train, self.settings.post_nms_train)
        } else {
            (self.settings.pre_nms_eval, self.settings.post_nms_eval)
        };
        tch::no_grad(|| {
            let decoded = self.decode(output);
            let count = (pre as i64).min(decoded.size()[1]);
            let (logits, best) = output.objectness.topk(count, 1, true, true); // [N, count]
            let one = |(image, &size): (usize, &Size)| {
                let image = image as i64;
                let picked = decoded.select(0, image).index_select(0, &best.select(0, image));
                let clipped = boxes::clip(&picked, size);
                let large = boxes::at_least(&clipped, SMALLEST_SIDE);
                let clipped = clipped.index_select(0, &large);
                let scores = logits.select(0, image).sigmoid().index_select(0, &large);
                let mut kept = nms(
                    &boxes::from_tensor(&clipped),
                    &boxes::to_vec(&scores),
                    self.settings.nms_iou,
                );
                kept.truncate(post);
                let kept: Vec<i64> = kept.into_iter().map(|i| i as i64).collect();
                let kept = Tensor::from_slice(&kept).to_device(clipped.device());
                Proposals {
                    boxes: clipped.index_select(0, &kept),
                    scores: scores.index_select(0, &kept),
                }
            };
            sizes.iter().enumerate().map(one).collect()
        })
    }

    /// What each anchor should say: labels `[A]` f32 (1 object, 0 background, -1 unused) and the index
    /// of its ground truth `[A]`, for ground truths `[G, 4]`.
    pub fn assign(&self, anchors: &Tensor, gt_boxes: &Tensor) -> (Tensor, Tensor) {
        tch::no_grad(|| {
            let a = anchors.size()[0];
            if gt_boxes.size()[0] == 0 {
                let none = Tensor::zeros([a], (Kind::Int64, anchors.device()));
                return (none.to_kind(Kind::Float), none);
            }
            let matching = Matching {
                positive: self.settings.positive_iou,
                negative: self.settings.negative_iou,
                rescue_best: true,
            };
            let matches = match_regions(&boxes::iou(gt_boxes, anchors), matching);
            let labels = matches
                .ge(0)
                .to_kind(Kind::Float)
                .masked_fill(&matches.eq(BELOW), 0.)
                .masked_fill(&matches.eq(BETWEEN), -1.);
            (labels, matches.clamp_min(0))
        })
    }

    /// Losses of objectness and of boxes, over anchors sampled in each image.
    pub fn losses(&self, output: &RpnOutput, gt_boxes: &[Tensor]) -> (Tensor, Tensor) {
        let mut logits = Vec::new();
        let mut targets = Vec::new();
        let mut deltas = Vec::new();
        let mut delta_targets = Vec::new();
        let mut used = 0;
        for (image, gt) in gt_boxes.iter().enumerate() {
            let (labels, matched) = self.assign(&output.anchors, gt);
            let (positive, negative) =
                sample(&labels, self.settings.sampled, self.settings.positive_fraction);
            let sampled = Tensor::cat(&[&positive, &negative], 0);
            used += sampled.size()[0];
            let image = image as i64;
            logits.push(output.objectness.select(0, image).index_select(0, &sampled));
            targets.push(labels.index_select(0, &sampled));
            if positive.size()[0] > 0 {
                let truth = gt.index_select(0, &matched.index_select(0, &positive));
                let anchors = output.anchors.index_select(0, &positive);
                deltas.push(output.deltas.select(0, image).index_select(0, &positive));
                delta_targets.push(coder::encode(&truth, &anchors, coder::RPN_WEIGHTS));
            }
        }
        let objectness =
            losses::binary_cross_entropy_mean(&Tensor::cat(&logits, 0), &Tensor::cat(&targets, 0));
        let box_reg = if deltas.is_empty() {
            // Keeps the graph whole: gradients of zero rather than none.
            output.deltas.sum(Kind::Float) * 0.
        } else {
            losses::smooth_l1_sum(&Tensor::cat(&deltas, 0), &Tensor::cat(&delta_targets, 0))
                / used.max(1) as f64
        };
        (objectness, box_reg)
    }
}
