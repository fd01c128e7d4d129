//! `detect report` on run folders made by hand, with images of data/scenes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use detect::eval::{GroundTruth, Results, evaluate, report};
use detect::watch::record::RECORD;
use serde_json::{Value, json};

use crate::{eval, step};

fn scenes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/scenes")
}

fn detect(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
    command.env_remove("RUST_LOG").args(arguments).output().unwrap()
}

/// A run folder whose last evaluation found every second truth of the val split, each twice, the second time in
/// the wrong place. The last line is cut.
fn run_folder(at: &Path, data: &Path) {
    fs::create_dir_all(at).unwrap();
    let truth: Value =
        serde_json::from_slice(&fs::read(scenes().join("annotations/val.json")).unwrap()).unwrap();
    let annotations = truth["annotations"].as_array().unwrap();
    let found = annotations.iter().step_by(2).flat_map(|a| {
        let of = |bbox: Value, score: f64| json!({ "image_id": a["image_id"], "category_id": a["category_id"], "bbox": bbox, "score": score });
        [of(a["bbox"].clone(), 0.9), of(json!([1, 2, 3, 4]), 0.8)]
    });
    let detections: Vec<Value> = found.collect();
    fs::write(at.join("detections.json"), json!(detections).to_string()).unwrap();
    let gt = GroundTruth::from_file(&scenes().join("annotations/val.json")).unwrap();
    let scored =
        evaluate(&gt, &Results::from_json(&json!(detections).to_string()).unwrap()).unwrap();
    let mut evaluation = report::json(&scored);
    evaluation["step"] = json!(6);
    fs::write(at.join("evaluation.json"), evaluation.to_string()).unwrap();
    let start = json!({ "kind": "start", "step": 0, "steps": 6, "time": 1000., "data": data.display().to_string(), "val": "val", "machine": { "cores": 2 } });
    let mut lines: Vec<Value> =
        std::iter::once(start).chain((1..=6).map(step)).chain([eval(6)]).collect();
    for (i, line) in lines.iter_mut().enumerate() {
        line["time"] = json!(1000. + i as f64);
    }
    let text = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n";
    fs::write(at.join(RECORD), text + "{\"kind\":").unwrap();
}

fn stdout(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_run_is_told_as_a_table_as_json_and_as_a_page_with_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("mine-1");
    run_folder(&run, &scenes());
    let text = stdout(&detect(&["report", run.to_str().unwrap()]));
    assert!(text.lines().nth(1).unwrap().starts_with("mine-1  6 of 6"), "{text}");
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert_eq!(
        page.matches("data:image/jpeg;base64,").count(),
        8,
        "four of the best, four of the worst"
    );
    assert!(
        page.contains(" right, ")
            && page.contains("class=\"lost\"")
            && page.contains("class=\"hit\"")
    );

    let elsewhere = dir.path().join("other.html");
    let flags = ["--html", elsewhere.to_str().unwrap(), "--json"];
    let said = stdout(&detect(&[&["report", run.to_str().unwrap()], &flags[..]].concat()));
    let value: Value =
        serde_json::from_str(&said).expect("stdout is one JSON value and nothing else");
    let one = &value["runs"][0];
    assert_eq!(
        (&one["step"], &one["steps"], &one["broken_lines"]),
        (&json!(6), &json!(6), &json!(1))
    );
    assert_eq!((&one["images_shown"], &one["elapsed_s"]), (&json!(8), &json!(7.)));
    assert_eq!(one["evaluations"][0]["elapsed_s"], json!(7.));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), page, "the same page for the same run");
}

#[test]
fn images_that_are_gone_are_said_and_data_may_lie_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("r");
    let moved = dir.path().join("moved");
    run_folder(&run, &moved);
    let arguments = ["report", run.to_str().unwrap()];
    let text = stdout(&detect(&arguments));
    assert!(text.contains("no images on the page") && text.contains("--data"), "{text}");
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("No images are shown") && !page.contains("data:image"));
    assert!(!page.contains('\u{fffd}') && !text.contains('\u{fffd}'), "{text}");
    let data = scenes();
    stdout(&detect(&[&arguments[..], &["--data", data.to_str().unwrap()]].concat()));
    assert!(fs::read_to_string(run.join("report.html")).unwrap().contains("data:image"));
    // A folder that is not there does not cost the page that is.
    let before = fs::read(run.join("report.html")).unwrap();
    let nowhere = detect(&[&arguments[..], &["--data", "no/such/folder"]].concat());
    assert_eq!(nowhere.status.code(), Some(3));
    assert_eq!(fs::read(run.join("report.html")).unwrap(), before);
    // Annotations without their images.
    fs::create_dir_all(moved.join("annotations")).unwrap();
    fs::create_dir_all(moved.join("images")).unwrap();
    fs::copy(data.join("annotations/val.json"), moved.join("annotations/val.json")).unwrap();
    stdout(&detect(&arguments));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert_eq!(page.matches("This image can't be shown").count(), 8);
}

#[test]
fn a_run_that_finds_nothing_yet_shows_what_it_misses() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("r");
    run_folder(&run, &scenes());
    fs::write(run.join("detections.json"), "[]").unwrap();
    stdout(&detect(&["report", run.to_str().unwrap()]));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), 8);
    assert!(page.contains("class=\"lost\"") && !page.contains("class=\"hit\""));
}

#[test]
fn annotations_need_no_more_than_for_training() {
    let dir = tempfile::tempdir().unwrap();
    let (run, data) = (dir.path().join("r"), dir.path().join("data"));
    run_folder(&run, &data);
    fs::create_dir_all(data.join("annotations")).unwrap();
    fs::create_dir_all(data.join("images")).unwrap();
    let text = fs::read(scenes().join("annotations/val.json")).unwrap();
    let mut truth: Value = serde_json::from_slice(&text).unwrap();
    for annotation in truth["annotations"].as_array_mut().unwrap() {
        annotation.as_object_mut().unwrap().remove("iscrowd").unwrap();
    }
    fs::write(data.join("annotations/val.json"), truth.to_string()).unwrap();
    stdout(&detect(&["report", run.to_str().unwrap()]));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    // The images themselves are not there.
    assert_eq!(page.matches("This image can't be shown").count(), 8);
}

#[test]
fn categories_of_other_data_sets_have_rows_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let runs = ["a", "b"].map(|name| dir.path().join(name));
    for run in &runs {
        run_folder(run, &scenes());
    }
    let file = runs[1].join("evaluation.json");
    let mut evaluation: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    evaluation["per_category"][0]["category"] = json!("zebra");
    fs::write(&file, evaluation.to_string()).unwrap();
    let page = dir.path().join("both.html");
    let [a, b] = runs.each_ref().map(|run| run.to_str().unwrap());
    stdout(&detect(&["report", a, b, "--html", page.to_str().unwrap()]));
    let page = fs::read_to_string(&page).unwrap();
    let (_, table) = page.split_once("<h2>Categories</h2>").unwrap();
    let (table, _) = table.split_once("</table>").unwrap();
    let count = evaluation["per_category"].as_array().unwrap().len();
    assert_eq!(table.matches("<tr>").count(), 1 + count + 1, "{table}");
    assert!(table.contains("zebra"), "{table}");
}

#[test]
fn what_is_no_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = detect(&["report", dir.path().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("metrics.jsonl") && output.stdout.is_empty(), "{said}");
    let run = dir.path().join("r");
    run_folder(&run, &scenes());
    let output = detect(&["report", run.to_str().unwrap(), "--html", "/no/such/folder/x.html"]);
    assert_eq!(output.status.code(), Some(5));
    // What a page reads is no page.
    let annotations = dir.path().join("val.json");
    fs::write(&annotations, "{}").unwrap();
    let output =
        detect(&["report", run.to_str().unwrap(), "--html", annotations.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(&annotations).unwrap(), "{}");
}
