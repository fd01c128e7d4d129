//! Splits, numbers and file names of the new folder.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Map;
use sha2::{Digest as _, Sha256};

use super::error::ConvertError;
use super::files::{Files, shown};
use super::log::Change;
use super::model::{Category, Source, Split};
use super::{Format, Options};
use crate::data::layout::{self, MINIVAL_IDS};
use crate::data::raw::unsafe_file_name;

/// The split that is made with `--val`.
const VAL: &str = "val";
/// The split of a source without any.
const TRAIN: &str = "train";

/// The name of a split: the source's, or what the options say where it has none.
pub(super) fn split_name(
    found: Option<&str>,
    source: &Source,
    options: &Options,
) -> Result<String, ConvertError> {
    if let (true, Some(split)) = (source.named_splits, &options.split) {
        let message = format!(
            "--split {split} names the split of a source that has none, but this one names its splits"
        );
        return Err(ConvertError::Usage { message });
    }
    let given = options.split.as_deref();
    Ok(found.filter(|_| source.named_splits).or(given).unwrap_or(TRAIN).to_owned())
}

/// Notes whether the source names its splits, of files and whether each of them does: all of them do, or none counts.
pub(super) fn note_splits<'a>(
    source: &mut Source,
    options: &Options,
    files: impl Iterator<Item = (&'a Path, bool)>,
) {
    let (mut some, mut without) = (false, Vec::new());
    for (file, names) in files {
        some |= names;
        if !names {
            without.push(file);
        }
    }
    source.named_splits = some && without.is_empty();
    if some && options.split.is_none() {
        for file in without {
            source.log.add(Change::NoSplit, None, file.display().to_string());
        }
    }
}

/// Takes the part of the images that `--val` asks for out of the only split.
///
/// The images with the smallest hashes of seed and name are taken: their order does not matter. Of a set that grows, others
/// are.
pub(super) fn take_val(source: &mut Source, options: &Options) -> Result<(), ConvertError> {
    let Some(part) = options.val else { return Ok(()) };
    let [split] = &mut source.splits[..] else {
        let names: Vec<&str> = source.splits.iter().map(|s| s.name.as_str()).collect();
        let message =
            format!("--val is for a source with one split; this one has {}", names.join(", "));
        return Err(ConvertError::Usage { message });
    };
    if split.name == VAL {
        let message = format!("--val takes images from a split that is not called {VAL} itself");
        return Err(ConvertError::Usage { message });
    }
    let wanted = (split.images.len() as f64 * part).round() as usize;
    let mut order: Vec<(Vec<u8>, usize)> = split
        .images
        .iter()
        .enumerate()
        .map(|(i, image)| {
            let text = format!("{} {}", options.seed, image.name);
            (Sha256::digest(text.as_bytes()).to_vec(), i)
        })
        .collect();
    order.sort();
    let taken: HashSet<usize> = order.into_iter().take(wanted).map(|(_, i)| i).collect();
    let mut val = Split {
        name: VAL.to_owned(),
        categories: split.categories.clone(),
        head: split.head.clone(),
        ..Split::default()
    };
    let mut kept = Vec::new();
    for (i, image) in std::mem::take(&mut split.images).into_iter().enumerate() {
        if taken.contains(&i) { val.images.push(image) } else { kept.push(image) }
    }
    split.images = kept;
    if split.images.is_empty() || val.images.is_empty() {
        let message = format!("--val {part} leaves one of the two splits without images");
        return Err(ConvertError::Usage { message });
    }
    source.splits.push(val);
    Ok(())
}

/// Gives a number to every image and object that has none: over all splits where the source has no
/// numbers at all, else after the largest of the split.
pub(super) fn number(source: &mut Source, format: Format) {
    let (mut image_id, mut object_id) = (0, 0);
    for split in &mut source.splits {
        if format == Format::Coco {
            image_id = split.images.iter().filter_map(|i| i.id).max().unwrap_or(0);
            let objects = split.images.iter().flat_map(|i| &i.objects);
            object_id = objects.filter_map(|o| o.id).max().unwrap_or(0);
        }
        for image in &mut split.images {
            image.id = image.id.or_else(|| Some(next(&mut image_id)));
            for object in &mut image.objects {
                object.id = object.id.or_else(|| Some(next(&mut object_id)));
            }
        }
    }
}

fn next(id: &mut i64) -> i64 {
    // At the end of the numbers ids repeat, which `detect check` finds.
    *id = id.saturating_add(1);
    *id
}

/// Where everything goes: images keep their paths below the deepest folder that holds them all.
pub(super) fn place(source: &mut Source, files: &Files) -> Result<(), ConvertError> {
    let relative = |file: &Path| file.strip_prefix(&files.root).unwrap_or(file).to_owned();
    let mut common: Option<PathBuf> = None;
    for image in source.splits.iter().flat_map(|split| &split.images) {
        let path = relative(&image.file);
        let folder = path.parent().unwrap_or(Path::new(""));
        common = Some(match common {
            None => folder.to_owned(),
            Some(before) => {
                let both = before.components().zip(folder.components());
                both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
            }
        });
    }
    let common = common.unwrap_or_default();
    let mut names = HashSet::new();
    for split in &mut source.splits {
        if let Some(problem) = unsafe_split(&split.name) {
            let problem = format!("the split '{}' {problem}", split.name);
            return Err(ConvertError::bad(&files.root, None, problem));
        }
        if !names.insert(split.name.clone()) {
            let problem = format!("two splits are called '{}'", split.name);
            return Err(ConvertError::bad(&files.root, None, problem));
        }
        split.annotations_file = Path::new("annotations").join(format!("{}.json", split.name));
        split.image_folder = PathBuf::from("images");
        let (log, name) = (&mut source.log, split.name.clone());
        split.images.retain_mut(|image| {
            let path = relative(&image.file);
            let new = path.strip_prefix(&common).unwrap_or(&path);
            match new.to_str().map(|text| (text, unsafe_file_name(text))) {
                Some((text, None)) => {
                    text.clone_into(&mut image.name);
                    true
                }
                other => {
                    let problem = other.and_then(|(_, problem)| problem);
                    let problem = problem.unwrap_or("is not in UTF-8");
                    let text = format!("{} {problem}", shown(&path));
                    log.add(Change::BadFileName, Some(&name), text);
                    false
                }
            }
        });
    }
    Ok(())
}

/// Why a split can't have this name.
fn unsafe_split(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Some("has a name that is no file name");
    }
    if layout::is_reserved(name) {
        return Some(
            "has the name of a split of COCO that is looked for in other files, so that nothing could open it: \
             choose another name",
        );
    }
    let taken =
        ["instances_", "captions_", "person_keypoints_", "image_info_", "stuff_", "panoptic_"];
    taken.iter().any(|t| name.starts_with(t)).then_some("has a name that begins as COCO's files do")
}

/// Names of categories as they are met; their ids are given by order of the names at last.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, i64>);

impl Names {
    /// A number for a name, until [`Self::sort_into`].
    pub(super) fn id(&mut self, name: &str) -> i64 {
        let next = self.0.len() as i64;
        *self.0.entry(name.to_owned()).or_insert(next)
    }

    /// Gives every split all categories, with ids from 1 in the order of their names, and every object
    /// its id. VOC's own order is that, too.
    pub(super) fn sort_into(self, source: &mut Source) {
        let mut names: Vec<(String, i64)> = self.0.into_iter().collect();
        names.sort();
        let new: HashMap<i64, i64> = (1..).zip(&names).map(|(new, (_, old))| (*old, new)).collect();
        for split in &mut source.splits {
            split.categories = (1..)
                .zip(&names)
                .map(|(id, (name, _))| Category { id, name: name.clone(), rest: Map::new() })
                .collect();
            for object in split.images.iter_mut().flat_map(|image| &mut image.objects) {
                object.category_id = new[&object.category_id];
            }
        }
    }
}

/// Notes categories that only their ids tell apart: nobody who reads a table of scores can.
pub(super) fn note_shared_names(source: &mut Source) {
    let log = &mut source.log;
    for split in &source.splits {
        let mut ids: HashMap<&str, i64> = HashMap::new();
        for category in &split.categories {
            let first = *ids.entry(&category.name).or_insert(category.id);
            if first != category.id {
                let text = format!("'{}' is category {first} and {}", category.name, category.id);
                log.add(Change::SharedName, Some(&split.name), text);
            }
        }
    }
}

/// A split without images is none: it would be refused wherever it is used.
pub(super) fn leave_out_empty(source: &mut Source) {
    let log = &mut source.log;
    source.splits.retain(|split| {
        if split.images.is_empty() {
            let text = format!("{}: none of its images can be used", split.name);
            log.add(Change::SplitLeftOut, None, text);
        }
        !split.images.is_empty()
    });
}

/// The list of minival names only images that are still there: with others it is refused.
pub(super) fn keep_listed(source: &mut Source) {
    let Some(val) = source.splits.iter().find(|split| split.name == "val2014") else { return };
    let ids: HashSet<i64> = val.images.iter().filter_map(|image| image.id).collect();
    for (_, list) in source.further.iter_mut().filter(|(name, _)| name == Path::new(MINIVAL_IDS)) {
        let text = String::from_utf8_lossy(list);
        let there = |line: &&str| line.trim().parse().is_ok_and(|id| ids.contains(&id));
        *list =
            text.lines().filter(there).fold(String::new(), |all, line| all + line + "\n").into();
    }
}
