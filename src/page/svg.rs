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

/// What an axis shows, from `low` to `high`, and how many parts its ticks make of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    parts: u32,
}

impl Axis {
    /// From 0 to 1.
    pub(crate) const SHARE: Self = Self { low: 0., high: 1., parts: 5 };

    /// These ends, in five parts; a range without extent is widened.
    pub(crate) fn exactly(low: f64, high: f64) -> Self {
        // Half of a unit is less than the next number there is where numbers are large.
        let half = (low.abs() * 1e-3).max(0.5);
        let (low, high) = if low < high { (low, high) } else { (low - half, low + half) };
        Self { low, high, parts: 5 }
    }

    /// Round numbers around all of `values` that are finite.
    pub(crate) fn around(values: impl Iterator<Item = f64>) -> Self {
        let ends = values.filter(|v| v.is_finite()).fold(None, |ends: Option<(f64, f64)>, v| {
            Some(ends.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
        });
        let (low, high) = ends.unwrap_or((0., 1.));
        // What hardly moves is shown on a scale that says so.
        let least = low.abs().max(high.abs()) * 0.02;
        let (low, high) = match (high - low > least, high) {
            (true, _) => (low, high),
            (false, 0.) => (0., 1.),
            (false, _) => (low.midpoint(high) - least, low.midpoint(high) + least),
        };
        // A step of 1, 2 or 5 times a power of ten, four to nine of them.
        let raw = (high - low) / 5.;
        let power = 10_f64.powf(raw.log10().floor());
        let step =
            [1., 2., 5., 10.].map(|n| n * power).into_iter().find(|&step| step >= raw * 0.999);
        let step = step.unwrap_or(10. * power);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        Self { low: first * step, high: last * step, parts: (last - first).clamp(1., 12.) as u32 }
    }

    fn at(self, share: f64) -> f64 {
        // From both ends, so that 0 in the middle is 0.
        let value = self.low * (1. - share) + self.high * share;
        if value.abs() < (self.high - self.low) * 1e-9 { 0. } else { value }
    }

    /// The words of its tick number `part`: no more digits than the step between ticks has.
    fn tick(self, part: u32) -> String {
        let step = (self.high - self.low) / f64::from(self.parts);
        let value = self.at(f64::from(part) / f64::from(self.parts));
        let reach = self.low.abs().max(self.high.abs());
        if value == 0. {
            return "0".to_owned();
        }
        if !(1e-3..1e6).contains(&reach) {
            return format!("{value:.1e}").replace(".0e", "e");
        }
        let text = format!("{value:.*}", (2. - step.log10().floor()).clamp(0., 9.) as usize);
        let whole = !text.contains('.');
        if whole { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
    }

    fn share(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// Lines; `mark` is a point that stands out, with its text.
pub(crate) fn lines(
    axes: [&str; 2],
    [across, up]: [Axis; 2],
    lines: &[Line<'_>],
    mark: Option<(f64, f64, &str)>,
) -> String {
    let x = |value: f64| LEFT + across.share(value) * (WIDTH - LEFT - MARGIN);
    let y = |value: f64| MARGIN + (1. - up.share(value)) * (HEIGHT - MARGIN - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} by {}\">\n",
        axes[1], axes[0]
    );
    for part in 0..=across.parts {
        let at = x(across.at(f64::from(part) / f64::from(across.parts)));
        add!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} {MARGIN}V{:.1}\"/>\
             <text class=\"mid\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>\n",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.,
            across.tick(part)
        );
    }
    for part in 0..=up.parts {
        let at = y(up.at(f64::from(part) / f64::from(up.parts)));
        add!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>\
             <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            WIDTH - MARGIN,
            LEFT - 6.,
            at + 4.,
            up.tick(part)
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
        if let [(at_x, at_y)] = line.points[..] {
            // A single point is no line.
            add!(
                svg,
                "<circle class=\"line {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>\n",
                line.class,
                x(at_x),
                y(at_y)
            );
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_its_values_between_round_ticks() {
        let axis = |values: &[f64]| Axis::around(values.iter().copied());
        assert_eq!(axis(&[0.3, 4.1]), Axis { low: 0., high: 5., parts: 5 });
        assert_eq!(axis(&[1., 300.]), Axis { low: 0., high: 300., parts: 3 });
        assert_eq!(axis(&[]), axis(&[0., 1.]));
        assert_eq!(axis(&[f64::NAN, 0., 0.]), axis(&[0., 1.]));
        for values in
            [[7., 7.], [-3., -2.99], [1e-9, 3e-9], [512., 512.25], [-1., 0.4], [0., 1e300]]
        {
            let axis = axis(&values);
            assert!(axis.low <= values[0] && axis.high >= values[1], "{values:?}: {axis:?}");
            assert!((1..=12).contains(&axis.parts) && axis.low < axis.high, "{values:?}: {axis:?}");
        }
        assert_eq!(axis(&[512., 512.25]).at(1.) - axis(&[512., 512.25]).at(0.), 25.);
    }

    #[test]
    fn ticks_are_short() {
        let ticks = |low: f64, high: f64| -> Vec<String> {
            let axis = Axis::around([low, high].into_iter());
            (0..=axis.parts).map(|part| axis.tick(part)).collect()
        };
        assert_eq!(ticks(0., 1.), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(ticks(0., 0.02), ["0", "0.005", "0.01", "0.015", "0.02"]);
        assert_eq!(ticks(0., 90_000.), ["0", "20000", "40000", "60000", "80000", "100000"]);
        assert_eq!(ticks(0., 3e-4), ["0", "1e-4", "2e-4", "3e-4"]);
        assert_eq!(ticks(-10., 10.), ["-10", "-5", "0", "5", "10"]);
        assert_eq!(Axis::exactly(1e300, 1e300).share(1e300), 0.5);
        let scores = Axis::exactly(0.1, 0.35);
        assert_eq!((scores.tick(0), scores.tick(1)), ("0.1".to_owned(), "0.15".to_owned()));
    }
}
