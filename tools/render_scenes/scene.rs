//! One scene: where the things lie, what covers what, and the boxes of what is left to be seen.
//!
//! A pixel belongs to the topmost thing that covers at least half of it. A thing's box is the tightest
//! one round its own pixels, its area their number: COCO's convention, the visible part. Placing a
//! thing is tried again, in the end smaller, where it would break one of the rules of [`Limits`]: so
//! whatever is drawn is annotated, and nothing annotated is hidden.

use crate::backdrop::{Distractor, background};
use crate::canvas::{Canvas, mix};
use crate::stream::Stream;
use crate::things::{CLASSES, Class, Look};

/// What every thing keeps to.
pub(crate) struct Limits;

impl Limits {
    /// The longer side of the visible box, in pixels.
    pub(crate) const LONG_SIDE: usize = 16;
    /// The shorter side of the visible box, in pixels.
    pub(crate) const SHORT_SIDE: usize = 7;
    /// The visible part of the whole thing, hidden and cut-off parts counted.
    pub(crate) const VISIBLE: f32 = 0.4;
    /// The part inside the image.
    pub(crate) const INSIDE: f32 = 0.65;
    /// Mean distance in RGB to what it covers.
    pub(crate) const CONTRAST: f32 = 0.28;
}

/// One annotated thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// Index into [`CLASSES`].
    pub(crate) class: usize,
    /// `[x, y, width, height]` of the visible pixels.
    pub(crate) bbox: [usize; 4],
    /// The number of visible pixels.
    pub(crate) area: usize,
}

/// What a scene is to be like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    /// Roughly so many columns; or rows, since a third of the scenes stand upright.
    pub(crate) width: usize,
    /// Roughly so many rows.
    pub(crate) height: usize,
    /// The length of the smallest things, in pixels, before they are turned.
    pub(crate) smallest: f32,
    /// At least so many things are tried.
    pub(crate) least: usize,
}

/// A rendered scene.
#[derive(Debug)]
pub(crate) struct Scene {
    /// The picture.
    pub(crate) canvas: Canvas,
    /// From the lowest to the topmost.
    pub(crate) objects: Vec<Object>,
}

/// Belongs to nothing.
const NOBODY: u8 = u8::MAX;

/// How many things a scene has: weights of 0 to 8.
const COUNTS: [u32; 9] = [3, 5, 7, 8, 9, 9, 7, 5, 4];

impl Scene {
    /// Scene `index` of its split, drawn with its `stream`.
    pub(crate) fn render(stream: &mut Stream, index: u32, about: About) -> Self {
        let About { width, height, smallest, least } = about;
        let mut vary = |side: usize| (side as f32 * stream.between(0.88, 1.12)) as usize;
        let (width, height) = (vary(width), vary(height));
        let (width, height) = if stream.chance(0.35) { (height, width) } else { (width, height) };
        let (w, h) = (width as f32, height as f32);

        let mut canvas = background(stream, width, height);
        for _ in 0..stream.weighted(&[2, 2, 2, 2, 1, 1, 1]) {
            Distractor::behind(stream, w, h).paint(&mut canvas, stream, |_| ());
        }

        let shadow = stream.chance(0.5).then(|| Shadow::draw(stream));
        let mut layers = Layers { owner: vec![NOBODY; width * height], whole: vec![], width };
        let mut classes = vec![];
        for class in deal(stream, index, least) {
            if place(stream, &mut canvas, &mut layers, &CLASSES[class], smallest, shadow.as_ref()) {
                classes.push(class);
            }
        }

        if stream.chance(0.3) {
            for _ in 0..=stream.below(2) {
                let line = Distractor::before(stream, w, h);
                let (mut picture, mut owner) = (canvas.clone(), layers.owner.clone());
                line.paint(&mut picture, stream, |i| owner[i] = NOBODY);
                if layers.accept(owner) {
                    canvas = picture;
                }
            }
        }

        canvas.expose(stream);
        let objects = layers.seen(&layers.owner).into_iter().zip(classes);
        let objects = objects.map(|((bbox, area), class)| Object { class, bbox, area }).collect();
        Self { canvas, objects }
    }
}

/// The classes of a scene's things. Their first is `index` modulo their number and the rest are dealt
/// from one pack, so that a set is close to even; each may repeat the one before it.
fn deal(stream: &mut Stream, index: u32, least: usize) -> Vec<usize> {
    let mut pack: Vec<usize> = (0..CLASSES.len()).collect();
    pack.swap(0, index as usize % CLASSES.len());
    for i in 1..pack.len() {
        pack.swap(i, i + stream.below(CLASSES.len() - i));
    }
    pack.truncate(stream.weighted(&COUNTS).max(least));
    for i in 1..pack.len() {
        if stream.chance(0.2) {
            pack[i] = pack[i - 1];
        }
    }
    pack
}

/// Which thing each pixel belongs to.
struct Layers {
    owner: Vec<u8>,
    /// The number of pixels of each thing if nothing hid or cut it.
    whole: Vec<usize>,
    width: usize,
}

impl Layers {
    /// Box and area of the visible part of each thing.
    fn seen(&self, owner: &[u8]) -> Vec<([usize; 4], usize)> {
        let mut corners = vec![[usize::MAX, usize::MAX, 0, 0]; self.whole.len()];
        let mut areas = vec![0; self.whole.len()];
        for (i, &who) in owner.iter().enumerate() {
            if who == NOBODY {
                continue;
            }
            let (x, y) = (i % self.width, i / self.width);
            let c = &mut corners[usize::from(who)];
            *c = [c[0].min(x), c[1].min(y), c[2].max(x + 1), c[3].max(y + 1)];
            areas[usize::from(who)] += 1;
        }
        let boxes = corners.into_iter().zip(areas);
        boxes
            .map(|([x1, y1, x2, y2], area)| {
                ([x1, y1, x2.saturating_sub(x1), y2.saturating_sub(y1)], area)
            })
            .collect()
    }

    /// Takes `owner` if every thing stays within the limits.
    fn accept(&mut self, owner: Vec<u8>) -> bool {
        let good =
            self.seen(&owner).iter().zip(&self.whole).all(|(&([.., w, h], area), &whole)| {
                area as f32 >= Limits::VISIBLE * whole as f32
                    && w.max(h) >= Limits::LONG_SIDE
                    && w.min(h) >= Limits::SHORT_SIDE
            });
        if good {
            self.owner = owner;
        }
        good
    }
}

/// One light for a scene: every thing throws its shadow the same way.
struct Shadow {
    offset: [f32; 2],
    depth: f32,
    soft: usize,
}

impl Shadow {
    fn draw(stream: &mut Stream) -> Self {
        let [cos, sin] = stream.direction(std::f32::consts::PI);
        let length = stream.between(1., 5.);
        Self {
            offset: [cos * length, sin * length],
            depth: stream.between(0.2, 0.55),
            soft: 1 + stream.below(3),
        }
    }
}

/// How a thing lies in the picture: turned, sheared, stretched, in slight perspective.
struct Pose {
    /// Columns of the linear part: `[a, b, c, d]` for `(a u + b v, c u + d v)`.
    linear: [f32; 4],
    tilt: [f32; 2],
    centre: [f32; 2],
}

impl Pose {
    fn draw(stream: &mut Stream, class: &Class, length: f32, centre: [f32; 2]) -> Self {
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
struct Stamp {
    left: i32,
    top: i32,
    width: usize,
    pixels: Vec<[f32; 4]>,
}

impl Stamp {
    fn draw(class: &Class, look: &Look, pose: &Pose, length: f32) -> Self {
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
    fn whole(&self) -> usize {
        self.pixels.iter().filter(|p| p[3] >= 0.5).count()
    }

    /// Each pixel inside a picture of width `w` and height `h`: its index there, and what is drawn.
    fn inside(&self, w: i32, h: i32) -> impl Iterator<Item = (usize, [f32; 4])> {
        self.pixels.iter().enumerate().filter_map(move |(i, &pixel)| {
            let (x, y) = (self.left + (i % self.width) as i32, self.top + (i / self.width) as i32);
            ((0..w).contains(&x) && (0..h).contains(&y)).then(|| ((y * w + x) as usize, pixel))
        })
    }

    /// Darkens the picture beside the thing.
    fn shade(&self, canvas: &mut Canvas, shadow: &Shadow) {
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

/// Puts one thing into the picture; false where no try met the limits.
fn place(
    stream: &mut Stream,
    canvas: &mut Canvas,
    layers: &mut Layers,
    class: &Class,
    smallest: f32,
    shadow: Option<&Shadow>,
) -> bool {
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    let mut length = stream.log_between(smallest, w.min(h) * 0.95);
    for attempt in 0..40 {
        if attempt > 0 && attempt % 6 == 0 {
            length = (length * 0.75).max(smallest * 1.15);
        }
        let centre = [stream.between(0.02, 0.98) * w, stream.between(0.02, 0.98) * h];
        let pose = Pose::draw(stream, class, length, centre);
        let look = Look::draw(stream, class);
        let stamp = Stamp::draw(class, &look, &pose, length);
        let whole = stamp.whole();

        let mut owner = layers.owner.clone();
        let (mut inside, mut contrast) = (0, 0.);
        let who = layers.whole.len() as u8;
        for (i, [r, g, b, coverage]) in stamp.inside(w as i32, h as i32) {
            if coverage >= 0.5 {
                let under = canvas.pixels[i];
                let apart = [r, g, b].map(|x| x / coverage);
                let square = |c: usize| (apart[c] - under[c]) * (apart[c] - under[c]);
                contrast += (square(0) + square(1) + square(2)).sqrt();
                inside += 1;
                owner[i] = who;
            }
        }
        if (inside as f32) < Limits::INSIDE * whole as f32
            || contrast < Limits::CONTRAST * inside as f32
        {
            continue;
        }
        layers.whole.push(whole);
        if !layers.accept(owner) {
            layers.whole.pop();
            continue;
        }
        if let Some(shadow) = shadow {
            stamp.shade(canvas, shadow);
        }
        for (i, [r, g, b, coverage]) in stamp.inside(w as i32, h as i32) {
            if coverage > 0. {
                let colour = [r, g, b].map(|x| x / coverage);
                canvas.pixels[i] = mix(canvas.pixels[i], colour, coverage);
            }
        }
        return true;
    }
    false
}
