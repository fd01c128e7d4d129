//! `detect eval --annotations GT.json --predictions DT.json`: the evaluator alone.

use std::io::Write as _;

use super::EvalArgs;
use crate::eval::{GroundTruth, Results, evaluate, report};
use crate::failure::{Exit, OrExit as _};

pub(super) fn run(args: &EvalArgs) -> anyhow::Result<Exit> {
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
