//! Random changes to one training sample: mirroring, scale, colour.
//!
//! What is drawn depends on (seed, epoch, index of the image) alone, so that any batch can be made again
//! from its position, by any thread. Each draw takes its place in the stream whether it is used or not:
//! turning one change on does not alter the others.

use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::image::Rgb;
use crate::config;
use crate::geometry::Box2;

/// What a random stream is for; streams of different purposes are independent.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// The order of an epoch (index 0).
    Order,
    /// The changes to one image.
    Augment,
}

/// The random stream of `purpose` at this place of the training.
pub fn stream(seed: u64, epoch: u64, index: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (part, n) in key.chunks_exact_mut(8).zip([seed, epoch, index, purpose as u64]) {
        part.copy_from_slice(&n.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The changes to one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Changes {
    /// Mirrored left to right.
    pub flip: bool,
    /// Upside down.
    pub vertical_flip: bool,
    /// Factor on both limits of `input.resize` of kind `short_side`.
    pub scale: f64,
    /// Factors on brightness, contrast and saturation; 1 changes nothing.
    pub color: [f32; 3],
    /// The short side of `input.resize` instead of its own.
    pub short_side: Option<usize>,
}

impl Changes {
    /// No change.
    pub const NONE: Self =
        Self { flip: false, vertical_flip: false, scale: 1., color: [1.; 3], short_side: None };

    /// Draws the changes that `augment` allows.
    pub fn draw(augment: &config::Augment, rng: &mut impl Rng) -> Self {
        let [low, high] = augment.scale;
        Self {
            // random() is below 1: a probability of 1 always holds, of 0 never.
            flip: rng.random::<f64>() < augment.flip,
            vertical_flip: rng.random::<f64>() < augment.vertical_flip,
            scale: low + (high - low) * rng.random::<f64>(),
            color: std::array::from_fn(|_| {
                let sign = 2. * rng.random::<f64>() - 1.;
                (1. + augment.color * sign).max(0.) as f32
            }),
            short_side: {
                let sides = &augment.short_sides;
                sides.get((rng.random::<f64>() * sides.len() as f64) as usize).copied()
            },
        }
    }

    /// Changes the picture; its size stays. `scale` is for the resize that follows.
    pub fn apply(&self, image: &mut Rgb) {
        if self.flip {
            flip(image);
        }
        if self.vertical_flip {
            vertical_flip(image);
        }
        let [brightness, contrast, saturation] = self.color;
        jitter(image, brightness, contrast, saturation);
    }

    /// Changes a box in pixels of the same picture, `width` x `height`.
    #[must_use]
    pub fn apply_to_box(&self, bbox: Box2, width: f32, height: f32) -> Box2 {
        let bbox = if self.flip { bbox.flipped(width) } else { bbox };
        if self.vertical_flip {
            Box2 { y1: height - bbox.y2, y2: height - bbox.y1, ..bbox }
        } else {
            bbox
        }
    }
}

/// Mirrors left to right.
pub fn flip(image: &mut Rgb) {
    for row in image.pixels.chunks_exact_mut(image.size.width * 3) {
        let pixels = row.as_chunks_mut::<3>().0;
        pixels.reverse();
    }
}

/// Turns upside down.
pub fn vertical_flip(image: &mut Rgb) {
    let row = image.size.width * 3;
    let height = image.size.height;
    let (top, bottom) = image.pixels.split_at_mut(height / 2 * row);
    // Of an odd number of rows the middle one stays: it is the first of `bottom`.
    let bottom = &mut bottom[height % 2 * row..];
    for (a, b) in top.chunks_exact_mut(row).zip(bottom.chunks_exact_mut(row).rev()) {
        a.swap_with_slice(b);
    }
}

/// Multiplies brightness (distance from black), contrast (from the mean grey) and saturation (from each
/// pixel's own grey), in this order, clamping to 0..=255 after each, as PIL's `ImageEnhance` does.
pub fn jitter(image: &mut Rgb, brightness: f32, contrast: f32, saturation: f32) {
    if brightness != 1. {
        let table: [u8; 256] = std::array::from_fn(|v| to_byte(v as f32 * brightness));
        image.pixels.iter_mut().for_each(|v| *v = table[*v as usize]);
    }
    if contrast != 1. {
        let pixels = image.pixels.as_chunks::<3>().0;
        let sum: f64 = pixels.iter().map(|&p| f64::from(grey(p))).sum();
        let mean = (sum / pixels.len().max(1) as f64) as f32;
        let table: [u8; 256] =
            std::array::from_fn(|v| to_byte(mean + (v as f32 - mean) * contrast));
        image.pixels.iter_mut().for_each(|v| *v = table[*v as usize]);
    }
    if saturation != 1. {
        for pixel in image.pixels.as_chunks_mut::<3>().0 {
            let grey = grey(*pixel);
            *pixel = pixel.map(|v| to_byte(grey + (f32::from(v) - grey) * saturation));
        }
    }
}

/// Luma of ITU-R BT.601.
fn grey([r, g, b]: [u8; 3]) -> f32 {
    0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b)
}

fn to_byte(v: f32) -> u8 {
    v.round().clamp(0., 255.) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;

    fn picture(height: usize, width: usize) -> Rgb {
        let pixels = (0..height * width * 3).map(|i| (i * 7 % 256) as u8).collect();
        Rgb { size: Size::new(height, width), pixels }
    }

    #[test]
    fn a_flip_moves_whole_pixels_and_undoes_itself() {
        let mut image = Rgb { size: Size::new(1, 3), pixels: vec![1, 2, 3, 4, 5, 6, 7, 8, 9] };
        flip(&mut image);
        assert_eq!(image.pixels, [7, 8, 9, 4, 5, 6, 1, 2, 3]);
        for (h, w) in [(1, 1), (2, 3), (3, 2), (5, 4)] {
            let mut image = picture(h, w);
            flip(&mut image);
            flip(&mut image);
            vertical_flip(&mut image);
            assert_eq!(image.pixels[..w * 3], picture(h, w).pixels[(h - 1) * w * 3..]);
            vertical_flip(&mut image);
            assert_eq!(image.pixels, picture(h, w).pixels);
        }
    }

    #[test]
    fn a_box_stays_on_the_pixels_that_it_marks() {
        // One bright pixel at row 1, column 4 of 3 x 6.
        let bbox = Box2::new(4., 1., 5., 2.);
        for (flip, vertical_flip) in [(false, false), (true, false), (false, true), (true, true)] {
            let changes = Changes { flip, vertical_flip, ..Changes::NONE };
            let mut image = Rgb { size: Size::new(3, 6), pixels: vec![0; 54] };
            image.pixels[(6 + 4) * 3] = 255;
            changes.apply(&mut image);
            let at =
                image.pixels.iter().position(|&v| v == 255).expect("the pixel is still there") / 3;
            let (x, y) = ((at % 6) as f32, (at / 6) as f32);
            assert_eq!(changes.apply_to_box(bbox, 6., 3.), Box2::new(x, y, x + 1., y + 1.));
        }
    }

    #[test]
    fn colours_move_as_their_factors_say() {
        let mut image = Rgb { size: Size::new(1, 2), pixels: vec![100, 200, 50, 0, 255, 10] };
        jitter(&mut image, 1., 1., 1.);
        assert_eq!(image.pixels, [100, 200, 50, 0, 255, 10]);
        jitter(&mut image, 1.5, 1., 1.);
        assert_eq!(image.pixels, [150, 255, 75, 0, 255, 15]);
        // Without saturation every pixel is its own grey: 0.299 * 150 + 0.587 * 255 + 0.114 * 75 = 203.1
        jitter(&mut image, 1., 1., 0.);
        assert_eq!(image.pixels[..3], [203; 3]);
        // Without contrast the whole picture is its mean grey: (203 + 151) / 2 = 177
        jitter(&mut image, 1., 0., 1.);
        assert_eq!(image.pixels, [177; 6]);
    }

    #[test]
    fn draws_follow_from_their_place_and_stay_in_range() {
        let augment = config::Augment {
            flip: 0.5,
            vertical_flip: 0.,
            scale: [0.8, 1.25],
            short_sides: vec![480, 640, 800],
            color: 0.2,
        };
        let draw = |seed, epoch, index| {
            Changes::draw(&augment, &mut stream(seed, epoch, index, Purpose::Augment))
        };
        let drawn: Vec<Changes> = (0..1000).map(|i| draw(1, 2, i)).collect();
        assert_eq!(drawn[7], draw(1, 2, 7));
        assert_ne!(drawn[7], draw(1, 3, 7));
        assert_ne!(drawn[7], draw(2, 2, 7));
        // 500 +- 16 (one standard deviation): 400..600 fails once in 10^9 seeds.
        let flips = drawn.iter().filter(|c| c.flip).count();
        assert!((400..600).contains(&flips), "{flips}");
        assert!(drawn.iter().all(|c| !c.vertical_flip));
        assert!(drawn.iter().all(|c| (0.8..=1.25).contains(&c.scale)));
        assert!(drawn.iter().any(|c| c.scale < 0.85) && drawn.iter().any(|c| c.scale > 1.2));
        // 333 +- 15 each.
        for side in [480, 640, 800] {
            let count = drawn.iter().filter(|c| c.short_side == Some(side)).count();
            assert!((250..420).contains(&count), "{count} of {side}");
        }
        assert!(drawn.iter().flat_map(|c| c.color).all(|f| (0.8..=1.2).contains(&f)));
    }
}
