//! Pascal VOC. Expected boxes follow the development kit: pixels from 1, both corners inside.

use serde_json::json;

use crate::{Source, assert_sound, convert};

fn object(name: &str, [x1, y1, x2, y2]: [&str; 4], more: &str) -> String {
    format!(
        "<object>\n<name>{name}</name>{more}<bndbox><xmax>{x2}</xmax><ymin>{y1}</ymin>\
         <xmin>{x1}</xmin><ymax>{y2}</ymax></bndbox></object>\n"
    )
}

fn xml(head: &str, objects: &[String]) -> String {
    format!("<?xml version=\"1.0\"?>\n<annotation>{head}\n{}</annotation>", objects.concat())
}

const SIZE: &str = "<size><width>40</width><height>30</height><depth>3</depth></size>";

/// As VOCdevkit/VOC2012 lies on the disk.
fn devkit() -> Source {
    let source = Source::new();
    let year = |path: &str| format!("VOCdevkit/VOC2012/{path}");
    for name in ["a", "b", "c", "unlisted", "test"] {
        source.picture(&year(&format!("JPEGImages/{name}.png")));
    }
    let annotation = |name: &str, objects: &[String]| {
        source.file(&year(&format!("Annotations/{name}.xml")), &xml(SIZE, objects));
    };
    annotation(
        "a",
        &[
            // The whole image, and its first pixel.
            object("sofa", ["1", "1", "40", "30"], "<pose>Left</pose><truncated>1</truncated>"),
            object("cat", ["1", "1", "1", "1"], "<difficult>1</difficult>"),
            object("cat", ["10.5", "2", "20.25", "9"], "<difficult>0</difficult>"),
            "<object><name>cat</name></object>".to_owned(),
        ],
    );
    annotation("b", &[object("dog", ["2", "3", "4", "5"], "<part><name>head</name></part>")]);
    annotation("c", &[]);
    annotation("unlisted", &[]);
    source.file(&year("ImageSets/Main/train.txt"), "a\nc\n\nlost\n");
    source.file(&year("ImageSets/Main/val.txt"), "b\nb\n");
    source.file(&year("ImageSets/Main/trainval.txt"), "a\nb\nc\n");
    source.file(&year("ImageSets/Main/cat_train.txt"), "a  1\nc -1\n");
    source.file(&year("ImageSets/Main/test.txt"), "test\n");
    source
}

#[test]
fn the_development_kit() {
    let made = convert(devkit().root(), &[]);
    let boxes = json!([
        ["a.png", "sofa", [0.0, 0.0, 40.0, 30.0], 0],
        ["a.png", "cat", [0.0, 0.0, 1.0, 1.0], 1],
        ["a.png", "cat", [9.5, 1.0, 10.75, 8.0], 0],
    ]);
    assert_eq!(made.boxes("train"), boxes);
    assert_eq!(made.boxes("val"), json!([["b.png", "dog", [1.0, 2.0, 3.0, 3.0], 0]]));
    assert_eq!(made.images("train"), json!([["a.png", 40, 30], ["c.png", 40, 30]]));
    let train = made.split("train");
    let names =
        json!([{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "sofa"}]);
    assert_eq!(train["categories"], names);
    assert_eq!(made.split("val")["categories"], names);
    let first = json!({"id": 1, "image_id": 1, "category_id": 3, "bbox": [0.0, 0.0, 40.0, 30.0],
        "area": 1200.0, "iscrowd": 0, "segmentation": [], "pose": "Left", "truncated": 1});
    assert_eq!(train["annotations"][0], first);
    let log = json!([
        ["missing_image", "train", 1],
        ["not_annotated", "test", 1],
        ["not_listed", null, 1],
        ["split_left_out", null, 2],
        ["file_skipped", null, 1],
        ["no_box", "train", 1],
        ["repeated_entry", "val", 1],
        ["detail_dropped", "val", 1],
        ["difficult_as_crowd", "train", 1],
        ["background", "train", 1],
    ]);
    let mut found = made.log().as_array().unwrap().clone();
    for entry in log.as_array().unwrap() {
        let at = found.iter().position(|f| f == entry);
        found.remove(at.unwrap_or_else(|| panic!("{entry} is not in {found:?}")));
    }
    assert!(found.is_empty(), "{found:?}");
    assert_eq!((made.code, made.json()["origin"].as_i64()), (1, Some(1)));
    assert!(made.stderr.contains("train.txt, line 4: lost"), "{}", made.stderr);
    assert_sound(&made.out);
    convert(devkit().root(), &["--split", "x"]).refused(2, &["names its splits"]);
}

#[test]
fn difficult_objects_are_what_one_asks_for() {
    let cats = |how: &str| {
        let made = convert(devkit().root(), &["--difficult", how]);
        let boxes = made.boxes("train");
        let kind = made.log().as_array().unwrap().iter().any(|e| e[0] == "difficult_dropped");
        (boxes.as_array().unwrap().iter().map(|b| b[3].clone()).collect::<Vec<_>>(), kind)
    };
    assert_eq!(cats("keep"), (vec![json!(0), json!(0), json!(0)], false));
    assert_eq!(cats("drop"), (vec![json!(0), json!(0)], true));
    assert_eq!(cats("crowd"), (vec![json!(0), json!(1), json!(0)], false));
}

#[test]
fn ids_with_spaces_are_no_lists_of_one_class() {
    let source = Source::new();
    // One ends as the lines of such a list do.
    for id in ["bild a IMG_1", "bild b 1", "c"] {
        source.picture(&format!("JPEGImages/{id}.png"));
        source.file(&format!("Annotations/{id}.xml"), &xml(SIZE, &[]));
    }
    source.file("ImageSets/Main/train.txt", "bild a IMG_1\nc\n");
    source.file("ImageSets/Main/val.txt", "bild b 1\n");
    source.file("ImageSets/Main/cat_val.txt", "bild b 1  1\n");
    let made = convert(source.root(), &[]);
    let train = json!([["bild a IMG_1.png", 40, 30], ["c.png", 40, 30]]);
    assert_eq!(made.images("train"), train);
    assert_eq!(made.images("val"), json!([["bild b 1.png", 40, 30]]));
    assert_eq!(made.log()[0], json!(["file_skipped", null, 1]));
    assert!(made.stderr.contains("cat_val.txt: a list of one class"), "{}", made.stderr);
}

#[test]
fn two_years_keep_their_files_apart() {
    let source = Source::new();
    for year in ["VOC2007", "VOC2012"] {
        source.picture(&format!("{year}/JPEGImages/1.png"));
        let objects = [object("cat", ["2", "2", "5", "5"], "")];
        source.file(&format!("{year}/Annotations/1.xml"), &xml(SIZE, &objects));
        source.file(&format!("{year}/ImageSets/Main/train.txt"), "1\n");
    }
    let images =
        json!([["VOC2007/JPEGImages/1.png", 40, 30], ["VOC2012/JPEGImages/1.png", 40, 30]]);
    assert_eq!(convert(source.root(), &[]).images("train"), images);
}

#[test]
fn corners_that_are_0_are_counted_from_0() {
    let source = Source::new();
    source.picture("a.png");
    let objects =
        [object("cat", ["0", "5", "10", "15"], ""), object("cat", ["2", "5", "40", "30"], "")];
    source.file("a.xml", &xml("<filename>other.jpg</filename>", &objects));
    let made = convert(source.root(), &[]);
    let boxes = json!([
        ["a.png", "cat", [0.0, 5.0, 10.0, 10.0], 0],
        ["a.png", "cat", [2.0, 5.0, 38.0, 25.0], 0]
    ]);
    assert_eq!(made.boxes("train"), boxes);
    assert_eq!(made.json()["origin"], 0);
    assert!(made.stderr.contains("counted from 0"), "{}", made.stderr);
    let made = convert(source.root(), &["--origin", "1", "--split", "all"]);
    let boxes = json!([
        ["a.png", "cat", [0.0, 4.0, 10.0, 11.0], 0],
        ["a.png", "cat", [1.0, 4.0, 39.0, 26.0], 0]
    ]);
    assert_eq!(made.boxes("all"), boxes);
    assert_eq!(made.log(), json!([["clipped_box", "all", 1]]));
}

#[test]
fn sizes_come_from_the_file() {
    let source = Source::new();
    let size = |w: u32, h: u32| format!("<size><width>{w}</width><height>{h}</height></size>");
    let sized = |name: &str, head: &str, corners| {
        source.picture(&format!("{name}.png"));
        source.file(&format!("{name}.xml"), &xml(head, &[object("x", corners, "")]));
    };
    sized("none", "", ["1", "1", "40", "30"]);
    sized("zero", &size(0, 0), ["1", "1", "40", "30"]);
    // Width and height swapped: the box fits only one way.
    sized("swapped", &size(30, 40), ["1", "1", "40", "20"]);
    // Fits both: nobody knows.
    sized("open", &size(80, 60), ["1", "1", "20", "20"]);
    // Stored 30 x 40, upright 40 x 30, annotated as stored: turned as orientation 6 turns it.
    source.jpeg("turned.jpg", (30, 40), 6);
    source.file("turned.xml", &xml(SIZE, &[object("x", ["1", "1", "10", "5"], "")]));
    let made = convert(source.root(), &[]);
    let images = json!([
        ["none.png", 40, 30],
        ["open.png", 80, 60],
        ["swapped.png", 40, 30],
        ["turned.jpg", 30, 40],
        ["zero.png", 40, 30]
    ]);
    assert_eq!(made.images("train"), images);
    // The upper left corner of the stored picture is the upper right one of the upright picture.
    assert_eq!(made.boxes("train")[3], json!(["turned.jpg", "x", [25.0, 0.0, 5.0, 10.0], 0]));
    let log = json!([
        ["turned_image", "train", 1],
        ["size_corrected", "train", 2],
        ["other_size", "train", 1]
    ]);
    assert_eq!(made.log(), log);
}

#[test]
fn a_flat_folder_and_folders_named_after_splits() {
    let source = Source::new();
    for name in ["train/a", "train/b", "test/c"] {
        source.picture(&format!("set/{name}.png"));
        source
            .file(&format!("set/{name}.xml"), &xml(SIZE, &[object("x", ["2", "2", "3", "3"], "")]));
    }
    let made = convert(source.root(), &[]);
    assert_eq!(made.images("train"), json!([["train/a.png", 40, 30], ["train/b.png", 40, 30]]));
    assert_eq!(made.images("test"), json!([["test/c.png", 40, 30]]));
    assert_eq!((made.code, made.log()), (0, json!([])));
    std::fs::remove_file(source.root().join("set/train/a.png")).unwrap();
    std::fs::write(source.root().join("set/train/b.png"), "no picture").unwrap();
    let made = convert(&source.root().join("set"), &[]);
    assert_eq!(made.code, 1);
    let log = json!([
        ["missing_image", "train", 1],
        ["broken_image", "train", 1],
        ["split_left_out", null, 1]
    ]);
    assert_eq!(made.log(), log);
    assert_eq!(made.images("test"), json!([["c.png", 40, 30]]));
    let flat = convert(&source.root().join("set/test"), &["--split", "mine"]);
    assert_eq!(flat.images("mine"), json!([["c.png", 40, 30]]));
}

#[test]
fn broken_files_end_it_with_file_and_line() {
    let refused = |text: &str, words: &[&str]| {
        let source = Source::new();
        source.picture("a.png");
        source.file("a.xml", text);
        convert(source.root(), &[]).refused(3, &[&["a.xml"], words].concat());
    };
    let bad = |corners| xml(SIZE, &[object("x", corners, "")]);
    refused(&bad(["1", "1", "wide", "2"]), &["line 4: <xmax> is 'wide', not a number"]);
    refused("<annotation><object><name>x</name>", &["line 1", "XML"]);
    refused("<annotation>\n<object></object></annotation>", &["line 2: the object has no <name>"]);
    refused(
        "<annotation>\n<object><name>x</name>\n<bndbox><xmin>1</xmin></bndbox></object></annotation>",
        &["line 3: <bndbox> has no <ymin>"],
    );
    refused("<annotation><size>\n</size></annotation>", &["line 1: <size> has no <width>"]);
    let bomb = "<!DOCTYPE x [<!ENTITY a \"b\">]><annotation>&a;</annotation>";
    refused(bomb, &["line 1"]);
    let external =
        "<!DOCTYPE x [<!ENTITY a SYSTEM \"/etc/passwd\">]>\n<annotation>&a;</annotation>";
    refused(external, &["not well-formed XML"]);
    refused(&format!("<annotation>{}", "<a>".repeat(200_000)), &["not well-formed XML"]);
}
