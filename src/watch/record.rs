//! `metrics.jsonl`: the record of a run, one JSON object a line, oldest first.
//!
//! | kind | when | fields |
//! |---|---|---|
//! | `start` | the run begins or goes on | `step` it stands at, `steps` in all, `machine`, `data`, `val`, ... |
//! | `step` | every `log_every` steps | `epoch`, losses, `grad_norm`, `lr`, `data_s`, `step_s`, `images_per_s`, `memory_mib` |
//! | `eval` | after an evaluation | `AP`, `AP50`, `AP75`, `stats` (the metric's numbers in their order), `detections`, `failed` images that could not be read, `seconds`, `train_seconds` |
//! | `profile` | once, with `--profile N` | `steps` that were timed, `median_s` of a step, `parts`: `median_s` and `share` of each |
//!
//! Every line has `step` and `time`, seconds since 1970. Readers leave out fields and kinds that they do not
//! know. A number that is not finite is `null`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::events::{self, EventFile};
use crate::whole;

/// Name of the record in a run folder.
pub const RECORD: &str = "metrics.jsonl";

/// The record of a run, open for more lines, and TensorBoard's events beside it.
#[derive(Debug)]
pub struct Record {
    file: File,
    /// None once a write failed: the record goes on without.
    events: Option<EventFile>,
}

impl Record {
    /// Opens the record at `path` of a run that has done `step` steps, and was `evaluated` after the last of them or is to
    /// be. Lines of what a resumed run makes again are dropped, and so is a line that a kill cut short. The events are made
    /// anew from what is left.
    ///
    /// # Errors
    /// Where the record can't be read or written. Events that can't be written are only warned of.
    pub fn open(path: &Path, step: usize, evaluated: bool) -> io::Result<Self> {
        let mut kept = Vec::new();
        if path.is_file() {
            let mut text = Vec::new();
            for line in parse(&fs::read(path)?).0 {
                let at = line["step"].as_u64().map(|at| at as usize);
                let again = at == Some(step) && line["kind"] == "eval" && !evaluated;
                if at.is_some_and(|at| at <= step) && !again {
                    text.extend_from_slice(format!("{line}\n").as_bytes());
                    kept.push(line);
                }
            }
            whole::write(path, |file| file.write_all(&text))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let events = EventFile::start(path.parent().unwrap_or(Path::new("")), &kept, now());
        Ok(Self { file, events: events.map_err(|e| without_events(&e)).ok() })
    }

    /// Adds a line, stamped with the time. It can be read as soon as this returns.
    pub fn write(&mut self, line: &Value) -> io::Result<()> {
        let mut line = line.clone();
        line["time"] = json!((now() * 1e3).round() / 1e3);
        self.file.write_all(format!("{line}\n").as_bytes())?;
        if let Some(events) = &mut self.events
            && let Err(error) = events.add(&line)
        {
            // What follows a record that is cut can't be read, so it ends here; the next start makes all anew.
            without_events(&error);
            self.events = None;
        }
        Ok(())
    }

    /// Returns once all lines are on the disk.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Removes the record and the events in `folder`, of a run that is given up. What can't be removed stays.
pub fn remove(folder: &Path) {
    let events = events::files(folder).unwrap_or_default();
    for path in events.into_iter().chain([folder.join(RECORD)]) {
        let _ = fs::remove_file(path);
    }
}

fn without_events(error: &io::Error) {
    tracing::warn!("no more events for TensorBoard: {error}");
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0., |since| since.as_secs_f64())
}

/// The lines of a record, and how many were left out because they are no JSON object: of a run that is
/// going on or was killed, the last one may be cut short.
pub fn read(path: &Path) -> io::Result<(Vec<Value>, usize)> {
    Ok(parse(&fs::read(path)?))
}

fn parse(text: &[u8]) -> (Vec<Value>, usize) {
    let mut lines = Vec::new();
    let mut broken = 0;
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match parse_one(line) {
            Some(value) => lines.push(value),
            None => broken += 1,
        }
    }
    (lines, broken)
}

/// A JSON object; none where the text is anything else.
pub(super) fn parse_one(text: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(text).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(path: &Path) -> Vec<u64> {
        read(path).unwrap().0.iter().map(|line| line["step"].as_u64().unwrap()).collect()
    }

    #[test]
    fn a_record_goes_on_after_the_step_it_is_resumed_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RECORD);
        let mut record = Record::open(&path, 0, true).unwrap();
        for step in 1..=5 {
            record
                .write(&json!({ "kind": "step", "step": step, "loss": 0.1 + step as f64 }))
                .unwrap();
        }
        drop(record);
        // Cut in the middle of a letter of two bytes.
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"kind\":\"step\",\"step\":3,\"note\":\"\xc3");
        fs::write(&path, &text).unwrap();
        assert_eq!(read(&path).unwrap().1, 1);

        let mut record = Record::open(&path, 3, true).unwrap();
        assert_eq!(steps(&path), [1, 2, 3]);
        record.write(&json!({ "kind": "step", "step": 4 })).unwrap();
        assert_eq!(steps(&path), [1, 2, 3, 4]);
        let (lines, broken) = read(&path).unwrap();
        assert_eq!(broken, 0);
        assert_eq!(lines[2]["loss"], json!(3.1), "lines that are kept are kept as they were");
        assert!(lines.iter().all(|line| line["time"].as_f64().unwrap() > 1.7e9));
        // An evaluation that was noted before the checkpoint that says so.
        record.write(&json!({ "kind": "eval", "step": 4 })).unwrap();
        drop(record);
        drop(Record::open(&path, 4, true).unwrap());
        assert_eq!(steps(&path), [1, 2, 3, 4, 4]);
        drop(Record::open(&path, 4, false).unwrap());
        assert_eq!(steps(&path), [1, 2, 3, 4]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(Record::open(Path::new("/no/such/folder/metrics.jsonl"), 0, true).is_err());
    }
}
