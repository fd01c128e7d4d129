//! One scene: where the things lie, what covers what, and the boxes of what is left to be seen.
//!
//! A pixel belongs to the topmost thing that covers at least half of it. A thing's box is the tightest
//! one round its own pixels, its area their number: COCO's convention, the visible part. Placing a
//! thing is tried again, in the end smaller, where it would break one of the rules of [`Limits`]: so
//! whatever is drawn is annotated, and nothing annotated is hidden.

use crate::backdrop::{Distractor, background};
use crate::canvas::{Canvas, mix};
use crate::stamp::{Pose, Shadow, Stamp};
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture 20 wide and 20 high in which thing `n` owns the rectangle `[x, y, w, h]`.
    fn owned(parts: &[(u8, [usize; 4])]) -> Vec<u8> {
        let mut owner = vec![NOBODY; 400];
        for &(who, [x, y, w, h]) in parts {
            for i in 0..w * h {
                owner[(y + i / w) * 20 + x + i % w] = who;
            }
        }
        owner
    }

    #[test]
    fn boxes_go_round_the_visible_pixels() {
        let layers = Layers { owner: vec![], whole: vec![160, 20], width: 20 };
        // The second covers the right end of the first, and cuts its box.
        let owner = owned(&[(0, [2, 3, 16, 10]), (1, [16, 3, 2, 10])]);
        assert_eq!(layers.seen(&owner), [([2, 3, 14, 10], 140), ([16, 3, 2, 10], 20)]);
        // A cover in the middle leaves the box as it is.
        let owner = owned(&[(0, [2, 3, 16, 10]), (1, [8, 3, 2, 10])]);
        assert_eq!(layers.seen(&owner)[0], ([2, 3, 16, 10], 140));
    }

    #[test]
    fn a_cover_is_refused_where_it_hides_too_much() {
        let mut layers = Layers { owner: vec![], whole: vec![360], width: 20 };
        assert!(layers.accept(owned(&[(0, [0, 0, 18, 20])])));
        // 144 of 360 pixels are 40 %; a column less is too little.
        let enough = owned(&[(0, [0, 0, 18, 8])]);
        assert!(layers.accept(enough.clone()));
        assert!(!layers.accept(owned(&[(0, [0, 0, 17, 8])])));
        assert_eq!(layers.owner, enough, "a refused cover changes nothing");
        // Wholly hidden, and too short on the longer or on the shorter side.
        layers.whole = vec![1];
        assert!(!layers.accept(owned(&[])));
        assert!(!layers.accept(owned(&[(0, [0, 0, 15, 15])])));
        assert!(!layers.accept(owned(&[(0, [0, 0, 20, 6])])));
        assert!(layers.accept(owned(&[(0, [0, 0, 16, 7])])));
    }

    #[test]
    fn classes_are_dealt_evenly() {
        let mut counts = [0; CLASSES.len()];
        for index in 0..800 {
            for class in deal(&mut Stream::new(5, 0, index), index, 0) {
                counts[class] += 1;
            }
        }
        let mean = counts.iter().sum::<i32>() / 8;
        assert!(counts.iter().all(|&n| (n - mean).abs() * 8 < mean), "{counts:?}");
    }
}
