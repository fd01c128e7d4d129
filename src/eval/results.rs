//! COCO's results file: a list of detections.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::detection_list::{Detections, Shape};
use super::error::EvalError;
use super::id::{Id, Numbering};
use super::json::{Scanner, SyntaxError};
use super::masks::Segmentation;
use super::pieces::{Collect as _, Extent, ListError, Source, list};
use super::section::{HasList, Opened, begin, first_problem, open, renumbered, whole};
use super::settings::IouType;
use crate::geometry::Size;

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

impl Detection {
    /// Whether its box holds what is no finite number, or has a width or height below 0.
    pub(super) fn has_odd_box(&self) -> bool {
        let [_, _, width, height] = self.bbox;
        self.bbox.iter().any(|x| !x.is_finite()) || width < 0. || height < 0.
    }
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
    /// One a detection, where they were read.
    pub(super) masks: Option<Vec<Result<Segmentation, String>>>,
    /// How many of them are boxes, since their detections have none.
    pub(super) boxes_as_masks: usize,
    /// Areas of the masks, one a detection, where the file has masks alone; else the box's is taken.
    mask_areas: Option<Vec<f64>>,
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
            masks: None,
            boxes_as_masks: 0,
            mask_areas: None,
            image_ids: images.into_ids(),
            category_ids: categories.into_ids(),
            problems: HashMap::new(),
        }
    }
}

impl Results {
    /// Reads a COCO results file for its boxes, which of masks alone are those around them. An empty
    /// list is an error here: a detector that ran finds something, with whatever score.
    pub fn from_file(path: &Path) -> Result<Self, EvalError> {
        Self::read(path, IouType::Bbox)
    }

    /// Reads a COCO results file for its masks; where the first detection has a box, one without a
    /// mask stands for all of its box. An empty list is an error, as in [`Self::from_file`].
    pub fn with_masks(path: &Path) -> Result<Self, EvalError> {
        Self::read(path, IouType::Segm)
    }

    fn read(path: &Path, iou_type: IouType) -> Result<Self, EvalError> {
        match open(path)? {
            Opened::Regular(file) => {
                let source = Source::file(&file).map_err(|e| EvalError::read(path, e))?;
                Self::parse(path, source, iou_type)
            }
            Opened::Stream(bytes) => Self::parse(path, Source::Memory(&bytes), iou_type),
        }
    }

    /// Reads the text of a COCO results file for its boxes; errors call it `results`.
    pub fn from_json(text: &str) -> Result<Self, EvalError> {
        Self::parse(Path::new("results"), Source::Memory(text.as_bytes()), IouType::Bbox)
    }

    /// All detections, in file order.
    pub fn detections(&self) -> &[Detection] {
        &self.detections
    }

    /// Area of a detection, which stands at this place of the list.
    #[inline]
    pub(super) fn area(&self, index: usize, detection: &Detection) -> f64 {
        match &self.mask_areas {
            None => detection.bbox[2] * detection.bbox[3],
            Some(areas) => areas[index],
        }
    }

    /// What is wrong with a detection.
    pub(super) fn entry_error(&self, index: u32, problem: String) -> EvalError {
        let (file, index) = (self.file.clone(), index as usize);
        EvalError::Entry { file, list: "results", index, problem }
    }

    fn parse(file: &Path, source: Source<'_>, iou_type: IouType) -> Result<Self, EvalError> {
        let failed = |e| EvalError::read(file, e);
        let syntax = |e: &SyntaxError| match source.window(0, e.offset) {
            Ok(bytes) => EvalError::syntax(file, &bytes, e),
            Err(e) => EvalError::read(file, e),
        };
        // The white space ahead of the list, if it is one.
        let start = source.window(0, 4096).map_err(failed)?;
        let mut scanner = begin(file, &start)?;
        if !scanner.take(b'[') {
            let all = source.window(0, source.len()).map_err(failed)?;
            let mut scanner = begin(file, &all)?;
            if !scanner.take(b'[') {
                let kind = whole(&mut scanner).map_err(|e| syntax(&e))?.kind();
                return Err(EvalError::Form {
                    file: file.to_owned(),
                    problem: format!("expected a list of detections, found {kind}"),
                });
            }
            return Self::read_list(file, Source::Memory(&all), scanner.position(), iou_type);
        }
        let start = scanner.position();
        Self::read_list(file, source, start, iou_type)
    }

    fn read_list(
        file: &Path,
        source: Source<'_>,
        start: usize,
        iou_type: IouType,
    ) -> Result<Self, EvalError> {
        let by_mask =
            first_is_a_mask(source, start).map_err(|error| EvalError::read(file, error))?;
        if iou_type == IouType::Bbox && !by_mask {
            return Ok(Self::entries::<false>(file, source, start)?.0);
        }
        let (mut results, shapes) = Self::entries::<true>(file, source, start)?;
        if by_mask {
            results.take_masks(shapes, iou_type)?;
        } else {
            results.take_boxes(shapes)?;
        }
        Ok(results)
    }

    /// Shapes of detections that have a box each. Those without a mask fill their box.
    fn take_boxes(&mut self, shapes: Vec<Shape>) -> Result<(), EvalError> {
        let mut masks = Vec::with_capacity(shapes.len());
        for ((shape, detection), place) in shapes.into_iter().zip(&self.detections).zip(0..) {
            if let Some(problem) = shape.bbox_problem {
                return Err(self.entry_error(place, problem));
            }
            self.boxes_as_masks += usize::from(shape.mask.is_none());
            masks.push(shape.mask.unwrap_or_else(|| Ok(outline(&detection.bbox))));
        }
        self.masks = Some(masks);
        Ok(())
    }

    /// Shapes of detections of which the first is a mask alone: then all are masks, in the compressed
    /// form, and their areas are those of the masks.
    fn take_masks(&mut self, shapes: Vec<Shape>, iou_type: IouType) -> Result<(), EvalError> {
        let measured: Vec<_> = shapes
            .par_iter()
            .map(|shape| {
                let segmentation = match &shape.mask {
                    None => return Err("has no `segmentation`, as the first one has".to_owned()),
                    Some(Err(problem)) => return Err(format!("its `segmentation` {problem}")),
                    Some(Ok(segmentation)) => segmentation,
                };
                if !matches!(segmentation, Segmentation::Compressed { .. }) {
                    return Err(
                        "its `segmentation` is no compressed mask (`counts` as a text), which \
                                detections without a `bbox` need"
                            .to_owned(),
                    );
                }
                // Of polygons alone: a compressed mask says its own size.
                let rle = segmentation.to_rle(Size::new(1, 1));
                let rle = rle.map_err(|e| format!("its `segmentation` can't be used: {e}"))?;
                let of_box = (!shape.names_bbox).then(|| rle.bounding_box());
                Ok((f64::from(rle.area()), of_box))
            })
            .collect();
        let mut areas = Vec::with_capacity(shapes.len());
        for ((measured, shape), place) in measured.into_iter().zip(&shapes).zip(0..) {
            let (area, of_box) = measured.map_err(|problem| self.entry_error(place, problem))?;
            areas.push(area);
            let detection = &mut self.detections[place as usize];
            detection.bbox = of_box.unwrap_or(detection.bbox);
            if let Some(text) = shape.bbox_problem.clone()
                && shape.names_bbox
                && iou_type == IouType::Bbox
            {
                self.problems.insert(place, Problem { text, if_kept: true });
            }
        }
        self.mask_areas = Some(areas);
        if iou_type == IouType::Segm {
            self.masks = Some(shapes.into_iter().filter_map(|shape| shape.mask).collect());
        }
        Ok(())
    }

    fn entries<const MASKS: bool>(
        file: &Path,
        source: Source<'_>,
        start: usize,
    ) -> Result<(Self, Vec<Shape>), EvalError> {
        let failed = |e| EvalError::read(file, e);
        let syntax = |e: &SyntaxError| match source.window(0, e.offset) {
            Ok(bytes) => EvalError::syntax(file, &bytes, e),
            Err(e) => EvalError::read(file, e),
        };
        let (pieces, end) =
            list::<Detections<MASKS>>(source, start, Extent::Rest).map_err(|e| match e {
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
        let (mut problems, mut shapes) = (HashMap::new(), Vec::new());
        for piece in pieces {
            let before = detections.len() as u32;
            let image = renumbered(&mut images, piece.images);
            let category = renumbered(&mut categories, piece.categories);
            detections.extend(piece.list.entries.into_iter().map(|mut detection| {
                detection.image = image[detection.image as usize];
                detection.category = category[detection.category as usize];
                detection
            }));
            shapes.extend(piece.shapes);
            problems.extend(piece.problems.into_iter().map(|(i, p)| (before + i, p)));
        }
        let file = file.to_owned();
        let (image_ids, category_ids) = (images.into_ids(), categories.into_ids());
        let results = Self {
            file,
            detections,
            masks: None,
            boxes_as_masks: 0,
            mask_areas: None,
            image_ids,
            category_ids,
            problems,
        };
        Ok((results, shapes))
    }
}

/// Whether the first detection has a mask and no box, which decides for all of them. What can't be
/// read is told later.
fn first_is_a_mask(source: Source<'_>, start: usize) -> io::Result<bool> {
    let mut length = 16 << 10;
    loop {
        let window = source.window(start, start.saturating_add(length))?;
        let mut first = Detections::<true>::default();
        if first.read(&mut Scanner::at_offset(&window, start)).is_ok() {
            return Ok(first.shapes.first().is_some_and(|s| !s.has_bbox && s.mask.is_some()));
        }
        if start.saturating_add(length) >= source.len() {
            return Ok(false);
        }
        length = length.saturating_mul(8);
    }
}

/// The outline that pycocotools gives a box.
fn outline(&[x, y, w, h]: &[f64; 4]) -> Segmentation {
    Segmentation::Polygons(vec![vec![x, y, x, y + h, x + w, y + h, x + w, y]])
}
