//! The report of runs: what their folders hold, read for a page, for a text and for JSON.
//!
//! [`Run`] is a run folder as it lies there, of a run that has ended, was killed or is going on. [`samples`]
//! are the images of its last evaluation, [`html`] the page, [`text`] the words.

pub mod html;
mod pictures;
pub mod samples;
pub mod text;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use super::record::{self, RECORD};
use super::{EVALUATION, record::parse_one};
use samples::Samples;

/// Why there is no report.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The folder holds no record.
    #[error("{} is no run folder: it has no {RECORD}; name the folder that `detect train` wrote into (runs/NAME-n)", run.display())]
    NoRun {
        /// The folder.
        run: PathBuf,
    },
    /// A file of it can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A line of the record with numbers.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Steps that were done.
    pub step: u64,
    /// Seconds that the run had gone on by then, pauses and work that a kill undid left out; none where lines
    /// have no time.
    pub elapsed: Option<f64>,
    /// The line.
    pub line: Value,
}

impl Entry {
    /// A number of the line; none where it is absent or was not finite.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.line[key].as_f64().filter(|x| x.is_finite())
    }

    /// As [`number`](Self::number), of a number of the metric, whose -1 says that there was nothing to measure
    /// by.
    pub fn score(&self, key: &str) -> Option<f64> {
        self.number(key).filter(|&score| score >= 0.)
    }
}

/// A run folder as it lies there.
#[derive(Debug)]
pub struct Run {
    /// The folder.
    pub folder: PathBuf,
    /// What to call it among others: the folder's own name.
    pub name: String,
    /// Lines of the kind `start`, one for each time that it began or went on.
    pub starts: Vec<Value>,
    /// Lines of the kind `step`.
    pub steps: Vec<Entry>,
    /// Lines of the kind `eval`.
    pub evals: Vec<Entry>,
    /// Lines that can't be read: the last one, perhaps, of a run that was killed or is going on.
    pub broken: usize,
    /// Its configuration, as `config.json` has it.
    pub config: Option<Value>,
    /// All numbers of the last evaluation.
    pub evaluation: Option<Value>,
    /// Images of the last evaluation, or why there are none.
    pub samples: Result<Samples, String>,
}

impl Run {
    /// Reads a run folder. `data` is the data folder, where it is no longer the one that the run names.
    ///
    /// # Errors
    /// Where there is no record, or it can't be read. What else is missing is left out of the report.
    pub fn read(folder: &Path, data: Option<&Path>) -> Result<Self, ReportError> {
        let path = folder.join(RECORD);
        if !path.is_file() {
            return Err(ReportError::NoRun { run: folder.into() });
        }
        let (lines, broken) =
            record::read(&path).map_err(|source| ReportError::Read { path, source })?;
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
        let name =
            absolute.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        let mut run = Self {
            folder: folder.into(),
            name,
            starts: Vec::new(),
            steps: Vec::new(),
            evals: Vec::new(),
            broken,
            config: json_file(&folder.join("config.json")),
            evaluation: json_file(&folder.join(EVALUATION)),
            samples: Err(String::new()),
        };
        run.sort(lines);
        run.samples = samples::of(&run, data);
        Ok(run)
    }

    /// Sorts lines by their kind and counts the time.
    fn sort(&mut self, lines: Vec<Value>) {
        let mut elapsed = Some(0.);
        let mut before: Option<f64> = None;
        for line in lines {
            let time = line["time"].as_f64();
            let kind = line["kind"].as_str().unwrap_or_default().to_owned();
            if kind == "start" {
                before = time;
                self.starts.push(line);
                continue;
            }
            elapsed = match (elapsed, time) {
                (Some(sum), Some(time)) => Some(sum + (time - before.unwrap_or(time)).max(0.)),
                _ => None,
            };
            before = time;
            let Some(step) = line["step"].as_u64() else { continue };
            let entry = Entry { step, elapsed, line };
            match kind.as_str() {
                "step" => self.steps.push(entry),
                "eval" => self.evals.push(entry),
                _ => {}
            }
        }
    }

    /// Steps that were done.
    pub fn step(&self) -> u64 {
        self.last().map_or(0, |entry| entry.step)
    }

    /// Steps in all; none where the record does not say.
    pub fn total(&self) -> Option<u64> {
        self.starts.last()?["steps"].as_u64()
    }

    /// Seconds that it has gone on.
    pub fn elapsed(&self) -> Option<f64> {
        self.last()?.elapsed
    }

    fn last(&self) -> Option<&Entry> {
        let (step, eval) = (self.steps.last(), self.evals.last());
        step.into_iter().chain(eval).max_by_key(|entry| entry.step)
    }

    /// The evaluation with the highest AP, the first of equals.
    pub fn best(&self) -> Option<&Entry> {
        let scored = self.evals.iter().filter_map(|entry| Some((entry, entry.score("AP")?)));
        scored.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|best| best.0)
    }

    /// The mean of a number over the last steps, a twentieth of them and at least 5.
    pub fn recent(&self, key: &str) -> Option<f64> {
        let count = (self.steps.len() / 20).max(5);
        let numbers: Vec<f64> =
            self.steps.iter().rev().take(count).filter_map(|entry| entry.number(key)).collect();
        (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
    }

    /// The keys of the parts of the loss, in the order of the record.
    pub fn loss_parts(&self) -> Vec<&str> {
        let fields = self.steps.first().and_then(|entry| entry.line.as_object());
        let keys = fields.into_iter().flat_map(|object| object.keys());
        keys.map(String::as_str).filter(|key| key.starts_with("loss_")).collect()
    }
}

/// A JSON file; none where it is missing or broken.
fn json_file(path: &Path) -> Option<Value> {
    parse_one(&fs::read(path).ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(lines: &[Value]) -> Run {
        let dir = tempfile::tempdir().unwrap();
        let text = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n";
        fs::write(dir.path().join(RECORD), text + "{\"kind\":\"st").unwrap();
        Run::read(dir.path(), None).unwrap()
    }

    #[test]
    fn pauses_between_sessions_are_no_time_of_the_run() {
        let step = |step: u64, time: f64| json!({ "kind": "step", "step": step, "time": time, "loss": step });
        let run = run(&[
            json!({ "kind": "start", "step": 0, "steps": 9, "time": 100. }),
            step(1, 104.),
            step(2, 105.),
            json!({ "kind": "start", "step": 2, "steps": 9, "time": 5000. }),
            step(3, 5003.),
            json!({ "kind": "eval", "step": 3, "AP": 0.25, "time": 5010. }),
        ]);
        assert_eq!((run.step(), run.total(), run.broken), (3, Some(9), 1));
        assert_eq!(
            run.steps.iter().map(|e| e.elapsed).collect::<Vec<_>>(),
            [Some(4.), Some(5.), Some(8.)]
        );
        assert_eq!(run.elapsed(), Some(15.), "with the evaluation after the last step");
        assert_eq!(run.recent("loss"), Some(2.));
        assert!(run.samples.is_err());
    }

    #[test]
    fn the_best_is_the_first_of_equals_and_never_one_without_truth() {
        let eval = |step: u64, ap: f64| json!({ "kind": "eval", "step": step, "AP": ap });
        assert_eq!(run(&[eval(1, 0.5), eval(2, 0.75), eval(3, 0.75)]).best().unwrap().step, 2);
        assert!(run(&[eval(1, -1.)]).best().is_none());
    }

    #[test]
    fn an_empty_record_is_a_run_that_has_just_begun() {
        let run = run(&[]);
        assert_eq!((run.step(), run.total(), run.elapsed()), (0, None, None));
        let dir = tempfile::tempdir().unwrap();
        let error = Run::read(dir.path(), None).unwrap_err();
        assert!(error.to_string().contains("metrics.jsonl"), "{error}");
    }
}
