//! `detect check --fix`: each kind of mistake, repaired or left and told.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Set, annotation, annotations, image};
use crate::{assert_sound, convert, detect};

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

fn push(content: &mut Value, list: &str, entry: Value) {
    content[list].as_array_mut().unwrap().push(entry);
}

/// Every file with its bytes.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["annotations", "images"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap().flatten() {
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            files.insert(name, std::fs::read(entry.path()).unwrap_or_default());
        }
    }
    files
}

/// Repairs; gives the new annotation file, `[kind, count]` of what happened, and the exit code.
fn fixed(set: &Set) -> (Value, Value, i32) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let before = tree(set.root());
    let root = set.root().to_str().unwrap();
    let (code, stdout, stderr) = detect(&["check", root, "--fix", out.to_str().unwrap(), "--json"]);
    assert_eq!(tree(set.root()), before, "the source is as it was");
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    let log = report["log"].as_array().unwrap().iter().map(|e| json!([e["kind"], e["count"]]));
    if code == 0 {
        assert_sound(&out);
    } else {
        assert_eq!(code, 3);
        assert_eq!(detect(&["check", out.to_str().unwrap()]).0, 3, "check finds it, too");
    }
    let text = std::fs::read_to_string(out.join("annotations/t.json")).unwrap();
    (serde_json::from_str(&text).unwrap(), log.collect(), code)
}

/// What `change` leads to, and what is done about it; gives the new annotation file.
fn fixes(log: Value, code: i32, change: impl FnOnce(&Set, &mut Value)) -> Value {
    let (content, found, exit) = fixed(&spoiled(change));
    assert_eq!((found, exit), (log, code));
    content
}

#[test]
fn a_copy_lies_outside_of_its_source() {
    let set = spoiled(|_, _| {});
    let inside = set.root().join("images/new");
    let args = ["check", set.root().to_str().unwrap(), "--fix", inside.to_str().unwrap()];
    let (code, _, stderr) = detect(&args);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("name a folder outside") && !inside.exists(), "{stderr}");
}

#[test]
fn a_sound_set_stays_as_it_is() {
    let set = spoiled(|_, _| {});
    let (content, log, code) = fixed(&set);
    let before = std::fs::read(set.root().join("annotations/t.json")).unwrap();
    assert_eq!((log, code), (json!([]), 0));
    assert_eq!(content, serde_json::from_slice::<Value>(&before).unwrap());
}

#[test]
fn boxes() {
    let set_box =
        |bbox: [f64; 4]| move |_: &Set, c: &mut Value| c["annotations"][0]["bbox"] = json!(bbox);
    let content = fixes(json!([["clipped_box", 1]]), 0, |_, c| {
        c["annotations"][0]["bbox"] = json!([-5., 20., 15., 20.]);
        c["annotations"][0]["area"] = json!(300.);
    });
    assert_eq!(content["annotations"][0]["bbox"], json!([0.0, 20.0, 10.0, 10.0]));
    assert_eq!(content["annotations"][0]["area"], 100.0);
    let gone = |kind: &str, bbox| {
        let log = json!([[kind, 1], ["background", 1]]);
        let content = fixes(log, 0, set_box(bbox));
        assert_eq!(content["annotations"].as_array().unwrap().len(), 1);
    };
    gone("zero_area_box", [5., 5., 0., 4.]);
    gone("outside_box", [45., 5., 5., 4.]);
    gone("bad_box", [5., 5., -3., 4.]);
    fixes(json!([["no_box", 1], ["background", 1]]), 0, |_, c| {
        c["annotations"][0]["bbox"] = Value::Null;
    });
}

#[test]
fn areas_and_crowd_flags_are_filled_in() {
    let filled = |change: &dyn Fn(&mut Value), area: f64| {
        let log = json!([["filled_in", 1]]);
        let content = fixes(log, 0, |_, c| change(&mut c["annotations"][0]));
        let first = &content["annotations"][0];
        assert_eq!((&first["area"], &first["iscrowd"]), (&json!(area), &json!(0)));
    };
    let without = |annotation: &mut Value, key: &str| {
        annotation.as_object_mut().unwrap().remove(key);
    };
    // The polygon of the set is a line.
    filled(&|a| without(a, "area"), 100.);
    filled(&|a| without(a, "iscrowd"), 100.);
    filled(&|a| a["area"] = json!(0), 100.);
    filled(&|a| a["area"] = Value::Null, 100.);
    let triangle = json!([[5, 5, 15, 5, 15, 15]]);
    for mask in [&triangle, &json!({"size": [30, 40], "counts": [1200]})] {
        let area = if *mask == triangle { 50. } else { 100. };
        let change = |a: &mut Value| {
            without(a, "area");
            a["segmentation"] = mask.clone();
        };
        filled(&change, area);
    }
}

#[test]
fn ids() {
    let content = fixes(json!([["renumbered", 1]]), 0, |_, c| c["annotations"][1]["id"] = json!(1));
    let ids: Vec<&Value> =
        content["annotations"].as_array().unwrap().iter().map(|a| &a["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!(2)]);
    let again = |list: &'static str| {
        move |_: &Set, c: &mut Value| {
            let entry = c[list][0].clone();
            push(c, list, entry);
        }
    };
    for list in ["images", "annotations", "categories"] {
        let content = fixes(json!([["repeated_entry", 1]]), 0, again(list));
        assert_eq!(content[list].as_array().unwrap().len(), 2);
    }
    fixes(json!([["unknown_image", 1]]), 0, |_, c| {
        push(c, "annotations", annotation(9, 99, 1, [1., 1., 5., 5.]));
    });
    fixes(json!([["unknown_category", 1]]), 0, |_, c| {
        push(c, "annotations", annotation(9, 1, 99, [1., 1., 5., 5.]));
    });
}

#[test]
fn ids_in_another_spelling_are_the_numbers_that_they_are() {
    let sound = fixed(&spoiled(|_, _| {})).0;
    let content = fixes(json!([["whole_id", 8]]), 0, |_, c| {
        c["images"][0]["id"] = json!(1.0);
        c["categories"][0]["id"] = json!("7");
        for annotation in c["annotations"].as_array_mut().unwrap() {
            for key in ["id", "image_id", "category_id"] {
                annotation[key] = json!(annotation[key].to_string());
            }
        }
    });
    assert_eq!(content, sound);
    // Others than these stay an error, and the one annotation is not the whole set.
    fixes(json!([["broken_entry", 1], ["background", 1]]), 0, |_, c| {
        c["annotations"][0]["image_id"] = json!(1.5);
    });
}

#[test]
fn a_set_of_which_no_annotation_can_be_read_is_not_emptied() {
    let names = |_: &Set, c: &mut Value| {
        for annotation in c["annotations"].as_array_mut().unwrap() {
            annotation["image_id"] = json!("a.png");
        }
    };
    let set = spoiled(names);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let root = set.root().to_str().unwrap();
    let (code, _, stderr) = detect(&["check", root, "--fix", out.to_str().unwrap()]);
    assert_eq!(code, 3, "{stderr}");
    let words = "t.json: none of its 2 annotations can be used: 2 entries left out: they can't be read \
                 (annotations[0]: the id \"a.png\" is no whole number)";
    assert!(stderr.contains(words) && !out.exists(), "{stderr}");
    convert(&set.root().join("annotations/t.json"), &[]).refused(3, &[words]);
}

#[test]
fn ids_that_mean_two_things_are_left_and_told() {
    fixes(json!([["duplicate_image_id", 1], ["background", 1]]), 3, |s, c| {
        s.png("c.png", (30, 40), 30, [0; 4]);
        push(c, "images", image(1, "c.png", (30, 40)));
    });
    fixes(json!([["duplicate_category_id", 1]]), 3, |_, c| {
        push(c, "categories", json!({"id": 1, "name": "x"}));
    });
}

#[test]
fn entries_that_cannot_be_read() {
    let content = fixes(json!([["broken_entry", 1]]), 0, |_, c| {
        push(c, "annotations", json!("what?"));
    });
    assert_eq!(content["annotations"].as_array().unwrap().len(), 2);
    fixes(json!([["renumbered", 1]]), 0, |_, c| c["annotations"][0]["id"] = json!("one"));
    fixes(json!([["broken_entry", 1], ["unknown_image", 1]]), 0, |_, c| {
        c["images"][0]["file_name"] = json!(5);
    });
    let content = fixes(json!([["named_category", 1]]), 0, |_, c| {
        c["categories"][0]["name"] = Value::Null;
    });
    assert_eq!(content["categories"][0]["name"], "category 7");
    let content = fixes(json!([["named_category", 1]]), 0, |_, c| {
        c["categories"][0]["name"] = json!("");
    });
    assert_eq!(content["categories"][0]["name"], "category 7");
    let content = fixes(json!([["shared_name", 1]]), 0, |_, c| {
        c["categories"][0]["name"] = json!("cat");
    });
    assert_eq!(content["categories"].as_array().unwrap().len(), 2);
    let content = fixes(json!([["slashed", 1]]), 0, |s, c| {
        s.file("images/sub/a.png", std::fs::read(s.root().join("images/b.png")).unwrap());
        c["images"][1]["file_name"] = json!("sub\\a.png");
    });
    assert_eq!(content["images"][1]["file_name"], "sub/a.png");
    // Without such a file nobody knows.
    fixes(json!([["bad_file_name", 1]]), 0, |_, c| {
        c["images"][0]["file_name"] = json!("sub\\a.png");
    });
    fixes(json!([["bad_file_name", 1]]), 0, |_, c| {
        c["images"][0]["file_name"] = json!("../images/a.png");
    });
}

#[test]
fn files() {
    let content = fixes(json!([["missing_image", 1]]), 0, |s, _| {
        std::fs::remove_file(s.root().join("images/a.png")).unwrap();
    });
    assert_eq!(content["images"].as_array().unwrap().len(), 1);
    assert_eq!(content["annotations"].as_array().unwrap().len(), 1);
    fixes(json!([["broken_image", 1]]), 0, |s, _| {
        s.file("images/a.png", "not a picture");
    });
    // Half of a picture has a good header.
    fixes(json!([["broken_image", 1]]), 0, |s, _| {
        let whole = std::fs::read(s.root().join("images/a.png")).unwrap();
        s.file("images/a.png", &whole[..whole.len() / 2]);
    });
}

#[test]
fn sizes() {
    let content =
        fixes(json!([["size_corrected", 1]]), 0, |_, c| c["images"][0]["width"] = json!(-40));
    assert_eq!(content["images"][0]["width"], 40);
    fixes(json!([["size_added", 1]]), 0, |_, c| {
        c["images"][0] = json!({"id": 1, "file_name": "a.png"});
    });
    // The box fits the file and not what is declared.
    fixes(json!([["size_corrected", 1]]), 0, |_, c| {
        c["images"][0] = image(1, "a.png", (12, 12));
    });
    // It fits both: scaled, or a wrong number?
    fixes(json!([["other_size", 1]]), 3, |_, c| c["images"][0] = image(1, "a.png", (60, 80)));
    // Stored as declared, turned by its EXIF orientation: box and mask are turned with it.
    let content = fixes(json!([["turned_image", 1]]), 0, |s, c| {
        s.jpeg("a.png", (30, 40), 10, 8);
        c["annotations"][0]["bbox"] = json!([0, 0, 10, 5]);
        c["annotations"][0]["segmentation"] = json!([[0, 0, 10, 0, 10, 5]]);
    });
    assert_eq!(content["images"][0]["height"], 40);
    // Orientation 8: the stored upper left corner is the upright lower left one.
    assert_eq!(content["annotations"][0]["bbox"], json!([0.0, 30.0, 5.0, 10.0]));
    let mask = json!([[0.0, 40.0, 0.0, 30.0, 5.0, 30.0]]);
    assert_eq!(content["annotations"][0]["segmentation"], mask);
    fixes(json!([["not_turned", 1]]), 3, |s, c| {
        s.jpeg("a.png", (30, 40), 10, 8);
        c["annotations"][0]["segmentation"] = json!({"size": [30, 40], "counts": [1200]});
    });
    fixes(json!([["maybe_turned", 1]]), 0, |s, _| s.jpeg("a.png", (30, 40), 10, 3));
}

#[test]
fn cocos_own_layout_and_the_list_of_minival_stay() {
    let set = Set::new();
    for name in ["a.png", "b.png"] {
        set.png(name, (30, 40), 10, [0; 4]);
    }
    std::fs::rename(set.root().join("images"), set.root().join("val2014")).unwrap();
    let content = annotations(
        &[image(1, "a.png", (30, 40)), image(2, "b.png", (30, 40)), image(3, "c.png", (30, 40))],
        &[annotation(1, 1, 1, [5., 5., 50., 10.])],
    );
    set.file("annotations/instances_val2014.json", content.to_string());
    set.file("mscoco_minival_ids.txt", "1\n3\n");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let args = ["check", set.root().to_str().unwrap(), "--fix", out.to_str().unwrap(), "--link"];
    let (code, stdout, stderr) = detect(&args);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("split"), "{stdout}");
    assert!(stderr.contains("1 boxes cut off"), "{stderr}");
    assert!(out.join("val2014/b.png").is_file());
    let minival = detect::data::Dataset::open(&out, "minival").unwrap();
    assert_eq!(minival.images.len(), 1);
    assert_sound(&out);
}

#[test]
fn categories_and_truth_are_not_made_up() {
    let content = fixes(json!([["empty_list", 1]]), 3, |_, c| {
        c.as_object_mut().unwrap().remove("annotations");
    });
    assert_eq!(content["images"].as_array().unwrap().len(), 2);
    fixes(json!([["empty_list", 1], ["background", 2]]), 3, |_, c| {
        c["categories"] = json!([]);
        c["annotations"] = json!([]);
    });
}

#[test]
fn what_cannot_be_repaired_at_all_is_refused() {
    let set = spoiled(|s, _| {
        s.file("annotations/broken.json", "{\"images\": [");
    });
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let root = set.root().to_str().unwrap();
    let (code, _, stderr) = detect(&["check", root, "--fix", out.to_str().unwrap()]);
    assert_eq!(code, 3);
    assert!(stderr.contains("broken.json, line 1: no annotation file"), "{stderr}");
    assert!(!out.exists());
    set.file("annotations/broken.json", "[1, 2]");
    let (_, _, stderr) = detect(&["check", root, "--fix", out.to_str().unwrap()]);
    assert!(stderr.contains("expected an object with the lists images"), "{stderr}");
    let (code, _, stderr) = detect(&["check", root, "--fix", root]);
    assert_eq!(code, 2, "{stderr}");
    assert_eq!(detect(&["check", root, "--link"]).0, 2);
    let nowhere = dir.path().join("nowhere");
    let (code, ..) = detect(&["check", nowhere.to_str().unwrap(), "--fix", out.to_str().unwrap()]);
    assert_eq!(code, 3);
}
