//! The page of a report: curves, samples, categories, configuration and machine of one run, or of several
//! over each other.

use std::fmt::Write as _;

use serde_json::Value;

use super::pictures::samples;
use super::text::{changes, duration, facts, flat, overview};
use super::{Entry, Run};
use crate::config::Config;
use crate::page::svg::{self, Axis, Line};
use crate::page::{self, add, escape, number, table};

/// Most points of a line; eyes see no more.
const FINENESS: usize = 400;
/// Colours of runs, and of lines of one run: classes of the page's style.
const COLORS: [&str; 6] = ["run0", "run1", "run2", "run3", "run4", "run5"];

type Points = Vec<(f64, f64)>;

/// The page, whole. Runs are overlaid in the order given.
pub fn html(runs: &[Run]) -> String {
    let title = match runs {
        [run] => format!("Run {}", run.name),
        _ => format!("{} runs", runs.len()),
    };
    let mut html = page::begin(&title);
    if runs.len() > 1 {
        let names = runs.iter().enumerate().map(|(i, run)| (color(i), run.name.as_str()));
        legend(&mut html, names);
    }
    let rows = overview(runs).into_iter();
    let (head, rows): (Vec<String>, Vec<Vec<String>>) = rows.unzip();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let count = runs.len();
    let rows = (0..count).map(|i| rows.iter().map(|column| escape(&column[i])).collect());
    table(&mut html, "", &head, rows);
    for run in runs {
        warnings(&mut html, run);
    }
    scores(&mut html, runs);
    losses(&mut html, runs);
    rates(&mut html, runs);
    for run in runs {
        samples(&mut html, run, count > 1);
    }
    categories(&mut html, runs);
    configuration(&mut html, runs);
    machine(&mut html, runs);
    page::end(&mut html);
    html
}

fn color(place: usize) -> &'static str {
    COLORS[place % COLORS.len()]
}

fn warnings(html: &mut String, run: &Run) {
    if run.steps.is_empty() {
        add!(html, "<p class=\"warn\">{} has no steps in its record yet.</p>\n", escape(&run.name));
    }
    if run.broken > 0 {
        add!(
            html,
            "<p class=\"soft\">{}: {} cut or broken in the record and left out.</p>\n",
            escape(&run.name),
            if run.broken == 1 { "a line is".into() } else { format!("{} lines are", run.broken) }
        );
    }
}

fn legend<'a>(html: &mut String, lines: impl Iterator<Item = (&'static str, &'a str)>) {
    html.push_str("<p class=\"legend\">");
    for (class, name) in lines {
        add!(
            html,
            "<span><svg class=\"key\" viewBox=\"0 0 22 8\" aria-hidden=\"true\"><path class=\"line {class}\" \
             d=\"M1 4H21\"/></svg> {}</span> ",
            escape(name)
        );
    }
    html.push_str("</p>\n");
}

/// A plot under its title. Lines without points are left out, and so is a plot without lines.
fn plot(html: &mut String, title: &str, axes: [&str; 2], lines: &[Line<'_>], from_zero: bool) {
    let points = || lines.iter().flat_map(|line| &line.points);
    if points().next().is_none() {
        return;
    }
    let zero = from_zero.then_some(0.);
    let ranges = [
        Axis::around(points().map(|p| p.0).chain([0.])),
        Axis::around(points().map(|p| p.1).chain(zero)),
    ];
    add!(
        html,
        "<figure><figcaption>{title}</figcaption>\n{}</figure>\n",
        svg::lines(axes, ranges, lines, None)
    );
}

/// A number of each logged step.
fn series(run: &Run, key: &str) -> Points {
    let points = run.steps.iter().filter_map(|e| Some((e.step as f64, e.number(key)?)));
    points.collect()
}

/// The mean around each point, over a fortieth of all, and no more points than can be seen.
fn smooth(points: &[(f64, f64)]) -> Points {
    let half = points.len() / 80;
    let mean = |i: usize| {
        let part = &points[i.saturating_sub(half)..points.len().min(i + half + 1)];
        part.iter().map(|p| p.1).sum::<f64>() / part.len() as f64
    };
    let every = points.len().div_ceil(FINENESS).max(1);
    let last = points.len().saturating_sub(1);
    let shown = (0..points.len()).filter(|i| i % every == 0 || *i == last);
    shown.map(|i| (points[i].0, mean(i))).collect()
}

/// Every point, or the lowest and the highest of each bunch where there are more than can be seen.
fn thin(points: &[(f64, f64)]) -> Points {
    if points.len() <= 2 * FINENESS {
        return points.to_vec();
    }
    let mut shown = Points::new();
    for bunch in points.chunks(points.len().div_ceil(FINENESS)) {
        let place = |better: fn(f64, f64) -> bool| {
            (1..bunch.len()).fold(0, |b, i| if better(bunch[i].1, bunch[b].1) { i } else { b })
        };
        let (low, high) = (place(|a, b| a < b), place(|a, b| a > b));
        shown.push(bunch[low.min(high)]);
        if low != high {
            shown.push(bunch[low.max(high)]);
        }
    }
    shown
}

/// How a number is drawn.
#[derive(Clone, Copy, PartialEq)]
enum Drawing {
    /// Faint as it is, and bold smoothed.
    Noisy,
    /// As it is.
    Exact,
}

/// A number of several runs by step. The axis of the loss need not begin at 0: how far it falls is what matters.
fn compared(html: &mut String, runs: &[Run], title: &str, key: &str, drawing: Drawing) {
    let faint: Vec<String> = (0..runs.len()).map(|i| format!("faint {}", color(i))).collect();
    let all: Vec<Points> = runs.iter().map(|run| series(run, key)).collect();
    let mut lines = Vec::new();
    if drawing == Drawing::Noisy {
        for ((run, class), points) in runs.iter().zip(&faint).zip(&all) {
            lines.push(Line { name: &run.name, class, points: thin(points) });
        }
    }
    let shown = if drawing == Drawing::Noisy { smooth } else { thin };
    for (i, (run, points)) in runs.iter().zip(&all).enumerate() {
        lines.push(Line { name: &run.name, class: color(i), points: shown(points) });
    }
    plot(html, title, ["step", ""], &lines, key != "loss");
}

fn losses(html: &mut String, runs: &[Run]) {
    html.push_str(
        "<h2>Losses</h2>\n<p class=\"soft\">Bold: the mean over a fortieth of all logged steps; faint: each of \
         them.</p>\n<div class=\"pair\">\n",
    );
    compared(html, runs, "Loss, weighted sum", "loss", Drawing::Noisy);
    let parts = runs.first().map(Run::loss_parts).unwrap_or_default();
    if let [run] = runs {
        let lines: Vec<Line<'_>> = parts
            .iter()
            .enumerate()
            .map(|(i, key)| Line { name: key, class: color(i), points: smooth(&series(run, key)) })
            .collect();
        html.push_str("<div>\n");
        plot(html, "Parts of the loss, smoothed", ["step", ""], &lines, true);
        legend(
            html,
            parts.iter().enumerate().map(|(i, key)| (color(i), key.trim_start_matches("loss_"))),
        );
        html.push_str("</div>\n");
    } else {
        for key in parts {
            compared(html, runs, &escape(key), key, Drawing::Noisy);
        }
    }
    compared(html, runs, "Norm of the gradient, before clipping", "grad_norm", Drawing::Noisy);
    compared(html, runs, "Learning rate", "lr", Drawing::Exact);
    html.push_str("</div>\n");
}

fn rates(html: &mut String, runs: &[Run]) {
    html.push_str("<h2>Speed and memory</h2>\n<div class=\"pair\">\n");
    compared(html, runs, "Images a second", "images_per_s", Drawing::Noisy);
    compared(html, runs, "Resident memory, MiB", "memory_mib", Drawing::Exact);
    compared(html, runs, "Seconds a step: work", "step_s", Drawing::Noisy);
    compared(html, runs, "Seconds a step: waiting for data", "data_s", Drawing::Noisy);
    html.push_str("</div>\n");
}

/// AP by steps and by time.
fn scores(html: &mut String, runs: &[Run]) {
    html.push_str("<h2>Average precision</h2>\n");
    if runs.iter().all(|run| run.evals.is_empty()) {
        html.push_str("<p>Nothing has been evaluated yet.</p>\n");
        return;
    }
    let longest = runs.iter().filter_map(Run::elapsed).fold(0., f64::max);
    let (unit, seconds) = match longest {
        ..300. => ("seconds", 1.),
        ..18_000. => ("minutes", 60.),
        _ => ("hours", 3600.),
    };
    // Several numbers of one run, or one number of several.
    let keys: &[&str] = if runs.len() == 1 { &["AP", "AP50", "AP75"] } else { &["AP"] };
    let named = || {
        runs.iter().flat_map(|run| keys.iter().map(move |key| (run, *key))).enumerate().map(
            |(i, (run, key))| {
                (color(i), if runs.len() == 1 { key } else { run.name.as_str() }, run, key)
            },
        )
    };
    let lines = |x: &dyn Fn(&Entry) -> Option<f64>| -> Vec<Line<'_>> {
        named()
            .map(|(class, name, run, key)| {
                let points = run.evals.iter().filter_map(|e| Some((x(e)?, e.score(key)?)));
                Line { name, class, points: points.collect() }
            })
            .collect()
    };
    html.push_str("<div class=\"pair\">\n");
    let by_step = lines(&|entry| Some(entry.step as f64));
    plot(html, "By step", ["step", ""], &by_step, true);
    let by_time = lines(&|entry| Some(entry.elapsed? / seconds));
    plot(html, "By wall time, evaluations included", [unit, ""], &by_time, true);
    html.push_str("</div>\n");
    legend(html, named().map(|(class, name, ..)| (class, name)));
}

fn categories(html: &mut String, runs: &[Run]) {
    let lists =
        runs.iter().map(|run| Some((run, run.evaluation.as_ref()?["per_category"].as_array()?)));
    let lists: Vec<(&Run, &Vec<Value>)> = lists.flatten().collect();
    let Some((first, list)) = lists.first() else { return };
    let step = first.evaluation.as_ref().and_then(|e| e["step"].as_u64());
    let of = step.map(|step| format!(" after step {step}")).unwrap_or_default();
    html.push_str("<h2>Categories</h2>\n");
    let score = |entry: &Value, key: &str| number(entry[key].as_f64().unwrap_or(-1.));
    let name = |entry: &Value| escape(entry["category"].as_str().unwrap_or_default());
    if runs.len() == 1 {
        add!(html, "<p class=\"soft\">The last evaluation{of}.</p>\n");
        let last = first.evals.last().map(|entry| entry.step);
        if step != last {
            html.push_str("<p class=\"warn\">It is not the last evaluation of the record.</p>\n");
        }
        let head = ["category", "AP", "AP50", "AR", "truths", "detections"];
        let rows = list.iter().map(|entry| {
            let count = |key: &str| entry[key].as_u64().map_or("–".to_owned(), |n| n.to_string());
            let ar = entry.as_object().into_iter().flatten().find(|(key, _)| key.starts_with("AR"));
            let ar = ar.and_then(|(_, value)| value.as_f64()).unwrap_or(-1.);
            vec![
                name(entry),
                score(entry, "AP"),
                score(entry, "AP50"),
                number(ar),
                count("ground_truths"),
                count("detections"),
            ]
        });
        table(html, "sort", &head, rows);
        return;
    }
    html.push_str("<p class=\"soft\">AP of each category in each run's last evaluation.</p>\n");
    let names: Vec<String> = lists.iter().map(|(run, _)| escape(&run.name)).collect();
    let head: Vec<&str> =
        std::iter::once("category").chain(names.iter().map(String::as_str)).collect();
    // Runs may be of different data sets: an id alone says nothing.
    let same =
        |a: &Value, b: &Value| ["category_id", "category"].iter().all(|key| a[*key] == b[*key]);
    let mut all: Vec<&Value> = Vec::new();
    for entry in lists.iter().flat_map(|(_, list)| list.iter()) {
        if !all.iter().any(|known| same(known, entry)) {
            all.push(entry);
        }
    }
    let rows = all.into_iter().map(|entry| {
        let mut row = vec![name(entry)];
        for (_, other) in &lists {
            let same = other.iter().find(|other| same(other, entry));
            row.push(same.map_or("–".to_owned(), |same| score(same, "AP")));
        }
        row
    });
    table(html, "sort", &head, rows);
}

fn configuration(html: &mut String, runs: &[Run]) {
    html.push_str("<h2>Configuration</h2>\n");
    if runs.len() > 1 {
        let configs: Vec<_> = runs.iter().map(|run| run.config.as_ref().map(flat)).collect();
        let different = changes(&configs);
        if different.is_empty() {
            html.push_str("<p>The same in all runs.</p>\n");
        } else {
            let names: Vec<String> = runs.iter().map(|run| escape(&run.name)).collect();
            let head: Vec<&str> =
                std::iter::once("key").chain(names.iter().map(String::as_str)).collect();
            let rows = different.into_iter().map(|(key, values)| {
                std::iter::once(key).chain(values).map(|t| escape(&t)).collect()
            });
            table(html, "", &head, rows);
        }
    }
    for run in runs {
        let Some(config) = &run.config else {
            add!(html, "<p>{} has no config.json.</p>\n", escape(&run.name));
            continue;
        };
        // As a recipe where this version reads it, else as it lies there.
        let text = serde_json::from_value::<Config>(config.clone())
            .map_or_else(|_| format!("{config:#}"), |config| config.to_toml());
        add!(
            html,
            "<details{}><summary>{}</summary><pre>{}</pre></details>\n",
            if runs.len() == 1 { " open=\"\"" } else { "" },
            escape(&run.name),
            text.lines().map(escape).collect::<Vec<_>>().join("\n")
        );
    }
}

fn machine(html: &mut String, runs: &[Run]) {
    html.push_str("<h2>Machine</h2>\n");
    let all: Vec<Option<Vec<(String, String)>>> =
        runs.iter().map(|run| run.starts.last().map(facts)).collect();
    if all.iter().all(Option::is_none) {
        html.push_str("<p>The record does not say where it ran.</p>\n");
        return;
    }
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in all.iter().flatten().flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let names: Vec<String> = runs.iter().map(|run| escape(&run.name)).collect();
    let head: Vec<&str> = std::iter::once("").chain(names.iter().map(String::as_str)).collect();
    let rows = keys.into_iter().map(|key| {
        let value = |facts: &Option<Vec<(String, String)>>| {
            let found = facts.iter().flatten().find(|(k, _)| k == key);
            found.map_or("–".to_owned(), |(_, value)| escape(value))
        };
        std::iter::once(escape(key)).chain(all.iter().map(value)).collect()
    });
    table(html, "meanings", &head, rows);
    if let [run] = runs
        && run.starts.len() > 1
    {
        let times = run.starts.len() - 1;
        let after: Vec<String> =
            run.starts[1..].iter().map(|start| start["step"].to_string()).collect();
        add!(
            html,
            "<p>The run went on {times} time{} after a stop, after step {}.</p>\n",
            if times == 1 { "" } else { "s" },
            escape(&after.join(", "))
        );
    }
    let seconds = runs.iter().filter_map(Run::elapsed).sum::<f64>();
    add!(html, "<p class=\"soft\">{} of training in all.</p>\n", duration(seconds));
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
