//! `detect draw`: annotations on their images, to look at.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::data::image::decode;
use crate::data::layout::{MINIVAL, TRAINVAL_MINUS_MINIVAL};
use crate::data::{Dataset, ImageRecord, layout, plain_json};
use crate::draw::{Labelled, annotate, outline, save};
use crate::eval::masks::Segmentation;
use crate::failure::{Exit, OrExit as _};

/// `detect draw`
#[derive(Debug, Clone, Args)]
pub struct DrawArgs {
    /// Data set folder
    #[arg(value_name = "DIR")]
    pub data: PathBuf,
    /// Only this split [default: all]
    #[arg(long, value_name = "S")]
    pub split: Option<String>,
    /// Write the pictures into SPLIT/ in this folder; older ones of the same name are replaced
    #[arg(long, value_name = "DIR", default_value = "drawn")]
    pub out: PathBuf,
    /// At most this many images a split, the first by id
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Only this image; may be repeated
    #[arg(long, value_name = "ID|NAME")]
    pub image: Vec<String>,
}

pub(super) fn run(args: &DrawArgs) -> anyhow::Result<Exit> {
    let splits = match &args.split {
        Some(split) => vec![split.clone()],
        // Those that are made of others show nothing new.
        None => layout::splits(&args.data)
            .into_iter()
            .filter(|split| ![MINIVAL, TRAINVAL_MINUS_MINIVAL].contains(&split.as_str()))
            .collect(),
    };
    if splits.is_empty() {
        // Says what a data set looks like.
        Dataset::open(&args.data, "train").or_exit(Exit::Data)?;
    }
    let sets =
        splits.iter().map(|split| open(&args.data, split)).collect::<anyhow::Result<Vec<_>>>()?;
    let parts = choose(args, &sets)?;
    keep_images(&args.out, &parts)?;
    let (mut failed, mut rows) = (0, Vec::new());
    for Part { data, asked, shown, folder } in &parts {
        let outlines = outlines(data, shown)?;
        let results: Vec<anyhow::Result<()>> =
            shown.par_iter().map(|image| draw(data, image, &outlines, folder)).collect();
        let (mut images, mut boxes) = (0, 0);
        for (image, result) in shown.iter().zip(results) {
            match result {
                Ok(()) => {
                    images += 1;
                    boxes += image.annotations.len();
                }
                // A full disk ends it all, a bad image only itself.
                Err(error) if Exit::of(&error) == Exit::Output => return Err(error),
                Err(error) => {
                    failed += 1;
                    tracing::warn!("{error:#}");
                }
            }
        }
        if *asked > 0 {
            rows.push((&data.split, images, boxes, folder));
        }
    }
    let mut out = std::io::stdout().lock();
    for (split, images, boxes, folder) in rows {
        writeln!(out, "{split}: {images} images with {boxes} boxes in {}", folder.display())?;
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::SomeInputsFailed })
}

fn open(root: &Path, split: &str) -> anyhow::Result<Dataset> {
    Dataset::open(root, split)
        .map_err(|error| {
            let error = anyhow::Error::new(error);
            anyhow::anyhow!(
                "{error:#}\n`detect check DIR` lists all mistakes, `--fix` repairs what it can"
            )
        })
        .or_exit(Exit::Data)
}

/// What is drawn of a split, and where.
struct Part<'a> {
    data: &'a Dataset,
    /// How many images are asked for, before the limit.
    asked: usize,
    shown: Vec<&'a ImageRecord>,
    folder: PathBuf,
}

/// The images that are asked for.
fn choose<'a>(args: &DrawArgs, sets: &'a [Dataset]) -> anyhow::Result<Vec<Part<'a>>> {
    let mut asked: HashSet<&str> = args.image.iter().map(String::as_str).collect();
    let mut parts = Vec::new();
    for data in sets {
        let mut shown: Vec<&ImageRecord> = data
            .images
            .iter()
            .filter(|image| {
                let id = image.id.to_string();
                let name = image.file_name.rsplit('/').next().unwrap_or_default();
                let hit = args
                    .image
                    .iter()
                    .find(|a| **a == id || **a == image.file_name || a.as_str() == name);
                if let Some(hit) = hit {
                    asked.remove(hit.as_str());
                }
                hit.is_some() || args.image.is_empty()
            })
            .collect();
        let all = shown.len();
        shown.truncate(args.limit);
        if shown.len() < all {
            tracing::info!("{}: {} of {all} images are drawn (--limit)", data.split, shown.len());
        }
        parts.push(Part { data, asked: all, shown, folder: args.out.join(&data.split) });
    }
    if let Some(image) = args.image.iter().find(|image| asked.contains(image.as_str())) {
        let splits: Vec<&str> = sets.iter().map(|data| data.split.as_str()).collect();
        return crate::fail!(
            Exit::Usage,
            "no image '{image}' in {} ({}): --image takes an id or a file name of the annotations",
            args.data.display(),
            splits.join(", ")
        );
    }
    Ok(parts)
}

/// Refuses pictures that would take the place of images of the set. All splits are looked at before the
/// first picture is drawn, so that nothing is written then.
fn keep_images(out: &Path, parts: &[Part<'_>]) -> anyhow::Result<()> {
    // What lies where pictures go: mostly nothing, or pictures of an earlier call.
    let mut there = HashSet::new();
    for Part { shown, folder, .. } in parts {
        let paths = shown.iter().map(|image| folder.join(picture_name(&image.file_name)));
        there.extend(paths.filter_map(|path| path.canonicalize().ok()));
    }
    if there.is_empty() {
        return Ok(());
    }
    let over =
        |image: &&ImageRecord| image.file.canonicalize().is_ok_and(|file| there.contains(&file));
    let Some(image) = parts.iter().flat_map(|part| &part.data.images).find(over) else {
        return Ok(());
    };
    crate::fail!(
        Exit::Usage,
        "--out {}: a picture would take the place of {}, an image of the data set; choose another folder",
        out.display(),
        image.file.display()
    )
}

/// Polygons of annotations, by id. Masks of other forms have none.
type Outlines = HashMap<i64, Vec<Vec<f64>>>;

fn outlines(data: &Dataset, images: &[&ImageRecord]) -> anyhow::Result<Outlines> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        id: i64,
        image_id: i64,
        #[serde(borrow)]
        segmentation: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow)]
        annotations: Option<Vec<Entry<'a>>>,
    }
    let wanted: HashSet<i64> = images.iter().map(|image| image.id).collect();
    let (mut outlines, mut runs, mut broken) = (Outlines::new(), 0, 0);
    for path in &data.annotation_files {
        let bytes = std::fs::read(path)
            .with_context(|| format!("cannot read {}", path.display()))
            .or_exit(Exit::Data)?;
        let bytes = plain_json(bytes);
        let file: File<'_> = serde_json::from_slice(&bytes)
            .with_context(|| format!("cannot read the masks of {}", path.display()))
            .or_exit(Exit::Data)?;
        for entry in file.annotations.into_iter().flatten() {
            let Some(mask) = entry.segmentation.filter(|_| wanted.contains(&entry.image_id)) else {
                continue;
            };
            match Segmentation::from_json(mask.get()) {
                Ok(Segmentation::Polygons(polygons)) => {
                    outlines.insert(entry.id, polygons);
                }
                Ok(Segmentation::Counts { .. } | Segmentation::Compressed { .. }) => runs += 1,
                Err(_) => broken += 1,
            }
        }
    }
    for (count, what) in [(runs, "masks in run-length form"), (broken, "masks that can't be read")]
    {
        if count > 0 {
            tracing::info!("{}: {count} {what} are not drawn as outlines", data.split);
        }
    }
    Ok(outlines)
}

fn draw(
    data: &Dataset,
    image: &ImageRecord,
    outlines: &Outlines,
    folder: &Path,
) -> anyhow::Result<()> {
    let mut picture = decode(&image.file).or_exit(Exit::Data)?.image;
    if let Some(declared) = image.size.filter(|declared| *declared != picture.size) {
        let is = picture.size;
        tracing::warn!(
            "{}: is {is} (height x width), its boxes were made for {declared}",
            image.file_name
        );
    }
    let mut items = Vec::new();
    for annotation in &image.annotations {
        let class = annotation.label.0;
        for polygon in outlines.get(&annotation.id).into_iter().flatten() {
            outline(&mut picture, polygon, class);
        }
        let crowd = if annotation.crowd { " (crowd)" } else { "" };
        let text = format!("{}{crowd}", data.categories[class].name);
        items.push(Labelled { bbox: annotation.bbox, text, class });
    }
    let picture = annotate(&picture, &items);
    let path = folder.join(picture_name(&image.file_name));
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot make the folder {}", parent.display()))
        .or_exit(Exit::Output)?;
    save(&picture, &path).or_exit(Exit::Output)
}

/// The image's name; formats that are not written get another ending, so that names stay apart.
fn picture_name(file_name: &str) -> String {
    let extension = Path::new(file_name).extension().unwrap_or_default().to_string_lossy();
    match extension.to_lowercase().as_str() {
        "jpg" | "jpeg" | "png" => file_name.to_owned(),
        _ => format!("{file_name}.jpg"),
    }
}
