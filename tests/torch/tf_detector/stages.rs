//! Inference, stage by stage and end to end.

use detect::data::loader;
use detect::geometry::{Box2, Detection};
use detect_torch::backbone::Backbone;
use detect_torch::detector::roi::RoiOutput;
use detect_torch::detector::tf::{rpn, select};
use detect_torch::detector::{Images, boxes};
use detect_torch::nn::Mode;
use detect_torch::predict;
use tch::{Device, Kind, Tensor};

use crate::case::{
    Case, LIMIT, cases, channels_first, compare, count, head_output, image, in_pixels, rows,
    rpn_output, turned,
};
use crate::common::{Golden, alone, assert_exact};

#[test]
fn images_are_tensorflow_s_to_the_last_bit() {
    for case in cases() {
        for (file, name) in [("oracle", "resized_preprocessed"), ("train_oracle", "pre")] {
            if !case.has(file) {
                continue; // most cases were made for inference alone
            }
            let golden = case.golden(file);
            let batch = loader::prepare(&[&image(&golden)], &case.config.input);
            let found = predict::images(&batch, Device::Cpu).pixels;
            compare(&case, &format!("{file} input"), &channels_first(golden.get(name)), &found, 0.);
        }
    }
}

#[test]
fn every_cell_of_the_trunk_is_tensorflow_s() {
    let _alone = alone(); // making a network draws its first weights
    for case in cases() {
        let (golden, inner) = (case.golden("oracle"), case.golden("oracle_inner"));
        let parts = case.parts();
        let pixels = channels_first(golden.get("resized_preprocessed"));
        let maps = tch::no_grad(|| parts.backbone.features(&pixels, Mode::Eval));
        let mut compared = 0;
        for (name, map) in &maps {
            let capital = name[..1].to_uppercase() + &name[1..];
            let capital = capital.replace("_cell", "_Cell");
            let stem = format!("op.FirstStageFeatureExtractor.{name}.cell_output.concat");
            let conv0 = format!("op.FirstStageFeatureExtractor.{name}_bn.FusedBatchNormV3");
            let golden_name = [format!("endpoint.{capital}"), stem, conv0];
            let Some(golden_name) = golden_name.iter().find(|n| inner.has(n)) else { continue };
            let what = format!("cell {name}");
            compare(&case, &what, &channels_first(inner.get(golden_name)), map, LIMIT);
            compared += 1;
        }
        // The stem convolution, two stems, two stages and the reduction between them.
        assert_eq!(compared, 4 + 2 * case.config.backbone.name.cells_per_stage);
    }
}

#[test]
fn every_stage_is_tensorflow_s() {
    let _alone = alone(); // making a network draws its first weights
    for case in cases() {
        tch::no_grad(|| check_first_stage(&case));
        tch::no_grad(|| check_second_stage(&case));
    }
}

fn check_first_stage(case: &Case) {
    let golden = case.golden("oracle");
    let (parts, padded) = (case.parts(), case.padded);
    let pixels = channels_first(golden.get("resized_preprocessed"));
    let map = channels_first(golden.get("rpn_features_to_crop"));
    compare(case, "trunk", &map, &parts.backbone.trunk(&pixels, Mode::Eval), LIMIT);
    let hidden = channels_first(golden.get("rpn_box_predictor_features"));
    compare(case, "rpn conv and relu6", &hidden, &parts.rpn.hidden(&map), LIMIT);
    let clipped = boxes::clip(&case.anchors(&map), padded);
    compare(case, "anchors, clipped", &turned(golden.get("anchors")), &clipped, 0.);
    let output = parts.rpn.predict(&map, clipped);
    compare(case, "objectness", golden.get("rpn_class_logits"), &output.objectness, LIMIT);
    let encodings = turned(golden.get("rpn_box_encodings"));
    compare(case, "rpn deltas", &encodings, &output.deltas, LIMIT);

    let output = rpn_output(&golden);
    let softmax = output.objectness.softmax(2, None::<Kind>);
    compare(case, "rpn softmax", golden.get("rpn_softmax"), &softmax, LIMIT);
    let decoded = turned(golden.get("rpn_decoded_boxes_normalized_unclipped"));
    compare(case, "rpn decoded", &in_pixels(&decoded, padded), &rpn::decode(&output), LIMIT);
    let found = &rpn::proposals(&case.config.rpn, &output, &[case.size], Mode::Eval)[0];
    // Box by box in order: that all are close means that the same anchors were picked in the same order.
    let picked = count(&golden, "num_proposals");
    let expected = turned(&rows(&golden, "proposal_boxes_absolute", picked));
    compare(case, "proposals", &expected, &found.boxes, 1e-5);
    compare(case, "scores", &rows(&golden, "proposal_scores", picked), &found.scores, 1e-5);
    // Which anchor a proposal came from: the one whose decoded box, clipped, is nearest.
    let decoded = boxes::clip(&rpn::decode(&output).select(0, 0), case.size);
    let anchor = |proposals: &Tensor| {
        let far = (proposals.unsqueeze(1) - &decoded).abs(); // [R, A, 4]
        far.sum_dim_intlist(2, false, None::<Kind>).argmin(1, false)
    };
    assert_exact("which anchors were picked", &anchor(&expected), &anchor(&found.boxes));
}

fn check_second_stage(case: &Case) {
    let golden = case.golden("oracle");
    let parts = case.parts();
    let map = channels_first(golden.get("rpn_features_to_crop"));
    let regions = turned(golden.get("proposal_boxes_absolute")).select(0, 0);
    let crops = channels_first(golden.get("cropped_features"));
    let found = parts.roi.crops(&map, &[regions.shallow_clone()], case.padded);
    compare(case, "crops", &crops, &found, LIMIT);
    // A sample beyond the last row by one bit is 0, and must be here too.
    assert_exact(
        "samples outside",
        &crops.eq(0.).all_dim(1, false),
        &found.eq(0.).all_dim(1, false),
    );
    let features = channels_first(golden.get("second_stage_features"));
    let vectors = features.mean_dim([2, 3].as_slice(), false, None::<Kind>);
    compare(case, "tail", &vectors, &parts.backbone.tail(&crops, Mode::Eval), LIMIT);
    let output = parts.roi.classify(&vectors);
    let expected = head_output(&golden);
    compare(case, "class logits", &expected.class_logits, &output.class_logits, LIMIT);
    compare(case, "box deltas", &expected.box_regression, &output.box_regression, LIMIT);
    // Rows beyond the number of proposals are filled up, and take no part.
    let number = count(&golden, "num_proposals");
    let expected = RoiOutput {
        class_logits: expected.class_logits.narrow(0, 0, number),
        box_regression: expected.box_regression.narrow(0, 0, number),
    };
    let regions = regions.narrow(0, 0, number);
    let found = select::select(&expected, &[regions], &[case.size], &case.config.roi);
    check_detections(case, &golden, &found[0], "selection", 1e-5);
}

fn check_detections(case: &Case, golden: &Golden, found: &[Detection], what: &str, limit: f64) {
    let number = count(golden, "num_detections");
    assert_eq!(found.len() as i64, number, "{} {what}: number of detections", case.name);
    let labels: Vec<i64> = found.iter().map(|d| d.label.0 as i64).collect();
    let expected = rows(golden, "detection_classes", number);
    assert_exact("classes", &expected, &Tensor::from_slice(&labels));
    let scores: Vec<f32> = found.iter().map(|d| d.score).collect();
    let expected = rows(golden, "detection_scores", number);
    compare(case, &format!("{what}: scores"), &expected, &Tensor::from_slice(&scores), limit);
    let boxes_of: Vec<Box2> = found.iter().map(|d| d.bbox).collect();
    let expected = in_pixels(&turned(&rows(golden, "detection_boxes", number)), case.size);
    let found = boxes::to_tensor(&boxes_of);
    compare(case, &format!("{what}: boxes"), &expected, &found, limit);
}

#[test]
fn from_the_image_to_the_detections_it_is_tensorflow_s() {
    let _alone = alone(); // making a network draws its first weights
    for case in cases() {
        let golden = case.golden("oracle");
        let (_store, detector) = case.detector();
        let original = image(&golden);
        let batch = loader::prepare(&[&original], &case.config.input);
        let images: Images = predict::images(&batch, Device::Cpu);
        let found = detector.detect(&images);
        check_detections(&case, &golden, &found[0], "end to end", LIMIT);
        // And back in the original's pixels, each axis by its own factor.
        let back = predict::detect(&detector, &batch, Device::Cpu);
        let (by_x, by_y) = (
            original.size.width as f32 / case.size.width as f32,
            original.size.height as f32 / case.size.height as f32,
        );
        for (input, output) in found[0].iter().zip(&back[0]) {
            assert!((input.bbox.x2 * by_x - output.bbox.x2).abs() < 1e-3);
            assert!((input.bbox.y2 * by_y - output.bbox.y2).abs() < 1e-3);
        }
    }
}
