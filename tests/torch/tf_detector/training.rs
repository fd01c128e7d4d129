//! A training step from TensorFlow's samples: targets, losses, gradients, running statistics.
//!
//! Its samples are drawn by its own generator, so the step is made of parts that are told what was drawn;
//! the whole is then held by the three losses that no draw changes.

use std::collections::BTreeMap;

use detect::geometry::Label;
use detect_torch::backbone::Backbone;
use detect_torch::detector::assign::Draws;
use detect_torch::detector::coder::{Coder, Coding as _};
use detect_torch::detector::roi::Sampled;
use detect_torch::detector::rpn::RpnOutput;
use detect_torch::detector::tf::{roi, rpn};
use detect_torch::detector::{Images, Losses, Truth, boxes};
use detect_torch::nn::Mode;
use detect_torch::weights::named_variables;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::case::{
    Case, LIMIT, cases, channels_first, compare, head_output, in_pixels, rpn_output, turned,
};
use crate::common::{Golden, alone, assert_exact, difference, settled};
use crate::names;

const TRAIN: Mode = Mode::Train { progress: 0. };
/// Of losses.
const LOSS_LIMIT: f64 = 1e-5;

/// The cases that have a training step.
fn training_cases() -> Vec<(Case, Golden)> {
    let trained = cases().into_iter().filter(|case| case.has("train_oracle"));
    trained
        .map(|case| {
            let golden = case.golden("train_oracle");
            (case, golden)
        })
        .collect()
}

/// The ground truths in pixels, and their labels, 0 being background.
fn truth(case: &Case, golden: &Golden) -> (Tensor, Tensor) {
    let boxes = in_pixels(&turned(golden.get("gt_boxes_normalized")), case.padded);
    (boxes, golden.get("gt_classes0") + 1)
}

fn indices(mask: &Tensor) -> Tensor {
    mask.nonzero().squeeze_dim(1)
}

/// The anchors that TensorFlow drew.
fn sampled_anchors(golden: &Golden) -> rpn::SampledAnchors {
    let drawn = golden.get("rpn_sampled").ne(0);
    let object = golden.get("rpn_sample_labels").ne(0);
    let positive = indices(&drawn.logical_and(&object));
    let targets = turned(golden.get("rpn_reg_targets")).select(0, 0);
    rpn::SampledAnchors {
        targets: targets.index_select(0, &positive),
        negative: indices(&drawn.logical_and(&object.logical_not())),
        positive,
    }
}

/// The regions that TensorFlow drew.
fn sampled_regions(golden: &Golden) -> Sampled {
    let labels = golden.get("det_cls_targets").select(0, 0).argmax(1, false);
    Sampled {
        indices: Tensor::arange(labels.size()[0], (Kind::Int64, Device::Cpu)),
        boxes: turned(golden.get("proposal_boxes_sampled")).select(0, 0),
        targets: turned(golden.get("det_reg_targets")).select(0, 0),
        labels,
    }
}

#[test]
fn targets_are_tensorflow_s() {
    for (case, golden) in training_cases() {
        check_targets(&case, &golden);
    }
}

fn check_targets(case: &Case, golden: &Golden) {
    let map = channels_first(golden.get("rpn_features_to_crop"));
    let anchors = case.anchors(&map);
    // The network's numbers of the dropped anchors go with them: here each anchor's number is its place.
    let place = Tensor::arange(anchors.size()[0], (Kind::Float, Device::Cpu)).reshape([1, -1, 1]);
    let output = RpnOutput {
        objectness: place.shallow_clone(),
        deltas: place.expand([1, -1, 4], false),
        anchors: anchors.shallow_clone(),
    };
    let inside = rpn::inside_only(&output, case.padded);
    let expected = turned(golden.get("anchors"));
    compare(case, "anchors inside", &expected, &inside.anchors, 0.);
    let places = inside.objectness.reshape([-1]).to_kind(Kind::Int64);
    compare(case, "and their places", &expected, &anchors.index_select(0, &places), 0.);
    assert!(inside.deltas.select(2, 3).equal(&inside.objectness.squeeze_dim(2)));

    let (gt_boxes, gt_labels) = truth(case, golden);
    let (labels, matched) = rpn::assign(&case.config.rpn, &inside.anchors, &gt_boxes);
    assert_exact("objects", &golden.get("rpn_cls_targets").reshape([-1]), &labels.eq(1.));
    assert_exact(
        "anchors that count",
        &golden.get("rpn_cls_weights").reshape([-1]),
        &labels.ge(0.),
    );
    assert_exact("candidates", &golden.get("rpn_sample_candidates").ne(0), &labels.ge(0.));
    let positive = indices(&labels.eq(1.));
    let found = Coder::TF.encode(
        &gt_boxes.index_select(0, &matched.index_select(0, &positive)),
        &inside.anchors.index_select(0, &positive),
    );
    let targets = turned(golden.get("rpn_reg_targets")).select(0, 0);
    compare(case, "rpn targets", &targets.index_select(0, &positive), &found, 1e-6);

    let drawn = sampled_regions(golden);
    let (labels, targets) = roi::assign(&case.config.roi, &drawn.boxes, &gt_boxes, &gt_labels);
    assert_exact("classes of regions", &drawn.labels, &labels);
    let objects = indices(&labels.gt(0));
    let picked = |t: &Tensor| t.index_select(0, &objects);
    compare(case, "roi targets", &picked(&drawn.targets), &picked(&targets), 1e-6);
}

#[test]
fn proposals_in_training_are_tensorflow_s_and_every_sample_obeys_the_quotas() {
    let _alone = alone(); // the generator
    for (case, golden) in training_cases() {
        check_samples(&case, &golden);
    }
}

fn check_samples(case: &Case, golden: &Golden) {
    let output = rpn_output(golden);
    let size = [case.padded];
    let found = rpn::proposals(&case.config.rpn, &output, &size, TRAIN);
    // All proposals were drawn, since there are no more than the sample has places.
    let proposals = found[0].boxes.size()[0];
    let expected = sampled_regions(golden).boxes;
    compare(case, "training proposals", &expected, &found[0].boxes, 1e-5);
    let ahead = rpn::proposals_ahead(&case.config.rpn, &output, &size).unwrap();
    compare(case, "training proposals ahead", &expected, &settled(&ahead[0])[0], 1e-5);
    let (gt_boxes, gt_labels) = truth(case, golden);
    let settings = &case.config.rpn;
    let drawn = rpn::sample_anchors(settings, &output.anchors, &gt_boxes, 0, Draws::GoOn);
    let expected = sampled_anchors(golden);
    assert_exact("all objects are drawn", &expected.positive, &drawn.positive);
    assert_eq!(expected.negative.size(), drawn.negative.size());
    compare(case, "targets of drawn anchors", &expected.targets, &drawn.targets, 1e-6);
    let mut settings = case.config.roi.clone();
    (settings.sampled, settings.positive_fraction) = (12, 0.25);
    let most = case.config.rpn.post_nms_train;
    let (gt_boxes, gt_labels) = ([gt_boxes], [gt_labels]);
    let drawn = roi::sample_regions(&settings, most, &found, &gt_boxes, &gt_labels, Draws::GoOn)
        .0
        .remove(0);
    assert_eq!(drawn.labels.size(), [12]);
    // At most a quarter of twelve, which are three, are objects; ground truths are not among them.
    let objects = |labels: &Tensor| labels.gt(0).sum(Kind::Int64).int64_value(&[]);
    let all = objects(&sampled_regions(golden).labels);
    assert_eq!(objects(&drawn.labels), all.min(3));
    assert!(drawn.indices.max().int64_value(&[]) < proposals);
}

/// The golden losses without their weights, in the order of [`Losses::NAMES`].
fn golden_losses(case: &Case, golden: &Golden) -> [Tensor; 4] {
    let weights = case.config.train.loss_weights;
    [
        ("BoxClassifierLoss.classification_loss", weights.class),
        ("BoxClassifierLoss.localization_loss", weights.box_),
        ("RPNLoss.objectness_loss", weights.objectness),
        ("RPNLoss.localization_loss", weights.rpn_box),
    ]
    .map(|(name, weight)| golden.get(&format!("loss.Loss.{name}")).squeeze_dim(0) / weight)
}

#[test]
fn losses_from_the_golden_predictions_are_tensorflow_s() {
    for (case, golden) in training_cases() {
        check_losses(&case, &golden);
    }
}

fn check_losses(case: &Case, golden: &Golden) {
    let (objectness, rpn_box_reg) = rpn::losses(&rpn_output(golden), &[sampled_anchors(golden)]);
    let (classifier, box_reg) = roi::losses(&head_output(golden), &[sampled_regions(golden)], 0.);
    let losses = Losses { classifier, box_reg, objectness, rpn_box_reg, auxiliary: None };
    for ((name, part), expected) in
        Losses::NAMES.iter().zip(losses.parts()).zip(golden_losses(case, golden))
    {
        compare(case, name, &expected, part, LOSS_LIMIT);
    }
    let total = losses.total(&case.config.train.loss_weights);
    compare(case, "total", &golden.get("total_loss").squeeze(), &total, LOSS_LIMIT);
}

/// A step of our own network on `pixels` and in their kind, with what TensorFlow drew; gradients and moved statistics are in
/// the store.
fn step(case: &Case, golden: &Golden, pixels: &Tensor) -> (VarStore, Losses, Tensor) {
    let mut parts = case.parts();
    if pixels.kind() == Kind::Double {
        parts.store.double();
    }
    let map = parts.backbone.trunk(pixels, TRAIN);
    let output = rpn::inside_only(&parts.rpn.predict(&map, case.anchors(&map)), case.padded);
    let (objectness, rpn_box_reg) = rpn::losses(&output, &[sampled_anchors(golden)]);
    let drawn = sampled_regions(golden);
    let crops = parts.roi.crops(&map, &[drawn.boxes.shallow_clone()], case.padded);
    let output = parts.roi.classify(&parts.backbone.tail(&crops, TRAIN));
    let (classifier, box_reg) = roi::losses(&output, &[drawn], 0.);
    let losses = Losses { classifier, box_reg, objectness, rpn_box_reg, auxiliary: None };
    losses.total(&case.config.train.loss_weights).backward();
    (parts.store, losses, map.detach())
}

/// What part of the detector a variable is in.
fn part_of(case: &Case, name: &str) -> &'static str {
    if name.starts_with("rpn.") {
        return "rpn";
    }
    if name.starts_with("roi_heads.") {
        return "heads";
    }
    let plan = case.config.backbone.plan();
    let trunk = plan.stride_16().unwrap()[1].0;
    let in_tail = plan.cells[trunk..]
        .iter()
        .any(|cell| name.starts_with(&format!("backbone.{}.", cell.name)));
    if in_tail { "tail" } else { "trunk" }
}

/// Median, 90th percentile and largest.
fn spread(mut far: Vec<f64>) -> [f64; 3] {
    far.sort_by(f64::total_cmp);
    let at = |share: f64| far[((far.len() - 1) as f64 * share).round() as usize];
    [at(0.5), at(0.9), at(1.)]
}

fn shown(spread: [f64; 3]) -> String {
    spread.map(|far| format!("{far:.2e}")).join("  ")
}

#[test]
fn a_training_step_gives_tensorflow_s_gradients_as_far_as_single_precision_goes() {
    let _alone = alone(); // making a network draws its first weights
    for (case, golden) in training_cases() {
        check_gradients(&case, &golden);
    }
}

fn check_gradients(case: &Case, golden: &Golden) {
    let pixels = channels_first(golden.get("pre"));
    let (single, losses, map) = step(case, golden, &pixels);
    let expected = channels_first(golden.get("rpn_features_to_crop"));
    compare(case, "trunk with batch statistics", &expected, &map, LIMIT);
    for ((name, part), expected) in
        Losses::NAMES.iter().zip(losses.parts()).zip(golden_losses(case, golden))
    {
        compare(case, &format!("step: {name}"), &expected, part, LIMIT);
    }
    let (double, _, exact_map) = step(case, golden, &pixels.to_kind(Kind::Double));
    // How much a gradient hangs on the last bits: an input moved by about as much as it is rounded.
    tch::manual_seed(1);
    let (moved, _, moved_map) = step(case, golden, &(&pixels + pixels.randn_like() * 1e-6));
    eprintln!(
        "the trunk's map to double: TensorFlow's {:.2e}, ours {:.2e}, ours of a moved input {:.2e}",
        difference(&exact_map, &expected),
        difference(&exact_map, &map),
        difference(&exact_map, &moved_map)
    );
    let [single, double, moved] = [&single, &double, &moved].map(named_variables);
    let gradients = names::ours(&case.golden("train_grads"));
    let trainable = single.values().filter(|v| v.requires_grad()).count();
    assert_eq!(gradients.len(), trainable, "every gradient is compared");
    for part in ["heads", "rpn", "tail", "trunk"] {
        let of_part = gradients.iter().filter(|(name, _)| part_of(case, name) == part);
        let mut far: [Vec<f64>; 5] = Default::default();
        for (name, expected) in of_part {
            let (ours, exact) = (single[name].grad(), double[name].grad());
            far[0].push(difference(expected, &ours));
            far[1].push(difference(&exact, expected));
            far[2].push(difference(&exact, &ours));
            far[3].push(difference(&exact, &moved[name].grad()));
            far[4].push(along(&exact, expected));
        }
        let tensors = far[0].len();
        let [apart, theirs, ours, moved, scale] = far.map(spread);
        let rows = [
            "ours to TensorFlow's",
            "TensorFlow's to double",
            "ours to double",
            "ours of a moved input",
        ];
        eprintln!("gradients of {part}, {tensors} tensors: median, 90 %, largest");
        for (row, spread) in rows.iter().zip([apart, theirs, ours, moved, scale]) {
            eprintln!("  {row:24} {}", shown(spread));
        }
        if matches!(part, "heads" | "rpn") {
            assert!(apart[2] <= 1e-3, "{part}: {}", shown(apart));
        }
        // The rest is rounding: as large where the input moves by its last bits, and not in one direction,
        // as a wrong rule would be.
        let limit = if part == "trunk" { 3e-2 } else { 1e-2 };
        assert!(theirs[1] <= limit && ours[1] <= limit, "{part}: {}", shown(ours));
        assert!(scale[0] <= 5e-3, "{part}: {}", shown(scale));
    }
}

/// How far the factor between two tensors, by least squares, is from 1.
fn along(exact: &Tensor, found: &Tensor) -> f64 {
    let found = found.to_kind(Kind::Double);
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
    (dot(&found, exact) / dot(exact, exact) - 1.).abs()
}

#[test]
fn running_statistics_move_as_tensorflow_s() {
    let _alone = alone(); // making a network draws its first weights
    for (case, golden) in training_cases() {
        check_statistics(&case, &golden);
    }
}

fn check_statistics(case: &Case, golden: &Golden) {
    let before = named_variables(&case.parts().store);
    let before: BTreeMap<_, _> =
        before.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
    let (store, ..) = step(case, golden, &channels_first(golden.get("pre")));
    let after = named_variables(&store);
    let map = golden.get("rpn_features_to_crop").size();
    let plan = case.config.backbone.plan();
    let last_cell = format!("backbone.{}.", plan.cells[plan.stride_16().unwrap()[1].0 - 1].name);
    let cells = (map[1] * map[2]) as f64;
    let (mut moved, mut kept) = (0, 0);
    let (mut worst, mut of_movement, mut biased) = (0_f64, Vec::new(), Vec::new());
    for (name, expected) in names::ours(&case.golden("train_bn_updated")) {
        let (start, found) = (&before[&name], &after[&name]);
        if part_of(case, &name) == "tail" {
            assert!(expected.equal(start) && found.equal(start), "{name} moved");
            kept += 1;
        } else {
            worst = worst.max(difference(&expected, found));
            // Of the step itself, which is small beside the value.
            let movement = &expected - start;
            of_movement.push(difference(&movement, &(found - start)));
            if name.starts_with(&last_cell) && name.ends_with("running_var") {
                // As it would be without Bessel's correction.
                let m = case.config.backbone.norm_momentum;
                let batch: Tensor = (found - start) / m + start;
                biased.push(difference(&movement, &((batch * (1. - 1. / cells) - start) * m)));
            }
            moved += 1;
        }
    }
    let of_movement = spread(of_movement);
    eprintln!("running statistics: {worst:.2e}; of their movement {}", shown(of_movement));
    assert!(moved > 0 && kept > 0);
    assert!(worst <= 1e-6, "{worst:.2e}");
    let biased = spread(biased);
    eprintln!("the same of a biased variance: {}", shown(biased));
    assert!(of_movement[2] <= 5e-3 && biased[0] > 5e-3);
}

#[test]
fn the_losses_of_the_whole_detector_are_tensorflow_s_where_no_draw_changes_them() {
    let _alone = alone(); // the generator
    for (case, golden) in training_cases() {
        check_whole(&case, &golden);
    }
}

fn check_whole(case: &Case, golden: &Golden) {
    let (_store, detector) = case.detector();
    let (gt_boxes, gt_labels) = truth(case, golden);
    let labels = Vec::<i64>::try_from(gt_labels - 1).unwrap();
    let truth = Truth {
        boxes: boxes::from_tensor(&gt_boxes),
        labels: labels.into_iter().map(|label| Label(label as usize)).collect(),
    };
    let pixels = channels_first(golden.get("pre"));
    let images = Images { pixels, sizes: vec![case.padded] };
    let losses = detector.losses(&images, &[truth], TRAIN);
    for ((name, part), expected) in
        Losses::NAMES.iter().zip(losses.parts()).zip(golden_losses(case, golden))
    {
        // Which negative anchors are drawn changes the objectness alone: all else was drawn whole.
        let limit = if *name == "loss_objectness" { 0.3 } else { LIMIT };
        compare(case, &format!("whole: {name}"), &expected, part, limit);
    }
    // Without truth everything is background, and gradients are finite.
    let losses = detector.losses(&images, &[Truth::default()], TRAIN);
    assert_eq!(losses.values()[1], 0.);
    assert!(losses.values().iter().all(|value| value.is_finite()));
    losses.total(&case.config.train.loss_weights).backward();
}
