//! `detect IMAGE|DIR...`: objects in images.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::engine::{Engine, InferOn};
use super::fraction;
use super::inputs::{Inputs, PICTURE, STDIN};
use crate::data::image::Rgb;
use crate::data::{Category, loader};
use crate::draw::{self, Labelled};
use crate::failure::{Exit, OrExit as _};
use crate::geometry::Detection;
use crate::network::DetectorModel as _;
use crate::page::printable;
use crate::watch::progress::Progress;
use crate::weights::model;

/// `detect IMAGE...`
#[derive(Debug, Clone, Args)]
pub struct DetectArgs {
    /// Image files, or folders of them
    #[arg(value_name = "IMAGE|DIR", required = true)]
    pub images: Vec<PathBuf>,
    /// A model file, or the name of a shipped model [default: scenes]
    #[arg(long, value_name = "FILE|NAME")]
    pub weights: Option<String>,
    /// Write annotated pictures into this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Show detections with at least this score
    #[arg(long, default_value_t = 0.3, value_parser = fraction)]
    pub score: f32,
    /// At most this many detections an image
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub max_detections: usize,
    /// Images that go through the network together
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: u16,
    /// Print one JSON array and nothing else
    #[arg(long)]
    pub json: bool,
    /// Where it runs.
    #[command(flatten)]
    pub on: InferOn,
}

pub(super) fn run<E: Engine>(args: &DetectArgs) -> anyhow::Result<Exit> {
    let engine = E::start(&args.on)?;
    let path = model::resolve(args.weights.as_deref()).or_exit(Exit::Weights)?;
    let model = engine.detector(&path).or_exit(Exit::Weights)?;
    let info = model.info();
    if args.weights.is_none() {
        tracing::info!(
            "using the shipped model '{}', which knows {}; for COCO's 80 classes import the published detector (detect import faster_rcnn_nas_coco_2018_01_28 --out nas.safetensors, see docs/published.md) and add --weights nas.safetensors",
            model::DEFAULT_MODEL,
            names(&info.categories)
        );
    }
    let own = &info.config.roi;
    if args.max_detections > own.max_detections || args.score < own.score_floor as f32 {
        tracing::warn!(
            "the model itself gives at most {} detections an image, and none with a score under {}",
            own.max_detections,
            own.score_floor
        );
    }
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out)
            .with_context(|| format!("cannot make the folder {}", out.display()))
            .or_exit(Exit::Output)?;
    }
    let mut inputs = Inputs::new(&args.images);
    let mut output = Output {
        args,
        categories: &info.categories,
        named: args.images.iter().filter_map(|input| input.canonicalize().ok()).collect(),
        taken: HashSet::new(),
        json: Vec::new(),
    };
    while let Some(images) = inputs.next(args.batch.into()) {
        let input = &info.config.input;
        for images in images.chunk_by(|(_, a), (_, b)| input.together(a.size, b.size)) {
            let pixels: Vec<&Rgb> = images.iter().map(|(_, image)| image).collect();
            let batch = loader::prepare(&pixels, input);
            for ((file, image), mut found) in images.iter().zip(model.detect(&batch)) {
                found.retain(|d| d.score >= args.score);
                found.truncate(args.max_detections);
                output.write(file, image, &found, inputs.bar())?;
            }
        }
    }
    let exit = inputs.finish();
    if args.json {
        writeln!(std::io::stdout().lock(), "{:#}", Value::Array(output.json))?;
    }
    Ok(exit)
}

fn names(categories: &[Category]) -> String {
    categories.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where results go.
struct Output<'a> {
    args: &'a DetectArgs,
    categories: &'a [Category],
    /// What the command line names, as far as it is there: no picture takes its place.
    named: HashSet<PathBuf>,
    /// Names of pictures that are written already.
    taken: HashSet<PathBuf>,
    json: Vec<Value>,
}

impl Output<'_> {
    fn write(
        &mut self,
        file: &Path,
        image: &Rgb,
        found: &[Detection],
        bar: &Progress,
    ) -> anyhow::Result<()> {
        let picture = match &self.args.out {
            Some(out) => Some(self.save(out, file, image, found)?),
            None => None,
        };
        if self.args.json {
            self.json.push(self.to_json(file, image, found, picture.as_deref()));
            return Ok(());
        }
        let text = self.table(file, image, found, picture.as_deref());
        bar.suspend(|| std::io::stdout().lock().write_all(text.as_bytes()))?;
        Ok(())
    }

    fn to_json(
        &self,
        file: &Path,
        image: &Rgb,
        found: &[Detection],
        picture: Option<&Path>,
    ) -> Value {
        let detection = |d: &Detection| {
            let category = &self.categories[d.label.0];
            json!({
                "category_id": category.id,
                "category": category.name,
                "bbox": d.bbox.to_xywh(),
                "score": d.score,
            })
        };
        let mut value = json!({
            "file": file.to_string_lossy(),
            "width": image.size.width,
            "height": image.size.height,
            "detections": found.iter().map(detection).collect::<Vec<_>>(),
        });
        if let Some(picture) = picture {
            value["picture"] = json!(picture.to_string_lossy());
        }
        value
    }

    fn table(
        &self,
        file: &Path,
        image: &Rgb,
        found: &[Detection],
        picture: Option<&Path>,
    ) -> String {
        use std::fmt::Write as _;
        let objects = if found.len() == 1 { "object" } else { "objects" };
        let mut text = format!(
            "{} ({} x {}): {} {objects}",
            printable(&file.display().to_string()),
            image.size.width,
            image.size.height,
            found.len()
        );
        if let Some(picture) = picture {
            let _ = write!(text, " -> {}", printable(&picture.display().to_string()));
        }
        text.push('\n');
        let widest = found.iter().map(|d| self.categories[d.label.0].name.chars().count()).max();
        for d in found {
            let [x, y, w, h] = d.bbox.to_xywh();
            let name = &self.categories[d.label.0].name;
            let _ = writeln!(
                text,
                "  {name:<width$}  {:.2}  x {x:6.1}  y {y:6.1}  w {w:6.1}  h {h:6.1}",
                d.score,
                width = widest.unwrap_or(0)
            );
        }
        text
    }

    /// Draws the detections and writes the picture; gives its path.
    fn save(
        &mut self,
        out: &Path,
        file: &Path,
        image: &Rgb,
        found: &[Detection],
    ) -> anyhow::Result<PathBuf> {
        let items: Vec<Labelled> = found
            .iter()
            .map(|d| Labelled {
                bbox: d.bbox,
                text: format!("{} {:.2}", self.categories[d.label.0].name, d.score),
                class: d.label.0,
            })
            .collect();
        let path = self.free_name(out, file);
        draw::save(&draw::annotate(image, &items), &path).or_exit(Exit::Output)?;
        Ok(path)
    }

    /// The stem with [`PICTURE`], which no image of a folder ends with, so that none is overwritten; a second input of
    /// the same name, and one whose picture is an input itself, get a number.
    fn free_name(&mut self, out: &Path, file: &Path) -> PathBuf {
        let stem = match file.file_stem() {
            Some(stem) if file.as_os_str() != STDIN => stem.to_string_lossy().into_owned(),
            _ => "stdin".into(),
        };
        let numbers = std::iter::once(String::new()).chain((2..).map(|n| format!("-{n}")));
        numbers
            .map(|number| out.join(format!("{stem}{number}{PICTURE}")))
            .filter(|path| path.canonicalize().map_or(true, |path| !self.named.contains(&path)))
            .find(|path| self.taken.insert(path.clone()))
            .expect("there are numbers enough")
    }
}
