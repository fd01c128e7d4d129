//! Faster R-CNN against torchvision: each stage from the golden input of that stage, then end to end,
//! in evaluation and in training, with losses, gradients and four steps of SGD.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

mod common;

use std::path::{Path, PathBuf};

use common::{
    Golden, alone, assert_close, assert_exact, device, json, oracle, settled, torchvision_detector,
};
use detect::config::{self, Clip, Config, Decay, LossWeights, WeightDecay};
use detect::geometry::{Box2, Detection, Label, Size};
use detect::rules::to_original;
use detect::weights::Contents;
use detect_torch::backbone::{Backbone, CutSpec};
use detect_torch::detector::assign::{Draws, Quota, sample};
use detect_torch::detector::coder::{Coder, Coding as _};
use detect_torch::detector::roi::{RoiHead, RoiOutput, Sampled};
use detect_torch::detector::rpn::{Proposals, Rpn, RpnOutput};
use detect_torch::detector::torchvision::{self, LAYERS, roi, select};
use detect_torch::detector::{FasterRcnn, Images, Losses, Truth, boxes};
use detect_torch::nn::{Init, Linear, Mode};
use detect_torch::train::optim::Optimizer;
use detect_torch::weights;
use serde_json::Value;
use tch::nn::{Path as VarPath, VarStore};
use tch::{Device, Kind, Tensor};

/// Of floats, as a share of a tensor's largest value; indices are exact.
const LIMIT: f64 = 1e-4;
const TRAIN: Mode = Mode::Train { progress: 0. };

/// The goldens' featurizer: four 3x3 convolutions of stride 2 with ReLU.
#[derive(Debug)]
struct C4(Vec<Linear>);

impl C4 {
    fn new(path: &VarPath, channels: i64) -> Self {
        let layer = |i: i64| {
            let inputs = if i == 0 { 3 } else { channels };
            let shape = [channels, inputs, 3, 3];
            Linear::new(&(path / "backbone" / (2 * i)), &shape, Init::PytorchDefault)
        };
        Self((0..4).map(layer).collect())
    }
}

impl Backbone for C4 {
    fn spec(&self) -> CutSpec {
        CutSpec { channels: self.0[0].bias.size()[0], stride: 16, tail_channels: 0 }
    }
    fn trunk(&self, images: &Tensor, _: Mode) -> Tensor {
        self.0.iter().fold(images.shallow_clone(), |x, layer| {
            x.conv2d(&layer.weight, Some(&layer.bias), [2, 2], [1, 1], [1, 1], 1).relu()
        })
    }
    fn tail(&self, _: &Tensor, _: Mode) -> Tensor {
        unreachable!("the goldens have a two-layer head")
    }
}

/// A golden case and the network that it describes.
struct Case {
    folder: PathBuf,
    meta: Value,
    config: Config,
    classes: usize,
}

fn cases() -> Vec<Case> {
    let Some(folder) = oracle("fasterrcnn") else { return Vec::new() };
    ["c4_fixed", "c4_empty_target"].map(|name| Case::new(&folder.join(name))).into()
}

impl Case {
    fn new(folder: &Path) -> Self {
        let meta = json(&folder.join("meta.json"));
        let (config, classes) = torchvision_detector(&meta);
        Self { folder: folder.into(), classes, config, meta }
    }

    fn golden(&self, name: &str) -> Golden {
        Golden::read(&self.folder.join(format!("{name}.safetensors")))
    }

    fn channels(&self) -> i64 {
        self.meta["config"]["channels"].as_i64().unwrap()
    }

    /// The whole detector with the golden weights.
    fn detector(&self) -> (VarStore, FasterRcnn<C4>) {
        let store = VarStore::new(device());
        let backbone = C4::new(&store.root(), self.channels());
        let detector = FasterRcnn::on(backbone, &store.root(), &self.config, self.classes);
        self.load(&store);
        (store, detector)
    }

    /// Its parts, for stages by themselves.
    fn parts(&self) -> (VarStore, C4, Rpn, RoiHead) {
        let store = VarStore::new(device());
        let (root, config) = (store.root(), &self.config);
        let backbone = C4::new(&root, self.channels());
        let spec = backbone.spec();
        let rpn = Rpn::new(&(&root / "rpn"), &config.rpn, config.anchors.per_cell(), spec, LAYERS);
        let path = &root / "roi_heads";
        let roi = RoiHead::new(&path, &config.detector, spec, self.classes, LAYERS);
        self.load(&store);
        (store, backbone, rpn, roi)
    }

    fn load(&self, store: &VarStore) {
        let path = self.folder.join("weights.safetensors");
        weights::load(store, &Contents::read(&path).unwrap(), "", &path).unwrap();
    }

    fn seed(&self) -> i64 {
        self.meta["config"]["seed"].as_i64().unwrap() % (1 << 31)
    }
}

fn sizes(golden: &Golden) -> Vec<Size> {
    let sizes = golden.get("image_sizes_hw");
    (0..sizes.size()[0])
        .map(|i| {
            let side = |j| sizes.int64_value(&[i, j]) as usize;
            Size::new(side(0), side(1))
        })
        .collect()
}

fn images(golden: &Golden) -> Images {
    Images { pixels: golden.get("batch").shallow_clone(), sizes: sizes(golden) }
}

fn per_image(golden: &Golden, name: &str) -> Vec<Tensor> {
    let count = golden.get("image_sizes_hw").size()[0];
    (0..count).map(|i| golden.get(&format!("{name}.{i}")).shallow_clone()).collect()
}

fn truths(golden: &Golden) -> Vec<Truth> {
    let (all_boxes, labels) =
        (per_image(golden, "target_resized.boxes"), per_image(golden, "target.labels"));
    all_boxes
        .iter()
        .zip(&labels)
        .map(|(b, l)| Truth {
            boxes: boxes::from_tensor(b),
            // Ours count classes from 0, without background.
            labels: Vec::<i64>::try_from(l)
                .unwrap()
                .iter()
                .map(|&l| Label(l as usize - 1))
                .collect(),
        })
        .collect()
}

/// The golden RPN maps as our output, for the stages after it.
fn rpn_output(golden: &Golden) -> RpnOutput {
    let n = golden.get("batch").size()[0];
    let deltas = golden.get("rpn.deltas_nchw.0").permute([0, 2, 3, 1]).reshape([n, -1, 4]);
    RpnOutput {
        objectness: golden.get("rpn.objectness_flat").unsqueeze(2),
        deltas,
        anchors: golden.get("rpn.anchors").to_device(Device::Cpu),
    }
}

/// torchvision draws one number an image for the size of the short side before anything else, even where
/// there is only one size.
fn seed_past_the_resize(seed: i64, images: usize) {
    tch::manual_seed(seed);
    for _ in 0..images {
        let _drawn = Tensor::empty([1], (Kind::Float, Device::Cpu)).uniform_(0., 1.);
    }
}

/// The scale that torchvision infers for a map: the power of two nearest to map cells per pixel of the
/// highest image of the batch, before padding.
fn inferred_scale(map: &Tensor, sizes: &[Size]) -> f64 {
    let highest = sizes.iter().map(|s| s.height).max().unwrap();
    (map.size()[2] as f64 / highest as f64).log2().round().exp2()
}

fn check_shared_stages(case: &Case, golden: &Golden, mode: Mode) {
    let (_store, backbone, rpn, roi) = case.parts();
    let what = |name: &str| format!("{} {mode:?} {name}", case.folder.display());
    tch::no_grad(|| {
        let map = golden.get("feature.0");
        assert_close(&what("trunk"), map, &backbone.trunk(golden.get("batch"), mode), LIMIT);
        let (objectness, deltas) = rpn.predictors(&rpn.hidden(map));
        assert_close(&what("objectness"), golden.get("rpn.objectness_nchw.0"), &objectness, LIMIT);
        assert_close(&what("deltas"), golden.get("rpn.deltas_nchw.0"), &deltas, LIMIT);
        let padded = images(golden).padded();
        let (grid, pixels) =
            ([map.size()[2], map.size()[3]], [padded.height as i64, padded.width as i64]);
        let anchors = torchvision::anchors::of_map(&case.config.anchors, grid, pixels);
        assert_close(&what("anchors"), golden.get("rpn.anchors"), &anchors, 0.);
        let flat = rpn.predict(map, anchors).objectness.squeeze_dim(2);
        assert_close(&what("flat"), golden.get("rpn.objectness_flat"), &flat, LIMIT);
        let output = rpn_output(golden);
        assert_close(
            &what("decoded"),
            golden.get("rpn.decoded"),
            &torchvision::rpn::decode(&output),
            LIMIT,
        );
        let logits = output.objectness.squeeze_dim(2);
        let best = logits.topk(case.config.rpn.pre_nms_eval as i64, 1, true, true).1;
        assert_exact(&what("top"), golden.get("rpn.pre_nms_index"), &best);
        let proposals =
            torchvision::rpn::proposals(&case.config.rpn, &output, &sizes(golden), mode);
        for (i, found) in proposals.iter().enumerate() {
            let get = |name: &str| golden.get(&format!("rpn.{name}.{i}"));
            assert_close(&what("proposals"), get("proposals"), &found.boxes, LIMIT);
            assert_close(&what("scores"), get("proposal_scores"), &found.scores, LIMIT);
        }
        if mode.is_train() {
            let ahead =
                torchvision::rpn::proposals_ahead(&case.config.rpn, &output, &sizes(golden))
                    .unwrap();
            for (i, found) in ahead.iter().enumerate() {
                let get = |name: &str| golden.get(&format!("rpn.{name}.{i}"));
                let [boxes, scores] = settled(found);
                assert_close(&what("proposals ahead"), get("proposals"), &boxes, LIMIT);
                assert_close(&what("scores ahead"), get("proposal_scores"), &scores, LIMIT);
            }
        }
        // What torchvision infers from the first batch is the stride that we know.
        assert_eq!(inferred_scale(map, &sizes(golden)), 1. / 16.);
        let crops = roi.crops(map, &per_image(golden, "roi.boxes"), padded);
        assert_close(&what("crops"), golden.get("roi.pooled"), &crops, LIMIT);
        let vectors = roi.vectors(&backbone, golden.get("roi.pooled"), mode);
        assert_close(&what("head"), golden.get("roi.box_head"), &vectors, LIMIT);
        let output = roi.classify(golden.get("roi.box_head"));
        assert_close(&what("class"), golden.get("roi.class_logits"), &output.class_logits, LIMIT);
        assert_close(&what("box"), golden.get("roi.box_regression"), &output.box_regression, LIMIT);
    });
}

#[test]
fn every_stage_is_torchvision_s() {
    let _alone = alone(); // making a network draws its first weights
    for case in cases() {
        check_shared_stages(&case, &case.golden("eval"), Mode::Eval);
        check_shared_stages(&case, &case.golden("train"), TRAIN);
    }
}

fn check_detections(golden: &Golden, found: &[Vec<Detection>], name: &str) {
    for (i, detections) in found.iter().enumerate() {
        let boxes_of: Vec<Box2> = detections.iter().map(|d| d.bbox).collect();
        let scores: Vec<f32> = detections.iter().map(|d| d.score).collect();
        let labels: Vec<i64> = detections.iter().map(|d| d.label.0 as i64 + 1).collect();
        let get = |part: &str| golden.get(&format!("{part}.{i}"));
        assert_exact("labels", get("det.labels"), &Tensor::from_slice(&labels));
        assert_close("scores", get("det.scores"), &Tensor::from_slice(&scores), LIMIT);
        let found = boxes::to_tensor(&boxes_of);
        assert_close(name, get(name), &found, LIMIT);
    }
}

#[test]
fn detections_are_torchvision_s() {
    let _alone = alone(); // making a network draws its first weights
    for case in cases() {
        let golden = case.golden("eval");
        let (_store, detector) = case.detector();
        // The last stage by itself.
        let output = RoiOutput {
            class_logits: golden.get("roi.class_logits").shallow_clone(),
            box_regression: golden.get("roi.box_regression").shallow_clone(),
        };
        let regions = per_image(&golden, "roi.boxes");
        let found = select::select(&output, &regions, &sizes(&golden), &case.config.roi);
        check_detections(&golden, &found, "det_resized.boxes");
        // End to end, and back to the original pixels.
        let mut found = detector.detect(&images(&golden));
        for (i, detections) in found.iter_mut().enumerate() {
            let image = golden.get(&format!("image.{i}")).size();
            let original = Size::new(image[1] as usize, image[2] as usize);
            to_original(detections, sizes(&golden)[i], original);
        }
        check_detections(&golden, &found, "det.boxes");
    }
}

#[test]
fn targets_and_samples_are_torchvision_s() {
    let _alone = alone(); // making a network draws its first weights
    for case in cases() {
        let golden = case.golden("train");
        let gt_boxes = per_image(&golden, "target_resized.boxes");
        let gt_labels = per_image(&golden, "target.labels");
        let anchors = golden.get("rpn.anchors");
        seed_past_the_resize(case.seed(), gt_boxes.len());
        for (i, gt) in gt_boxes.iter().enumerate() {
            let get = |name: &str| golden.get(&format!("rpn.{name}.{i}"));
            let settings = &case.config.rpn;
            let (labels, matched) = torchvision::rpn::assign(settings, anchors, gt);
            assert_close("rpn labels", get("label"), &labels, 0.);
            let quota = Quota::new(settings.sampled, settings.positive_fraction);
            let (positive, negative) = sample(&labels, quota);
            assert_exact("rpn positives", get("sampled_pos"), &positive);
            assert_exact("rpn negatives", get("sampled_neg"), &negative);
            if gt.size()[0] > 0 {
                // Targets of anchors that are no object are never read.
                let truth = gt.index_select(0, &matched.index_select(0, &positive));
                let found =
                    Coder::TORCHVISION_RPN.encode(&truth, &anchors.index_select(0, &positive));
                let expected = get("reg_target").index_select(0, &positive);
                assert_close("rpn targets", &expected, &found, LIMIT);
            }
        }
        let proposals = per_image(&golden, "rpn.proposals");
        let scores = per_image(&golden, "rpn.proposal_scores");
        let proposal = |(boxes, scores)| Proposals { boxes, scores, unread: None };
        let proposals: Vec<_> = proposals.into_iter().zip(scores).map(proposal).collect();
        let (settings, most) = (&case.config.roi, case.config.rpn.post_nms_train);
        let (sampled, _) =
            roi::sample_regions(settings, most, &proposals, &gt_boxes, &gt_labels, Draws::GoOn);
        for (i, found) in sampled.iter().enumerate() {
            let get = |name: &str| golden.get(&format!("roi.{name}.{i}"));
            let expected =
                Tensor::cat(&[get("sampled_pos"), get("sampled_neg")], 0).sort(0, false).0;
            assert_exact("roi samples", &expected, &found.indices);
            assert_close("roi boxes", get("sampled_boxes"), &found.boxes, 0.);
            assert_exact("roi labels", get("sampled_labels"), &found.labels);
            let objects = found.labels.gt(0).nonzero().squeeze_dim(1);
            let picked = |t: &Tensor| t.index_select(0, &objects);
            assert_close(
                "roi targets",
                &picked(get("sampled_reg_target")),
                &picked(&found.targets),
                LIMIT,
            );
        }
    }
}

#[test]
fn losses_from_the_golden_predictions_are_torchvision_s() {
    let _alone = alone(); // making a network draws its first weights
    for case in cases() {
        let golden = case.golden("train");
        let gt_boxes = per_image(&golden, "target_resized.boxes");
        seed_past_the_resize(case.seed(), gt_boxes.len());
        let here: Vec<Tensor> = gt_boxes.iter().map(|boxes| boxes.to_device(Device::Cpu)).collect();
        let (objectness, box_reg, _) =
            torchvision::rpn::losses(&case.config.rpn, &rpn_output(&golden), &here, Draws::GoOn);
        assert_close("objectness", golden.get("loss.loss_objectness"), &objectness, LIMIT);
        assert_close("rpn box", golden.get("loss.loss_rpn_box_reg"), &box_reg, LIMIT);
        let output = RoiOutput {
            class_logits: golden.get("roi.class_logits").shallow_clone(),
            box_regression: golden.get("roi.box_regression").shallow_clone(),
        };
        let sampled: Vec<Sampled> = (0..gt_boxes.len())
            .map(|i| {
                let get =
                    |name: &str| golden.get(&format!("roi.sampled_{name}.{i}")).shallow_clone();
                let labels = get("labels");
                Sampled {
                    indices: labels.shallow_clone(),
                    boxes: get("boxes"),
                    targets: get("reg_target"),
                    labels,
                }
            })
            .collect();
        let (classifier, box_reg) = roi::losses(&output, &sampled, 0.);
        assert_close("classifier", golden.get("loss.loss_classifier"), &classifier, LIMIT);
        assert_close("box", golden.get("loss.loss_box_reg"), &box_reg, LIMIT);
    }
}

#[test]
fn a_training_step_end_to_end_gives_torchvision_s_losses_and_gradients() {
    let _alone = alone(); // making a network draws its first weights
    for case in cases() {
        let golden = case.golden("train");
        let (store, detector) = case.detector();
        let truths = truths(&golden);
        seed_past_the_resize(case.seed(), truths.len());
        let losses = detector.losses(&images(&golden), &truths, TRAIN);
        for (name, part) in Losses::NAMES.iter().zip(losses.parts()) {
            assert_close(name, golden.get(&format!("loss.{name}")), part, LIMIT);
        }
        losses.total(&LossWeights::ONES).backward();
        for (name, variable) in weights::named_variables(&store) {
            let what = format!("{}: gradient of {name}", case.folder.display());
            assert_close(&what, golden.get(&format!("grad.total.{name}")), &variable.grad(), LIMIT);
        }
        // Each loss by itself reaches the first convolution.
        for (i, name) in Losses::NAMES.iter().enumerate() {
            let golden_name = format!("grad.{name}.backbone.0.weight");
            let (store, detector) = case.detector();
            seed_past_the_resize(case.seed(), truths.len());
            detector.losses(&images(&golden), &truths, TRAIN).parts()[i].backward();
            let gradient = weights::named_variables(&store)["backbone.0.weight"].grad();
            assert_close(&golden_name, golden.get(&golden_name), &gradient, LIMIT);
        }
    }
}

#[test]
fn four_steps_of_sgd_give_torch_s_losses_and_weights() {
    let _alone = alone(); // making a network draws its first weights
    for case in cases() {
        let golden = case.golden("train");
        let (store, detector) = case.detector();
        let truths = truths(&golden);
        let mut train = case.config.train.clone();
        let how = Decay::AfterClipping;
        train.optimizer = config::Optimizer::Sgd { momentum: 0.9 };
        train.weight_decay = WeightDecay { rate: 1e-4, how, norm: true, heads: true };
        train.clip = Clip::None;
        let mut optimizer = Optimizer::new(&store, &train);
        for step in 0..4 {
            let seed = (case.meta["config"]["seed"].as_i64().unwrap() + step) % (1 << 31);
            seed_past_the_resize(seed, truths.len());
            let losses = detector.losses(&images(&golden), &truths, TRAIN);
            for (name, value) in Losses::NAMES.iter().zip(losses.values()) {
                let expected = case.meta["sgd_trajectory"][step as usize][*name].as_f64().unwrap();
                // Differences grow from step to step: decisions of the matcher depend on them.
                let far = (value - expected).abs() / expected.abs().max(0.1);
                assert!(far <= 1e-3, "step {step} {name}: {value}, expected {expected}");
            }
            optimizer.zero_grad();
            losses.total(&LossWeights::ONES).backward();
            let norm = optimizer.complete();
            optimizer.step(0.01, norm, step as usize);
        }
        let after = case.golden("weights_after_sgd");
        for (name, variable) in weights::named_variables(&store) {
            assert_close(&format!("after SGD: {name}"), after.get(&name), &variable, 1e-3);
        }
    }
}
