//! Real sets, written in other forms by this test and read back.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::common::test_data;
use crate::{Source, convert};

/// Every `(file, category, box)` of a split, in an order of its own.
fn boxes(path: &Path) -> Vec<(String, String, [f64; 4])> {
    let text = std::fs::read_to_string(path).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let find = |list: &str, id: &Value, key: &str| {
        let entry = all[list].as_array().unwrap().iter().find(|e| e["id"] == *id).unwrap();
        entry[key].as_str().unwrap().to_owned()
    };
    all["annotations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| {
            let file = find("images", &a["image_id"], "file_name");
            let name = file.rsplit('/').next().unwrap().to_owned();
            let bbox = [0, 1, 2, 3].map(|i| a["bbox"][i].as_f64().unwrap());
            (name, find("categories", &a["category_id"], "name"), bbox)
        })
        .collect()
}

/// `write` turns a split into files of the source; boxes come back within `tolerance`.
fn round_trip(name: &str, tolerance: f64, write: impl Fn(&Source, &Value)) {
    let Some(material) = test_data() else { return };
    let data = material.join("data").join(name);
    let file = data.join("annotations/val.json");
    let content: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let source = Source::new();
    std::fs::create_dir_all(source.root().join("images/val")).unwrap();
    for image in content["images"].as_array().unwrap() {
        let name = image["file_name"].as_str().unwrap();
        std::fs::copy(data.join("images").join(name), source.root().join("images/val").join(name))
            .unwrap();
    }
    write(&source, &content);
    let made = convert(source.root(), &[]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let (before, after) = (boxes(&file), boxes(&made.out.join("annotations/val.json")));
    assert!(before.len() > 20);
    assert_eq!(before.len(), after.len());
    for (file, category, bbox) in before {
        let near = after
            .iter()
            .filter(|b| b.0 == file && b.1 == category)
            .any(|(_, _, other)| bbox.iter().zip(other).all(|(a, b)| (a - b).abs() <= tolerance));
        assert!(near, "{file}: {category} {bbox:?}");
    }
}

fn entries<'a>(content: &'a Value, image: &'a Value) -> impl Iterator<Item = &'a Value> {
    let all = content["annotations"].as_array().unwrap().iter();
    all.filter(|a| a["image_id"] == image["id"])
}

fn category<'a>(content: &'a Value, annotation: &Value) -> (usize, &'a str) {
    let all = content["categories"].as_array().unwrap();
    let at = all.iter().position(|c| c["id"] == annotation["category_id"]).unwrap();
    (at, all[at]["name"].as_str().unwrap())
}

#[test]
fn yolo_and_back() {
    let write = |source: &Source, content: &Value| {
        let names: Vec<_> = content["categories"].as_array().unwrap().iter().collect();
        let names: Vec<_> = names.iter().map(|c| c["name"].as_str().unwrap()).collect();
        source.file("data.yaml", &format!("val: images/val\nnames: [{}]\n", names.join(", ")));
        for image in content["images"].as_array().unwrap() {
            let (w, h) = (image["width"].as_f64().unwrap(), image["height"].as_f64().unwrap());
            let mut rows = String::new();
            for a in entries(content, image) {
                let b = [0, 1, 2, 3].map(|i| a["bbox"][i].as_f64().unwrap());
                let (class, _) = category(content, a);
                let (x, y) = ((b[0] + b[2] / 2.) / w, (b[1] + b[3] / 2.) / h);
                writeln!(rows, "{class} {x:.6} {y:.6} {:.6} {:.6}", b[2] / w, b[3] / h).unwrap();
            }
            let name = image["file_name"].as_str().unwrap();
            let stem = name.rsplit_once('.').unwrap().0;
            source.file(&format!("labels/val/{stem}.txt"), &rows);
        }
    };
    // Six digits of 640 pixels, at both ends of a side.
    for set in ["bccd", "fruits_nuts", "microcontrollers", "deeppcb300"] {
        round_trip(set, 0.003, write);
    }
}

#[test]
fn voc_and_back() {
    for set in ["bccd", "fruits_nuts"] {
        round_trip(set, 0., |source, content| {
            for image in content["images"].as_array().unwrap() {
                let mut xml = "<annotation>".to_owned();
                for a in entries(content, image) {
                    let b = [0, 1, 2, 3].map(|i| a["bbox"][i].as_f64().unwrap());
                    let (_, name) = category(content, a);
                    write!(
                        xml,
                        "<object><name>{name}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>\
                         <xmax>{}</xmax><ymax>{}</ymax></bndbox></object>",
                        b[0] + 1.,
                        b[1] + 1.,
                        b[0] + b[2],
                        b[1] + b[3]
                    )
                    .unwrap();
                }
                let name = image["file_name"].as_str().unwrap();
                let stem = name.rsplit_once('.').unwrap().0;
                source.file(&format!("images/val/{stem}.xml"), &(xml + "</annotation>"));
            }
        });
    }
}
