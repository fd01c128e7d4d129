//! COCO's form, in any layout of folders: which files are of which split, and where their images lie.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Options;
use super::error::ConvertError;
use super::files::{Files, Found, shown, split_of};
use super::json_entries::{Lost, read_file};
use super::log::Change;
use super::model::Source;
use super::parts::split_name;
use crate::data::coco::DataError;
use crate::data::layout::{self, MINIVAL, MINIVAL_IDS, TRAINVAL_MINUS_MINIVAL};
use crate::data::raw::{from_json, unsafe_file_name};
use crate::page::printable;

/// What a file lacks to be in COCO's form, if anything.
pub(super) fn lacks(files: &Files, path: &Path) -> Result<Option<String>, ConvertError> {
    #[derive(Deserialize)]
    struct Form {
        #[expect(dead_code, reason = "it is there or not")]
        images: Vec<IgnoredAny>,
        #[expect(dead_code, reason = "it is there or not")]
        categories: Vec<IgnoredAny>,
    }
    let Err(error) = from_json::<Form>(files.text(path)?.as_bytes()) else { return Ok(None) };
    if error.is_data() {
        return Ok(Some(format!("not in COCO's form: {error}")));
    }
    Err(ConvertError::bad(files.path(path), error.line(), format!("not valid JSON: {error}")))
}

/// Reads a data set in either form of a folder that the program takes, for its repair.
pub(super) fn read_layout(root: &Path) -> Result<Source, ConvertError> {
    if !root.is_dir() {
        let advice = layout::advice(root);
        return Err(DataError::NoFolder { path: root.to_owned(), advice }.into());
    }
    let mut source = Source { named_splits: true, declares_sizes: true, ..Source::default() };
    let names = layout::splits(root).into_iter();
    for name in names.filter(|name| name != MINIVAL && name != TRAINVAL_MINUS_MINIVAL) {
        let layout = layout::layout(root, &name);
        let find = |file_name: &str| match unsafe_file_name(file_name) {
            Some(problem) => match slashed(file_name, &layout.images) {
                Some(name) => Ok(layout.images.join(name)),
                None => Err(Lost::BadName(problem)),
            },
            None => Ok(layout.images.join(file_name)),
        };
        let mut split = read_file(&layout.annotations, &name, &find, &mut source.log)?;
        let inside = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
        split.annotations_file = inside(&layout.annotations);
        split.image_folder = inside(&layout.images);
        for image in &mut split.images {
            if let Some(new) = slashed(&image.name, &layout.images) {
                let text = format!("{}: {new}", image.name);
                source.log.add(Change::Slashed, Some(&name), text);
                image.name = new;
            }
        }
        source.splits.push(split);
    }
    if source.splits.is_empty() {
        let advice = layout::advice(root);
        return Err(DataError::NoAnnotations { root: root.to_owned(), advice }.into());
    }
    let minival = root.join(MINIVAL_IDS);
    if minival.is_file() {
        let list = std::fs::read(&minival)
            .map_err(|source| ConvertError::Read { path: minival, source })?;
        source.further.push((PathBuf::from(MINIVAL_IDS), list));
    }
    Ok(source)
}

/// A name with `/` for the backslashes of Windows, where an image in `folder` is called so.
fn slashed(name: &str, folder: &Path) -> Option<String> {
    let new = name.contains('\\').then(|| name.replace('\\', "/"))?;
    (unsafe_file_name(&new).is_none() && folder.join(&new).is_file()).then_some(new)
}

/// Reads every annotation file in COCO's form among the files.
pub(super) fn read(files: &Files, options: &Options) -> Result<Source, ConvertError> {
    let mut source = Source { declares_sizes: true, ..Source::default() };
    let mut lists = Vec::new();
    for path in files.with_extension("json") {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        // COCO's files for other tasks name the same images.
        let other = ["captions_", "person_keypoints_", "stuff_", "panoptic_"];
        if files.named.is_none() && other.iter().any(|task| name.starts_with(task)) {
            source.log.skipped(path, "of another task");
        } else if files.named.is_some() {
            lists.push(path);
        } else {
            match lacks(files, path)? {
                None => lists.push(path),
                Some(what) => source.log.skipped(path, &what),
            }
        }
    }
    source.named_splits = lists.len() > 1 || lists.iter().any(|path| named_split(path).is_some());
    let mut seen = HashMap::new();
    for path in lists {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let found = named_split(path).or_else(|| source.named_splits.then_some(stem));
        let name = split_name(found.as_deref(), &source, options)?;
        if let Some(other) = seen.insert(name.clone(), path) {
            let problem = format!(
                "it and {} are both of the split '{name}': convert them one by one",
                shown(other)
            );
            return Err(ConvertError::bad(files.path(path), None, problem));
        }
        let near = path.parent().unwrap_or(Path::new(""));
        let find = |file_name: &str| match files.image(file_name, near, Some(&name)) {
            Found::One(image) => Ok(files.path(image)),
            Found::None if file_name.contains("..") => {
                Err(Lost::BadName("has '..'; it must stay in the folder"))
            }
            Found::None => Err(Lost::Missing),
            Found::Several(a, b) => {
                let problem = format!(
                    "file_name '{}' could be {} and {}",
                    printable(file_name),
                    shown(a),
                    shown(b)
                );
                Err(Lost::Fatal(ConvertError::bad(files.path(path), None, problem)))
            }
        };
        source.splits.push(read_file(&files.path(path), &name, &find, &mut source.log)?);
    }
    Ok(source)
}

/// The split that a file is of, by its name or else that of its folder.
fn named_split(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let folder = path.parent().and_then(Path::file_name).and_then(|f| f.to_str());
    let known = stem.strip_prefix("instances_").map(str::to_owned);
    known.or_else(|| split_of(stem)).or_else(|| split_of(folder?))
}
