//! `detect eval --annotations GT.json --predictions DT.json`: the evaluator alone; and which arguments of
//! `detect eval` go together.

use std::io::Write as _;

use super::{EvalArgs, Task};
use crate::eval::{GroundTruth, Results, evaluate, report};
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

pub(super) fn run(args: &EvalArgs) -> anyhow::Result<Exit> {
    args.check()?;
    let (Some(annotations), Some(predictions)) = (&args.annotations, &args.predictions) else {
        return crate::fail!(
            Exit::Usage,
            "scoring files needs both --annotations GT.json and --predictions DT.json"
        );
    };
    let (gt, results) =
        rayon::join(|| GroundTruth::from_file(annotations), || Results::from_file(predictions));
    let (gt, results) = (gt.or_exit(Exit::Data)?, results.or_exit(Exit::Data)?);
    let evaluation = evaluate(&gt, &results).or_exit(Exit::Data)?;
    for warning in &evaluation.warnings {
        tracing::warn!("{warning}");
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", report::json(&evaluation))?;
    } else {
        write!(out, "{}", report::table(&evaluation))?;
        writeln!(out, "\n{} images, {} detections", evaluation.images, evaluation.detections)?;
    }
    Ok(Exit::Done)
}
