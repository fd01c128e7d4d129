//! What every reader gives: splits of images with objects, as they stand in the source.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::log::Log;
use crate::geometry::Size;

/// Beyond this a number is in pixels, not a fraction that leaves the image.
pub(super) const FRACTION: RangeInclusive<f64> = -1. ..=2.;

/// A data set that was read, before it meets its image files.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) splits: Vec<Split>,
    pub(super) log: Log,
    /// The number of the first pixel that corners were read with, where the form leaves it open.
    pub(super) origin: Option<u8>,
    /// Whether the source names its splits.
    pub(super) named_splits: bool,
    /// Whether an image without a declared size is worth a word.
    pub(super) declares_sizes: bool,
    /// Further files of the new folder: path in it, content.
    pub(super) further: Vec<(PathBuf, Vec<u8>)>,
}

#[derive(Debug, Default)]
pub(super) struct Split {
    pub(super) name: String,
    /// In the new folder.
    pub(super) annotations_file: PathBuf,
    /// In the new folder.
    pub(super) image_folder: PathBuf,
    pub(super) categories: Vec<Category>,
    pub(super) images: Vec<Image>,
    /// What else stands in the file, such as licences; and whether there is truth at all.
    pub(super) head: Map<String, Value>,
    pub(super) without_truth: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Category {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) rest: Map<String, Value>,
}

/// The size that a source declares for an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Declared {
    None,
    Size(Size),
    /// Width and height that are none.
    Bad(f64, f64),
}

impl Declared {
    /// Of numbers as they stand in a file; 0 x 0 is how many say that they do not know.
    pub(super) fn of(width: Option<f64>, height: Option<f64>) -> Self {
        let (Some(width), Some(height)) = (width, height) else { return Self::None };
        let ok = |n: f64| n.fract() == 0. && (1. ..=1e9).contains(&n);
        if ok(width) && ok(height) {
            Self::Size(Size::new(height as usize, width as usize))
        } else {
            Self::Bad(width, height)
        }
    }
}

#[derive(Debug)]
pub(super) struct Image {
    /// `None` until it is numbered, where the source has no number of its own.
    pub(super) id: Option<i64>,
    /// Where it lies.
    pub(super) file: PathBuf,
    /// Its name in the annotation file: the source's, then the new one.
    pub(super) name: String,
    pub(super) declared: Declared,
    pub(super) objects: Vec<Object>,
    pub(super) rest: Map<String, Value>,
}

/// Where an object stands in the source. Many share a file.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    pub(super) line: u32,
}

impl Place {
    pub(super) fn new(file: &Arc<str>, line: usize) -> Self {
        Self { file: Arc::clone(file), line: u32::try_from(line).unwrap_or(u32::MAX) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.file)
        } else {
            write!(f, "{}, line {}", self.file, self.line)
        }
    }
}

/// The mask of an object.
#[derive(Debug)]
pub(super) enum Outline {
    None,
    /// Polygons in the unit of the box, x, y, x, y, ...
    Polygons(Vec<Vec<f64>>),
    /// As it stands in COCO's form.
    Json(Box<RawValue>),
}

#[derive(Debug)]
pub(super) struct Object {
    /// `None` until it is numbered, where the source has no number of its own.
    pub(super) id: Option<i64>,
    pub(super) category_id: i64,
    /// `[x, y, width, height]`; may be nonsense.
    pub(super) bbox: [f64; 4],
    /// Whether the box is in fractions of the image, not pixels.
    pub(super) fractions: bool,
    pub(super) area: Option<f64>,
    pub(super) crowd: bool,
    pub(super) outline: Outline,
    pub(super) rest: Map<String, Value>,
    pub(super) place: Place,
}

impl Object {
    /// An object by the corners of its box.
    pub(super) fn of_corners(category_id: i64, [x1, y1, x2, y2]: [f64; 4], place: Place) -> Self {
        Self::of_box(category_id, [x1, y1, x2 - x1, y2 - y1], place)
    }

    /// An object by `[x, y, width, height]`.
    pub(super) fn of_box(category_id: i64, bbox: [f64; 4], place: Place) -> Self {
        Self {
            id: None,
            category_id,
            bbox,
            fractions: false,
            area: None,
            crowd: false,
            outline: Outline::None,
            rest: Map::new(),
            place,
        }
    }
    /// What it is called, in the image of that name.
    pub(super) fn named(&self, image: &str) -> String {
        match self.id {
            Some(id) => format!("{image}: annotation {id}"),
            None => format!("{} ({image})", self.place),
        }
    }

    /// Whether it says the same as `other`, wherever they stand and whatever their numbers.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        let outlines = match (&self.outline, &other.outline) {
            (Outline::None, Outline::None) => true,
            (Outline::Polygons(a), Outline::Polygons(b)) => a == b,
            (Outline::Json(a), Outline::Json(b)) => a.get() == b.get(),
            _ => false,
        };
        (self.category_id, self.bbox, self.fractions, self.crowd, self.area)
            == (other.category_id, other.bbox, other.fractions, other.crowd, other.area)
            && outlines
            && self.rest == other.rest
    }
}
