//! Training on another device or in other numbers: what a CPU can show of it, and what a GPU has to.
//!
//! `DETECT_TEST_DEVICE=cuda:0` runs the latter, as `make gpu-check` does.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

#[path = "common/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use detect::weights::{Contents, Element};
use detect_torch::train::checkpoint;
use detect_torch::train::scale::LossScale;
use program::{expect_code, metrics, small_scenes};
use serde_json::Value;

/// A small data set and runs on it.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        small_scenes(&dir.path().join("data"), 4, 1);
        Self { dir }
    }

    fn run(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `detect train` with the smallest recipe; what it says.
    fn train(&self, name: &str, device: &str, steps: u32, more: &[&str]) -> String {
        let steps = steps.to_string();
        let data = self.dir.path().join("data");
        let mut command = program::program();
        command.args(["train", "--config", "tiny", "--threads", "1", "--device", device]);
        command.args(["--set", "train.log_every=1", "--steps", &steps]).args(more);
        command.arg("--data").arg(data).arg("--out").arg(self.run(name));
        expect_code(&command.output().unwrap(), 0)
    }

    fn resume(&self, name: &str, device: &str, more: &[&str]) {
        let mut command = program::program();
        command.args(["train", "--threads", "1", "--device", device, "--override-resume"]);
        command.arg("--resume").arg(self.run(name)).args(more);
        expect_code(&command.output().unwrap(), 0);
    }

    fn last(&self, name: &str) -> Contents {
        Contents::read(&self.run(name).join("last.safetensors")).unwrap()
    }
}

/// The GPU to test on, or a line that says that there is none.
fn gpu() -> Option<String> {
    let device = std::env::var("DETECT_TEST_DEVICE").ok();
    if device.is_none() {
        eprintln!("skipped: DETECT_TEST_DEVICE is not set");
    }
    device
}

/// The losses of each step, by name.
fn losses(run: &Path) -> Vec<BTreeMap<String, f64>> {
    let of = |line: Value| {
        let all = line.as_object().unwrap().clone().into_iter();
        let losses = all.filter(|(name, _)| name.starts_with("loss"));
        losses.map(|(name, value)| (name, value.as_f64().expect("losses are finite"))).collect()
    };
    metrics(run, "step").into_iter().map(of).collect()
}

/// Fails unless the losses of the first steps agree to within a share of the larger one: `regions`, where what the
/// RPN says decides what is compared, and `anchors`, where nothing does.
#[track_caller]
fn assert_first_losses_agree(a: &Path, b: &Path, anchors: f64, regions: f64) {
    let (a, b) = (losses(a).remove(0), losses(b).remove(0));
    assert_eq!(a.len(), 5);
    for (name, x) in &a {
        let of_anchors = ["loss_objectness", "loss_rpn_box_reg"].contains(&name.as_str());
        let (y, share) = (b[name], if of_anchors { anchors } else { regions });
        assert!((x - y).abs() <= share * x.abs().max(y.abs()), "{name}: {x} and {y}");
    }
}

/// Each tensor that a checkpoint holds is of float32.
#[track_caller]
fn assert_float32(contents: &Contents) {
    let other = contents.tensors.iter().find(|(_, t)| t.element != Element::F32);
    assert!(other.is_none(), "{:?}", other.map(|(name, t)| (name, t.element)));
}

#[test]
fn a_profile_says_where_the_time_of_a_step_goes() {
    let bench = Bench::new();
    let said = bench.train("run", "cpu", 9, &["--profile", "4"]);
    let lines = metrics(&bench.run("run"), "profile");
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    // Three steps to get warm, then four.
    assert_eq!((&line["steps"], &line["step"]), (&4.into(), &7.into()));
    let parts = line["parts"].as_object().unwrap();
    let names: Vec<&str> = parts.keys().map(String::as_str).collect();
    assert_eq!(names, ["data", "trunk", "rpn", "roi", "backward", "optimizer", "other"]);
    let share = |name: &str| parts[name]["share"].as_f64().unwrap();
    let sum: f64 = names.iter().map(|name| share(name)).sum();
    assert!((0.95..=1. + 1e-9).contains(&sum), "the parts are the whole: {sum}");
    assert!(["trunk", "rpn", "roi", "backward", "optimizer"].map(share).iter().all(|s| *s > 0.));
    for part in names {
        assert!(said.contains(&format!("  {part} ")), "{said}");
    }
    assert_eq!(metrics(&bench.run("run"), "step").len(), 9, "the run goes on");
    bench.train("plain", "cpu", 9, &[]);
    assert!(metrics(&bench.run("plain"), "profile").is_empty());
    assert_eq!(bench.last("run").tensors, bench.last("plain").tensors, "nothing else changes");
}

#[test]
fn deterministic_changes_no_bit_on_a_cpu() {
    let bench = Bench::new();
    bench.train("plain", "cpu", 4, &[]);
    bench.train("deterministic", "cpu", 4, &["--deterministic"]);
    assert_eq!(bench.last("plain").tensors, bench.last("deterministic").tensors);
}

#[test]
fn a_step_in_bfloat16_is_close_to_one_in_float32() {
    let bench = Bench::new();
    for precision in ["float32", "bf16"] {
        bench.train(precision, "cpu", 3, &["--set", &format!("train.precision={precision}")]);
        assert_eq!(metrics(&bench.run(precision), "start")[0]["precision"], precision);
    }
    assert_first_losses_agree(&bench.run("float32"), &bench.run("bf16"), 0.02, 0.15);
    assert_ne!(losses(&bench.run("float32")), losses(&bench.run("bf16")));
    assert_float32(&bench.last("bf16"));
    // No recipe asks for anything but `auto`, which is float32 on a CPU.
    bench.train("auto", "cpu", 3, &[]);
    assert_eq!(bench.last("auto").tensors, bench.last("float32").tensors);
}

#[test]
fn a_step_in_float16_is_close_to_one_in_float32() {
    let bench = Bench::new();
    bench.train("float32", "cpu", 2, &[]);
    let [from, to] = ["float32", "fp16"].map(|name| bench.run(name));
    std::fs::create_dir(&to).unwrap();
    for file in ["last.safetensors", "config.json", "metrics.jsonl"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let (contents, mut state, _) = checkpoint::load(&to).unwrap();
    // Large enough for small gradients, and nothing overflows.
    state.loss_scale = Some(LossScale { factor: 64., good: 0 });
    checkpoint::save(&to, contents, &state).unwrap();
    bench.resume("float32", "cpu", &["--steps", "3"]);
    bench.resume("fp16", "cpu", &["--steps", "3", "--set", "train.precision=fp16"]);
    let state = checkpoint::load(&to).unwrap().1;
    assert_eq!((state.step, state.left_out), (3, 0), "the step was made");
    let norm = |run: &Path| metrics(run, "step").pop().unwrap()["grad_norm"].as_f64().unwrap();
    let [a, b] = [&from, &to].map(|run| norm(run));
    assert!(a != b && (a - b).abs() <= 0.1 * a, "{a} and {b}");
    assert_float32(&bench.last("fp16"));
}

#[test]
fn a_step_that_overflows_in_float16_is_left_out_and_the_factor_halved() {
    let bench = Bench::new();
    bench.train("run", "cpu", 3, &["--set", "train.precision=fp16"]);
    assert_float32(&bench.last("run"));
    let run = bench.run("run");
    let (contents, mut state, _) = checkpoint::load(&run).unwrap();
    assert!(state.loss_scale.is_some_and(|scale| scale.factor >= 1.), "{:?}", state.loss_scale);
    // Gradients of a loss this large overflow.
    let large = (1_u64 << 60) as f64;
    state.loss_scale = Some(LossScale { factor: large, good: 5 });
    let (before, before_left_out) = (contents.tensors.clone(), state.left_out);
    checkpoint::save(&run, contents, &state).unwrap();
    bench.resume("run", "cpu", &["--steps", "5"]);
    let (contents, state, _) = checkpoint::load(&run).unwrap();
    assert_eq!((state.step, state.skipped), (5, 0));
    assert_eq!(state.left_out, before_left_out + 2);
    assert_eq!(state.loss_scale, Some(LossScale { factor: large / 4., good: 0 }));
    for (name, tensor) in &contents.tensors {
        // Statistics of batch norm are those of images, and move.
        if !name.contains("running_") {
            assert_eq!(Some(tensor), before.get(name), "{name} has not moved");
        }
    }
    let norms: Vec<Value> =
        metrics(&run, "step").into_iter().map(|line| line["grad_norm"].clone()).collect();
    assert!(norms[3..].iter().all(Value::is_null), "{norms:?}");
    // In float32 there is nothing to scale.
    bench.resume("run", "cpu", &["--steps", "6", "--set", "train.precision=float32"]);
    let (_, state, _) = checkpoint::load(&run).unwrap();
    assert_eq!((state.step, state.loss_scale), (6, None));
}

#[test]
fn a_step_on_a_gpu_is_one_on_a_cpu() {
    let Some(gpu) = gpu() else { return };
    let bench = Bench::new();
    let plain = ["--set", "train.precision=float32", "--set", "backbone.drop_path_keep=1.0"];
    for (name, device) in [("cpu", "cpu"), ("gpu", gpu.as_str())] {
        bench.train(name, device, 1, &plain);
    }
    // Samples are the same; sums are made in another order.
    assert_first_losses_agree(&bench.run("cpu"), &bench.run("gpu"), 1e-3, 1e-2);
}

#[test]
fn steps_on_a_gpu_are_finite_in_each_precision() {
    let Some(gpu) = gpu() else { return };
    let bench = Bench::new();
    for precision in ["float32", "bf16", "fp16"] {
        bench.train(precision, &gpu, 5, &["--set", &format!("train.precision={precision}")]);
        assert_eq!(losses(&bench.run(precision)).len(), 5);
        let left_out = checkpoint::load(&bench.run(precision)).unwrap().1.left_out;
        assert!(left_out == 0 || precision == "fp16" && left_out < 5, "steps were made");
        assert_float32(&bench.last(precision));
    }
    assert_first_losses_agree(&bench.run("float32"), &bench.run("bf16"), 0.02, 0.15);
}

#[test]
fn deterministic_runs_on_a_gpu_give_the_same_bytes() {
    let Some(gpu) = gpu() else { return };
    let bench = Bench::new();
    for name in ["a", "b"] {
        bench.train(name, &gpu, 20, &["--deterministic"]);
    }
    assert_eq!(bench.last("a").tensors, bench.last("b").tensors);
}

#[test]
fn a_run_that_is_resumed_on_a_gpu_ends_like_one_that_is_not() {
    let Some(gpu) = gpu() else { return };
    let bench = Bench::new();
    // A rate that does not hang on how many steps there are.
    let more = ["--deterministic", "--set", "train.schedule={kind=\"constant\"}"];
    let more = [&more[..], &["--set", "train.drop_path_steps=20"]].concat();
    bench.train("straight", &gpu, 20, &more);
    bench.train("resumed", &gpu, 10, &more);
    bench.resume("resumed", &gpu, &["--deterministic", "--steps", "20"]);
    assert_eq!(bench.last("straight").tensors, bench.last("resumed").tensors);
}
