//! Settings of the evaluator, the pairs behind its numbers, and its arguments on the command line.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use detect::eval::{Evaluation, GroundTruth, Id, Results, Settings, evaluate_with, match_cells};
use serde_json::{Value, json};

/// Two images, two categories, four truths; each found but the last, by boxes ever further off.
fn files() -> (Value, Value) {
    let truth = |id: i64, image: i64, category: i64, x: i64, side: i64| {
        json!({"id": id, "image_id": image, "category_id": category, "bbox": [x, 0, side, side],
               "area": side * side, "iscrowd": 0})
    };
    let det = |image: i64, category: i64, bbox: [f64; 4], score: f64| json!({"image_id": image, "category_id": category, "bbox": bbox, "score": score});
    let gt = json!({
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [truth(1, 1, 7, 0, 20), truth(2, 1, 9, 100, 50), truth(3, 2, 7, 0, 100),
                        truth(4, 2, 9, 200, 10)],
    });
    let dt = json!([
        det(1, 7, [0., 0., 20., 20.], 0.9),
        det(1, 9, [110., 0., 50., 50.], 0.8),
        det(2, 7, [0., 0., 100., 60.], 0.7),
        det(2, 7, [200., 0., 10., 10.], 0.6),
    ]);
    (gt, dt)
}

fn score(gt: &Value, dt: &Value, settings: &Settings) -> Evaluation {
    let gt = GroundTruth::from_json(&gt.to_string()).unwrap();
    let dt = Results::from_json(&dt.to_string()).unwrap();
    evaluate_with(&gt, &dt, settings).unwrap()
}

fn near(value: Option<f64>, expected: f64) -> bool {
    (value.unwrap() - expected).abs() < 1e-9
}

#[test]
fn subsets_leave_the_rest_out() {
    let (gt, dt) = files();
    let images = Settings { images: Some(vec![1.into()]), ..Settings::default() };
    let got = score(&gt, &dt, &images);
    assert_eq!((got.images, got.per_category.len()), (1, 2));
    assert!(near(got.stat("AP50"), 1.), "{got:?}");
    let categories = Settings { categories: Some(vec![9.into(), 9.into()]), ..Settings::default() };
    let got = score(&gt, &dt, &categories);
    assert_eq!(got.per_category.len(), 1);
    assert_eq!(got.per_category[0].id, Some(Id::from(9)));
    assert!(near(got.stat("AR100"), 0.2), "{got:?}"); // IoU 2/3: at four of ten thresholds one of two
}

#[test]
fn pooled_categories_find_each_other() {
    let (gt, dt) = files();
    let got = score(&gt, &dt, &Settings { class_agnostic: true, ..Settings::default() });
    // The small dog of image 2 is found by a cat.
    assert!(near(got.stat("AP50"), 1.), "{got:?}");
    assert_eq!(got.per_category.len(), 1);
    assert_eq!((got.per_category[0].id.as_ref(), got.per_category[0].ground_truths), (None, 4));
}

#[test]
fn the_numbers_follow_the_settings() {
    let (gt, dt) = files();
    let mut settings = Settings { arrays: true, ..Settings::default() };
    settings.set_max_detections("5,2").unwrap();
    settings.set_iou_thresholds("0.5,0.65").unwrap();
    settings.set_area_ranges("tiny:0:500").unwrap();
    let got = score(&gt, &dt, &settings);
    let names: Vec<&str> = got.stats.iter().map(|stat| &*stat.name).collect();
    assert_eq!(names, ["AP", "AP50", "AP75", "AP_tiny", "AR2", "AR5", "AR_tiny"]);
    let arrays = got.arrays.as_ref().unwrap();
    assert_eq!(arrays.precision.shape(), [2, 101, 2, 2, 2]);
    assert_eq!(arrays.recall.shape(), [2, 2, 2, 2]);
    // AP is of the most detections, and not -1 where 100 are not among them; there is no IoU 0.75.
    assert!(got.stat("AP").unwrap() > 0.5, "{got:?}");
    assert_eq!(got.stat("AP75"), Some(-1.));
    // Tiny are one cat, found, and one dog, not found.
    assert!(near(got.stat("AR_tiny"), 0.5), "{got:?}");
}

#[test]
fn an_id_of_0_can_be_counted() {
    let (mut gt, dt) = files();
    let right = score(&gt, &dt, &Settings::default());
    gt["annotations"][0]["id"] = json!(0);
    let wrong = score(&gt, &dt, &Settings::default());
    assert!(wrong.stat("AP") < right.stat("AP"));
    assert!(wrong.warnings[0].contains("--fix-id-zero"), "{:?}", wrong.warnings);
    let fixed = score(&gt, &dt, &Settings { fix_id_zero: true, ..Settings::default() });
    assert_eq!(fixed.values(), right.values());
    assert!(fixed.warnings.is_empty());
}

#[test]
fn the_pairs_are_those_that_recall_counts() {
    let (gt, dt) = files();
    let settings = Settings { arrays: true, ..Settings::default() };
    let recall = score(&gt, &dt, &settings).arrays.unwrap().recall;
    let gt = GroundTruth::from_json(&gt.to_string()).unwrap();
    let dt = Results::from_json(&dt.to_string()).unwrap();
    let mut found = vec![[0.; 2]; settings.iou_thresholds.len()];
    let mut cells = 0;
    match_cells(&gt, &dt, &settings, |cell| {
        cells += 1;
        assert_eq!(cell.overlaps.len(), cell.detections.len() * cell.truths.len());
        for (t, found) in found.iter_mut().enumerate() {
            let pairs = (0..cell.detections.len()).filter_map(|d| cell.found(t, d));
            found[cell.category] += pairs.count() as f64;
        }
    })
    .unwrap();
    assert_eq!(cells, 4);
    for (t, found) in found.iter().enumerate() {
        for (k, found) in found.iter().enumerate() {
            assert_eq!(recall[[t, k, 0, 2]], found / 2.);
        }
    }
}

/// A folder with both files.
fn folder(gt: &Value, dt: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gt.json"), gt.to_string()).unwrap();
    std::fs::write(folder.path().join("dt.json"), dt.to_string()).unwrap();
    folder
}

fn detect_eval(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_detect"))
        .current_dir(folder)
        .args(["eval", "--annotations", "gt.json", "--predictions", "dt.json"])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn arguments_are_settings() {
    let (gt, dt) = files();
    let folder = folder(&gt, &dt);
    let ids = folder.path().join("ids.txt");
    std::fs::write(&ids, "1\n").unwrap();
    let out = detect_eval(folder.path(), &["--images", "@ids.txt", "--json", "--arrays", "a.npz"]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let value: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&value["images"], value["stats"].as_array().unwrap().len()), (&json!(1), 12));
    let arrays: PathBuf = folder.path().join("a.npz");
    assert_eq!(&std::fs::read(arrays).unwrap()[..2], b"PK");

    let cases = [
        (&["--images", "1,3,5"][..], 3, "image ids that it lacks: 3, 5"),
        (&["--categories=-1"], 3, "category ids that it lacks: -1"),
        (
            &["--categories", "dog,7,ox"],
            3,
            "\"dog\", \"ox\"; ids are asked for, not names: \"dog\" has the id 9",
        ),
        (
            &["--iou-thresholds", "0.95:0.5:0.05"],
            2,
            "`0.95:0.5:0.05` falls; write the lower end first",
        ),
        (&["--iou-thresholds", "0.5:0.95:0"], 2, "`0.5:0.95:0`: the step must be above 0"),
        (&["--iou-thresholds", "0.95:0.5:-0.05"], 2, "the step must be above 0"),
        (&["--images", "@nothing.txt"], 3, "cannot read nothing.txt"),
        (&["--images", ","], 2, "--images: the list of ids is empty"),
        (&["--iou-thresholds", "1.5"], 2, "lies between 0 and 1, not at 1.5"),
        (&["--iou-thresholds", "x"], 2, "--iou-thresholds: `x` is no number"),
        (&["--area-ranges", "a:5:1"], 2, "the area range a goes from 5 to 1"),
        (&["--max-detections", "0"], 2, "must be 1 at least"),
        (&["--arrays", "no/such/folder.npz"], 5, "cannot write no/such/folder.npz"),
    ];
    for (arguments, code, message) in cases {
        let out = detect_eval(folder.path(), arguments);
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
        assert!(out.stdout.is_empty());
    }
}

#[test]
fn the_mark_of_utf_8_is_passed_over_and_other_files_are_named() {
    let (gt, dt) = files();
    let folder = folder(&gt, &dt);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let plain = detect_eval(folder.path(), &["--json"]).stdout;
    write("gt.json", format!("\u{feff}{gt}").as_bytes());
    write("dt.json", format!("\u{feff} {dt}").as_bytes());
    write("ids.txt", "\u{feff}1 2\r\n".as_bytes());
    let out = detect_eval(folder.path(), &["--json", "--images", "@ids.txt"]);
    assert_eq!((out.status.code(), &out.stdout), (Some(0), &plain), "{out:?}");
    write("ids.txt", "x\u{feff}1 a\"é\u{1f600}".as_bytes());
    let out = detect_eval(folder.path(), &["--images", "@ids.txt"]);
    let talk = String::from_utf8(out.stderr).unwrap();
    assert!(talk.contains(r#"lacks: "x\ufeff1", "a\"é😀""#), "{talk}");
    let utf_16: Vec<u8> =
        format!("\u{feff}{gt}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, advice) in [
        (&b"\x1f\x8b\x08\0\0"[..], "gzip: unpack it"),
        (b"PK\x03\x04\x14\0", "a zip archive: unpack it"),
        (&utf_16, "UTF-16: save it as UTF-8"),
    ] {
        for (name, good) in [("gt.json", &gt), ("dt.json", &dt)] {
            write(name, bytes);
            let out = detect_eval(folder.path(), &[]);
            let talk = String::from_utf8(out.stderr).unwrap();
            assert_eq!(out.status.code(), Some(3), "{talk}");
            assert!(talk.contains(&format!("{name}: it begins as {advice}")), "{talk}");
            write(name, good.to_string().as_bytes());
        }
    }
}

#[test]
fn texts_and_numbers_are_told_apart_by_the_file() {
    let (gt, dt) = files();
    let quoted = |value: &Value| -> Value {
        let text = value.to_string().replace("\"image_id\":1", "\"image_id\":\"1\"");
        serde_json::from_str(&text.replace("\"image_id\":2", "\"image_id\":\"2\"")).unwrap()
    };
    let mut gt = quoted(&gt);
    gt["images"] = json!([{"id": "1"}, {"id": "2"}]);
    let folder = folder(&gt, &quoted(&dt));
    let out = detect_eval(folder.path(), &["--images", "2", "--json"]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let value: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(value["images"], 1);
}

#[test]
fn ids_of_the_other_kind_are_told_as_such() {
    let (gt, dt) = files();
    let quoted = |value: &Value, key: &str| -> Value {
        let text = value.to_string();
        let ids = [1, 2, 7, 9].into_iter();
        let text = ids.fold(text, |text, id| {
            text.replace(&format!("\"{key}\":{id}"), &format!("\"{key}\":\"{id}\""))
        });
        serde_json::from_str(&text).unwrap()
    };
    let images = |gt: &Value, dt: &Value| {
        let out = detect_eval(folder(gt, dt).path(), &[]);
        assert_eq!(out.status.code(), Some(3), "{out:?}");
        String::from_utf8(out.stderr).unwrap()
    };
    let talk = images(&gt, &quoted(&dt, "image_id"));
    assert!(
        talk.contains(r#"does not list: "1", "2"; the annotations have such ids as numbers"#),
        "{talk}"
    );
    let mut texts = quoted(&gt, "image_id");
    texts["images"] = json!([{"id": "1"}, {"id": "2"}]);
    let talk = images(&texts, &dt);
    assert!(talk.contains("does not list: 1, 2; the annotations have such ids as texts"), "{talk}");
    let warnings = score(&gt, &quoted(&dt, "category_id"), &Settings::default()).warnings;
    assert!(
        warnings[0].contains("left out; the annotations have such ids as numbers"),
        "{warnings:?}"
    );
}

#[test]
fn a_page_and_a_comparison_are_made_beside_the_numbers() {
    let (gt, dt) = files();
    // The other file misses what the first finds best.
    let other: Value = dt.as_array().unwrap()[1..].to_vec().into();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, value: &Value| {
        let path = dir.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (gt, dt, other) = (file("gt.json", &gt), file("dt.json", &dt), file("other.json", &other));
    let page = dir.path().join("page.html");
    let common = ["eval", "--annotations", &gt, "--predictions", &dt];
    let more = ["--compare", &other, "--html", page.to_str().unwrap()];
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_detect")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&[&common[..], &more[..]].concat());
    let plain = run(&common);
    assert!(text.starts_with(&plain), "what is added comes after the numbers");
    let written = std::fs::read_to_string(&page).unwrap();
    assert!(written.starts_with("<!DOCTYPE html>") && written.contains("other.json"));
    let both: Value =
        serde_json::from_str(&run(&[&common[..], &more[..], &["--json"]].concat())).unwrap();
    let alone: Value = serde_json::from_str(&run(&[&common[..], &["--json"]].concat())).unwrap();
    assert_eq!(both["stats"], alone["stats"]);
    assert!(both["analysis"].is_object() && both["comparison"].is_object());
    assert!(alone["analysis"].is_null() && alone["comparison"].is_null());
}

#[test]
fn what_the_other_file_of_a_comparison_has_for_nothing_is_told() {
    let (gt, dt) = files();
    let folder = folder(&gt, &dt);
    let mut other = dt.clone();
    other[0]["category_id"] = json!(77);
    std::fs::write(folder.path().join("other.json"), other.to_string()).unwrap();
    let out = detect_eval(folder.path(), &["--compare", "other.json"]);
    let talk = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(0), "{talk}");
    assert!(talk.contains("other.json: ") && talk.contains("77"), "{talk}");
}

#[test]
fn detections_of_odd_numbers_are_told_and_have_no_place_on_the_page() {
    let (gt, dt) = files();
    let folder = folder(&gt, &dt);
    let plain = dt.to_string();
    let odd = |from: &str, to: &str| {
        let text = plain.replacen(from, to, 1);
        assert_ne!(text, plain);
        std::fs::write(folder.path().join("dt.json"), text).unwrap();
        let out = detect_eval(folder.path(), &["--json", "--html", "page.html"]);
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
        for attribute in page.split('"').skip(1).step_by(2) {
            assert!(!attribute.contains("NaN") && !attribute.contains("inf"), "{to}: {attribute}");
        }
        let value: Value = serde_json::from_slice(&out.stdout).unwrap();
        value["warnings"].to_string()
    };
    for score in ["NaN", "Infinity", "-Infinity"] {
        let warnings = odd("\"score\":0.9", &format!("\"score\":{score}"));
        assert!(
            warnings.contains("1 of 4 detections have a score that is no finite"),
            "{warnings}"
        );
    }
    for bbox in ["[NaN,0,20,20]", "[0,0,-20,20]", "[0,0,20,Infinity]"] {
        let warnings = odd("[0.0,0.0,20.0,20.0]", bbox);
        assert!(warnings.contains("1 of 4 detections have a bbox with"), "{warnings}");
    }
    // Finite, but a range of them is not, nor has one alone any width.
    for score in ["1e308", "1e299", "-1e308"] {
        assert_eq!(odd("\"score\":0.9", &format!("\"score\":{score}")), "[]");
    }
    let mut all = json!(dt);
    for detection in all.as_array_mut().unwrap() {
        detection["score"] = json!(1e299);
    }
    let text = all.to_string();
    assert_eq!(odd(&plain, &text), "[]");
}

/// As `trainval-minus-minival` needs it.
#[test]
fn a_truth_in_two_files_scores_as_in_one() {
    let golden: Value = serde_json::from_str(include_str!("golden/coco_eval.json")).unwrap();
    let mut count = 0;
    for case in golden["cases"].as_array().unwrap() {
        let whole: Value = match serde_json::from_str(case["annotations"].as_str().unwrap()) {
            Ok(whole) => whole,
            Err(_) => continue, // NaN, which this parser does not read
        };
        let images = whole["images"].as_array().unwrap();
        let key = |value: &Value| value.to_string();
        let mut ids: Vec<String> = images.iter().map(|image| key(&image["id"])).collect();
        ids.sort();
        ids.dedup();
        let annotations = whole["annotations"].as_array().unwrap();
        let mut own: Vec<String> = annotations.iter().map(|a| key(&a["id"])).collect();
        own.sort();
        own.dedup();
        if ids.len() < 2 || ids.len() < images.len() || own.len() < annotations.len() {
            continue; // ids are shared
        }
        let part = |in_first: bool| {
            let mut part = whole.clone();
            let is_in = |id: &Value| (key(id) <= ids[ids.len() / 2]) == in_first;
            for (list, of) in [("images", "id"), ("annotations", "image_id")] {
                part[list].as_array_mut().unwrap().retain(|entry| is_in(&entry[of]));
            }
            GroundTruth::from_json(&part.to_string()).unwrap()
        };
        let gt = part(true).and(part(false));
        let results = Results::from_json(case["results"].as_str().unwrap()).unwrap();
        let got = evaluate_with(&gt, &results, &Settings::default()).unwrap().values();
        let expected = case["stats"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap());
        assert!(
            got.into_iter().map(f64::to_bits).eq(expected.map(f64::to_bits)),
            "{}",
            case["name"]
        );
        count += 1;
    }
    assert!(count >= 3, "only {count} cases");
}
