//! `detect check`: one set for each kind of finding, and real sets.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

#[path = "common/coco.rs"]
mod coco;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::coco::{Set, annotation, annotations, image, test_data};

fn detect(root: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_detect")).arg("check").arg(root).args(more).output().unwrap()
}

/// Exit code and `[kind, split, count]` of each finding.
fn findings(root: &Path) -> (i32, Vec<Value>) {
    let output = detect(root, &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let list = report["findings"].as_array().unwrap();
    for finding in list {
        let examples = finding["examples"].as_array().unwrap().len();
        assert_eq!(Some(examples as u64), finding["count"].as_u64());
    }
    let short = list.iter().map(|f| json!([f["kind"], f["split"], f["count"]])).collect();
    (output.status.code().unwrap(), short)
}

/// A set with two sound images and a sound box each; `change` spoils it.
fn spoiled(change: impl FnOnce(&Set, &mut Value)) -> Set {
    let set = Set::new();
    set.png("a.png", (30, 40), 10, [5, 5, 10, 10]);
    set.png("b.png", (40, 30), 20, [5, 5, 10, 10]);
    let mut content = annotations(
        &[image(1, "a.png", (30, 40)), image(2, "b.png", (40, 30))],
        &[annotation(1, 1, 1, [5., 5., 10., 10.]), annotation(2, 2, 7, [5., 5., 10., 10.])],
    );
    change(&set, &mut content);
    set.split("t", &content);
    set
}

/// What `change` leads to, without anything else.
fn finds(kind: &str, count: usize, exit: i32, change: impl FnOnce(&Set, &mut Value)) {
    let set = spoiled(change);
    assert_eq!(findings(set.root()), (exit, vec![json!([kind, "t", count])]), "{kind}");
    // The table says the same, and is no JSON.
    let output = detect(set.root(), &[]);
    assert_eq!(output.status.code(), Some(exit));
    let table = String::from_utf8(output.stdout).unwrap();
    let errors = if exit == 0 { 0 } else { count };
    assert!(table.contains(&format!("{errors} errors")), "{kind}: {table}");
}

fn push(content: &mut Value, list: &str, entry: Value) {
    content[list].as_array_mut().unwrap().push(entry);
}

#[test]
fn a_sound_set_is_clean() {
    assert_eq!(findings(spoiled(|_, _| {}).root()), (0, vec![]));
}

#[test]
fn boxes() {
    let set_box =
        |bbox: [f64; 4]| move |_: &Set, c: &mut Value| c["annotations"][0]["bbox"] = json!(bbox);
    finds("zero_area_box", 1, 0, set_box([5., 5., 0., 4.]));
    finds("box_out_of_image", 1, 0, set_box([35., 5., 10., 4.]));
    finds("box_out_of_image", 1, 0, set_box([-0.5, 5., 10., 4.]));
    finds("box_under2_px", 1, 0, set_box([5., 5., 1.9, 4.]));
    finds("bad_box", 1, 3, set_box([5., 5., -3., 4.]));
    finds("bad_box", 1, 3, |_, c| c["annotations"][0]["bbox"] = Value::Null);
    finds("crowd", 1, 0, |_, c| c["annotations"][0]["iscrowd"] = json!(1));
    finds("image_without_boxes", 1, 0, |_, c| {
        c["annotations"].as_array_mut().unwrap().pop();
    });
    // Twice in an image, and of one category.
    finds("repeated_box", 1, 0, |_, c| {
        push(c, "annotations", annotation(3, 1, 1, [5., 5., 10., 10.]));
    });
    let other = |_: &Set, c: &mut Value| {
        push(c, "annotations", annotation(3, 1, 7, [5., 5., 10., 10.]));
        push(c, "annotations", annotation(4, 1, 1, [5., 5., 10., 11.]));
    };
    assert_eq!(findings(spoiled(other).root()), (0, vec![]));
    // The size that counts is the file's where none is declared.
    finds("box_out_of_image", 1, 0, |_, c| {
        c["images"][0] = json!({"id": 1, "file_name": "a.png"});
        c["annotations"][0]["bbox"] = json!([5, 29, 4, 4]);
    });
    // Rounding is no finding.
    let set = spoiled(set_box([35., 5., 5.01, 4.]));
    assert_eq!(findings(set.root()), (0, vec![]));
}

#[test]
fn areas_and_crowd_flags_that_evaluation_needs() {
    let without = |key: &'static str| {
        move |_: &Set, c: &mut Value| {
            c["annotations"][0].as_object_mut().unwrap().remove(key);
        }
    };
    let area = |area: Value| move |_: &Set, c: &mut Value| c["annotations"][0]["area"] = area;
    for key in ["area", "iscrowd"] {
        finds("no_area_or_crowd", 1, 3, without(key));
        let table = String::from_utf8(detect(spoiled(without(key)).root(), &[]).stdout).unwrap();
        assert!(table.contains(&format!("a.png: annotation 1: no {key}")), "{table}");
        assert!(table.contains("--fix OUT fills them in"), "{table}");
    }
    finds("no_area_or_crowd", 1, 3, area(Value::Null));
    // As Python writes what it could not compute.
    let set = spoiled(area(json!("NaN")));
    let path = set.root().join("annotations/t.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"NaN\"", "NaN");
    std::fs::write(path, text).unwrap();
    assert_eq!(findings(set.root()), (3, vec![json!(["no_area_or_crowd", "t", 1])]));
    finds("area_of_none", 1, 0, area(json!(0)));
    finds("area_of_none", 1, 0, area(json!(-3.5)));
    // Of a box without area there is none, and of a crowd it is not looked at.
    finds("zero_area_box", 1, 0, |_, c| {
        c["annotations"][0]["bbox"] = json!([5, 5, 0, 4]);
        c["annotations"][0]["area"] = json!(0);
    });
    finds("crowd", 1, 0, |s, c| {
        without("area")(s, c);
        c["annotations"][0]["iscrowd"] = json!(1);
    });
}

#[test]
fn a_split_without_a_single_box_is_told() {
    finds("split_without_boxes", 1, 0, |_, c| c["annotations"] = json!([]));
    let set = spoiled(|_, c| c["annotations"] = json!([]));
    let table = String::from_utf8(detect(set.root(), &[]).stdout).unwrap();
    assert!(table.contains("split 't' has no boxes at all"), "{table}");
    assert!(table.contains("0 errors, 1 warnings"), "{table}");
}

#[test]
fn hidden_files_are_no_splits() {
    let set = spoiled(|_, _| {});
    set.file("annotations/._t.json", "what macOS leaves in archives");
    assert_eq!(findings(set.root()), (0, vec![]));
}

#[test]
fn a_name_can_not_write_lines_of_its_own() {
    let set = spoiled(|_, c| c["images"][0]["file_name"] = json!("a\u{1b}[2J\nfake: 0 errors.png"));
    let table = String::from_utf8(detect(set.root(), &[]).stdout).unwrap();
    assert!(table.contains("fake: 0 errors") && !table.contains('\u{1b}'), "{table}");
    assert!(table.lines().all(|line| !line.starts_with("fake")), "{table}");
}

#[test]
fn ids() {
    finds("duplicate_image_id", 1, 3, |_, c| {
        let again = c["images"][0].clone();
        push(c, "images", again);
    });
    finds("duplicate_annotation_id", 1, 3, |_, c| c["annotations"][1]["id"] = json!(1));
    finds("duplicate_category_id", 1, 3, |_, c| {
        push(c, "categories", json!({"id": 1, "name": "x"}));
    });
    finds("shared_name", 1, 0, |_, c| c["categories"][0]["name"] = json!("cat"));
    finds("no_name", 1, 0, |_, c| c["categories"][0]["name"] = json!(" "));
    // Those are not of one name.
    let set = spoiled(|_, c| {
        c["categories"] = json!([{"id": 1, "name": ""}, {"id": 7, "name": ""}]);
    });
    assert_eq!(findings(set.root()), (0, vec![json!(["no_name", "t", 2])]));
    finds("unknown_image", 1, 3, |_, c| {
        push(c, "annotations", annotation(9, 99, 1, [1., 1., 5., 5.]));
    });
    finds("unknown_category", 1, 3, |_, c| c["annotations"][0]["category_id"] = json!(2));
}

#[test]
fn entries_that_cannot_be_read_do_not_hide_the_others() {
    finds("broken_entry", 1, 3, |_, c| c["annotations"][0]["bbox"] = json!([1, 2, 3]));
    finds("broken_entry", 1, 3, |_, c| c["annotations"][0]["id"] = json!("one"));
    finds("broken_entry", 1, 3, |_, c| c["images"][0]["file_name"] = json!(5));
    finds("broken_entry", 1, 3, |_, c| c["categories"][0]["name"] = Value::Null);
    finds("bad_file_name", 1, 3, |_, c| c["images"][0]["file_name"] = json!("../images/a.png"));
    let set = spoiled(|_, c| c["images"][0]["file_name"] = json!("sub\\a.png"));
    let table = String::from_utf8(detect(set.root(), &[]).stdout).unwrap();
    assert!(table.contains(r"image 1: 'sub\a.png' has a backslash"), "{table}");
    let error = detect::data::Dataset::open(set.root(), "t").unwrap_err().to_string();
    assert!(error.contains(r"file_name 'sub\a.png' of image 1 has a backslash"), "{error}");
    finds("bad_declared_size", 1, 3, |_, c| c["images"][0]["width"] = json!(-40));
    let set = spoiled(|_, c| {
        push(c, "annotations", json!("what?"));
        push(c, "annotations", annotation(8, 1, 1, [1., 1., 0., 0.]));
    });
    let found = vec![json!(["broken_entry", "t", 1]), json!(["zero_area_box", "t", 1])];
    assert_eq!(findings(set.root()), (3, found));
}

#[test]
fn files() {
    finds("missing_file", 1, 3, |s, _| {
        std::fs::remove_file(s.root().join("images/a.png")).unwrap();
    });
    finds("undecodable_file", 1, 3, |s, _| {
        s.file("images/a.png", "not a picture");
    });
    finds("undecodable_file", 1, 3, |s, _| {
        std::fs::remove_file(s.root().join("images/a.png")).unwrap();
        std::fs::create_dir(s.root().join("images/a.png")).unwrap();
    });
    finds("size_mismatch", 1, 3, |s, _| s.png("a.png", (30, 41), 10, [0; 4]));
    // Stored as declared, turned by its EXIF orientation.
    finds("exif_mismatch", 1, 3, |s, _| s.jpeg("a.png", (30, 40), 10, 6));
    // The orientation mirrors it: the size can't tell which side the boxes are for.
    finds("exif_ambiguous", 1, 0, |s, _| s.jpeg("a.png", (30, 40), 10, 3));
    finds("identical_within_split", 1, 0, |s, c| {
        std::fs::copy(s.root().join("images/a.png"), s.root().join("images/b.png")).unwrap();
        c["images"][1] = image(2, "b.png", (30, 40));
    });
    // Turned as declared: sound.
    let set = spoiled(|s, _| s.jpeg("a.png", (40, 30), 10, 6));
    assert_eq!(findings(set.root()), (0, vec![]));
}

#[test]
fn splits_are_compared() {
    let set = spoiled(|s, _| {
        std::fs::copy(s.root().join("images/a.png"), s.root().join("images/copy.png")).unwrap();
        let mut other = annotations(
            &[image(5, "copy.png", (30, 40))],
            &[annotation(5, 5, 1, [5., 5., 9., 9.])],
        );
        other["categories"][0]["name"] = json!("wolf");
        s.split("u", &other);
    });
    let found =
        vec![json!(["different_categories", null, 1]), json!(["identical_across_splits", null, 1])];
    assert_eq!(findings(set.root()), (0, found));
    let table = String::from_utf8(detect(set.root(), &[]).stdout).unwrap();
    assert!(table.contains("a.png in t = copy.png in u"), "{table}");
    assert!(table.contains("category 7 is 'dog' in t and 'wolf' in u"), "{table}");
}

#[test]
fn a_file_that_is_no_annotation_file_does_not_hide_the_other_splits() {
    let set = spoiled(|s, c| {
        s.file("annotations/broken.json", "{\"images\": [");
        c["annotations"][0]["bbox"] = json!([5, 5, 0, 0]);
    });
    let found =
        vec![json!(["unreadable_annotations", "broken", 1]), json!(["zero_area_box", "t", 1])];
    assert_eq!(findings(set.root()), (3, found));
}

#[test]
fn a_missing_image_folder_is_told_once_beside_its_files() {
    let set = spoiled(|s, _| std::fs::remove_dir_all(s.root().join("images")).unwrap());
    let found = vec![json!(["missing_image_folder", "t", 1]), json!(["missing_file", "t", 2])];
    assert_eq!(findings(set.root()), (3, found));
}

#[test]
fn a_folder_without_a_data_set_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for root in [dir.path().to_owned(), dir.path().join("nowhere")] {
        let output = detect(&root, &["--json"]);
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.is_empty());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("annotations/SPLIT.json"), "{message}");
        // Another form can only be that of a folder that is there.
        assert_eq!(message.contains("In another form? detect convert "), root.is_dir());
    }
    let error = detect::data::Dataset::open(dir.path(), "train").unwrap_err().to_string();
    assert!(error.contains("In another form? detect convert "), "{error}");
    let set = spoiled(|_, _| {});
    let error = detect::data::Dataset::open(set.root(), "train").unwrap_err().to_string();
    assert!(!error.contains("another form"), "{error}");
}

#[test]
fn real_sets_have_what_their_descriptions_say() {
    let Some(material) = test_data() else { return };
    let data = |name: &str| findings(&material.join("data").join(name));
    assert_eq!(data("microcontrollers"), (0, vec![]));
    // A two-image split keeps the two zero-area boxes; its images are in train and val too.
    let bccd = vec![
        json!(["zero_area_box", "unclean_zero_area_boxes", 2]),
        json!(["identical_across_splits", null, 2]),
    ];
    assert_eq!(data("bccd"), (0, bccd));
    let coco = vec![
        json!(["box_under2_px", "train", 2]),
        json!(["image_without_boxes", "train", 1]),
        json!(["image_without_boxes", "val", 2]),
        json!(["crowd", "train", 9]),
        json!(["crowd", "val", 1]),
    ];
    assert_eq!(data("coco_free"), (0, coco));
}

#[test]
fn a_split_that_training_refuses_as_empty_is_an_error() {
    for (key, value, lacks) in [
        ("images", json!([]), "u.json has no images"),
        ("categories", json!([]), "u.json has no categories"),
        ("annotations", Value::Null, "u.json has no key 'annotations'"),
    ] {
        let set = spoiled(|s, c| {
            let mut content = annotations(&[image(5, "a.png", (30, 40))], &[]);
            content[key] = value;
            s.split("u", &content);
            // Two splits with the same file are another finding.
            c["images"].as_array_mut().unwrap().remove(0);
            c["annotations"].as_array_mut().unwrap().remove(0);
        });
        assert!(detect::data::Dataset::open(set.root(), "u").is_err(), "{key}");
        let (code, found) = findings(set.root());
        assert_eq!((code, &found[0]), (3, &json!(["empty_list", "u", 1])), "{key}: {found:?}");
        let table = String::from_utf8(detect(set.root(), &[]).stdout).unwrap();
        assert!(table.contains(lacks), "{table}");
    }
    // test-dev has no truth, and is opened without.
    let set = spoiled(|s, _| {
        let mut content = annotations(&[image(5, "c.png", (30, 40))], &[]);
        content.as_object_mut().unwrap().remove("annotations");
        s.file("annotations/image_info_test-dev2017.json", content.to_string());
        s.png("c.png", (30, 40), 30, [0; 4]);
        std::fs::create_dir(s.root().join("test2017")).unwrap();
        let file = s.root().join("images/c.png");
        std::fs::rename(file, s.root().join("test2017/c.png")).unwrap();
    });
    assert_eq!(findings(set.root()), (0, vec![]));
}

/// Elsewhere file names are text.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_whose_name_is_not_utf8_is_reported() {
    use std::os::unix::ffi::OsStrExt as _;
    let set = spoiled(|_, _| {});
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join(std::ffi::OsStr::from_bytes(b"n\xff n"));
    for folder in ["annotations", "images"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        for entry in std::fs::read_dir(set.root().join(folder)).unwrap().flatten() {
            std::fs::copy(entry.path(), root.join(folder).join(entry.file_name())).unwrap();
        }
    }
    assert_eq!(findings(&root), (0, vec![]));
    let report: Value = serde_json::from_slice(&detect(&root, &["--json"]).stdout).unwrap();
    assert!(report["data"].as_str().unwrap().ends_with("/n\u{fffd} n"), "{report}");
    let file = report["splits"][0]["annotations_file"].as_str().unwrap();
    assert!(file.ends_with("/n\u{fffd} n/annotations/t.json"), "{file}");
    // So are the source and the copy of a repair.
    let fixed = dir.path().join(std::ffi::OsStr::from_bytes(b"out\xfe"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
    let output = command.arg("check").arg(&root).arg("--fix").arg(&fixed).arg("--json").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(outcome["source"].as_str().unwrap().ends_with("/n\u{fffd} n"), "{outcome}");
    assert!(outcome["out"].as_str().unwrap().ends_with("/out\u{fffd}"), "{outcome}");
    assert_eq!(findings(&fixed), (0, vec![]));
}
