//! `detect draw`: annotations on their images, to look at.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::output;
use crate::data::image::decode;
use crate::data::layout::{MINIVAL, TRAINVAL_MINUS_MINIVAL};
use crate::data::{Dataset, ImageRecord, layout};
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
    let mut asked: HashSet<&str> = args.image.iter().map(String::as_str).collect();
    let (mut failed, mut rows) = (0, Vec::new());
    for split in &splits {
        let data = Dataset::open(&args.data, split)
            .map_err(|error| {
                let error = anyhow::Error::new(error);
                anyhow::anyhow!(
                    "{error:#}\n`detect check DIR` lists all mistakes, `--fix` repairs what it can"
                )
            })
            .or_exit(Exit::Data)?;
        let wanted: Vec<&ImageRecord> = data
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
        let shown = &wanted[..wanted.len().min(args.limit)];
        if shown.len() < wanted.len() {
            let all = wanted.len();
            tracing::info!("{split}: {} of {all} images are drawn (--limit)", shown.len());
        }
        let outlines = outlines(&data, shown)?;
        let folder = args.out.join(split);
        let over = |image: &&&ImageRecord| {
            output::is_same(&folder.join(picture_name(&image.file_name)), &image.file)
        };
        if let Some(image) = shown.iter().find(over) {
            return crate::fail!(
                Exit::Usage,
                "--out {}: the picture of {} would take the place of the image itself; choose another folder",
                args.out.display(),
                image.file.display()
            );
        }
        let results: Vec<anyhow::Result<()>> =
            shown.par_iter().map(|image| draw(&data, image, &outlines, &folder)).collect();
        let mut boxes = 0;
        for (image, result) in shown.iter().zip(results) {
            match result {
                Ok(()) => boxes += image.annotations.len(),
                // A full disk ends it all, a bad image only itself.
                Err(error) if Exit::of(&error) == Exit::Output => return Err(error),
                Err(error) => {
                    failed += 1;
                    tracing::warn!("{error:#}");
                }
            }
        }
        if !shown.is_empty() {
            rows.push((split, shown.len(), boxes, folder));
        }
    }
    if let Some(image) = args.image.iter().find(|image| asked.contains(image.as_str())) {
        return crate::fail!(
            Exit::Usage,
            "no image '{image}' in {} ({}): --image takes an id or a file name of the annotations",
            args.data.display(),
            splits.join(", ")
        );
    }
    let mut out = std::io::stdout().lock();
    for (split, images, boxes, folder) in rows {
        writeln!(out, "{split}: {images} images with {boxes} boxes in {}", folder.display())?;
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::SomeInputsFailed })
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
        #[serde(borrow, default)]
        annotations: Vec<Entry<'a>>,
    }
    let wanted: HashSet<i64> = images.iter().map(|image| image.id).collect();
    let mut outlines = Outlines::new();
    for path in &data.annotation_files {
        let bytes = std::fs::read(path)
            .with_context(|| format!("cannot read {}", path.display()))
            .or_exit(Exit::Data)?;
        // What the strict reader took and this one does not (a byte order mark, NaN) has no outlines here.
        let Ok(file) = serde_json::from_slice::<File<'_>>(&bytes) else { continue };
        let entries = file.annotations.into_iter().filter(|entry| wanted.contains(&entry.image_id));
        outlines.extend(entries.filter_map(|entry| {
            match Segmentation::from_json(entry.segmentation?.get()) {
                Ok(Segmentation::Polygons(polygons)) => Some((entry.id, polygons)),
                _ => None,
            }
        }));
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
