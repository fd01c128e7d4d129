//! COCO's annotations file for the evaluator.
//!
//! Only what the metric needs is kept. An entry that pycocotools never looks at (on an image or of a
//! category that is not listed) may lack fields here too, so such a problem is noted with the entry
//! and becomes an error only where the entry counts.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::annotation_lists::{Annotations, Categories, Images};
use super::error::EvalError;
use super::id::{Id, Numbering};
use super::json::SyntaxError;
use super::masks::Segmentation;
use super::pieces::{Extent, read_whole};
use super::section::{Opened, Section, begin, open, renumbered, whole};
use crate::geometry::Size;

/// A category of the annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// COCO's id.
    pub id: Id,
    /// Its name; its id where the file gives none.
    pub name: String,
}

/// A true box.
#[derive(Debug, Clone)]
pub struct Annotation {
    /// x, y, w, h in pixels.
    pub bbox: [f64; 4],
    /// The file's `area` (of the mask, in COCO) in square pixels, not w * h.
    pub area: f64,
    /// Its id where it fits; else see `odd_ids`.
    pub(super) id: i64,
    /// Number of its image among the ids that annotations name.
    pub(super) image: u32,
    /// Number of its category among those.
    pub(super) category: u32,
    /// `iscrowd` is not zero: left out of the count of truths.
    pub ignore: bool,
    /// `iscrowd`, cut to a whole number, is not zero: overlap and matching follow the crowd rule.
    pub crowd: bool,
}

/// The truth of a COCO annotations file.
#[derive(Debug, Clone)]
pub struct GroundTruth {
    /// Where it was read from, each with the number of annotations ahead of its own.
    files: Vec<(PathBuf, u32)>,
    /// Distinct ids, ascending.
    pub(super) images: Vec<Id>,
    /// Of each of them, where the file says it.
    pub(super) image_sizes: Vec<Option<Size>>,
    /// Distinct ids, ascending.
    pub(super) categories: Vec<Category>,
    /// How often the file lists each category: pooled, all in it counts as often.
    pub(super) repeats: Vec<usize>,
    pub(super) annotations: Vec<Annotation>,
    /// One an annotation, where they were read.
    pub(super) masks: Option<Vec<Result<Segmentation, String>>>,
    /// Ids that annotations name, by number.
    pub(super) named_images: Vec<Id>,
    pub(super) named_categories: Vec<Id>,
    /// Ids of annotations that are no 64-bit integers, by place in the list.
    pub(super) odd_ids: HashMap<u32, Id>,
    /// What makes an annotation unusable, by its place in the list.
    pub(super) problems: HashMap<u32, String>,
}

impl GroundTruth {
    /// Reads a COCO annotations file for its boxes.
    pub fn from_file(path: &Path) -> Result<Self, EvalError> {
        Self::read::<false>(path)
    }

    /// Reads the annotations files of a split for their boxes: see [`Self::and`].
    ///
    /// # Panics
    /// Without any file.
    pub fn from_files(paths: &[PathBuf]) -> Result<Self, EvalError> {
        let truths = paths.iter().map(|path| Self::from_file(path));
        let truths = truths.collect::<Result<Vec<_>, _>>()?;
        Ok(truths.into_iter().reduce(Self::and).expect("a split has an annotations file"))
    }

    /// Reads a COCO annotations file for its masks.
    pub fn with_masks(path: &Path) -> Result<Self, EvalError> {
        Self::read::<true>(path)
    }

    fn read<const MASKS: bool>(path: &Path) -> Result<Self, EvalError> {
        let bytes = match open(path)? {
            Opened::Regular(file) => read_whole(&file).map_err(|e| EvalError::read(path, e))?,
            Opened::Stream(bytes) => bytes,
        };
        Self::parse::<MASKS>(path, &bytes)
    }

    /// Reads the text of a COCO annotations file for its boxes; errors call it `annotations`.
    pub fn from_json(text: &str) -> Result<Self, EvalError> {
        Self::parse::<false>(Path::new("annotations"), text.as_bytes())
    }

    /// Ids of the images that are scored: distinct, ascending.
    pub fn image_ids(&self) -> &[Id] {
        &self.images
    }

    /// The same truth for those of `ids` that it has: what a split that is a part of a file scores.
    #[must_use]
    pub fn restricted_to(mut self, ids: &[i64]) -> Self {
        let wanted: HashSet<Id> = ids.iter().map(|&id| id.into()).collect();
        let all = self.images.into_iter().zip(self.image_sizes);
        (self.images, self.image_sizes) = all.filter(|(id, _)| wanted.contains(id)).unzip();
        self
    }

    /// This truth and that of another file, whose images and annotations have ids of their own: what a
    /// split that is made of two files scores. Both are read alike, for boxes or for masks.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let before = self.annotations.len() as u32;
        self.files.extend(other.files.into_iter().map(|(file, first)| (file, before + first)));
        let (mut images, mut categories) = (Numbering::default(), Numbering::default());
        let number = |numbering: &mut Numbering, ids: Vec<Id>| -> Vec<u32> {
            ids.into_iter().map(|id| numbering.id(id)).collect()
        };
        // Ids of one's own keep their numbers.
        number(&mut images, self.named_images);
        number(&mut categories, self.named_categories);
        let image = number(&mut images, other.named_images);
        let category = number(&mut categories, other.named_categories);
        self.annotations.extend(other.annotations.into_iter().map(|mut annotation| {
            annotation.image = image[annotation.image as usize];
            annotation.category = category[annotation.category as usize];
            annotation
        }));
        (self.named_images, self.named_categories) = (images.into_ids(), categories.into_ids());
        if let (Some(masks), Some(others)) = (&mut self.masks, other.masks) {
            masks.extend(others);
        }
        self.odd_ids.extend(other.odd_ids.into_iter().map(|(i, id)| (before + i, id)));
        self.problems.extend(other.problems.into_iter().map(|(i, p)| (before + i, p)));

        let sizes = self.image_sizes.into_iter().chain(other.image_sizes);
        let mut all: Vec<_> = self.images.into_iter().chain(other.images).zip(sizes).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.dedup_by(|a, b| a.0 == b.0);
        (self.images, self.image_sizes) = all.into_iter().unzip();
        let repeats = self.repeats.into_iter().chain(other.repeats);
        let mut all: Vec<_> =
            self.categories.into_iter().chain(other.categories).zip(repeats).collect();
        all.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        all.dedup_by(|a, b| a.0.id == b.0.id);
        (self.categories, self.repeats) = all.into_iter().unzip();
        self
    }

    /// The file, or the first of them.
    pub(super) fn file(&self) -> &Path {
        &self.files[0].0
    }

    /// Categories that are scored, by ascending id.
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// All annotations, in file order.
    pub fn annotations(&self) -> &[Annotation] {
        &self.annotations
    }

    fn parse<const MASKS: bool>(file: &Path, bytes: &[u8]) -> Result<Self, EvalError> {
        let syntax = |e: SyntaxError| EvalError::syntax(file, bytes, &e);
        let form = |problem: String| EvalError::Form { file: file.to_owned(), problem };
        let mut scanner = begin(file, bytes)?;
        if !scanner.at_object() {
            // A syntax error is the more useful message where there is one.
            let kind = whole(&mut scanner).map_err(syntax)?.kind();
            return Err(form(format!(
                "expected an object with `images`, `categories` and `annotations`, found {kind}"
            )));
        }
        let mut images: Section<Images> = Section::Missing;
        let mut categories: Section<Categories> = Section::Missing;
        let mut annotations: Section<Annotations<MASKS>> = Section::Missing;
        scanner
            .object(|s, key| {
                match key {
                    b"images" => images = Section::read(s, bytes, Extent::Unknown)?,
                    b"categories" => categories = Section::read(s, bytes, Extent::Unknown)?,
                    b"annotations" => annotations = Section::read(s, bytes, Extent::Rest)?,
                    _ => {
                        s.value()?;
                    }
                }
                Ok(())
            })
            .and_then(|()| scanner.end())
            .map_err(syntax)?;

        let missing = |list: &str| {
            form(format!("there is no list `{list}`; is this a COCO annotations file?"))
        };
        let pieces = images.pieces(file, "images")?.ok_or_else(|| missing("images"))?;
        let mut images: Vec<_> = pieces.into_iter().flat_map(|p| p.0.entries).collect();
        // The last of equal ids is kept, as in Python's dictionary.
        images.reverse();
        images.sort_by(|a, b| a.0.cmp(&b.0));
        images.dedup_by(|a, b| a.0 == b.0);
        let (images, image_sizes): (Vec<Id>, Vec<_>) = images.into_iter().unzip();
        one_kind(file, "images", images.iter())?;
        let pieces = categories.pieces(file, "categories")?.ok_or_else(|| missing("categories"))?;
        let mut categories: Vec<Category> = pieces.into_iter().flat_map(|p| p.0.entries).collect();
        categories.reverse();
        categories.sort_by(|a, b| a.id.cmp(&b.id));
        let repeats = categories.chunk_by(|a, b| a.id == b.id).map(<[_]>::len).collect();
        categories.dedup_by(|a, b| a.id == b.id);
        one_kind(file, "categories", categories.iter().map(|c| &c.id))?;

        let pieces = annotations.pieces(file, "annotations")?.unwrap_or_default();
        let mut gt = Self {
            files: vec![(file.to_owned(), 0)],
            images,
            image_sizes,
            categories,
            repeats,
            annotations: Vec::new(),
            masks: MASKS.then(Vec::new),
            named_images: Vec::new(),
            named_categories: Vec::new(),
            odd_ids: HashMap::new(),
            problems: HashMap::new(),
        };
        gt.join(pieces);
        Ok(gt)
    }

    /// The id of an annotation, by its place.
    pub(super) fn id_of(&self, index: u32) -> Id {
        let odd = self.odd_ids.get(&index).cloned();
        odd.unwrap_or_else(|| self.annotations[index as usize].id.into())
    }

    /// Whether an annotation has the id 0; none where its id is a text that is no number.
    #[inline]
    pub(super) fn is_zero(&self, index: u32) -> Option<bool> {
        if self.odd_ids.is_empty() {
            return Some(self.annotations[index as usize].id == 0);
        }
        self.id_of(index).is_zero()
    }

    /// What is wrong with an annotation.
    pub(super) fn entry_error(&self, index: u32, problem: String) -> EvalError {
        let of_entry = self.files.iter().rev().find(|(_, first)| *first <= index);
        let (file, first) = of_entry.unwrap_or(&self.files[0]);
        let (file, index) = (file.clone(), (index - first) as usize);
        EvalError::Entry { file, list: "annotations", index, problem }
    }

    fn join<const MASKS: bool>(&mut self, pieces: Vec<Annotations<MASKS>>) {
        let (mut images, mut categories) = (Numbering::default(), Numbering::default());
        self.annotations.reserve_exact(pieces.iter().map(|p| p.list.entries.len()).sum());
        for piece in pieces {
            let before = self.annotations.len() as u32;
            let image = renumbered(&mut images, piece.images);
            let category = renumbered(&mut categories, piece.categories);
            self.annotations.extend(piece.list.entries.into_iter().map(|mut annotation| {
                annotation.image = image[annotation.image as usize];
                annotation.category = category[annotation.category as usize];
                annotation
            }));
            if let Some(masks) = &mut self.masks {
                masks.extend(piece.masks);
            }
            self.odd_ids.extend(piece.odd_ids.into_iter().map(|(i, id)| (before + i, id)));
            self.problems.extend(piece.problems.into_iter().map(|(i, p)| (before + i, p)));
        }
        self.named_images = images.into_ids();
        self.named_categories = categories.into_ids();
    }
}

/// Python can't sort numbers and texts together.
fn one_kind<'a>(
    file: &Path,
    list: &str,
    ids: impl Iterator<Item = &'a Id>,
) -> Result<(), EvalError> {
    let (mut text, mut number) = (None, None);
    for id in ids {
        let seen = if matches!(id, Id::Text(_)) { &mut text } else { &mut number };
        seen.get_or_insert(id);
    }
    match (text, number) {
        (Some(text), Some(number)) => Err(EvalError::Form {
            file: file.to_owned(),
            problem: format!(
                "the ids of `{list}` are partly numbers ({number}), partly texts ({text}); they have no order"
            ),
        }),
        _ => Ok(()),
    }
}
