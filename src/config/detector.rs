//! The sections that say what the network is: they travel with the weights.

use serde::{Deserialize, Serialize};

use crate::nasnet::notation::OwnCells;
use crate::nasnet::{BackboneName, Cells, Family, Plan, PlanError, Wiring};

/// The featurizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backbone {
    /// Such as `nasnet-a-6@4032`.
    pub name: BackboneName,
    /// Which second input follows a reduction.
    pub wiring: Wiring,
    /// Filters of the stem convolution (published: 96 for 6@4032, else 32).
    pub stem_filters: usize,
    /// How stride-2 average pools treat padding.
    pub pooling: Pooling,
    /// Batch norm's epsilon (1e-3 as published).
    pub norm_eps: f64,
    /// Share of the batch's statistics in the running ones at each step (published: 0.0003).
    pub norm_momentum: f64,
    /// What batch norm does during detector training, before the second reduction.
    pub norm: NormMode,
    /// The same from the second reduction on: the part that is a detector's tail.
    pub tail_norm: NormMode,
    /// Scheduled drop path: probability of keeping a path in the last cell at the end of training; 1 is off.
    pub drop_path_keep: f64,
    /// The cells of `nasnet-own-N@F`; absent for NASNet-A.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genotype: Option<OwnCells>,
}

impl Backbone {
    /// Whether processes that share a step wait for each other in batch norms.
    pub fn synchronised(&self) -> bool {
        [self.norm, self.tail_norm].contains(&NormMode::Synchronised)
    }

    /// The stack of cells that this section describes.
    ///
    /// # Panics
    /// If [`Self::check`] refuses it: sections of a checked configuration are not.
    pub fn plan(&self) -> Plan {
        self.check().expect("the configuration was checked")
    }

    /// The stack of cells, or why there is none.
    pub fn check(&self) -> Result<Plan, PlanError> {
        let cells = match (&self.genotype, self.name.family) {
            (Some(own), Family::Own) => &own.0,
            (None, Family::A) => &Cells::A,
            (None, Family::Own) => {
                let reason = "its cells are missing: they stand in backbone.genotype, or in the file given to --backbone";
                return Err(PlanError::new(self.name, reason));
            }
            (Some(_), Family::A) => {
                let reason =
                    "has NASNet-A's cells; with a backbone.genotype it is called nasnet-own-N@F";
                return Err(PlanError::new(self.name, reason));
            }
        };
        Plan::new(self.name, self.wiring, self.stem_filters, cells)
    }
}

/// How stride-2 average pools treat the pixels beyond the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// TensorFlow: they do not count.
    Tf,
    /// timm: they count as zeros.
    Timm,
}

/// Batch norm during detector training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormMode {
    /// Normalises by its running statistics; gamma and beta do not learn either. For fine-tuning.
    Frozen,
    /// Normalises by its running statistics, which stay; gamma and beta learn.
    Affine,
    /// Normalises by the batch and learns.
    Live,
    /// The same; where several processes share a step, by the batches that they take at the same time as one. Slower
    /// than [`Self::Live`].
    Synchronised,
}

/// How the detector is put together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorSection {
    /// Whose rules apply for anchors, matching, sampling, losses and selection.
    pub rules: Rules,
    /// Where the network is cut.
    pub cut: Cut,
    /// What runs on each region.
    pub head: Head,
    /// Width of both layers of the `mlp` head; unused by `tail`.
    pub mlp_width: usize,
    /// How a region is cut out of the map.
    pub crop: Crop,
    /// Side of a crop in cells.
    pub crop_size: usize,
    /// Samples along each side of a bin of `roi_align`; 0 takes as many as the bin has cells.
    pub sampling_ratio: usize,
}

/// A family of detector rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rules {
    /// torchvision's Faster R-CNN.
    Torchvision,
    /// TensorFlow Object Detection API's, of the published NASNet detectors.
    Tf,
}

impl Rules {
    /// Objectness logits of an anchor: one for a sigmoid, or background and object for a softmax.
    pub const fn objectness(self) -> usize {
        match self {
            Self::Torchvision => 1,
            Self::Tf => 2,
        }
    }

    /// Whether the background has four columns among the boxes of a region.
    pub const fn background_box(self) -> bool {
        matches!(self, Self::Torchvision)
    }
}

/// Where the network is cut into a part that sees the image and a part that sees regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// The last two cells of stride 16, joined, before their ReLU: what the tail needs.
    Pair,
    /// The last cell of stride 16 alone, after ReLU.
    Last,
}

/// What runs on each region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// The rest of NASNet, from the second reduction on, then a global average.
    Tail,
    /// Two fully connected layers.
    Mlp,
}

/// How a region is cut out of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// torchvision's RoIAlign, `aligned = False`.
    RoiAlign,
    /// TensorFlow's crop and resize.
    CropAndResize,
}

/// Anchor boxes: every size with every ratio at each cell of the stride-16 map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchors {
    /// Square root of the area, in input pixels.
    pub sizes: Vec<f32>,
    /// Height over width.
    pub ratios: Vec<f32>,
}

impl Anchors {
    /// Anchors at each cell.
    pub fn per_cell(&self) -> usize {
        self.sizes.len() * self.ratios.len()
    }
}

/// Region proposal network. The defaults of torchvision stand in brackets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rpn {
    /// Channels of its 3x3 convolution; 0 takes as many as the map has (0).
    pub channels: usize,
    /// IoU from which an anchor is positive (0.7).
    pub positive_iou: f64,
    /// IoU under which it is negative (0.3); between the two it is not used.
    pub negative_iou: f64,
    /// Anchors that are sampled an image for the loss (256).
    pub sampled: usize,
    /// At most this share of them positive (0.5).
    pub positive_fraction: f64,
    /// Proposals kept by score before NMS in training (2000); 0 keeps all.
    pub pre_nms_train: usize,
    /// Proposals kept after NMS in training (2000).
    pub post_nms_train: usize,
    /// Before NMS in evaluation (1000); 0 keeps all.
    pub pre_nms_eval: usize,
    /// After NMS in evaluation (1000).
    pub post_nms_eval: usize,
    /// Proposals that overlap a better one by more are dropped (0.7).
    pub nms_iou: f64,
}

/// Region heads. The defaults of torchvision stand in brackets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roi {
    /// IoU from which a region is an object (0.5).
    pub positive_iou: f64,
    /// Regions that are sampled an image for the loss (512).
    pub sampled: usize,
    /// At most this share of them objects (0.25).
    pub positive_fraction: f64,
    /// Detections need a higher score (0.05). `detect IMAGE --score` filters further.
    pub score_floor: f64,
    /// Detections of one class that overlap a better one by more are dropped (0.5).
    pub nms_iou: f64,
    /// Detections of one class an image; 0 is no limit (0).
    pub max_per_class: usize,
    /// Detections an image, over all classes (100).
    pub max_detections: usize,
}
