//! `pipeline.config`, the settings that lie beside a detector of TensorFlow's Object Detection API.
//!
//! Read is what a `faster_rcnn_nas` detector follows from, with the defaults of the API where the file is
//! silent. What would make another detector of it is an error; how it is fed and optimised is not read.

mod section;

use std::path::Path;

use super::WeightsError;
use super::text_format::{self, Message, Value};
use section::{Fault, Section, number, shown};

/// How errors call the file.
const FORMAT: &str = "pipeline.config";
/// The settings of a `faster_rcnn_nas` detector. Fields are named as in the file; default in brackets,
/// where the API has one.
///
/// Fractions are as they are written; TensorFlow holds them as `f32`.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineConfig {
    /// Classes without background.
    pub num_classes: usize,
    /// How an image gets the network's size.
    pub image_resizer: ImageResizer,
    /// Anchors.
    pub first_stage_anchor_generator: GridAnchorGenerator,
    /// Filters of the RPN's 3x3 convolution (512).
    pub first_stage_box_predictor_depth: usize,
    /// Anchors that are sampled of an image (256).
    pub first_stage_minibatch_size: usize,
    /// Largest share of positives among them (0.5).
    pub first_stage_positive_balance_fraction: f64,
    /// IoU from which the worse of two proposals is dropped (0.7).
    pub first_stage_nms_iou_threshold: f64,
    /// Proposals of an image (300).
    pub first_stage_max_proposals: usize,
    /// Weight of the RPN's box loss (1).
    pub first_stage_localization_loss_weight: f64,
    /// Weight of the RPN's score loss (1).
    pub first_stage_objectness_loss_weight: f64,
    /// Side of a crop in samples; no pool follows.
    pub initial_crop_size: usize,
    /// Proposals that are sampled of an image (64).
    pub second_stage_batch_size: usize,
    /// Largest share of positives among them (0.25).
    pub second_stage_balance_fraction: f64,
    /// How detections are chosen.
    pub second_stage_post_processing: PostProcessing,
    /// Weight of the box loss (1).
    pub second_stage_localization_loss_weight: f64,
    /// Weight of the class loss (1).
    pub second_stage_classification_loss_weight: f64,
}

/// How an image gets the network's size; always bilinear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageResizer {
    /// To this size, whatever its form.
    FixedShape {
        /// In pixels (300).
        height: usize,
        /// In pixels (300).
        width: usize,
    },
    /// So that it keeps its form.
    KeepAspectRatio {
        /// Shorter side in pixels (600), unless the longer would pass its own limit.
        min_dimension: usize,
        /// Most for the longer side (1024).
        max_dimension: usize,
        /// Whether it is filled up with black to a square of `max_dimension` (no).
        pad_to_max_dimension: bool,
    },
}

/// Anchors: every scale with every aspect ratio around `(16 column, 16 row)` of each cell. In pixels of
/// the network's input.
#[derive(Debug, Clone, PartialEq)]
pub struct GridAnchorGenerator {
    /// Sides as parts of the base's.
    pub scales: Vec<f64>,
    /// Width over height.
    pub aspect_ratios: Vec<f64>,
    /// Side of the base, which is square (256).
    pub base: usize,
}

/// How detections are chosen; scores are softmax's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PostProcessing {
    /// Detections have a higher score (0).
    pub score_threshold: f64,
    /// IoU from which the worse of two detections of a class is dropped (0.6).
    pub iou_threshold: f64,
    /// Most of a class (100).
    pub max_detections_per_class: usize,
    /// Most of an image (100).
    pub max_total_detections: usize,
}

impl PipelineConfig {
    /// Reads a file. An error names key and line.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let tree = text_format::read(path, FORMAT)?;
        Self::from_tree(&tree).map_err(|(line, reason)| WeightsError::Broken {
            path: path.into(),
            format: FORMAT,
            reason: format!("line {line}: {reason}"),
        })
    }

    /// Reads a text; an error has its line.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        Self::from_tree(&text_format::parse(text)?)
    }

    fn from_tree(tree: &Message) -> Result<Self, Fault> {
        // What else stands in the file says how the detector was trained and evaluated.
        let mut model = Section::root(tree).inner("model")?;
        let mut rcnn = model.inner("faster_rcnn")?;
        model.finish(&[])?;
        rcnn.is("number_of_stages", 2.)?;
        rcnn.is("first_stage_atrous_rate", 1.)?;
        rcnn.is("first_stage_box_predictor_kernel_size", 3.)?;
        rcnn.is_not("clip_anchors_to_image")?;
        // Proposals are kept whatever their score, and no pool follows the crop.
        rcnn.is("first_stage_nms_score_threshold", 0.)?;
        for key in ["maxpool_kernel_size", "maxpool_stride"] {
            rcnn.is(key, 1.)?;
            rcnn.required(key)?;
        }
        feature_extractor(&mut rcnn)?;
        box_predictor(&mut rcnn)?;
        if let Some(mut loss) = rcnn.optional("second_stage_classification_loss")? {
            let mut softmax = loss.inner("weighted_softmax")?;
            loss.finish(&[])?;
            softmax.is("logit_scale", 1.)?;
            softmax.finish(&["anchorwise_output"])?;
        }
        let config = Self {
            num_classes: rcnn.count("num_classes", None)?,
            image_resizer: image_resizer(&mut rcnn)?,
            first_stage_anchor_generator: anchors(&mut rcnn)?,
            first_stage_box_predictor_depth: rcnn
                .count("first_stage_box_predictor_depth", Some(512))?,
            first_stage_minibatch_size: rcnn.count("first_stage_minibatch_size", Some(256))?,
            first_stage_positive_balance_fraction: rcnn
                .share("first_stage_positive_balance_fraction", 0.5)?,
            first_stage_nms_iou_threshold: rcnn.share("first_stage_nms_iou_threshold", 0.7)?,
            first_stage_max_proposals: rcnn.count("first_stage_max_proposals", Some(300))?,
            first_stage_localization_loss_weight: rcnn
                .weight("first_stage_localization_loss_weight")?,
            first_stage_objectness_loss_weight: rcnn
                .weight("first_stage_objectness_loss_weight")?,
            initial_crop_size: rcnn.count("initial_crop_size", None)?,
            second_stage_batch_size: rcnn.count("second_stage_batch_size", Some(64))?,
            second_stage_balance_fraction: rcnn.share("second_stage_balance_fraction", 0.25)?,
            second_stage_post_processing: post_processing(&mut rcnn)?,
            second_stage_localization_loss_weight: rcnn
                .weight("second_stage_localization_loss_weight")?,
            second_stage_classification_loss_weight: rcnn
                .weight("second_stage_classification_loss_weight")?,
        };
        // How weights start and are regularised, masks, and other ways to compute the same.
        rcnn.finish(&[
            "first_stage_box_predictor_conv_hyperparams",
            "second_stage_mask_prediction_loss_weight",
            "inplace_batchnorm_update",
            "use_matmul_crop_and_resize",
            "use_matmul_gather_in_matcher",
            "use_static_balanced_label_sampler",
            "use_static_shapes",
            "use_static_shapes_for_eval",
            "use_partitioned_nms_in_first_stage",
            "use_combined_nms_in_first_stage",
            "return_raw_detections_during_predict",
            "resize_masks",
        ])?;
        Ok(config)
    }
}

/// The featurizer follows from the weights, too.
fn feature_extractor(rcnn: &mut Section) -> Result<(), Fault> {
    let mut extractor = rcnn.inner("feature_extractor")?;
    let field = extractor.required("type")?;
    match &field.value {
        Value::Text(kind) if kind == "faster_rcnn_nas" => {}
        Value::Text(kind) => {
            return Err(extractor.unsupported(field, kind, "'faster_rcnn_nas'"));
        }
        _ => return Err((field.line, format!("{} is no quoted text", extractor.key("type")))),
    }
    extractor.is("first_stage_features_stride", 16.)?;
    extractor.is_not("batch_norm_trainable")?;
    extractor.finish(&[])
}

/// The head follows from the weights, unless it does more than boxes and classes.
fn box_predictor(rcnn: &mut Section) -> Result<(), Fault> {
    let Some(mut predictor) = rcnn.optional("second_stage_box_predictor")? else { return Ok(()) };
    let mut head = predictor.inner("mask_rcnn_box_predictor")?;
    predictor.finish(&[])?;
    head.is("box_code_size", 4.)?;
    for key in
        ["use_dropout", "predict_instance_masks", "predict_keypoints", "share_box_across_classes"]
    {
        head.is_not(key)?;
    }
    head.finish(&[
        "fc_hyperparams",
        "conv_hyperparams",
        "dropout_keep_probability",
        "mask_prediction_conv_depth",
        "mask_height",
        "mask_width",
        "mask_prediction_num_conv_layers",
        "masks_are_class_agnostic",
        "convolve_then_upsample_masks",
    ])
}

fn image_resizer(rcnn: &mut Section) -> Result<ImageResizer, Fault> {
    let mut resizer = rcnn.inner("image_resizer")?;
    let fixed = resizer.optional("fixed_shape_resizer")?;
    let keep = resizer.optional("keep_aspect_ratio_resizer")?;
    resizer.finish(&[])?;
    let (resizer, mut form) = match (fixed, keep) {
        (Some(mut fixed), None) => {
            let height = fixed.count("height", Some(300))?;
            let width = fixed.count("width", Some(300))?;
            (ImageResizer::FixedShape { height, width }, fixed)
        }
        (None, Some(mut keep)) => {
            let min_dimension = keep.count("min_dimension", Some(600))?;
            let max_dimension = keep.count("max_dimension", Some(1024))?;
            let pad_to_max_dimension = keep.flag("pad_to_max_dimension")?;
            for field in keep.all("per_channel_pad_value") {
                if number(field).is_none_or(|value| value != 0.) {
                    return Err(keep.unsupported(field, &shown(field), "0"));
                }
            }
            let resizer = ImageResizer::KeepAspectRatio {
                min_dimension,
                max_dimension,
                pad_to_max_dimension,
            };
            (resizer, keep)
        }
        (fixed, _) => {
            let count = if fixed.is_some() { "both" } else { "none" };
            let key = rcnn.key("image_resizer");
            let reason =
                format!("{key} has {count} of fixed_shape_resizer and keep_aspect_ratio_resizer");
            return Err((resizer.line, reason));
        }
    };
    form.is_not("convert_to_grayscale")?;
    form.is_named("resize_method", "BILINEAR", "0", true)?;
    form.finish(&[])?;
    Ok(resizer)
}

fn anchors(rcnn: &mut Section) -> Result<GridAnchorGenerator, Fault> {
    let mut generator = rcnn.inner("first_stage_anchor_generator")?;
    let mut grid = generator.inner("grid_anchor_generator")?;
    generator.finish(&[])?;
    let base = grid.count("height", Some(256))?;
    if grid.count("width", Some(256))? != base {
        let key = grid.key("width");
        return Err((grid.line, format!("{key} is not the height; expected a square base")));
    }
    // Cells lie where those of the map do.
    grid.is("height_stride", 16.)?;
    grid.is("width_stride", 16.)?;
    grid.is("height_offset", 0.)?;
    grid.is("width_offset", 0.)?;
    let scales = grid.positive("scales")?;
    let anchors =
        GridAnchorGenerator { scales, aspect_ratios: grid.positive("aspect_ratios")?, base };
    grid.finish(&[])?;
    Ok(anchors)
}

fn post_processing(rcnn: &mut Section) -> Result<PostProcessing, Fault> {
    // Without it scores would be logits.
    let mut section = rcnn.inner("second_stage_post_processing")?;
    section.is_named("score_converter", "SOFTMAX", "2", false)?;
    section.is("logit_scale", 1.)?;
    let empty = Message::default();
    let nms = section.optional("batch_non_max_suppression")?;
    let mut nms = nms.unwrap_or_else(|| Section::root(&empty));
    section.finish(&[])?;
    let chosen = PostProcessing {
        score_threshold: nms.share("score_threshold", 0.)?,
        iou_threshold: nms.share("iou_threshold", 0.6)?,
        max_detections_per_class: nms.count("max_detections_per_class", Some(100))?,
        max_total_detections: nms.count("max_total_detections", Some(100))?,
    };
    nms.is("soft_nms_sigma", 0.)?;
    for key in ["use_class_agnostic_nms", "use_combined_nms", "combined_nms", "use_partitioned_nms"]
    {
        nms.is_not(key)?;
    }
    nms.finish(&["use_static_shapes", "max_classes_per_detection", "use_cpu_nms", "use_hard_nms"])?;
    Ok(chosen)
}

#[cfg(test)]
mod tests;
