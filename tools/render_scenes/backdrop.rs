//! What lies behind and between the things: textured backgrounds and shapes that are no class.

use std::f32::consts::PI;

use crate::canvas::{Canvas, Rgb, fractal, hsv, mix, noise, smooth};
use crate::stream::Stream;
use crate::things::polygon;

/// How far a shape is turned, in radians. Any other digits would change the shipped bytes.
#[expect(clippy::approx_constant, reason = "the set was drawn with this, not with pi")]
const ANY_WAY: f32 = 3.14;

/// A muted colour.
fn colour(stream: &mut Stream) -> Rgb {
    let (hue, value) = (stream.unit(), stream.between(0.2, 0.95));
    hsv(hue, stream.between(0., 0.5), value)
}

/// A background: a gradient of two colours, a pattern of a third, and noise over both.
pub(crate) fn background(stream: &mut Stream, width: usize, height: usize) -> Canvas {
    let (a, b, c) = (colour(stream), colour(stream), colour(stream));
    let [du, dv] = stream.direction(PI);
    let [cos, sin] = stream.direction(PI);
    let seed = stream.bits();
    let period = stream.log_between(12., 80.);
    let warp = stream.between(0., 14.);
    let soft = stream.between(0.06, 0.45);
    let strength = stream.between(0.25, 0.85);
    let kind = stream.below(6);
    let size = width.max(height) as f32;
    // The pattern, 0 to 1, at a point given along and across its direction.
    let pattern = |s: f32, t: f32| -> f32 {
        let wave = |x: f32| {
            let x = (x - x.floor() - 0.5).abs() * 2.;
            smooth(0.5 - soft, 0.5 + soft, x)
        };
        let (p, q) = (s / period, t / period);
        match kind {
            0 => fractal(seed, p * 0.6, q * 0.6, 4),
            1 => wave(p),
            // Wood: noise drawn out along one axis, with boards.
            2 => {
                let board = (p * 0.5).floor();
                let rings = noise(seed ^ board as i32 as u32, p * 1.6, q * 0.2) * 5.;
                0.7 * wave(rings) + if p * 0.5 - board < 0.05 { 0.3 } else { 0. }
            }
            // Squares, every other one dark.
            3 => wave(p) * wave(q) + (1. - wave(p)) * (1. - wave(q)),
            // Blotches.
            4 => smooth(0.5 - soft * 0.3, 0.5 + soft * 0.3, fractal(seed, p, q, 3)),
            // Bricks.
            _ => {
                let (wide, tall) = (period * 2.2, period);
                let row = (t / tall).floor();
                let x = s / wide + row * 0.5;
                let (x, y) = (x - x.floor(), t / tall - row);
                let mortar = (x * wide).min(y * tall) < 2.;
                let brick = noise(seed, (s / wide + row * 0.5).floor() + 0.5, row + 0.5);
                if mortar { 1. } else { 0.6 * brick }
            }
        }
    };
    let rough = stream.between(0.03, 0.22);
    let fine = stream.log_between(14., 60.);
    Canvas::new(width, height, |x, y| {
        let base = mix(a, b, 0.5 + (du * (x / size - 0.5) + dv * (y / size - 0.5)));
        let bent = warp * (noise(seed, x / 60., y / 60.) - 0.5);
        let (s, t) = (x * cos + y * sin + bent, y * cos - x * sin + bent);
        let shade = 1. + rough * 2. * (fractal(seed ^ 0xA5A5, x / fine, y / fine, 4) - 0.5);
        mix(base, c, strength * pattern(s, t)).map(|v| v * shade)
    })
}

/// A shape that is no class: a disc, a convex polygon, a line or a bar.
#[derive(Debug)]
pub(crate) enum Distractor {
    /// Centre, radii, turned by (cos, sin).
    Blob([f32; 2], [f32; 2], [f32; 2]),
    /// Corners in order.
    Patch(Vec<[f32; 2]>),
    /// From, to, half width.
    Line([f32; 2], [f32; 2], f32),
}

impl Distractor {
    /// One that lies behind the things.
    pub(crate) fn behind(stream: &mut Stream, width: f32, height: f32) -> Self {
        let centre = [stream.between(0., width), stream.between(0., height)];
        let size = stream.log_between(6., 70.);
        match stream.below(4) {
            0 => {
                let radii = [size, size * stream.between(0.4, 1.)];
                Self::Blob(centre, radii, stream.direction(ANY_WAY))
            }
            1 => Self::line(stream, width, height, 1., 3.),
            _ => {
                // Corners on an ellipse, in order of their angle: convex, three to five of them.
                let count = 3 + stream.below(3);
                let flat = stream.between(0.45, 1.);
                let [cos, sin] = stream.direction(ANY_WAY);
                let corners = (0..count).map(|i| {
                    let turn = (i as f32 + stream.between(0., 0.7)) / count as f32;
                    let (s, c) = f64::from(turn * 2. * PI).sin_cos();
                    let (x, y) = (size * c as f32, size * flat * s as f32);
                    [centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos]
                });
                Self::Patch(corners.collect())
            }
        }
    }

    /// One that lies over the things: a thin line.
    pub(crate) fn before(stream: &mut Stream, width: f32, height: f32) -> Self {
        Self::line(stream, width, height, 0.8, 3.5)
    }

    fn line(stream: &mut Stream, width: f32, height: f32, thin: f32, thick: f32) -> Self {
        let mut end = || [stream.between(-0.2, 1.2) * width, stream.between(-0.2, 1.2) * height];
        let (from, to) = (end(), end());
        Self::Line(from, to, stream.between(thin, thick))
    }

    /// Signed distance in pixels, negative inside.
    pub(crate) fn distance(&self, x: f32, y: f32) -> f32 {
        match self {
            Self::Blob([cx, cy], [rx, ry], [cos, sin]) => {
                let (dx, dy) = (x - cx, y - cy);
                let (s, t) = ((dx * cos + dy * sin) / rx, (dy * cos - dx * sin) / ry);
                ((s * s + t * t).sqrt() - 1.) * ry
            }
            Self::Patch(corners) => polygon([x, y], corners),
            Self::Line(from, to, half) => polygon([x, y], &[*from, *to]) - half,
        }
    }

    /// Paints it with soft edges; `covered` is told each pixel that it mostly covers.
    pub(crate) fn paint(
        &self,
        canvas: &mut Canvas,
        stream: &mut Stream,
        mut covered: impl FnMut(usize),
    ) {
        let (ink, other) = (colour(stream), colour(stream));
        let opacity = if matches!(self, Self::Line(..)) { 1. } else { stream.between(0.5, 1.) };
        let (seed, grain) = (stream.bits(), stream.log_between(5., 40.));
        let mut i = 0;
        canvas.each(|x, y, pixel| {
            let coverage = (0.5 - self.distance(x, y)).clamp(0., 1.);
            if coverage > 0. {
                let texture = mix(ink, other, 0.5 * noise(seed, x / grain, y / grain));
                *pixel = mix(*pixel, texture, coverage * opacity);
            }
            if coverage >= 0.5 {
                covered(i);
            }
            i += 1;
        });
    }
}
