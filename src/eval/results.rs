//! COCO's results file: a list of detections.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::EvalError;
use super::fields::{Box4, not_an_object, number};
use super::id::{Id, Numbering, RawId};
use super::json::{Scan, Scanner, SyntaxError, Value};
use super::pieces::{Collect, Extent, ListError, Source, list};
use super::section::{HasList, List, Opened, first_problem, open, renumbered, whole};

/// One detection as COCO's results files give it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultEntry {
    /// COCO's image id.
    pub image_id: i64,
    /// COCO's category id.
    pub category_id: i64,
    /// x, y, width, height in pixels of the original image.
    pub bbox: [f64; 4],
    /// Confidence; only its order counts.
    pub score: f64,
}

/// A detection to be scored.
#[derive(Debug, Clone)]
pub struct Detection {
    /// x, y, width, height in pixels of the original image.
    pub bbox: [f64; 4],
    /// Confidence; only its order counts.
    pub score: f64,
    /// Number of its image among the ids that detections name.
    pub(super) image: u32,
    /// Number of its category among those.
    pub(super) category: u32,
}

/// What is wrong with a detection, and whether that is looked at in those only that are kept.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) text: String,
    pub(super) if_kept: bool,
}

/// Detections to be scored, in file order (which decides between equal scores).
#[derive(Debug, Clone)]
pub struct Results {
    pub(super) file: PathBuf,
    pub(super) detections: Vec<Detection>,
    /// Ids that detections name, by number.
    pub(super) image_ids: Vec<Id>,
    pub(super) category_ids: Vec<Id>,
    /// What makes a detection unusable, by its place in the list.
    pub(super) problems: HashMap<u32, Problem>,
}

impl From<Vec<ResultEntry>> for Results {
    fn from(entries: Vec<ResultEntry>) -> Self {
        let (mut images, mut categories) = (Numbering::default(), Numbering::default());
        let detections = entries
            .into_iter()
            .map(|entry| Detection {
                bbox: entry.bbox,
                score: entry.score,
                image: images.int(entry.image_id),
                category: categories.int(entry.category_id),
            })
            .collect();
        Self {
            file: PathBuf::from("results"),
            detections,
            image_ids: images.into_ids(),
            category_ids: categories.into_ids(),
            problems: HashMap::new(),
        }
    }
}

impl Results {
    /// Reads a COCO results file. An empty list is an error here: a detector that ran finds
    /// something, with whatever score.
    pub fn from_file(path: &Path) -> Result<Self, EvalError> {
        match open(path)? {
            Opened::Regular(file) => {
                let source = Source::file(&file).map_err(|e| EvalError::read(path, e))?;
                Self::parse(path, source)
            }
            Opened::Stream(bytes) => Self::parse(path, Source::Memory(&bytes)),
        }
    }

    /// Reads the text of a COCO results file; errors call it `results`.
    pub fn from_json(text: &str) -> Result<Self, EvalError> {
        Self::parse(Path::new("results"), Source::Memory(text.as_bytes()))
    }

    /// All detections, in file order.
    pub fn detections(&self) -> &[Detection] {
        &self.detections
    }

    fn parse(file: &Path, source: Source<'_>) -> Result<Self, EvalError> {
        let failed = |e| EvalError::read(file, e);
        let syntax = |e: &SyntaxError| match source.window(0, e.offset) {
            Ok(bytes) => EvalError::syntax(file, &bytes, e),
            Err(e) => EvalError::read(file, e),
        };
        // The white space ahead of the list, if it is one.
        let start = source.window(0, 4096).map_err(failed)?;
        let mut scanner = Scanner::new(&start);
        if !scanner.take(b'[') {
            let all = source.window(0, source.len()).map_err(failed)?;
            let mut scanner = Scanner::new(&all);
            if !scanner.take(b'[') {
                let kind = whole(&mut scanner).map_err(|e| syntax(&e))?.kind();
                return Err(EvalError::Form {
                    file: file.to_owned(),
                    problem: format!("expected a list of detections, found {kind}"),
                });
            }
            return Self::read_list(file, Source::Memory(&all), scanner.position());
        }
        let start = scanner.position();
        Self::read_list(file, source, start)
    }

    fn read_list(file: &Path, source: Source<'_>, start: usize) -> Result<Self, EvalError> {
        let failed = |e| EvalError::read(file, e);
        let syntax = |e: &SyntaxError| match source.window(0, e.offset) {
            Ok(bytes) => EvalError::syntax(file, &bytes, e),
            Err(e) => EvalError::read(file, e),
        };
        let (pieces, end) =
            list::<Detections>(source, start, Extent::Rest).map_err(|e| match e {
                ListError::Read(e) => failed(e),
                ListError::Syntax(e) => syntax(&e),
            })?;
        let tail = source.window(end, source.len()).map_err(failed)?;
        Scanner::at_offset(&tail, end).end().map_err(|e| syntax(&e))?;
        first_problem(file, "results", pieces.iter().map(HasList::outcome))?;
        let count = pieces.iter().map(|p| p.list.entries.len()).sum();
        if count == 0 {
            return Err(EvalError::NoDetections { file: file.to_owned() });
        }

        let (mut images, mut categories) = (Numbering::default(), Numbering::default());
        let mut detections = Vec::with_capacity(count);
        let mut problems = HashMap::new();
        for piece in pieces {
            let before = detections.len() as u32;
            let image = renumbered(&mut images, piece.images);
            let category = renumbered(&mut categories, piece.categories);
            detections.extend(piece.list.entries.into_iter().map(|mut detection| {
                detection.image = image[detection.image as usize];
                detection.category = category[detection.category as usize];
                detection
            }));
            problems.extend(piece.problems.into_iter().map(|(i, p)| (before + i, p)));
        }
        let file = file.to_owned();
        let (image_ids, category_ids) = (images.into_ids(), categories.into_ids());
        Ok(Self { file, detections, image_ids, category_ids, problems })
    }
}

#[derive(Default)]
struct Detections {
    list: List<Detection>,
    images: Numbering,
    categories: Numbering,
    problems: HashMap<u32, Problem>,
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

impl HasList for Detections {
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
    has_mask: bool,
    has_caption: bool,
}

impl Collect for Detections {
    #[inline]
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
        if let Some(order) = self.order {
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
            has_mask: false,
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
                _ => {
                    others = true;
                    raw.has_mask |= key == b"segmentation";
                    raw.has_caption |= key == b"caption";
                    s.value()?;
                }
            }
            Ok(())
        })?;
        let distinct = |order: &[Key; 4]| (1..4).all(|i| !order[..i].contains(&order[i]));
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
    }
}

impl Detections {
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

    /// Keeps a detection in which something is out of the ordinary.
    #[cold]
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
        let hint = match raw {
            RawDetection { has_mask: true, .. } => "; only boxes can be scored, not masks",
            RawDetection { has_caption: true, .. } => "; captions can't be scored",
            _ => "",
        };
        problem + hint
    })
}
