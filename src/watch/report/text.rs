//! The report of runs as a text and as JSON, and the words that the page shares with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Run;
use crate::page::{add, printable};

/// Seconds as people say them: `42 s`, `12 min`, `3.5 h`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        ..120. => format!("{seconds:.0} s"),
        ..7200. => format!("{:.1} min", seconds / 60.),
        _ => format!("{:.1} h", seconds / 3600.),
    }
}

/// The columns of the table of runs: heading, and a cell for each run.
pub(super) fn overview(runs: &[Run]) -> Vec<(String, Vec<String>)> {
    let number =
        |x: Option<f64>, digits: usize| x.map_or("–".to_owned(), |x| format!("{x:.digits$}"));
    let column = |head: &str, cell: &dyn Fn(&Run) -> String| {
        (head.to_owned(), runs.iter().map(cell).collect())
    };
    vec![
        column("run", &|run| printable(&run.name)),
        column("steps", &|run| match run.total() {
            Some(total) => format!("{} of {total}", run.step()),
            None => run.step().to_string(),
        }),
        column("time", &|run| run.elapsed().map_or("–".to_owned(), duration)),
        column("loss", &|run| number(run.recent("loss"), 3)),
        column("best AP", &|run| match run.best() {
            Some(best) => format!("{} at {}", number(best.score("AP"), 4), best.step),
            None => "–".to_owned(),
        }),
        column("last AP", &|run| number(run.evals.last().and_then(|e| e.score("AP")), 4)),
        column("last AP50", &|run| number(run.evals.last().and_then(|e| e.score("AP50")), 4)),
        column("images/s", &|run| number(run.recent("images_per_s"), 1)),
        column("MiB", &|run| number(run.recent("memory_mib"), 0)),
    ]
}

/// The table of runs as a text.
pub fn text(runs: &[Run]) -> String {
    let columns = overview(runs);
    let mut lines = vec![String::new(); runs.len() + 1];
    for (place, (head, cells)) in columns.into_iter().enumerate() {
        let column: Vec<String> = std::iter::once(head).chain(cells).collect();
        let width = column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        for (line, cell) in lines.iter_mut().zip(column) {
            if place == 0 {
                add!(line, "{cell:<width$}");
            } else {
                add!(line, "  {cell:>width$}");
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        text += line.trim_end();
        text.push('\n');
    }
    for run in runs {
        if let Err(why) = &run.samples {
            let name = printable(&run.name);
            add!(text, "{name}: no images on the page: {}\n", printable(why));
        }
    }
    text
}

/// Everything that the page shows, less curves and pictures.
pub fn json(runs: &[Run]) -> Value {
    let one = |run: &Run| {
        let parts: serde_json::Map<String, Value> = run
            .loss_parts()
            .into_iter()
            .map(|key| (key.to_owned(), json!(run.recent(key))))
            .collect();
        let evals: Vec<Value> = run
            .evals
            .iter()
            .map(|entry| {
                let mut line = entry.line.clone();
                line["elapsed_s"] = json!(entry.elapsed);
                line
            })
            .collect();
        let samples = run.samples.as_ref();
        json!({
            "run": run.folder.display().to_string(),
            "step": run.step(),
            "steps": run.total(),
            "elapsed_s": run.elapsed(),
            "sessions": run.starts.len(),
            "broken_lines": run.broken,
            "recent": {
                "loss": run.recent("loss"),
                "parts": parts,
                "lr": run.recent("lr"),
                "grad_norm": run.recent("grad_norm"),
                "images_per_s": run.recent("images_per_s"),
                "memory_mib": run.recent("memory_mib"),
            },
            "best": run.best().map(|best| json!({ "AP": best.score("AP"), "step": best.step })),
            "evaluations": evals,
            "last_evaluation": run.evaluation,
            "images_shown": samples.map_or(0, |s| s.best.len() + s.worst.len()),
            "no_images": samples.err(),
            "start": run.starts.last(),
            "config": run.config,
        })
    };
    json!({ "runs": runs.iter().map(one).collect::<Vec<_>>() })
}

/// What a `start` line holds, by its key and in the page's words; the rest follows under its own keys.
const FACTS: [(&str, &str); 15] = [
    ("device", "device"),
    ("threads", "threads"),
    ("machine.cpu", "processor"),
    ("machine.cores", "cores"),
    ("machine.memory_mib", "memory, MiB"),
    ("machine.gpu", "GPU"),
    ("machine.system", "system"),
    ("machine.kernel", "kernel"),
    ("versions.detect", "detect"),
    ("versions.libtorch", "libtorch"),
    ("data", "data"),
    ("train", "training split"),
    ("images", "training images"),
    ("val", "validation split"),
    ("val_images", "validation images"),
];

/// What a `start` line says of machine and data, as rows of a table.
pub(super) fn facts(start: &Value) -> Vec<(String, String)> {
    let mut rest = flat(start);
    for known in ["kind", "step", "steps", "name", "time"] {
        rest.remove(known);
    }
    let known: Vec<_> = FACTS
        .iter()
        .filter_map(|(key, words)| Some(((*words).to_owned(), rest.remove(*key)?)))
        .collect();
    let all = known.into_iter().chain(rest);
    all.map(|(key, value)| (key, value.trim_matches('"').to_owned())).collect()
}

/// The values of nested objects by their dotted keys, in JSON's words.
pub(super) fn flat(value: &Value) -> BTreeMap<String, String> {
    fn walk(value: &Value, key: &str, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    walk(value, &key, found);
                }
            }
            other => {
                found.insert(key.to_owned(), other.to_string());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(value, "", &mut found);
    found
}

/// The keys that are not the same in all, with each one's value.
pub(super) fn changes(all: &[Option<BTreeMap<String, String>>]) -> Vec<(String, Vec<String>)> {
    let mut keys: Vec<&String> = all.iter().flatten().flat_map(BTreeMap::keys).collect();
    keys.sort();
    keys.dedup();
    let row = |key: &String| {
        let value = |one: &Option<BTreeMap<String, String>>| {
            one.as_ref().and_then(|one| one.get(key)).map_or("–".to_owned(), Clone::clone)
        };
        (key.clone(), all.iter().map(value).collect::<Vec<_>>())
    };
    keys.into_iter().map(row).filter(|(_, values)| values.iter().any(|v| *v != values[0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_facts_come_first_and_unknown_ones_are_not_lost() {
        let start = json!({ "kind": "start", "time": 1.5, "zebra": { "x": 1 }, "machine": { "cores": 2 }, "device": "cpu" });
        let expected = [("device", "cpu"), ("cores", "2"), ("zebra.x", "1")];
        assert_eq!(facts(&start), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn durations_are_short() {
        let words = [
            (0.4, "0 s"),
            (119., "119 s"),
            (120., "2.0 min"),
            (7200., "2.0 h"),
            (360_000., "100.0 h"),
        ];
        for (seconds, word) in words {
            assert_eq!(duration(seconds), word);
        }
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let [a, b] =
            [json!({ "x": { "y": 1, "z": [2] }, "w": 0 }), json!({ "x": { "y": 1, "z": [3] } })];
        let found = changes(&[Some(flat(&a)), Some(flat(&b)), None]);
        let row =
            |key: &str, values: [&str; 3]| (key.to_owned(), values.map(str::to_owned).to_vec());
        let expected = [
            row("w", ["0", "–", "–"]),
            row("x.y", ["1", "1", "–"]),
            row("x.z", ["[2]", "[3]", "–"]),
        ];
        assert_eq!(found, expected);
    }
}
