//! What is not finite stops a run in that step, and nothing is overwritten.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use detect::config::Config;
use detect::data::Dataset;
use detect::failure::Exit;
use detect::geometry::{Box2, Label};
use detect::weights::Contents;
use detect_torch::detector::Truth;
use detect_torch::ranks::Group;
use detect_torch::train::{Ended, Setup, Trainer, checkpoint, stop::Stop};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tch::Device;

use super::{Bench, Draws, lines, said};

const FILES: [&str; 3] = ["last.safetensors", "prev.safetensors", "best.safetensors"];

/// What each file is: its bytes would fill the screen where they differ.
fn files(run: &Path) -> Vec<Option<[u8; 32]>> {
    let digest = |bytes: Vec<u8>| Sha256::digest(bytes).into();
    FILES.iter().map(|name| fs::read(run.join(name)).ok().map(digest)).collect()
}

/// A run of two steps with all three files.
fn begun() -> Bench {
    let bench = Bench::new(4, 1);
    let flags = ["--steps", "2", "--set", "train.checkpoint_every=1"];
    said(&bench.train("run", &flags).output().unwrap(), 0);
    bench
}

/// Goes on with the run after `change` to its weights and configuration: in this process, where no seal
/// keeps a NaN out.
fn go_on(
    bench: &Bench,
    steps: usize,
    change: impl FnOnce(&mut Contents, &mut Config),
) -> anyhow::Result<Ended> {
    tch::set_num_threads(1);
    let run = bench.run("run");
    let (mut contents, state, path) = checkpoint::load(&run).unwrap();
    let mut config = state.config.clone();
    config.train.steps = steps;
    change(&mut contents, &mut config);
    let train = Arc::new(Dataset::open(&bench.data, "train").unwrap());
    let setup = Setup { config, train, val: None, run, device: Device::Cpu, ranks: Group::ALONE };
    Trainer::resume(setup, &contents, state, &path)?.run(&Stop::default())
}

type Change = Box<dyn FnOnce(&mut Contents, &mut Config)>;

fn fill(contents: &mut Contents, name: &str, value: f32) {
    let tensor = contents.tensors.get_mut(name).unwrap_or_else(|| panic!("no {name}"));
    tensor.bytes.as_chunks_mut::<4>().0.fill(value.to_le_bytes());
}

#[test]
fn a_nan_anywhere_stops_the_step_and_overwrites_nothing() {
    let bench = begun();
    let run = bench.run("run");
    let before = files(&run);
    assert!(before.iter().all(Option::is_some));
    let weight = |name: &'static str| -> Change {
        Box::new(move |contents, _| fill(contents, name, f32::NAN))
    };
    let cases: Vec<(&str, &str, Change)> = vec![
        ("a loss", "loss_classifier NaN", weight("model.roi_heads.box_predictor.cls_score.bias")),
        ("a loss", "loss_box_reg NaN", weight("model.roi_heads.box_predictor.bbox_pred.bias")),
        ("a loss", "loss_objectness NaN", weight("model.rpn.head.cls_logits.bias")),
        ("a loss", "loss_rpn_box_reg NaN", weight("model.rpn.head.bbox_pred.bias")),
        (
            "a weight of the featurizer",
            "loss_objectness NaN",
            weight("model.backbone.conv0.conv.weight"),
        ),
        (
            "the input",
            "the loss is not finite",
            Box::new(|_, config| config.input.mean = [f32::NAN; 3]),
        ),
        (
            "a gradient",
            "the gradient is not finite",
            Box::new(|_, config| config.train.loss_weights.class = 1e38),
        ),
    ];
    for (what, words, change) in cases {
        let error = go_on(&bench, 6, change).unwrap_err();
        let told = format!("{error:#}");
        assert_eq!(Exit::of(&error), Exit::NonFinite, "{what}: {told}");
        for part in [words, "at step 3", "lr 0.0", "loss_box_reg", "image ids", "last.safetensors"]
        {
            assert!(told.contains(part), "{what}: no '{part}' in {told}");
        }
        assert_eq!(files(&run), before, "{what}");
        assert_eq!(lines(&run), 3, "{what}: two steps and an evaluation, no more");
    }
    // Momentum that is not finite is noticed when it would be saved or kept, at the latest.
    let name = "optim.roi_heads.box_predictor.cls_score.bias";
    let error = go_on(&bench, 3, |contents, _| fill(contents, name, f32::INFINITY)).unwrap_err();
    let told = format!("{error:#}");
    assert_eq!(Exit::of(&error), Exit::NonFinite, "{told}");
    for part in ["after step 3", "lr 0", "loss_box_reg", "image ids", "not finite"] {
        assert!(told.contains(part), "no '{part}' in {told}");
    }
    assert_eq!(files(&run), before, "momentum");
    // Unharmed, it goes on.
    assert!(matches!(go_on(&bench, 3, |_, _| {}).unwrap(), Ended::Done(_)));
    assert_eq!(bench.state("run").step, 3);
}

#[test]
fn steps_may_be_passed_over_but_not_too_many_in_a_row() {
    let bench = begun();
    let run = bench.run("run");
    // Gradients overflow at every step.
    let broken = |skip: usize| {
        move |_: &mut Contents, config: &mut Config| {
            config.train.skip_non_finite = skip;
            config.train.loss_weights.class = 1e38;
        }
    };
    let error = go_on(&bench, 9, broken(3)).unwrap_err();
    assert_eq!(Exit::of(&error), Exit::NonFinite);
    assert!(error.to_string().contains("at step 6"), "three are passed over: {error}");
    // As many as are allowed: the weights are what they were, and so are batch norm's statistics.
    let weights = || {
        let mut tensors = checkpoint::load(&run).unwrap().0.tensors;
        tensors.retain(|name, _| name.starts_with("model."));
        tensors
    };
    let before = weights();
    assert!(matches!(go_on(&bench, 5, broken(3)).unwrap(), Ended::Done(_)));
    let state = bench.state("run");
    assert_eq!((state.step, state.skipped, state.left_out), (5, 3, 3));
    assert_eq!(weights(), before);
    // The count goes on where the run does.
    let error = go_on(&bench, 9, broken(3)).unwrap_err();
    assert!(error.to_string().contains("at step 6"), "{error}");
    // A good step ends the row.
    go_on(&bench, 6, |_, config| config.train.loss_weights.class = 1.).unwrap();
    let state = bench.state("run");
    assert_eq!((state.skipped, state.left_out), (0, 3));
    assert_ne!(weights(), before);
    for bad in ["skip=0", "skip=", "go"] {
        said(&bench.train("other", &["--on-nan", bad]).output().unwrap(), 2);
    }
    said(&bench.train("other", &["--steps", "1", "--on-nan", "skip=2"]).output().unwrap(), 0);
    assert_eq!(bench.state("other").config.train.skip_non_finite, 2);
}

#[test]
fn bad_truths_are_found_before_a_kernel_sees_them() {
    let classes = 3;
    let good = Truth { boxes: vec![Box2::new(1., 2., 3., 4.)], labels: vec![Label(2)] };
    assert_eq!(good.fault(classes), None);
    assert_eq!(Truth::default().fault(classes), None);
    let mut draws = Draws(5);
    for trial in 0..1000 {
        let count = 1 + draws.below(8);
        let mut truth = Truth::default();
        for _ in 0..count {
            let [x, y, w, h] = [0; 4].map(|_| 1. + 90. * draws.next() as f32);
            truth.boxes.push(Box2::new(x, y, x + w, y + h));
            truth.labels.push(Label(draws.below(classes)));
        }
        assert_eq!(truth.fault(classes), None);
        let at = draws.below(count);
        let b = &mut truth.boxes[at];
        match trial % 7 {
            0 => truth.labels[at] = Label(classes),
            1 => truth.labels[at] = Label(usize::MAX - draws.below(100)),
            2 => b.x1 = f32::NAN,
            3 => b.y2 = f32::INFINITY,
            4 => b.x2 = b.x1,
            5 => std::mem::swap(&mut b.y1, &mut b.y2),
            _ => truth.labels.truncate(at),
        }
        assert!(truth.fault(classes).is_some(), "{truth:?}");
    }
}

#[test]
fn a_data_set_is_refused_or_fit_for_training() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["annotations", "images"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let mut draws = Draws(6);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..1000 {
        let odd =
            [json!(null), json!(-5), json!(0), json!(1e300), json!(2.5), json!("3"), json!(1e9)];
        let mut number = |usual: i64| match draws.below(12) {
            0 => odd[draws.below(odd.len())].clone(),
            _ => json!(usual),
        };
        let boxes: Vec<_> = (0..3)
            .map(|i| {
                let bbox = [number(5), number(6), number(20), number(30)];
                json!({ "id": i, "image_id": 1, "category_id": number(2), "bbox": bbox, "iscrowd": 0 })
            })
            .collect();
        let set = json!({
            "images": [{ "id": 1, "file_name": "a.jpg", "width": 64, "height": 48 }],
            "annotations": boxes,
            "categories": [{ "id": 2, "name": "two" }, { "id": 7, "name": "seven" }],
        });
        // Python writes what JSON has no word for.
        let text = set.to_string().replace("null", "NaN");
        fs::write(dir.path().join("annotations/train.json"), text).unwrap();
        match Dataset::open(dir.path(), "train") {
            Err(_) => refused += 1,
            Ok(data) => {
                taken += 1;
                for a in &data.images[0].annotations {
                    assert!(a.label.0 < data.categories.len());
                    let [x, y, w, h] = a.bbox.to_xywh();
                    assert!([x, y, w, h].iter().all(|n| n.is_finite()) && w >= 0. && h >= 0.);
                }
            }
        }
    }
    assert!(refused > 300 && taken > 200, "{refused} refused, {taken} taken");
}
