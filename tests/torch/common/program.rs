//! Running the program itself on small sets.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// The root of the source tree.
pub(crate) fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// `detect-torch` with one thread, so that tests beside each other do not fight for cores.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_detect-torch"));
    command.env_remove("DETECT_DATA").env_remove("RUST_LOG").env("OMP_NUM_THREADS", "1");
    command
}

/// Runs `program` with `arguments`.
pub(crate) fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("the program starts")
}

/// The exit code, and what was said on stderr.
pub(crate) fn outcome(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

/// Fails unless the program ended with `code`.
#[track_caller]
pub(crate) fn expect_code(output: &Output, code: i32) -> String {
    let (found, text) = outcome(output);
    assert_eq!(found, code, "{text}");
    text
}

/// A data set in `folder` made of the first `train` and `val` images of data/scenes that show something.
pub(crate) fn small_scenes(folder: &Path, train: usize, val: usize) {
    let scenes = tree().join("data/scenes");
    for sub in ["annotations", "images"] {
        std::fs::create_dir_all(folder.join(sub)).unwrap();
    }
    for (split, count) in [("train", train), ("val", val)] {
        let text =
            std::fs::read_to_string(scenes.join(format!("annotations/{split}.json"))).unwrap();
        let whole: Value = serde_json::from_str(&text).unwrap();
        let annotations = whole["annotations"].as_array().unwrap();
        let shows = |image: &&Value| annotations.iter().any(|a| a["image_id"] == image["id"]);
        let images: Vec<&Value> =
            whole["images"].as_array().unwrap().iter().filter(shows).take(count).collect();
        let kept: Vec<&Value> = annotations
            .iter()
            .filter(|a| images.iter().any(|image| image["id"] == a["image_id"]))
            .collect();
        for image in &images {
            let name = image["file_name"].as_str().unwrap();
            let [from, to] = [&scenes, folder].map(|root| root.join("images").join(name));
            std::fs::copy(from, to).unwrap();
        }
        let set =
            json!({ "images": images, "annotations": kept, "categories": whole["categories"] });
        let path = folder.join(format!("annotations/{split}.json"));
        std::fs::write(path, set.to_string()).unwrap();
    }
}

/// The lines of a run's record of one kind.
pub(crate) fn metrics(run: &Path, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind).collect()
}
