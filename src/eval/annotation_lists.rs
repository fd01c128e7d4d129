//! The three lists of an annotations file, entry by entry.

use std::collections::HashMap;

use super::fields::{Box4, not_an_object, number};
use super::id::{Id, Numbering, RawId};
use super::json::{Scan, Scanner, Value};
use super::masks::Segmentation;
use super::pieces::Collect;
use super::read::{Annotation, Category};
use super::section::{HasList, List};
use crate::geometry::Size;

/// Ids of images, and height and width where they can be those of one.
#[derive(Default)]
pub(super) struct Images(pub(super) List<(Id, Option<Size>)>);

impl HasList for Images {
    fn outcome(&self) -> (usize, Option<&(usize, String)>) {
        self.0.outcome()
    }
}

impl Collect for Images {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
        if let Some(problem) = not_an_object(scanner)? {
            self.0.push(Err(problem));
            return Ok(());
        }
        let mut id = RawId::Missing;
        let (mut height, mut width) = (None, None);
        scanner.object(|s, key| {
            match key {
                b"id" => id = RawId::read(s)?,
                b"height" => height = pixels(&s.value()?),
                b"width" => width = pixels(&s.value()?),
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })?;
        let size = height.zip(width).map(|(height, width)| Size::new(height, width));
        self.0.push(id.problem("id").map_or_else(|| Ok((id.into_id(), size)), Err));
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.count()
    }

    fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }
}

/// A side of an image.
fn pixels(value: &Value) -> Option<usize> {
    match *value {
        Value::Int(side) => usize::try_from(side).ok(),
        // As some write them.
        Value::Float(side) if (0. ..1e15).contains(&side) && side.fract() == 0. => {
            Some(side as usize)
        }
        _ => None,
    }
}

#[derive(Default)]
pub(super) struct Categories(pub(super) List<Category>);

impl HasList for Categories {
    fn outcome(&self) -> (usize, Option<&(usize, String)>) {
        self.0.outcome()
    }
}

impl Collect for Categories {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
        if let Some(problem) = not_an_object(scanner)? {
            self.0.push(Err(problem));
            return Ok(());
        }
        let mut id = RawId::Missing;
        let mut name = None;
        scanner.object(|s, key| {
            match key {
                b"id" => id = RawId::read(s)?,
                b"name" if s.at_text() => name = Some(s.text()?.into_owned()),
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })?;
        if let Some(problem) = id.problem("id") {
            self.0.push(Err(problem));
            return Ok(());
        }
        let id = id.into_id();
        let name = name.unwrap_or_else(|| match &id {
            Id::Text(id) => id.clone(),
            id => id.to_string(),
        });
        self.0.push(Ok(Category { id, name }));
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.count()
    }

    fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }
}

/// A number that a repair fills in where it is missing.
#[inline]
fn fillable(key: &str, value: Option<Value>) -> Result<f64, String> {
    let missing = matches!(value, None | Some(Value::Null));
    let repair = "`detect check DIR --fix OUT` makes a copy of the set with it";
    number(key, value).map_err(|p| if missing { format!("{p}; {repair}") } else { p })
}

/// Annotations, with their masks or with their boxes.
#[derive(Default)]
pub(super) struct Annotations<const MASKS: bool> {
    pub(super) list: List<Annotation>,
    /// One an annotation, where they are read with masks.
    pub(super) masks: Vec<Result<Segmentation, String>>,
    pub(super) images: Numbering,
    pub(super) categories: Numbering,
    pub(super) odd_ids: HashMap<u32, Id>,
    pub(super) problems: HashMap<u32, String>,
}

impl<const MASKS: bool> HasList for Annotations<MASKS> {
    fn outcome(&self) -> (usize, Option<&(usize, String)>) {
        self.list.outcome()
    }
}

struct RawAnnotation {
    id: RawId,
    image: RawId,
    category: RawId,
    area: Option<Value>,
    iscrowd: Option<Value>,
    bbox: Box4,
    mask: Option<Result<Segmentation, String>>,
}

impl<const MASKS: bool> Collect for Annotations<MASKS> {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
        if let Some(problem) = not_an_object(scanner)? {
            self.list.push(Err(problem));
            return Ok(());
        }
        let mut raw = RawAnnotation {
            id: RawId::Missing,
            image: RawId::Missing,
            category: RawId::Missing,
            area: None,
            iscrowd: None,
            bbox: Box4::Missing,
            mask: None,
        };
        scanner.object(|s, key| {
            match key {
                b"id" => raw.id = RawId::read(s)?,
                b"image_id" => raw.image = RawId::read(s)?,
                b"category_id" => raw.category = RawId::read(s)?,
                b"area" => raw.area = Some(s.value()?),
                b"iscrowd" => raw.iscrowd = Some(s.value()?),
                b"bbox" => raw.bbox = Box4::read(s)?,
                b"segmentation" if MASKS => raw.mask = Some(Segmentation::read(s)?),
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })?;
        self.push(raw);
        Ok(())
    }

    fn count(&self) -> usize {
        self.list.count()
    }

    fn truncate(&mut self, count: usize) {
        self.list.truncate(count);
        self.masks.truncate(self.list.entries.len());
    }
}

impl<const MASKS: bool> Annotations<MASKS> {
    fn push(&mut self, raw: RawAnnotation) {
        let problem = raw.id.problem("id").or_else(|| raw.image.problem("image_id"));
        if let Some(problem) = problem.or_else(|| raw.category.problem("category_id")) {
            self.list.push(Err(problem));
            return;
        }
        let mut problem = None;
        let mut note = |result: Result<f64, String>| {
            result.unwrap_or_else(|p| {
                problem.get_or_insert(p);
                0.
            })
        };
        let iscrowd = note(fillable("iscrowd", raw.iscrowd));
        if !(iscrowd > -1. && iscrowd < 256.) {
            note(Err(format!("`iscrowd` is {iscrowd}, not 0 or 1")));
        }
        // An area is looked at only where the box is not ignored anyway.
        let area = if iscrowd == 0. { note(fillable("area", raw.area)) } else { 0. };
        let bbox = if MASKS {
            let missing = || Err("is missing".to_owned());
            self.masks.push(raw.mask.unwrap_or_else(missing));
            raw.bbox.first_four().unwrap_or([0.; 4])
        } else {
            let bbox = raw.bbox.first_four().unwrap_or_else(|p| {
                problem.get_or_insert(p);
                [0.; 4]
            });
            problem = problem.or_else(|| raw.bbox.too_long());
            bbox
        };
        let (id, odd_id) = match raw.id {
            RawId::Int(id) => (id, None),
            other => (1, Some(other.into_id())),
        };
        let place = self.list.push(Ok(Annotation {
            bbox,
            area,
            id,
            image: self.images.raw(raw.image),
            category: self.categories.raw(raw.category),
            ignore: iscrowd != 0.,
            crowd: iscrowd.trunc() != 0.,
        }));
        self.odd_ids.extend(odd_id.map(|id| (place, id)));
        self.problems.extend(problem.map(|p| (place, p)));
    }
}
