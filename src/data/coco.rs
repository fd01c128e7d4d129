//! Data sets in COCO's form: annotation file -> [`Dataset`], category id <-> [`Label`].
//!
//! Reading is strict: what would train or score wrongly is an error that names the entry. `detect
//! check` lists every such entry at once. Segmentations and keys that the program does not use are
//! skipped without being kept.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::layout::{self, Layout, MINIVAL, MINIVAL_IDS, TRAINVAL_MINUS_MINIVAL};
use super::raw::{RawAnnotation, RawCategory, RawImage, from_json, unsafe_file_name};
use crate::geometry::{Box2, Label, Size};
use crate::page::printable;

/// Why a data set can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum DataError {
    #[error("no data set at {}: {advice}", path.display())]
    NoFolder { path: PathBuf, advice: String },
    #[error("{} has no split '{split}' ({found}): {advice}", root.display())]
    NoSplit { root: PathBuf, split: String, found: String, advice: String },
    #[error("{} has no annotation files: {advice}", root.display())]
    NoAnnotations { root: PathBuf, advice: String },
    #[error("'{split}' is not the name of a split")]
    SplitName { split: String },
    #[error("{} needs its images in {}, which is not a folder", annotations.display(), path.display())]
    NoImageFolder { path: PathBuf, annotations: PathBuf },
    #[error(
        "{} is missing: it lists the images of COCO's minival split, and is published at \
         https://github.com/tensorflow/models in research/object_detection/data", path.display()
    )]
    NoMinivalIds { path: PathBuf },
    #[error("{}, line {line}: '{text}' is not an image id of val2014", path.display())]
    MinivalId { path: PathBuf, line: usize, text: String },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not an annotation file in COCO's form", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{} has no {what}", path.display())]
    Empty { path: PathBuf, what: &'static str },
    #[error("{}: {what} {ids} more than once", path.display())]
    Duplicate { path: PathBuf, what: &'static str, ids: String },
    #[error("{}: annotations name {what} that the file does not list: {ids}", path.display())]
    Unknown { path: PathBuf, what: &'static str, ids: String },
    #[error(
        "{}: the box of annotation {id} (image {image_id}){}: {problem}",
        path.display(), bbox.map_or(String::new(), |bbox| format!(" is {bbox:?}"))
    )]
    BadBox { path: PathBuf, id: i64, image_id: i64, bbox: Option<[f64; 4]>, problem: &'static str },
    #[error("{}: file_name '{}' of image {id} {problem}", path.display(), printable(file_name))]
    BadFileName { path: PathBuf, id: i64, file_name: String, problem: &'static str },
    #[error("{}: image {id} declares a size of {width} x {height}", path.display())]
    BadSize { path: PathBuf, id: i64, width: f64, height: f64 },
}

/// A kind of object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// Its number in files.
    pub id: i64,
    /// What people call it.
    pub name: String,
}

/// One object in one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// Its number in files.
    pub id: i64,
    /// What it is.
    pub label: Label,
    /// Where, in pixels of the original image; it may reach beyond the image or have no area.
    pub bbox: Box2,
    /// Area in square pixels as the file gives it (of the segmentation, in COCO), else the box's.
    pub area: f64,
    /// Whether the box is around many objects that are not told apart.
    pub crowd: bool,
}

/// One image and what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRecord {
    /// Its number in files.
    pub id: i64,
    /// Where it lies; not looked for until it is read.
    pub file: PathBuf,
    /// How the annotation file calls it.
    pub file_name: String,
    /// Its size as the annotation file declares it.
    pub size: Option<Size>,
    /// In the order of the file.
    pub annotations: Vec<Annotation>,
}

/// One split of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The folder.
    pub root: PathBuf,
    /// The name of the split.
    pub split: String,
    /// The annotation file; `trainval-minus-minival` has two.
    pub annotation_files: Vec<PathBuf>,
    /// Sorted by id: `Label(i)` is `categories[i]`.
    pub categories: Vec<Category>,
    /// Sorted by id.
    pub images: Vec<ImageRecord>,
}

/// `$DETECT_DATA`, else `data/coco`.
pub fn default_root() -> PathBuf {
    match std::env::var_os("DETECT_DATA") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => Path::new("data").join("coco"),
    }
}

impl Dataset {
    /// Reads the annotations of `split` in the folder `root`. Images are not opened.
    pub fn open(root: &Path, split: &str) -> Result<Self, DataError> {
        let (annotation_files, (categories, images)) = match split {
            MINIVAL | TRAINVAL_MINUS_MINIVAL => {
                let val = layout::find(root, "val2014")?;
                let mut parts = read(&val)?;
                let minival = minival_ids(root, &parts.1)?;
                let wanted = split == MINIVAL;
                parts.1.retain(|image| minival.contains(&image.id) == wanted);
                if wanted {
                    (vec![val.annotations], parts)
                } else {
                    let train = layout::find(root, "train2014")?;
                    let parts = joined(read(&train)?, parts, &train.annotations)?;
                    (vec![train.annotations, val.annotations], parts)
                }
            }
            _ => {
                let layout = layout::find(root, split)?;
                let parts = read(&layout)?;
                (vec![layout.annotations], parts)
            }
        };
        if images.is_empty() {
            let path = annotation_files.into_iter().next().unwrap_or_default();
            return Err(DataError::Empty { path, what: "images" });
        }
        Ok(Self {
            root: root.to_owned(),
            split: split.to_owned(),
            annotation_files,
            categories,
            images,
        })
    }

    /// The dense label of a category id.
    pub fn label_of(&self, category_id: i64) -> Option<Label> {
        self.categories.binary_search_by_key(&category_id, |c| c.id).ok().map(Label)
    }

    /// SHA-256 (hexadecimal) of the image ids in rising order, each in decimal and ended by a newline:
    /// two scores are comparable only where it is the same.
    pub fn image_ids_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for image in &self.images {
            hash.update(format!("{}\n", image.id));
        }
        hex(&hash.finalize())
    }
}

/// `bytes` in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String does not fail
        text
    })
}

type Parts = (Vec<Category>, Vec<ImageRecord>);

/// The annotation file as it stands.
#[derive(Deserialize)]
struct RawFile {
    images: Vec<RawImage>,
    annotations: Option<Vec<RawAnnotation>>,
    categories: Vec<RawCategory>,
}

fn read(layout: &Layout) -> Result<Parts, DataError> {
    let path = layout.annotations.as_path();
    let bytes =
        std::fs::read(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let raw: RawFile =
        from_json(&bytes).map_err(|source| DataError::Json { path: path.to_owned(), source })?;
    let test_dev = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("image_info_"));
    if raw.annotations.is_none() && !test_dev {
        return Err(DataError::Empty { path: path.to_owned(), what: "key 'annotations'" });
    }
    if raw.categories.is_empty() {
        return Err(DataError::Empty { path: path.to_owned(), what: "categories" });
    }
    let mut categories: Vec<Category> =
        raw.categories.into_iter().map(|c| Category { id: c.id, name: c.name }).collect();
    categories.sort_by_key(|c| c.id);
    refuse_duplicates(path, "categories have the id", categories.iter().map(|c| c.id))?;

    let mut images = Vec::with_capacity(raw.images.len());
    for image in raw.images {
        if let Some(problem) = unsafe_file_name(&image.file_name) {
            let (id, file_name) = (image.id, image.file_name);
            return Err(DataError::BadFileName { path: path.to_owned(), id, file_name, problem });
        }
        let size = image.size().map_err(|[width, height]| DataError::BadSize {
            path: path.to_owned(),
            id: image.id,
            width,
            height,
        })?;
        images.push(ImageRecord {
            id: image.id,
            file: layout.images.join(&image.file_name),
            file_name: image.file_name,
            size,
            annotations: Vec::new(),
        });
    }
    images.sort_by_key(|i| i.id);
    refuse_duplicates(path, "images have the id", images.iter().map(|i| i.id))?;

    let index: HashMap<i64, usize> = images.iter().enumerate().map(|(i, r)| (r.id, i)).collect();
    let (mut no_image, mut no_category) = (Vec::new(), Vec::new());
    for raw in raw.annotations.unwrap_or_default() {
        let label = categories.binary_search_by_key(&raw.category_id, |c| c.id);
        let (Some(&i), Ok(label)) = (index.get(&raw.image_id), label) else {
            if !index.contains_key(&raw.image_id) {
                no_image.push(raw.image_id);
            }
            if label.is_err() {
                no_category.push(raw.category_id);
            }
            continue;
        };
        let [x, y, w, h] = raw.checked_box().map_err(|problem| DataError::BadBox {
            path: path.to_owned(),
            id: raw.id,
            image_id: raw.image_id,
            bbox: raw.bbox,
            problem,
        })?;
        // Corners are added up in f32, as torchvision's users do: the filters compare them.
        let (x1, y1) = (x as f32, y as f32);
        images[i].annotations.push(Annotation {
            id: raw.id,
            label: Label(label),
            bbox: Box2::new(x1, y1, x1 + w as f32, y1 + h as f32),
            area: raw.area.unwrap_or(w * h),
            crowd: raw.crowd(),
        });
    }
    for (what, ids) in [("images", no_image), ("categories", no_category)] {
        if !ids.is_empty() {
            return Err(DataError::Unknown { path: path.to_owned(), what, ids: first_ten(&ids) });
        }
    }
    Ok((categories, images))
}

/// An error that names the ids that stand more than once in `ids`, which are sorted.
fn refuse_duplicates(
    path: &Path,
    what: &'static str,
    ids: impl Iterator<Item = i64> + Clone,
) -> Result<(), DataError> {
    let twice: Vec<i64> =
        ids.clone().zip(ids.skip(1)).filter(|(a, b)| a == b).map(|(a, _)| a).collect();
    if twice.is_empty() {
        return Ok(());
    }
    Err(DataError::Duplicate { path: path.to_owned(), what, ids: first_ten(&twice) })
}

/// The first ten different ids, and how many more there are.
fn first_ten(ids: &[i64]) -> String {
    let mut seen = HashSet::new();
    let unique: Vec<String> =
        ids.iter().filter(|&&id| seen.insert(id)).map(ToString::to_string).collect();
    let more = unique.len().saturating_sub(10);
    let shown = unique[..unique.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// The ids of [`MINIVAL_IDS`], each of which is in `val`.
fn minival_ids(root: &Path, val: &[ImageRecord]) -> Result<HashSet<i64>, DataError> {
    let path = root.join(MINIVAL_IDS);
    if !path.is_file() {
        return Err(DataError::NoMinivalIds { path });
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|source| DataError::Read { path: path.clone(), source })?;
    let mut ids = HashSet::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        match text.trim().parse() {
            Ok(id) if val.binary_search_by_key(&id, |i| i.id).is_ok() => ids.insert(id),
            _ => {
                return Err(DataError::MinivalId { path, line: line + 1, text: text.to_owned() });
            }
        };
    }
    Ok(ids)
}

/// The images of both, which have the same categories.
fn joined(a: Parts, b: Parts, path: &Path) -> Result<Parts, DataError> {
    if a.0 != b.0 {
        let what = "categories in common with val2014: the two files must list the same";
        return Err(DataError::Empty { path: path.to_owned(), what });
    }
    let mut images = a.1;
    images.extend(b.1);
    images.sort_by_key(|i| i.id);
    refuse_duplicates(
        path,
        "this file and val2014 have the image id",
        images.iter().map(|i| i.id),
    )?;
    Ok((a.0, images))
}
