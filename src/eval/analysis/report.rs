//! The analyses as text and as JSON. Nothing is printed here.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::Analysis;
use super::compare::{Comparison, Difference};
use super::curve::Point;
use super::tide::KINDS;
use crate::eval::report::printable;

/// Most confusions that the text names.
const CONFUSIONS: usize = 10;

/// Tables of all analyses, for a terminal.
pub fn text(analysis: &Analysis) -> String {
    let mut text = String::new();
    let names: Vec<String> = analysis.per_category.iter().map(|c| printable(&c.name)).collect();
    let width =
        names.iter().map(|n| n.chars().count()).max().unwrap_or(0).max("all together".len());
    let mut line = |line: String| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(format!("Score threshold with the best F1 at IoU {:.2}", analysis.iou));
    line(format!(
        "{:<width$} {:>8} {:>9} {:>6} {:>5} {:>7} {:>7} {:>7}",
        "category", "score", "precision", "recall", "F1", "TP", "FP", "FN"
    ));
    let categories = names.iter().zip(analysis.per_category.iter().map(|c| c.best));
    let overall = "all together".to_owned();
    for (name, best) in std::iter::once((&overall, analysis.best)).chain(categories) {
        line(match best {
            None => format!("{name:<width$} {:>8} {:>9} {:>6} {:>5}", "-", "-", "-", "-"),
            Some(best) => format!(
                "{name:<width$} {:>8.4} {:>9.3} {:>6.3} {:>5.3} {:>7} {:>7} {:>7}",
                best.score,
                best.precision(),
                best.recall(),
                best.f1(),
                best.true_positives,
                best.false_positives,
                best.false_negatives,
            ),
        });
    }
    let Analysis { score, tide, .. } = analysis;
    line(format!("\nErrors by kind (TIDE): AP {:.3} at IoU {:.2}", tide.ap, analysis.iou));
    for ((kind, gain), count) in KINDS.iter().zip(tide.gains).zip(tide.counts) {
        line(format!("{kind:<14} {gain:>+7.4} AP {count:>8} errors"));
    }
    line(format!("{:<14} {:>+7.4} AP", "FalsePos", tide.false_positives));
    line(format!("{:<14} {:>+7.4} AP", "FalseNeg", tide.false_negatives));
    let largest = analysis.confusion.largest(CONFUSIONS);
    if !largest.is_empty() {
        line(format!("\nMost often taken for another category, from score {score:.4}"));
    }
    for (truth, detected, count) in largest {
        let name = |k: usize| printable(&analysis.confusion.names[k]);
        line(format!("{count:>7} {} as {}", name(truth), name(detected)));
    }
    line(format!("\nBy size (square root of the area in pixels), from score {score:.4}"));
    line(format!(
        "{:<12} {:>8} {:>6} {:>10} {:>9}",
        "size", "truths", "recall", "detections", "precision"
    ));
    for bin in &analysis.sizes {
        let name = range(bin.low, bin.high);
        let (recall, precision) = (bin.recall(), bin.precision());
        line(format!(
            "{name:<12} {:>8} {:>6} {:>10} {:>9}",
            bin.truths,
            share(recall, bin.truths),
            bin.detections,
            share(precision, bin.detections)
        ));
    }
    line(format!("\nBy number of truths an image has, from score {score:.4}"));
    line(format!(
        "{:<12} {:>8} {:>8} {:>6} {:>9}",
        "truths", "images", "truths", "recall", "precision"
    ));
    for bin in &analysis.crowds {
        let name = crowd(bin.low, bin.high);
        let detections = bin.true_positives + bin.false_positives;
        line(format!(
            "{name:<12} {:>8} {:>8} {:>6} {:>9}",
            bin.images,
            bin.truths,
            share(bin.recall(), bin.truths),
            share(bin.precision(), detections)
        ));
    }
    text
}

/// A table of both files, for a terminal. `names` say which file is the first and which the second.
pub fn comparison_text(comparison: &Comparison, names: [&str; 2]) -> String {
    let mut text = String::new();
    let [first, second] = names.map(printable);
    let percent = comparison.confidence * 100.;
    writeln!(text, "First: {first}\nSecond: {second}").expect("a String takes everything");
    writeln!(
        text,
        "Difference: first less second; {percent}% intervals of {} draws of images (seed {})",
        comparison.resamples, comparison.seed
    )
    .expect("a String takes everything");
    let rows = [("AP".to_owned(), &comparison.ap), ("AP50".to_owned(), &comparison.ap50)];
    let categories =
        comparison.per_category.iter().map(|c| (format!("AP of {}", printable(&c.name)), &c.ap));
    let rows: Vec<_> = rows.into_iter().chain(categories).collect();
    let width = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0);
    for (name, difference) in rows {
        match difference {
            None => writeln!(text, "{name:<width$} -"),
            Some(d) => writeln!(
                text,
                "{name:<width$} {:.4} {:.4} {:+.4} [{:+.4}, {:+.4}] {}",
                d.first,
                d.second,
                d.difference,
                d.low,
                d.high,
                verdict(d)
            ),
        }
        .expect("a String takes everything");
    }
    text
}

/// What an interval says.
pub(super) fn verdict(difference: &Difference) -> &'static str {
    match (difference.low > 0., difference.high < 0.) {
        (false, false) => "no clear difference: the interval holds 0",
        _ if !difference.excludes_zero => "too few images to tell",
        (true, _) => "the first is better",
        (false, true) => "the second is better",
    }
}

fn share(share: f64, of: usize) -> String {
    if of == 0 { "-".to_owned() } else { format!("{share:.3}") }
}

/// `32-64`, or `512-` for the last bin.
pub(super) fn range(low: f64, high: Option<f64>) -> String {
    format!("{low}-{}", high.map_or_else(String::new, |h| h.to_string()))
}

/// `4-7`, `1`, or `16-` for the last bin.
pub(super) fn crowd(low: usize, high: Option<usize>) -> String {
    match high {
        Some(high) if high == low => low.to_string(),
        Some(high) => format!("{low}-{high}"),
        None => format!("{low}-"),
    }
}

fn point(best: Option<Point>) -> Value {
    best.map_or(Value::Null, |p| {
        json!({
            "score": p.score,
            "precision": p.precision(),
            "recall": p.recall(),
            "f1": p.f1(),
            "true_positives": p.true_positives,
            "false_positives": p.false_positives,
            "false_negatives": p.false_negatives,
        })
    })
}

/// Everything but the points of the curves, at full precision.
pub fn json(analysis: &Analysis) -> Value {
    let Analysis { iou, score, tide, confusion, .. } = analysis;
    let categories = analysis.per_category.iter().map(
        |c| json!({ "category_id": c.id, "category": c.name, "truths": c.curve.truths, "best": point(c.best) }),
    );
    let kinds: Map<String, Value> = KINDS
        .iter()
        .zip(tide.gains.iter().zip(tide.counts))
        .map(|(kind, (gain, count))| ((*kind).to_owned(), json!({ "ap": gain, "errors": count })))
        .collect();
    let side = confusion.names.len() + 1;
    let rows: Vec<&[usize]> = confusion.counts.chunks(side).collect();
    let sizes = analysis.sizes.iter().map(|bin| {
        let mut value = json!(bin);
        value["recall"] = json!(bin.recall());
        value["precision"] = json!(bin.precision());
        value
    });
    let crowds = analysis.crowds.iter().map(|bin| {
        let mut value = json!(bin);
        value["recall"] = json!(bin.recall());
        value["precision"] = json!(bin.precision());
        value
    });
    json!({
        "iou": iou,
        "score": score,
        "best": point(analysis.best),
        "per_category": categories.collect::<Value>(),
        "tide": {
            "AP": tide.ap,
            "kinds": kinds,
            "FalsePos": tide.false_positives,
            "FalseNeg": tide.false_negatives,
        },
        "confusion": { "names": confusion.names, "rows_are_truths": rows },
        "sizes": sizes.collect::<Value>(),
        "truths_an_image": crowds.collect::<Value>(),
    })
}
