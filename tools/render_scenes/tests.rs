//! What the shipped set promises: it is what this program renders, and its annotations hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::replace;
use crate::scene::{About, Limits, Scene};
use crate::set::{Image, SAMPLES, SEED, Split};
use crate::stream::Stream;
use crate::things::CLASSES;

const SPLITS: [Split; 2] = [Split::TRAIN, Split::VAL];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

fn annotations(split: &Split) -> Value {
    let path = data().join("scenes/annotations").join(format!("{}.json", split.name));
    let text = std::fs::read_to_string(path).expect("the annotations are shipped");
    serde_json::from_str(&text).expect("they are JSON")
}

fn items<'a>(set: &'a Value, list: &str) -> &'a [Value] {
    set[list].as_array().expect("a list")
}

fn number(item: &Value, key: &str) -> u64 {
    item[key].as_u64().expect("a whole number")
}

fn bbox(annotation: &Value) -> [u64; 4] {
    serde_json::from_value(annotation["bbox"].clone()).expect("four whole numbers")
}

/// The bytes hold for the encoder that Cargo.lock pins.
fn assert_shipped(image: &Image, folder: &str) {
    let path = data().join(folder).join(&image.file_name);
    let shipped = std::fs::read(&path).expect("the image is shipped");
    assert!(
        shipped == image.jpeg,
        "{} is not what tools/render_scenes makes: if the renderer or the `image` crate has changed, \
         make the set again (data/scenes/README.md says how)",
        path.display()
    );
}

#[test]
fn rendering_twice_gives_the_shipped_bytes_and_boxes() {
    for (split, index) in [(Split::TRAIN, 0), (Split::TRAIN, 257), (Split::VAL, 99)] {
        let image = Image::new(&split, SEED, index);
        assert_eq!(Image::new(&split, SEED, index).jpeg, image.jpeg);
        assert_shipped(&image, "scenes/images");

        let set = annotations(&split);
        let entry = &items(&set, "images")[index as usize];
        assert_eq!(entry["file_name"], image.file_name);
        let shipped: Vec<_> = items(&set, "annotations")
            .iter()
            .filter(|a| a["image_id"] == entry["id"])
            .map(|a| (number(a, "category_id"), bbox(a), number(a, "area")))
            .collect();
        let rendered: Vec<_> = image
            .objects
            .iter()
            .map(|o| (CLASSES[o.class].id.into(), o.bbox.map(|x| x as u64), o.area as u64))
            .collect();
        assert_eq!(shipped, rendered, "{}", image.file_name);
    }
}

#[test]
fn the_samples_are_rendered_and_hold_several_things() {
    for index in 0..SAMPLES {
        let image = Image::new(&Split::SAMPLE, SEED, index);
        assert_shipped(&image, "samples");
        assert!((5..=8).contains(&image.objects.len()), "{}", image.file_name);
        assert!(image.width.min(image.height) >= 420 && image.width.max(image.height) >= 560);
    }
}

#[test]
fn every_annotation_is_whole_and_within_its_image() {
    for split in SPLITS {
        let set = annotations(&split);
        let categories: Vec<_> = items(&set, "categories")
            .iter()
            .map(|c| (number(c, "id"), c["name"].clone()))
            .collect();
        let expected: Vec<_> = CLASSES.iter().map(|c| (c.id.into(), c.name.into())).collect();
        assert_eq!(categories, expected);

        let images: BTreeMap<u64, &Value> =
            items(&set, "images").iter().map(|i| (number(i, "id"), i)).collect();
        let mut covered = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for a in items(&set, "annotations") {
            let image = images[&number(a, "image_id")];
            let [x, y, w, h] = bbox(a);
            assert!(x + w <= number(image, "width") && y + h <= number(image, "height"), "{a}");
            assert!(w.max(h) >= 16 && w.min(h) >= 7, "{a}");
            assert!((1..=w * h).contains(&number(a, "area")), "{a}");
            assert!(categories.iter().any(|(id, _)| *id == number(a, "category_id")), "{a}");
            assert_eq!((&a["iscrowd"], &a["segmentation"]), (&0.into(), &Value::Array(vec![])));
            // No pixel belongs to two things.
            let sum = covered.entry(number(a, "image_id")).or_insert(0);
            *sum += number(a, "area");
            assert!(*sum <= number(image, "width") * number(image, "height"), "{a}");
            *counts.entry(number(a, "image_id")).or_insert(0) += 1;
        }
        assert_eq!(counts.values().max(), Some(&8));
        let empty = images.len() - counts.len();
        assert!((1..=images.len() / 10).contains(&empty), "{empty} images have no thing");
    }
}

#[test]
fn ids_and_files_are_unique_over_the_splits_and_sizes_are_true() {
    let (mut image_ids, mut annotation_ids, mut files) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let folder = data().join("scenes/images");
    for split in SPLITS {
        let set = annotations(&split);
        for image in items(&set, "images") {
            let name = image["file_name"].as_str().expect("a name");
            assert!(image_ids.insert(number(image, "id")), "{image}");
            assert!(files.insert(name.to_owned()), "{image}");
            let (w, h) = image::image_dimensions(folder.join(name)).expect("a JPEG");
            let annotated = (number(image, "width"), number(image, "height"));
            assert_eq!((u64::from(w), u64::from(h)), annotated, "{name}");
        }
        for a in items(&set, "annotations") {
            assert!(annotation_ids.insert(number(a, "id")), "{a}");
        }
    }
    let there: BTreeSet<String> = std::fs::read_dir(&folder)
        .expect("the images are shipped")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(there, files);
    assert_eq!((there.len(), image_ids.len()), (500, 500));
}

#[test]
fn classes_are_about_even_and_the_readme_says_how_many() {
    let readme = std::fs::read_to_string(data().join("scenes/README.md")).expect("it is shipped");
    let count = |split: &Split, id: u64| {
        let set = annotations(split);
        items(&set, "annotations").iter().filter(|a| number(a, "category_id") == id).count()
    };
    for class in &CLASSES {
        let (train, val) =
            (count(&Split::TRAIN, class.id.into()), count(&Split::VAL, class.id.into()));
        let row = format!("| {} | {} | {train} | {val} |", class.id, class.name);
        assert!(readme.contains(&row), "data/scenes/README.md lacks: {row}");
        assert!((150..=250).contains(&train) && (35..=70).contains(&val), "{row}");
    }
}

#[test]
fn the_set_and_the_samples_stay_below_six_megabytes() {
    fn bytes(path: &Path) -> u64 {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).expect("readable");
            entries.map(|e| bytes(&e.expect("readable").path())).sum()
        } else {
            path.metadata().expect("readable").len()
        }
    }
    let total = bytes(&data().join("scenes")) + bytes(&data().join("samples"));
    assert!(total < 6_000_000, "{total} bytes");
}

#[test]
fn seed_split_and_index_each_make_another_picture() {
    let about = About { width: 96, height: 80, smallest: 19., least: 0 };
    let bytes = |seed, split, index| {
        Scene::render(&mut Stream::new(seed, split, index), index, about).canvas.to_bytes()
    };
    let first = bytes(1, 0, 0);
    assert_eq!(first, bytes(1, 0, 0));
    for other in [bytes(2, 0, 0), bytes(1, 1, 0), bytes(1, 0, 1)] {
        assert_ne!(first, other);
    }
}

#[test]
fn a_picture_too_crowded_for_all_its_things_keeps_the_limits() {
    let about = About { width: 40, height: 40, smallest: 19., least: 8 };
    let mut left_out = 0;
    for index in 0..6 {
        let scene = Scene::render(&mut Stream::new(7, 0, index), index, about);
        left_out += 8 - scene.objects.len();
        for o in &scene.objects {
            let [x, y, w, h] = o.bbox;
            assert!(x + w <= scene.canvas.width && y + h <= scene.canvas.height);
            assert!(w.max(h) >= Limits::LONG_SIDE && w.min(h) >= Limits::SHORT_SIDE);
        }
    }
    assert!(left_out > 0, "40 pixels do not hold eight things in each of six pictures");
}

#[test]
fn what_is_there_is_replaced_only_when_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.txt");
    let write = |text: &'static str| {
        move |to: &Path| -> anyhow::Result<()> { Ok(std::fs::write(to.join("a.txt"), text)?) }
    };
    replace(folder.path(), &["a.txt"], false, write("one")).expect("nothing is there");
    let error = replace(folder.path(), &["a.txt"], false, write("two")).expect_err("it is there");
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "one");
    replace(folder.path(), &["a.txt"], true, write("three")).expect("asked for");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "three");
    // A failure leaves what was there, and nothing beside it.
    replace(folder.path(), &["a.txt"], true, |_| anyhow::bail!("no")).expect_err("it fails");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "three");
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
}
