//! One thing as pixels: how it lies, its colours and coverage, the shadow it throws.

use std::f32::consts::PI;

use crate::canvas::Canvas;
use crate::stream::Stream;
use crate::things::{Class, Look};

/// One light for a scene: every thing throws its shadow the same way.
pub(crate) struct Shadow {
    offset: [f32; 2],
    depth: f32,
    soft: usize,
}

impl Shadow {
    pub(crate) fn draw(stream: &mut Stream) -> Self {
        let [cos, sin] = stream.direction(PI);
        let length = stream.between(1., 5.);
        Self {
            offset: [cos * length, sin * length],
            depth: stream.between(0.2, 0.55),
            soft: 1 + stream.below(3),
        }
    }
}

/// How a thing lies in the picture: turned, sheared, stretched, in slight perspective.
pub(crate) struct Pose {
    /// Columns of the linear part: `[a, b, c, d]` for `(a u + b v, c u + d v)`.
    linear: [f32; 4],
    tilt: [f32; 2],
    centre: [f32; 2],
}

impl Pose {
    pub(crate) fn draw(stream: &mut Stream, class: &Class, length: f32, centre: [f32; 2]) -> Self {
        let [cos, sin] = stream.direction(class.tilt);
        let stretch = stream.between(0.85, 1.);
        let (long, short) = (length / 2., length / 2. * stretch);
        let shear = stream.between(-0.15, 0.15);
        let (su, sv) = if stream.chance(0.5) { (long, short) } else { (short, long) };
        let tilt = [stream.between(-0.12, 0.12), stream.between(-0.12, 0.12)];
        Self {
            linear: [cos * su, (cos * shear - sin) * sv, sin * su, (sin * shear + cos) * sv],
            tilt,
            centre,
        }
    }

    fn forward(&self, [u, v]: [f32; 2]) -> [f32; 2] {
        let [a, b, c, d] = self.linear;
        let depth = 1. + self.tilt[0] * u + self.tilt[1] * v;
        [self.centre[0] + (a * u + b * v) / depth, self.centre[1] + (c * u + d * v) / depth]
    }

    /// The point that [`Pose::forward`] takes to `(x, y)`.
    fn back(&self, x: f32, y: f32) -> [f32; 2] {
        let (x, y) = (x - self.centre[0], y - self.centre[1]);
        // forward: L p = (x, y) (1 + tilt . p), a linear equation in p.
        let [a, b, c, d] = self.linear;
        let (a, b) = (a - x * self.tilt[0], b - x * self.tilt[1]);
        let (c, d) = (c - y * self.tilt[0], d - y * self.tilt[1]);
        let det = a * d - b * c;
        [(x * d - y * b) / det, (a * y - c * x) / det]
    }
}

/// A thing drawn on its own, from `(left, top)`: colour times coverage, and coverage.
pub(crate) struct Stamp {
    left: i32,
    top: i32,
    width: usize,
    pixels: Vec<[f32; 4]>,
}

impl Stamp {
    pub(crate) fn draw(class: &Class, look: &Look, pose: &Pose, length: f32) -> Self {
        let corners = [[-1., -1.], [1., -1.], [-1., 1.], [1., 1.]].map(|p| pose.forward(p));
        let span = |axis: usize| {
            let low = corners.iter().map(|c| c[axis]).fold(f32::MAX, f32::min).floor() as i32;
            let high = corners.iter().map(|c| c[axis]).fold(f32::MIN, f32::max).ceil() as i32;
            (low, (high - low).max(1) as usize)
        };
        let ((left, width), (top, height)) = (span(0), span(1));
        // Finer where a pixel holds more of the thing's detail.
        let n = if length < 48. { 5 } else { 3 };
        let share = 1. / (n * n) as f32;
        let mut pixels = vec![[0.; 4]; width * height];
        for (i, pixel) in pixels.iter_mut().enumerate() {
            let (x, y) = (left as f32 + (i % width) as f32, top as f32 + (i / width) as f32);
            for k in 0..n * n {
                let dx = ((k % n) as f32 + 0.5) / n as f32;
                let dy = ((k / n) as f32 + 0.5) / n as f32;
                let p = pose.back(x + dx, y + dy);
                if p[0].abs().max(p[1].abs()) > 1. {
                    continue;
                }
                if let Some([r, g, b]) = look.at(class, p) {
                    for (sum, part) in pixel.iter_mut().zip([r, g, b, 1.]) {
                        *sum += part * share;
                    }
                }
            }
        }
        Self { left, top, width, pixels }
    }

    /// The number of pixels at least half covered, inside the picture or not.
    pub(crate) fn whole(&self) -> usize {
        self.pixels.iter().filter(|p| p[3] >= 0.5).count()
    }

    /// Each pixel inside a picture of width `w` and height `h`: its index there, and what is drawn.
    pub(crate) fn inside(&self, w: i32, h: i32) -> impl Iterator<Item = (usize, [f32; 4])> {
        self.pixels.iter().enumerate().filter_map(move |(i, &pixel)| {
            let (x, y) = (self.left + (i % self.width) as i32, self.top + (i / self.width) as i32);
            ((0..w).contains(&x) && (0..h).contains(&y)).then(|| ((y * w + x) as usize, pixel))
        })
    }

    /// Darkens the picture beside the thing.
    pub(crate) fn shade(&self, canvas: &mut Canvas, shadow: &Shadow) {
        let height = self.pixels.len() / self.width;
        let pad = shadow.soft as i32 + 1;
        let at = |x: i32, y: i32| {
            let within = (0..self.width as i32).contains(&x) && (0..height as i32).contains(&y);
            if within { self.pixels[y as usize * self.width + x as usize][3] } else { 0. }
        };
        let (ox, oy) = (shadow.offset[0].round() as i32, shadow.offset[1].round() as i32);
        let soft = shadow.soft as i32;
        let area = ((2 * soft + 1) * (2 * soft + 1)) as f32;
        for y in -pad..height as i32 + pad {
            for x in -pad..self.width as i32 + pad {
                let (px, py) = (self.left + x + ox, self.top + y + oy);
                if px < 0 || py < 0 || px >= canvas.width as i32 || py >= canvas.height as i32 {
                    continue;
                }
                let mut sum = 0.;
                for dy in -soft..=soft {
                    for dx in -soft..=soft {
                        sum += at(x + dx, y + dy);
                    }
                }
                let pixel = &mut canvas.pixels[py as usize * canvas.width + px as usize];
                *pixel = pixel.map(|v| v * (1. - shadow.depth * sum / area));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::things::CLASSES;

    #[test]
    fn a_pose_is_undone() {
        for index in 0..50 {
            let mut stream = Stream::new(2, 0, index);
            let pose = Pose::draw(&mut stream, &CLASSES[0], 60., [70., 40.]);
            for p in [[0., 0.], [1., -1.], [-0.4, 0.9]] {
                let [x, y] = pose.forward(p);
                let back = pose.back(x, y);
                assert!((back[0] - p[0]).abs().max((back[1] - p[1]).abs()) < 1e-4, "{back:?}");
            }
        }
    }
}
