//! `detect classify IMAGE|DIR...` and `detect eval --task classification`: a classifier over images, and
//! over images whose classes are known.

use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc;

use detect::cli::{ClassifyArgs, EvalArgs};
use detect::data::ImageFolder;
use detect::data::image::{ImageError, Rgb};
use detect::data::image_folder::FolderImage;
use detect::eval::classification::{Tally, image_json, image_text, ranked};
use detect::fail;
use detect::failure::{Exit, OrExit as _};
use detect::weights::model;
use serde_json::{Value, json};

use super::inputs::Inputs;
use crate::device;
use crate::predict::ClassifierModel;
use crate::train::log;

/// Places that matter for the score.
const PLACES: usize = 5;
/// Batches that are prepared while the network is at work.
const PREFETCH: usize = 2;

pub(super) fn run(args: &ClassifyArgs) -> anyhow::Result<Exit> {
    let device = device::choose(&args.run_on)?;
    let path = model::resolve(Some(&args.weights)).or_exit(Exit::Weights)?;
    let model = ClassifierModel::read(&path, device).or_exit(Exit::Weights)?;
    let mut inputs = Inputs::new(&args.images);
    let mut entries = Vec::new();
    while let Some(images) = inputs.next(args.batch.into()) {
        let pictures: Vec<&Rgb> = images.iter().map(|(_, image)| image).collect();
        let logits = model.logits(&model.info.preprocessing.apply(&pictures), pictures.len());
        for ((file, image), logits) in images.iter().zip(logits) {
            let found = ranked(&logits, args.top.into());
            let classes = &model.info.classes;
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

pub(super) fn evaluate(args: &EvalArgs) -> anyhow::Result<Exit> {
    let (Some(data), Some(weights)) = (&args.data, &args.weights) else {
        return fail!(Exit::Usage, "--task classification needs --data DIR and --weights FILE");
    };
    let device = device::choose(&args.run_on)?;
    let path = model::resolve(Some(weights)).or_exit(Exit::Weights)?;
    let model = ClassifierModel::read(&path, device).or_exit(Exit::Weights)?;
    let folder = ImageFolder::open(data).or_exit(Exit::Data)?;
    let labels = folder.match_classes(&model.info.classes).or_exit(Exit::Usage)?;
    tracing::info!(
        "{} on {} images of {} classes in {}",
        path.display(),
        folder.images.len(),
        folder.classes.len(),
        folder.root.display()
    );
    let bar = log::bar(folder.images.len(), 0, "images");
    let mut tally = Tally::new(model.info.classes.len());
    let mut failed = 0;
    std::thread::scope(|scope| {
        let (sender, batches) = mpsc::sync_channel(PREFETCH);
        let form = &model.info.preprocessing;
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
            for (label, logits) in known.iter().zip(model.logits(&pixels, known.len())) {
                let places: Vec<usize> = ranked(&logits, PLACES).iter().map(|r| r.index).collect();
                tally.add(*label, &places);
            }
            bar.inc(chunk.len() as u64);
        }
    });
    bar.finish_and_clear();
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut value = tally.json(&model.info.classes);
        value["weights"] = json!(path.display().to_string());
        value["data"] = json!(folder.root.display().to_string());
        writeln!(out, "{value:#}")?;
    } else {
        write!(out, "{}", tally.table(&model.info.classes))?;
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::SomeInputsFailed })
}
