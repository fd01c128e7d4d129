//! From image to network input: sizes. The pixels are made in `data::image`.

use serde::{Deserialize, Serialize};

use crate::geometry::{ImageSize, Size};

/// Inputs of a batch are padded to multiples of this where [`Resize::ShortSide`] holds, at the bottom and at
/// the right.
const SIZE_DIVISOR: usize = 32;

/// From image to network input: the resize, and `(pixel / 255 - mean) / std`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// How an image gets its size.
    pub resize: Resize,
    /// Of red, green, blue.
    pub mean: [f32; 3],
    /// Of red, green, blue.
    pub std: [f32; 3],
}

/// How an image gets the size of the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Resize {
    /// torchvision's: both sides by one factor, bilinear between pixel *centres*; batches are padded to
    /// multiples of 32 with zeros *after* normalisation.
    ShortSide {
        /// The short side becomes this long, in pixels ...
        short_side: usize,
        /// ... unless the long side would become longer than this.
        long_side: usize,
    },
    /// TensorFlow's `fixed_shape_resizer`: both sides as given, whatever becomes of the aspect ratio,
    /// bilinear between pixel *corners*.
    Fixed {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// TensorFlow's `keep_aspect_ratio_resizer`: both sides by one factor, bilinear between pixel *corners*.
    KeepAspect {
        /// The short side becomes this long, in pixels ...
        min_dimension: usize,
        /// ... unless the long side would become longer than this.
        max_dimension: usize,
        /// Whether every input becomes a square of `max_dimension`, with black at the bottom and at the
        /// right: zeros *before* normalisation.
        pad: bool,
    },
}

/// What is mixed where an output pixel lies between input pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// Output centre `i + 1/2` lies at `(i + 1/2) * in / out`: today's rule everywhere.
    Centres,
    /// Output pixel `i` lies at `i * in / out`: TensorFlow 1's.
    Corners,
}

impl Resize {
    /// How it samples.
    pub fn sampling(self) -> Sampling {
        match self {
            Self::ShortSide { .. } => Sampling::Centres,
            Self::Fixed { .. } | Self::KeepAspect { .. } => Sampling::Corners,
        }
    }

    /// The same kind of resize to another size, that of `--image-size`. Where images keep their shape, one number is
    /// their short side, and the limit of the long one stays; two limit both.
    #[must_use]
    pub fn at(self, to: ImageSize) -> Self {
        let Size { height, width } = to.size();
        let short = height.min(width);
        let long = |before| match to {
            ImageSize::Side(_) => before,
            ImageSize::Sides(_) => height.max(width),
        };
        match self {
            Self::ShortSide { long_side, .. } => {
                Self::ShortSide { short_side: short, long_side: long(long_side) }
            }
            Self::Fixed { .. } => Self::Fixed { height, width },
            Self::KeepAspect { max_dimension, pad, .. } => {
                Self::KeepAspect { min_dimension: short, max_dimension: long(max_dimension), pad }
            }
        }
    }
}

impl Input {
    /// The size that an image of `original` size is resized to.
    pub fn resized(&self, original: Size) -> Size {
        self.resized_by(original, 1.)
    }

    /// The same with the limits of [`Resize::ShortSide`] times `jitter`; the other kinds have none. A side
    /// that would vanish keeps 1 pixel.
    pub fn resized_by(&self, original: Size, jitter: f64) -> Size {
        match self.resize {
            Resize::ShortSide { short_side, long_side } => {
                short_side_size(original, short_side as f64 * jitter, long_side as f64 * jitter)
            }
            Resize::Fixed { height, width } => Size::new(height, width),
            Resize::KeepAspect { min_dimension, max_dimension, .. } => {
                keep_aspect_size(original, min_dimension, max_dimension)
            }
        }
    }

    /// The same with another short side of [`Resize::ShortSide`]; the other kinds have none.
    pub fn resized_to(&self, original: Size, short_side: usize) -> Size {
        match self.resize {
            Resize::ShortSide { long_side, .. } => {
                short_side_size(original, short_side as f64, long_side as f64)
            }
            Resize::Fixed { .. } | Resize::KeepAspect { .. } => self.resized(original),
        }
    }

    /// The size of the inputs of a batch whose images become `resized`.
    pub fn padded(&self, resized: impl Iterator<Item = Size> + Clone) -> Size {
        let largest = Size::new(
            resized.clone().map(|s| s.height).max().unwrap_or(0),
            resized.map(|s| s.width).max().unwrap_or(0),
        );
        match self.resize {
            Resize::ShortSide { .. } => {
                let up = |n: usize| n.next_multiple_of(SIZE_DIVISOR);
                Size::new(up(largest.height), up(largest.width))
            }
            Resize::KeepAspect { max_dimension, pad: true, .. } => {
                Size::new(max_dimension, max_dimension)
            }
            Resize::Fixed { .. } | Resize::KeepAspect { pad: false, .. } => largest,
        }
    }

    /// Whether images of these original sizes go through a network together in inference. TensorFlow's detectors know no
    /// padding but that of [`Resize::KeepAspect`] to a square: what they find would hang on the other images.
    pub fn together(&self, one: Size, other: Size) -> bool {
        match self.resize {
            Resize::KeepAspect { pad: false, .. } => self.resized(one) == self.resized(other),
            _ => true,
        }
    }

    /// What lies around the images of a batch, after normalisation.
    pub fn padding(&self) -> [f32; 3] {
        match self.resize {
            Resize::ShortSide { .. } => [0.; 3],
            Resize::Fixed { .. } | Resize::KeepAspect { .. } => {
                [0, 1, 2].map(|c| -self.mean[c] / self.std[c])
            }
        }
    }
}

/// The size that torchvision's `GeneralizedRCNNTransform` gives, whose floor in double precision loses a
/// pixel at some sizes.
fn short_side_size(original: Size, short_side: f64, long_side: f64) -> Size {
    let (h, w) = (original.height as f64, original.width as f64);
    let scale = (short_side / h.min(w)).min(long_side / h.max(w));
    let side = |n: f64| ((n * scale).floor() as usize).max(1);
    Size::new(side(h), side(w))
}

/// The size that TensorFlow's `resize_to_range` gives: by the short side unless the long one would pass
/// its limit, in single precision, rounded half to even. A side has at least the pixels that the stem's first window needs:
/// TensorFlow's network would make no map of a longer and thinner image.
fn keep_aspect_size(original: Size, min_dimension: usize, max_dimension: usize) -> Size {
    let (h, w) = (original.height as f32, original.width as f32);
    let by = |limit: usize, side: f32| {
        let scale = limit as f32 / side;
        let side = |n: f32| ((n * scale).round_ties_even() as usize).max(3);
        Size::new(side(h), side(w))
    };
    let large = by(min_dimension, h.min(w));
    if large.height.max(large.width) > max_dimension { by(max_dimension, h.max(w)) } else { large }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(resize: Resize) -> Input {
        Input { resize, mean: [0.5; 3], std: [0.5; 3] }
    }

    fn short_side(short_side: usize, long_side: usize) -> Input {
        input(Resize::ShortSide { short_side, long_side })
    }

    #[test]
    fn input_sizes_follow_torchvision() {
        let size = |h, w| short_side(320, 640).resized(Size::new(h, w));
        assert_eq!(size(480, 640), Size::new(320, 426));
        assert_eq!(size(640, 480), Size::new(426, 320));
        // The long side limits: 640 / 1280 = 0.5.
        assert_eq!(size(400, 1280), Size::new(200, 640));
        // The product falls just short of the limit, and is floored: 97 * (800 / 97) = 799.99...
        let floored = short_side(800, 1333).resized(Size::new(97, 97));
        assert_eq!(floored, Size::new(799, 799));
        // torchvision would end with an empty image.
        assert_eq!(size(1, 3000), Size::new(1, 640));
        // Both limits move with the scale.
        assert_eq!(short_side(320, 640).resized_by(Size::new(400, 1280), 0.5), Size::new(100, 320));
    }

    #[test]
    fn a_fixed_size_is_that_and_a_kept_aspect_is_limited_by_the_long_side() {
        let fixed = input(Resize::Fixed { height: 600, width: 800 });
        assert_eq!(fixed.resized(Size::new(5, 7)), Size::new(600, 800));
        let mut keep =
            input(Resize::KeepAspect { min_dimension: 600, max_dimension: 1024, pad: false });
        // By hand: 600 / 480 = 1.25; 1024 / 1280 = 0.8 where 600 / 400 would give 1920.
        assert_eq!(keep.resized(Size::new(480, 640)), Size::new(600, 800));
        assert_eq!(keep.resized(Size::new(400, 1280)), Size::new(320, 1024));
        assert_eq!(keep.resized(Size::new(1, 3000)), Size::new(3, 1024));
        let sizes = [Size::new(600, 800), Size::new(320, 1024)];
        assert_eq!(keep.padded(sizes.into_iter()), Size::new(600, 1024));
        keep.resize = Resize::KeepAspect { min_dimension: 600, max_dimension: 1024, pad: true };
        assert_eq!(keep.padded(sizes.into_iter()), Size::new(1024, 1024));
        assert_eq!(keep.padding(), [-1.; 3]);
        assert_eq!(short_side(320, 640).padding(), [0.; 3]);
    }

    #[test]
    fn another_image_size_keeps_the_kind() {
        let is = |resize: Resize, text: &str, expected: Resize| {
            assert_eq!(resize.at(text.parse().unwrap()), expected, "{text}");
        };
        let short_side = |short_side, long_side| Resize::ShortSide { short_side, long_side };
        is(short_side(1, 2), "300x500", short_side(300, 500));
        is(short_side(1, 2), "500x300", short_side(300, 500));
        is(short_side(1, 999), "64", short_side(64, 999));
        is(short_side(1, 999), "64x64", short_side(64, 64));
        let fixed = |height, width| Resize::Fixed { height, width };
        is(fixed(1, 2), "300x500", fixed(300, 500));
        is(fixed(1, 2), "300", fixed(300, 300));
        let keep = |min_dimension, max_dimension| Resize::KeepAspect {
            min_dimension,
            max_dimension,
            pad: true,
        };
        is(keep(1, 999), "64", keep(64, 999));
        is(keep(1, 999), "64x64", keep(64, 64));
    }
}
