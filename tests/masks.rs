//! Masks against what pycocotools says of them (`tools/golden_masks.py`).
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use detect::eval::masks::{Combine, Rle, Segmentation, ious};
use detect::geometry::Size;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/masks.json")).unwrap()
}

fn cases<'a>(golden: &'a Value, kind: &str, least: usize) -> &'a [Value] {
    let cases = golden[kind].as_array().unwrap();
    assert!(cases.len() >= least, "{kind}");
    cases
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn size(value: &Value) -> Size {
    let [height, width] = numbers(value)[..] else { panic!("{value}") };
    Size::new(height as usize, width as usize)
}

fn bits(x: &[f64]) -> Vec<u64> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn compressed(size: Size, value: &Value) -> Vec<Rle> {
    let texts = value.as_array().unwrap().iter();
    texts.map(|t| Rle::from_compressed(size, t.as_str().unwrap()).unwrap()).collect()
}

/// Text, area and box, and that the text is read as the mask that it was made of.
fn assert_same(mask: &Rle, case: &Value) {
    let text = case["counts"].as_str().unwrap();
    assert_eq!(mask.to_compressed(), text, "{case}");
    assert_eq!(u64::from(mask.area()), case["area"].as_u64().unwrap(), "{case}");
    assert_eq!(bits(&mask.bounding_box()), bits(&numbers(&case["bbox"])), "{case}");
    assert_eq!(&Rle::from_compressed(mask.size(), text).unwrap(), mask, "{case}");
}

#[test]
fn polygons_agree() {
    for case in cases(&golden(), "polygons", 70) {
        let segmentation = Segmentation::from_json(&case["polygons"].to_string()).unwrap();
        assert_same(&segmentation.to_rle(size(&case["size"])).unwrap(), case);
    }
}

#[test]
fn boxes_agree() {
    for case in cases(&golden(), "boxes", 25) {
        let bbox = numbers(&case["box"]).try_into().unwrap();
        assert_same(&Rle::from_box(bbox, size(&case["size"])).unwrap(), case);
    }
}

#[test]
fn lists_of_counts_agree() {
    for case in cases(&golden(), "lists", 45) {
        let json = format!(r#"{{"size": {}, "counts": {}}}"#, case["size"], case["list"]);
        let segmentation = Segmentation::from_json(&json).unwrap();
        assert_same(&segmentation.to_rle(size(&case["size"])).unwrap(), case);
    }
}

#[test]
fn unions_and_intersections_agree() {
    for case in cases(&golden(), "merges", 15) {
        let masks = compressed(size(&case["size"]), &case["masks"]);
        for (how, key) in [(Combine::Union, "union"), (Combine::Intersection, "intersection")] {
            let got = Rle::combine(&masks, how).unwrap().to_compressed();
            assert_eq!(got, case[key].as_str().unwrap(), "{case}");
        }
    }
}

#[test]
fn overlaps_agree_to_the_last_bit() {
    for case in cases(&golden(), "overlaps", 20) {
        let size = size(&case["size"]);
        let (dets, gts) =
            (compressed(size, &case["detections"]), compressed(size, &case["truths"]));
        let crowd: Vec<bool> = numbers(&case["crowd"]).iter().map(|&c| c != 0.).collect();
        let got = ious(&dets.iter().collect::<Vec<_>>(), &gts.iter().collect::<Vec<_>>(), &crowd);
        assert_eq!(bits(&got), bits(&numbers(&case["ious"])), "{case}");
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// All masks of a real set, and the overlaps of all of one image and category.
#[test]
fn real_masks_and_overlaps_agree() {
    let Some(data) = std::env::var_os("DETECT_TEST_DATA").filter(|d| !d.is_empty()) else {
        eprintln!("skipped: DETECT_TEST_DATA is not set");
        return;
    };
    let kit = PathBuf::from(data).join("data/coco_eval");
    let load = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(kit.join(name)).unwrap()).unwrap()
    };
    let truth = load("instances_val2014_100.json");
    let found = load("instances_val2014_fakesegm100_results.json");
    let images = truth["images"].as_array().unwrap().iter();
    let side = |image: &Value, key: &str| image[key].as_u64().unwrap() as usize;
    let sizes: BTreeMap<i64, Size> = images
        .map(|i| (i["id"].as_i64().unwrap(), Size::new(side(i, "height"), side(i, "width"))))
        .collect();

    let mut lines = String::new();
    let mut cells: BTreeMap<_, [Vec<(Rle, bool)>; 2]> = BTreeMap::new();
    for (side, entries) in [&found, &truth["annotations"]].into_iter().enumerate() {
        for entry in entries.as_array().unwrap() {
            let image = entry["image_id"].as_i64().unwrap();
            let segmentation = Segmentation::from_json(&entry["segmentation"].to_string()).unwrap();
            let mask = segmentation.to_rle(sizes[&image]).unwrap();
            write!(lines, "{} {}", mask.to_compressed(), mask.area()).unwrap();
            for x in mask.bounding_box() {
                write!(lines, " {:016x}", x.to_bits()).unwrap();
            }
            lines.push('\n');
            let cell = cells.entry((image, entry["category_id"].as_i64().unwrap())).or_default();
            cell[side].push((mask, entry["iscrowd"] == 1));
        }
    }
    let mut rows = String::new();
    for ((image, category), [dets, gts]) in &cells {
        if dets.is_empty() || gts.is_empty() {
            continue;
        }
        let dets: Vec<&Rle> = dets.iter().map(|(mask, _)| mask).collect();
        let truths: Vec<&Rle> = gts.iter().map(|(mask, _)| mask).collect();
        let crowd: Vec<bool> = gts.iter().map(|(_, crowd)| *crowd).collect();
        write!(rows, "{image} {category}").unwrap();
        for x in ious(&dets, &truths, &crowd) {
            write!(rows, " {:016x}", x.to_bits()).unwrap();
        }
        rows.push('\n');
    }
    let golden = &golden()["kit"];
    let count = |text: &str| text.lines().count() as u64;
    assert_eq!(count(&lines), golden["masks"].as_u64().unwrap());
    assert_eq!(count(&rows), golden["cells"].as_u64().unwrap());
    assert_eq!(digest(&lines), golden["mask_lines"].as_str().unwrap());
    assert_eq!(digest(&rows), golden["iou_lines"].as_str().unwrap());
}
