//! The published detector `faster_rcnn_nas` of TensorFlow's Object Detection API.
//!
//! Its featurizer has TF-slim's names in two scopes, before and after the crop. Boxes there are
//! `(y, x, height, width)`: the rows of both box predictors are put into our order here, once.

use std::collections::BTreeMap;
use std::path::Path;

use super::heads::{self, HeadTensor};
use super::wanted::{Rows, Sides, Wanted};
use super::{Settings, tf_slim};
use crate::config::{Config, Resize};
use crate::nasnet::layers::Leaf;
use crate::nasnet::{BackboneName, Form};
use crate::weights::classifier::MOST_CLASSES;
use crate::weights::pipeline::{ImageResizer, PipelineConfig};
use crate::weights::{TensorInfo, WeightsError};

/// The scope of the cells that see the image.
pub const FIRST_STAGE: &str = "FirstStageFeatureExtractor/";
/// The scope of the cells that see a region.
const SECOND_STAGE: &str = "SecondStageFeatureExtractor/";

/// What the names and shapes of a file say of the detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    name: BackboneName,
    stem_filters: usize,
    /// Without background.
    pub classes: usize,
    rpn_channels: usize,
    anchors: usize,
}

impl Found {
    /// Reads names and shapes.
    pub fn read(tensors: &BTreeMap<String, TensorInfo>, path: &Path) -> Result<Self, WeightsError> {
        let error = |reason: &str| WeightsError::NotAModel {
            path: path.into(),
            reason: format!("is no faster_rcnn_nas detector: {reason}"),
        };
        let side = |name: &str, side: usize| {
            let shape = tensors.get(name).map(|tensor| tensor.shape.as_slice());
            let found = shape.and_then(|shape| shape.get(side).copied());
            found.ok_or_else(|| error(&format!("there is no {name}")))
        };
        let stem_filters = side("FirstStageFeatureExtractor/conv0/weights", 3)?;
        let channels = side("SecondStageBoxPredictor/ClassPredictor/weights", 0)?;
        let outputs = side("SecondStageBoxPredictor/ClassPredictor/weights", 1)?;
        let rpn_channels = side("Conv/weights", 3)?;
        let anchors = side("FirstStageBoxPredictor/ClassPredictor/weights", 3)? / 2;
        let cells = tf_slim::normal_cells(tensors.keys().map(String::as_str), FIRST_STAGE);
        if cells == 0 || !cells.is_multiple_of(2) {
            return Err(error(&format!(
                "{cells} normal cells before the crop are not two equal stages"
            )));
        }
        let name = BackboneName::a(cells / 2, channels, Form::ImageNet);
        name.to_string().parse::<BackboneName>().map_err(|e| error(&e.to_string()))?;
        let classes = outputs.checked_sub(1).filter(|n| (1..=MOST_CLASSES).contains(n));
        let classes = classes.ok_or_else(|| {
            error(&format!(
                "its classifier has {outputs} outputs; expected 2 to {}",
                MOST_CLASSES + 1
            ))
        })?;
        Ok(Self { name, stem_filters, classes, rpn_channels, anchors })
    }

    /// The whole configuration: the recipe of the published detector, with what the file says, then
    /// what `pipeline.config` says, then what the user says.
    pub fn config(&self, settings: &Settings, path: &Path) -> Result<Config, WeightsError> {
        let error = |reason: String| WeightsError::NotAModel { path: path.into(), reason };
        let mut config =
            Config::recipe("nasnet_large_coco", &[]).expect("the shipped recipes are checked");
        config.name = "faster_rcnn_nas".into();
        let section = super::section(self.name, self.stem_filters, settings, false);
        config.backbone.name = section.name;
        config.backbone.stem_filters = section.stem_filters;
        config.backbone.wiring = section.wiring;
        config.backbone.pooling = section.pooling;
        config.rpn.channels = self.rpn_channels;
        if let Some(pipeline) = &settings.pipeline {
            if pipeline.num_classes != self.classes {
                return Err(error(format!(
                    "has {} classes, but pipeline.config says {}",
                    self.classes, pipeline.num_classes
                )));
            }
            apply(pipeline, &mut config);
        }
        if let Some(to) = settings.image_size {
            config.input.resize = config.input.resize.at(to);
        }
        if let Some(proposals) = settings.proposals {
            config.rpn.post_nms_eval = proposals;
            config.rpn.post_nms_train = proposals;
        }
        if let Some(score) = settings.score {
            config.roi.score_floor = score;
        }
        if config.anchors.per_cell() != self.anchors {
            return Err(error(format!(
                "predicts {} anchors at each cell, but the settings say {}; put its pipeline.config beside it",
                self.anchors,
                config.anchors.per_cell()
            )));
        }
        config.check().map_err(|e| error(format!("can't be run with its settings: {e}")))?;
        Ok(config)
    }
}

/// What `pipeline.config` says.
fn apply(pipeline: &PipelineConfig, config: &mut Config) {
    config.input.resize = match pipeline.image_resizer {
        ImageResizer::FixedShape { height, width } => Resize::Fixed { height, width },
        ImageResizer::KeepAspectRatio {
            min_dimension,
            max_dimension,
            pad_to_max_dimension: pad,
            ..
        } => Resize::KeepAspect { min_dimension, max_dimension, pad },
    };
    let anchors = &pipeline.first_stage_anchor_generator;
    // Scales are of the base anchor's side; aspect ratios are width over height.
    config.anchors.sizes =
        anchors.scales.iter().map(|s| (*s * anchors.base as f64) as f32).collect();
    config.anchors.ratios = anchors.aspect_ratios.iter().map(|a| (1. / a) as f32).collect();
    config.rpn.channels = pipeline.first_stage_box_predictor_depth;
    config.rpn.sampled = pipeline.first_stage_minibatch_size;
    config.rpn.positive_fraction = pipeline.first_stage_positive_balance_fraction;
    config.rpn.nms_iou = pipeline.first_stage_nms_iou_threshold;
    config.rpn.post_nms_train = pipeline.first_stage_max_proposals;
    config.rpn.post_nms_eval = pipeline.first_stage_max_proposals;
    config.roi.sampled = pipeline.second_stage_batch_size;
    config.roi.positive_fraction = pipeline.second_stage_balance_fraction;
    config.detector.crop_size = pipeline.initial_crop_size;
    let post = &pipeline.second_stage_post_processing;
    config.roi.score_floor = post.score_threshold;
    config.roi.nms_iou = post.iou_threshold;
    config.roi.max_per_class = post.max_detections_per_class;
    config.roi.max_detections = post.max_total_detections;
    let weights = &mut config.train.loss_weights;
    weights.rpn_box = pipeline.first_stage_localization_loss_weight;
    weights.objectness = pipeline.first_stage_objectness_loss_weight;
    weights.box_ = pipeline.second_stage_localization_loss_weight;
    weights.class = pipeline.second_stage_classification_loss_weight;
}

/// What to take, for a configuration of [`Found::config`].
pub fn wanted(config: &Config, classes: usize) -> Vec<Wanted> {
    let plan = config.backbone.plan();
    let [_, last] = plan.stride_16().expect("configurations of detectors are checked for it");
    let featurizer = plan.tensors().map(|tensor| {
        let tail = tensor.site.is_some_and(|site| site.number >= last.0);
        let scope = if tail { SECOND_STAGE } else { FIRST_STAGE };
        Wanted {
            name: format!("backbone.{}", tensor.name()),
            from: scope.to_owned() + &tf_slim::name_of(&tensor, Form::ImageNet),
            sides: Sides::of_tf(tensor.leaf, tensor.shape.len()),
            rows: None,
            shape: tensor.shape,
        }
    });
    let heads = heads::tensors(config, classes).into_iter().map(|HeadTensor { name, shape }| {
        let (layer, leaf) = name.rsplit_once('.').expect("head tensors have dotted names");
        let scope = match layer {
            "rpn.head.conv.0.0" => "Conv",
            "rpn.head.cls_logits" => "FirstStageBoxPredictor/ClassPredictor",
            "rpn.head.bbox_pred" => "FirstStageBoxPredictor/BoxEncodingPredictor",
            "roi_heads.box_predictor.cls_score" => "SecondStageBoxPredictor/ClassPredictor",
            _ => "SecondStageBoxPredictor/BoxEncodingPredictor",
        };
        let (leaf, their_leaf) = match leaf {
            "weight" => (Leaf::Weight, "weights"),
            _ => (Leaf::Bias, "biases"),
        };
        Wanted {
            from: format!("{scope}/{their_leaf}"),
            sides: Sides::of_tf(leaf, shape.len()),
            rows: layer.ends_with("bbox_pred").then(|| in_our_order(shape[0])),
            name,
            shape,
        }
    });
    featurizer.chain(heads).collect()
}

/// `(ty, tx, th, tw)` of each box as `(tx, ty, tw, th)`.
fn in_our_order(rows: usize) -> Rows {
    let picked = (0..rows).map(|row| row / 4 * 4 + [1, 0, 3, 2][row % 4]).collect();
    Rows { of: rows, picked }
}
