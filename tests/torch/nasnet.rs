//! NASNet-A against golden tensors: every cell, the logits, gradients and batch-norm statistics.
//!
//! The goldens come from timm's cells, rewired for any number of cells and either second input, with
//! average pools that do not count padding; they were checked against TF-slim's and Cadene's networks.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

mod common;

use std::path::Path;

use common::{Golden, assert_close, device, difference, json, oracle};
use detect::config::{Backbone, Cut, NormMode, Pooling};
use detect::geometry::Size;
use detect::nasnet::notation::{CellText, OwnCells};
use detect::nasnet::plan::Map;
use detect::nasnet::{BackboneName, Cells, Family, Form, Wiring};
use detect::weights::Contents;
use detect_torch::backbone::{Backbone as _, Classifier, NasNet};
use detect_torch::nn::Mode;
use detect_torch::weights;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Float32 goldens move by up to 7e-5 of their largest value with threads and layouts; a wrong rule
/// moves them by 5e-3 at least.
const LIMIT: f64 = 2e-4;
/// Of gradients in double precision.
const LIMIT_F64: f64 = 1e-6;

/// The cases of the folder: exact SAME pools and timm's.
fn cases() -> Vec<std::path::PathBuf> {
    let Some(folder) = oracle("nasnet") else { return Vec::new() };
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 3, "the goldens are incomplete");
    cases
}

fn section(case: &Path) -> (Backbone, usize) {
    let config = &json(&case.join("meta.json"))["config"];
    let number = |key: &str| config[key].as_u64().unwrap() as usize;
    let same = config["kind"] == "same";
    // timm's class has six cells a stage and the large wiring.
    let large = if same { config["skip_reduction_input"].as_bool().unwrap() } else { true };
    let section = Backbone {
        name: BackboneName::a(
            if same { number("cells_per_stage") } else { 6 },
            number("num_features"),
            Form::ImageNet,
        ),
        wiring: if large { Wiring::Large } else { Wiring::Mobile },
        stem_filters: number("stem_size"),
        pooling: if same { Pooling::Tf } else { Pooling::Timm },
        norm_eps: 1e-3,
        norm_momentum: 0.1,
        norm: NormMode::Live,
        tail_norm: NormMode::Live,
        drop_path_keep: 1.,
        genotype: None,
    };
    (section, number("num_classes"))
}

fn network(case: &Path, change: impl FnOnce(&mut Backbone)) -> (VarStore, Classifier) {
    let (mut section, classes) = section(case);
    change(&mut section);
    let store = VarStore::new(device());
    let network = Classifier::new(&store.root(), &section, classes);
    let path = case.join("weights.safetensors");
    weights::load(&store, &Contents::read(&path).unwrap(), "", &path).unwrap();
    (store, network)
}

#[test]
fn every_cell_and_the_logits_are_the_goldens() {
    for case in cases() {
        let (_store, network) = network(&case, |_| ());
        let timm = section(&case).0.pooling == Pooling::Timm;
        for i in 0..3 {
            let golden = Golden::read(&case.join(format!("features_{i}.safetensors")));
            let found = tch::no_grad(|| network.forward(golden.get("input"), Mode::Eval));
            let mut compared = 0;
            for (name, tensor) in &found {
                if golden.has(name) {
                    // timm's last ReLU works in place: its last cell was recorded after it.
                    let after_relu = timm && name == "cell_17";
                    let tensor = if after_relu { tensor.relu() } else { tensor.shallow_clone() };
                    let what = format!("{}/{i}/{name}", case.display());
                    assert_close(&what, golden.get(name), &tensor, LIMIT);
                    compared += 1;
                }
            }
            assert_eq!(
                compared,
                golden.iter().count() - 1,
                "every golden but the input is compared"
            );
        }
    }
}

/// Runs forward and backward and gives the logits; gradients are in the store.
fn backward(network: &Classifier, golden: &Golden, mode: Mode, kind: Kind) -> Tensor {
    let maps = network.forward(&golden.get("input").to_kind(kind), mode);
    let logits = maps.into_iter().next_back().unwrap().1;
    (&logits * golden.get("loss_weight").to_kind(kind)).sum(kind).backward();
    logits
}

fn assert_gradients(store: &VarStore, golden: &Golden, case: &Path, limit: f64) {
    let mut compared = 0;
    for (name, variable) in weights::named_variables(store) {
        if variable.requires_grad() {
            let what = format!("{}: gradient of {name}", case.display());
            assert_close(&what, golden.get(&format!("grad.{name}")), &variable.grad(), limit);
            compared += 1;
        }
    }
    let goldens = golden.iter().filter(|(name, _)| name.starts_with("grad.")).count();
    assert_eq!(compared, goldens, "every golden gradient is compared");
}

#[test]
fn gradients_with_frozen_statistics_are_the_goldens() {
    for case in cases() {
        let path = case.join("backward_eval.safetensors");
        if !path.is_file() {
            continue; // one case was made without
        }
        let golden = Golden::read(&path);
        let (store, network) = network(&case, |_| ());
        let logits = backward(&network, &golden, Mode::Eval, Kind::Float);
        assert_close("logits", golden.get("logits"), &logits, LIMIT);
        assert_gradients(&store, &golden, &case, LIMIT);
    }
}

#[test]
fn a_training_step_gives_the_golden_statistics_and_in_double_precision_the_golden_gradients() {
    for case in cases() {
        let golden = Golden::read(&case.join("backward_train.safetensors"));
        let (store, network_f32) = network(&case, |_| ());
        let mode = Mode::Train { progress: 0. };
        let logits = backward(&network_f32, &golden, mode, Kind::Float);
        assert_close("logits", golden.get("logits"), &logits, LIMIT);
        let variables = weights::named_variables(&store);
        let mut compared = 0;
        for (name, tensor) in
            golden.iter().filter_map(|(n, t)| Some((n.strip_prefix("after.")?, t)))
        {
            assert_close(&format!("{}: {name}", case.display()), tensor, &variables[name], LIMIT);
            compared += 1;
        }
        assert!(compared > 0);

        let golden = Golden::read(&case.join("backward_train_f64.safetensors"));
        let (mut store, network_f64) = network(&case, |_| ());
        store.double();
        let _logits = backward(&network_f64, &golden, mode, Kind::Double);
        assert_gradients(&store, &golden, &case, LIMIT_F64);
    }
}

/// How far the logits of the first input move when one rule is changed.
fn moved_by(case: &Path, change: impl FnOnce(&mut Backbone)) -> f64 {
    let golden = Golden::read(&case.join("features_1.safetensors"));
    let (_store, network) = network(case, change);
    let found = tch::no_grad(|| network.forward(golden.get("input"), Mode::Eval));
    difference(golden.get("logits"), &found.last().unwrap().1)
}

#[test]
fn a_changed_rule_is_seen() {
    for case in cases() {
        let flip_wiring = |b: &mut Backbone| {
            b.wiring = if b.wiring == Wiring::Large { Wiring::Mobile } else { Wiring::Large };
        };
        let flip_pooling = |b: &mut Backbone| {
            b.pooling = if b.pooling == Pooling::Tf { Pooling::Timm } else { Pooling::Tf };
        };
        assert!(moved_by(&case, |_| ()) <= LIMIT);
        assert!(moved_by(&case, flip_wiring) > 10. * LIMIT, "wiring, {}", case.display());
        assert!(moved_by(&case, flip_pooling) > 10. * LIMIT, "pooling, {}", case.display());
        assert!(
            moved_by(&case, |b| b.norm_eps = 1e-2) > 10. * LIMIT,
            "epsilon, {}",
            case.display()
        );
    }
}

#[test]
fn drop_path_keeps_the_mean_and_is_off_in_evaluation() {
    let section = Backbone {
        name: BackboneName::a(1, 96, Form::ImageNet),
        wiring: Wiring::Mobile,
        stem_filters: 8,
        pooling: Pooling::Tf,
        norm_eps: 1e-3,
        norm_momentum: 0.1,
        norm: NormMode::Frozen,
        tail_norm: NormMode::Frozen,
        drop_path_keep: 0.5,
        genotype: None,
    };
    tch::manual_seed(1);
    let store = VarStore::new(device());
    let network = Classifier::new(&store.root(), &section, 5);
    let images = Tensor::randn([2, 3, 40, 40], (Kind::Float, device()));
    let run = |mode| tch::no_grad(|| network.forward(&images, mode).pop().unwrap().1);
    let still = run(Mode::Eval);
    assert!(still.equal(&run(Mode::Eval)));
    assert!(still.equal(&run(Mode::Train { progress: 0. })), "nothing is dropped at the start");
    let [a, b] = [0, 1].map(|_| run(Mode::Train { progress: 1. }));
    assert!(!a.equal(&b), "paths are drawn anew");
    assert!(!a.equal(&still));
}

#[test]
fn trunk_and_tail_together_are_the_whole_network() {
    for case in cases() {
        let (section, _) = section(&case);
        let path = case.join("weights.safetensors");
        let mut contents = Contents::read(&path).unwrap();
        let [weight, bias] = ["last_linear.weight", "last_linear.bias"]
            .map(|name| weights::from_stored(&contents.tensors.remove(name).unwrap()));
        let store = VarStore::new(device());
        let network = NasNet::new(&store.root(), &section, Cut::Pair, true);
        weights::load(&store, &contents, "", &path).unwrap();
        let golden = Golden::read(&case.join("features_1.safetensors"));
        // With the whole map as the only crop of each image the tail gives what the classifier reads.
        let logits = tch::no_grad(|| {
            let map = network.trunk(golden.get("input"), Mode::Eval);
            assert_eq!(map.size()[1], network.spec().channels);
            let vectors = network.tail(&map, Mode::Eval);
            assert_eq!(vectors.size()[1], network.spec().tail_channels);
            vectors.linear(&weight, Some(&bias))
        });
        assert_close(&case.display().to_string(), golden.get("logits"), &logits, LIMIT);
    }
}

#[test]
fn the_plan_lists_exactly_the_tensors_that_are_made() {
    let names = [
        "nasnet-a-6@96",
        "nasnet-a-1@96",
        "nasnet-a-2@24-cifar",
        "nasnet-a-2@192-strided",
        "nasnet-a-1@4032",
    ];
    for name in names {
        let name: BackboneName = name.parse().unwrap();
        let section = Backbone {
            name,
            wiring: Wiring::Mobile,
            stem_filters: 3,
            pooling: Pooling::Tf,
            norm_eps: 1e-3,
            norm_momentum: 0.1,
            norm: NormMode::Live,
            tail_norm: NormMode::Live,
            drop_path_keep: 1.,
            genotype: None,
        };
        made_is_planned(&section);
    }
    // Cells with everything that the search space has, in every form.
    let cell = |rows: &[&str]| {
        let rows = rows.iter().map(|row| (*row).to_owned()).collect();
        CellText { rows, concat: None }.genotype().unwrap()
    };
    let cells = Cells {
        normal: cell(&[
            "conv1(h) ++ conv3(p)",
            "dil3(s0) + split3(h)",
            "split7(p) + max5(s0)",
            "max7(h) +ln id(p)",
            "sep7(s1) +in avg3(s2)",
        ]),
        reduction: cell(&["id(h) + id(p)", "dil3(h) ++ max5(p)", "split7(h) + avg3(s1)"]),
    };
    for form in [Form::ImageNet, Form::Cifar, Form::Strided] {
        let joined = cells.normal.concat.len();
        let name =
            BackboneName { family: Family::Own, ..BackboneName::a(2, 4 * 4 * 8 * joined, form) };
        let section = Backbone {
            name,
            wiring: Wiring::Mobile,
            stem_filters: 5,
            pooling: Pooling::Tf,
            norm_eps: 1e-3,
            norm_momentum: 0.1,
            norm: NormMode::Live,
            tail_norm: NormMode::Live,
            drop_path_keep: 1.,
            genotype: Some(OwnCells(cells.clone())),
        };
        let network = made_is_planned(&section);
        // Sizes and channels are as planned too, at odd and even sizes.
        for side in [64, 77] {
            let size = Size::new(side, side + 1);
            let images = Tensor::rand([1, 3, side as i64, side as i64 + 1], tch::kind::FLOAT_CPU);
            let maps = tch::no_grad(|| network.forward(&images, Mode::Eval));
            let plan = section.plan();
            let sizes = plan.sizes(size).unwrap();
            for (i, (name, map)) in maps.iter().enumerate().take(sizes.len()) {
                let channels = plan.channels(Map(i)) as i64;
                let expected = [1, channels, sizes[i].height as i64, sizes[i].width as i64];
                assert_eq!(map.size(), expected, "{form:?} {name} at {size}");
            }
        }
    }
}

/// Makes the network and compares its variables with the plan's list.
fn made_is_planned(section: &Backbone) -> Classifier {
    let store = VarStore::new(device());
    let network = Classifier::new(&store.root(), section, 7);
    let mut made: Vec<(String, Vec<usize>)> = (store.variables().into_iter())
        .map(|(name, t)| (name, t.size().iter().map(|&n| n as usize).collect()))
        .filter(|(name, _): &(String, Vec<usize>)| !name.starts_with("last_linear"))
        .collect();
    let plan = section.plan();
    let mut planned: Vec<_> = plan.tensors().map(|t| (t.name(), t.shape)).collect();
    made.sort();
    planned.sort();
    assert_eq!(made, planned, "{}", section.name);
    network
}
