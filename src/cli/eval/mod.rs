//! `detect eval --annotations GT.json --predictions DT.json`: the evaluator alone; and which arguments of
//! `detect eval` go together. A model is scored in `model`.

mod model;

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::engine::Engine;
use super::{EvalArgs, ScoringArgs, Task, classify, output};
use crate::eval::analysis::compare::{Bootstrap, compare};
use crate::eval::analysis::html::{Page, html};
use crate::eval::analysis::{Options, analyse, report as words};
use crate::eval::settings::parse_ids;
use crate::eval::{GroundTruth, Id, IouType, Results, Settings, evaluate_with, npz, report};
use crate::failure::{Exit, OrExit as _};
use crate::whole;

impl EvalArgs {
    /// Whether the arguments go together, as far as the parser does not know.
    ///
    /// # Errors
    /// Wrong usage, with what is missing or too much.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.task == Task::Detection {
            if self.split.is_none() && self.annotations.is_none() {
                return crate::fail!(
                    Exit::Usage,
                    "which split? For example: detect eval --split val"
                );
            }
            return Ok(());
        }
        let detection = [
            ("--split", self.split.is_some()),
            ("--annotations", self.annotations.is_some()),
            ("--out", self.out.is_some()),
        ];
        if let Some((flag, _)) = detection.iter().find(|(_, given)| *given) {
            return crate::fail!(
                Exit::Usage,
                "{flag} does not go with --task classification, which reads all images in DIR/CLASS/ or DIR/val/CLASS/ of --data DIR"
            );
        }
        let needed =
            [("--data DIR", self.data.is_some()), ("--weights FILE", self.weights.is_some())];
        if let Some((flag, _)) = needed.iter().find(|(_, given)| !given) {
            return crate::fail!(
                Exit::Usage,
                "--task classification needs {flag}: detect eval --task classification --data DIR --weights FILE"
            );
        }
        Ok(())
    }
}

pub(super) fn run<E: Engine>(args: &EvalArgs) -> anyhow::Result<Exit> {
    args.check()?;
    match args.task {
        Task::Classification => classify::evaluate::<E>(args),
        Task::Detection if args.annotations.is_none() => model::run::<E>(args),
        Task::Detection => run_files(args),
    }
}

fn run_files(args: &EvalArgs) -> anyhow::Result<Exit> {
    let (Some(annotations), Some(predictions)) = (&args.annotations, &args.predictions) else {
        return crate::fail!(
            Exit::Usage,
            "scoring files needs both --annotations GT.json and --predictions DT.json"
        );
    };
    let settings = args.scoring.settings()?;
    let inputs = [Some(annotations), Some(predictions), args.scoring.compare.as_ref()];
    let mut inputs: Vec<&Path> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
    let lists = [&args.scoring.images, &args.scoring.categories].into_iter().flatten();
    inputs.extend(lists.filter_map(|text| text.strip_prefix('@')).map(Path::new));
    for (flag, path) in [("--arrays", &args.scoring.arrays), ("--html", &args.scoring.html)] {
        if let Some(path) = path {
            output::check(flag, path, &inputs)?;
        }
    }
    if let Some(threads) = args.on.run_on.threads {
        // Fails where the threads are running already, which only a test does.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global();
    }
    let results_of = |path: &Path| match settings.iou_type {
        IouType::Bbox => Results::from_file(path),
        IouType::Segm => Results::with_masks(path),
    };
    let truth = || match settings.iou_type {
        IouType::Bbox => GroundTruth::from_file(annotations),
        IouType::Segm => GroundTruth::with_masks(annotations),
    };
    let (gt, results) = rayon::join(truth, || results_of(predictions));
    let (gt, results) = (gt.or_exit(Exit::Data)?, results.or_exit(Exit::Data)?);
    let evaluation = evaluate_with(&gt, &results, &settings).or_exit(Exit::Data)?;
    for warning in &evaluation.warnings {
        tracing::warn!("{warning}");
    }
    if let (Some(path), Some(arrays)) = (&args.scoring.arrays, &evaluation.arrays) {
        whole::write(path, |file| npz::write(arrays, BufWriter::new(file)))
            .with_context(|| format!("cannot write {}", path.display()))
            .or_exit(Exit::Output)?;
    }
    let names = [predictions, args.scoring.compare.as_ref().unwrap_or(predictions)]
        .map(|path| path.display().to_string());
    let names = [names[0].as_str(), names[1].as_str()];
    let comparison = match &args.scoring.compare {
        Some(path) => {
            let other = results_of(path).or_exit(Exit::Data)?;
            // Those on the truth were told above.
            let own = evaluate_with(&gt, &other, &settings).or_exit(Exit::Data)?.warnings;
            for warning in own.iter().filter(|warning| !evaluation.warnings.contains(warning)) {
                tracing::warn!("{}: {warning}", path.display());
            }
            tracing::info!("comparing the two on images drawn anew, 1,000 times");
            let bootstrap = Bootstrap::default();
            let compared = compare(&gt, &results, &other, &settings, bootstrap);
            Some(compared.or_exit(Exit::Data)?)
        }
        None => None,
    };
    let analysis = match &args.scoring.html {
        Some(path) => {
            let analysis =
                analyse(&gt, &results, &settings, Options::default()).or_exit(Exit::Data)?;
            let page = html(&Page {
                title: names[0],
                evaluation: &evaluation,
                analysis: &analysis,
                comparison: comparison.as_ref().map(|c| (c, names)),
            });
            whole::write(path, |file| file.write_all(page.as_bytes()))
                .with_context(|| format!("cannot write {}", path.display()))
                .or_exit(Exit::Output)?;
            Some(analysis)
        }
        None => None,
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut value = report::json(&evaluation);
        if let Some(analysis) = &analysis {
            value["analysis"] = words::json(analysis);
        }
        if let Some(comparison) = &comparison {
            value["comparison"] = json!(comparison);
        }
        writeln!(out, "{value:#}")?;
        return Ok(Exit::Done);
    }
    write!(out, "{}", report::table(&evaluation))?;
    writeln!(out, "\n{} images, {} detections", evaluation.images, evaluation.detections)?;
    if let Some(analysis) = &analysis {
        write!(out, "\n{}", words::text(analysis))?;
    }
    if let Some(comparison) = &comparison {
        write!(out, "\n{}", words::comparison_text(comparison, names))?;
    }
    Ok(Exit::Done)
}

impl ScoringArgs {
    /// The settings that the arguments ask for.
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings {
            iou_type: self.iou_type,
            images: self.images.as_deref().map(|text| ids("--images", text)).transpose()?,
            categories: self
                .categories
                .as_deref()
                .map(|text| ids("--categories", text))
                .transpose()?,
            class_agnostic: self.class_agnostic,
            fix_id_zero: self.fix_id_zero,
            arrays: self.arrays.is_some(),
            ..Settings::default()
        };
        let lists: [(&str, &Option<String>, SetList); 3] = [
            ("--iou-thresholds", &self.iou_thresholds, Settings::set_iou_thresholds),
            ("--area-ranges", &self.area_ranges, Settings::set_area_ranges),
            ("--max-detections", &self.max_detections, Settings::set_max_detections),
        ];
        for (flag, text, set) in lists {
            if let Some(text) = text
                && let Err(problem) = set(&mut settings, text)
            {
                return crate::fail!(Exit::Usage, "{flag}: {problem}");
            }
        }
        settings.check().or_exit(Exit::Usage)?;
        Ok(settings)
    }
}

/// Takes a list of settings from its text.
type SetList = fn(&mut Settings, &str) -> Result<(), String>;

/// Ids as the command line gives them, or the file that it names.
fn ids(flag: &str, text: &str) -> anyhow::Result<Vec<Id>> {
    let Some(path) = text.strip_prefix('@') else {
        return match parse_ids(text) {
            Ok(ids) => Ok(ids),
            Err(problem) => crate::fail!(Exit::Usage, "{flag}: {problem}"),
        };
    };
    let read = std::fs::read_to_string(path).with_context(|| format!("{flag}: cannot read {path}"));
    match parse_ids(&read.or_exit(Exit::Data)?) {
        Ok(ids) => Ok(ids),
        Err(problem) => crate::fail!(Exit::Data, "{path}: {problem}"),
    }
}
