//! Plots as SVG inside a page: lines and bars. Colours are the page's classes.

use std::fmt::Write as _;

use super::{add, escape, label};

/// Width of a plot in its own units.
pub(crate) const WIDTH: f64 = 520.;
const HEIGHT: f64 = 360.;
const LEFT: f64 = 48.;
const BOTTOM: f64 = 42.;
/// Room around a plot.
pub(crate) const MARGIN: f64 = 14.;

/// A line of a plot.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    /// Class of the page's style.
    pub(crate) class: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over a range of x; y goes from 0 to 1. `mark` is a point that stands out, with its text.
pub(crate) fn lines(
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
pub(crate) fn spark(points: &[(f64, f64)]) -> String {
    let mut svg = "<svg class=\"spark\" viewBox=\"0 0 62 22\" aria-hidden=\"true\">\
                   <path class=\"grid\" d=\"M1 1V21H61\"/><polyline class=\"line all\" points=\""
        .to_owned();
    for (x, y) in points {
        add!(svg, "{:.1},{:.1} ", 1. + x * 60., 21. - y * 20.);
    }
    svg + "\"/></svg>"
}

/// Bars from the left, longest as wide as the plot: name, value, text behind the bar.
pub(crate) fn bars(rows: &[(&str, f64, String)]) -> String {
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
