//! What a run goes on to when it is told something new, and what another run may take from it.

use std::fs;
use std::path::Path;

use detect::config::Metric;
use detect::weights::{Contents, ModelInfo};
use detect_torch::train::checkpoint::{self, BEST, LAST};
use serde_json::{Value, json};

use super::{Bench, lines, said, text};

/// Changes the annotations of a split.
fn annotations(bench: &Bench, split: &str, change: impl FnOnce(&mut Value)) {
    let path = bench.data.join(format!("annotations/{split}.json"));
    let mut set: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut set);
    fs::write(path, set.to_string()).unwrap();
}

/// Makes the best score of a run one that it can't reach.
fn praise(run: &Path) {
    let (contents, mut state, _) = checkpoint::load(run).unwrap();
    state.best = Some((0.99, 1));
    checkpoint::save(run, contents, &state).unwrap();
}

#[test]
fn a_run_begins_with_the_weights_of_another_s_checkpoint() {
    let bench = Bench::new(4, 1);
    said(&bench.train("a", &["--steps", "2"]).output().unwrap(), 0);
    let last = bench.run("a").join(LAST);
    // As the documentation says where a resumed run can't have what is asked for.
    let more = ["--steps", "1", "--lr", "1e-30", "--init", text(&last)];
    let other = ["--set", "train.ema.decay=0.0", "--set", "train.freeze=[\"backbone.conv0\"]"];
    let told = said(&bench.train("b", &more).args(other).output().unwrap(), 0);
    assert!(told.contains("tensors taken"), "{told}");
    let [a, b] = ["a", "b"].map(|name| checkpoint::load(&bench.run(name)).unwrap().0.tensors);
    let mut compared = 0;
    for (name, tensor) in &b {
        // Steps of no length move running statistics alone. The other run's average is what it had learned.
        if let Some(name) = name.strip_prefix("model.").filter(|name| !name.contains("running_")) {
            assert_eq!(Some(tensor), a.get(&format!("ema.{name}")), "{name}");
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");
    let mut bytes = fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&last, bytes).unwrap();
    assert!(said(&bench.train("c", &more).output().unwrap(), 4).contains("is damaged"));
}

#[test]
fn the_best_score_is_forgotten_where_another_one_is_asked_for() {
    let bench = Bench::new(4, 1);
    said(&bench.train("run", &["--steps", "1"]).output().unwrap(), 0);
    let run = bench.run("run");
    praise(&run);
    let go_on = |steps: &str, more: &[&str], code: i32| {
        let flags = ["--override-resume", "--steps", steps];
        said(&bench.resume("run", &flags).args(more).output().unwrap(), code);
        bench.state("run").best.unwrap()
    };
    assert_eq!(go_on("2", &[], 0), (0.99, 1), "the same measure");
    assert_eq!(go_on("3", &["--set", "train.best_by=AR100"], 0).1, 3);
    assert_eq!(bench.state("run").config.train.best_by, Metric::AR100);
    praise(&run);
    annotations(&bench, "val", |set| set["annotations"][0]["bbox"][0] = json!(1.25));
    let told = said(&bench.resume("run", &["--steps", "4"]).output().unwrap(), 2);
    assert!(told.contains("train.steps"), "{told}");
    let told = said(&bench.resume("run", &[]).output().unwrap(), 3);
    assert!(told.contains("val.json is not what the run began with"), "{told}");
    assert_eq!(go_on("4", &[], 0).1, 4);
}

#[test]
fn a_run_does_not_lose_its_best_model_with_its_validation_split() {
    let bench = Bench::new(4, 1);
    said(&bench.train("run", &["--steps", "1"]).output().unwrap(), 0);
    let (run, val) = (bench.run("run"), bench.data.join("annotations/val.json"));
    praise(&run);
    let best = fs::read(run.join(BEST)).unwrap();
    let whole = fs::read(&val).unwrap();
    fs::remove_file(&val).unwrap();
    let told = said(&bench.resume("run", &[]).output().unwrap(), 3);
    assert!(told.contains("no longer has") && told.contains("--override-resume"), "{told}");
    assert_eq!(fs::read(run.join(BEST)).unwrap(), best);
    fs::write(&val, whole).unwrap();
    said(&bench.resume("run", &[]).output().unwrap(), 0);
    assert_eq!(bench.state("run").best, Some((0.99, 1)));
    // Without the run, there is nothing to override.
    let told = said(&bench.train("b", &["--override-resume"]).output().unwrap(), 2);
    assert!(told.contains("--resume RUN"), "{told}");
}

#[test]
fn what_changes_the_last_bits_is_told() {
    let bench = Bench::new(4, 1);
    said(&bench.train("run", &["--steps", "1"]).output().unwrap(), 0);
    let more = |steps: &str, threads: &str| {
        let mut command = super::program::program();
        command.args(["train", "--resume", text(&bench.run("run")), "--override-resume"]);
        command.args(["--steps", steps, "--threads", threads]);
        said(&command.output().unwrap(), 0)
    };
    let told = more("2", "2");
    assert!(told.contains("threads: 1 -> 2") && told.contains("last bits"), "{told}");
    assert!(!more("3", "2").contains("last bits"));
}

#[test]
fn a_split_that_can_not_be_learned_from_is_refused_before_the_first_step() {
    let bench = Bench::new(4, 1);
    let image = fs::read_dir(bench.data.join("images")).unwrap();
    let image = image.map(|file| file.unwrap().path()).find(|file| text(file).contains("train"));
    let (image, aside) = (image.unwrap(), bench.run("aside"));
    fs::rename(&image, &aside).unwrap();
    let told = said(&bench.train("run", &["--steps", "1"]).output().unwrap(), 3);
    for part in ["1 of the 4 images", text(&image), "detect check"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    fs::rename(&aside, &image).unwrap();
    annotations(&bench, "train", |set| set["annotations"] = json!([]));
    let told = said(&bench.train("run", &["--steps", "1"]).output().unwrap(), 3);
    assert!(told.contains("4 images and no box"), "{told}");
    annotations(&bench, "train", |set| {
        let (image, category) =
            (set["images"][0]["id"].clone(), set["categories"][0]["id"].clone());
        set["annotations"] = json!([
            { "id": 1, "image_id": image, "category_id": category, "bbox": [5, 5, 30, 30], "area": 900, "iscrowd": 1 }
        ]);
    });
    let told = said(&bench.train("run", &["--steps", "1"]).output().unwrap(), 3);
    assert!(told.contains("1 boxes, of which none can be learned"), "{told}");
    let mut command = super::program::program();
    command.args(["train", "--backbone", "nasnet-a-4@1056", "--data", text(&bench.data)]);
    let told = said(&command.args(["--out", text(&bench.run("run"))]).output().unwrap(), 3);
    for part in [
        "has: train, val",
        "'nasnet_mobile_coco' learns from 'trainval-minus-minival'",
        "--config default",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!bench.run("run").exists());
}

#[test]
fn adam_with_the_decay_of_others_is_told() {
    let bench = Bench::new(4, 1);
    let adam = "train.optimizer={ kind = \"adamw\", betas = [0.9, 0.999], eps = 1e-8 }";
    let flags = ["--steps", "1", "--set", adam];
    let told = said(&bench.train("a", &flags).output().unwrap(), 0);
    assert!(told.contains("Adam with L2"), "{told}");
    let decoupled = ["--set", "train.weight_decay.how=decoupled"];
    let told = said(&bench.train("b", &flags).args(decoupled).output().unwrap(), 0);
    assert!(!told.contains("Adam with L2"), "{told}");
}

#[test]
fn without_a_score_the_newest_weights_are_kept() {
    let bench = Bench::new(4, 1);
    annotations(&bench, "val", |set| set["annotations"] = json!([]));
    let flags = ["--epochs", "3", "--set", "train.eval_every=1", "--set", "train.patience=1"];
    let told = said(&bench.train("run", &flags).output().unwrap(), 0);
    assert!(told.contains("can't be measured"), "{told}");
    let best = bench.run("run").join(BEST);
    let info = ModelInfo::read_from(&Contents::read(&best).unwrap(), &best).unwrap();
    assert_eq!(info.trained.steps, 6, "three epochs of two steps");
    assert_eq!(bench.state("run").best, None);
    // A run that has made its steps and has no model ends with one, and the evaluation stands in the record once.
    let before = super::record(&bench.run("run"));
    fs::remove_file(&best).unwrap();
    said(&bench.resume("run", &[]).output().unwrap(), 0);
    assert!(best.exists());
    assert_eq!(super::record(&bench.run("run")), before);
}

#[test]
fn a_best_model_that_is_gone_is_made_again() {
    let bench = Bench::new(4, 1);
    said(&bench.train("run", &["--steps", "2"]).output().unwrap(), 0);
    let score = bench.state("run").best.map(|(score, _)| score);
    assert!(score.is_some_and(|score| score >= 0.), "{score:?}");
    let best = bench.run("run").join(BEST);
    let model = fs::read(&best).unwrap();
    fs::remove_file(&best).unwrap();
    let told = said(&bench.resume("run", &[]).output().unwrap(), 0);
    assert!(told.contains("best.safetensors is gone"), "{told}");
    assert!(fs::read(&best).unwrap() == model, "the same network, scored again");
    assert_eq!(bench.state("run").best, score.map(|score| (score, 2)));
}

#[test]
fn a_run_that_is_refused_keeps_its_record() {
    let bench = Bench::new(4, 1);
    said(&bench.train("run", &["--steps", "2"]).output().unwrap(), 0);
    let record = || fs::read(bench.run("run").join("metrics.jsonl")).unwrap();
    let before = record();
    // A network that the checkpoint does not fit.
    let flags = ["--override-resume", "--steps", "4", "--set", "backbone.name=nasnet-a-1@192"];
    let told = said(&bench.resume("run", &flags).output().unwrap(), 4);
    assert!(told.contains("last.safetensors"), "{told}");
    assert!(record() == before);
}

#[test]
fn what_was_learned_is_saved_before_an_evaluation_that_fails() {
    let bench = Bench::new(4, 1);
    said(&bench.train("run", &["--steps", "1"]).output().unwrap(), 0);
    let place = bench.run("run").join(detect::watch::DETECTIONS);
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    let flags = ["--override-resume", "--steps", "3", "--set", "train.checkpoint_every=1000"];
    let flags = flags.into_iter().chain(["--set", "train.eval_every=0"]).collect::<Vec<_>>();
    let told = said(&bench.resume("run", &flags).output().unwrap(), 5);
    assert!(told.contains("cannot write"), "{told}");
    let state = bench.state("run");
    assert_eq!((state.step, state.evaluation_due), (3, true));
    fs::remove_dir(&place).unwrap();
    said(&bench.resume("run", &[]).output().unwrap(), 0);
    assert!(place.is_file() && !bench.state("run").evaluation_due);
}

#[test]
fn splits_have_to_mean_the_same_by_a_category() {
    let bench = Bench::new(4, 1);
    annotations(&bench, "val", |set| {
        let categories = set["categories"].as_array_mut().unwrap();
        let first = categories[0]["name"].take();
        categories[0]["name"] = categories[1]["name"].take();
        categories[1]["name"] = first;
    });
    let told = said(&bench.train("run", &["--steps", "1"]).output().unwrap(), 3);
    for part in ["category 1 is '", "train.json", "val.json have to agree"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!bench.run("run").exists());
}

#[test]
fn what_another_run_left_is_not_touched() {
    let bench = Bench::new(4, 1);
    // Of an evaluation alone.
    for name in ["detections.json", "evaluation.json"] {
        let run = bench.run(name);
        fs::create_dir(&run).unwrap();
        fs::write(run.join(name), name).unwrap();
        let told = said(&bench.train(name, &["--steps", "1"]).output().unwrap(), 2);
        assert!(told.contains("or of an evaluation"), "{told}");
        assert_eq!(fs::read_to_string(run.join(name)).unwrap(), name);
    }
    let run = bench.run("run");
    fs::create_dir(&run).unwrap();
    for name in [BEST, "metrics.jsonl", "events.out.tfevents.1.detect"] {
        fs::write(run.join(name), name).unwrap();
        let told = said(&bench.train("run", &["--steps", "1"]).output().unwrap(), 2);
        assert!(told.contains("another run"), "{told}");
    }
    for name in [BEST, "metrics.jsonl", "events.out.tfevents.1.detect"] {
        assert_eq!(fs::read_to_string(run.join(name)).unwrap(), name);
    }
    let told = said(&bench.resume("run", &[]).output().unwrap(), 3);
    assert!(told.contains("no checkpoint"), "{told}");
    assert!(!run.join(".lock").exists());
}

#[test]
fn an_image_that_can_not_be_read_costs_no_step_before_it() {
    let bench = Bench::new(4, 1);
    let images: Vec<_> = fs::read_dir(bench.data.join("images")).unwrap().collect();
    let mut most = 0;
    for (n, image) in images.into_iter().enumerate() {
        let file = image.unwrap().path();
        let whole = fs::read(&file).unwrap();
        fs::write(&file, "no image").unwrap();
        let (name, flags) = (format!("run{n}"), ["--steps", "4", "--batch", "1"]);
        let output = bench.train(&name, &flags).output().unwrap();
        fs::write(&file, whole).unwrap();
        if output.status.code() == Some(0) {
            continue; // the image of the other split, which counts as one without detections
        }
        let told = said(&output, 3);
        for part in ["is not an image", "detect check", "is saved", "--resume"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let step = bench.state(&name).step;
        assert_eq!(step, lines(&bench.run(&name)), "steps that were recorded");
        most = most.max(step);
        said(&bench.resume(&name, &[]).output().unwrap(), 0);
        assert_eq!(bench.state(&name).step, 4);
    }
    assert_eq!(most, 3, "the last of the epoch");
}
