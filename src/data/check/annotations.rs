//! One annotation file, entry by entry.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::layout::{self, Layout};
use super::super::raw::{
    RawAnnotation, RawCategory, RawImage, missing, no_area, plain_json, unsafe_file_name,
};
use super::{Example, Findings, Kind, Split};
use crate::geometry::Size;

/// An image whose file can be looked at.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) id: i64,
    pub(super) file_name: String,
    pub(super) file: PathBuf,
    pub(super) declared: Option<Size>,
    /// Annotation id and `[x, y, width, height]`.
    pub(super) boxes: Vec<(i64, [f64; 4])>,
}

impl Image {
    pub(super) fn example(&self, detail: String) -> Example {
        Example {
            image_id: Some(self.id),
            file_name: Some(self.file_name.clone()),
            annotation_id: None,
            detail,
        }
    }
}

/// What could be read of a split.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) summary: Split,
    pub(super) categories: BTreeMap<i64, String>,
    pub(super) images: Vec<Image>,
}

/// The lists of an annotation file, each entry unread.
#[derive(Deserialize)]
struct Lists<'a> {
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
    #[serde(borrow)]
    annotations: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    categories: Vec<&'a RawValue>,
}

/// Reads what can be read, and finds what is wrong with it.
pub(super) fn check(split: &str, layout: &Layout, findings: &mut Findings) -> Read {
    let mut read = Read {
        summary: Split {
            name: split.to_owned(),
            annotations_file: layout.annotations.clone(),
            images: 0,
            annotations: 0,
            categories: 0,
        },
        categories: BTreeMap::new(),
        images: Vec::new(),
    };
    if !layout.images.is_dir() {
        let detail = layout.images.display().to_string();
        let example = Example { detail, ..Example::default() };
        findings.add(Kind::MissingImageFolder, split, example);
    }
    let mut unreadable = |detail: String| {
        let detail = format!("{}: {detail}", layout.annotations.display());
        let example = Example { detail, ..Example::default() };
        findings.add(Kind::UnreadableAnnotations, split, example);
    };
    let bytes = match std::fs::read(&layout.annotations) {
        Ok(bytes) => plain_json(bytes),
        Err(error) => {
            unreadable(error.to_string());
            return read;
        }
    };
    let lists = match serde_json::from_slice::<Lists>(&bytes) {
        Ok(lists) => lists,
        Err(error) => {
            unreadable(error.to_string());
            return read;
        }
    };
    // What `Dataset::open` refuses, in its words.
    for (what, lacks) in [
        ("images", lists.images.is_empty()),
        ("categories", lists.categories.is_empty()),
        ("key 'annotations'", lists.annotations.is_none() && !layout::is_test_dev(split)),
    ] {
        if lacks {
            let detail = format!("{} has no {what}", layout.annotations.display());
            findings.add(Kind::EmptyList, split, Example { detail, ..Example::default() });
        }
    }
    // Test-dev has no truth, and says so by having no list.
    if lists.annotations.as_ref().is_some_and(Vec::is_empty) && !lists.images.is_empty() {
        let detail = format!("split '{split}' has no boxes at all");
        findings.add(Kind::SplitWithoutBoxes, split, Example { detail, ..Example::default() });
    }
    let mut entries = Entries { split, findings };
    entries.categories(&lists.categories, &mut read);
    let known = entries.images(&lists.images, layout, &mut read);
    entries.annotations(&lists.annotations.unwrap_or_default(), &known, &mut read);
    read
}

/// Readers of the three lists.
struct Entries<'a> {
    split: &'a str,
    findings: &'a mut Findings,
}

/// The images that the file lists: the place in `Read::images` of those that can be looked at.
type Known = HashMap<i64, Option<usize>>;

impl Entries<'_> {
    fn add(&mut self, kind: Kind, example: Example) {
        self.findings.add(kind, self.split, example);
    }

    /// The entry, or `None` and a finding that says which one is broken.
    fn entry<'a, T: Deserialize<'a>>(
        &mut self,
        list: &str,
        i: usize,
        raw: &'a RawValue,
    ) -> Option<T> {
        match serde_json::from_str(raw.get()) {
            Ok(entry) => Some(entry),
            Err(error) => {
                // Its place in the file would be that in the entry alone.
                let reason = error.to_string();
                let reason = reason.split(" at line ").next().unwrap_or_default();
                let id = id_of(raw).map_or(String::new(), |id| format!(" (id {id})"));
                let detail = format!("{list}[{i}]{id}: {reason}");
                self.add(Kind::BrokenEntry, Example { detail, ..Example::default() });
                None
            }
        }
    }

    fn categories(&mut self, list: &[&RawValue], read: &mut Read) {
        read.summary.categories = list.len();
        for (i, raw) in list.iter().enumerate() {
            let Some(category) = self.entry::<RawCategory>("categories", i, raw) else {
                // Its annotations are not to blame.
                read.categories.extend(id_of(raw).map(|id| (id, String::new())));
                continue;
            };
            if let Some(other) = read.categories.get(&category.id) {
                let detail = format!("{}: '{other}' and '{}'", category.id, category.name);
                self.add(Kind::DuplicateCategoryId, Example { detail, ..Example::default() });
                continue;
            }
            let same = read.categories.iter().find(|(_, name)| **name == category.name);
            if category.name.trim().is_empty() {
                let detail = format!("category {}", category.id);
                self.add(Kind::NoName, Example { detail, ..Example::default() });
            } else if let Some((other, name)) = same {
                let detail = format!("'{name}' is category {other} and {}", category.id);
                self.add(Kind::SharedName, Example { detail, ..Example::default() });
            }
            read.categories.insert(category.id, category.name);
        }
    }

    fn images(&mut self, list: &[&RawValue], layout: &Layout, read: &mut Read) -> Known {
        read.summary.images = list.len();
        let mut known = Known::new();
        for (i, raw) in list.iter().enumerate() {
            let Some(image) = self.entry::<RawImage>("images", i, raw) else {
                if let Some(id) = id_of(raw) {
                    known.entry(id).or_insert(None);
                }
                continue;
            };
            let example = |detail: String| Example {
                image_id: Some(image.id),
                file_name: Some(image.file_name.clone()),
                annotation_id: None,
                detail,
            };
            if known.contains_key(&image.id) {
                self.add(Kind::DuplicateImageId, example(format!("id {}", image.id)));
                continue;
            }
            let declared = image.size().unwrap_or_else(|[width, height]| {
                let detail = format!("{width} x {height}");
                self.add(Kind::BadDeclaredSize, example(detail));
                None
            });
            if let Some(problem) = unsafe_file_name(&image.file_name) {
                let detail = format!("'{}' {problem}", image.file_name);
                let example = Example { image_id: Some(image.id), detail, ..Example::default() };
                self.add(Kind::BadFileName, example);
                known.insert(image.id, None);
                continue;
            }
            known.insert(image.id, Some(read.images.len()));
            read.images.push(Image {
                id: image.id,
                file: layout.images.join(&image.file_name),
                file_name: image.file_name,
                declared,
                boxes: Vec::new(),
            });
        }
        known
    }

    fn annotations(&mut self, list: &[&RawValue], known: &Known, read: &mut Read) {
        read.summary.annotations = list.len();
        let mut ids = HashSet::new();
        let mut annotated = HashSet::new();
        let mut boxes = HashMap::new();
        for (i, raw) in list.iter().enumerate() {
            let Some(annotation) = self.entry::<RawAnnotation>("annotations", i, raw) else {
                annotated.extend(field_of(raw, "image_id"));
                continue;
            };
            annotated.insert(annotation.image_id);
            let place = known.get(&annotation.image_id).copied();
            let file_name = place.flatten().map(|at| read.images[at].file_name.clone());
            let example = |detail: String| Example {
                image_id: Some(annotation.image_id),
                file_name: file_name.clone(),
                annotation_id: Some(annotation.id),
                detail,
            };
            if !ids.insert(annotation.id) {
                self.add(Kind::DuplicateAnnotationId, example(String::new()));
            }
            if place.is_none() {
                self.add(Kind::UnknownImage, example(String::new()));
            }
            if !read.categories.contains_key(&annotation.category_id) {
                let detail = format!("category {}", annotation.category_id);
                self.add(Kind::UnknownCategory, example(detail));
            }
            if let Some(missing) = missing(annotation.area, annotation.iscrowd) {
                self.add(Kind::NoAreaOrCrowd, example(missing.to_owned()));
            }
            if annotation.crowd() {
                self.add(Kind::Crowd, example(String::new()));
            }
            match annotation.checked_box() {
                Err(problem) => {
                    let detail = annotation.bbox.map_or(String::new(), |b| format!("{b:?}, "));
                    self.add(Kind::BadBox, example(format!("{detail}{problem}")));
                }
                Ok(bbox) => {
                    if bbox[2] == 0. || bbox[3] == 0. {
                        self.add(Kind::ZeroAreaBox, example(format!("{bbox:?}")));
                    } else if bbox[2] < 2. || bbox[3] < 2. {
                        self.add(Kind::BoxUnder2Px, example(format!("{bbox:?}")));
                    }
                    if let Some(area) = no_area(annotation.area, bbox) {
                        self.add(Kind::AreaOfNone, example(format!("area {area} of {bbox:?}")));
                    }
                    let key = (annotation.image_id, annotation.category_id, bbox.map(f64::to_bits));
                    if let Some(first) = boxes.insert(key, annotation.id) {
                        let detail = format!("{bbox:?}, as annotation {first}");
                        self.add(Kind::RepeatedBox, example(detail));
                    }
                    if let Some(at) = place.flatten() {
                        read.images[at].boxes.push((annotation.id, bbox));
                    }
                }
            }
        }
        // Where there is no truth at all, that was told, or it is test-dev.
        if !list.is_empty() {
            for image in read.images.iter().filter(|image| !annotated.contains(&image.id)) {
                self.add(Kind::ImageWithoutBoxes, image.example(String::new()));
            }
        }
    }
}

/// The id of an entry that is otherwise broken.
fn id_of(raw: &RawValue) -> Option<i64> {
    field_of(raw, "id")
}

fn field_of(raw: &RawValue, name: &str) -> Option<i64> {
    serde_json::from_str::<serde_json::Value>(raw.get()).ok()?.get(name)?.as_i64()
}
