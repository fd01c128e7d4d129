//! The numbers as text and as JSON. Nothing is printed here.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::coco::{CategoryScore, Evaluation, Stat};
pub(super) use crate::page::printable;

/// The lines that pycocotools prints, character for character, each with its line end.
pub fn summary(stats: &[Stat]) -> String {
    let mut text = String::new();
    for Stat { is_precision, iou: (low, high), area, max_detections, value, .. } in stats {
        let (title, kind) =
            if *is_precision { ("Average Precision", "(AP)") } else { ("Average Recall", "(AR)") };
        let iou = if low == high { format!("{low:.2}") } else { format!("{low:.2}:{high:.2}") };
        writeln!(
            text,
            " {title:<18} {kind} @[ IoU={iou:<9} | area={area:>6} | maxDets={max_detections:>3} ] = {value:.3}"
        )
        .expect("a String takes everything");
    }
    text
}

/// The lines of [`summary`], and below them a line a category.
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
        let CategoryScore { ap, ap50, ar, ground_truths, detections, .. } = c;
        [
            name.clone(),
            number(*ap),
            number(*ap50),
            number(*ar),
            ground_truths.to_string(),
            detections.to_string(),
        ]
    });
    let ar = format!("AR{}", most_detections(evaluation));
    let head = ["category", "AP", "AP50", &ar, "truths", "detections"].map(str::to_owned);
    let ar_width = ar.len().max(6);
    text.push('\n');
    for [name, ap, ap50, ar, truths, detections] in std::iter::once(head).chain(rows) {
        writeln!(
            text,
            "{name:<width$} {ap:>6} {ap50:>6} {ar:>ar_width$} {truths:>8} {detections:>11}"
        )
        .expect("a String takes everything");
    }
    text
}

fn most_detections(evaluation: &Evaluation) -> usize {
    evaluation.stats.iter().map(|stat| stat.max_detections).max().unwrap_or(0)
}

/// Everything but the curves, at full precision: `stats` in pycocotools' order, each of them by name,
/// `per_category`, `images`, `detections`. The caller adds what it knows of the split.
pub fn json(evaluation: &Evaluation) -> Value {
    let mut object = Map::new();
    object.insert("stats".to_owned(), json!(evaluation.values()));
    for stat in &evaluation.stats {
        object.insert(stat.name.clone(), json!(stat.value));
    }
    let ar = format!("AR{}", most_detections(evaluation));
    let categories = evaluation.per_category.iter().map(|c| {
        let mut value = json!({
            "category_id": c.id,
            "category": c.name,
            "AP": c.ap,
            "AP50": c.ap50,
        });
        value[&ar] = json!(c.ar);
        value["ground_truths"] = json!(c.ground_truths);
        value["detections"] = json!(c.detections);
        value
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
        let areas = ["all", "all", "all", "small", "medium", "large"];
        let areas = areas.into_iter().chain(["all", "all", "all", "small", "medium", "large"]);
        let most = [100, 100, 100, 100, 100, 100, 1, 10, 100, 100, 100, 100];
        let stats: Vec<Stat> = areas
            .enumerate()
            .map(|(i, area)| Stat {
                name: String::new(),
                is_precision: i < 6,
                iou: [(0.5, 0.5), (0.75, 0.75)]
                    .get(i.wrapping_sub(1))
                    .copied()
                    .unwrap_or((0.5, 0.95)),
                area: area.to_owned(),
                max_detections: most[i],
                value: stats[i],
            })
            .collect();
        assert_eq!(summary(&stats), expected);
    }
}
