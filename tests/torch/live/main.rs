//! The importer and the networks against timm and torchvision as they are installed: random weights, saved
//! the way people save them, and what the original programs give for them.
//!
//! `originals.py` makes both anew at each run, with the Python that `DETECT_PYTHON` names; it needs torch,
//! torchvision, timm, safetensors and Pillow. With `--nocapture` the largest differences are printed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

mod classifiers;
#[path = "../common/mod.rs"]
mod common;
mod detectors;
#[path = "../common/program.rs"]
mod program;

use std::path::Path;
use std::process::{Command, Output};

use detect::weights::WeightsError;
use detect::weights::import::{self, Imported, Settings};
use serde_json::Value;
use tempfile::TempDir;

/// What `originals.py` makes for `case`, or `None` with a line that says why there is nothing.
fn originals(case: &str) -> Option<TempDir> {
    let python = std::env::var_os("DETECT_PYTHON").filter(|python| !python.is_empty());
    let Some(python) = python else {
        eprintln!("skipped: DETECT_PYTHON is not set");
        return None;
    };
    // Here as in the programs, so that tests beside each other do not fight for cores.
    tch::set_num_threads(1);
    let dir = tempfile::tempdir().unwrap();
    let script = program::tree().join("tests/torch/live/originals.py");
    let output = Command::new(python).arg(script).arg(case).arg(dir.path()).output();
    let output = output.expect("DETECT_PYTHON names a program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "originals.py {case} failed:\n{said}");
    eprint!("{case}: {}", String::from_utf8_lossy(&output.stdout));
    Some(dir)
}

fn import(path: &Path, settings: &Settings) -> Result<Imported, WeightsError> {
    let mut source = import::open(path)?;
    import::import(source.as_mut(), None, settings, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout_json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON value and nothing else")
}
