//! COCO's form, in any layout of folders, entry by entry: what can't be read does not end it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Options;
use super::error::ConvertError;
use super::files::{Files, Found, shown, split_of};
use super::log::{Change, Log};
use super::model::{Category, Declared, Image, Object, Outline, Place, Source, Split};
use super::parts::split_name;
use crate::data::coco::DataError;
use crate::data::layout::{self, MINIVAL, MINIVAL_IDS, TRAINVAL_MINUS_MINIVAL};
use crate::data::raw::{flag, from_json, numbers, plain_json, unsafe_file_name};
use crate::page::printable;

/// The lists of an annotation file, each entry unread.
#[derive(Deserialize)]
#[serde(expecting = "an object with the lists images, annotations and categories")]
struct Lists<'a> {
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
    #[serde(borrow)]
    annotations: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    categories: Vec<&'a RawValue>,
    #[serde(flatten)]
    head: Map<String, Value>,
}

#[derive(Deserialize)]
struct RawImage {
    id: i64,
    file_name: String,
    width: Option<f64>,
    height: Option<f64>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct RawObject {
    #[serde(default)]
    id: Value,
    image_id: i64,
    category_id: i64,
    #[serde(default, deserialize_with = "numbers")]
    bbox: Option<[f64; 4]>,
    area: Option<f64>,
    #[serde(default, deserialize_with = "flag")]
    iscrowd: bool,
    segmentation: Option<Box<RawValue>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct RawCategory {
    id: i64,
    #[serde(default)]
    name: Value,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

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

/// Where an image of this name lies, if it may be used.
type Find<'a> = &'a dyn Fn(&str) -> Result<PathBuf, Lost>;

/// Why an image is left out.
enum Lost {
    Missing,
    BadName(&'static str),
    /// A name that means several files ends all.
    Fatal(ConvertError),
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

/// One annotation file.
fn read_file(
    path: &Path,
    name: &str,
    find: Find<'_>,
    log: &mut Log,
) -> Result<Split, ConvertError> {
    let bytes = std::fs::read(path)
        .map_err(|source| ConvertError::Read { path: path.to_owned(), source })?;
    let bytes = plain_json(bytes);
    let lists: Lists<'_> = serde_json::from_slice(&bytes).map_err(|e| {
        ConvertError::bad(path, e.line(), format!("no annotation file in COCO's form: {e}"))
    })?;
    let mut split = Split {
        name: name.to_owned(),
        head: lists.head,
        without_truth: lists.annotations.is_none(),
        ..Split::default()
    };
    // Of a split without images nothing is made. Truth and categories can't be made up.
    for (what, lacks) in [
        ("categories", lists.categories.is_empty()),
        ("key 'annotations'", split.without_truth && !layout::is_test_dev(name)),
    ] {
        if lacks && !lists.images.is_empty() {
            log.add(Change::EmptyList, Some(name), format!("{} has no {what}", shown(path)));
        }
    }
    let mut reader = Reader { name, log };
    reader.categories(&lists.categories, &mut split);
    let places = reader.images(&lists.images, find, &mut split)?;
    reader.objects(&lists.annotations.unwrap_or_default(), &places, &mut split, path);
    Ok(split)
}

struct Reader<'a> {
    name: &'a str,
    log: &'a mut Log,
}

/// Image id -> place in `Split::images`; `None` where the image was left out.
type Places = HashMap<i64, Option<usize>>;

impl Reader<'_> {
    fn add(&mut self, change: Change, example: impl Into<String>) {
        self.log.add(change, Some(self.name), example);
    }

    fn entry<T: DeserializeOwned>(&mut self, list: &str, i: usize, raw: &RawValue) -> Option<T> {
        match serde_json::from_str(raw.get()) {
            Ok(entry) => Some(entry),
            Err(error) => {
                // Its place in the file would be that in the entry alone.
                let reason = error.to_string();
                let reason = reason.split(" at line ").next().unwrap_or_default();
                self.add(Change::BrokenEntry, format!("{list}[{i}]: {reason}"));
                None
            }
        }
    }

    fn categories(&mut self, list: &[&RawValue], split: &mut Split) {
        for (i, raw) in list.iter().enumerate() {
            let Some(raw) = self.entry::<RawCategory>("categories", i, raw) else { continue };
            let name = match raw.name {
                Value::String(name) => name,
                other => {
                    let name = format!("category {}", raw.id);
                    self.add(Change::NamedCategory, format!("{name}, for {other}"));
                    name
                }
            };
            if let Some(known) = split.categories.iter().find(|c| c.id == raw.id) {
                if known.name == name {
                    self.add(Change::RepeatedEntry, format!("category {} '{name}'", raw.id));
                    continue;
                }
                let text = format!("{}: '{}' and '{name}'", raw.id, known.name);
                self.add(Change::DuplicateCategoryId, text);
            }
            split.categories.push(Category { id: raw.id, name, rest: raw.rest });
        }
    }

    fn images(
        &mut self,
        list: &[&RawValue],
        find: Find<'_>,
        split: &mut Split,
    ) -> Result<Places, ConvertError> {
        let mut places = Places::new();
        for (i, raw) in list.iter().enumerate() {
            let Some(raw) = self.entry::<RawImage>("images", i, raw) else { continue };
            let known = places.get(&raw.id).copied();
            if let Some(Some(at)) = known {
                let known: &Image = &split.images[at];
                if known.name == raw.file_name {
                    self.add(Change::RepeatedEntry, format!("image {} {}", raw.id, raw.file_name));
                    continue;
                }
                let text = format!("{}: {} and {}", raw.id, known.name, raw.file_name);
                self.add(Change::DuplicateImageId, text);
            }
            let file = match find(&raw.file_name) {
                Ok(file) => file,
                Err(Lost::Fatal(error)) => return Err(error),
                Err(Lost::Missing) => {
                    self.add(Change::MissingImage, raw.file_name);
                    places.entry(raw.id).or_insert(None);
                    continue;
                }
                Err(Lost::BadName(problem)) => {
                    let text = format!("image {}: '{}' {problem}", raw.id, raw.file_name);
                    self.add(Change::BadFileName, text);
                    places.entry(raw.id).or_insert(None);
                    continue;
                }
            };
            if !matches!(known, Some(Some(_))) {
                places.insert(raw.id, Some(split.images.len()));
            }
            split.images.push(Image {
                id: Some(raw.id),
                file,
                name: raw.file_name,
                declared: Declared::of(raw.width, raw.height),
                objects: Vec::new(),
                rest: raw.rest,
            });
        }
        Ok(places)
    }

    fn objects(&mut self, list: &[&RawValue], places: &Places, split: &mut Split, path: &Path) {
        let file: Arc<str> = Arc::from(shown(path).as_str());
        let categories: HashSet<i64> = split.categories.iter().map(|c| c.id).collect();
        // Where the first annotation with an id is.
        let mut first: HashMap<i64, (usize, usize)> = HashMap::new();
        for (i, raw) in list.iter().enumerate() {
            let Some(raw) = self.entry::<RawObject>("annotations", i, raw) else { continue };
            let named = |what: String| match &raw.id {
                Value::Null => format!("annotations[{i}]: {what}"),
                id => format!("annotation {id}: {what}"),
            };
            let at = match places.get(&raw.image_id) {
                Some(Some(at)) => *at,
                // Told with its image.
                Some(None) => continue,
                None => {
                    self.add(Change::UnknownImage, named(format!("image {}", raw.image_id)));
                    continue;
                }
            };
            if !categories.contains(&raw.category_id) {
                let text = named(format!("category {}", raw.category_id));
                self.add(Change::UnknownCategory, text);
                continue;
            }
            let Some(bbox) = raw.bbox else {
                let text = named(format!("in {}", split.images[at].name));
                self.add(Change::NoBox, text);
                continue;
            };
            let mut object = Object::of_box(raw.category_id, bbox, Place::new(&file, 0));
            object.area = raw.area;
            object.crowd = raw.iscrowd;
            object.outline = raw.segmentation.map_or(Outline::None, Outline::Json);
            object.rest = raw.rest;
            object.id = raw.id.as_i64();
            if let Some(id) = object.id
                && let Some(&(image, place)) = first.get(&id)
            {
                if image == at && object.repeats(&split.images[image].objects[place]) {
                    self.add(Change::RepeatedEntry, format!("annotation {id}"));
                    continue;
                }
                object.id = None;
            }
            match object.id {
                Some(id) => {
                    first.insert(id, (at, split.images[at].objects.len()));
                }
                None if raw.id.is_null() => {}
                None => {
                    let text = format!("annotation {} in {}", raw.id, split.images[at].name);
                    self.add(Change::Renumbered, text);
                }
            }
            split.images[at].objects.push(object);
        }
    }
}
