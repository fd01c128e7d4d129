//! Data sets in other forms -> folders in COCO's form.
//!
//! A reader for each form (`voc`, `yolo`, `table`, `json`) gives the same `model::Source`;
//! `settle` holds it against the image files and repairs what has one right answer; `write` makes
//! the folder, whole or not at all. `detect check --fix` is the same way from COCO's form to itself.
//! Whatever is left out, changed or left as it is although it is wrong stands in the [`Log`].

mod error;
mod exif;
mod files;
mod json;
mod json_entries;
mod log;
mod model;
mod parts;
mod recognise;
mod settle;
mod table;
mod table_columns;
mod voc;
mod voc_lists;
mod write;
mod yaml;
mod yolo;
mod yolo_lists;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::error::ConvertError;
use self::files::Files;
pub use self::log::{Change, Entry, Fate, Log};
use self::model::Source;

/// The forms that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Pascal VOC: an XML file for each image.
    Voc,
    /// YOLO: a text file for each image, boxes as fractions of it.
    Yolo,
    /// A table with a row for each box.
    Csv,
    /// COCO's JSON, in any layout of folders.
    Coco,
}

impl Format {
    /// As `--from` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Voc => "voc",
            Self::Yolo => "yolo",
            Self::Csv => "csv",
            Self::Coco => "coco",
        }
    }
}

/// What becomes of VOC's difficult objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Difficult {
    /// Crowds: neither trained on nor counted in evaluation, as VOC's own evaluation has it.
    Crowd,
    /// Objects like the others.
    Keep,
    /// Left out.
    Drop,
}

/// How a source is read and a folder made of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The form; recognised where it is `None`.
    pub from: Option<Format>,
    /// The name of the split, where the source has none.
    pub split: Option<String>,
    /// The part of the images that becomes the split `val`, where the source has one split.
    pub val: Option<f64>,
    /// Which images those are.
    pub seed: u64,
    /// The number of the first pixel in corners of VOC and tables, 0 or 1. VOC's
    /// own tools count from 1, both corners inside; many others from 0, the second corner outside.
    pub origin: Option<u8>,
    /// What becomes of VOC's difficult objects.
    pub difficult: Difficult,
    /// Hard links instead of copies of the images.
    pub link: bool,
}

/// What a split of the new folder holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitSummary {
    /// Its name.
    pub name: String,
    /// How many images.
    pub images: usize,
    /// How many boxes.
    pub annotations: usize,
    /// How many categories.
    pub categories: usize,
}

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was read.
    #[serde(serialize_with = "crate::data::lossy")]
    pub source: PathBuf,
    /// The form it was in.
    pub format: Format,
    /// The new folder.
    #[serde(serialize_with = "crate::data::lossy")]
    pub out: PathBuf,
    /// Its splits, by name.
    pub splits: Vec<SplitSummary>,
    /// The number of the first pixel in corners, where the form leaves it open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<u8>,
    /// What was left out, changed, or left although it is wrong.
    pub log: Log,
}

/// Told how many of how many images are done, from several threads: looked at first, then copied.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Makes the folder `out`, which must not exist or be empty, of the data set `source`: a folder, or
/// the file that describes it.
///
/// # Errors
/// See [`ConvertError`]; then `out` is as it was.
pub fn convert(
    source: &Path,
    out: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Outcome, ConvertError> {
    write::refuse_used(out)?;
    let files = Files::of(source)?;
    write::refuse_inside(out, &files.root)?;
    let format = recognise::format(&files, options.from)?;
    let mut read = match format {
        Format::Voc => voc::read(&files, options)?,
        Format::Yolo => yolo::read(&files, options)?,
        Format::Csv => table::read(&files, options)?,
        Format::Coco => json::read(&files, options)?,
    };
    if read.log.is_empty() && read.splits.iter().all(|split| split.images.is_empty()) {
        return Err(ConvertError::Nothing { path: source.to_owned(), what: format.name() });
    }
    parts::take_val(&mut read, options)?;
    settle::settle(&mut read, settle::Care::Header, progress);
    parts::place(&mut read, &files)?;
    parts::number(&mut read, format);
    finish(source, out, format, read, options.link, progress)
}

/// Makes the folder `out`, which must not exist or be empty, of the data set in COCO's form in `root`,
/// with everything repaired that has one right answer.
///
/// # Errors
/// See [`ConvertError`]; then `out` is as it was. An annotation file that can't be read at all is one.
pub fn fix(
    root: &Path,
    out: &Path,
    link: bool,
    progress: Progress<'_>,
) -> Result<Outcome, ConvertError> {
    write::refuse_used(out)?;
    write::refuse_inside(out, root)?;
    let mut read = json::read_layout(root)?;
    settle::settle(&mut read, settle::Care::Pixels, progress);
    parts::keep_listed(&mut read);
    parts::number(&mut read, Format::Coco);
    finish(root, out, Format::Coco, read, link, progress)
}

fn finish(
    source: &Path,
    out: &Path,
    format: Format,
    mut read: Source,
    link: bool,
    progress: Progress<'_>,
) -> Result<Outcome, ConvertError> {
    parts::leave_out_empty(&mut read);
    if read.splits.is_empty() {
        return Err(ConvertError::NothingLeft {
            path: source.to_owned(),
            why: read.log.first_drop(),
        });
    }
    parts::note_shared_names(&mut read);
    write::folder(out, &read, link, progress)?;
    let mut splits: Vec<SplitSummary> = read
        .splits
        .iter()
        .map(|split| SplitSummary {
            name: split.name.clone(),
            images: split.images.len(),
            annotations: split.images.iter().map(|i| i.objects.len()).sum(),
            categories: split.categories.len(),
        })
        .collect();
    splits.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Outcome {
        source: source.to_owned(),
        format,
        out: out.to_owned(),
        splits,
        origin: read.origin,
        log: read.log,
    })
}
