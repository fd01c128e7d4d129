//! Rules that are easily got wrong: each is turned into the wrong one, from outside, and the comparison that
//! holds it has to fail. Each first shows that the right rule passes.

use detect::config::{Config, Pooling};
use detect::geometry::Size;
use detect::nasnet::Wiring;
use detect::nms::first_apart;
use detect_torch::backbone::Backbone;
use detect_torch::detector::rpn::RpnOutput;
use detect_torch::detector::tf::{self, rpn};
use detect_torch::detector::{boxes, family::Layers};
use detect_torch::nn::{Mode, same};
use detect_torch::weights::named_variables;
use tch::{Kind, Tensor};

use crate::case::{
    Case, LIMIT, channels_first, compare, compare_fails, count, rows, rpn_output, turned,
};
use crate::common::{Golden, alone};

fn both() -> impl Iterator<Item = Case> {
    ["small", "thin"].into_iter().filter_map(Case::new)
}

/// The trunk's map with one key of the configuration changed.
fn trunk(case: &Case, golden: &Golden, change: impl FnOnce(&mut Config)) -> Tensor {
    let mut config = case.config.clone();
    change(&mut config);
    let parts = case.parts_with(&config, tf::LAYERS);
    let pixels = channels_first(golden.get("resized_preprocessed"));
    tch::no_grad(|| parts.backbone.trunk(&pixels, Mode::Eval))
}

#[test]
fn the_wiring_after_a_reduction_and_the_divisor_of_pools_are_seen() {
    let _alone = alone(); // making a network draws its first weights
    for case in both() {
        let golden = case.golden("oracle");
        let map = channels_first(golden.get("rpn_features_to_crop"));
        compare(&case, "trunk", &map, &trunk(&case, &golden, |_| ()), LIMIT);
        let mobile = trunk(&case, &golden, |c| c.backbone.wiring = Wiring::Mobile);
        compare_fails(&case, "second input after a reduction", &map, &mobile);
        let counted = trunk(&case, &golden, |c| c.backbone.pooling = Pooling::Timm);
        compare_fails(&case, "pools that count padding", &map, &counted);
    }
}

#[test]
fn symmetric_padding_is_seen() {
    for case in both() {
        // The first reduction on an even map: there SAME pads at the bottom and at the right alone.
        let inner = case.golden("oracle_inner");
        let get = |name: &str| {
            let name = format!("op.FirstStageFeatureExtractor.reduction_cell_0.{name}");
            channels_first(inner.get(&name))
        };
        let input = get("beginning_bn.FusedBatchNormV3");
        assert_eq!(input.size()[2] % 2, 0);
        let expected = get("comb_iter_1.left.MaxPool2D.MaxPool");
        compare(&case, "max pool", &expected, &same::max_pool(&input, 3, 2), LIMIT);
        let symmetric = input.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        compare_fails(&case, "symmetric padding, max pool", &expected, &symmetric);
        let expected = get("comb_iter_2.left.AvgPool2D.AvgPool");
        let average = same::average_pool(&input, 2, Pooling::Tf);
        compare(&case, "average pool", &expected, &average, LIMIT);
        let symmetric =
            input.avg_pool2d([3, 3], [2, 2], [1, 1], false, /* count padding */ false, None);
        compare_fails(&case, "symmetric padding, average pool", &expected, &symmetric);
    }
}

#[test]
fn the_order_of_the_two_cells_at_the_cut_is_seen() {
    let _alone = alone(); // making a network draws its first weights
    for case in both() {
        let golden = case.golden("oracle");
        let parts = case.parts();
        let swapped = |map: &Tensor| {
            let halves = map.chunk(2, 1);
            Tensor::cat(&[&halves[1], &halves[0]], 1)
        };
        let map = channels_first(golden.get("rpn_features_to_crop"));
        let pixels = channels_first(golden.get("resized_preprocessed"));
        let found = tch::no_grad(|| parts.backbone.trunk(&pixels, Mode::Eval));
        compare_fails(&case, "cells joined the other way", &map, &swapped(&found));
        let crops = channels_first(golden.get("cropped_features"));
        let features = channels_first(golden.get("second_stage_features"));
        let vectors = features.mean_dim([2, 3].as_slice(), false, None::<Kind>);
        let tail = |crops: &Tensor| tch::no_grad(|| parts.backbone.tail(crops, Mode::Eval));
        compare(&case, "tail", &vectors, &tail(&crops), LIMIT);
        compare_fails(&case, "crops split the other way", &vectors, &tail(&swapped(&crops)));
    }
}

#[test]
fn relu_without_its_limit_of_6_is_seen() {
    let _alone = alone(); // making a network draws its first weights
    for case in both() {
        let golden = case.golden("oracle");
        let map = channels_first(golden.get("rpn_features_to_crop"));
        let hidden = channels_first(golden.get("rpn_box_predictor_features"));
        let found = |layers: Layers| {
            tch::no_grad(|| case.parts_with(&case.config, layers).rpn.hidden(&map))
        };
        compare(&case, "relu6", &hidden, &found(tf::LAYERS), LIMIT);
        let relu = Layers { activation: Tensor::relu, ..tf::LAYERS };
        compare_fails(&case, "relu for relu6", &hidden, &found(relu));
    }
}

#[test]
fn deltas_in_tensorflow_s_order_are_seen() {
    let _alone = alone(); // making a network draws its first weights
    for case in both() {
        let golden = case.golden("oracle");
        let map = channels_first(golden.get("rpn_features_to_crop"));
        let parts = case.parts();
        let variables = named_variables(&parts.store);
        // As an importer leaves the rows that does not turn them.
        tch::no_grad(|| {
            for name in ["weight", "bias"] {
                let mut rows = variables[&format!("rpn.head.bbox_pred.{name}")].shallow_clone();
                // [A * 4, ..] -> [A, .., 4], whose last dimension is turned back.
                let by_anchor = rows.reshape([-1, 4, rows.numel() as i64 / rows.size()[0]]);
                let unturned = turned(&by_anchor.transpose(1, 2)).transpose(1, 2);
                rows.copy_(&unturned.reshape(rows.size()));
            }
            let found = parts.rpn.predict(&map, case.anchors(&map));
            let expected = turned(golden.get("rpn_box_encodings"));
            compare_fails(&case, "rows of the box predictor", &expected, &found.deltas);
        });
        // What it would come to: other proposals.
        let mut output = rpn_output(&golden);
        output.deltas = golden.get("rpn_box_encodings").shallow_clone();
        proposals_differ(&case, &golden, &output, "deltas with y first");
    }
}

fn golden_proposals(golden: &Golden) -> Tensor {
    turned(&rows(golden, "proposal_boxes_absolute", count(golden, "num_proposals")))
}

fn proposals_differ(case: &Case, golden: &Golden, output: &RpnOutput, what: &str) {
    let found = rpn::proposals(&case.config.rpn, output, &[case.padded], Mode::Eval);
    compare_fails(case, what, &golden_proposals(golden), &found[0].boxes);
}

#[test]
fn anchors_that_are_not_clipped_are_seen() {
    for case in both() {
        let golden = case.golden("oracle");
        let mut output = rpn_output(&golden);
        output.anchors = case.anchors(&channels_first(golden.get("rpn_features_to_crop")));
        compare_fails(
            &case,
            "anchors beyond the border",
            &turned(golden.get("anchors")),
            &output.anchors,
        );
        proposals_differ(&case, &golden, &output, "deltas from anchors beyond the border");
    }
}

#[test]
fn suppression_after_clipping_is_seen() {
    // The eight proposals of the other case come out the same both ways.
    let Some(case) = Case::new("small") else { return };
    let golden = case.golden("oracle");
    let output = rpn_output(&golden);
    let (size, settings) = (case.padded, &case.config.rpn);
    let scores = boxes::to_vec(&output.objectness.softmax(2, None::<Kind>).select(2, 1));
    let decoded = rpn::decode(&output).select(0, 0);
    let clipped = boxes::clip(&decoded, size);
    let picked = |from: &Tensor| {
        let (iou, most) = (settings.nms_iou as f32, settings.post_nms_eval);
        let kept = first_apart(&boxes::from_tensor(from), &scores, 0., iou, most);
        clipped.index_select(0, &boxes::indices(&kept, clipped.device()))
    };
    let expected = golden_proposals(&golden);
    compare(&case, "suppression, then clipping", &expected, &picked(&decoded), 1e-5);
    compare_fails(&case, "clipping, then suppression", &expected, &picked(&clipped));
}

#[test]
fn crops_by_the_stride_are_seen() {
    let _alone = alone(); // making a network draws its first weights
    for case in both() {
        let golden = case.golden("oracle");
        let parts = case.parts();
        let map = channels_first(golden.get("rpn_features_to_crop"));
        let regions = [turned(golden.get("proposal_boxes_absolute")).select(0, 0)];
        let crops = channels_first(golden.get("cropped_features"));
        let found = |padded: Size| tch::no_grad(|| parts.roi.crops(&map, &regions, padded));
        compare(&case, "crops", &crops, &found(case.padded), LIMIT);
        // An input of 16 (H - 1) pixels puts pixel p at p / 16 on the map.
        let side = |n: i64| 16 * (n as usize - 1);
        let by_stride = Size::new(side(map.size()[2]), side(map.size()[3]));
        compare_fails(&case, "pixel p at p / 16 on the map", &crops, &found(by_stride));
    }
}
