//! YOLO: a text file for each image, a row for each object: `class x y w h`, the centre and the sides of
//! the box as fractions of the upright image; or `class x y x y x y ...`, a polygon.
//!
//! Labels lie in a folder `labels` that mirrors `images`, or beside the images. Classes and splits
//! stand in `data.yaml` (Ultralytics), `obj.data` and `obj.names` (Darknet) or `classes.txt`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Map;

use super::Options;
use super::error::ConvertError;
use super::files::{Files, shown, split_of};
use super::log::{Change, Log};
use super::model::{Category, Declared, FRACTION, Image, Object, Outline, Place, Source, Split};
use super::parts::{note_splits, split_name};
use super::yolo_lists::{self, Set};

/// A file that shows that the source is in this form, where no YAML describes it.
pub(super) fn sign(files: &Files) -> Option<&Path> {
    let labels = |path: &&Path| path.components().any(|c| c.as_os_str() == "labels");
    yolo_lists::sign(files).or_else(|| files.with_extension("txt").into_iter().find(labels))
}

pub(super) fn read(files: &Files, options: &Options) -> Result<Source, ConvertError> {
    let mut source = Source::default();
    let set = yolo_lists::read(files, &mut source.log)?;
    let splits = split(files, &set, &mut source, options)?;
    let labels: HashSet<&Path> = files.others.iter().map(PathBuf::as_path).collect();
    let mut used = HashSet::new();
    for (name, images) in splits {
        let mut split = Split { name, categories: categories(&set), ..Split::default() };
        for file in images {
            let label = label_paths(file).into_iter().find(|p| labels.contains(p.as_path()));
            let mut image = Image {
                id: None,
                file: files.path(file),
                name: shown(file),
                declared: Declared::None,
                objects: Vec::new(),
                rest: Map::new(),
            };
            if let Some(label) = label {
                image.objects = rows(files, &label, &set, &split.name, &mut source.log)?;
                used.insert(label);
            }
            split.images.push(image);
        }
        source.splits.push(split);
    }
    // Some without are background; all without lie elsewhere, or their labels do.
    if used.is_empty() {
        for image in source.splits.iter().flat_map(|split| &split.images) {
            let expected = label_paths(Path::new(&image.name)).swap_remove(0);
            let text = format!("{}: expected {}", image.name, shown(&expected));
            source.log.add(Change::NoLabels, None, text);
        }
    }
    // They are lost objects.
    for path in files.others.iter().filter(|path| is_label(path) && !used.contains(*path)) {
        source.log.add(Change::UnusedLabels, None, shown(path));
    }
    Ok(source)
}

fn categories(set: &Set) -> Vec<Category> {
    // From 1: some programs take 0 for the background.
    let category =
        |(&i, name): (&i64, &String)| Category { id: i + 1, name: name.clone(), rest: Map::new() };
    set.names.iter().map(category).collect()
}

/// The images of each split.
fn split<'a>(
    files: &'a Files,
    set: &Set,
    source: &mut Source,
    options: &Options,
) -> Result<BTreeMap<String, Vec<&'a Path>>, ConvertError> {
    let mut splits: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    if let Some(parts) = &set.splits {
        source.named_splits = true;
        split_name(None, source, options)?;
        for (name, entries) in parts {
            let images = yolo_lists::images(files, name, entries, &mut source.log)?;
            // Where there are none, that was told.
            if !images.is_empty() {
                splits.insert(name.clone(), images);
            }
        }
        return Ok(splits);
    }
    let named = |path: &Path| {
        path.parent()?.components().rev().find_map(|c| split_of(c.as_os_str().to_str()?))
    };
    let all = files.images.iter().map(|path| (path.as_path(), named(path).is_some()));
    note_splits(source, options, all);
    for path in &files.images {
        let name = split_name(named(path).as_deref(), source, options)?;
        splits.entry(name).or_default().push(path);
    }
    Ok(splits)
}

/// Where the labels of an image may lie.
fn label_paths(image: &Path) -> Vec<PathBuf> {
    let beside = image.with_extension("txt");
    let parts: Vec<Component<'_>> = beside.components().collect();
    let folder = |name: &str| parts[..parts.len() - 1].iter().rposition(|c| c.as_os_str() == name);
    let mirrored = folder("images").or_else(|| folder("JPEGImages")).map(|at| {
        let part = |(i, c): (usize, &Component<'_>)| {
            if i == at { PathBuf::from("labels") } else { PathBuf::from(c.as_os_str()) }
        };
        parts.iter().enumerate().map(part).collect()
    });
    mirrored.into_iter().chain([beside]).collect()
}

fn is_label(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "txt")
        && path.parent().is_some_and(|p| p.components().any(|c| c.as_os_str() == "labels"))
        && path.file_name().is_some_and(|name| name != "classes.txt")
}

/// The objects of one label file.
fn rows(
    files: &Files,
    path: &Path,
    set: &Set,
    split: &str,
    log: &mut Log,
) -> Result<Vec<Object>, ConvertError> {
    let text = files.text(path)?;
    let file: Arc<str> = Arc::from(shown(path).as_str());
    let mut objects = Vec::new();
    for (i, row) in text.lines().enumerate() {
        let line = i + 1;
        let bad = |problem: String| ConvertError::bad(files.path(path), line, problem);
        let mut numbers = Vec::new();
        for word in row.split_whitespace() {
            match word.parse::<f64>() {
                Ok(n) if n.is_finite() => numbers.push(n),
                _ => return Err(bad(format!("'{word}' is not a number"))),
            }
        }
        let Some((&class, rest)) = numbers.split_first() else { continue };
        let class_index = class as i64;
        if class.fract() != 0. || !set.names.contains_key(&class_index) {
            return Err(bad(format!("class {class} has no name: {}", named(set))));
        }
        if let Some(n) = rest.iter().take(4).find(|n| !FRACTION.contains(n)) {
            return Err(bad(format!(
                "{n} is not a fraction of the image: are these pixels? Boxes are `class x y w h`, all \
                 from 0 to 1"
            )));
        }
        let keypoints = set.keypoint_numbers.filter(|n| rest.len() == 4 + n);
        let place = Place::new(&file, line);
        let mut object = match rest {
            &[x, y, w, h] => centred([x, y, w, h], class_index, place),
            &[x, y, w, h, ..] if keypoints.is_some() => {
                log.add(Change::DetailDropped, Some(split), format!("{place}: keypoints"));
                centred([x, y, w, h], class_index, place)
            }
            points if points.len() >= 6 && points.len() % 2 == 0 => {
                let axis = |start: usize| points.iter().skip(start).step_by(2).copied();
                let least = |start| axis(start).fold(f64::INFINITY, f64::min);
                let most = |start| axis(start).fold(f64::NEG_INFINITY, f64::max);
                let corners = [least(0), least(1), most(0), most(1)];
                let mut object = Object::of_corners(class_index, corners, place);
                object.outline = Outline::Polygons(vec![points.to_vec()]);
                object
            }
            other => {
                return Err(bad(format!(
                    "{} numbers after the class; a box has 4, a polygon 6 or more and an even number",
                    other.len()
                )));
            }
        };
        object.category_id += 1;
        object.fractions = true;
        objects.push(object);
    }
    Ok(objects)
}

/// Which classes have names.
fn named(set: &Set) -> String {
    let mut numbers = set.names.keys();
    let Some(first) = numbers.next() else { return "there are no names".to_owned() };
    let last = numbers.next_back().unwrap_or(first);
    let gaps = if last - first >= set.names.len() as i64 { ", with gaps" } else { "" };
    format!("the names go from {first} to {last}{gaps}")
}

fn centred([x, y, w, h]: [f64; 4], class: i64, place: Place) -> Object {
    Object::of_box(class, [x - w / 2., y - h / 2., w, h], place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lie_in_the_mirrored_folder_or_beside() {
        let of = |image: &str| {
            let paths = label_paths(Path::new(image));
            paths.iter().map(|p| shown(p)).collect::<Vec<_>>()
        };
        assert_eq!(of("images/train/a.b.jpg"), ["labels/train/a.b.txt", "images/train/a.b.txt"]);
        assert_eq!(of("images/images/a.png"), ["images/labels/a.txt", "images/images/a.txt"]);
        assert_eq!(of("train/images/a.jpg"), ["train/labels/a.txt", "train/images/a.txt"]);
        assert_eq!(of("JPEGImages/a.jpg"), ["labels/a.txt", "JPEGImages/a.txt"]);
        assert_eq!(of("images"), ["images.txt"]);
        assert_eq!(of("obj/a.jpg"), ["obj/a.txt"]);
    }
}
