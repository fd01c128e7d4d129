//! `--profile N`: N steps timed by part, then a table and a line of the record.

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::{Value, json};
use tch::Device;

use crate::profile::{self, Laps, Part};

/// Steps that are not timed: memory is taken and kernels are chosen in them.
const WARM_UP: usize = 3;

/// What has been timed so far.
#[derive(Debug)]
pub(super) struct Profiler {
    wanted: usize,
    to_pass: usize,
    started: Option<Instant>,
    /// Seconds of each step, whole and by part.
    steps: Vec<(f64, Laps)>,
}

impl Profiler {
    /// Of `wanted` steps; none if that is 0.
    pub(super) fn of(wanted: usize) -> Self {
        Self { wanted, to_pass: WARM_UP, started: None, steps: Vec::new() }
    }

    /// A step begins.
    pub(super) fn begin(&mut self, device: Device) {
        if self.wanted == 0 {
            return;
        }
        if self.to_pass > 0 {
            self.to_pass -= 1;
            return;
        }
        self.started = Some(Instant::now());
        profile::start(device);
    }

    /// It ends, the run's last one if `last`. When enough are timed, what is to be told of them: after `step`
    /// steps.
    pub(super) fn end(&mut self, step: usize, last: bool) -> Option<Value> {
        profile::lap(Part::Other);
        if let (Some(laps), Some(started)) = (profile::stop(), self.started.take()) {
            self.steps.push((started.elapsed().as_secs_f64(), laps));
        }
        if self.steps.is_empty() || !(last || self.steps.len() == self.wanted) {
            return None;
        }
        self.wanted = 0;
        Some(summary(step, &std::mem::take(&mut self.steps)))
    }
}

/// The line of the record: the median step and the median of each part, and each part's share of all time.
fn summary(step: usize, steps: &[(f64, Laps)]) -> Value {
    let whole: f64 = steps.iter().map(|(whole, _)| whole).sum();
    let mut parts = json!({});
    for (i, part) in Part::ALL.into_iter().enumerate() {
        let seconds: Vec<f64> = steps.iter().map(|(_, laps)| laps[i]).collect();
        let share = seconds.iter().sum::<f64>() / whole;
        parts[part.name()] = json!({ "median_s": median(seconds), "share": share });
    }
    let median = median(steps.iter().map(|(whole, _)| *whole).collect());
    json!({ "kind": "profile", "step": step, "steps": steps.len(), "median_s": median, "parts": parts })
}

/// Of at least one number.
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    let middle = of.len() / 2;
    if of.len() % 2 == 1 { of[middle] } else { f64::midpoint(of[middle - 1], of[middle]) }
}

/// A summary as a table.
pub(super) fn table(summary: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let mut text = format!("where the time of {} steps went:\n", summary["steps"]);
    let _ = writeln!(text, "  {:<10} {:>10} {:>7}", "part", "median ms", "share");
    for part in Part::ALL {
        let of = &summary["parts"][part.name()];
        let (seconds, share) = (number(&of["median_s"]), number(&of["share"]));
        let _ =
            writeln!(text, "  {:<10} {:>10.2} {:>6.1}%", part.name(), seconds * 1e3, share * 100.);
    }
    let _ = write!(text, "  {:<10} {:>10.2}", "step", number(&summary["median_s"]) * 1e3);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_shares_are_those_of_the_steps() {
        let laps = |data: f64, trunk: f64| [data, trunk, 0., 0., 0., 0., 0.];
        let steps = [(10., laps(1., 9.)), (20., laps(0., 20.)), (10., laps(3., 5.))];
        let found = summary(7, &steps);
        assert_eq!((&found["step"], &found["steps"]), (&json!(7), &json!(3)));
        assert_eq!(found["median_s"], json!(10.));
        assert_eq!(found["parts"]["data"], json!({ "median_s": 1., "share": 0.1 }));
        assert_eq!(found["parts"]["trunk"], json!({ "median_s": 9., "share": 0.85 }));
        assert_eq!(median(vec![4., 1., 2., 3.]), 2.5);
        let table = table(&found);
        let row = table.lines().find(|line| line.contains("trunk")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["trunk", "9000.00", "85.0%"]);
    }

    #[test]
    fn the_first_steps_are_passed_and_the_last_one_ends_it() {
        let run = |wanted: usize, steps: usize| {
            let mut profiler = Profiler::of(wanted);
            let told = (1..=steps).filter_map(|step| {
                profiler.begin(Device::Cpu);
                profiler.end(step, step == steps)
            });
            told.map(|line| (line["step"].clone(), line["steps"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(run(2, 9), [(json!(5), json!(2))]);
        assert_eq!(run(20, 9), [(json!(9), json!(6))], "a run that is too short tells what it has");
        assert_eq!(run(2, 3), []);
        assert_eq!(run(0, 9), []);
    }
}
