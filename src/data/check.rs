//! Looks for mistakes in a data set: every split, every entry, every file.
//!
//! An *error* is what training or evaluation refuses or would do wrongly; a *warning* is used as it is
//! but is probably a mistake; a *note* is legitimate and worth knowing. Annotation files are read entry
//! by entry, so that a broken one is a finding and not the end.

mod annotations;
mod files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub(super) use self::files::leaves;

use super::coco::DataError;
use super::layout::{self, MINIVAL, TRAINVAL_MINUS_MINIVAL};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Training or evaluation refuses it or would be wrong.
    Error,
    /// Used as it is, probably a mistake.
    Warning,
    /// Legitimate.
    Note,
}

/// What can be found. The order is that of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "Kind::meaning says it")]
pub enum Kind {
    UnreadableAnnotations,
    EmptyList,
    MissingImageFolder,
    BrokenEntry,
    DuplicateImageId,
    DuplicateAnnotationId,
    DuplicateCategoryId,
    UnknownImage,
    UnknownCategory,
    BadFileName,
    BadDeclaredSize,
    BadBox,
    NoAreaOrCrowd,
    MissingFile,
    UndecodableFile,
    SizeMismatch,
    ExifMismatch,
    DamagedFile,
    ExifAmbiguous,
    ZeroAreaBox,
    AreaOfNone,
    SharedName,
    NoName,
    BoxOutOfImage,
    BoxUnder2Px,
    RepeatedBox,
    DifferentCategories,
    IdenticalAcrossSplits,
    IdenticalWithinSplit,
    SplitWithoutBoxes,
    ImageWithoutBoxes,
    Crowd,
}

impl Kind {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::UnreadableAnnotations
            | Self::EmptyList
            | Self::MissingImageFolder
            | Self::BrokenEntry
            | Self::DuplicateImageId
            | Self::DuplicateAnnotationId
            | Self::DuplicateCategoryId
            | Self::UnknownImage
            | Self::UnknownCategory
            | Self::BadFileName
            | Self::BadDeclaredSize
            | Self::BadBox
            | Self::NoAreaOrCrowd
            | Self::MissingFile
            | Self::UndecodableFile
            | Self::SizeMismatch
            | Self::ExifMismatch => Severity::Error,
            Self::DamagedFile
            | Self::ExifAmbiguous
            | Self::ZeroAreaBox
            | Self::AreaOfNone
            | Self::SharedName
            | Self::NoName
            | Self::BoxOutOfImage
            | Self::BoxUnder2Px
            | Self::RepeatedBox
            | Self::DifferentCategories
            | Self::IdenticalAcrossSplits
            | Self::IdenticalWithinSplit
            | Self::SplitWithoutBoxes => Severity::Warning,
            Self::ImageWithoutBoxes | Self::Crowd => Severity::Note,
        }
    }

    /// In words, for a table.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::UnreadableAnnotations => "annotation file that can't be read",
            Self::EmptyList => "lists that must not be empty or missing",
            Self::MissingImageFolder => "image folder missing",
            Self::BrokenEntry => "entries that can't be read",
            Self::DuplicateImageId => "image ids used twice",
            Self::DuplicateAnnotationId => "annotation ids used twice",
            Self::DuplicateCategoryId => "category ids used twice",
            Self::UnknownImage => "annotations of unlisted images",
            Self::UnknownCategory => "annotations of unlisted categories",
            Self::BadFileName => "file names that leave the image folder",
            Self::BadDeclaredSize => "declared sizes that can't be",
            Self::BadBox => "boxes that are none",
            Self::NoAreaOrCrowd => {
                "annotations without area or iscrowd, which `eval` refuses: --fix OUT fills them in"
            }
            Self::MissingFile => "missing files",
            Self::UndecodableFile => "files that can't be decoded",
            Self::SizeMismatch => "files of another size than declared",
            Self::ExifMismatch => "annotated before EXIF turned the image",
            Self::DamagedFile => "damaged files that still decode",
            Self::ExifAmbiguous => "turned by EXIF, boxes may be for either side",
            Self::ZeroAreaBox => "boxes without area",
            Self::AreaOfNone => {
                "areas of 0 or less, of boxes that have one: --fix OUT fills them in"
            }
            Self::SharedName => "categories with the name of another",
            Self::NoName => "categories without a name",
            Self::BoxOutOfImage => "boxes that leave the image",
            Self::BoxUnder2Px => "boxes under 2 pixels on a side",
            Self::RepeatedBox => "boxes that stand there twice",
            Self::DifferentCategories => "categories that differ between splits",
            Self::IdenticalAcrossSplits => "the same picture in several splits",
            Self::IdenticalWithinSplit => "the same picture twice in a split",
            Self::SplitWithoutBoxes => "splits without a single box",
            Self::ImageWithoutBoxes => "images without boxes",
            Self::Crowd => "crowd boxes",
        }
    }
}

/// One place where something was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Example {
    /// The image's number, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<i64>,
    /// The image's name in the annotation file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// The annotation's number, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotation_id: Option<i64>,
    /// What is there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl std::fmt::Display for Example {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        match (&self.file_name, self.image_id) {
            (Some(name), _) => parts.push(name.clone()),
            (None, Some(id)) => parts.push(format!("image {id}")),
            (None, None) => {}
        }
        parts.extend(self.annotation_id.map(|id| format!("annotation {id}")));
        parts.extend((!self.detail.is_empty()).then(|| self.detail.clone()));
        f.write_str(&parts.join(": "))
    }
}

/// One kind of finding in one split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// Where; `None` is between splits.
    pub split: Option<String>,
    /// How often.
    pub count: usize,
    /// Each place, in the order of the files.
    pub examples: Vec<Example>,
}

/// What a split holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Split {
    /// Its name.
    pub name: String,
    /// Its annotation file.
    #[serde(serialize_with = "crate::data::lossy")]
    pub annotations_file: PathBuf,
    /// Images listed.
    pub images: usize,
    /// Annotations listed.
    pub annotations: usize,
    /// Categories listed.
    pub categories: usize,
}

/// What was looked at and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The folder.
    #[serde(serialize_with = "crate::data::lossy")]
    pub data: PathBuf,
    /// Every split with an annotation file.
    pub splits: Vec<Split>,
    /// By kind, then split.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many places have a finding of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).map(|f| f.count).sum()
    }
}

/// Findings in the making: by kind, then split.
#[derive(Debug, Default)]
struct Findings(BTreeMap<(Kind, Option<String>), Vec<Example>>);

impl Findings {
    fn add(&mut self, kind: Kind, split: &str, example: Example) {
        self.0.entry((kind, Some(split.to_owned()))).or_default().push(example);
    }

    fn add_between(&mut self, kind: Kind, detail: String) {
        let example = Example { detail, ..Example::default() };
        self.0.entry((kind, None)).or_default().push(example);
    }
}

/// Checks every split of the data set in `root`.
///
/// `progress` is told how many of how many files are done, from several threads. Only a folder without
/// annotation files is an error here; whatever else is wrong is a finding.
pub fn check(root: &Path, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Report, DataError> {
    if !root.is_dir() {
        let advice = layout::advice(root);
        return Err(DataError::NoFolder { path: root.to_owned(), advice });
    }
    let names: Vec<String> = layout::splits(root)
        .into_iter()
        // Their images are those of val2014 and train2014.
        .filter(|name| name != MINIVAL && name != TRAINVAL_MINUS_MINIVAL)
        .collect();
    if names.is_empty() {
        let advice = layout::advice(root);
        return Err(DataError::NoAnnotations { root: root.to_owned(), advice });
    }
    let mut findings = Findings::default();
    let mut read = Vec::new();
    for name in names {
        let layout = layout::layout(root, &name);
        read.push(annotations::check(&name, &layout, &mut findings));
    }
    files::check(&read, &mut findings, progress);
    compare_categories(&read, &mut findings);

    let splits = read.into_iter().map(|s| s.summary).collect();
    let findings = findings.0.into_iter().map(|((kind, split), examples)| Finding {
        kind,
        severity: kind.severity(),
        split,
        count: examples.len(),
        examples,
    });
    Ok(Report { data: root.to_owned(), splits, findings: findings.collect() })
}

/// Splits must mean the same by a category id.
fn compare_categories(splits: &[annotations::Read], findings: &mut Findings) {
    let mut known: BTreeMap<i64, (&str, &str)> = BTreeMap::new();
    for split in splits {
        for (&id, name) in &split.categories {
            let (other, first) = *known.entry(id).or_insert((name, &split.summary.name));
            if other != name {
                let here = &split.summary.name;
                findings.add_between(
                    Kind::DifferentCategories,
                    format!("category {id} is '{other}' in {first} and '{name}' in {here}"),
                );
            }
        }
    }
    for split in splits.iter().filter(|s| !s.categories.is_empty()) {
        let missing: Vec<String> = known
            .iter()
            .filter(|(id, _)| !split.categories.contains_key(id))
            .map(|(id, (name, _))| format!("{id} '{name}'"))
            .collect();
        if !missing.is_empty() {
            let detail = format!("{} lacks {}", split.summary.name, missing.join(", "));
            findings.add_between(Kind::DifferentCategories, detail);
        }
    }
}
