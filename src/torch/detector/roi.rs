//! Region heads: crops of the map, a vector for each, its class and its box.

use detect::config::{self, DetectorSection, Head};
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::assign::{BELOW, BETWEEN, Matching, match_regions, sample};
use super::crop::RoiAlign;
use super::{boxes, coder, losses};
use crate::backbone::{Backbone, CutSpec};
use crate::nn::{Init, Linear, Mode};

/// What turns a crop into a vector.
#[derive(Debug)]
enum BoxHead {
    /// The rest of the featurizer.
    Tail,
    /// Two fully connected layers with ReLU.
    Mlp { fc6: Linear, fc7: Linear },
}

/// The heads and their rules.
#[derive(Debug)]
pub struct RoiHead {
    crop: RoiAlign,
    box_head: BoxHead,
    cls_score: Linear,
    bbox_pred: Linear,
    settings: config::Roi,
}

/// What the heads say of regions, all images in one list.
#[derive(Debug)]
pub struct RoiOutput {
    /// `[R, K + 1]`, background first.
    pub class_logits: Tensor,
    /// `[R, 4 (K + 1)]`, class-major.
    pub box_regression: Tensor,
}

/// Regions of one image that were sampled for the loss.
#[derive(Debug)]
pub struct Sampled {
    /// Indices into the proposals followed by the ground truths, rising: `[S]`.
    pub indices: Tensor,
    /// `[S, 4]`.
    pub boxes: Tensor,
    /// 0 is background: `[S]`.
    pub labels: Tensor,
    /// Deltas to the matched ground truth; meaningless for background: `[S, 4]`.
    pub targets: Tensor,
}

impl RoiHead {
    /// Makes `path.box_head.*` and `path.box_predictor.*` for `classes` classes.
    pub fn new(
        path: &Path,
        settings: &config::Roi,
        detector: &DetectorSection,
        spec: CutSpec,
        classes: usize,
    ) -> Self {
        let bins = detector.crop_size as i64;
        let (box_head, width) = match detector.head {
            Head::Tail => (BoxHead::Tail, spec.tail_channels),
            Head::Mlp => {
                let width = detector.mlp_width as i64;
                let inputs = spec.channels * bins * bins;
                let path = path / "box_head";
                let init = Init::PytorchDefault;
                let fc6 = Linear::new(&(&path / "fc6"), &[width, inputs], init);
                let fc7 = Linear::new(&(&path / "fc7"), &[width, width], init);
                (BoxHead::Mlp { fc6, fc7 }, width)
            }
        };
        let outputs = classes as i64 + 1;
        let path = path / "box_predictor";
        let layer = |name: &str, outputs: i64| {
            Linear::new(&(&path / name), &[outputs, width], Init::PytorchDefault)
        };
        Self {
            crop: RoiAlign {
                bins: [bins, bins],
                scale: 1. / spec.stride as f64,
                sampling_ratio: detector.sampling_ratio as i64,
                aligned: false,
            },
            box_head,
            cls_score: layer("cls_score", outputs),
            bbox_pred: layer("bbox_pred", 4 * outputs),
            settings: settings.clone(),
        }
    }

    /// The rules.
    pub fn settings(&self) -> &config::Roi {
        &self.settings
    }

    /// Crops of each image's regions: `[R, C, k, k]`.
    pub fn crops(&self, map: &Tensor, regions: &[Tensor]) -> Tensor {
        self.crop.crops(map, regions)
    }

    /// A vector for each crop: `[R, C, k, k]` to `[R, D]`.
    pub fn vectors(&self, backbone: &impl Backbone, crops: &Tensor, mode: Mode) -> Tensor {
        match &self.box_head {
            BoxHead::Tail => backbone.tail(crops, mode),
            BoxHead::Mlp { fc6, fc7 } => {
                // The published weight counts inputs as C, k, k. The crops have C innermost in memory, and
                // moving the weight's columns is much less work than moving every crop.
                let size = crops.size();
                let (c, k) = (size[1], size[2]);
                let weight = fc6.weight.reshape([-1, c, k, k]).permute([0, 2, 3, 1]).flatten(1, 3);
                let flat = crops.permute([0, 2, 3, 1]).flatten(1, 3); // [R, k k C]
                let hidden = flat.linear(&weight, Some(&fc6.bias)).relu();
                fc7.forward(&hidden).relu()
            }
        }
    }

    /// Class logits and deltas of vectors `[R, D]`.
    pub fn classify(&self, vectors: &Tensor) -> RoiOutput {
        RoiOutput {
            class_logits: self.cls_score.forward(vectors),
            box_regression: self.bbox_pred.forward(vectors),
        }
    }

    /// From the map to class logits and deltas of each image's regions.
    pub fn predict(
        &self,
        backbone: &impl Backbone,
        map: &Tensor,
        regions: &[Tensor],
        mode: Mode,
    ) -> RoiOutput {
        let crops = self.crops(map, regions);
        if crops.size()[0] == 0 {
            // No region in the whole batch: batch norm and reshapes refuse empty inputs.
            let empty = |layer: &Linear| {
                crops.new_zeros([0, layer.bias.size()[0]], (crops.kind(), crops.device()))
            };
            return RoiOutput {
                class_logits: empty(&self.cls_score),
                box_regression: empty(&self.bbox_pred),
            };
        }
        self.classify(&self.vectors(backbone, &crops, mode))
    }

    /// For each region `[R, 4]` its class `[R]` (0 background, -1 unused) and the index of its ground
    /// truth `[R]`.
    pub fn assign(
        &self,
        regions: &Tensor,
        gt_boxes: &Tensor,
        gt_labels: &Tensor,
    ) -> (Tensor, Tensor) {
        let none = || Tensor::zeros([regions.size()[0]], (Kind::Int64, regions.device()));
        if gt_boxes.size()[0] == 0 {
            return (none(), none());
        }
        let threshold = self.settings.positive_iou;
        let matching = Matching { positive: threshold, negative: threshold, rescue_best: false };
        let matches = match_regions(&boxes::iou(gt_boxes, regions), matching);
        let ground_truth = matches.clamp_min(0);
        let labels = gt_labels
            .index_select(0, &ground_truth)
            .masked_fill(&matches.eq(BELOW), 0)
            .masked_fill(&matches.eq(BETWEEN), -1);
        (labels, ground_truth)
    }

    /// Draws the regions of each image that learn, from its proposals and its ground truths.
    pub fn sample(
        &self,
        proposals: &[Tensor],
        gt_boxes: &[Tensor],
        gt_labels: &[Tensor],
    ) -> Vec<Sampled> {
        let one = |((proposals, gt_boxes), gt_labels): ((&Tensor, &Tensor), &Tensor)| {
            let regions = Tensor::cat(&[proposals, gt_boxes], 0);
            let (labels, matched) = self.assign(&regions, gt_boxes, gt_labels);
            let (positive, negative) =
                sample(&labels, self.settings.sampled, self.settings.positive_fraction);
            let indices = Tensor::cat(&[&positive, &negative], 0).sort(0, false).0;
            let boxes = regions.index_select(0, &indices);
            let targets = if gt_boxes.size()[0] == 0 {
                boxes.zeros_like()
            } else {
                let truth = gt_boxes.index_select(0, &matched.index_select(0, &indices));
                coder::encode(&truth, &boxes, coder::ROI_WEIGHTS)
            };
            Sampled { labels: labels.index_select(0, &indices), indices, boxes, targets }
        };
        tch::no_grad(|| proposals.iter().zip(gt_boxes).zip(gt_labels).map(one).collect())
    }
}

/// Losses of the classes and of the boxes over all sampled regions of the batch.
pub fn losses(output: &RoiOutput, sampled: &[Sampled]) -> (Tensor, Tensor) {
    let join =
        |f: fn(&Sampled) -> &Tensor| Tensor::cat(&sampled.iter().map(f).collect::<Vec<_>>(), 0);
    let (labels, targets) = (join(|s| &s.labels), join(|s| &s.targets));
    let count = labels.size()[0];
    let classifier = losses::cross_entropy_mean(&output.class_logits, &labels);
    let positive = labels.gt(0).nonzero().squeeze_dim(1); // [P]
    let deltas = output.box_regression.reshape([count, -1, 4]); // [R, K + 1, 4]
    // The four columns of each object's own class.
    let class = labels.index_select(0, &positive).reshape([-1, 1, 1]).expand([-1, 1, 4], false);
    let deltas = deltas.index_select(0, &positive).gather(1, &class, false).squeeze_dim(1); // [P, 4]
    let targets = targets.index_select(0, &positive);
    let box_reg = losses::smooth_l1_sum(&deltas, &targets) / count.max(1) as f64;
    (classifier, box_reg)
}
