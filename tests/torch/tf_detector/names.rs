//! TensorFlow's variables under our names and in our layout: an independent statement of what reading its
//! checkpoints has to do, for goldens that are named after variables.

use tch::Tensor;

use crate::case::turned;
use crate::common::Golden;

/// Every tensor of a golden file that is named after TensorFlow's variables.
pub(crate) fn ours(golden: &Golden) -> Vec<(String, Tensor)> {
    golden.iter().map(|(name, tensor)| (our_name(name), our_layout(name, tensor))).collect()
}

fn our_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('/').collect();
    let weight = |leaf: &str| if leaf == "biases" { "bias" } else { "weight" };
    match parts.as_slice() {
        ["Conv", leaf] => format!("rpn.head.conv.0.0.{}", weight(leaf)),
        ["FirstStageBoxPredictor", "ClassPredictor", leaf] => {
            format!("rpn.head.cls_logits.{}", weight(leaf))
        }
        ["FirstStageBoxPredictor", "BoxEncodingPredictor", leaf] => {
            format!("rpn.head.bbox_pred.{}", weight(leaf))
        }
        ["SecondStageBoxPredictor", "ClassPredictor", leaf] => {
            format!("roi_heads.box_predictor.cls_score.{}", weight(leaf))
        }
        ["SecondStageBoxPredictor", "BoxEncodingPredictor", leaf] => {
            format!("roi_heads.box_predictor.bbox_pred.{}", weight(leaf))
        }
        [stage, module @ .., leaf] if stage.ends_with("StageFeatureExtractor") => {
            format!("backbone.{}", module_name(module, leaf))
        }
        _ => panic!("{name} is no variable of the detector"),
    }
}

fn module_name(module: &[&str], leaf: &str) -> String {
    let leaf = match leaf {
        "gamma" | "weights" => "weight",
        "beta" => "bias",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        "depthwise_weights" => "depthwise_conv2d.weight",
        "pointwise_weights" => "pointwise_conv2d.weight",
        _ => panic!("{module:?} has no {leaf}"),
    };
    let last = |text: &str| text[text.len() - 1..].to_owned();
    let middle = match module {
        ["conv0"] => "conv0.conv".to_owned(),
        ["conv0_bn"] => "conv0.bn".to_owned(),
        [cell, "1x1"] => format!("{cell}.conv_1x1.conv"),
        [cell, "beginning_bn"] => format!("{cell}.conv_1x1.bn"),
        [cell, "prev_1x1"] => format!("{cell}.conv_prev_1x1.conv"),
        [cell, "prev_bn"] => format!("{cell}.conv_prev_1x1.bn"),
        [cell, "path1_conv"] => format!("{cell}.path_1.conv"),
        [cell, "path2_conv"] => format!("{cell}.path_2.conv"),
        [cell, "final_path_bn"] => format!("{cell}.final_path_bn"),
        [cell, row, side, part] if part.starts_with("separable_") => {
            format!("{cell}.{row}_{side}.separable_{}", last(part))
        }
        [cell, row, side, part] if part.starts_with("bn_sep_") => {
            format!("{cell}.{row}_{side}.bn_sep_{}", last(part))
        }
        _ => panic!("{module:?} is no module of NASNet"),
    };
    format!("{middle}.{leaf}")
}

fn our_layout(name: &str, tensor: &Tensor) -> Tensor {
    let tensor = match tensor.dim() {
        4 if name.ends_with("depthwise_weights") => tensor.permute([2, 3, 0, 1]),
        4 => tensor.permute([3, 2, 0, 1]),
        2 => tensor.transpose(0, 1),
        _ => tensor.shallow_clone(),
    };
    if !name.contains("BoxEncodingPredictor") {
        return tensor;
    }
    // [B * 4, ..], y first, to the same with x first.
    let rows = tensor.size()[0];
    let by_box = tensor.reshape([rows / 4, 4, tensor.numel() as i64 / rows]).transpose(1, 2);
    turned(&by_box).transpose(1, 2).reshape(tensor.size())
}
