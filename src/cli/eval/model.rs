//! `detect eval --split NAME`: a model over a split.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::EvalArgs;
use crate::cli::engine::Engine;
use crate::config::Loader;
use crate::data::sampling::Share;
use crate::data::{Dataset, coco, layout};
use crate::eval::{GroundTruth, Id, Results, Settings, evaluate_with, over_split, submission};
use crate::failure::{Exit, OrExit as _, with_exit};
use crate::network::DetectorModel as _;
use crate::watch::DETECTIONS;
use crate::watch::progress::Progress;
use crate::watch::record::RECORD;
use crate::weights::{ModelInfo, model};
use crate::whole;

pub(super) fn run<E: Engine>(args: &EvalArgs, split: &str) -> anyhow::Result<Exit> {
    let without_truth = layout::is_test_dev(split);
    if without_truth && args.out.is_none() {
        return crate::fail!(
            Exit::Usage,
            "the truth of {split} is not public, so that there is nothing to score: add --out DIR for the archive that COCO's servers take"
        );
    }
    if let Some(flag) = args.scoring.first_given().filter(|_| without_truth) {
        return crate::fail!(
            Exit::Usage,
            "{flag} does not go with {split}, whose truth is not public: there is nothing to score"
        );
    }
    let settings = args.scoring.settings()?;
    let engine = E::start(&args.on)?;
    let root = args.data.clone().unwrap_or_else(coco::default_root);
    let mut dataset = Dataset::open(&root, split).or_exit(Exit::Data)?;
    let path = model::resolve(args.weights.as_deref()).or_exit(Exit::Weights)?;
    let model = engine.detector(&path).or_exit(Exit::Weights)?;
    let info = model.info();
    check_categories(info, &dataset)?;
    let truth = if without_truth { None } else { Some(truth(&dataset, &settings)?) };
    if let Some(wanted) = &settings.images {
        let wanted: HashSet<&Id> = wanted.iter().collect();
        dataset.images.retain(|image| wanted.contains(&Id::from(image.id)));
    }
    let dataset = Arc::new(dataset);
    if let Some(out) = &args.out {
        if out.join(RECORD).exists() {
            return crate::fail!(
                Exit::Usage,
                "--out {} is the folder of a training run, whose {DETECTIONS} would be replaced; choose another one",
                out.display()
            );
        }
        // After all that can be refused, and before the work of hours.
        std::fs::create_dir_all(out)
            .with_context(|| format!("cannot make the folder {}", out.display()))
            .or_exit(Exit::Output)?;
    }
    let mut inputs: Vec<&Path> = dataset.annotation_files.iter().map(PathBuf::as_path).collect();
    inputs.push(&path);
    args.scoring.check_outputs(&inputs)?;
    tracing::info!(
        "{} on {} images of '{split}'; detections with a score above {}",
        path.display(),
        dataset.images.len(),
        info.config.roi.score_floor
    );
    let reading = over_split::Reading {
        input: &info.config.input,
        batch: args.batch.into(),
        loader: &Loader { threads: 1, prefetch: 4 },
        share: Share::WHOLE,
    };
    let bar = Progress::start(dataset.images.len(), 0, "images");
    let run = over_split::run(
        |batch| model.detect(batch),
        &info.categories,
        &dataset,
        reading,
        |n| {
            bar.inc(n as u64);
            std::ops::ControlFlow::Continue(())
        },
    )
    .map_err(|e| with_exit(e.exit(), e.into()))?;
    bar.finish_and_clear();
    for error in &run.failed {
        tracing::error!("{error}; it counts as an image without detections");
    }
    let kept = args.out.as_ref().map(|out| {
        let json = serde_json::to_vec(&run.results).expect("plain structs become JSON");
        (out.join(DETECTIONS), json)
    });
    let keep = || match &kept {
        None => Ok(()),
        Some((file, json)) => whole::write(file, |file| file.write_all(json))
            .with_context(|| format!("cannot write {}", file.display()))
            .or_exit(Exit::Output),
    };
    let exit = if run.failed.is_empty() { Exit::Done } else { Exit::SomeInputsFailed };
    let images = format!(" of '{split}' (ids {})", &dataset.image_ids_sha256()[..12]);
    let failed = run.failed.len();
    let of_run = |mut value: Value| {
        value["split"] = json!(split);
        value["image_ids_sha256"] = json!(dataset.image_ids_sha256());
        value["batch"] = json!(args.batch);
        value["weights"] = json!(path.display().to_string());
        value["score_floor"] = json!(info.config.roi.score_floor);
        value["failed_images"] = json!(failed);
        value
    };
    let mut out = std::io::stdout().lock();
    let Some(truth) = truth else {
        keep()?;
        let folder = args.out.as_deref().expect("a split without truth needs --out");
        let archive = submission::write(folder, "detect", &run.results)
            .with_context(|| format!("cannot write a submission into {}", folder.display()))
            .or_exit(Exit::Output)?;
        let (count, detections) = (dataset.images.len(), run.results.len());
        if args.json {
            let own = json!({"images": count, "detections": detections, "submission": archive.display().to_string()});
            writeln!(out, "{:#}", of_run(own))?;
        } else {
            let archive = archive.display();
            writeln!(
                out,
                "{count} images{images}, {detections} detections, for COCO's servers in {archive}"
            )?;
        }
        return Ok(exit);
    };
    let name = format!("{} on '{split}'", path.display());
    let scored = args.scoring.score(&truth, &Results::from(run.results), &settings, name);
    let said = scored.as_ref().map_or(Ok(()), |scored| {
        if args.json {
            writeln!(out, "{:#}", of_run(scored.json()))
        } else {
            write!(out, "{}", scored.text(&images))
        }
    });
    // What the model found is kept also where it can't be scored or the score can't be told.
    keep()?;
    args.scoring.write(&scored?)?;
    said?;
    Ok(exit)
}

/// The truth that the split is scored by. What the evaluator would refuse of it or of the settings is
/// refused here, before the work of hours.
fn truth(dataset: &Dataset, settings: &Settings) -> anyhow::Result<GroundTruth> {
    let nothing = Results::from(Vec::new());
    let judged = |truth| evaluate_with(&truth, &nothing, settings).map(|_| truth);
    over_split::with_truth(dataset, judged).or_exit(Exit::Data)
}

/// A model none of whose categories is in the data scores 0 for a reason that should be said.
fn check_categories(model: &ModelInfo, dataset: &Dataset) -> anyhow::Result<()> {
    let known = |id: i64| dataset.categories.iter().find(|c| c.id == id);
    let names = |categories: &[coco::Category]| {
        let names: Vec<String> =
            categories.iter().take(12).map(|c| format!("{} {}", c.id, c.name)).collect();
        names.join(", ")
    };
    let shared = model.categories.iter().filter_map(|c| Some((c, known(c.id)?)));
    let mut any = false;
    for (of_model, of_data) in shared {
        any |= of_model.name == of_data.name;
        if of_model.name != of_data.name {
            tracing::warn!(
                "category {} is '{}' in the model and '{}' in the data",
                of_model.id,
                of_model.name,
                of_data.name
            );
        }
    }
    if any {
        return Ok(());
    }
    let named = |name: &str| dataset.categories.iter().find(|c| c.name == name);
    let moved = model.categories.iter().filter_map(|c| Some((c, named(&c.name)?)));
    let moved: Vec<String> =
        moved.take(12).map(|(c, own)| format!("{}: {}, {}", c.name, c.id, own.id)).collect();
    if !moved.is_empty() {
        return crate::fail!(
            Exit::Usage,
            "the model and this data set have categories of the same names under other ids, by which they are scored.\n  \
             name: id in the model, id in the data\n  {}\n\
             Give the categories and annotations of the data the model's ids, or train a model on this data (detect train --data {})",
            moved.join("\n  "),
            dataset.root.display()
        );
    }
    crate::fail!(
        Exit::Usage,
        "the model knows none of the categories of this data set.\n  model: {}\n  data:  {}\nTrain a model on this data (detect train --data {}), or choose another with --weights",
        names(&model.categories),
        names(&dataset.categories),
        dataset.root.display()
    )
}
