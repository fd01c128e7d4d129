//! Training as a whole: it learns, goes on after a kill as if nothing had happened, and stops when it must.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use detect::config::Config;
use detect::data::classify::{ClassNames, Preprocessing};
use detect::geometry::Size;
use detect::watch::{DETECTIONS, EVALUATION, events, record};
use detect::weights::{ClassifierInfo, Contents};
use detect_torch::backbone::Classifier;
use detect_torch::weights;
use program::{expect_code, metrics, program, run, small_scenes};
use serde_json::Value;
use tch::Device;
use tch::nn::VarStore;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a step did, without how long it took and in how much memory.
fn without_times(mut line: Value) -> Value {
    for key in ["data_s", "step_s", "images_per_s", "memory_mib", "time"] {
        line.as_object_mut().unwrap().remove(key);
    }
    line
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_happened() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 7, 2); // 7 images in batches of 2: the last step of an epoch is short
    let common =
        ["train", "--config", "tiny", "--data", text(&data), "--steps", "40", "--threads", "1"];
    let straight = dir.path().join("straight");
    let said = expect_code(&run(&[&common[..], &["--out", text(&straight)]].concat()), 0);
    assert!(!said.contains('\u{1b}'), "no bar where stderr is no terminal: {said}");

    let killed = dir.path().join("killed");
    let mut child = program()
        .args(common)
        .args(["--out", text(&killed)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    // Killed after the checkpoint of step 20 and some steps more.
    let lines =
        || fs::read_to_string(killed.join("metrics.jsonl")).unwrap_or_default().lines().count();
    while lines() < 23 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        assert!(started.elapsed() < Duration::from_mins(5), "no progress");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap(); // SIGKILL
    assert_eq!(child.wait().unwrap().code(), None, "it was killed");
    assert!(!killed.join("best.safetensors").exists(), "it had not finished");

    expect_code(&run(&["train", "--resume", text(&killed), "--threads", "1"]), 0);
    let read = |run: &Path| Contents::read(&run.join("last.safetensors")).unwrap();
    let (a, b) = (read(&straight), read(&killed));
    assert!(a.tensors.keys().any(|k| k.starts_with("ema.")), "the average is saved");
    assert!(a.tensors.keys().any(|k| k.starts_with("optim.")), "the momentum is saved");
    assert_eq!(a.tensors, b.tensors, "weights, average and momentum, bit for bit");
    let steps =
        |run: &Path| metrics(run, "step").into_iter().map(without_times).collect::<Vec<_>>();
    assert_eq!(steps(&straight).len(), 40);
    assert_eq!(steps(&straight), steps(&killed), "losses, norms and rates of every step");
    let scores = |run: &Path| metrics(run, "eval")[0]["stats"].clone();
    assert_eq!(scores(&straight), scores(&killed));
    // What is there to be watched agrees with the record.
    let starts: Vec<Value> =
        metrics(&killed, "start").into_iter().map(|start| start["step"].clone()).collect();
    assert_eq!(starts, [0, 20]);
    let (lines, broken) = record::read(&killed.join(record::RECORD)).unwrap();
    assert_eq!(broken, 0);
    let names = fs::read_dir(&killed).unwrap().map(|entry| entry.unwrap().path());
    let events: Vec<_> = names.filter(|path| text(path).contains("tfevents")).collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(fs::read(&events[0]).unwrap(), events::from_record(&lines, 0.));
    let kept = |run: &Path, name: &str| fs::read(run.join(name)).unwrap();
    for name in [DETECTIONS, EVALUATION] {
        assert_eq!(kept(&straight, name), kept(&killed, name), "{name}");
    }
    let evaluation: Value = serde_json::from_slice(&kept(&killed, EVALUATION)).unwrap();
    assert_eq!((&evaluation["step"], &evaluation["stats"]), (&Value::from(40), &scores(&killed)));
    let detections: Value = serde_json::from_slice(&kept(&killed, DETECTIONS)).unwrap();
    assert_eq!(
        detections.as_array().unwrap().len() as u64,
        evaluation["detections"].as_u64().unwrap()
    );
}

#[test]
fn a_detector_starts_from_the_featurizer_of_a_classifier() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 2, 2);
    let backbone = Config::recipe("tiny", &[]).unwrap().backbone;
    let store = VarStore::new(Device::Cpu);
    let _network = Classifier::new(&store.root(), &backbone, 5);
    let tensors = weights::collect(&store, "backbone.");
    let mut classifier = Contents { tensors, ..Contents::default() };
    let info = ClassifierInfo {
        backbone,
        preprocessing: Preprocessing::plain(Size::new(64, 64)),
        classes: ClassNames::numbered(5),
        origin: "a test".into(),
    };
    info.write_to(&mut classifier);
    let init = dir.path().join("classifier.safetensors");
    classifier.write(&init).unwrap();
    let out = dir.path().join("run");
    let args = ["train", "--config", "tiny", "--data", text(&data), "--steps", "1"];
    let start = ["--init", text(&init), "--lr", "1e-30", "--out", text(&out)];
    expect_code(&run(&[&args[..], &start].concat()), 0);
    let trained = Contents::read(&out.join("last.safetensors")).unwrap();
    let kept = |name: &str| trained.tensors.get(&format!("model.{name}"));
    // A step of next to no length changes nothing but running statistics.
    let weights = classifier.tensors.iter().filter(|(name, _)| !name.contains("running"));
    let compared = weights.filter_map(|(name, tensor)| Some((name, tensor, kept(name)?)));
    let mut count = 0;
    for (name, tensor, found) in compared {
        let moved = weights::from_stored(found) - weights::from_stored(tensor);
        assert!(moved.abs().max().double_value(&[]) < 1e-20, "{name}");
        count += 1;
    }
    assert!(count > 100, "{count} tensors");
    // Another network is refused.
    let fails = dir.path().join("fails");
    let other = ["--backbone", "nasnet-a-1@192", "--init", text(&init), "--out", text(&fails)];
    expect_code(&run(&[&args[..], &other].concat()), 4);
}

/// Trains the smallest recipe on two images, on which it is judged too, and gives the run's folder, first and
/// last loss, and AP50.
fn learn_two_images(folder: &Path, flags: &[&str], changes: &[&str]) -> ([f64; 2], f64) {
    let data = folder.join("data");
    small_scenes(&data, 2, 1);
    fs::copy(data.join("annotations/train.json"), data.join("annotations/val.json")).unwrap();
    let out = folder.join("run");
    let mut args = vec!["train", "--config", "tiny", "--data", text(&data), "--out", text(&out)];
    args.extend(["--threads", "1"]);
    args.extend(flags);
    let still = [
        "backbone.drop_path_keep=1.0",
        "train.checkpoint_every=300",
        "train.augment.flip=0.0",
        "train.augment.scale=[1.0, 1.0]",
        "train.augment.color=0.0",
    ];
    args.extend(still.iter().chain(changes).flat_map(|change| ["--set", change]));
    expect_code(&run(&args), 0);
    let steps = metrics(&out, "step");
    let loss = |line: &Value| line["loss"].as_f64().unwrap();
    let ap50 = metrics(&out, "eval")[0]["AP50"].as_f64().unwrap();
    ([loss(&steps[0]), loss(steps.last().unwrap())], ap50)
}

#[test]
fn two_images_are_learnt_by_heart() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--steps", "300", "--lr", "0.05", "--image-size", "160x256"];
    let ([first, last], ap50) = learn_two_images(dir.path(), &flags, &[]);
    assert!(ap50 > 0.5, "AP50 {ap50}");
    assert!(last < 0.5 * first, "loss {first} to {last}");
}

#[test]
fn two_images_are_learnt_by_heart_by_tensorflow_s_rules() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--steps", "300", "--lr", "0.05", "--image-size", "160x256"];
    let changes = [
        "detector.rules=tf",
        "detector.crop=crop_and_resize",
        "input.resize={ kind = \"fixed\", height = 160, width = 256 }",
        "rpn.pre_nms_train=0",
        "rpn.pre_nms_eval=0",
        "roi.max_per_class=100",
        "train.loss_weights={ objectness = 1.0, rpn_box = 2.0, class = 1.0, box = 2.0 }",
    ];
    let ([first, last], ap50) = learn_two_images(dir.path(), &flags, &changes);
    assert!(ap50 > 0.5, "AP50 {ap50}");
    assert!(last < 0.5 * first, "loss {first} to {last}");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_names_the_images() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 4, 1);
    let out = dir.path().join("run");
    let output = run(&[
        "train",
        "--config",
        "tiny",
        "--data",
        text(&data),
        "--out",
        text(&out),
        "--threads",
        "1",
        "--steps",
        "30",
        "--lr",
        "1e18",
        "--set",
        "train.warmup_steps=1",
        "--set",
        "train.clip={ kind = \"none\" }",
        "--set",
        "train.checkpoint_every=1",
    ]);
    let said = expect_code(&output, 8);
    for part in [
        "not finite at step",
        "loss_classifier",
        "loss_rpn_box_reg",
        "image ids",
        "last.safetensors",
    ] {
        assert!(said.contains(part), "no '{part}' in: {said}");
    }
    let saved = Contents::read(&out.join("last.safetensors")).unwrap();
    let step: Value = serde_json::from_str(&saved.metadata["state"]).unwrap();
    assert_eq!(
        step["step"].as_u64().unwrap() as usize,
        metrics(&out, "step").len(),
        "nothing bad was saved"
    );
}

#[test]
fn a_damaged_checkpoint_is_noticed_and_the_one_before_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 4, 1);
    let out = dir.path().join("run");
    let arguments = [
        "train",
        "--config",
        "tiny",
        "--data",
        text(&data),
        "--out",
        text(&out),
        "--threads",
        "1",
        "--steps",
        "4",
        "--set",
        "train.checkpoint_every=2",
        "--set",
        "data.val=none",
    ];
    expect_code(&run(&arguments), 0);
    // A second run into the same folder would overwrite the first.
    assert!(expect_code(&run(&arguments), 2).contains("--resume"));

    let last = out.join("last.safetensors");
    let mut bytes = fs::read(&last).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    fs::write(&last, &bytes).unwrap();
    let said = expect_code(&run(&["train", "--resume", text(&out), "--threads", "1"]), 0);
    assert!(said.contains("checksum") && said.contains("prev.safetensors"), "{said}");
    assert!(said.contains("after step 2 of 4"), "{said}");

    fs::write(&last, b"no").unwrap();
    fs::write(out.join("prev.safetensors"), b"no").unwrap();
    let said = expect_code(&run(&["train", "--resume", text(&out)]), 3);
    assert!(said.contains("no usable checkpoint"), "{said}");
}

#[test]
fn a_run_is_continued_with_its_own_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 4, 1);
    let out = dir.path().join("run");
    expect_code(
        &run(&[
            "train",
            "--config",
            "tiny",
            "--data",
            text(&data),
            "--out",
            text(&out),
            "--threads",
            "1",
            "--steps",
            "2",
        ]),
        0,
    );
    let said = expect_code(&run(&["train", "--resume", text(&out), "--lr", "0.5"]), 2);
    assert!(said.contains("train.lr: 0.02 -> 0.5") && said.contains("--override-resume"), "{said}");
}

#[test]
fn a_run_folder_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 4, 1);
    let out = dir.path().join("run");
    fs::create_dir(&out).unwrap();
    let lock = fs::File::create(out.join(".lock")).unwrap();
    lock.lock().unwrap();
    let output = run(&[
        "train",
        "--config",
        "tiny",
        "--data",
        text(&data),
        "--out",
        text(&out),
        "--steps",
        "1",
    ]);
    assert!(expect_code(&output, 6).contains("in use"));
    assert!(!out.join("metrics.jsonl").exists());
}

#[test]
fn training_without_a_usable_data_set_says_what_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let output = program().args(["train"]).current_dir(dir.path()).output().unwrap();
    let said = expect_code(&output, 3);
    assert!(said.contains("annotations") && said.contains("cocodataset.org"), "{said}");
    assert!(!dir.path().join("runs").exists(), "no run folder is left behind");
    let output = run(&["train", "--backbone", "resnet50", "--data", text(dir.path())]);
    assert!(expect_code(&output, 2).contains("not a backbone"));
}

/// What a run with `changes` did: its steps.
fn steps_of(data: &Path, out: &Path, flags: &[&str], changes: &[&str]) -> Vec<Value> {
    let mut args = vec!["train", "--config", "tiny", "--data", text(data), "--out", text(out)];
    args.extend(["--threads", "1"]);
    args.extend(flags);
    args.extend(changes.iter().flat_map(|change| ["--set", change]));
    expect_code(&run(&args), 0);
    metrics(out, "step")
}

#[test]
fn two_batches_of_two_count_as_one_of_four() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 7, 1);
    // What a batch shares: statistics, drop path's masks, and the size of its inputs.
    let changes = [
        "backbone.norm=frozen",
        "backbone.tail_norm=frozen",
        "backbone.drop_path_keep=1.0",
        "train.augment.scale=[1.0, 1.0]",
        "train.warmup_steps=1",
        "detector.rules=tf",
        "input.resize={ kind = \"fixed\", height = 96, width = 128 }",
        "rpn.pre_nms_train=0",
        "rpn.pre_nms_eval=0",
    ];
    let steps = |name: &str, flags: &[&str]| {
        let flags = [&["--steps", "5"], flags].concat();
        steps_of(&data, &dir.path().join(name), &flags, &changes)
    };
    let whole = steps("whole", &["--batch", "4"]);
    let parts = steps("parts", &["--batch", "2", "--accumulate", "2"]);
    assert_eq!(whole.len(), 5);
    for (whole, parts) in whole.iter().zip(&parts) {
        for key in ["step", "epoch", "lr"] {
            assert_eq!(whole[key], parts[key]);
        }
        // A rounding can change the order of proposals, and so which are drawn: step.rs tests have no such
        // choice and hold the gradients to 1e-6.
        for (key, limit) in [("loss_objectness", 1e-4), ("loss_rpn_box_reg", 1e-2), ("loss", 0.1)] {
            let [a, b] = [whole, parts].map(|line| line[key].as_f64().unwrap());
            assert!((a - b).abs() <= limit * a.abs(), "{key}: {whole} {parts}");
        }
    }
}

#[test]
fn a_run_that_gets_no_better_ends_early_and_stays_ended() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 2, 1);
    let out = dir.path().join("run");
    let changes = [
        "backbone.norm=frozen",
        "backbone.tail_norm=frozen",
        "train.ema.decay=0.0",
        "train.eval_every=1",
        "train.patience=2",
        "train.best_by=AR100",
    ];
    // Steps of no length: every evaluation is that of the first.
    let steps = steps_of(&data, &out, &["--epochs", "9", "--lr", "1e-30"], &changes);
    assert_eq!((steps.len(), metrics(&out, "eval").len()), (3, 3));
    let saved = Contents::read(&out.join("last.safetensors")).unwrap();
    let state: Value = serde_json::from_str(&saved.metadata["state"]).unwrap();
    assert_eq!((&state["step"], &state["stale"]), (&Value::from(3), &Value::from(2)));
    assert_eq!(state["best"][0], metrics(&out, "eval")[0]["stats"][8], "AR100");
    let said = expect_code(&run(&["train", "--resume", text(&out), "--threads", "1"]), 0);
    assert!(said.contains("2 evaluations without a better one"), "{said}");
    assert_eq!(metrics(&out, "step").len(), 3);
}

#[test]
fn a_detector_of_other_categories_is_fine_tuned_with_its_featurizer_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 2, 1);
    let first = dir.path().join("first");
    steps_of(&data, &first, &["--steps", "1"], &["train.half_precision_model=false"]);
    let model = first.join("best.safetensors");
    // The first category gets another name.
    let mut renamed = String::new();
    for split in ["train", "val"] {
        let path = data.join(format!("annotations/{split}.json"));
        let mut set: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        set["categories"][0]["name"].as_str().unwrap().clone_into(&mut renamed);
        set["categories"][0]["name"] = "something else".into();
        fs::write(path, set.to_string()).unwrap();
    }
    let out = dir.path().join("second");
    let args = ["train", "--config", "tiny", "--data", text(&data), "--out", text(&out)];
    let rest = ["--threads", "1", "--steps", "2", "--lr", "0.1", "--init", text(&model), "--set"];
    let args = [&args[..], &rest].concat();
    let said = expect_code(&run(&[&args[..], &["train.freeze=[\"backbone.conv1\"]"]].concat()), 2);
    assert!(said.contains("'backbone.conv1' matches nothing"), "{said}");
    assert!(!out.join("config.json").exists(), "the folder is not taken");
    let said = expect_code(&run(&[&args[..], &["train.freeze=[\"backbone\"]"]].concat()), 0);
    assert!(said.contains(&format!("new: something else; not used: {renamed}")), "{said}");
    let trained = Contents::read(&out.join("last.safetensors")).unwrap();
    let (mut same, mut moved) = (0, 0);
    for (name, tensor) in Contents::read(&model).unwrap().tensors {
        let now = &trained.tensors[&format!("model.{name}")];
        if name.starts_with("backbone.") {
            assert_eq!(*now, tensor, "{name} is frozen, running statistics included");
            same += 1;
        } else {
            moved += usize::from(*now != tensor);
        }
    }
    assert!(same > 100 && moved >= 8, "{same} {moved}");
}

#[test]
fn a_head_for_whole_images_learns_beside_and_is_no_part_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 4, 1);
    // Nothing that hangs on how long the run is to be.
    let changes = [
        "train.loss_weights.auxiliary=4.0",
        "train.schedule={ kind = \"constant\" }",
        "backbone.drop_path_keep=1.0",
    ];
    let out = dir.path().join("run");
    let steps = steps_of(&data, &out, &["--steps", "60", "--lr", "0.02"], &changes);
    let number = |step: &Value, key: &str| step[key].as_f64().unwrap_or_else(|| panic!("{step}"));
    for step in &steps {
        let parts = ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"];
        let sum: f64 = parts.map(|key| number(step, key)).iter().sum();
        let sum = sum + 4. * number(step, "loss_auxiliary");
        assert!((number(step, "loss") - sum).abs() < 1e-9, "{step}");
    }
    let mean = |steps: &[Value]| {
        steps.iter().map(|step| number(step, "loss_auxiliary")).sum::<f64>() / steps.len() as f64
    };
    let (first, last) = (mean(&steps[..5]), mean(&steps[steps.len() - 5..]));
    assert!(last < 0.8 * first, "loss_auxiliary {first} to {last}");
    // It goes on with the run, and not into the model.
    let tensors = |file: &str| Contents::read(&out.join(file)).unwrap().tensors;
    assert!(tensors("last.safetensors").contains_key("model.auxiliary.linear.weight"));
    assert!(tensors("best.safetensors").keys().all(|name| !name.contains("auxiliary")));
    let straight = dir.path().join("straight");
    let parts = dir.path().join("parts");
    steps_of(&data, &straight, &["--steps", "6"], &changes);
    steps_of(&data, &parts, &["--steps", "4"], &changes);
    let goes_on = ["--override-resume", "--steps", "6", "--threads", "1"];
    expect_code(&run(&[&["train", "--resume", text(&parts)][..], &goes_on].concat()), 0);
    let last = |run: &Path| Contents::read(&run.join("last.safetensors")).unwrap().tensors;
    assert_eq!(last(&straight), last(&parts));
    // A model says nothing of whole images, so that the head begins anew.
    let again = dir.path().join("again");
    let model = out.join("best.safetensors");
    let args = ["train", "--config", "tiny", "--data", text(&data), "--out", text(&again)];
    let rest = ["--threads", "1", "--steps", "1", "--init", text(&model), "--set", changes[0]];
    let said = expect_code(&run(&[&args[..], &rest].concat()), 0);
    assert!(said.contains("made new: auxiliary.linear.bias, auxiliary.linear.weight"), "{said}");
    let image = data.join("images");
    let image = fs::read_dir(image).unwrap().next().unwrap().unwrap().path();
    expect_code(&run(&[text(&image), "--weights", text(&model), "--engine", "torch"]), 0);
}
