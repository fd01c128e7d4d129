//! `detect eval --split NAME`: a model over a split.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;

use crate::cli::EvalArgs;
use crate::cli::engine::Engine;
use crate::config::Loader;
use crate::data::sampling::Share;
use crate::data::{Dataset, coco, layout};
use crate::eval::{over_split, report, submission};
use crate::failure::{Exit, OrExit as _, with_exit};
use crate::network::DetectorModel as _;
use crate::watch::progress::Progress;
use crate::weights::{ModelInfo, model};
use crate::whole;

pub(super) fn run<E: Engine>(args: &EvalArgs) -> anyhow::Result<Exit> {
    let Some(split) = &args.split else {
        return crate::fail!(Exit::Usage, "which split? For example: detect eval --split val");
    };
    let without_truth = layout::is_test_dev(split);
    if without_truth && args.out.is_none() {
        return crate::fail!(
            Exit::Usage,
            "the truth of {split} is not public, so that there is nothing to score: add --out DIR for the archive that COCO's servers take"
        );
    }
    let engine = E::start(&args.on)?;
    let root = args.data.clone().unwrap_or_else(coco::default_root);
    let dataset = Arc::new(Dataset::open(&root, split).or_exit(Exit::Data)?);
    let path = model::resolve(args.weights.as_deref()).or_exit(Exit::Weights)?;
    let model = engine.detector(&path).or_exit(Exit::Weights)?;
    let info = model.info();
    check_categories(info, &dataset)?;
    if let Some(out) = &args.out {
        // After all that can be refused, and before the work of hours.
        std::fs::create_dir_all(out)
            .with_context(|| format!("cannot make the folder {}", out.display()))
            .or_exit(Exit::Output)?;
    }
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
    if let Some(out) = &args.out {
        let file = out.join("detections.json");
        let failed = || format!("cannot write {}", file.display());
        let json = serde_json::to_vec(&run.results).expect("plain structs become JSON");
        whole::write(&file, |file| file.write_all(&json))
            .with_context(failed)
            .or_exit(Exit::Output)?;
    }
    let exit = if run.failed.is_empty() { Exit::Done } else { Exit::SomeInputsFailed };
    let mut out = std::io::stdout().lock();
    if let Some(folder) = args.out.as_ref().filter(|_| without_truth) {
        let archive = submission::write(folder, "detect", &run.results)
            .with_context(|| format!("cannot write a submission into {}", folder.display()))
            .or_exit(Exit::Output)?;
        if args.json {
            let value = json!({
                "split": split,
                "images": dataset.images.len(),
                "image_ids_sha256": dataset.image_ids_sha256(),
                "detections": run.results.len(),
                "submission": archive.display().to_string(),
                "weights": path.display().to_string(),
                "score_floor": info.config.roi.score_floor,
                "failed_images": run.failed.len(),
            });
            writeln!(out, "{value:#}")?;
        } else {
            writeln!(
                out,
                "{} images of '{split}' (ids {}), {} detections, for COCO's servers in {}",
                dataset.images.len(),
                &dataset.image_ids_sha256()[..12],
                run.results.len(),
                archive.display()
            )?;
        }
        return Ok(exit);
    }
    let evaluation = over_split::score(&dataset, run.results)?;
    if args.json {
        let mut value = report::json(&evaluation);
        value["split"] = json!(split);
        value["image_ids_sha256"] = json!(dataset.image_ids_sha256());
        value["weights"] = json!(path.display().to_string());
        value["score_floor"] = json!(info.config.roi.score_floor);
        value["failed_images"] = json!(run.failed.len());
        writeln!(out, "{value:#}")?;
    } else {
        write!(out, "{}", report::table(&evaluation))?;
        writeln!(
            out,
            "\n{} images of '{split}' (ids {}), {} detections",
            evaluation.images,
            &dataset.image_ids_sha256()[..12],
            evaluation.detections
        )?;
    }
    Ok(exit)
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
    crate::fail!(
        Exit::Usage,
        "the model knows none of the categories of this data set.\n  model: {}\n  data:  {}\nTrain a model on this data (detect train --data {}), or choose another with --weights",
        names(&model.categories),
        names(&dataset.categories),
        dataset.root.display()
    )
}
