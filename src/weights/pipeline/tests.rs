//! What a file says, what follows where it is silent, and what is refused.

use super::*;

/// As short as a file can be.
const SHORT: &str = "model { faster_rcnn {
num_classes: 90
image_resizer { fixed_shape_resizer { } }
feature_extractor { type: 'faster_rcnn_nas' }
first_stage_anchor_generator { grid_anchor_generator { scales: 1 aspect_ratios: [0.5, 2] } }
initial_crop_size: 17
maxpool_kernel_size: 1
maxpool_stride: 1
second_stage_post_processing { score_converter: SOFTMAX }
} }
train_config { batch_size: 1 anything { goes: 'here' } }";

#[test]
fn a_short_file_gets_the_defaults_of_the_api() {
    let expected = PipelineConfig {
        num_classes: 90,
        image_resizer: ImageResizer::FixedShape { height: 300, width: 300 },
        first_stage_anchor_generator: GridAnchorGenerator {
            scales: vec![1.],
            aspect_ratios: vec![0.5, 2.],
            base: 256,
        },
        first_stage_box_predictor_depth: 512,
        first_stage_minibatch_size: 256,
        first_stage_positive_balance_fraction: 0.5,
        first_stage_nms_iou_threshold: 0.7,
        first_stage_max_proposals: 300,
        first_stage_localization_loss_weight: 1.,
        first_stage_objectness_loss_weight: 1.,
        initial_crop_size: 17,
        second_stage_batch_size: 64,
        second_stage_balance_fraction: 0.25,
        second_stage_post_processing: PostProcessing {
            score_threshold: 0.,
            iou_threshold: 0.6,
            max_detections_per_class: 100,
            max_total_detections: 100,
        },
        second_stage_localization_loss_weight: 1.,
        second_stage_classification_loss_weight: 1.,
    };
    assert_eq!(PipelineConfig::parse(SHORT), Ok(expected));
}

#[test]
fn every_setting_is_read() {
    let more = "
first_stage_box_predictor_depth: 11
first_stage_minibatch_size: 12
first_stage_positive_balance_fraction: 0.13
first_stage_nms_iou_threshold: 0.15
first_stage_max_proposals: 16
first_stage_localization_loss_weight: 17
first_stage_objectness_loss_weight: 18
second_stage_batch_size: 19
second_stage_balance_fraction: 0.2
second_stage_localization_loss_weight: 2.1
second_stage_classification_loss_weight: 2.2
second_stage_classification_loss { weighted_softmax { } }
first_stage_nms_score_threshold: 0
maxpool_stride: 1
initial_crop_size: 14
maxpool_kernel_size: 1
";
    let text = SHORT
        .replace("initial_crop_size: 17\nmaxpool_kernel_size: 1\nmaxpool_stride: 1\n", more)
        .replace("fixed_shape_resizer { }", "keep_aspect_ratio_resizer { min_dimension: 500 max_dimension: 900 pad_to_max_dimension: true resize_method: BILINEAR per_channel_pad_value: [0, 0.0, 0] }")
        .replace("scales: 1", "scales: [0.25, 4] height: 31 width: 31 height_stride: 16 width_stride: 16 height_offset: 0 width_offset: 0")
        .replace("score_converter: SOFTMAX", "score_converter: SOFTMAX batch_non_max_suppression { score_threshold: 0.41 iou_threshold: 0.42 max_detections_per_class: 43 max_total_detections: 44 soft_nms_sigma: 0.0 }");
    let expected = PipelineConfig {
        num_classes: 90,
        image_resizer: ImageResizer::KeepAspectRatio {
            min_dimension: 500,
            max_dimension: 900,
            pad_to_max_dimension: true,
        },
        first_stage_anchor_generator: GridAnchorGenerator {
            scales: vec![0.25, 4.],
            aspect_ratios: vec![0.5, 2.],
            base: 31,
        },
        first_stage_box_predictor_depth: 11,
        first_stage_minibatch_size: 12,
        first_stage_positive_balance_fraction: 0.13,
        first_stage_nms_iou_threshold: 0.15,
        first_stage_max_proposals: 16,
        first_stage_localization_loss_weight: 17.,
        first_stage_objectness_loss_weight: 18.,
        initial_crop_size: 14,
        second_stage_batch_size: 19,
        second_stage_balance_fraction: 0.2,
        second_stage_post_processing: PostProcessing {
            score_threshold: 0.41,
            iou_threshold: 0.42,
            max_detections_per_class: 43,
            max_total_detections: 44,
        },
        second_stage_localization_loss_weight: 2.1,
        second_stage_classification_loss_weight: 2.2,
    };
    assert_eq!(PipelineConfig::parse(&text), Ok(expected));
}

/// A line of [`SHORT`] replaced, and what is said of it.
#[test]
fn what_would_be_another_detector_is_refused_by_key_and_line() {
    let rcnn = "model.faster_rcnn.";
    for (old, new, line, expected) in [
        ("num_classes: 90", "", 1, "num_classes is missing"),
        ("90", "0", 2, "num_classes is 0; expected a whole number from 1 to 1048576"),
        ("90", "1.5", 2, "num_classes is 1.5; expected a whole number from 1 to 1048576"),
        ("90", "90 num_classes: 3", 2, "num_classes is set twice"),
        ("90", "90 second_thoughts: 3", 2, "second_thoughts is not supported"),
        ("90", "90 hard_example_miner { }", 2, "hard_example_miner is not supported"),
        (
            "90",
            "90 number_of_stages: 1",
            2,
            "number_of_stages is 1, which is not supported; expected 2",
        ),
        (
            "90",
            "90 first_stage_atrous_rate: 2",
            2,
            "first_stage_atrous_rate is 2, which is not supported; expected 1",
        ),
        (
            "90",
            "90 clip_anchors_to_image: true",
            2,
            "clip_anchors_to_image is true, which is not supported; expected false",
        ),
        (
            "90",
            "90 first_stage_nms_iou_threshold: 1.5",
            2,
            "first_stage_nms_iou_threshold is 1.5; expected 0 to 1",
        ),
        (
            "90",
            "90 first_stage_nms_iou_threshold: nan",
            2,
            "first_stage_nms_iou_threshold is nan, no number",
        ),
        (
            "90",
            "90 first_stage_localization_loss_weight: -1",
            2,
            "first_stage_localization_loss_weight is -1; expected 0 to 1000000",
        ),
        (
            "90",
            "90 second_stage_box_predictor { rfcn_box_predictor { } }",
            2,
            "second_stage_box_predictor.rfcn_box_predictor is not supported; expected mask_rcnn_box_predictor",
        ),
        (
            "90",
            "90 second_stage_box_predictor { mask_rcnn_box_predictor { use_dropout: true } }",
            2,
            "second_stage_box_predictor.mask_rcnn_box_predictor.use_dropout is true, which is not supported; expected false",
        ),
        (
            "90",
            "90 second_stage_classification_loss { weighted_sigmoid { } }",
            2,
            "second_stage_classification_loss.weighted_sigmoid is not supported; expected weighted_softmax",
        ),
        ("{ fixed_shape_resizer { } }", ": 3", 3, "image_resizer is no message in {}"),
        (
            "fixed_shape_resizer { }",
            "",
            3,
            "image_resizer has none of fixed_shape_resizer and keep_aspect_ratio_resizer",
        ),
        (
            "fixed_shape_resizer { }",
            "fixed_shape_resizer { } keep_aspect_ratio_resizer { }",
            3,
            "image_resizer has both of fixed_shape_resizer and keep_aspect_ratio_resizer",
        ),
        (
            "fixed_shape_resizer",
            "identity_resizer",
            3,
            "image_resizer.identity_resizer is not supported",
        ),
        (
            "resizer { }",
            "resizer { resize_method: BICUBIC }",
            3,
            "image_resizer.fixed_shape_resizer.resize_method is BICUBIC, which is not supported; expected BILINEAR",
        ),
        (
            "resizer { }",
            "resizer { convert_to_grayscale: true }",
            3,
            "image_resizer.fixed_shape_resizer.convert_to_grayscale is true, which is not supported; expected false",
        ),
        (
            "fixed_shape_resizer { }",
            "keep_aspect_ratio_resizer { per_channel_pad_value: 123.5 }",
            3,
            "image_resizer.keep_aspect_ratio_resizer.per_channel_pad_value is 123.5, which is not supported; expected 0",
        ),
        (
            "'faster_rcnn_nas'",
            "'faster_rcnn_resnet50'",
            4,
            "feature_extractor.type is faster_rcnn_resnet50, which is not supported; expected 'faster_rcnn_nas'",
        ),
        ("'faster_rcnn_nas'", "faster_rcnn_nas", 4, "feature_extractor.type is no quoted text"),
        (
            "nas'",
            "nas' first_stage_features_stride: 8",
            4,
            "feature_extractor.first_stage_features_stride is 8, which is not supported; expected 16",
        ),
        (
            "nas'",
            "nas' batch_norm_trainable: true",
            4,
            "feature_extractor.batch_norm_trainable is true, which is not supported; expected false",
        ),
        (
            "scales: 1 ",
            "",
            5,
            "first_stage_anchor_generator.grid_anchor_generator.scales is missing",
        ),
        (
            "scales: 1 ",
            "scales: -1 ",
            5,
            "first_stage_anchor_generator.grid_anchor_generator.scales is -1; expected above 0",
        ),
        (
            "grid_anchor_generator",
            "ssd_anchor_generator",
            5,
            "first_stage_anchor_generator.ssd_anchor_generator is not supported; expected grid_anchor_generator",
        ),
        (
            "2]",
            "2] width: 128",
            5,
            "first_stage_anchor_generator.grid_anchor_generator.width is not the height; expected a square base",
        ),
        (
            "2]",
            "2] height_stride: 8",
            5,
            "first_stage_anchor_generator.grid_anchor_generator.height_stride is 8, which is not supported; expected 16",
        ),
        (
            "2]",
            "2] width_offset: -8",
            5,
            "first_stage_anchor_generator.grid_anchor_generator.width_offset is -8, which is not supported; expected 0",
        ),
        (
            "90",
            "90 first_stage_nms_score_threshold: 0.05",
            2,
            "first_stage_nms_score_threshold is 0.05, which is not supported; expected 0",
        ),
        ("maxpool_kernel_size: 1", "", 1, "maxpool_kernel_size is missing"),
        (
            "maxpool_stride: 1",
            "maxpool_stride: 2",
            8,
            "maxpool_stride is 2, which is not supported; expected 1",
        ),
        (
            "SOFTMAX",
            "SIGMOID",
            9,
            "second_stage_post_processing.score_converter is SIGMOID, which is not supported; expected SOFTMAX",
        ),
        (
            "score_converter: SOFTMAX",
            "",
            9,
            "second_stage_post_processing.score_converter is missing; expected SOFTMAX",
        ),
        (
            "SOFTMAX",
            "SOFTMAX batch_non_max_suppression { soft_nms_sigma: 0.5 }",
            9,
            "second_stage_post_processing.batch_non_max_suppression.soft_nms_sigma is 0.5, which is not supported; expected 0",
        ),
        (
            "SOFTMAX",
            "SOFTMAX batch_non_max_suppression { use_class_agnostic_nms: true }",
            9,
            "second_stage_post_processing.batch_non_max_suppression.use_class_agnostic_nms is true, which is not supported; expected false",
        ),
        (
            "SOFTMAX",
            "SOFTMAX calibration_config { }",
            9,
            "second_stage_post_processing.calibration_config is not supported",
        ),
    ] {
        assert!(SHORT.contains(old), "{old}");
        let found = PipelineConfig::parse(&SHORT.replacen(old, new, 1));
        assert_eq!(found, Err((line, format!("{rcnn}{expected}"))), "{new}");
    }
    let ssd = PipelineConfig::parse("model {\n ssd { } }").unwrap_err();
    assert_eq!(ssd, (2, "model.ssd is not supported; expected faster_rcnn".into()));
    let none = PipelineConfig::parse("# nothing").unwrap_err();
    assert_eq!(none, (1, "model is missing".into()));
}

#[test]
fn a_file_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipeline.config");
    std::fs::write(&path, SHORT.replace("90", "x")).unwrap();
    let error = PipelineConfig::read(&path).unwrap_err().to_string();
    let expected = "pipeline.config is not a valid pipeline.config file (line 2: model.faster_rcnn.num_classes is x; expected a whole number";
    assert!(error.contains(expected), "{error}");
    std::fs::write(&path, "a: 'x").unwrap();
    let error = PipelineConfig::read(&path).unwrap_err().to_string();
    assert!(error.ends_with("(line 1: a text does not end)"), "{error}");
    std::fs::write(&path, vec![b' '; 2 << 20]).unwrap();
    let error = PipelineConfig::read(&path).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
}
