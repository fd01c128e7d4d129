//! `detect classify IMAGE|DIR...` and `detect eval --task classification`: a classifier over images, and
//! over images whose classes are known.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use clap::Args;
use serde_json::{Value, json};

use super::EvalArgs;
use super::engine::{Engine, InferOn};
use super::inputs::Inputs;
use crate::data::ImageFolder;
use crate::data::image::{ImageError, Rgb};
use crate::data::image_folder::FolderImage;
use crate::eval::classification::{Tally, image_json, image_text, ranked};
use crate::failure::{Exit, OrExit as _};
use crate::network::{ClassifierModel as _, Images};
use crate::watch::progress::Progress;
use crate::weights::model;

/// Places that matter for the score.
const PLACES: usize = 5;
/// Batches that are prepared while the network is at work.
const PREFETCH: usize = 2;

/// `detect classify`
#[derive(Debug, Clone, Args)]
pub struct ClassifyArgs {
    /// Image files, or folders of them
    #[arg(value_name = "IMAGE|DIR", required = true)]
    pub images: Vec<PathBuf>,
    /// A model file that holds a classifier
    #[arg(long, value_name = "FILE")]
    pub weights: String,
    /// Show this many classes an image, the most probable first
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub top: u16,
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

pub(super) fn run<E: Engine>(args: &ClassifyArgs) -> anyhow::Result<Exit> {
    let engine = E::start(&args.on)?;
    let path = model::resolve(Some(&args.weights)).or_exit(Exit::Weights)?;
    let model = engine.classifier(&path).or_exit(Exit::Weights)?;
    let info = model.info();
    let size = info.preprocessing.image_size;
    let mut inputs = Inputs::new(&args.images);
    let mut entries = Vec::new();
    while let Some(images) = inputs.next(args.batch.into()) {
        let pictures: Vec<&Rgb> = images.iter().map(|(_, image)| image).collect();
        let pixels = info.preprocessing.apply(&pictures);
        let logits = model.logits(Images { pixels: &pixels, count: pictures.len(), size });
        for ((file, image), logits) in images.iter().zip(logits) {
            let found = ranked(&logits, args.top.into());
            let classes = &info.classes;
            if args.json {
                entries.push(image_json(file, image.size, &found, classes));
            } else {
                let text = image_text(file, image.size, &found, classes);
                inputs.bar().suspend(|| std::io::stdout().lock().write_all(text.as_bytes()))?;
            }
        }
    }
    let exit = inputs.finish();
    if args.json {
        writeln!(std::io::stdout().lock(), "{:#}", Value::Array(entries))?;
    }
    Ok(exit)
}

pub(super) fn evaluate<E: Engine>(args: &EvalArgs) -> anyhow::Result<Exit> {
    let (Some(data), Some(weights)) = (&args.data, &args.weights) else {
        return crate::fail!(
            Exit::Usage,
            "--task classification needs --data DIR and --weights FILE"
        );
    };
    let engine = E::start(&args.on)?;
    let path = model::resolve(Some(weights)).or_exit(Exit::Weights)?;
    let model = engine.classifier(&path).or_exit(Exit::Weights)?;
    let info = model.info();
    let folder = ImageFolder::open(data).or_exit(Exit::Data)?;
    let labels = folder.match_classes(&info.classes).or_exit(Exit::Usage)?;
    tracing::info!(
        "{} on {} images of {} classes in {}",
        path.display(),
        folder.images.len(),
        folder.classes.len(),
        folder.root.display()
    );
    let bar = Progress::start(folder.images.len(), 0, "images");
    let mut tally = Tally::new(info.classes.len());
    let mut failed = 0;
    std::thread::scope(|scope| {
        let (sender, batches) = mpsc::sync_channel(PREFETCH);
        let form = &info.preprocessing;
        let images = &folder.images;
        scope.spawn(move || {
            for chunk in images.chunks(args.batch.into()) {
                let files: Vec<&Path> = chunk.iter().map(|image| image.path.as_path()).collect();
                if sender.send((chunk, form.read(&files))).is_err() {
                    return;
                }
            }
        });
        for (chunk, prepared) in batches {
            let chunk: &[FolderImage] = chunk;
            let prepared: Vec<Result<Vec<f32>, ImageError>> = prepared;
            let (mut known, mut pixels) = (Vec::new(), Vec::new());
            for (image, result) in chunk.iter().zip(prepared) {
                match result {
                    Ok(part) => {
                        known.push(labels[image.class]);
                        pixels.extend(part);
                    }
                    Err(error) => {
                        bar.suspend(|| {
                            tracing::error!("{error}; it counts as an image of the wrong class");
                        });
                        tally.add_failed(labels[image.class]);
                        failed += 1;
                    }
                }
            }
            let size = form.image_size;
            let logits = model.logits(Images { pixels: &pixels, count: known.len(), size });
            for (label, logits) in known.iter().zip(logits) {
                let places: Vec<usize> = ranked(&logits, PLACES).iter().map(|r| r.index).collect();
                tally.add(*label, &places);
            }
            bar.inc(chunk.len() as u64);
        }
    });
    bar.finish_and_clear();
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut value = tally.json(&info.classes);
        value["weights"] = json!(path.display().to_string());
        value["data"] = json!(folder.root.display().to_string());
        writeln!(out, "{value:#}")?;
    } else {
        write!(out, "{}", tally.table(&info.classes))?;
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::SomeInputsFailed })
}
