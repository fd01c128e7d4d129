//! Watching a run: events as TensorBoard reads them, and `detect report` as a user meets it.
//!
//! Where `DETECT_PYTHON` names a Python with tensorboard, the events are read back by TensorBoard itself.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

mod report;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use detect::watch::events::scalars;
use detect::watch::record::{RECORD, Record, read};
use serde_json::{Value, json};

/// Step, wall time and value of each tag.
type Scalars = BTreeMap<String, Vec<(u64, f64, f64)>>;

/// What TensorBoard reads in `run`; `None` with a line that says why it was not asked.
fn tensorboard(run: &Path) -> Option<Scalars> {
    let Some(python) = std::env::var_os("DETECT_PYTHON").filter(|python| !python.is_empty()) else {
        eprintln!("skipped: DETECT_PYTHON is not set");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/watch/events.py");
    let output =
        Command::new(python).arg(script).arg(run).output().expect("DETECT_PYTHON names a program");
    if output.status.code() == Some(3) {
        eprintln!("skipped: the Python of DETECT_PYTHON has no tensorboard");
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// What a record says should be read.
fn expected(run: &Path) -> Scalars {
    let mut all = Scalars::new();
    for line in read(&run.join(RECORD)).unwrap().0 {
        for (tag, value) in scalars(&line) {
            let point = (
                line["step"].as_u64().unwrap(),
                line["time"].as_f64().unwrap(),
                f64::from(value as f32),
            );
            all.entry(tag).or_default().push(point);
        }
    }
    all
}

fn step(step: u64) -> Value {
    json!({
        "kind": "step", "step": step, "epoch": step / 4, "loss": 2. / step as f64, "loss_classifier": 0.1, "grad_norm": 3.5,
        "lr": 1e-3 * step as f64, "data_s": 1e-6, "step_s": 0.25, "images_per_s": 8., "memory_mib": 321.5,
    })
}

fn eval(step: u64) -> Value {
    let stats: Vec<f64> = (0..12).map(|i| f64::from(i) / 12.).collect();
    json!({ "kind": "eval", "step": step, "AP": 0., "AP50": stats[1], "AP75": stats[2], "stats": stats, "seconds": 1.5 })
}

fn event_file(run: &Path) -> PathBuf {
    let names = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    let mut events: Vec<_> = names.filter(|p| p.to_str().unwrap().contains("tfevents")).collect();
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

#[test]
fn tensorboard_reads_what_the_record_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(RECORD);
    let mut record = Record::open(&path, 0, true).unwrap();
    record.write(&json!({ "kind": "start", "step": 0, "steps": 9, "threads": 2 })).unwrap();
    for n in 1..=6 {
        record.write(&step(n)).unwrap();
    }
    record.write(&eval(6)).unwrap();
    // While the run goes on: nothing is waiting in a buffer.
    let Some(live) = tensorboard(dir.path()) else { return };
    assert_eq!(live, expected(dir.path()));
    let tags = [
        "train/loss",
        "train/lr",
        "train/grad_norm",
        "train/images_per_s",
        "train/data_s",
        "train/step_s",
    ];
    for tag in tags.into_iter().chain([
        "train/memory_mib",
        "eval/AP",
        "eval/AP50",
        "eval/AP75",
        "eval/APs",
        "eval/AR100",
    ]) {
        assert!(live.contains_key(tag), "{tag}");
    }
    assert_eq!(live["eval/APl"], [(6, live["eval/AP"][0].1, f64::from((5. / 12.) as f32))]);

    // Killed in the middle of an event: what is whole is read.
    let mut file = OpenOptions::new().append(true).open(event_file(dir.path())).unwrap();
    file.write_all(&[200, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]).unwrap();
    assert_eq!(tensorboard(dir.path()).unwrap(), live);

    // Resumed after step 4: steps 5 and 6 are made again, otherwise.
    let mut record = Record::open(&path, 4, true).unwrap();
    let mut again = step(5);
    again["loss"] = json!(77.);
    record.write(&again).unwrap();
    let resumed = tensorboard(dir.path()).unwrap();
    assert_eq!(resumed, expected(dir.path()));
    let steps: Vec<u64> = resumed["train/loss"].iter().map(|point| point.0).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5]);
    assert_eq!(resumed["train/loss"][4].2, 77.);
    assert!(!resumed.contains_key("eval/AP"));
}
