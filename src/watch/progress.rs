//! How far long work is: a bar on a terminal, else a plain line now and then.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::page::add;

/// Work that takes less than this is not talked about.
const FIRST: Duration = Duration::from_secs(2);
/// Between plain lines: a twentieth of the time so far, within these.
const BETWEEN: [Duration; 2] = [Duration::from_secs(10), Duration::from_mins(1)];

/// Progress of one piece of work, on stderr.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// Where stderr is no terminal.
    plain: Option<Mutex<Plain>>,
    start: Instant,
}

impl Progress {
    /// `done` of `total` `unit` are done already.
    pub fn start(total: usize, done: usize, unit: &'static str) -> Self {
        let start = Instant::now();
        if !std::io::stderr().is_terminal() {
            let plain =
                Plain { total, first: done, done, unit, message: String::new(), next: FIRST };
            return Self { bar: ProgressBar::hidden(), plain: Some(Mutex::new(plain)), start };
        }
        let bar = ProgressBar::new(total as u64);
        let template =
            format!("{{bar:16}} {{pos}}/{{len}} {unit}  {{elapsed}}<{{eta}}  {{wide_msg}}");
        bar.set_style(ProgressStyle::with_template(&template).expect("the template is right"));
        bar.set_position(done as u64);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, plain: None, start }
    }

    /// Says nothing.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), plain: None, start: Instant::now() }
    }

    /// So many more are done.
    pub fn inc(&self, count: u64) {
        self.bar.inc(count);
        self.on_plain(|plain| plain.done += count as usize);
    }

    /// So many are done.
    pub fn set_position(&self, done: u64) {
        self.bar.set_position(done);
        self.on_plain(|plain| plain.done = done as usize);
    }

    /// What stands behind the numbers.
    pub fn set_message(&self, message: String) {
        if self.plain.is_none() {
            self.bar.set_message(message);
            return;
        }
        self.on_plain(|plain| plain.message = message);
    }

    /// Calls `talk`, which writes to stderr, without the bar in its way.
    pub fn suspend<T>(&self, talk: impl FnOnce() -> T) -> T {
        self.bar.suspend(talk)
    }

    /// Takes the bar away.
    pub fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }

    fn on_plain(&self, change: impl FnOnce(&mut Plain)) {
        let Some(plain) = &self.plain else { return };
        let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut plain);
        if let Some(line) = plain.due(self.start.elapsed()) {
            tracing::info!("{line}");
        }
    }
}

/// Progress of work that says itself how much of it there is, in one part after the other.
#[derive(Debug)]
pub struct Reported {
    unit: &'static str,
    start: Instant,
    /// The part at work and how much of it there is, once it has taken long enough.
    part: Mutex<Option<(usize, Progress)>>,
}

impl Reported {
    /// Of work on `unit`.
    pub fn start(unit: &'static str) -> Self {
        Self { unit, start: Instant::now(), part: Mutex::new(None) }
    }

    /// So many of `all` are done. With the first, or another `all`, a part begins.
    pub fn set(&self, done: usize, all: usize) {
        if self.start.elapsed() < FIRST {
            return;
        }
        let mut part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        match part.as_ref() {
            Some((total, progress)) if *total == all && done > 1 => {
                progress.set_position(done as u64);
            }
            before => {
                if let Some((_, progress)) = before {
                    progress.finish_and_clear();
                }
                *part = Some((all, Progress::start(all, done, self.unit)));
            }
        }
    }

    /// Takes the bar away.
    pub fn finish_and_clear(&self) {
        let part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, progress)) = part.as_ref() {
            progress.finish_and_clear();
        }
    }
}

/// Progress without a terminal.
#[derive(Debug)]
struct Plain {
    total: usize,
    /// Done before the start.
    first: usize,
    done: usize,
    unit: &'static str,
    message: String,
    /// When the next line is due, from the start on.
    next: Duration,
}

impl Plain {
    /// The line that is due `elapsed` after the start, if one is.
    fn due(&mut self, elapsed: Duration) -> Option<String> {
        if elapsed < self.next || self.done >= self.total {
            return None;
        }
        self.next = elapsed + (elapsed / 20).clamp(BETWEEN[0], BETWEEN[1]);
        let Self { total, done, unit, .. } = self;
        let mut line = format!("{done}/{total} {unit}");
        let here = done.saturating_sub(self.first);
        if here > 0 {
            let left = elapsed.mul_f64((*total - *done) as f64 / here as f64);
            add!(line, ", {:#} left", HumanDuration(left));
        }
        if !self.message.is_empty() {
            line += "  ";
            line += &self.message;
        }
        Some(line)
    }
}

/// A line of the record of the kind `step` in few words, for the bar.
pub fn words(line: &Value) -> String {
    let number = |key: &str| line[key].as_f64();
    let mut parts = Vec::new();
    if let Some(loss) = number("loss") {
        let fields = line.as_object().into_iter().flatten();
        let losses = fields.filter(|(key, _)| key.starts_with("loss_"));
        let losses: Vec<String> =
            losses.filter_map(|(_, v)| Some(format!("{:.3}", v.as_f64()?))).collect();
        let of = if losses.is_empty() { String::new() } else { format!(" ({})", losses.join(" ")) };
        parts.push(format!("loss {loss:.3}{of}"));
    }
    parts.extend(number("lr").map(|lr| format!("lr {}", short(lr))));
    parts.extend(number("images_per_s").map(|rate| format!("{} images/s", short(rate))));
    parts.extend(number("memory_mib").map(|mib| format!("{mib:.0} MiB")));
    parts.join("  ")
}

/// Three digits that count.
fn short(x: f64) -> String {
    if x == 0. || !x.is_finite() {
        return x.to_string();
    }
    let digits = 2 - x.abs().log10().floor() as i32;
    match digits {
        ..0 => format!("{x:.0}"),
        0..6 => format!("{x:.*}", digits as usize), // down to 0.001
        _ => format!("{x:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_comes_after_two_seconds_and_then_ever_less_often() {
        let mut plain = Plain {
            total: 1000,
            first: 100,
            done: 100,
            unit: "steps",
            message: String::new(),
            next: FIRST,
        };
        let second = Duration::from_secs(1);
        assert_eq!(plain.due(second), None);
        plain.done = 101;
        assert_eq!(plain.due(3 * second).unwrap(), "101/1000 steps, 45m left");
        assert_eq!(plain.due(12 * second), None);
        plain.done = 200;
        plain.message = "loss 1".into();
        assert_eq!(plain.due(20 * second).unwrap(), "200/1000 steps, 3m left  loss 1");
        let lines = (20..7200).filter(|s| plain.due(*s * second).is_some()).count();
        assert!((120..400).contains(&lines), "{lines} lines in two hours");
        plain.done = 1000;
        assert_eq!(plain.due(9000 * second), None, "the end is said by what follows");
    }

    #[test]
    fn a_step_in_words() {
        let line = json!({ "kind": "step", "loss": 1.2345, "loss_a": 0.5, "loss_b": 0.734, "lr": 0.000_333_3, "images_per_s": 12.34, "memory_mib": 512.3 });
        assert_eq!(words(&line), "loss 1.234 (0.500 0.734)  lr 3.33e-4  12.3 images/s  512 MiB");
        assert_eq!(words(&json!({ "loss": null, "lr": 1e-9 })), "lr 1.00e-9");
        assert_eq!(words(&json!({ "images_per_s": 1234.5 })), "1234 images/s");
    }
}
