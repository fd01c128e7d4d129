//! Every operator without tensors. Floats are compared to within 1e-5 of the golden tensor's largest value, decisions
//! exactly.

use std::collections::BTreeMap;

use detect::config::Anchors;
use detect::engine::detector::crop::{Cropper, Kind, Region};
use detect::engine::map::Map;
use detect::geometry::{Box2, Size};
use detect::nms;
use detect::rules::anchors::{self, Grid};
use detect::rules::{Coder, torchvision::is_large};
use serde_json::Value;

use crate::common::{json, oracle};
use crate::golden::{Golden, as_boxes, as_numbers, compare};

const LIMIT: f64 = 1e-5;

/// A group of cases: its arguments by case, and its tensors. `None` without the test material.
fn group(name: &str) -> Option<(BTreeMap<String, Value>, Golden)> {
    let folder = oracle("ops")?;
    let arguments = json(&folder.join(format!("{name}.json")));
    let cases: BTreeMap<String, Value> = serde_json::from_value(arguments).unwrap();
    assert!(!cases.is_empty());
    Some((cases, Golden::read(&folder.join(format!("{name}.safetensors")))))
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn pair(value: &Value) -> [usize; 2] {
    [number(&value[0]), number(&value[1])]
}

fn size(value: &Value) -> Size {
    Size::new(number(&value[0]), number(&value[1]))
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn nms_keeps_what_torchvision_keeps() {
    let Some((cases, golden)) = group("nms") else { return };
    for (case, arguments) in &cases {
        let threshold = arguments["iou_threshold"].as_f64().unwrap();
        let get = |name: &str| format!("{case}.{name}");
        let scores = golden.get(&get("scores")).data;
        let kept = nms::nms(&golden.boxes(&get("boxes")), &scores, threshold);
        assert_eq!(golden.integers(&get("keep")), kept, "{case}");
    }
}

#[test]
fn batched_nms_keeps_what_torchvision_keeps_without_its_coordinate_trick() {
    let Some((cases, golden)) = group("batched_nms") else { return };
    for (case, arguments) in &cases {
        let threshold = arguments["iou_threshold"].as_f64().unwrap();
        let get = |name: &str| format!("{case}.{name}");
        let (boxes, scores) = (golden.boxes(&get("boxes")), golden.get(&get("scores")).data);
        let kept = nms::batched_nms(&boxes, &scores, &golden.integers(&get("idxs")), threshold);
        // The last sort of torchvision's loop over groups is unstable: within a tie of scores any order
        // is right, so what is kept is compared as a set, and the scores in order.
        let expected = golden.integers(&get("keep_vanilla"));
        let sorted = |list: &[usize]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        assert_eq!(sorted(&expected), sorted(&kept), "{case}");
        let of = |order: &[usize]| order.iter().map(|&i| scores[i]).collect::<Vec<_>>();
        assert_eq!(of(&expected), of(&kept), "{case}");
    }
}

#[test]
fn boxes_are_decoded_clipped_and_filtered_as_by_torchvision() {
    let Some((cases, golden)) = group("boxes") else { return };
    for (name, coder) in [("rpn", Coder::TORCHVISION_RPN), ("roi", Coder::TORCHVISION_ROI)] {
        let get = |part: &str| format!("decode_{name}.{part}");
        let (codes, references) = (golden.get(&get("codes")), golden.boxes(&get("proposals")));
        let each = codes.shape[1] / 4;
        let decoded = codes.data.chunks_exact(4).enumerate();
        let decoded: Vec<Box2> =
            decoded.map(|(i, deltas)| coder.apply(deltas, references[i / each])).collect();
        compare(&get("boxes"), &golden.get(&get("boxes")).data, &as_numbers(&decoded), LIMIT);
    }
    let clip = &cases["clip"];
    let image = Size::new(number(&clip["height"]), number(&clip["width"]));
    let clipped: Vec<Box2> = golden.boxes("clip.boxes").iter().map(|b| b.clipped(image)).collect();
    compare("clip", &golden.get("clip.clipped").data, &as_numbers(&clipped), 0.);
    for (case, arguments) in cases.iter().filter(|(case, _)| case.starts_with("remove_small")) {
        let side = arguments["min_size"].as_f64().unwrap() as f32;
        let boxes = golden.boxes(&format!("{case}.boxes"));
        let large: Vec<usize> = (0..boxes.len()).filter(|&i| is_large(boxes[i], side)).collect();
        assert_eq!(golden.integers(&format!("{case}.keep")), large, "{case}");
    }
}

#[test]
fn anchors_are_torchvision_s() {
    let Some((cases, golden)) = group("anchors") else { return };
    for (case, arguments) in &cases {
        let padded = size(&arguments["padded_image_hw"]);
        let mut all = Vec::new();
        for level in 0..arguments["sizes"].as_array().unwrap().len() {
            let section = Anchors {
                sizes: numbers(&arguments["sizes"][level]),
                ratios: numbers(&arguments["aspect_ratios_h_over_w"][level]),
            };
            let cell = as_numbers(&anchors::torchvision(&section));
            compare(case, &golden.get(&format!("{case}.cell.{level}")).data, &cell, 0.);
            let cells = size(&arguments["feature_hw"][level]);
            let grid = Grid::torchvision(&section, cells, padded);
            all.extend((0..grid.len()).map(|i| grid.at(i)));
        }
        compare(case, &golden.get(&format!("{case}.anchors")).data, &as_numbers(&all), 0.);
    }
}

fn check_crop(case: &str, golden: &Golden, cropper: Cropper, regions: &[Region], padded: Size) {
    // What a buffer held before does not matter.
    let mut found = Map::new([1, 1, 1, 3], vec![f32::NAN; 3]);
    cropper.crops(&golden.map(&format!("{case}.input")), regions, padded, &mut found);
    let expected = golden.map(&format!("{case}.output"));
    let shape = |map: &Map| [map.images, map.height, map.width, map.channels];
    assert_eq!(shape(&expected), shape(&found), "{case}");
    compare(case, &expected.data, &found.data, LIMIT);
}

#[test]
fn roi_align_is_torchvision_s() {
    let Some((cases, golden)) = group("roi_align") else { return };
    // Nothing that we read or train asks for aligned regions, so that the engine has none.
    let unaligned = cases.iter().filter(|(_, arguments)| arguments["aligned"] == false);
    let mut compared = 0;
    for (case, arguments) in unaligned {
        let kind = Kind::RoiAlign {
            scale: arguments["spatial_scale"].as_f64().unwrap() as f32,
            sampling_ratio: arguments["sampling_ratio"].as_i64().unwrap().max(0) as usize,
        };
        let rois = golden.get(&format!("{case}.rois")).data;
        let region = |row: &[f32]| Region { image: row[0] as usize, bbox: as_boxes(&row[1..])[0] };
        let regions: Vec<Region> = rois.chunks_exact(5).map(region).collect();
        let cropper = Cropper { bins: pair(&arguments["output_size"]), kind };
        check_crop(case, &golden, cropper, &regions, Size::new(1, 1));
        compared += 1;
    }
    assert_eq!(compared, cases.len() / 2);
}

#[test]
fn crop_and_resize_is_tensorflow_s() {
    let Some((cases, golden)) = group("crop_and_resize") else { return };
    // Detectors interpolate and have zeros outside, and the engine does nothing else.
    let ours = |arguments: &Value| {
        arguments["method"] == "bilinear" && arguments["extrapolation_value"] == 0.
    };
    let mut compared = 0;
    for (case, arguments) in cases.iter().filter(|(_, arguments)| ours(arguments)) {
        let boxes = golden.get(&format!("{case}.boxes_yxyx")).data;
        let images = golden.integers(&format!("{case}.box_index"));
        // In shares of an input of one pixel.
        let region = |(row, image): (&[f32], usize)| Region {
            image,
            bbox: Box2::new(row[1], row[0], row[3], row[2]),
        };
        let regions: Vec<Region> = boxes.chunks_exact(4).zip(images).map(region).collect();
        let cropper = Cropper { bins: pair(&arguments["crop_size"]), kind: Kind::CropAndResize };
        check_crop(case, &golden, cropper, &regions, Size::new(1, 1));
        compared += 1;
    }
    assert_eq!(compared, cases.len() / 4);
}
