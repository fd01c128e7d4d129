//! One annotation file in COCO's form, entry by entry: what can't be read does not end it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::ConvertError;
use super::files::shown;
use super::log::{Change, Log};
use super::model::{Category, Declared, Image, Object, Outline, Place, Split};
use crate::data::layout;
use crate::data::raw::{LooseId, flag, missing, no_area, numbers, plain_json};

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
    id: LooseId,
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
    image_id: LooseId,
    category_id: LooseId,
    #[serde(default, deserialize_with = "numbers")]
    bbox: Option<[f64; 4]>,
    area: Option<f64>,
    #[serde(default, deserialize_with = "flag")]
    iscrowd: Option<bool>,
    segmentation: Option<Box<RawValue>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct RawCategory {
    id: LooseId,
    #[serde(default)]
    name: Value,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Where an image of this name lies, if it may be used.
pub(super) type Find<'a> = &'a dyn Fn(&str) -> Result<PathBuf, Lost>;

/// Why an image is left out.
pub(super) enum Lost {
    Missing,
    BadName(&'static str),
    /// A name that means several files ends all.
    Fatal(ConvertError),
}

/// One annotation file.
pub(super) fn read_file(
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
    let listed = lists.annotations.unwrap_or_default();
    reader.objects(&listed, &places, &mut split, path);
    // Left as they are, the images would be background, whatever is in them.
    let unread =
        [Change::BrokenEntry, Change::UnknownImage, Change::UnknownCategory, Change::NoBox];
    if !listed.is_empty()
        && !split.images.is_empty()
        && split.images.iter().all(|image| image.objects.is_empty())
        && let Some(why) = log.first_of(&unread, name)
    {
        let problem = format!("none of its {} annotations can be used: {why}", listed.len());
        return Err(ConvertError::bad(path, None, problem));
    }
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

    /// The number that an id stands for; `what` is the entry and the key.
    fn id(&mut self, id: &LooseId, what: std::fmt::Arguments<'_>) -> i64 {
        if let Some(written) = &id.written {
            self.add(Change::WholeId, format!("{what} {written}"));
        }
        id.id
    }

    fn categories(&mut self, list: &[&RawValue], split: &mut Split) {
        for (i, raw) in list.iter().enumerate() {
            let Some(raw) = self.entry::<RawCategory>("categories", i, raw) else { continue };
            let id = self.id(&raw.id, format_args!("categories[{i}]: id"));
            let name = match raw.name {
                Value::String(name) if !name.trim().is_empty() => name,
                other => {
                    let name = format!("category {id}");
                    self.add(Change::NamedCategory, format!("{name}, for {other}"));
                    name
                }
            };
            if let Some(known) = split.categories.iter().find(|c| c.id == id) {
                if known.name == name {
                    self.add(Change::RepeatedEntry, format!("category {id} '{name}'"));
                    continue;
                }
                let text = format!("{id}: '{}' and '{name}'", known.name);
                self.add(Change::DuplicateCategoryId, text);
            }
            split.categories.push(Category { id, name, rest: raw.rest });
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
            let id = self.id(&raw.id, format_args!("images[{i}]: id"));
            let known = places.get(&id).copied();
            if let Some(Some(at)) = known {
                let known: &Image = &split.images[at];
                if known.name == raw.file_name {
                    self.add(Change::RepeatedEntry, format!("image {id} {}", raw.file_name));
                    continue;
                }
                let text = format!("{id}: {} and {}", known.name, raw.file_name);
                self.add(Change::DuplicateImageId, text);
            }
            let file = match find(&raw.file_name) {
                Ok(file) => file,
                Err(Lost::Fatal(error)) => return Err(error),
                Err(Lost::Missing) => {
                    self.add(Change::MissingImage, raw.file_name);
                    places.entry(id).or_insert(None);
                    continue;
                }
                Err(Lost::BadName(problem)) => {
                    let text = format!("image {id}: '{}' {problem}", raw.file_name);
                    self.add(Change::BadFileName, text);
                    places.entry(id).or_insert(None);
                    continue;
                }
            };
            if !matches!(known, Some(Some(_))) {
                places.insert(id, Some(split.images.len()));
            }
            split.images.push(Image {
                id: Some(id),
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
            let image_id = self.id(&raw.image_id, format_args!("annotations[{i}]: image_id"));
            let category_id =
                self.id(&raw.category_id, format_args!("annotations[{i}]: category_id"));
            let at = match places.get(&image_id) {
                Some(Some(at)) => *at,
                // Told with its image.
                Some(None) => continue,
                None => {
                    self.add(Change::UnknownImage, named(format!("image {image_id}")));
                    continue;
                }
            };
            if !categories.contains(&category_id) {
                let text = named(format!("category {category_id}"));
                self.add(Change::UnknownCategory, text);
                continue;
            }
            let Some(bbox) = raw.bbox else {
                let text = named(format!("in {}", split.images[at].name));
                self.add(Change::NoBox, text);
                continue;
            };
            let none = no_area(raw.area, bbox).map(|area| format!("area {area}"));
            if let Some(what) = none.or_else(|| Some(missing(raw.area, raw.iscrowd)?.to_owned())) {
                self.add(Change::FilledIn, named(what));
            }
            let mut object = Object::of_box(category_id, bbox, Place::new(&file, 0));
            object.area = raw.area;
            object.crowd = raw.iscrowd.unwrap_or(false);
            object.outline = raw.segmentation.map_or(Outline::None, Outline::Json);
            object.rest = raw.rest;
            object.id =
                LooseId::of(&raw.id).map(|id| self.id(&id, format_args!("annotations[{i}]: id")));
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
