//! Plots as SVG inside a page: lines, bars, a heat map, intervals. Colours are the page's classes.

use std::fmt::Write as _;

use super::compare::Difference;
use super::confusion::Confusion;
use crate::eval::report::printable;

const WIDTH: f64 = 520.;
const HEIGHT: f64 = 360.;
const LEFT: f64 = 48.;
const BOTTOM: f64 = 42.;
const MARGIN: f64 = 14.;
/// Most characters of a name beside a plot; the whole name is in the tooltip.
const LABEL: usize = 20;
/// Most categories of a heat map.
pub(super) const MOST_CATEGORIES: usize = 80;

/// Text as it may stand between tags and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn label(name: &str) -> String {
    if name.chars().count() <= LABEL {
        return escape(name);
    }
    let cut: String = name.chars().take(LABEL - 1).collect();
    format!("{}…", escape(&cut))
}

/// Adds a piece of text; writing to a text can't fail.
macro_rules! add {
    ($to:expr, $($piece:tt)*) => {
        write!($to, $($piece)*).expect("a String takes everything")
    };
}
pub(super) use add;

/// A line of a plot.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// Class of the page's style.
    pub(super) class: &'a str,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over a range of x; y goes from 0 to 1. `mark` is a point that stands out, with its text.
pub(super) fn lines(
    axes: [&str; 2],
    x_range: (f64, f64),
    lines: &[Line<'_>],
    mark: Option<(f64, f64, &str)>,
) -> String {
    let (low, high) =
        if x_range.0 < x_range.1 { x_range } else { (x_range.0 - 0.5, x_range.0 + 0.5) };
    let x = |value: f64| LEFT + (value - low) / (high - low) * (WIDTH - LEFT - MARGIN);
    let y = |value: f64| MARGIN + (1. - value) * (HEIGHT - MARGIN - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} by {}\">\n",
        axes[1], axes[0]
    );
    for step in 0..=5 {
        let share = f64::from(step) / 5.;
        let value = low + share * (high - low);
        let (at_x, at_y) = (x(value), y(share));
        add!(
            svg,
            "<path class=\"grid\" d=\"M{at_x:.1} {MARGIN}V{:.1}M{LEFT} {at_y:.1}H{:.1}\"/>\
             <text class=\"mid\" x=\"{at_x:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{share:.1}</text>\n",
            HEIGHT - BOTTOM,
            WIDTH - MARGIN,
            HEIGHT - BOTTOM + 16.,
            short(value),
            LEFT - 6.,
            at_y + 4.
        );
    }
    add!(
        svg,
        "<text class=\"mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
         <text class=\"mid\" transform=\"translate(13 {:.1}) rotate(-90)\">{}</text>\n",
        f64::midpoint(LEFT, WIDTH - MARGIN),
        HEIGHT - 6.,
        axes[0],
        f64::midpoint(MARGIN, HEIGHT - BOTTOM),
        axes[1]
    );
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        add!(svg, "<polyline class=\"line {}\" points=\"", line.class);
        for &(at_x, at_y) in &line.points {
            add!(svg, "{:.1},{:.1} ", x(at_x), y(at_y));
        }
        add!(svg, "\"><title>{}</title></polyline>\n", escape(line.name));
    }
    if let Some((at_x, at_y, text)) = mark {
        let (at_x, at_y) = (x(at_x), y(at_y));
        // The text goes where there is room.
        let (class, shift) = if at_x > WIDTH / 2. { ("end", -8.) } else { ("", 8.) };
        add!(
            svg,
            "<circle class=\"mark\" cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"4\"/>\
             <text class=\"strong {class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            at_x + shift,
            (at_y - 8.).max(MARGIN + 10.),
            escape(text)
        );
    }
    svg + "</svg>\n"
}

fn short(value: f64) -> String {
    if value == 0. || (0.01..1e4).contains(&value.abs()) {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.0e}")
    }
}

/// A curve in a cell of a table; both axes go from 0 to 1.
pub(super) fn spark(points: &[(f64, f64)]) -> String {
    let mut svg = "<svg class=\"spark\" viewBox=\"0 0 62 22\" aria-hidden=\"true\">\
                   <path class=\"grid\" d=\"M1 1V21H61\"/><polyline class=\"line all\" points=\""
        .to_owned();
    for (x, y) in points {
        add!(svg, "{:.1},{:.1} ", 1. + x * 60., 21. - y * 20.);
    }
    svg + "\"/></svg>"
}

/// Bars from the left, longest as wide as the plot: name, value, text behind the bar.
pub(super) fn bars(rows: &[(&str, f64, String)]) -> String {
    let most = rows.iter().map(|row| row.1.abs()).fold(1e-9, f64::max);
    let height = rows.len() as f64 * 28. + 6.;
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"bars\">\n");
    for (row, (name, value, text)) in rows.iter().enumerate() {
        let y = row as f64 * 28. + 4.;
        let width = value.abs() / most * (WIDTH - 230.);
        let class = if *value < 0. { "bar less" } else { "bar" };
        add!(
            svg,
            "<text class=\"end\" x=\"72\" y=\"{:.1}\">{}</text>\
             <rect class=\"{class}\" x=\"80\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"20\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            y + 15.,
            label(name),
            width + 86.,
            y + 15.,
            escape(text)
        );
    }
    svg + "</svg>\n"
}

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
