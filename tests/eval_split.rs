//! `detect eval --split`: what is said of a model's run, and what is asked of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// A folder with the first images of the shipped scenes as the split `val`; the first annotation has the id 0.
fn scenes(count: usize) -> tempfile::TempDir {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/scenes");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("annotations")).unwrap();
    fs::create_dir(folder.path().join("images")).unwrap();
    let truth = fs::read(shipped.join("annotations/val.json")).unwrap();
    let mut truth: Value = serde_json::from_slice(&truth).unwrap();
    let images = truth["images"].as_array_mut().unwrap();
    images.truncate(count);
    let ids: Vec<Value> = images.iter().map(|image| image["id"].clone()).collect();
    for image in images {
        let name = Path::new("images").join(image["file_name"].as_str().unwrap());
        fs::copy(shipped.join(&name), folder.path().join(&name)).unwrap();
    }
    let annotations = truth["annotations"].as_array_mut().unwrap();
    annotations.retain(|annotation| ids.contains(&annotation["image_id"]));
    annotations[0]["id"] = json!(0);
    fs::write(folder.path().join("annotations/val.json"), truth.to_string()).unwrap();
    folder
}

fn detect(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_detect")).current_dir(folder).args(args).output().unwrap()
}

fn stats(folder: &Path, args: &[&str]) -> Value {
    let output = detect(folder, &[args, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["stats"].clone()
}

const SPLIT: [&str; 7] = ["eval", "--data", ".", "--split", "val", "--batch", "1"];

#[test]
fn a_run_is_scored_by_the_settings_that_a_results_file_is_scored_by() {
    let folder = scenes(2);
    let folder = folder.path();
    let plain = stats(folder, &[&SPLIT[..], &["--out", "out"]].concat());
    let truth: Value =
        serde_json::from_slice(&fs::read(folder.join("annotations/val.json")).unwrap()).unwrap();
    let image = truth["images"][1]["id"].to_string();
    let category = truth["annotations"][0]["category_id"].to_string();
    let files =
        ["eval", "--annotations", "annotations/val.json", "--predictions", "out/detections.json"];
    for settings in [
        &["--images", &image][..],
        &["--categories", &category],
        &["--class-agnostic"],
        &["--iou-thresholds", "0.3"],
        &["--area-ranges", "tiny:0:3000"],
        &["--max-detections", "1,2"],
        &["--fix-id-zero"],
    ] {
        let run = stats(folder, &[&SPLIT[..], settings].concat());
        assert_ne!(run, plain, "{settings:?}");
        // Detections on the other image would be refused.
        let file = stats(folder, &[&files[..], settings].concat());
        assert_eq!(run, file, "{settings:?}");
    }
    let json = detect(folder, &[&SPLIT[..], &["--json"]].concat()).stdout;
    assert_eq!(serde_json::from_slice::<Value>(&json).unwrap()["batch"], 1);
    let more = ["--out", "out", "--arrays", "out/a.npz", "--html", "out/page.html"];
    let output = detect(folder, &[&SPLIT[..], &more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("2 images of 'val' (ids ") && text.contains("(TIDE)"), "{text}");
    assert_eq!(&fs::read(folder.join("out/a.npz")).unwrap()[..2], b"PK");
    assert!(fs::read_to_string(folder.join("out/page.html")).unwrap().contains("</html>"));
}

/// Ends with `code` before the first image, and says all of `words`.
fn assert_refused(folder: &Path, args: &[&str], code: i32, words: &[&str]) {
    let output = detect(folder, args);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(code), Vec::new()), "{args:?}: {talk}");
    assert!(words.iter().all(|word| talk.contains(word)), "{args:?}: {talk}");
    assert!(!talk.contains("detections with a score above"), "{args:?}: {talk}");
}

#[test]
fn what_a_run_is_not_scored_for_is_refused_before_it() {
    let folder = scenes(1);
    let folder = folder.path();
    let refused = |more: &[&str], code, words: &[&str]| {
        assert_refused(folder, &[&SPLIT[..], more].concat(), code, words);
    };
    let way = "--predictions DIR/detections.json";
    refused(&["--iou-type", "segm"], 2, &["--iou-type segm goes with a results file", way]);
    refused(&["--compare", "b.json"], 2, &["--compare DT2.json goes with a results file", way]);
    refused(&["--images", "123456"], 3, &["image ids that it lacks: 123456"]);
    refused(&["--categories", "77"], 3, &["category ids that it lacks: 77"]);
    refused(&["--iou-thresholds", "x"], 2, &["--iou-thresholds: `x` is no number"]);
    refused(&["--html", "no/page.html"], 5, &["--html: cannot write no/page.html"]);
    refused(&["--arrays", "annotations/val.json"], 2, &["--arrays", "which is read"]);
}

#[test]
fn what_is_scored_is_asked_for_by_the_form_that_was_begun() {
    let refused = |args: &[&str], words: &[&str]| {
        assert_refused(Path::new("."), &[&["eval"][..], args].concat(), 2, words);
    };
    let both = ["--split val", "--annotations GT.json --predictions DT.json"];
    for args in [&[][..], &["--data", "d"], &["--html", "a.html"]] {
        refused(args, &both);
    }
    let output = detect(Path::new("."), &["eval", "--predictions", "dt.json"]);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{talk}");
    assert!(talk.contains("--annotations <GT.json>") && !talk.contains("--split"), "{talk}");
}

#[test]
fn categories_of_the_same_names_under_other_ids_are_told_as_such() {
    let folder = scenes(1);
    let file = folder.path().join("annotations/val.json");
    let mut truth: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let first = truth["categories"][0].clone();
    for category in truth["categories"].as_array_mut().unwrap() {
        category["id"] = json!(category["id"].as_i64().unwrap() + 100);
    }
    for annotation in truth["annotations"].as_array_mut().unwrap() {
        annotation["category_id"] = json!(annotation["category_id"].as_i64().unwrap() + 100);
    }
    fs::write(file, truth.to_string()).unwrap();
    let (name, id) = (first["name"].as_str().unwrap(), first["id"].as_i64().unwrap());
    let pair = format!("{name}: {id}, {}", id + 100);
    assert_refused(folder.path(), &SPLIT, 2, &["the same names under other ids", &pair]);
}

/// Each argument of the scoring.
const SCORING: [&[&str]; 11] = [
    &["--iou-type", "bbox"],
    &["--images", "1"],
    &["--categories", "1"],
    &["--class-agnostic"],
    &["--iou-thresholds", "0.5"],
    &["--area-ranges", "a:0:1"],
    &["--max-detections", "1"],
    &["--fix-id-zero"],
    &["--arrays", "a.npz"],
    &["--compare", "b.json"],
    &["--html", "a.html"],
];

#[test]
fn where_no_detection_is_scored_no_argument_says_how() {
    let task = ["eval", "--task", "classification", "--data", "d", "--weights", "w"];
    let test = ["eval", "--data", "d", "--split", "test-dev", "--out", "o"];
    for argument in SCORING {
        let words = [argument[0], "does not go with --task classification"];
        assert_refused(Path::new("."), &[&task[..], argument].concat(), 2, &words);
        assert_refused(Path::new("."), &[&test[..], argument].concat(), 2, &argument[..1]);
    }
}

/// The program where no file can grow: what a full disk does, also to one who may write everywhere.
#[cfg(target_os = "linux")]
fn detect_without_room(folder: &Path, args: &[&str]) -> Output {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_detect"),
    ]);
    shell.current_dir(folder).args(args).output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn scores_are_told_also_where_no_file_can_be_written() {
    let folder = scenes(1);
    let folder = folder.path();
    let split = [&SPLIT[..], &["--out", "out"]].concat();
    let whole = detect(folder, &split);
    let files =
        ["eval", "--annotations", "annotations/val.json", "--predictions", "out/detections.json"];
    let page = [&files[..], &["--html", "page.html"]].concat();
    let arrays = [&files[..], &["--arrays", "a.npz"]].concat();
    for (args, file) in [(split, "out/detections.json"), (page, "page.html"), (arrays, "a.npz")] {
        let output = detect_without_room(folder, &args);
        let talk = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(5), "{args:?}: {talk}");
        assert!(talk.contains(&format!("error: cannot write {file}: ")), "{talk}");
        assert!(!talk.contains("ZipWriter"), "{talk}");
        let [said, all] = [&output.stdout, &whole.stdout].map(|out| String::from_utf8_lossy(out));
        assert_eq!(said.lines().next(), all.lines().next(), "{args:?}");
        assert!(said.contains("\n1 images"), "{args:?}: {said}");
    }
}

/// The scores can't be told, but what the model found is kept.
#[cfg(target_os = "linux")]
#[test]
fn detections_are_kept_also_where_the_scores_cannot_be_printed() {
    let folder = scenes(1);
    let folder = folder.path();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
    command.current_dir(folder).args(SPLIT).args(["--out", "out", "--html", "out/page.html"]);
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    for file in ["detections.json", "page.html"] {
        assert!(folder.join("out").join(file).is_file(), "{file}");
    }
}

#[test]
fn the_folder_of_a_training_run_is_not_written_into() {
    let folder = scenes(1);
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    for name in ["metrics.jsonl", "detections.json"] {
        fs::write(run.join(name), name).unwrap();
    }
    let output = detect(folder.path(), &[&SPLIT[..], &["--out", "run"]].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--out run is the folder of a training run"), "{said}");
    assert_eq!(fs::read_to_string(run.join("detections.json")).unwrap(), "detections.json");
}
