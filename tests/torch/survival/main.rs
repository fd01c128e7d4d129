//! Runs that are killed, stopped, starved of disk and memory, and fed what is not finite: what they leave
//! behind is whole, and they go on as if nothing had happened.
//!
//! `DETECT_SURVIVAL=full` takes as many trials as the goals ask for (minutes); without it, a few.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]
#![cfg(unix)]

#[path = "../common/program.rs"]
mod program;

mod codes;
mod exact;
mod goes_on;
mod images;
mod numbers;
mod saves;
mod signals;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use detect_torch::train::checkpoint::{self, State};
use serde_json::Value;

use program::{program, small_scenes};

/// How often something is tried.
fn trials(quick: usize, full: usize) -> usize {
    if std::env::var("DETECT_SURVIVAL").is_ok_and(|value| value == "full") { full } else { quick }
}

/// Numbers from 0 to 1 that look random, the same in each run.
#[derive(Debug)]
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1_u32 << 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() * n as f64) as usize
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small data set and room for runs on it.
#[derive(Debug)]
struct Bench {
    dir: tempfile::TempDir,
    data: PathBuf,
}

impl Bench {
    fn new(train: usize, val: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        small_scenes(&data, train, val);
        Self { dir, data }
    }

    fn run(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `detect train` with the smallest recipe into the run `name`.
    fn train(&self, name: &str, more: &[&str]) -> Command {
        let mut command = program();
        command.args(["train", "--config", "tiny", "--threads", "1", "--data", text(&self.data)]);
        command.args(["--out", text(&self.run(name))]).args(more);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn resume(&self, name: &str, more: &[&str]) -> Command {
        let mut command = program();
        command.args(["train", "--threads", "1", "--resume", text(&self.run(name))]).args(more);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn state(&self, name: &str) -> State {
        checkpoint::load(&self.run(name)).unwrap().1
    }
}

/// Lines of the record, as far as it is written, without those that say that it was started.
fn lines(run: &Path) -> usize {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|line| !line.contains("\"kind\":\"start\"")).count()
}

/// The record without what depends on the clock and the machine, and without how often it was started.
fn record(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let timeless = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let keys = line.as_object_mut().unwrap();
        for key in
            ["data_s", "step_s", "images_per_s", "seconds", "train_seconds", "time", "memory_mib"]
        {
            keys.remove(key);
        }
        line
    };
    text.lines().map(timeless).filter(|line| line["kind"] != "start").collect()
}

/// Names of the files in `folder` that a write leaves when it is cut.
fn leftovers(folder: &Path) -> Vec<String> {
    let names =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| Path::new(name).extension().is_some_and(|e| e == "part")).collect()
}

/// Waits until `done`, while `child` lives.
#[track_caller]
fn wait_until(child: &mut Child, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        assert!(started.elapsed() < Duration::from_mins(5), "no progress");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn send(child: &Child, signal: &str) {
    let status =
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Ends with `code`; what it said on stderr.
#[track_caller]
fn ends(child: Child, code: i32) -> String {
    said(&child.wait_with_output().unwrap(), code)
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    program::expect_code(output, code)
}
