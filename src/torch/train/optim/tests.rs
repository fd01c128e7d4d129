//! Optimizers against PyTorch's and TensorFlow's.

use std::path::Path;

use detect::config::{self, Clip, Config, Decay, Train};
use serde_json::Value;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::Optimizer;
use crate::weights::{named_variables, to_stored};

fn numbers(value: &Value) -> Tensor {
    let numbers: Vec<f64> = value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    Tensor::from_slice(&numbers).to_kind(Kind::Float)
}

/// A store with the golden's weights.
fn store_of(golden: &Value) -> VarStore {
    let store = VarStore::new(Device::Cpu);
    for (name, shape) in golden["shapes"].as_object().unwrap() {
        let shape: Vec<i64> =
            shape.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        let (module, leaf) = name.split_once('.').unwrap();
        let mut weight = (store.root() / module).zeros(leaf, &shape);
        let value = numbers(&golden["weights"][name]).reshape(&shape);
        tch::no_grad(|| weight.copy_(&value));
    }
    store
}

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/optim.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The recipe of a golden case.
fn settings_of(golden: &Value, case: &Value) -> Train {
    let mut train = Config::recipe("tiny", &[]).unwrap().train;
    train.optimizer = serde_json::from_value(case["optimizer"].clone()).unwrap();
    train.weight_decay.how = serde_json::from_value(case["how"].clone()).unwrap();
    train.weight_decay.rate = golden["decay"].as_f64().unwrap();
    (train.weight_decay.norm, train.weight_decay.heads) = (false, true);
    let norm = golden["clip"].as_f64().unwrap();
    train.clip = match case["clip"].as_str().unwrap() {
        "none" => Clip::None,
        "global" => Clip::Global { norm },
        "per_tensor" => Clip::PerTensor { norm },
        other => panic!("{other}"),
    };
    train
}

/// One step with the golden's gradients.
fn step(golden: &Value, store: &VarStore, optimizer: &mut Optimizer, step: usize) {
    optimizer.zero_grad();
    for (name, weight) in named_variables(store) {
        let gradient = numbers(&golden["gradients"][step][&name]).reshape(weight.size());
        (&weight * gradient).sum(Kind::Float).backward();
    }
    let norm = optimizer.complete();
    optimizer.step(golden["lr"].as_f64().unwrap(), norm, step);
}

#[test]
fn five_steps_are_those_of_pytorch_and_tensorflow() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 17);
    for case in cases {
        let store = store_of(&golden);
        let mut optimizer = Optimizer::new(&store, &settings_of(&golden, case));
        (0..5).for_each(|n| step(&golden, &store, &mut optimizer, n));
        for (name, weight) in named_variables(&store) {
            let far = (weight.flatten(0, -1) - numbers(&case["after"][&name])).abs().max();
            // Weights are about 1: a few roundings of float32.
            assert!(far.double_value(&[]) < 1e-6, "{name} {far:?} of {case}");
        }
    }
}

#[test]
fn a_saved_state_goes_on_bit_for_bit() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let settings = settings_of(&golden, case);
        let store = store_of(&golden);
        let mut optimizer = Optimizer::new(&store, &settings);
        (0..3).for_each(|n| step(&golden, &store, &mut optimizer, n));
        let state = optimizer.state().map(|(name, tensor)| (name, to_stored(&tensor)));
        let saved = detect::weights::Contents { tensors: state.collect(), ..Default::default() };
        let sgd = matches!(settings.optimizer, config::Optimizer::Sgd { .. });
        let expected: &[&str] = if sgd {
            &["a.weight", "b.bias", "c.weight"]
        } else {
            &[
                "a.weight",
                "a.weight.square",
                "b.bias",
                "b.bias.square",
                "c.weight",
                "c.weight.square",
            ]
        };
        assert_eq!(saved.tensors.keys().collect::<Vec<_>>(), expected);
        let again = store_of(&golden);
        let values = named_variables(&store);
        tch::no_grad(|| {
            for (name, mut weight) in named_variables(&again) {
                weight.copy_(&values[&name]);
            }
        });
        let mut resumed = Optimizer::new(&again, &settings);
        resumed.load(&saved, Path::new("saved")).unwrap();
        for n in 3..5 {
            step(&golden, &store, &mut optimizer, n);
            step(&golden, &again, &mut resumed, n);
        }
        let found = named_variables(&again);
        assert!(named_variables(&store).iter().all(|(name, v)| v.equal(&found[name])), "{case}");
        let less = saved.tensors.into_iter().skip(1).collect();
        let less = detect::weights::Contents { tensors: less, ..Default::default() };
        let error = resumed.load(&less, Path::new("saved")).unwrap_err().to_string();
        assert!(error.contains("missing: a.weight"), "{error}");
    }
}

#[test]
fn what_decays_is_what_the_recipe_says() {
    let store = VarStore::new(Device::Cpu);
    for name in ["backbone.conv", "backbone.bn", "rpn.conv"] {
        let shape: &[i64] = if name.ends_with("bn") { &[2] } else { &[2, 2] };
        let (module, leaf) = name.split_once('.').unwrap();
        let _weight = (store.root() / module).ones(leaf, shape);
    }
    let mut settings = Config::recipe("tiny", &[]).unwrap().train;
    (settings.weight_decay.rate, settings.clip) = (0.5, Clip::None);
    settings.optimizer = config::Optimizer::Sgd { momentum: 0. };
    for (norm, heads, expected) in [
        (false, true, "backbone.conv rpn.conv"),
        (false, false, "backbone.conv"),
        (true, false, "backbone.bn backbone.conv"),
    ] {
        (settings.weight_decay.norm, settings.weight_decay.heads) = (norm, heads);
        for how in [Decay::BeforeClipping, Decay::AfterClipping, Decay::Decoupled] {
            settings.weight_decay.how = how;
            let mut variables = named_variables(&store);
            tch::no_grad(|| variables.values_mut().for_each(|v| drop(v.fill_(1.))));
            let mut optimizer = Optimizer::new(&store, &settings);
            let norm = optimizer.complete();
            optimizer.step(0.1, norm, 0);
            let moved = |(_, v): &(&String, &Tensor)| {
                let value = v.flatten(0, -1).double_value(&[0]);
                assert!(value == 1. || (value - 0.95).abs() < 1e-6, "{value}");
                value < 1.
            };
            let names: Vec<_> = variables.iter().filter(moved).map(|(n, _)| n.as_str()).collect();
            assert_eq!(names.join(" "), expected);
        }
    }
}
