//! The tensors of a detector's heads: names (torchvision's) and shapes, from its configuration.

use crate::config::{Config, Cut, Head};
use crate::nasnet::Plan;

/// A tensor of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadTensor {
    /// Such as `rpn.head.cls_logits.weight`.
    pub name: String,
    /// Sides, outermost first.
    pub shape: Vec<usize>,
}

/// What a featurizer gives the heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Channels of the map that they see.
    pub map: usize,
    /// Length of the vector that the tail gives for a region.
    pub tail: usize,
}

/// Every tensor of the RPN and of the region heads for `classes` classes without background.
///
/// # Panics
/// If the configuration was not checked.
pub fn tensors(config: &Config, classes: usize) -> Vec<HeadTensor> {
    let plan = config.backbone.plan();
    let map = map_channels(&plan, config.detector.cut);
    tensors_on(Features { map, tail: plan.name.channels }, config, classes)
}

/// The same on another featurizer than the configuration's.
pub fn tensors_on(features: Features, config: &Config, classes: usize) -> Vec<HeadTensor> {
    let map = features.map;
    let anchors = config.anchors.per_cell();
    let rpn = if config.rpn.channels == 0 { map } else { config.rpn.channels };
    let rules = config.detector.rules;
    let (scores, boxes) =
        (rules.objectness(), if rules.background_box() { classes + 1 } else { classes });
    let mut layers = vec![
        ("rpn.head.conv.0.0".to_owned(), vec![rpn, map, 3, 3]),
        ("rpn.head.cls_logits".into(), vec![scores * anchors, rpn, 1, 1]),
        ("rpn.head.bbox_pred".into(), vec![4 * anchors, rpn, 1, 1]),
    ];
    let features = match config.detector.head {
        Head::Tail => features.tail,
        Head::Mlp => {
            let width = config.detector.mlp_width;
            let inputs = map * config.detector.crop_size * config.detector.crop_size;
            layers.push(("roi_heads.box_head.fc6".into(), vec![width, inputs]));
            layers.push(("roi_heads.box_head.fc7".into(), vec![width, width]));
            width
        }
    };
    layers.push(("roi_heads.box_predictor.cls_score".into(), vec![classes + 1, features]));
    layers.push(("roi_heads.box_predictor.bbox_pred".into(), vec![4 * boxes, features]));
    let both = |(name, shape): (String, Vec<usize>)| {
        let bias = HeadTensor { name: format!("{name}.bias"), shape: vec![shape[0]] };
        [HeadTensor { name: format!("{name}.weight"), shape }, bias]
    };
    layers.into_iter().flat_map(both).collect()
}

/// Channels of the map that the heads see.
pub fn map_channels(plan: &Plan, cut: Cut) -> usize {
    let [first, last] = plan.stride_16().expect("configurations of detectors are checked for it");
    match cut {
        Cut::Pair => plan.channels(first) + plan.channels(last),
        Cut::Last => plan.channels(last),
    }
}

/// How many of the featurizer's cells a detector has: all, or those up to the cut.
pub fn cells(config: &Config) -> usize {
    let plan = config.backbone.plan();
    match config.detector.head {
        Head::Tail => plan.cells.len(),
        Head::Mlp => {
            let [_, last] =
                plan.stride_16().expect("configurations of detectors are checked for it");
            last.0
        }
    }
}
