//! The numbers as text and as JSON. Nothing is printed here.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::coco::{CategoryScore, Evaluation, STAT_NAMES};
use super::curves::MAX_DETECTIONS;
use super::matching::AREA_NAMES;

/// The twelve lines that pycocotools prints, character for character, each with its line end.
pub fn summary(stats: &[f64; 12]) -> String {
    let mut text = String::new();
    for (i, value) in stats.iter().enumerate() {
        let is_precision = i < 6;
        let (title, kind) =
            if is_precision { ("Average Precision", "(AP)") } else { ("Average Recall", "(AR)") };
        let iou = match i {
            1 => "0.50",
            2 => "0.75",
            _ => "0.50:0.95",
        };
        // AP, AP50, AP75, then sizes; AR with 1, 10, 100 detections, then sizes.
        let area = AREA_NAMES[(i % 6).saturating_sub(2)];
        let most = if is_precision { MAX_DETECTIONS[2] } else { MAX_DETECTIONS[(i - 6).min(2)] };
        writeln!(
            text,
            " {title:<18} {kind} @[ IoU={iou:<9} | area={area:>6} | maxDets={most:>3} ] = {value:.3}"
        )
        .expect("a String takes everything");
    }
    text
}

/// The twelve lines of [`summary`], and below them a line a category.
pub fn table(evaluation: &Evaluation) -> String {
    let mut text = summary(&evaluation.stats);
    let categories = &evaluation.per_category;
    if categories.is_empty() {
        return text;
    }
    let names: Vec<String> = categories.iter().map(|c| printable(&c.name)).collect();
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0).max("category".len());
    let rows = categories.iter().zip(&names).map(|(c, name)| {
        let number = |x: f64| if x < 0. { "-".to_owned() } else { format!("{x:.3}") };
        let CategoryScore { ap, ap50, ar100, ground_truths, detections, .. } = c;
        [
            name.clone(),
            number(*ap),
            number(*ap50),
            number(*ar100),
            ground_truths.to_string(),
            detections.to_string(),
        ]
    });
    let head = ["category", "AP", "AP50", "AR100", "truths", "detections"].map(str::to_owned);
    text.push('\n');
    for [name, ap, ap50, ar100, truths, detections] in std::iter::once(head).chain(rows) {
        writeln!(text, "{name:<width$} {ap:>6} {ap50:>6} {ar100:>6} {truths:>8} {detections:>11}")
            .expect("a String takes everything");
    }
    text
}

/// A name without characters that would move the cursor.
pub(super) fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Everything but the curves, at full precision: `stats` in pycocotools' order, each of them by name,
/// `per_category`, `images`, `detections`. The caller adds what it knows of the split.
pub fn json(evaluation: &Evaluation) -> Value {
    let mut object = Map::new();
    object.insert("stats".to_owned(), json!(evaluation.stats));
    for (name, value) in STAT_NAMES.iter().zip(evaluation.stats) {
        object.insert((*name).to_owned(), json!(value));
    }
    let categories = evaluation.per_category.iter().map(|c| {
        json!({
            "category_id": c.id,
            "category": c.name,
            "AP": c.ap,
            "AP50": c.ap50,
            "AR100": c.ar100,
            "ground_truths": c.ground_truths,
            "detections": c.detections,
        })
    });
    object.insert("per_category".to_owned(), categories.collect());
    object.insert("images".to_owned(), json!(evaluation.images));
    object.insert("detections".to_owned(), json!(evaluation.detections));
    object.insert("warnings".to_owned(), json!(evaluation.warnings));
    Value::Object(object)
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "digits as they are printed elsewhere")]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_pycocotools() {
        // Printed by pycocotools 2.0.11 for the demo's 100 images; -1 as it prints it.
        let stats = [
            0.5045806987249628,
            0.6969727247299577,
            0.5729816669904824,
            0.5856257209410443,
            0.5193996948036719,
            0.5013978986347466,
            0.38681277964578054,
            0.5936795762842003,
            0.595352982877607,
            0.6398109626113442,
            0.5664205978994309,
            -1.,
        ];
        let expected =
            " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.505
 Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ] = 0.697
 Average Precision  (AP) @[ IoU=0.75      | area=   all | maxDets=100 ] = 0.573
 Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 0.586
 Average Precision  (AP) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ] = 0.519
 Average Precision  (AP) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = 0.501
 Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 0.387
 Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets= 10 ] = 0.594
 Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.595
 Average Recall     (AR) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 0.640
 Average Recall     (AR) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ] = 0.566
 Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = -1.000
";
        assert_eq!(summary(&stats), expected);
    }
}
