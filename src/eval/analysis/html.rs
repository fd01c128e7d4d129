//! One page with all numbers and plots of a results file.

use super::Analysis;
use super::compare::{Comparison, Difference};
use super::curve::{Curve, Point, ratio};
use super::report::{crowd, range, verdict};
use super::svg as own;
use super::tide::KINDS;
use crate::eval::coco::Evaluation;
use crate::page::svg::{self, Axis, Line};
use crate::page::{self, add, escape, number, table};
use std::fmt::Write as _;

/// Points of a plotted curve at most, about.
const FINENESS: f64 = 250.;
/// Scores beyond this, which only a mistake gives, have no place on an axis: its length could not be had.
const LARGEST_SCORE: f64 = 1e300;
/// Most confusions that the page lists.
const CONFUSIONS: usize = 20;
/// What the kinds of errors mean, in their order.
const MEANINGS: [&str; 6] = [
    "the right place under the wrong category",
    "the right category in a place that is not exact enough",
    "wrong category, and a place that is not exact enough",
    "a second detection of a truth that a better one found",
    "nothing is there",
    "a truth that no detection, right or wrong, comes close to",
];
/// What a page shows.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// Heading: the name of the results file, say.
    pub title: &'a str,
    /// The metric's numbers.
    pub evaluation: &'a Evaluation,
    /// Analyses of the same files with the same settings.
    pub analysis: &'a Analysis,
    /// A comparison with another file, and the names of the first and the second.
    pub comparison: Option<(&'a Comparison, [&'a str; 2])>,
}

/// The page, whole.
pub fn html(shown: &Page<'_>) -> String {
    let Page { evaluation, analysis, .. } = shown;
    let mut html = page::begin(shown.title);
    add!(
        html,
        "<p class=\"soft\">{} images, {} truths, {} detections. Counts below are at IoU {:.2}.</p>\n",
        evaluation.images,
        analysis.overall.truths,
        evaluation.detections,
        analysis.iou
    );
    for warning in &evaluation.warnings {
        add!(html, "<p class=\"warn\">{}</p>\n", escape(warning));
    }
    numbers(&mut html, evaluation);
    if let Some((comparison, names)) = shown.comparison {
        compared(&mut html, comparison, names);
    }
    curves(&mut html, analysis);
    categories(&mut html, evaluation, analysis);
    confusions(&mut html, analysis);
    errors(&mut html, analysis);
    bins(&mut html, analysis);
    page::end(&mut html);
    html
}

fn numbers(html: &mut String, evaluation: &Evaluation) {
    html.push_str("<h2>COCO metric</h2>\n");
    let rows = evaluation.stats.iter().map(|stat| {
        let (low, high) = stat.iou;
        let iou = if low == high { format!("{low:.2}") } else { format!("{low:.2}–{high:.2}") };
        let most = stat.max_detections.to_string();
        vec![escape(&stat.name), number(stat.value), iou, escape(&stat.area), most]
    });
    table(html, "", &["number", "value", "IoU", "area", "most detections"], rows);
}

/// Precision at recall as the metric sees it: the highest at that recall or a higher one.
fn precision_recall(curve: &Curve) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> =
        curve.points.iter().map(|p| (p.recall(), p.precision())).collect();
    for i in (1..points.len()).rev() {
        points[i - 1].1 = points[i - 1].1.max(points[i].1);
    }
    if let Some(first) = points.first().map(|p| (0., p.1)) {
        points.insert(0, first);
    }
    thinned(points, 1.)
}

/// Leaves out points that move less than can be seen; `width` is the range of x.
fn thinned(points: Vec<(f64, f64)>, width: f64) -> Vec<(f64, f64)> {
    let last = points.last().copied();
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for point in points {
        let moved = kept.last().is_none_or(|kept| {
            (point.0 - kept.0).abs() > width / FINENESS || (point.1 - kept.1).abs() > 1. / FINENESS
        });
        if moved || Some(point) == last {
            kept.push(point);
        }
    }
    kept
}

fn has_place(score: f64) -> bool {
    score.abs() <= LARGEST_SCORE
}

fn by_score(curve: &Curve, width: f64, number: fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let shown = curve.points.iter().filter(|p| has_place(p.score));
    thinned(shown.map(|p| (p.score, number(p))).collect(), width)
}

fn curves(html: &mut String, analysis: &Analysis) {
    let overall = &analysis.overall;
    html.push_str("<h2>Precision, recall and F1</h2>\n");
    match analysis.best {
        None => html.push_str("<p>No detection finds a truth.</p>\n"),
        Some(best) => add!(
            html,
            "<p>Over all categories, F1 is best with detections that score {:.4} or more: F1 {:.3}, precision \
             {:.3}, recall {:.3} ({} right, {} wrong, {} missed).</p>\n",
            best.score,
            best.f1(),
            best.precision(),
            best.recall(),
            best.true_positives,
            best.false_positives,
            best.false_negatives
        ),
    }
    let with_truth = || analysis.per_category.iter().filter(|c| c.curve.truths > 0);
    let one = |name, points| Line { name, class: "one", points };
    let mut lines: Vec<Line<'_>> =
        with_truth().map(|c| one(c.name.as_str(), precision_recall(&c.curve))).collect();
    lines.push(Line { name: "all categories", class: "all", points: precision_recall(overall) });
    add!(
        html,
        "<div class=\"pair\">\n<figure><figcaption>Precision by recall</figcaption>\n{}</figure>\n",
        svg::lines(["recall", "precision"], [Axis::SHARE; 2], &lines, None)
    );

    let scores = overall.points.iter().map(|p| p.score).filter(|&score| has_place(score));
    let range = scores.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), score| {
        (low.min(score), high.max(score))
    });
    let range = if range.0 > range.1 { (0., 1.) } else { range };
    // Scores are shares nearly always.
    let range = if range.0 >= 0. && range.1 <= 1. { (0., 1.) } else { range };
    let width = range.1 - range.0;
    let mut lines: Vec<Line<'_>> =
        with_truth().map(|c| one(c.name.as_str(), by_score(&c.curve, width, Point::f1))).collect();
    for (name, class, number) in [
        ("precision, all categories", "first-line", Point::precision as fn(&Point) -> f64),
        ("recall, all categories", "second-line", Point::recall),
        ("F1, all categories", "all", Point::f1),
    ] {
        lines.push(Line { name, class, points: by_score(overall, width, number) });
    }
    let text = analysis.best.map(|b| format!("F1 {:.3} at {:.4}", b.f1(), b.score));
    let best = analysis.best.filter(|b| has_place(b.score));
    let mark = best.zip(text.as_deref()).map(|(b, text)| (b.score, b.f1(), text));
    add!(
        html,
        "<figure><figcaption>F1 by score threshold</figcaption>\n{}</figure>\n</div>\n\
         <p class=\"soft\">Blue: all categories together; grey: each category (its name shows under the pointer). \
         Dashed green is precision, dotted red recall.</p>\n",
        svg::lines(
            ["score threshold", "F1"],
            [Axis::exactly(range.0, range.1), Axis::SHARE],
            &lines,
            mark
        )
    );
}

fn categories(html: &mut String, evaluation: &Evaluation, analysis: &Analysis) {
    html.push_str(
        "<h2>Categories</h2>\n<p class=\"soft\">Threshold, precision, recall and F1 are those of the score with \
         the best F1 of the category.</p>\n",
    );
    let rows = evaluation.per_category.iter().zip(&analysis.per_category).map(|(metric, own)| {
        let mut row = vec![
            escape(&metric.name),
            number(metric.ap),
            number(metric.ap50),
            number(metric.ar),
            metric.ground_truths.to_string(),
            metric.detections.to_string(),
        ];
        row.extend(match own.best {
            None => ["–"; 4].map(str::to_owned),
            Some(best) => [
                format!("{:.4}", best.score),
                number(best.precision()),
                number(best.recall()),
                number(best.f1()),
            ],
        });
        row.push(svg::spark(&precision_recall(&own.curve)));
        row
    });
    let head = [
        "category",
        "AP",
        "AP50",
        "AR",
        "truths",
        "detections",
        "threshold",
        "precision",
        "recall",
        "F1",
        "curve",
    ];
    table(html, "sort", &head, rows);
}

fn confusions(html: &mut String, analysis: &Analysis) {
    let confusion = &analysis.confusion;
    add!(
        html,
        "<h2>Confusion matrix</h2>\n<p>Detections that score {:.4} or more. A row is what is there, a column what \
         was detected; the background row holds detections where nothing is, the background column truths that \
         were missed. A cell is the darker the larger its share of the row.</p>\n",
        analysis.score
    );
    let shown = own::shown(confusion).len() - 1;
    if shown < confusion.names.len() {
        add!(
            html,
            "<p class=\"soft\">Shown are the {shown} of {} categories that are confused most.</p>\n",
            confusion.names.len()
        );
    }
    html.push_str(&own::heat_map(confusion));
    let largest = confusion.largest(CONFUSIONS);
    if !largest.is_empty() {
        html.push_str("<p>Confused most often:</p>\n");
        let rows = largest.into_iter().map(|(truth, detected, count)| {
            let name = |k: usize| escape(&confusion.names[k]);
            vec![name(truth), name(detected), count.to_string()]
        });
        table(html, "sort", &["truth", "detected as", "count"], rows);
    }
}

fn errors(html: &mut String, analysis: &Analysis) {
    let tide = &analysis.tide;
    add!(
        html,
        "<h2>Errors (TIDE)</h2>\n<p>AP {:.3} at IoU {:.2} by TIDE's count. Each bar is the AP that would be gained if \
         all errors of the kind were fixed.</p>\n<div class=\"pair\">\n<figure>\n",
        tide.ap,
        analysis.iou
    );
    let mut rows: Vec<(&str, f64, String)> = KINDS
        .iter()
        .zip(tide.gains.into_iter().zip(tide.counts))
        .map(|(kind, (gain, count))| {
            let plural = if count == 1 { "" } else { "s" };
            (*kind, gain, format!("+{gain:.4} ({count} error{plural})"))
        })
        .collect();
    for (name, gain) in [("FalsePos", tide.false_positives), ("FalseNeg", tide.false_negatives)] {
        rows.push((name, gain, format!("{gain:+.4}")));
    }
    html.push_str(&svg::bars(&rows));
    html.push_str("</figure>\n<div>\n");
    let meanings = KINDS.iter().zip(MEANINGS).map(|(kind, m)| [*kind, m]);
    let special = [
        ["FalsePos", "all that is wrong, if it scored lowest"],
        ["FalseNeg", "all truths that are not found, if they were not there"],
    ];
    let rows = meanings.chain(special).map(|row| row.map(str::to_owned).to_vec());
    table(html, "meanings", &["kind", "meaning"], rows);
    html.push_str("</div>\n</div>\n");
}

fn bins(html: &mut String, analysis: &Analysis) {
    add!(
        html,
        "<h2>Size of boxes, truths an image</h2>\n<p>Detections that score {:.4} or more. Size is the square root of \
         the area in pixels: a truth's annotated area, a detection's width times height.</p>\n<div class=\"pair\">\n",
        analysis.score
    );
    let share = |share: f64, of: usize| if of == 0 { "–".to_owned() } else { number(share) };
    let rows = analysis.sizes.iter().map(|bin| {
        vec![
            range(bin.low, bin.high),
            bin.truths.to_string(),
            share(bin.recall(), bin.truths),
            bin.detections.to_string(),
            share(bin.precision(), bin.detections),
        ]
    });
    table(html, "", &["size", "truths", "recall", "detections", "precision"], rows);
    let rows = analysis.crowds.iter().map(|bin| {
        let detections = bin.true_positives + bin.false_positives;
        vec![
            crowd(bin.low, bin.high),
            bin.images.to_string(),
            share(bin.recall(), bin.truths),
            detections.to_string(),
            share(ratio(bin.true_positives, detections), detections),
        ]
    });
    table(html, "", &["truths an image", "images", "recall", "detections", "precision"], rows);
    html.push_str("</div>\n");
}

fn compared(html: &mut String, comparison: &Comparison, names: [&str; 2]) {
    let [first, second] = names.map(escape);
    add!(
        html,
        "<h2>Comparison</h2>\n<p>First: {first}. Second: {second}. A difference is the first less the second; the \
         interval holds {} % of {} draws of images (bootstrap, seed {}).</p>\n",
        comparison.confidence * 100.,
        comparison.resamples,
        comparison.seed
    );
    let row = |name: &str, d: &Difference| {
        vec![
            escape(name),
            number(d.first),
            number(d.second),
            format!("{:+.4}", d.difference),
            format!("[{:+.4}, {:+.4}]", d.low, d.high),
            verdict(d).to_owned(),
        ]
    };
    let whole = [("AP", &comparison.ap), ("AP50", &comparison.ap50)];
    let rows = whole.iter().filter_map(|(name, d)| d.as_ref().map(|d| row(name, d)));
    let head = ["", "first", "second", "difference", "interval", "verdict"];
    table(html, "", &head, rows);
    let mut plotted: Vec<(&str, &Difference)> =
        whole.iter().filter_map(|(name, d)| Some((*name, d.as_ref()?))).collect();
    let categories = comparison.per_category.iter();
    plotted.extend(categories.filter_map(|c| Some((c.name.as_str(), c.ap.as_ref()?))));
    add!(
        html,
        "<figure><figcaption>Difference of AP, by category</figcaption>\n{}</figure>\n\
         <p class=\"soft\">Green: the first is better; red: the second; grey: the interval holds 0, or fewer than five images hold a truth.</p>\n",
        own::intervals(&plotted)
    );
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
