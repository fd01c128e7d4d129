//! The other verbs that need a network: detection in images, evaluation of a model, features.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Golden, assert_close, oracle};
use detect::weights::Contents;
use program::{expect_code, program, run, small_scenes, tree};
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout_json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON value and nothing else")
}

fn sample(n: u32) -> PathBuf {
    tree().join(format!("data/samples/sample_{n:04}.jpg"))
}

#[test]
fn images_give_detections_as_json_and_as_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let images = [sample(1), sample(2)];
    let output = run(&[
        text(&images[0]),
        text(&images[1]),
        "--json",
        "--out",
        text(&out),
        "--batch",
        "2",
        "--threads",
        "1",
    ]);
    let said = expect_code(&output, 0);
    assert!(said.contains("star") && said.contains("house"), "the shipped model's classes: {said}");
    let found = stdout_json(&output);
    assert_eq!(found.as_array().unwrap().len(), 2);
    let mut objects = 0;
    for (entry, image) in found.as_array().unwrap().iter().zip(&images) {
        assert_eq!(entry["file"], text(image));
        let [width, height] = ["width", "height"].map(|k| entry[k].as_f64().unwrap());
        for d in entry["detections"].as_array().unwrap() {
            let b: Vec<f64> =
                d["bbox"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            assert!(b[0] >= 0. && b[1] >= 0. && b[2] > 0. && b[3] > 0.);
            assert!(b[0] + b[2] <= width + 0.5 && b[1] + b[3] <= height + 0.5, "{b:?}");
            assert!((0.3..=1.).contains(&d["score"].as_f64().unwrap()));
            assert!(d["category"].is_string() && d["category_id"].is_i64());
            objects += 1;
        }
    }
    assert!(objects >= 4, "the shipped model finds things in the shipped samples: {objects}");
    for n in [1, 2] {
        let picture = out.join(format!("sample_{n:04}.detections.jpg"));
        let drawn = detect::data::image::decode(&picture).unwrap().image;
        let original = detect::data::image::decode(&sample(n)).unwrap().image;
        assert_eq!(drawn.size, original.size);
    }
    // Two of the same size in a batch, or one by itself: the boxes are the same but for rounding. (With
    // images of other sizes there is more padding around an image, which its border sees.)
    let image = text(&images[1]);
    let alone = stdout_json(&run(&[image, "--json", "--threads", "1", "--weights", "scenes"]));
    let twice = stdout_json(&run(&[image, image, "--json", "--batch", "2", "--threads", "1"]));
    let boxes = |entry: &Value| -> Vec<f64> {
        let found = entry["detections"].as_array().unwrap();
        found
            .iter()
            .flat_map(|d| d["bbox"].as_array().unwrap().clone())
            .map(|x| x.as_f64().unwrap())
            .collect()
    };
    for entry in twice.as_array().unwrap() {
        let (a, b) = (boxes(entry), boxes(&alone[0]));
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 0.1), "{a:?} {b:?}");
    }
}

#[test]
fn bad_images_are_named_and_the_others_are_done() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("images");
    fs::create_dir(&folder).unwrap();
    fs::copy(sample(1), folder.join("good.jpg")).unwrap();
    let whole = fs::read(sample(2)).unwrap();
    fs::write(folder.join("cut.jpg"), &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.join("words.png"), "no image").unwrap();
    let missing = dir.path().join("missing.jpg");
    let output = run(&[text(&folder), text(&missing), "--json", "--threads", "1"]);
    let said = expect_code(&output, 1);
    for name in ["cut.jpg", "words.png", "missing.jpg"] {
        assert!(said.contains(name), "{name} is named: {said}");
    }
    assert!(!said.contains("panicked") && said.contains("3 of the inputs failed"), "{said}");
    let found = stdout_json(&output);
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert!(found[0]["file"].as_str().unwrap().ends_with("good.jpg"));
}

#[test]
fn every_bad_file_is_survived() {
    let Some(root) = std::env::var_os("DETECT_TEST_DATA") else {
        eprintln!("skipped: DETECT_TEST_DATA is not set");
        return;
    };
    let source = Path::new(&root).join("data/badfiles");
    let dir = tempfile::tempdir().unwrap();
    let folder_like_an_image = dir.path().join("directory_named.jpg");
    fs::create_dir(&folder_like_an_image).unwrap();
    let mut files: Vec<PathBuf> = [source.clone(), source.join("real")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.extension().is_none_or(|e| e != "md"))
        .collect();
    assert!(files.len() > 70, "the bad files are all there");
    files.push(folder_like_an_image);
    let arguments: Vec<&str> = files.iter().map(|p| text(p)).collect();
    let output = program().args(arguments).args(["--json", "--threads", "1"]).output().unwrap();
    let said = expect_code(&output, 1);
    assert!(!said.contains("panicked") && !said.contains("internal error"), "{said}");
    for name in
        ["zero_bytes.jpg", "bomb_valid_20000x20000_1bit.png", "directory_named.jpg", "photo.avif"]
    {
        assert!(said.contains(name), "{name}: {said}");
    }
    let found = stdout_json(&output);
    let done: Vec<&str> =
        found.as_array().unwrap().iter().map(|e| e["file"].as_str().unwrap()).collect();
    for name in [
        "UPPER.JPG",
        "exif_orientation_6.jpg",
        "lossy.webp",
        "one_pixel.png",
        "wide_5000x2.jpg",
        "gray16.tif",
    ] {
        assert!(done.iter().any(|file| file.ends_with(name)), "{name} is read");
    }
    assert_eq!(
        done.len() + said.matches("ERROR").count() - 1,
        files.len(),
        "each is done or named"
    );
}

#[test]
fn a_model_is_scored_on_a_split() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 2, 6);
    let out = dir.path().join("out");
    let common = ["eval", "--data", text(&data), "--split", "val", "--threads", "1"];
    let output = run(&[&common[..], &["--json", "--out", text(&out)]].concat());
    expect_code(&output, 0);
    let scored = stdout_json(&output);
    assert_eq!(scored["images"], 6);
    assert_eq!(scored["split"], "val");
    assert_eq!(scored["stats"].as_array().unwrap().len(), 12);
    assert_eq!(scored["image_ids_sha256"].as_str().unwrap().len(), 64);
    // The file that was written gives the same numbers to the evaluator alone.
    let again = run(&[
        "eval",
        "--annotations",
        text(&data.join("annotations/val.json")),
        "--predictions",
        text(&out.join("detections.json")),
        "--json",
    ]);
    expect_code(&again, 0);
    assert_eq!(stdout_json(&again)["stats"], scored["stats"]);
    let table = run(&common);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]")
    );
    assert!(table.contains("mug") && table.contains("6 images of 'val'"), "{table}");
}

#[test]
fn a_model_that_knows_none_of_the_categories_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 1, 1);
    let path = data.join("annotations/val.json");
    let mut set: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (i, category) in set["categories"].as_array_mut().unwrap().iter_mut().enumerate() {
        category["name"] = format!("other {i}").into();
    }
    fs::write(&path, set.to_string()).unwrap();
    let said = expect_code(&run(&["eval", "--data", text(&data), "--split", "val"]), 2);
    assert!(said.contains("knows none of the categories"), "{said}");
    let said = expect_code(&run(&["eval", "--data", text(&data), "--split", "test"]), 3);
    assert!(said.contains("train") && said.contains("val"), "lists the splits: {said}");
}

#[test]
fn weights_that_do_not_fit_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.safetensors");
    let mut contents = Contents::read(&tree().join("data/models/scenes.safetensors")).unwrap();
    let name = "rpn.head.cls_logits.bias".to_owned();
    let mut tensor = contents.tensors.remove(&name).unwrap();
    contents.tensors.insert("rpn.head.extra".into(), tensor.clone());
    tensor.shape = vec![1];
    tensor.bytes.truncate(4);
    contents.tensors.insert("rpn.head.bbox_pred.bias".into(), tensor);
    contents.write(&bad).unwrap();
    let said = expect_code(&run(&[text(&sample(1)), "--weights", text(&bad)]), 4);
    for part in [
        "missing: rpn.head.cls_logits.bias",
        "unexpected: rpn.head.extra",
        "misshapen: rpn.head.bbox_pred.bias",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    fs::write(&bad, b"not a model").unwrap();
    expect_code(&run(&[text(&sample(1)), "--weights", text(&bad)]), 4);
    let said = expect_code(&run(&[text(&sample(1)), "--weights", "no-such-model"]), 4);
    assert!(said.contains("scenes"), "lists the shipped models: {said}");
}

#[test]
fn features_of_a_bare_state_dict_are_the_goldens() {
    let Some(folder) = oracle("nasnet") else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("features.safetensors");
    for (case, options) in [
        ("small_same_2x96_noskip", &[][..]),
        ("small_same_6x96_skip", &[]),
        ("small_timm_96", &["--pooling", "timm"]),
    ] {
        let case = folder.join(case);
        let weights = case.join("weights.safetensors");
        let input = case.join("features_0.safetensors");
        let arguments =
            ["features", "--weights", text(&weights), "--input", text(&input), "--out", text(&out)];
        expect_code(&run(&[&arguments[..], options].concat()), 0);
        let (found, golden) = (Golden::read(&out), Golden::read(&input));
        for (name, expected) in golden.iter().filter(|(name, _)| *name != "input") {
            // timm's last ReLU works in place: its last cell was recorded after it.
            let found = found.get(name);
            let after_relu = !options.is_empty() && name == "cell_17";
            let found = if after_relu { found.relu() } else { found.shallow_clone() };
            assert_close(&format!("{}/{name}", case.display()), expected, &found, 2e-4);
        }
    }
}

#[test]
fn features_of_a_model_file_end_where_its_detector_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("features.safetensors");
    let output = run(&[
        "features",
        "--weights",
        "scenes",
        "--input",
        text(&sample(1)),
        "--out",
        text(&out),
        "--threads",
        "1",
    ]);
    expect_code(&output, 0);
    let names: Vec<String> = Contents::read(&out).unwrap().tensors.into_keys().collect();
    for name in ["conv0", "cell_stem_1", "cell_5", "reduction_cell_0"] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|n| n == "cell_6" || n == "logits"), "{names:?}");
}

#[test]
fn bench_times_detectors_and_random_classifiers() {
    let image = sample(1);
    let detector = ["--weights", "scenes", "--image", text(&image), "--image-size", "96"];
    let random = ["--backbone", "nasnet-a-1@96", "--image-size", "33x40", "--batch", "2"];
    for (what, kind, batch) in [(&detector[..], "detector", 1), (&random, "classifier", 2)] {
        let common = ["bench", "--runs", "4", "--threads", "1"];
        let output = run(&[&common[..], what, &["--json"]].concat());
        expect_code(&output, 0);
        let report = stdout_json(&output);
        let ms = ["min_ms", "median_ms", "max_ms"].map(|key| report[key].as_f64().unwrap());
        assert!(0. < ms[0] && ms[0] <= ms[1] && ms[1] <= ms[2], "{report}");
        assert_eq!((&report["kind"], &report["batch"]), (&kind.into(), &batch.into()));
        assert_eq!((&report["runs"], &report["threads"]), (&4.into(), &1.into()));
        assert_eq!((&report["engine"], &report["device"]), (&"torch".into(), &"cpu".into()));
        assert!(report["peak_rss_mib"].as_f64().unwrap() > 10., "{report}");
        let file = &report["from_file"];
        assert_eq!(file.is_object(), kind == "detector");
        if file.is_object() {
            assert_eq!(file["file"], text(&image));
            assert!(file["median_ms"].as_f64().unwrap() > 0., "{report}");
        } else {
            assert_eq!(report["image_size"], serde_json::json!([33, 40]));
        }
        let output = run(&[&common[..], what].concat());
        let said = expect_code(&output, 0);
        assert!(said.contains("3 runs to warm up, then 4 that count"), "{said}");
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.starts_with(kind) && table.contains("\nmost memory "), "{table}");
    }
    let refused = expect_code(&run(&["bench", "--engine", "native"]), 2);
    assert!(refused.contains("no engine but torch"), "{refused}");
}

#[test]
fn test_dev_gives_the_archive_that_coco_s_servers_take() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_scenes(&data, 0, 3);
    // As COCO publishes it: images and categories, and no truth.
    let annotations = data.join("annotations");
    let val: Value =
        serde_json::from_slice(&fs::read(annotations.join("val.json")).unwrap()).unwrap();
    let info = serde_json::json!({ "images": val["images"], "categories": val["categories"] });
    fs::write(annotations.join("image_info_test-dev2017.json"), info.to_string()).unwrap();
    fs::rename(data.join("images"), data.join("test2017")).unwrap();
    let common = ["eval", "--data", text(&data), "--split", "test-dev", "--threads", "1"];
    let said = expect_code(&run(&common), 2);
    assert!(said.contains("--out DIR"), "{said}");
    let out = dir.path().join("out");
    let output = run(&[&common[..], &["--out", text(&out), "--json"]].concat());
    expect_code(&output, 0);
    let report = stdout_json(&output);
    let archive = out.join("detections_test-dev2017_detect_results.zip");
    assert_eq!(report["submission"], text(&archive));
    assert_eq!(report["images"], 3);
    let results: Value =
        serde_json::from_slice(&fs::read(out.join("detections.json")).unwrap()).unwrap();
    assert_eq!(report["detections"], results.as_array().unwrap().len());
    assert!(fs::read(&archive).unwrap().starts_with(b"PK\x03\x04"));
}
