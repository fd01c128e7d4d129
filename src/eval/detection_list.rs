//! The list of a results file, entry by entry.

use std::collections::HashMap;

use super::fields::{Box4, not_an_object, number};
use super::id::{Numbering, RawId};
use super::json::{Scan, Scanner, Value};
use super::masks::Segmentation;
use super::pieces::Collect;
use super::results::{Detection, Problem};
use super::section::{HasList, List};

/// Detections, with or without their masks.
#[derive(Default)]
pub(super) struct Detections<const MASKS: bool> {
    pub(super) list: List<Detection>,
    /// One a detection, where they are read with their masks.
    pub(super) shapes: Vec<Shape>,
    pub(super) images: Numbering,
    pub(super) categories: Numbering,
    pub(super) problems: HashMap<u32, Problem>,
    /// The keys of the last detection, if it had no others than these four, once each.
    order: Option<[Key; 4]>,
}

/// The keys that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Image,
    Category,
    Bbox,
    Score,
}

/// The shape of a detection as its entry gives it.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) mask: Option<Result<Segmentation, String>>,
    /// There is a `bbox`.
    pub(super) names_bbox: bool,
    /// There is one, and it is no empty list.
    pub(super) has_bbox: bool,
    /// Why its four numbers can't be had.
    pub(super) bbox_problem: Option<String>,
}

impl<const MASKS: bool> HasList for Detections<MASKS> {
    fn outcome(&self) -> (usize, Option<&(usize, String)>) {
        self.list.outcome()
    }
}

/// What the keys of a detection hold.
struct RawDetection {
    image: RawId,
    category: RawId,
    score: Result<f64, Option<Value>>,
    bbox: Result<[f64; 4], Box4>,
    mask: Option<Result<Segmentation, String>>,
    has_caption: bool,
}

impl<const MASKS: bool> Collect for Detections<MASKS> {
    #[inline]
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
        if !MASKS && let Some(order) = self.order {
            let start = scanner.position();
            if self.read_like_the_last(scanner, order).is_some() {
                return Ok(());
            }
            scanner.go_to(start);
        }
        if let Some(problem) = not_an_object(scanner)? {
            self.list.push(Err(problem));
            return Ok(());
        }
        let (mut order, mut others) = (Vec::with_capacity(4), false);
        let mut raw = RawDetection {
            image: RawId::Missing,
            category: RawId::Missing,
            score: Err(None),
            bbox: Err(Box4::Missing),
            mask: None,
            has_caption: false,
        };
        scanner.object(|s, key| {
            match key {
                b"image_id" => {
                    order.push(Key::Image);
                    raw.image = RawId::read(s)?;
                }
                b"category_id" => {
                    order.push(Key::Category);
                    raw.category = RawId::read(s)?;
                }
                b"score" => {
                    order.push(Key::Score);
                    raw.score = match s.value()? {
                        Value::Float(score) => Ok(score),
                        other => other.as_f64().ok_or(Some(other)),
                    }
                }
                b"bbox" => {
                    order.push(Key::Bbox);
                    raw.bbox = match s.four_numbers() {
                        Some(bbox) => Ok(bbox),
                        None => Err(Box4::read(s)?),
                    }
                }
                b"segmentation" if MASKS => raw.mask = Some(Segmentation::read(s)?),
                _ => {
                    others = true;
                    raw.has_caption |= key == b"caption";
                    s.value()?;
                }
            }
            Ok(())
        })?;
        let distinct = |order: &[Key; 4]| (1..4).all(|i| !order[..i].contains(&order[i]));
        if MASKS {
            self.push_with_shape(raw);
            return Ok(());
        }
        self.order = order.try_into().ok().filter(|order| !others && distinct(order));
        match &raw {
            RawDetection { image: RawId::Int(image), score: Ok(score), bbox: Ok(bbox), .. }
                if let RawId::Int(category) = &raw.category =>
            {
                let image = self.images.int(*image);
                let category = self.categories.int(*category);
                self.list.push(Ok(Detection { bbox: *bbox, score: *score, image, category }));
            }
            _ => self.push_odd(raw),
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.list.count()
    }

    fn truncate(&mut self, count: usize) {
        self.list.truncate(count);
        self.shapes.truncate(self.list.entries.len());
    }
}

impl<const MASKS: bool> Detections<MASKS> {
    /// The short way for a detection that is written as the one ahead of it was, as they mostly are:
    /// the same keys in the same order, and no white space but single blanks. Anything else is left
    /// to the long way.
    #[inline]
    fn read_like_the_last(&mut self, s: &mut Scanner<'_>, order: [Key; 4]) -> Option<()> {
        let (mut image, mut category, mut bbox, mut score) = (0, 0, [0.; 4], 0.);
        for (i, key) in order.into_iter().enumerate() {
            let key_comes = s.literal(if i == 0 { b"{" } else { b"," }) && {
                s.literal(b" ");
                match key {
                    Key::Image => s.literal(b"\"image_id\":"),
                    Key::Category => s.literal(b"\"category_id\":"),
                    Key::Bbox => s.literal(b"\"bbox\":"),
                    Key::Score => s.literal(b"\"score\":"),
                }
            };
            if !key_comes {
                return None;
            }
            s.literal(b" ");
            match key {
                Key::Image => image = s.integer()?,
                Key::Category => category = s.integer()?,
                Key::Bbox => bbox = s.four_numbers()?,
                Key::Score => score = s.decimal()?,
            }
        }
        if !s.literal(b"}") {
            return None;
        }
        let (image, category) = (self.images.int(image), self.categories.int(category));
        self.list.push(Ok(Detection { bbox, score, image, category }));
        Some(())
    }

    /// Keeps a detection whose box or mask may be missing.
    fn push_with_shape(&mut self, mut raw: RawDetection) {
        let (names_bbox, has_bbox) = match &raw.bbox {
            Err(Box4::Missing) => (false, false),
            Err(Box4::List(0, ..)) => (true, false),
            Ok(_) | Err(_) => (true, true),
        };
        let mask = raw.mask.take();
        let bbox_problem = match raw.bbox.as_ref().map_err(Box4::first_four) {
            Err(Err(problem)) => Some(problem),
            Ok(_) | Err(Ok(_)) => None,
        };
        if bbox_problem.is_some() {
            raw.bbox = Ok([0.; 4]);
        }
        let kept = self.list.entries.len();
        self.push_odd(raw);
        if self.list.entries.len() > kept {
            self.shapes.push(Shape { mask, names_bbox, has_bbox, bbox_problem });
        }
    }

    /// Keeps a detection in which something is out of the ordinary.
    fn push_odd(&mut self, raw: RawDetection) {
        let bbox = match needed(&raw) {
            Ok(bbox) => bbox,
            Err(problem) => {
                self.list.push(Err(problem));
                return;
            }
        };
        let too_long = raw.bbox.as_ref().err().and_then(Box4::too_long);
        let (score, problem) = match raw.score {
            Ok(score) => (score, too_long.map(|text| Problem { text, if_kept: true })),
            Err(value) => {
                let text = number("score", value).err().unwrap_or_default();
                (f64::NAN, Some(Problem { text, if_kept: false }))
            }
        };
        let image = self.images.raw(raw.image);
        let category = self.categories.raw(raw.category);
        let place = self.list.push(Ok(Detection { bbox, score, image, category }));
        if let Some(problem) = problem {
            self.problems.insert(place, problem);
        }
    }
}

/// The box of a detection that has all that every detection needs.
fn needed(raw: &RawDetection) -> Result<[f64; 4], String> {
    if let Some(problem) = raw.image.problem("image_id") {
        return Err(problem);
    }
    if let Some(problem) = raw.category.problem("category_id") {
        return Err(problem);
    }
    let bbox = match &raw.bbox {
        Ok(bbox) => return Ok(*bbox),
        Err(bbox) => bbox.first_four(),
    };
    bbox.map_err(|problem| {
        let hint = if raw.has_caption { "; captions can't be scored" } else { "" };
        problem + hint
    })
}
