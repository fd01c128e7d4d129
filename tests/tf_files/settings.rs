//! Settings and label maps as they lie beside checkpoints.

use std::fs;

use detect::data::Category;
use detect::weights::label_map;
use detect::weights::pipeline::{ImageResizer, PipelineConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::{oracle, test_data};

#[test]
fn the_settings_of_original_detectors_are_read() {
    for (name, side, proposals) in [("small", 256, 32), ("thin", 192, 8)] {
        let Some(folder) = oracle(name) else { return };
        let config = PipelineConfig::read(&folder.join("pipeline.config")).unwrap();
        let resizer = ImageResizer::FixedShape { height: side, width: side };
        assert_eq!((config.num_classes, config.image_resizer), (5, resizer));
        let anchors = &config.first_stage_anchor_generator;
        assert_eq!(anchors.scales, [0.25, 0.5, 1., 2.]);
        assert_eq!(anchors.aspect_ratios, [0.5, 1., 2.]);
        assert_eq!(anchors.base, 256);
        assert_eq!(config.first_stage_box_predictor_depth, 32);
        assert_eq!(config.first_stage_max_proposals, proposals);
        assert_eq!(config.second_stage_batch_size, proposals);
        assert_eq!(config.first_stage_localization_loss_weight, 2.);
        assert_eq!(config.second_stage_localization_loss_weight, 2.);
        assert_eq!(config.initial_crop_size, 17);
        assert_eq!(config.second_stage_post_processing.iou_threshold, 0.6);
    }
}

#[test]
fn the_built_in_map_is_that_of_coco() {
    let Some(data) = test_data() else { return };
    for name in ["instances_coco2017_308.json", "instances_val2014_100.json"] {
        let json = fs::read_to_string(data.join("data/coco_eval").join(name)).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let mut expected: Vec<Category> =
            serde_json::from_value(json["categories"].clone()).unwrap();
        expected.sort_by_key(|category| category.id);
        assert_eq!(label_map::coco(), expected, "{name}");
    }
}

#[test]
fn a_label_map_is_read_from_its_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("map.pbtxt");
    let item = |c: &Category| {
        format!("item {{\n  name: \"NA\"\n  id: {}\n  display_name: {:?}\n}}\n", c.id, c.name)
    };
    let text = label_map::coco().iter().map(item).collect::<Vec<_>>().concat();
    fs::write(&path, text).unwrap();
    assert_eq!(label_map::read(&path).unwrap(), label_map::coco());
    fs::write(&path, "item { id: 1 }\n").unwrap();
    let error = label_map::read(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("is not a valid label map file (line 1: the item of id 1 has no name)"),
        "{error}"
    );
}
