//! Plots of the analyses alone: a heat map, intervals. What all pages share is in [`crate::page`].

use std::fmt::Write as _;

use super::compare::Difference;
use super::confusion::Confusion;
use crate::page::svg::{MARGIN, WIDTH};
use crate::page::{add, escape, label};

/// Most categories of a heat map.
pub(super) const MOST_CATEGORIES: usize = 80;

/// The categories that a heat map shows: all, or those with the most errors.
pub(super) fn shown(confusion: &Confusion) -> Vec<usize> {
    let count = confusion.names.len();
    let mut all: Vec<usize> = (0..count).collect();
    if count > MOST_CATEGORIES {
        let mut errors = vec![0; count];
        for (row, column, number) in confusion.largest(usize::MAX) {
            errors[row] += number;
            errors[column] += number;
        }
        all.sort_by_key(|&k| std::cmp::Reverse(errors[k]));
        all.truncate(MOST_CATEGORIES);
        all.sort_unstable();
    }
    all.push(count);
    all
}

/// Truths by row, detections by column; a cell is the darker the larger its share of the row.
pub(super) fn heat_map(confusion: &Confusion) -> String {
    let shown = shown(confusion);
    let background = confusion.names.len();
    let name = |k: usize| if k == background { "background" } else { confusion.names[k].as_str() };
    let side = (560. / shown.len() as f64).clamp(11., 44.);
    let (left, top) = (150., 130.);
    let (width, height) =
        (left + side * shown.len() as f64 + 90., top + side * shown.len() as f64 + 8.);
    let mut svg = format!(
        "<svg class=\"heat\" viewBox=\"0 0 {width:.0} {height:.0}\" style=\"max-width:{width:.0}px\" \
         role=\"img\" aria-label=\"confusion matrix\">\n"
    );
    for (row, &k) in shown.iter().enumerate() {
        let middle = (row as f64 + 0.5) * side;
        let (title, text) = (escape(name(k)), label(name(k)));
        add!(
            svg,
            "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\"><title>{title}</title>{text}</text>\
             <text transform=\"translate({:.1} {:.1}) rotate(-55)\"><title>{title}</title>{text}</text>\n",
            left - 6.,
            top + middle + 4.,
            left + middle + 3.,
            top - 6.
        );
    }
    for (row, &truth) in shown.iter().enumerate() {
        let total: usize = (0..=background).map(|k| confusion.count(truth, k)).sum();
        for (column, &detected) in shown.iter().enumerate() {
            let count = confusion.count(truth, detected);
            let (x, y) = (left + column as f64 * side, top + row as f64 * side);
            if count == 0 {
                continue;
            }
            let share = count as f64 / total as f64;
            let class = if truth == detected { "right" } else { "wrong" };
            add!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" \
                 fill-opacity=\"{:.2}\"><title>{} detected as {}: {count} ({:.1} % of the row)</title></rect>",
                0.08 + 0.87 * share,
                escape(name(truth)),
                escape(name(detected)),
                share * 100.
            );
            if side >= 28. {
                let class = if share > 0.55 { "mid light" } else { "mid" };
                add!(
                    svg,
                    "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{count}</text>",
                    x + side / 2.,
                    y + side / 2. + 4.
                );
            }
            svg.push('\n');
        }
    }
    let end = side * shown.len() as f64;
    add!(
        svg,
        "<rect class=\"frame\" x=\"{left}\" y=\"{top}\" width=\"{end:.1}\" height=\"{end:.1}\"/>\n"
    );
    svg + "</svg>\n"
}

/// A row for each difference: a dot with its interval, and a line at 0.
pub(super) fn intervals(rows: &[(&str, &Difference)]) -> String {
    let reach = |d: &Difference| d.low.abs().max(d.high.abs()).max(d.difference.abs());
    let most = rows.iter().map(|row| reach(row.1)).fold(1e-3, f64::max);
    let (left, right) = (160., WIDTH + 180.);
    let x = |value: f64| f64::midpoint(left, right) + value / most * (right - left) / 2.;
    let bottom = rows.len() as f64 * 20. + 6.;
    let mut svg = format!(
        "<svg class=\"wide\" viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" aria-label=\"differences\">\n\
         <path class=\"zero\" d=\"M{:.1} 2V{bottom:.1}\"/>\n",
        right + MARGIN + 14.,
        bottom + 20.,
        x(0.)
    );
    for value in [-most, -most / 2., 0., most / 2., most] {
        add!(
            svg,
            "<text class=\"mid\" x=\"{:.1}\" y=\"{:.1}\">{value:+.3}</text>",
            x(value),
            bottom + 14.
        );
    }
    for (row, (name, d)) in rows.iter().enumerate() {
        let y = row as f64 * 20. + 14.;
        let class = match (d.excludes_zero, d.low > 0.) {
            (false, _) => "open",
            (true, true) => "first",
            (true, false) => "second",
        };
        add!(
            svg,
            "<g class=\"{class}\"><title>{0}: {1:+.4} [{2:+.4}, {3:+.4}]</title>\
             <text class=\"end\" x=\"{4:.1}\" y=\"{5:.1}\">{6}</text>\
             <path d=\"M{7:.1} {y}H{8:.1}\"/><circle cx=\"{9:.1}\" cy=\"{y}\" r=\"3.5\"/></g>\n",
            escape(name),
            d.difference,
            d.low,
            d.high,
            left - 8.,
            y + 4.,
            label(name),
            x(d.low),
            x(d.high),
            x(d.difference)
        );
    }
    svg + "</svg>\n"
}
