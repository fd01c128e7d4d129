//! The larger test material: where it lies, and the detectors that it describes.

#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};

use detect::config::{Config, Input, NormMode, Resize};
use detect::geometry::Size;
use detect::nasnet::{BackboneName, Form, Wiring};
use detect::weights::Contents;
use detect::weights::import::{self, Settings};
use serde_json::Value;

/// The folder `oracle/<name>` of the larger test material, or `None` with a line that says so.
pub(crate) fn oracle(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("DETECT_TEST_DATA") else {
        eprintln!("skipped: oracle/{name}: DETECT_TEST_DATA is not set");
        return None;
    };
    let folder = Path::new(&root).join("oracle").join(name);
    assert!(folder.is_dir(), "DETECT_TEST_DATA has no oracle/{name}");
    Some(folder)
}

/// The JSON file at `path`.
pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The weights of the TensorFlow detector `case`, imported from its checkpoint, and the file that they are
/// from; `None` with a line that says so.
pub(crate) fn tf_weights(case: &str) -> Option<(Contents, PathBuf)> {
    let path = oracle("tf_detector")?.join(case).join("model.ckpt");
    let mut source = import::open(&path).unwrap();
    // Both have the large wiring, which few cells would not say.
    let settings = Settings { wiring: Some(Wiring::Large), ..Settings::default() };
    let imported = import::import(source.as_mut(), None, &settings, &path).unwrap();
    Some((imported.contents, path))
}

/// What a golden detector is.
pub(crate) struct Described {
    pub(crate) config: Config,
    pub(crate) classes: usize,
    /// Of the network's input (TensorFlow's).
    pub(crate) padded: Size,
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// The TensorFlow detector in `folder`.
pub(crate) fn tf_detector(folder: &Path) -> Described {
    let info = json(&folder.join("info.json"));
    let hyper = &info["hparams"];
    let large = number(&hyper["skip_reduction_layer_input"]) == 1;
    let recipe = if large { "nasnet_large_coco" } else { "nasnet_mobile_coco" };
    let mut config = Config::recipe(recipe, &[]).unwrap();
    config.backbone.name = BackboneName::a(
        number(&hyper["num_cells"]) / 3,
        24 * number(&hyper["num_conv_filters"]),
        Form::ImageNet,
    );
    config.backbone.stem_filters = (32. * hyper["stem_multiplier"].as_f64().unwrap()) as usize;
    // The rest stands in TensorFlow's configuration, where a number follows its name.
    let text = info["config"].as_str().unwrap();
    let after = |name: &str| {
        let rest = text.split_once(&format!("{name}: "))?.1;
        rest.split_whitespace().next()?.parse::<usize>().ok()
    };
    if let Some(channels) = after("first_stage_box_predictor_depth") {
        config.rpn.channels = channels;
    }
    let proposals = number(&info["args"]["proposals"]);
    (config.rpn.post_nms_train, config.rpn.post_nms_eval) = (proposals, proposals);
    config.roi.sampled = config.roi.sampled.min(proposals);
    let padded = Size::new(number(&info["args"]["height"]), number(&info["args"]["width"]));
    config.input.resize = match (after("min_dimension"), after("max_dimension")) {
        (Some(min_dimension), Some(max_dimension)) => {
            let pad = text.contains("pad_to_max_dimension: true");
            Resize::KeepAspect { min_dimension, max_dimension, pad }
        }
        _ => Resize::Fixed { height: padded.height, width: padded.width },
    };
    config.check().unwrap();
    Described { config, classes: number(&info["num_classes"]), padded }
}

/// The torchvision detector whose `meta.json` is given. Its backbone is no NASNet, so that the configuration's does
/// not count.
pub(crate) fn torchvision_detector(meta: &Value) -> (Config, usize) {
    let c = &meta["config"];
    let floats = |value: &Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let mut config = Config::recipe("peer_c4", &[]).unwrap();
    config.anchors.sizes = floats(&c["sizes"][0]);
    config.anchors.ratios = floats(&c["ratios"][0]);
    config.detector.crop_size = number(&c["roi"]);
    config.detector.sampling_ratio = number(&c["sampling_ratio"]);
    config.detector.mlp_width = number(&c["rep"]);
    let rpn = &mut config.rpn;
    (rpn.pre_nms_train, rpn.pre_nms_eval) = (number(&c["pre"]), number(&c["pre"]));
    (rpn.post_nms_train, rpn.post_nms_eval) = (number(&c["post"]), number(&c["post"]));
    let (short_side, long_side) = (number(&c["min_size"]), number(&c["max_size"]));
    config.input = Input {
        resize: Resize::ShortSide { short_side, long_side },
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    (config.backbone.norm, config.backbone.tail_norm) = (NormMode::Frozen, NormMode::Frozen);
    (config, number(&c["num_classes"]) - 1)
}
