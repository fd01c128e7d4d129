//! The set as files: splits, JPEG images, COCO annotations, and a contact sheet to look at.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::scene::{About, Object, Scene};
use crate::stream::Stream;
use crate::things::CLASSES;

/// The seed of the shipped set.
pub(crate) const SEED: u64 = 2018;

/// How many samples are shipped.
pub(crate) const SAMPLES: u32 = 4;

/// JPEG quality: the most that keeps the set below 6 MB.
const QUALITY: u8 = 72;

/// Annotations of an image are numbered `image id * 10 + 1..=8`.
const ANNOTATIONS_AN_IMAGE: u64 = 10;

const SMALL: About = About { width: 312, height: 248, smallest: 19., least: 0 };
const LARGE: About = About { width: 640, height: 480, smallest: 40., least: 5 };

/// One part of the set.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) name: &'static str,
    /// Chooses the random stream.
    number: u32,
    /// Ids are unique over the splits: each has its own first one.
    first_id: u64,
    about: About,
}

impl Split {
    pub(crate) const TRAIN: Self = Self { name: "train", number: 0, first_id: 1, about: SMALL };
    pub(crate) const VAL: Self = Self { name: "val", number: 1, first_id: 100_001, about: SMALL };
    /// Larger, and never empty: to try the program on.
    pub(crate) const SAMPLE: Self =
        Self { name: "sample", number: 2, first_id: 200_001, about: LARGE };

    /// The scene of image `index`.
    pub(crate) fn scene(&self, seed: u64, index: u32) -> Scene {
        Scene::render(&mut Stream::new(seed, self.number, index), index, self.about)
    }

    /// Renders and encodes the first `count` images.
    pub(crate) fn render(&'static self, seed: u64, count: u32) -> Rendered {
        let images = (0..count).into_par_iter().map(|i| Image::new(self, seed, i)).collect();
        Rendered { split: self, seed, images }
    }
}

/// An image as it is written, and what stands in it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) file_name: String,
    id: u64,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) jpeg: Vec<u8>,
    pub(crate) objects: Vec<Object>,
}

impl Image {
    pub(crate) fn new(split: &Split, seed: u64, index: u32) -> Self {
        let Scene { canvas, objects } = split.scene(seed, index);
        let mut jpeg = vec![];
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode(
                &canvas.to_bytes(),
                canvas.width as u32,
                canvas.height as u32,
                image::ExtendedColorType::Rgb8,
            )
            .expect("a picture in memory of a JPEG's size");
        Self {
            file_name: format!("{}_{:04}.jpg", split.name, index + 1),
            id: split.first_id + u64::from(index),
            width: canvas.width,
            height: canvas.height,
            jpeg,
            objects,
        }
    }
}

/// A split, rendered.
#[derive(Debug)]
pub(crate) struct Rendered {
    split: &'static Split,
    seed: u64,
    pub(crate) images: Vec<Image>,
}

impl Rendered {
    pub(crate) fn file_names(&self) -> Vec<String> {
        self.images.iter().map(|i| i.file_name.clone()).collect()
    }

    /// The annotations in COCO form, one image or annotation a line.
    pub(crate) fn annotations(&self) -> String {
        let images = self.images.iter().map(|i| {
            json!({ "id": i.id, "file_name": i.file_name, "width": i.width, "height": i.height, "license": 1 })
        });
        let annotations = self.images.iter().flat_map(|image| {
            image.objects.iter().zip(1..).map(|(o, n): (_, u64)| {
                json!({
                    "id": image.id * ANNOTATIONS_AN_IMAGE + n, "image_id": image.id,
                    "category_id": CLASSES[o.class].id, "bbox": o.bbox, "area": o.area,
                    "iscrowd": 0, "segmentation": [],
                })
            })
        });
        let categories =
            CLASSES.iter().map(|c| json!({ "id": c.id, "name": c.name, "supercategory": c.group }));
        let info = json!({
            "description": format!("scenes, {}: rendered by tools/render_scenes", self.split.name),
            "version": "1", "seed": self.seed,
        });
        let licence = json!({ "id": 1, "name": "MIT OR Apache-2.0", "url": "" });
        let mut text = format!("{{\"info\": {info},\n\"licenses\": [{licence}]");
        list(&mut text, "images", images);
        list(&mut text, "annotations", annotations);
        list(&mut text, "categories", categories);
        text.push_str("}\n");
        text
    }

    /// Writes `annotations/NAME.json` and `images/` into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let (annotations, images) = (folder.join("annotations"), folder.join("images"));
        for path in [&annotations, &images] {
            std::fs::create_dir_all(path)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        let path = annotations.join(format!("{}.json", self.split.name));
        std::fs::write(&path, self.annotations())
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.write_images(&images)
    }

    /// Writes the images into `folder`.
    pub(crate) fn write_images(&self, folder: &Path) -> anyhow::Result<()> {
        for image in &self.images {
            let path = folder.join(&image.file_name);
            std::fs::write(&path, &image.jpeg)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Appends `"name": [...]`, one item a line.
fn list(text: &mut String, name: &str, items: impl Iterator<Item = Value>) {
    let lines: Vec<String> = items.map(|item| item.to_string()).collect();
    write!(text, ",\n\"{name}\": [\n{}\n]", lines.join(",\n")).expect("a String takes all");
}

/// Writes a split's images `images`, boxes drawn, side by side as one PNG.
pub(crate) fn write_sheet(
    path: &Path,
    split: &Split,
    seed: u64,
    images: Range<u32>,
) -> anyhow::Result<()> {
    const COLUMNS: u32 = 4;
    let cell = (split.about.width as f32 * 1.12) as u32 + 4;
    let count = images.len() as u32;
    let scenes: Vec<Scene> = images.into_par_iter().map(|i| split.scene(seed, i)).collect();
    let mut sheet = image::RgbImage::new(COLUMNS * cell, count.div_ceil(COLUMNS) * cell);
    for (scene, i) in scenes.iter().zip(0..) {
        let (left, top) = (i % COLUMNS * cell, i / COLUMNS * cell);
        let (w, h) = (scene.canvas.width as u32, scene.canvas.height as u32);
        let mut picture =
            image::RgbImage::from_raw(w, h, scene.canvas.to_bytes()).expect("three bytes a pixel");
        for object in &scene.objects {
            let [x, y, bw, bh] = object.bbox.map(|v| v as u32);
            // Just outside the box, so that a box one pixel too large shows.
            let (x1, y1, x2, y2) = (i64::from(x) - 1, i64::from(y) - 1, x + bw, y + bh);
            let sides = (x1..=i64::from(x2)).flat_map(|x| [(x, y1), (x, i64::from(y2))]);
            let ends = (y1..=i64::from(y2)).flat_map(|y| [(x1, y), (i64::from(x2), y)]);
            for (x, y) in sides.chain(ends) {
                if (0..i64::from(w)).contains(&x) && (0..i64::from(h)).contains(&y) {
                    picture.put_pixel(x as u32, y as u32, image::Rgb([255, 0, 255]));
                }
            }
        }
        image::imageops::replace(&mut sheet, &picture, i64::from(left), i64::from(top));
    }
    sheet.save(path).with_context(|| format!("cannot write {}", path.display()))
}
