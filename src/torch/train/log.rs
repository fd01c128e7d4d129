//! What a run tells: its record and the files of its last evaluation. The bar is [`Progress`].

use std::io::{self, Write as _};
use std::path::Path;

use detect::eval::{Evaluation, report};
use detect::watch::machine;
pub use detect::watch::progress::{Progress, words};
pub use detect::watch::record::Record as Metrics;
use detect::{watch, whole};
use serde::Serialize;
use serde_json::{Value, json};

use super::Setup;
use super::checkpoint::State;
use crate::device;
use crate::precision::Precision;

/// A bar on stderr; lines where that is no terminal.
pub fn bar(total: usize, done: usize, unit: &'static str) -> Progress {
    Progress::start(total, done, unit)
}

/// The line of the record that says what begins, or goes on, and on what.
pub(super) fn start_line(setup: &Setup, state: &State) -> Value {
    let Setup { config, train, val, device: on, .. } = setup;
    // A report may be asked for in another folder.
    let data = std::path::absolute(&train.root).unwrap_or_else(|_| train.root.clone());
    json!({
        "kind": "start",
        "step": state.step,
        "steps": state.total,
        "name": config.name,
        "data": data.display().to_string(),
        "train": train.split,
        "images": train.images.len(),
        "val": val.as_ref().map(|val| &val.split),
        "val_images": val.as_ref().map(|val| val.images.len()),
        "device": device::name(*on),
        "precision": Precision::on(config.train.precision, *on).name(),
        "threads": tch::get_num_threads(),
        "versions": { "detect": env!("CARGO_PKG_VERSION"), "libtorch": env!("DETECT_LIBTORCH_VERSION") },
        "machine": machine::describe(on.is_cuda()),
    })
}

/// Keeps the detections of an evaluation before they are scored.
pub(super) fn keep_detections(run: &Path, results: &[impl Serialize]) -> io::Result<()> {
    write_json(&run.join(watch::DETECTIONS), results)
}

/// Keeps all numbers of an evaluation after `step` steps.
pub(super) fn keep_evaluation(run: &Path, step: usize, evaluation: &Evaluation) -> io::Result<()> {
    let mut value = report::json(evaluation);
    value["step"] = json!(step);
    write_json(&run.join(watch::EVALUATION), &value)
}

fn write_json(path: &Path, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).expect("plain structs become JSON");
    whole::write(path, |file| file.write_all(&bytes))
}
