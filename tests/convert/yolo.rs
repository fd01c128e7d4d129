//! YOLO's text files. A picture is 30 x 40 (height x width): 0.25 of the width is 10 pixels.

use serde_json::json;

use crate::{Source, assert_sound, convert};

/// Ultralytics' layout.
fn ultralytics(rows: &str) -> Source {
    let source = Source::new();
    source.file("data.yaml", "path: /home/me/set\ntrain: images/train\nval: images/val\ntest:\nnc: 2\nnames:\n  0: cat\n  1: dog\n");
    for name in ["train/a", "train/empty", "val/b"] {
        source.picture(&format!("images/{name}.png"));
    }
    source.file("labels/train/a.txt", rows);
    source.file("labels/val/b.txt", "0 0.5 0.5 1 1\n");
    source
}

#[test]
fn ultralytics_layout() {
    // A box, a triangle, and a box that leaves the image on the right by a tenth of it.
    let rows = "1 0.5 0.5 0.25 0.2\n\n0 0.25 0.1 0.75 0.1 0.75 0.5\n1 0.95 0.5 0.3 0.2\n";
    let made = convert(ultralytics(rows).root(), &[]);
    let boxes = json!([
        ["train/a.png", "dog", [15.0, 12.0, 10.0, 6.0], 0],
        ["train/a.png", "cat", [10.0, 3.0, 20.0, 12.0], 0],
        ["train/a.png", "dog", [32.0, 12.0, 8.0, 6.0], 0],
    ]);
    assert_eq!(made.boxes("train"), boxes);
    assert_eq!(made.boxes("val"), json!([["val/b.png", "cat", [0.0, 0.0, 40.0, 30.0], 0]]));
    assert_eq!(made.images("train"), json!([["train/a.png", 40, 30], ["train/empty.png", 40, 30]]));
    let train = made.split("train");
    assert_eq!(train["categories"], json!([{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]));
    let triangle = &train["annotations"][1];
    assert_eq!(triangle["segmentation"], json!([[10.0, 3.0, 30.0, 3.0, 30.0, 15.0]]));
    assert_eq!(triangle["area"], json!(120.0));
    assert_eq!(made.log(), json!([["clipped_box", "train", 1], ["background", "train", 1]]));
    assert_eq!(made.code, 0);
    assert_sound(&made.out);
    // The file itself is a source, too.
    let source = ultralytics(rows);
    assert_eq!(convert(&source.root().join("data.yaml"), &[]).boxes("train"), boxes);
}

#[test]
fn the_upright_picture_is_what_fractions_are_of() {
    let source = Source::new();
    source.file("classes.txt", "cat\n");
    source.jpeg("a.jpg", (30, 40), 6);
    source.file("a.txt", "0 0.5 0.25 1 0.5\n");
    let made = convert(source.root(), &[]);
    assert_eq!(made.images("train"), json!([["a.jpg", 30, 40]]));
    assert_eq!(made.boxes("train"), json!([["a.jpg", "cat", [0.0, 0.0, 30.0, 20.0], 0]]));
    assert_eq!(made.log(), json!([["maybe_turned", "train", 1]]));
}

#[test]
fn roboflow_layout() {
    let source = Source::new();
    source.file("data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: ['a: b', \"2\"]\n");
    for split in ["train", "valid"] {
        source.picture(&format!("{split}/images/x.png"));
        source.file(&format!("{split}/labels/x.txt"), "1 0.5 0.5 0.5 0.2");
    }
    source.file("train/labels/lost.txt", "0 0.5 0.5 0.5 0.2");
    let made = convert(source.root(), &[]);
    let boxes = json!([["valid/images/x.png", "2", [10.0, 12.0, 20.0, 6.0], 0]]);
    assert_eq!(made.boxes("val"), boxes);
    assert_eq!(made.log(), json!([["split_left_out", null, 1], ["unused_labels", null, 1]]));
    assert_eq!(made.code, 1);
    // Without the file the folders say the same.
    std::fs::remove_file(source.root().join("data.yaml")).unwrap();
    source.file("classes.txt", "a\nb\n");
    let made = convert(source.root(), &[]);
    assert_eq!(made.boxes("val")[0][2], boxes[0][2]);
    assert_eq!(made.images("train"), json!([["train/images/x.png", 40, 30]]));
}

#[test]
fn a_stray_image_that_makes_one_split_of_several_is_told() {
    let stray = |name: &str, more: &[&str]| {
        let source = Source::new();
        source.file("classes.txt", "cat\n");
        for at in ["train/images/a.png", "val/images/b.png", name] {
            source.picture(at);
        }
        convert(source.root(), more)
    };
    let sound = stray("val/images/c.png", &[]);
    assert_eq!(sound.images("val").as_array().unwrap().len(), 2);
    assert!(!sound.log().to_string().contains("no_split"));
    let made = stray("preview.png", &[]);
    assert_eq!((made.code, made.images("train").as_array().unwrap().len()), (0, 3));
    assert!(made.log().to_string().contains("[\"no_split\",null,1]"), "{}", made.log());
    assert!(made.stderr.contains("preview.png"), "{}", made.stderr);
    let named = stray("preview.png", &["--split", "all"]);
    assert!(!named.log().to_string().contains("no_split"), "{}", named.log());
}

#[test]
fn images_without_any_label_file_are_told() {
    let source = ultralytics("");
    std::fs::rename(source.root().join("labels"), source.root().join("texts")).unwrap();
    let made = convert(source.root(), &[]);
    assert_eq!((made.code, &made.log()[0]), (0, &json!(["no_labels", null, 3])));
    for words in [
        "WARN 3 images, and no label file for any of them",
        "images/train/a.png: expected labels/train/a.txt",
    ] {
        assert!(made.stderr.contains(words), "no '{words}' in {}", made.stderr);
    }
}

#[test]
fn classes_of_one_name_are_told() {
    let source = ultralytics("1 0.5 0.5 0.25 0.2\n");
    source.file("data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog, cat]\n");
    let made = convert(source.root(), &[]);
    let log =
        json!([["shared_name", "train", 1], ["shared_name", "val", 1], ["background", "train", 1]]);
    assert_eq!((made.code, made.log()), (0, log));
    assert!(made.stderr.contains("'cat' is category 1 and 3"), "{}", made.stderr);
}

#[test]
fn folders_of_another_machine_are_found_by_their_ends() {
    let source = ultralytics("1 0.5 0.5 0.25 0.2\n");
    let names = "names: [cat, dog]\n";
    for (train, val) in [
        ("/content/ds/images/train", "/content/ds/images/val/"),
        ("C:\\ds\\images\\train", "D:\\images\\val"),
    ] {
        source.file("data.yaml", &format!("train: {train}\nval: {val}\n{names}"));
        let made = convert(source.root(), &[]);
        assert_eq!((made.code, made.log()), (0, json!([["background", "train", 1]])), "{train}");
        assert_eq!(made.images("val"), json!([["val/b.png", 40, 30]]), "{val}");
    }
    // The folder of all is that of no split, and every split is told.
    source.file("data.yaml", &format!("train: /content/images\nval: /content/ds/images\n{names}"));
    convert(source.root(), &[]).refused(
        3,
        &[
            "train: no images in /content/images (data.yaml, line 1): write their folder",
            "val: no images in /content/ds/images (data.yaml, line 2): write their folder",
        ],
    );
}

#[test]
fn darknet_layout() {
    let source = Source::new();
    source.file("obj.data", "classes = 1\ntrain = data/train.txt\nvalid = data/test.txt\nnames = data/obj.names\nbackup = b/\n");
    source.file("obj.names", "cat\n");
    source.file("train.txt", "data/obj/a.png\nC:\\x\\obj\\b.png\n/somewhere/gone.png\n");
    source.file("test.txt", "data/obj/c.png\n");
    for name in ["a", "b", "c"] {
        source.picture(&format!("obj/{name}.png"));
        source.file(&format!("obj/{name}.txt"), "0 0.5 0.5 0.5 0.2");
    }
    let made = convert(source.root(), &[]);
    assert_eq!(made.images("train"), json!([["a.png", 40, 30], ["b.png", 40, 30]]));
    assert_eq!(made.images("val"), json!([["c.png", 40, 30]]));
    assert_eq!((made.code, made.log()), (1, json!([["missing_image", "train", 1]])));
}

#[test]
fn keypoints_are_told_and_left_out() {
    let source = ultralytics("1 0.5 0.5 0.25 0.2 0.5 0.5 2 0.6 0.6 1\n");
    source.file("data.yaml", "train: images/train\nkpt_shape: [2, 3]\nnames: [cat, dog]\n");
    let made = convert(source.root(), &[]);
    let boxes = json!([["a.png", "dog", [15.0, 12.0, 10.0, 6.0], 0]]);
    assert_eq!(made.boxes("train"), boxes);
    assert_eq!(made.log()[1], json!(["detail_dropped", "train", 1]));
}

#[test]
fn bad_rows_end_it_with_file_and_line() {
    let refused = |rows: &str, words: &str| {
        convert(ultralytics(rows).root(), &[]).refused(3, &["labels/train/a.txt, line ", words]);
    };
    refused(
        "0 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.2 0.2",
        "line 2: class 2 has no name: the names go from 0 to 1",
    );
    refused("0.5 0.5 0.5 0.2 0.2", "class 0.5 has no name");
    refused("-1 0.5 0.5 0.2 0.2", "class -1 has no name");
    refused("0 120 80 40 30", "120 is not a fraction of the image: are these pixels?");
    refused("0 0.5 0.5 0.2", "3 numbers after the class");
    refused("0 0.5 0.5 0.2 0.2 0.9", "5 numbers after the class");
    refused("0 0.5 0.5 0.2 0.2 0.9 0.9 0.9", "7 numbers after the class");
    refused("0 0.5 x 0.2 0.2", "'x' is not a number");
    refused("0 0.5 nan 0.2 0.2", "'nan' is not a number");
}

#[test]
fn descriptions_that_say_nothing_or_too_much_are_refused() {
    let with = |yaml: &str| {
        let source = ultralytics("");
        source.file("data.yaml", yaml);
        convert(source.root(), &[])
    };
    with("names: [a]\nnc: 3\n").refused(3, &["data.yaml, line 2: nc is 3, but there are 1 names"]);
    with("names: cat\n").refused(3, &["data.yaml, line 1: names must be a list or a map"]);
    with("names: {x: cat}\n").refused(3, &["'x' must be a number with a name"]);
    with("names: [cat, '']\n").refused(3, &["data.yaml, line 1: class 1 has no name"]);
    with("names:\n  0: cat\n  1:\n").refused(3, &["data.yaml, line 3: class 1 has no name"]);
    with("names: [a\n").refused(3, &["data.yaml", "not valid YAML"]);
    with("a: &a [x]\nnames: *a\n").refused(3, &["line 2: aliases"]);
    with("path: x\n").refused(3, &["classes have no names here", "classes.txt"]);
    // Nothing outside of the source is looked at.
    let outside = with("names: [cat, dog]\ntrain: ../../../../../../usr/share\nval: images/val\n");
    assert_eq!(outside.json()["splits"].as_array().unwrap().len(), 1);
    assert!(outside.stderr.contains("no images in ../../"), "{}", outside.stderr);
    let source = ultralytics("");
    source.file("data.yaml", "names: [cat, dog]\ntrain: ../pictures/train\n");
    convert(source.root(), &[]).refused(3, &["no images in ../pictures/train (data.yaml, line 2)"]);
    source.file("data.yaml", "names: {0: cat, 1: dog, 3: cow}\ntrain: images/train\n");
    source.file("labels/train/a.txt", "2 0.5 0.5 0.2 0.2\n");
    convert(source.root(), &[])
        .refused(3, &["class 2 has no name: the names go from 0 to 3, with gaps"]);
    source.file("other.yaml", "names: [a]\n");
    convert(source.root(), &[]).refused(2, &["data.yaml and other.yaml both have names"]);
}
