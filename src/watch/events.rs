//! The record of a run as TensorBoard reads it: an event file beside `metrics.jsonl`.
//!
//! The file is a row of records: length, checksum of the length, bytes, checksum of the bytes (TensorFlow's
//! `TFRecord`); the bytes of each are a message `Event` of TensorFlow's `event.proto`. A line of the record
//! is one event that holds all its numbers. Nothing else goes into the file, so that it can be made anew from
//! the record at any time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::eval::STAT_NAMES;
use crate::weights::tf_bundle::masked_crc;
use crate::whole;

/// TensorBoard takes a file for one of events by this part of its name.
const PREFIX: &str = "events.out.tfevents.";
/// Ours, not those of another program in the same folder.
const SUFFIX: &str = ".detect";
/// The version of the format, in the first event of a file.
const VERSION: &str = "brain.Event:2";
/// `SessionLog.START`: what TensorBoard had read of later steps is void.
const SESSION_START: u64 = 1;

/// The event file of a run, open for more events.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    /// Of the last event, for lines that have none.
    time: f64,
}

impl EventFile {
    /// Makes the event file of the run in `folder` anew from the lines of its record, in place of any that
    /// was there before. `now` is in seconds since 1970.
    ///
    /// The new file has a later name, and begins with the start of a session: a TensorBoard that is running
    /// goes over to it and forgets what it knew.
    pub fn start(folder: &Path, lines: &[Value], now: f64) -> io::Result<Self> {
        let old = files(folder)?;
        let latest = old.iter().filter_map(|path| second_of(path)).max();
        let second = latest.map_or(0, |latest| latest + 1).max(now as u64);
        let path = folder.join(format!("{PREFIX}{second:010}{SUFFIX}"));
        let bytes = from_record(lines, now);
        whole::write(&path, |file| file.write_all(&bytes))?;
        for path in old {
            fs::remove_file(path)?;
        }
        let time = lines.iter().rev().find_map(time_of).unwrap_or(now);
        Ok(Self { file: OpenOptions::new().append(true).open(&path)?, time })
    }

    /// Adds what a line of the record holds. It can be read as soon as this returns.
    pub fn add(&mut self, line: &Value) -> io::Result<()> {
        self.time = time_of(line).unwrap_or(self.time);
        match event(line, self.time) {
            // One write: a kill leaves a whole record or, rarely, a cut one at the end, which readers wait on.
            Some(event) => self.file.write_all(&framed(&event)),
            None => Ok(()),
        }
    }
}

/// The event files that runs of this program left in `folder`.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if second_of(&path).is_some() {
            found.push(path);
        }
    }
    Ok(found)
}

/// The number in the name of one of our event files.
fn second_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// A whole event file: its version, the start of a session, an event for each line of a record that has
/// numbers. `now` stands for the time of lines that have none before the first that has.
pub fn from_record(lines: &[Value], now: f64) -> Vec<u8> {
    let mut time = lines.iter().find_map(time_of).unwrap_or(now);
    let mut bytes = framed(&fields(|message| {
        message.double(1, time);
        message.bytes(3, VERSION.as_bytes());
    }));
    bytes.extend(framed(&fields(|message| {
        message.double(1, time);
        message.bytes(7, &fields(|log| log.varint(1, SESSION_START)));
    })));
    for line in lines {
        time = time_of(line).unwrap_or(time);
        if let Some(event) = event(line, time) {
            bytes.extend(framed(&event));
        }
    }
    bytes
}

/// The numbers of a line of a record by the names under which TensorBoard shows them: `train/loss`,
/// `eval/AP50`. Steps and times are none of them; what is not a finite number is left out.
pub fn scalars(line: &Value) -> Vec<(String, f64)> {
    let group = match line["kind"].as_str() {
        Some("step") => "train",
        Some("start") | None => return Vec::new(),
        Some(kind) => kind,
    };
    let Some(object) = line.as_object() else { return Vec::new() };
    let mut found: Vec<(String, f64)> = Vec::new();
    for (key, value) in object {
        if let Some(number) = value.as_f64().filter(|_| key != "step" && key != "time") {
            found.push((format!("{group}/{key}"), number));
        }
    }
    // The metric's numbers stand in a list; the first three have their names beside it, too.
    if let Some(stats) = line["stats"].as_array().filter(|stats| stats.len() == STAT_NAMES.len()) {
        for (name, value) in STAT_NAMES.iter().zip(stats) {
            if let Some(number) = value.as_f64().filter(|_| !object.contains_key(*name)) {
                found.push((format!("{group}/{name}"), number));
            }
        }
    }
    found
}

fn time_of(line: &Value) -> Option<f64> {
    line["time"].as_f64()
}

/// The `Event` of a line, where it has numbers.
fn event(line: &Value, time: f64) -> Option<Vec<u8>> {
    let scalars = scalars(line);
    if scalars.is_empty() {
        return None;
    }
    Some(fields(|message| {
        message.double(1, time);
        message.varint(2, line["step"].as_u64().unwrap_or(0));
        message.bytes(
            5,
            &fields(|summary| {
                for (tag, number) in &scalars {
                    summary.bytes(
                        1,
                        &fields(|value| {
                            value.bytes(1, tag.as_bytes());
                            value.float(2, *number as f32);
                        }),
                    );
                }
            }),
        );
    }))
}

/// A record: its length, its bytes, and a checksum behind each.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(bytes);
    record.extend_from_slice(&masked_crc(bytes).to_le_bytes());
    record
}

/// A message in the wire format of protocol buffers, written field by field in rising order of numbers.
struct Message(Vec<u8>);

fn fields(write: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message(Vec::new());
    write(&mut message);
    message.0
}

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 128 {
            self.0.push(value as u8 | 128);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer; the default, 0, is left out.
    fn varint(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.raw_varint(field << 3);
            self.raw_varint(value);
        }
    }

    /// A double; the default, 0, is left out.
    fn double(&mut self, field: u64, value: f64) {
        if value != 0. {
            self.raw_varint(field << 3 | 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A float that is one of several choices, and so written where it is 0, too.
    fn float(&mut self, field: u64, value: f32) {
        self.raw_varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A text or a message.
    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::watch::record::{RECORD, Record, read};

    /// What `tools/golden_events.py` wrote with the writer of tensorboard.
    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/events/tensorboard.bin");
    const LINES: &str = include_str!("../../tests/golden/events/metrics.jsonl");

    fn lines() -> Vec<Value> {
        LINES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn the_bytes_are_those_of_tensorboard_s_own_writer() {
        assert_eq!(from_record(&lines(), 0.), GOLDEN);
    }

    #[test]
    fn a_file_that_grows_line_by_line_is_that_of_the_whole_record() {
        let dir = tempfile::tempdir().unwrap();
        let all = lines();
        let mut file = EventFile::start(dir.path(), &all[..2], 5.).unwrap();
        for line in &all[2..] {
            file.add(line).unwrap();
        }
        let paths = files(dir.path()).unwrap();
        assert_eq!(paths.len(), 1);
        assert_eq!(fs::read(&paths[0]).unwrap(), GOLDEN);
    }

    #[test]
    fn a_resumed_run_has_one_later_file_that_agrees_with_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RECORD);
        // Another program's file is none of ours.
        let other = dir.path().join("events.out.tfevents.1.host");
        fs::write(&other, b"x").unwrap();
        let step = |step: u64| json!({ "kind": "step", "step": step, "loss": 1. / step as f64 });
        let mut record = Record::open(&path, 0, true).unwrap();
        (1..=5).for_each(|n| record.write(&step(n)).unwrap());
        let first = files(dir.path()).unwrap();
        let mut record = Record::open(&path, 3, true).unwrap();
        record.write(&step(4)).unwrap();
        let second = files(dir.path()).unwrap();
        assert_eq!((first.len(), second.len()), (1, 1));
        assert!(second[0] > first[0], "the later file has the later name");
        let lines = read(&path).unwrap().0;
        assert_eq!(lines.len(), 4);
        assert_eq!(fs::read(&second[0]).unwrap(), from_record(&lines, 0.));
        assert!(other.exists());
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let line = json!({ "kind": "step", "step": 3, "time": 9.5, "loss": null, "note": "x", "lr": 0.5, "list": [1] });
        assert_eq!(scalars(&line), [("train/lr".to_owned(), 0.5)]);
        assert_eq!(event(&json!({ "kind": "start", "step": 3, "steps": 40 }), 0.), None);
        assert_eq!(event(&json!({ "step": 3 }), 0.), None);
        assert_eq!(event(&json!({ "kind": "step", "step": 3 }), 0.), None);
    }
}
