//! The new folder, whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::ConvertError;
use super::model::{Declared, Object, Outline, Source, Split};
use crate::whole;

/// An error if `out` is anything but a name that is free or an empty folder.
pub(super) fn refuse_used(out: &Path) -> Result<(), ConvertError> {
    match fs::read_dir(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(ConvertError::Used { path: out.to_owned() }),
        },
        Err(_) => Err(ConvertError::Used { path: out.to_owned() }),
    }
}

/// An error if `out` is or would lie in the folder `source`: what is made would be read as a part of the
/// source from then on, with each image twice.
pub(super) fn refuse_inside(out: &Path, source: &Path) -> Result<(), ConvertError> {
    // Of `out` only some folders above may exist.
    let (Ok(source), Ok(absolute)) = (fs::canonicalize(source), std::path::absolute(out)) else {
        return Ok(());
    };
    let above = absolute.ancestors().find_map(|folder| fs::canonicalize(folder).ok());
    if above.is_some_and(|folder| folder.starts_with(&source)) {
        let message = format!(
            "{} lies in the source folder {}, which could not be read again with it: name a folder outside",
            out.display(),
            source.display()
        );
        return Err(ConvertError::Usage { message });
    }
    Ok(())
}

/// Writes annotations and images to `out`.
pub(super) fn folder(
    out: &Path,
    source: &Source,
    link: bool,
    progress: super::Progress<'_>,
) -> Result<(), ConvertError> {
    let failed = |path: &Path, source| ConvertError::Write { path: path.to_owned(), source };
    let mut images: BTreeMap<PathBuf, &Path> = BTreeMap::new();
    for split in &source.splits {
        for image in &split.images {
            images.insert(split.image_folder.join(&image.name), &image.file);
        }
    }
    let done = AtomicUsize::new(0);
    let made = whole::write_folder(out, |new| -> Result<(), ConvertError> {
        let folder_of = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
        let mut folders: Vec<PathBuf> = images.keys().map(|path| folder_of(path)).collect();
        folders.extend(source.splits.iter().map(|split| split.image_folder.clone()));
        folders.extend(source.splits.iter().map(|split| folder_of(&split.annotations_file)));
        folders.dedup();
        for folder in folders {
            fs::create_dir_all(new.join(&folder)).map_err(|e| failed(&out.join(&folder), e))?;
        }
        images.par_iter().try_for_each(|(name, file)| -> Result<(), ConvertError> {
            bring(file, &new.join(name), link).map_err(|e| failed(&out.join(name), e))?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, images.len());
            Ok(())
        })?;
        for split in &source.splits {
            let path = new.join(&split.annotations_file);
            whole::write(&path, |file| annotations(split, file))
                .map_err(|e| failed(&out.join(&split.annotations_file), e))?;
        }
        for (name, content) in &source.further {
            whole::write(&new.join(name), |file| file.write_all(content))
                .map_err(|e| failed(&out.join(name), e))?;
        }
        Ok(())
    });
    match made {
        Ok(done) => done,
        Err(error) => Err(failed(out, error)),
    }
}

/// A copy, or a second name where links are asked for and can be had.
fn bring(file: &Path, to: &Path, link: bool) -> io::Result<()> {
    if link {
        // Of the file itself: a symbolic link would lead elsewhere from here.
        match fs::hard_link(fs::canonicalize(file)?, to) {
            Ok(()) => return Ok(()),
            // Another disk, or one that has no links.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::CrossesDevices
                        | io::ErrorKind::Unsupported
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::TooManyLinks
                ) => {}
            Err(e) => return Err(e),
        }
    }
    fs::copy(file, to).map(drop)
}

#[derive(Serialize)]
struct ImageEntry<'a> {
    id: i64,
    file_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<usize>,
    #[serde(flatten)]
    rest: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct ObjectEntry<'a> {
    id: i64,
    image_id: i64,
    category_id: i64,
    bbox: [f64; 4],
    area: f64,
    iscrowd: u8,
    segmentation: Mask<'a>,
    #[serde(flatten)]
    rest: &'a Map<String, Value>,
}

/// A list of polygons, or what stood in the source.
#[derive(Serialize)]
#[serde(untagged)]
enum Mask<'a> {
    Polygons(&'a [Vec<f64>]),
    Json(&'a RawValue),
}

#[derive(Serialize)]
struct CategoryEntry<'a> {
    id: i64,
    name: &'a str,
    #[serde(flatten)]
    rest: &'a Map<String, Value>,
}

fn annotations(split: &Split, file: &mut fs::File) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    out.write_all(b"{")?;
    for (key, value) in &split.head {
        serde_json::to_writer(&mut out, key)?;
        out.write_all(b": ")?;
        serde_json::to_writer(&mut out, value)?;
        out.write_all(b",\n")?;
    }
    list(
        &mut out,
        "images",
        split.images.iter().map(|image| {
            let size = match image.declared {
                Declared::Size(size) => Some(size),
                Declared::None | Declared::Bad(..) => None,
            };
            ImageEntry {
                id: image.id.unwrap_or_default(),
                file_name: &image.name,
                width: size.map(|s| s.width),
                height: size.map(|s| s.height),
                rest: &image.rest,
            }
        }),
    )?;
    if !split.without_truth {
        out.write_all(b",\n")?;
        let objects = split.images.iter().flat_map(|image| {
            image.objects.iter().map(move |object| entry(object, image.id.unwrap_or_default()))
        });
        list(&mut out, "annotations", objects)?;
    }
    out.write_all(b",\n")?;
    list(
        &mut out,
        "categories",
        split.categories.iter().map(|category| CategoryEntry {
            id: category.id,
            name: &category.name,
            rest: &category.rest,
        }),
    )?;
    out.write_all(b"}\n")?;
    out.flush()
}

fn entry(object: &Object, image_id: i64) -> ObjectEntry<'_> {
    let [_, _, w, h] = object.bbox;
    ObjectEntry {
        id: object.id.unwrap_or_default(),
        image_id,
        category_id: object.category_id,
        bbox: object.bbox,
        area: object.area.unwrap_or(w * h),
        iscrowd: u8::from(object.crowd),
        segmentation: match &object.outline {
            // Many programs want the key.
            Outline::None => Mask::Polygons(&[]),
            Outline::Polygons(polygons) => Mask::Polygons(polygons),
            Outline::Json(json) => Mask::Json(json),
        },
        rest: &object.rest,
    }
}

/// A list with a line for each entry.
fn list<T: Serialize>(
    out: &mut impl Write,
    name: &str,
    entries: impl Iterator<Item = T>,
) -> io::Result<()> {
    write!(out, "\"{name}\": [")?;
    for (i, entry) in entries.enumerate() {
        out.write_all(if i == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, &entry)?;
    }
    out.write_all(b"]")
}
