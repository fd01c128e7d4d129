//! `detect eval --annotations GT.json --predictions DT.json`: the evaluator alone; and which arguments of
//! `detect eval` go together. A model is scored in `model`; `scoring` has what both have in common.

mod model;
mod scoring;

use std::io::Write as _;

use super::engine::Engine;
use super::{EvalArgs, Task, classify};
use crate::eval::{GroundTruth, IouType};
use crate::failure::{Exit, OrExit as _};

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
                    "what is scored? A model on a split: detect eval --data DIR --split val --weights FILE, or a results file: \
                     detect eval --annotations GT.json --predictions DT.json"
                );
            }
            return self.check_split();
        }
        let detection = [
            ("--split", self.split.is_some()),
            ("--annotations", self.annotations.is_some()),
            ("--out", self.out.is_some()),
        ];
        let given = detection.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag);
        if let Some(flag) = given.or_else(|| self.scoring.first_given()) {
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

    /// What only results files can be scored for is refused of a model's run.
    fn check_split(&self) -> anyhow::Result<()> {
        let Some(split) = &self.split else { return Ok(()) };
        let of_files = [
            ("--iou-type segm", self.scoring.iou_type == Some(IouType::Segm)),
            ("--compare DT2.json", self.scoring.compare.is_some()),
        ];
        match of_files.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => crate::fail!(
                Exit::Usage,
                "{flag} goes with a results file, not with --split: write one with detect eval --split {split} --out DIR, \
                 then detect eval --annotations GT.json --predictions DIR/detections.json {flag}"
            ),
        }
    }
}

pub(super) fn run<E: Engine>(args: &EvalArgs) -> anyhow::Result<Exit> {
    args.check()?;
    match (args.task, &args.split) {
        (Task::Classification, _) => classify::evaluate::<E>(args),
        (Task::Detection, Some(split)) => model::run::<E>(args, split),
        (Task::Detection, None) => run_files(args),
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
    args.scoring.check_outputs(&[annotations, predictions])?;
    if let Some(threads) = args.on.run_on.threads {
        // Fails where the threads are running already, which only a test does.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global();
    }
    let truth = || match settings.iou_type {
        IouType::Bbox => GroundTruth::from_file(annotations),
        IouType::Segm => GroundTruth::with_masks(annotations),
    };
    let (gt, results) = rayon::join(truth, || scoring::read_results(predictions, &settings));
    let (gt, results) = (gt.or_exit(Exit::Data)?, results.or_exit(Exit::Data)?);
    let name = predictions.display().to_string();
    let scored = args.scoring.score(&gt, &results, &settings, name)?;
    let mut out = std::io::stdout().lock();
    let said = if args.json {
        writeln!(out, "{:#}", scored.json())
    } else {
        write!(out, "{}", scored.text(""))
    };
    args.scoring.write(&scored)?;
    said?;
    Ok(Exit::Done)
}
