//! What is asked of the evaluator, and what it says: the same for a results file and for a model's run.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::{ScoringArgs, output};
use crate::eval::analysis::compare::{Bootstrap, Comparison, compare};
use crate::eval::analysis::html::{Page, html};
use crate::eval::analysis::{Analysis, Options, analyse, report as words};
use crate::eval::settings::parse_ids;
use crate::eval::{
    EvalError, Evaluation, GroundTruth, Id, IouType, Results, Settings, evaluate_with, npz, report,
};
use crate::failure::{Exit, OrExit as _};
use crate::whole;

/// All that is told of the detections of a file or of a model.
pub(super) struct Scored {
    evaluation: Evaluation,
    analysis: Option<Analysis>,
    comparison: Option<Comparison>,
    /// Of what was scored, and of what it is compared with.
    names: [String; 2],
}

impl Scored {
    pub(super) fn json(&self) -> Value {
        let mut value = report::json(&self.evaluation);
        if let Some(analysis) = &self.analysis {
            value["analysis"] = words::json(analysis);
        }
        if let Some(comparison) = &self.comparison {
            value["comparison"] = json!(comparison);
        }
        value
    }

    /// The tables; `images` is what the line of counts says of the images behind their number.
    pub(super) fn text(&self, images: &str) -> String {
        let Evaluation { images: count, detections, .. } = self.evaluation;
        let counts = format!("\n{count} images{images}, {detections} detections\n");
        let analysis = self.analysis.as_ref().map(|a| format!("\n{}", words::text(a)));
        let comparison = self.comparison.as_ref();
        let comparison = comparison.map(|c| words::comparison_text(c, self.names()));
        let comparison = comparison.map(|text| format!("\n{text}"));
        let parts = [Some(report::table(&self.evaluation)), Some(counts), analysis, comparison];
        parts.into_iter().flatten().collect()
    }

    fn names(&self) -> [&str; 2] {
        self.names.each_ref().map(String::as_str)
    }
}

impl ScoringArgs {
    /// The first argument that is given.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--iou-type", self.iou_type.is_some()),
            ("--images", self.images.is_some()),
            ("--categories", self.categories.is_some()),
            ("--class-agnostic", self.class_agnostic),
            ("--iou-thresholds", self.iou_thresholds.is_some()),
            ("--area-ranges", self.area_ranges.is_some()),
            ("--max-detections", self.max_detections.is_some()),
            ("--fix-id-zero", self.fix_id_zero),
            ("--arrays", self.arrays.is_some()),
            ("--compare", self.compare.is_some()),
            ("--html", self.html.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// Looks at the files that are to be written, before the work. `inputs` are read, and so are those
    /// that the arguments name.
    pub(super) fn check_outputs(&self, inputs: &[&Path]) -> anyhow::Result<()> {
        let lists = [&self.images, &self.categories].into_iter().flatten();
        let lists = lists.filter_map(|text| text.strip_prefix('@')).map(Path::new);
        let compared = self.compare.as_deref();
        let inputs: Vec<&Path> = inputs.iter().copied().chain(compared).chain(lists).collect();
        for (flag, path) in [("--arrays", &self.arrays), ("--html", &self.html)] {
            if let Some(path) = path {
                output::check(flag, path, &inputs)?;
            }
        }
        if let (Some(arrays), Some(html)) = (&self.arrays, &self.html)
            && arrays == html
        {
            return crate::fail!(
                Exit::Usage,
                "--arrays and --html are both {}: one would replace the other",
                html.display()
            );
        }
        Ok(())
    }

    /// Scores the detections called `name`, and tells what pycocotools passes over in silence.
    pub(super) fn score(
        &self,
        gt: &GroundTruth,
        results: &Results,
        settings: &Settings,
        name: String,
    ) -> anyhow::Result<Scored> {
        let evaluation = evaluate_with(gt, results, settings).or_exit(Exit::Data)?;
        for warning in &evaluation.warnings {
            tracing::warn!("{warning}");
        }
        let other = self.compare.as_deref();
        let comparison = match other {
            Some(path) => {
                let other = read_results(path, settings).or_exit(Exit::Data)?;
                // Those on the truth were told above.
                let own = evaluate_with(gt, &other, settings).or_exit(Exit::Data)?.warnings;
                for warning in own.iter().filter(|warning| !evaluation.warnings.contains(warning)) {
                    tracing::warn!("{}: {warning}", path.display());
                }
                tracing::info!("comparing the two on images drawn anew, 1,000 times");
                let compared = compare(gt, results, &other, settings, Bootstrap::default());
                Some(compared.or_exit(Exit::Data)?)
            }
            None => None,
        };
        let analysis = match &self.html {
            Some(_) => {
                Some(analyse(gt, results, settings, Options::default()).or_exit(Exit::Data)?)
            }
            None => None,
        };
        let other = other.map_or_else(|| name.clone(), |path| path.display().to_string());
        Ok(Scored { evaluation, analysis, comparison, names: [name, other] })
    }

    /// Writes the files that are asked for.
    pub(super) fn write(&self, scored: &Scored) -> anyhow::Result<()> {
        if let (Some(path), Some(arrays)) = (&self.arrays, &scored.evaluation.arrays) {
            whole::write(path, |file| npz::write(arrays, file))
                .with_context(|| format!("cannot write {}", path.display()))
                .or_exit(Exit::Output)?;
        }
        if let (Some(path), Some(analysis)) = (&self.html, &scored.analysis) {
            let page = html(&Page {
                title: scored.names()[0],
                evaluation: &scored.evaluation,
                analysis,
                comparison: scored.comparison.as_ref().map(|c| (c, scored.names())),
            });
            whole::write(path, |file| file.write_all(page.as_bytes()))
                .with_context(|| format!("cannot write {}", path.display()))
                .or_exit(Exit::Output)?;
        }
        Ok(())
    }

    /// The settings that the arguments ask for.
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings {
            iou_type: self.iou_type.unwrap_or_default(),
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
    // Some editors put a mark before a text.
    match parse_ids(read.or_exit(Exit::Data)?.trim_start_matches('\u{feff}')) {
        Ok(ids) => Ok(ids),
        Err(problem) => crate::fail!(Exit::Data, "{path}: {problem}"),
    }
}

/// Reads a results file for what is compared.
pub(super) fn read_results(path: &Path, settings: &Settings) -> Result<Results, EvalError> {
    match settings.iou_type {
        IouType::Bbox => Results::from_file(path),
        IouType::Segm => Results::with_masks(path),
    }
}
