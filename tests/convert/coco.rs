//! COCO's form in other layouts of folders.

use serde_json::{Value, json};

use crate::common::{annotation, annotations, image};
use crate::{Source, assert_sound, convert};

fn set(id: i64, name: &str) -> Value {
    annotations(&[image(id, name, (30, 40))], &[annotation(id, id, 7, [5., 5., 10., 10.])])
}

#[test]
fn roboflow_layout() {
    let source = Source::new();
    for (id, split) in [(1, "train"), (2, "valid")] {
        source.picture(&format!("{split}/a.png"));
        source.file(&format!("{split}/_annotations.coco.json"), &set(id, "a.png").to_string());
    }
    source.file("notes.json", "{}");
    let made = convert(source.root(), &[]);
    assert_eq!(made.images("train"), json!([["train/a.png", 40, 30]]));
    assert_eq!(made.boxes("val"), json!([["valid/a.png", "dog", [5.0, 5.0, 10.0, 10.0], 0]]));
    // Ids, masks and all else stay.
    let val = made.split("val");
    let mut expected = set(2, "valid/a.png");
    expected["annotations"][0]["area"] = json!(100.0);
    assert_eq!(val, expected);
    assert_eq!(made.log(), json!([["file_skipped", null, 1]]));
    assert_sound(&made.out);
}

#[test]
fn cocos_own_layout_and_paths_of_other_machines() {
    let source = Source::new();
    source.picture("val2017/a.png");
    source.picture("train2017/a.png");
    source.file("annotations/instances_val2017.json", &set(5, "a.png").to_string());
    source.file("annotations/instances_train2017.json", &set(6, "C:\\my\\a.png").to_string());
    source.file("annotations/captions_val2017.json", &set(5, "a.png").to_string());
    let made = convert(source.root(), &[]);
    assert_eq!(made.images("val2017"), json!([["val2017/a.png", 40, 30]]));
    assert_eq!(made.images("train2017"), json!([["train2017/a.png", 40, 30]]));
    let one = convert(&source.root().join("annotations/instances_val2017.json"), &[]);
    assert_eq!(one.images("val2017"), json!([["a.png", 40, 30]]));
    assert_eq!(one.json()["splits"].as_array().unwrap().len(), 1);
}

#[test]
fn annotations_that_are_lost_show_in_the_exit_code() {
    let convert_with = |more: Value| {
        let source = Source::new();
        source.picture("a.png");
        let mut content = set(1, "a.png");
        content["annotations"].as_array_mut().unwrap().push(more);
        source.file("all.json", &content.to_string());
        convert(source.root(), &[])
    };
    for (kind, entry) in [
        ("broken_entry", json!({"id": 2, "image_id": "one", "category_id": 7})),
        ("unknown_image", annotation(2, 99, 7, [1., 1., 5., 5.])),
        ("unknown_category", annotation(2, 1, 99, [1., 1., 5., 5.])),
    ] {
        let made = convert_with(entry);
        assert_eq!((made.code, made.log()), (1, json!([[kind, "train", 1]])));
        assert_eq!(made.boxes("train").as_array().unwrap().len(), 1);
    }
    // A text is no loss.
    let mut other = annotation(2, 1, 7, [1., 1., 5., 5.]);
    other["image_id"] = json!("1");
    let made = convert_with(other);
    assert_eq!((made.code, made.log()), (0, json!([["whole_id", "train", 1]])));
    assert_eq!(made.boxes("train").as_array().unwrap().len(), 2);
}

#[test]
fn images_that_lie_elsewhere_are_said_to_be_not_in_the_source_folder() {
    let (source, elsewhere) = (Source::new(), Source::new());
    elsewhere.picture("b.png");
    let path = elsewhere.root().join("b.png").display().to_string();
    source.picture("a.png");
    source.file("all.json", &set(1, &path).to_string());
    convert(source.root(), &[]).refused(3, &["no such file in the source folder", &path]);
}

#[test]
fn files_named_after_cocos_own_splits_are_refused() {
    let source = Source::new();
    source.picture("a.png");
    for name in ["minival", "trainval-minus-minival", "test-dev", "test-dev2017"] {
        let file = format!("instances_{name}.json");
        source.file(&file, &set(1, "a.png").to_string());
        let words = [&format!("the split '{name}'"), "of COCO", "choose another name"];
        convert(source.root(), &[]).refused(3, &words);
        std::fs::remove_file(source.root().join(file)).unwrap();
    }
    source.file("all.json", &set(1, "a.png").to_string());
    let made = convert(source.root(), &["--split", "my-minival"]);
    assert_eq!(detect::data::Dataset::open(&made.out, "my-minival").unwrap().images.len(), 1);
}

#[test]
fn names_that_could_be_two_files_and_files_that_are_none_end_it() {
    let source = Source::new();
    source.picture("x/a.png");
    source.picture("y/a.png");
    source.file("all.json", &set(1, "a.png").to_string());
    convert(source.root(), &[]).refused(3, &["all.json", "could be x/a.png and y/a.png"]);
    source.file("all.json", &set(1, "x/a.png").to_string());
    assert_eq!(convert(source.root(), &["--split", "mine"]).images("mine")[0][0], "a.png");
    source.file("all.json", "{\"images\": [],\n \"categories\": [");
    convert(&source.root().join("all.json"), &["--from", "coco"]).refused(3, &["all.json, line 2"]);
    source.file("all.json", &set(1, "../a.png").to_string());
    convert(source.root(), &[]).refused(3, &["names leave the image folder", "../a.png"]);
}
