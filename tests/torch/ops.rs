//! Every operator of the detector against torchvision's and TensorFlow's.
//!
//! Floats are compared to within 1e-5 of the golden tensor's largest value, integers exactly. One golden
//! operator has no counterpart here and is not compared: `fpn_level`, since there is no feature pyramid.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

mod common;

use std::collections::BTreeMap;

use common::{Golden, alone, assert_close, assert_exact, json, oracle};
use detect::config::{Anchors, Pooling};
use detect::geometry::Size;
use detect::nms;
use detect::rules::torchvision::is_large;
use detect_torch::detector::assign::{Quota, Thresholds, match_regions, sample};
use detect_torch::detector::coder::{Coder, Coding as _};
use detect_torch::detector::crop::{CropAndResize, Interpolation, RoiAlign, RoiPool};
use detect_torch::detector::torchvision::rpn::{SMOOTH_L1_BETA, rescue_best};
use detect_torch::detector::{boxes, losses, torchvision::anchors};
use detect_torch::nn::same;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const LIMIT: f64 = 1e-5;

/// A group of cases: its arguments by case, and its tensors. `None` without the test material.
fn group(name: &str) -> Option<(BTreeMap<String, Value>, Golden)> {
    let folder = oracle("ops")?;
    let arguments = json(&folder.join(format!("{name}.json")));
    let cases: BTreeMap<String, Value> = serde_json::from_value(arguments).unwrap();
    assert!(!cases.is_empty());
    Some((cases, Golden::read(&folder.join(format!("{name}.safetensors")))))
}

fn pair(value: &Value) -> [i64; 2] {
    [value[0].as_i64().unwrap(), value[1].as_i64().unwrap()]
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn indices(kept: &[usize]) -> Tensor {
    Tensor::from_slice(&kept.iter().map(|&i| i as i64).collect::<Vec<_>>())
}

#[test]
fn nms_keeps_what_torchvision_keeps() {
    let Some((cases, golden)) = group("nms") else { return };
    for (case, arguments) in &cases {
        let threshold = arguments["iou_threshold"].as_f64().unwrap();
        let boxes = boxes::from_tensor(golden.get(&format!("{case}.boxes")));
        let scores = boxes::to_vec(golden.get(&format!("{case}.scores")));
        let kept = nms::nms(&boxes, &scores, threshold);
        assert_exact(case, golden.get(&format!("{case}.keep")), &indices(&kept));
    }
}

#[test]
fn batched_nms_keeps_what_torchvision_keeps_without_its_coordinate_trick() {
    let Some((cases, golden)) = group("batched_nms") else { return };
    for (case, arguments) in &cases {
        let threshold = arguments["iou_threshold"].as_f64().unwrap();
        let boxes = boxes::from_tensor(golden.get(&format!("{case}.boxes")));
        let score = golden.get(&format!("{case}.scores"));
        let groups = Vec::<i64>::try_from(golden.get(&format!("{case}.idxs"))).unwrap();
        let groups: Vec<usize> = groups.iter().map(|&g| g as usize).collect();
        let kept = indices(&nms::batched_nms(&boxes, &boxes::to_vec(score), &groups, threshold));
        // The last sort of torchvision's loop over groups is unstable: within a tie of scores any order
        // is right, so what is kept is compared as a set, and the scores in order.
        let expected = golden.get(&format!("{case}.keep_vanilla"));
        assert_exact(case, &expected.sort(0, false).0, &kept.sort(0, false).0);
        let scores = |order: &Tensor| score.index_select(0, order);
        assert_close(case, &scores(expected), &scores(&kept), 0.);
    }
}

#[test]
fn boxes_are_measured_coded_clipped_and_filtered_as_by_torchvision() {
    let Some((cases, golden)) = group("boxes") else { return };
    let get = |case: &str, name: &str| golden.get(&format!("{case}.{name}"));
    // Two boxes without area have an IoU of NaN, there as here.
    let (expected, found) = (get("iou", "iou"), boxes::iou(get("iou", "a"), get("iou", "b")));
    assert_exact("NaN of iou", &expected.isnan(), &found.isnan());
    let no_nan = |t: &Tensor| t.nan_to_num(0., None, None);
    assert_close("iou", &no_nan(expected), &no_nan(&found), LIMIT);
    let found = boxes::generalized_iou(get("iou", "a"), get("iou", "b"));
    let expected = get("iou", "giou");
    assert_exact("NaN of giou", &expected.isnan(), &found.isnan());
    assert_close("giou", &no_nan(expected), &no_nan(&found), LIMIT);
    for (name, coder) in [("rpn", Coder::TORCHVISION_RPN), ("roi", Coder::TORCHVISION_ROI)] {
        let case = format!("encode_{name}");
        let found = coder.encode(get(&case, "reference"), get(&case, "proposals"));
        assert_close(&case, get(&case, "codes"), &found, LIMIT);
        let case = format!("decode_{name}");
        let found = coder.decode(get(&case, "codes"), get(&case, "proposals"));
        assert_close(&case, get(&case, "boxes"), &found, LIMIT);
    }
    let size = Size::new(
        cases["clip"]["height"].as_u64().unwrap() as usize,
        cases["clip"]["width"].as_u64().unwrap() as usize,
    );
    assert_close("clip", get("clip", "clipped"), &boxes::clip(get("clip", "boxes"), size), 0.);
    for (case, arguments) in cases.iter().filter(|(case, _)| case.starts_with("remove_small")) {
        let side = arguments["min_size"].as_f64().unwrap() as f32;
        let boxes = boxes::from_tensor(get(case, "boxes"));
        let large: Vec<_> = (0..boxes.len()).filter(|&i| is_large(boxes[i], side)).collect();
        assert_exact(case, get(case, "keep"), &indices(&large));
    }
}

#[test]
fn anchors_are_torchvision_s() {
    let Some((cases, golden)) = group("anchors") else { return };
    for (case, arguments) in &cases {
        let padded = pair(&arguments["padded_image_hw"]);
        let levels = arguments["sizes"].as_array().unwrap().len();
        let mut all = Vec::new();
        for level in 0..levels {
            let section = Anchors {
                sizes: numbers(&arguments["sizes"][level]),
                ratios: numbers(&arguments["aspect_ratios_h_over_w"][level]),
            };
            let cell = anchors::of_cell(&section);
            assert_close(case, golden.get(&format!("{case}.cell.{level}")), &cell, 0.);
            let grid = pair(&arguments["feature_hw"][level]);
            all.push(anchors::of_map(&section, grid, padded));
        }
        assert_close(case, golden.get(&format!("{case}.anchors")), &Tensor::cat(&all, 0), 0.);
    }
}

#[test]
fn matching_and_sampling_are_torchvision_s() {
    let _alone = alone();
    let Some((cases, golden)) = group("matcher_sampler") else { return };
    for (case, arguments) in &cases {
        let get = |name: &str| golden.get(&format!("{case}.{name}"));
        let number = |key: &str| arguments[key].as_f64().unwrap();
        if let Some(count) = arguments["batch"].as_u64() {
            tch::manual_seed(arguments["torch_manual_seed"].as_i64().unwrap());
            let fraction = number("positive_fraction");
            let quota = Quota::new(count as usize, fraction);
            let (positive, negative) = sample(get("labels"), quota);
            assert_exact(case, get("pos"), &positive);
            assert_exact(case, get("neg"), &negative);
        } else {
            let thresholds = Thresholds { positive: number("high"), negative: number("low") };
            let mut matches = match_regions(get("quality"), thresholds);
            if arguments["allow_low_quality_matches"].as_bool().unwrap() {
                matches = rescue_best(get("quality"), &matches);
            }
            assert_exact(case, get("matches"), &matches);
        }
    }
}

#[test]
fn losses_and_their_gradients_are_torch_s() {
    type Loss = fn(&Tensor, &Tensor) -> Tensor;
    let Some((_, golden)) = group("losses") else { return };
    let cases: [(&str, Loss); 3] = [
        ("smooth_l1_beta_1_9_sum", |a, b| losses::smooth_l1_sum(a, b, SMOOTH_L1_BETA)),
        ("bce_logits_mean", losses::binary_cross_entropy_mean),
        ("cross_entropy_mean", |xs, target| losses::cross_entropy_mean(xs, target, 0.)),
    ];
    for (case, loss) in cases {
        let input = golden.get(&format!("{case}.input")).copy().set_requires_grad(true);
        let found = loss(&input, golden.get(&format!("{case}.target")));
        found.backward();
        assert_close(case, golden.get(&format!("{case}.loss")), &found, LIMIT);
        assert_close(case, golden.get(&format!("{case}.grad")), &input.grad(), LIMIT);
    }
    let empty = Tensor::zeros([0], (Kind::Float, Device::Cpu));
    assert!(losses::binary_cross_entropy_mean(&empty, &empty).double_value(&[]).is_nan());
}

/// Runs a crop forward and backward and compares both. A golden without gradient has none compared.
fn check_crop(case: &str, golden: &Golden, crop: impl FnOnce(&Tensor) -> Tensor) {
    let get = |name: &str| golden.get(&format!("{case}.{name}"));
    let input = get("input").copy().set_requires_grad(true);
    let output = crop(&input);
    assert_close(case, get("output"), &output, LIMIT);
    if golden.has(&format!("{case}.grad_output")) {
        (&output * get("grad_output")).sum(Kind::Float).backward();
        let gradient = input.grad();
        // Without any region there is no gradient to speak of.
        let gradient = if gradient.defined() { gradient } else { input.zeros_like() };
        assert_close(&format!("{case}, gradient"), get("grad_input"), &gradient, LIMIT);
    }
}

/// torchvision's `[R, 5]` regions as boxes and images.
fn regions(golden: &Golden, case: &str) -> (Tensor, Tensor) {
    let rois = golden.get(&format!("{case}.rois"));
    (rois.narrow(1, 1, 4), rois.select(1, 0).to_kind(Kind::Int64))
}

#[test]
fn roi_align_and_its_gradient_are_torchvision_s() {
    let Some((cases, golden)) = group("roi_align") else { return };
    for (case, arguments) in &cases {
        let align = RoiAlign {
            bins: pair(&arguments["output_size"]),
            scale: arguments["spatial_scale"].as_f64().unwrap(),
            sampling_ratio: arguments["sampling_ratio"].as_i64().unwrap(),
            aligned: arguments["aligned"].as_bool().unwrap(),
        };
        let (boxes, images) = regions(&golden, case);
        check_crop(case, &golden, |map| align.crops_of(map, &boxes, &images));
    }
}

#[test]
fn roi_pool_and_its_gradient_are_torchvision_s() {
    let Some((cases, golden)) = group("roi_pool") else { return };
    for (case, arguments) in &cases {
        let pool = RoiPool {
            bins: pair(&arguments["output_size"]),
            scale: arguments["spatial_scale"].as_f64().unwrap(),
        };
        let (boxes, images) = regions(&golden, case);
        check_crop(case, &golden, |map| pool.crops(map, &boxes, &images));
    }
}

#[test]
fn crop_and_resize_and_its_gradient_are_tensorflow_s() {
    let Some((cases, golden)) = group("crop_and_resize") else { return };
    for (case, arguments) in &cases {
        let crop = CropAndResize {
            size: pair(&arguments["crop_size"]),
            interpolation: match arguments["method"].as_str().unwrap() {
                "bilinear" => Interpolation::Bilinear,
                "nearest" => Interpolation::Nearest,
                other => panic!("{other}"),
            },
            extrapolation: arguments["extrapolation_value"].as_f64().unwrap(),
        };
        let boxes = golden.get(&format!("{case}.boxes_yxyx"));
        let images = golden.get(&format!("{case}.box_index"));
        check_crop(case, &golden, |map| crop.crops(map, boxes, images));
    }
}

#[test]
fn same_padding_is_tensorflow_s() {
    let Some((cases, golden)) = group("same_padding") else { return };
    for (case, arguments) in &cases {
        let get = |name: &str| golden.get(&format!("{case}.{name}"));
        let input = get("input");
        if case.starts_with("factorized") {
            let activated = input.relu();
            let half = |offset, weight: &Tensor| {
                let picked = same::every_second_pixel(&activated, offset);
                picked.conv2d::<Tensor>(weight, None, [1, 1], [0, 0], [1, 1], 1)
            };
            let found = Tensor::cat(&[half(0, get("w1")), half(1, get("w2"))], 1);
            assert_close(case, get("output"), &found, LIMIT);
            continue;
        }
        let stride = arguments["stride"].as_i64().unwrap();
        if case.starts_with("depthwise") {
            let weight = get("weight");
            let (padded, padding) =
                same::pad(input, [arguments["kernel"].as_i64().unwrap(); 2], [stride; 2]);
            let found = padded.conv2d::<Tensor>(weight, None, [stride, stride], padding, [1, 1], 4);
            assert_close(case, get("output"), &found, LIMIT);
        } else {
            assert_close(case, get("max"), &same::max_pool(input, 3, stride), LIMIT);
            let average = same::average_pool(input, stride, Pooling::Tf);
            assert_close(case, get("avg_tf"), &average, LIMIT);
            if stride == 2 {
                let average = same::average_pool(input, stride, Pooling::Timm);
                assert_close(case, get("avg_counting_padding"), &average, LIMIT);
            }
        }
    }
}
