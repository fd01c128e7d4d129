//! What a run tells: `metrics.jsonl`, which is the record, and a bar on the terminal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

/// One JSON object a line.
#[derive(Debug)]
pub struct Metrics {
    file: File,
}

impl Metrics {
    /// Opens the record of a run that has done `step` steps; lines of later steps, which a resumed run
    /// makes again, are dropped.
    pub fn open(path: &Path, step: usize) -> io::Result<Self> {
        let mut kept = Vec::new();
        if path.is_file() {
            for line in BufReader::new(File::open(path)?).lines() {
                let line = line?;
                // A line that was cut by a kill is no JSON.
                let value: Option<Value> = serde_json::from_str(&line).ok();
                let at = value.as_ref().and_then(|v| v["step"].as_u64());
                if at.is_some_and(|at| at as usize <= step) {
                    kept.extend_from_slice(line.as_bytes());
                    kept.push(b'\n');
                }
            }
            let beside = path.with_extension("jsonl.part");
            fs::write(&beside, &kept)?;
            fs::rename(&beside, path)?;
        }
        Ok(Self { file: OpenOptions::new().create(true).append(true).open(path)? })
    }

    /// Adds a line.
    pub fn write(&mut self, value: &Value) -> io::Result<()> {
        self.file.write_all(format!("{value}\n").as_bytes())
    }
}

/// A bar on stderr; nothing where that is no terminal.
pub fn bar(total: usize, done: usize, unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
    let template = format!("{{bar:24}} {{pos}}/{{len}} {unit}  {{elapsed}}<{{eta}}  {{msg}}");
    bar.set_style(ProgressStyle::with_template(&template).expect("the template is right"));
    bar.set_position(done as u64);
    bar.reset_eta();
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
