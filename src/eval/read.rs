//! COCO's two files for the evaluator: the annotations, and a list of results.
//!
//! Only what the metric needs is kept. An entry that pycocotools never looks at (on an image or of a
//! category that is not listed) may lack fields here too, so such a problem is noted with the entry
//! and becomes an error only where the entry counts.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::EvalError;
use super::fields::{Box4, Entry, Section, id_of, number, section};
use super::json::{Scanner, SyntaxError, Value};

/// A category of the annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// COCO's id.
    pub id: i64,
    /// Its name; its id where the file gives none.
    pub name: String,
}

/// A true box.
#[derive(Debug, Clone)]
pub(super) struct Annotation {
    pub(super) id: i64,
    pub(super) image_id: i64,
    pub(super) category_id: i64,
    /// x, y, w, h in pixels.
    pub(super) bbox: [f64; 4],
    /// The file's `area` (of the mask, in COCO) in square pixels, not w * h.
    pub(super) area: f64,
    /// `iscrowd` is not zero: left out of the count of truths.
    pub(super) ignore: bool,
    /// `iscrowd`, cut to a whole number, is not zero: overlap and matching follow the crowd rule.
    pub(super) crowd: bool,
}

/// The truth of a COCO annotations file.
#[derive(Debug, Clone)]
pub struct GroundTruth {
    pub(super) file: PathBuf,
    /// Distinct ids, ascending.
    pub(super) images: Vec<i64>,
    /// Distinct ids, ascending.
    pub(super) categories: Vec<Category>,
    pub(super) annotations: Vec<Annotation>,
    /// What makes an annotation unusable, by its place in the list.
    pub(super) problems: HashMap<usize, String>,
}

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

/// Detections to be scored, in file order (which decides between equal scores).
#[derive(Debug, Clone)]
pub struct Results {
    pub(super) file: PathBuf,
    pub(super) entries: Vec<ResultEntry>,
    /// What makes a detection unusable, by its place in the list.
    pub(super) problems: HashMap<usize, String>,
}

impl From<Vec<ResultEntry>> for Results {
    fn from(entries: Vec<ResultEntry>) -> Self {
        Self { file: PathBuf::from("results"), entries, problems: HashMap::new() }
    }
}

impl GroundTruth {
    /// Reads a COCO annotations file.
    pub fn from_file(path: &Path) -> Result<Self, EvalError> {
        Self::parse(path, &read(path)?)
    }

    /// Reads the text of a COCO annotations file; errors call it `annotations`.
    pub fn from_json(text: &str) -> Result<Self, EvalError> {
        Self::parse(Path::new("annotations"), text.as_bytes())
    }

    /// Ids of the images that are scored: distinct, ascending.
    pub fn image_ids(&self) -> &[i64] {
        &self.images
    }

    /// The same truth for those of `ids` that it has: what a split that is a part of a file scores.
    #[must_use]
    pub fn restricted_to(mut self, ids: &[i64]) -> Self {
        let wanted: HashSet<i64> = ids.iter().copied().collect();
        self.images.retain(|id| wanted.contains(id));
        self
    }

    /// Categories that are scored, by ascending id.
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    fn parse(file: &Path, bytes: &[u8]) -> Result<Self, EvalError> {
        let text = utf8(file, bytes)?;
        let mut scanner = Scanner::new(text);
        if !scanner.at_object() {
            // A syntax error is the more useful message where there is one.
            let kind = whole(&mut scanner).map_err(|e| syntax(file, text, &e))?.kind();
            return Err(EvalError::Form {
                file: file.to_owned(),
                problem: format!(
                    "expected an object with `images`, `categories` and `annotations`, found {kind}"
                ),
            });
        }
        let mut images = Section::Missing;
        let mut categories = Section::Missing;
        let mut annotations = Section::Missing;
        scanner
            .object(|s, key| {
                match key {
                    "images" => images = section(s, image)?,
                    "categories" => categories = section(s, category)?,
                    "annotations" => annotations = section(s, annotation)?,
                    _ => {
                        s.value()?;
                    }
                }
                Ok(())
            })
            .and_then(|()| scanner.end())
            .map_err(|e| syntax(file, text, &e))?;

        let mut images = images.entries(file, "images")?.ok_or_else(|| missing(file, "images"))?;
        images.sort_unstable();
        images.dedup();
        let mut categories =
            categories.entries(file, "categories")?.ok_or_else(|| missing(file, "categories"))?;
        // The last of equal ids is kept, as in Python's dictionary.
        categories.reverse();
        categories.sort_by_key(|c| c.id);
        categories.dedup_by_key(|c| c.id);
        // A list without truth is legal (test-dev has none): every number is then -1.
        let read = annotations.entries(file, "annotations")?.unwrap_or_default();
        let mut problems = HashMap::new();
        let annotations = read
            .into_iter()
            .enumerate()
            .map(|(index, (annotation, problem))| {
                problems.extend(problem.map(|p| (index, p)));
                annotation
            })
            .collect();
        Ok(Self { file: file.to_owned(), images, categories, annotations, problems })
    }
}

impl Results {
    /// Reads a COCO results file. An empty list is an error here: a detector that ran finds
    /// something, with whatever score.
    pub fn from_file(path: &Path) -> Result<Self, EvalError> {
        Self::parse(path, &read(path)?)
    }

    /// Reads the text of a COCO results file; errors call it `results`.
    pub fn from_json(text: &str) -> Result<Self, EvalError> {
        Self::parse(Path::new("results"), text.as_bytes())
    }

    /// The detections in file order.
    pub fn entries(&self) -> &[ResultEntry] {
        &self.entries
    }

    fn parse(file: &Path, bytes: &[u8]) -> Result<Self, EvalError> {
        let text = utf8(file, bytes)?;
        let mut scanner = Scanner::new(text);
        if !scanner.at_list() {
            let kind = whole(&mut scanner).map_err(|e| syntax(file, text, &e))?.kind();
            return Err(EvalError::Form {
                file: file.to_owned(),
                problem: format!("expected a list of detections, found {kind}"),
            });
        }
        let read = section(&mut scanner, detection)
            .and_then(|list| scanner.end().map(|()| list))
            .map_err(|e| syntax(file, text, &e))?
            .entries(file, "results")?
            .unwrap_or_default();
        if read.is_empty() {
            return Err(EvalError::NoDetections { file: file.to_owned() });
        }
        let mut problems = HashMap::new();
        let entries = read
            .into_iter()
            .enumerate()
            .map(|(index, (entry, problem))| {
                problems.extend(problem.map(|p| (index, p)));
                entry
            })
            .collect();
        Ok(Self { file: file.to_owned(), entries, problems })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, EvalError> {
    std::fs::read(file).map_err(|source| EvalError::Read { file: file.to_owned(), source })
}

fn utf8<'a>(file: &Path, bytes: &'a [u8]) -> Result<&'a str, EvalError> {
    std::str::from_utf8(bytes).map_err(|e| EvalError::Syntax {
        file: file.to_owned(),
        offset: e.valid_up_to(),
        line: line_of(bytes, e.valid_up_to()),
        problem: "the text is not UTF-8".to_owned(),
    })
}

fn syntax(file: &Path, text: &str, error: &SyntaxError) -> EvalError {
    EvalError::Syntax {
        file: file.to_owned(),
        offset: error.offset,
        line: line_of(text.as_bytes(), error.offset),
        problem: error.problem.to_owned(),
    }
}

fn line_of(bytes: &[u8], offset: usize) -> usize {
    bytes[..offset].split(|&b| b == b'\n').count()
}

fn missing(file: &Path, list: &str) -> EvalError {
    EvalError::Form {
        file: file.to_owned(),
        problem: format!("there is no list `{list}`; is this a COCO annotations file?"),
    }
}

fn whole(scanner: &mut Scanner<'_>) -> Result<Value, SyntaxError> {
    let value = scanner.value()?;
    scanner.end().map(|()| value)
}

fn image(scanner: &mut Scanner<'_>) -> Entry<i64> {
    let mut id = None;
    scanner.object(|s, key| {
        let value = s.value()?;
        if key == "id" {
            id = Some(value);
        }
        Ok(())
    })?;
    Ok(id_of("id", id))
}

fn category(scanner: &mut Scanner<'_>) -> Entry<Category> {
    let mut id = None;
    let mut name = None;
    scanner.object(|s, key| {
        match key {
            "id" => id = Some(s.value()?),
            "name" if s.at_text() => name = Some(s.text()?.into_owned()),
            _ => {
                s.value()?;
            }
        }
        Ok(())
    })?;
    Ok(id_of("id", id).map(|id| Category { id, name: name.unwrap_or_else(|| id.to_string()) }))
}

fn annotation(scanner: &mut Scanner<'_>) -> Entry<(Annotation, Option<String>)> {
    let (mut id, mut image_id, mut category_id) = (None, None, None);
    let (mut area, mut iscrowd, mut bbox) = (None, None, Box4::Missing);
    scanner.object(|s, key| {
        match key {
            "id" => id = Some(s.value()?),
            "image_id" => image_id = Some(s.value()?),
            "category_id" => category_id = Some(s.value()?),
            "area" => area = Some(s.value()?),
            "iscrowd" => iscrowd = Some(s.value()?),
            "bbox" => bbox = Box4::read(s)?,
            _ => {
                s.value()?;
            }
        }
        Ok(())
    })?;
    let ids =
        || Ok((id_of("id", id)?, id_of("image_id", image_id)?, id_of("category_id", category_id)?));
    Ok(ids().map(|(id, image_id, category_id)| {
        let mut problem = None;
        let mut note = |result: Result<f64, String>| {
            result.unwrap_or_else(|p| {
                problem.get_or_insert(p);
                0.
            })
        };
        let iscrowd = note(number("iscrowd", iscrowd));
        if !(iscrowd > -1. && iscrowd < 256.) {
            note(Err(format!("`iscrowd` is {iscrowd}, not 0 or 1")));
        }
        // An area is looked at only where the box is not ignored anyway.
        let area = if iscrowd == 0. { note(number("area", area)) } else { 0. };
        let bbox = bbox.exactly().unwrap_or_else(|p| {
            problem.get_or_insert(p);
            [0.; 4]
        });
        let (ignore, crowd) = (iscrowd != 0., iscrowd.trunc() != 0.);
        (Annotation { id, image_id, category_id, bbox, area, ignore, crowd }, problem)
    }))
}

fn detection(scanner: &mut Scanner<'_>) -> Entry<(ResultEntry, Option<String>)> {
    let (mut image_id, mut category_id, mut score) = (None, None, None);
    let mut bbox = Box4::Missing;
    let mut has_mask = false;
    scanner.object(|s, key| {
        match key {
            "image_id" => image_id = Some(s.value()?),
            "category_id" => category_id = Some(s.value()?),
            "score" => score = Some(s.value()?),
            "bbox" => bbox = Box4::read(s)?,
            _ => {
                has_mask |= key == "segmentation";
                s.value()?;
            }
        }
        Ok(())
    })?;
    let needed = || {
        let image_id = id_of("image_id", image_id)?;
        let category_id = id_of("category_id", category_id)?;
        let first_four = bbox.first_four().map_err(|problem| {
            let hint = if has_mask { "; only boxes can be scored, not masks" } else { "" };
            problem + hint
        })?;
        Ok((image_id, category_id, first_four))
    };
    Ok(needed().map(|(image_id, category_id, first_four)| {
        let score = number("score", score);
        let problem = bbox.exactly().err().or(score.clone().err());
        let score = score.unwrap_or(f64::NAN);
        (ResultEntry { image_id, category_id, bbox: first_four, score }, problem)
    }))
}
