//! From an image to a classifier's input, as its weights were published with.
//!
//! Published figures hold for one way of cropping and resizing alone: a different kernel costs up to a
//! percent. So each rule here is its original's to the bit: PIL's for the PyTorch files, TensorFlow's for
//! the checkpoints. How an image was prepared travels in the model file as [`Preprocessing`].

mod legacy;
mod names;
mod pil;

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::names::{ClassNames, NamesError};
use super::image::{ImageError, Rgb, decode, resize_normalized};
use crate::geometry::Size;

/// No classifier's input is larger along a side; it bounds what a model file can make us allocate.
const MOST_PIXELS_A_SIDE: usize = 2048;

/// How an image becomes a classifier's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Height and width of the network's input.
    pub image_size: Size,
    /// Which part of the image is seen.
    pub crop: CropRule,
    /// How its pixels are resampled.
    pub interpolation: Interpolation,
    /// Subtracted from red, green and blue in 0 to 1.
    pub mean: [f32; 3],
    /// What the differences are divided by.
    pub std: [f32; 3],
}

/// Which part of an image is seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CropRule {
    /// The short side becomes this long, the long one in proportion; the centre is cut out of that, black
    /// where it reaches beyond. torchvision's `Resize` and `CenterCrop`.
    ShortSide(usize),
    /// The central part, this fraction of each side; that is resized without regard to its proportions.
    /// TensorFlow's `central_crop`.
    Central(f64),
    /// All of it, resized without regard to its proportions.
    Squash,
}

/// How pixels are resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// PIL's cubic: wider when it shrinks, in 8 bits.
    PilBicubic,
    /// PIL's triangle: wider when it shrinks, in 8 bits.
    PilBilinear,
    /// TensorFlow 1's: pixel `i` is read at `i * scale`, without half pixels and without smoothing.
    LegacyBilinear,
    /// torch's `interpolate` with `align_corners=False`: between pixel centres, without smoothing.
    HalfPixelBilinear,
}

impl Preprocessing {
    /// Of timm's `nasnetalarge.tf_in1k`: `crop_pct` 0.911, so a short side of `floor(331 / 0.911)`.
    pub fn timm_large() -> Self {
        Self::new(331, CropRule::ShortSide(363), Interpolation::PilBicubic)
    }

    /// Of the TF-slim checkpoints (331 for the large network, 224 for the mobile one): the evaluation
    /// half of its Inception preprocessing.
    pub fn tf_slim(side: usize) -> Self {
        Self::new(side, CropRule::Central(0.875), Interpolation::LegacyBilinear)
    }

    /// Of the large network in `pretrained-models.pytorch`, whose settings say "resize 354".
    pub fn cadene_large() -> Self {
        Self::new(331, CropRule::ShortSide(354), Interpolation::PilBilinear)
    }

    /// Of the mobile network in `pretrained-models.pytorch`, whose settings say "resize 256".
    pub fn cadene_mobile() -> Self {
        Self::new(224, CropRule::ShortSide(256), Interpolation::PilBilinear)
    }

    /// Of networks without a rule of their own, such as those of the CIFAR form: the whole image.
    pub fn plain(size: Size) -> Self {
        Self {
            image_size: size,
            ..Self::new(0, CropRule::Squash, Interpolation::HalfPixelBilinear)
        }
    }

    /// The same for an input of `size`: a short side keeps its ratio to it.
    #[must_use]
    pub fn at(self, size: Size) -> Self {
        let short = |size: Size| size.height.min(size.width);
        let crop = match self.crop {
            CropRule::ShortSide(n) => {
                CropRule::ShortSide(n * short(size) / short(self.image_size).max(1))
            }
            other => other,
        };
        Self { image_size: size, crop, ..self }
    }

    fn new(side: usize, crop: CropRule, interpolation: Interpolation) -> Self {
        let image_size = Size::new(side, side);
        Self { image_size, crop, interpolation, mean: [0.5; 3], std: [0.5; 3] }
    }

    /// Whether it can be carried out.
    ///
    /// # Errors
    /// Which setting makes no sense, and what would.
    pub fn check(&self) -> Result<(), String> {
        let side = |what: &str, n: usize| {
            let fits = (1..=MOST_PIXELS_A_SIDE).contains(&n);
            let wrong = || format!("{what} is {n}; it must be 1 to {MOST_PIXELS_A_SIDE} pixels");
            if fits { Ok(()) } else { Err(wrong()) }
        };
        side("image_size.height", self.image_size.height)?;
        side("image_size.width", self.image_size.width)?;
        match self.crop {
            CropRule::ShortSide(n) => side("crop.short-side", n)?,
            // A NaN is in no range.
            CropRule::Central(f) if !(f > 0. && f <= 1.) => {
                return Err(format!("crop.central is {f}; it must be above 0 and at most 1"));
            }
            CropRule::Central(_) | CropRule::Squash => {}
        }
        if self.by_pil() != matches!(self.crop, CropRule::ShortSide(_)) {
            return Err(format!(
                "the interpolation {:?} does not go with the crop {:?}: PIL's go with short-side, the others with central and squash",
                self.interpolation, self.crop
            ));
        }
        if !self.mean.iter().all(|m| m.is_finite())
            || !self.std.iter().all(|s| s.is_finite() && *s > 0.)
        {
            return Err(format!(
                "mean {:?} and std {:?} must be finite, and std above 0",
                self.mean, self.std
            ));
        }
        Ok(())
    }

    /// Samples of one prepared image: three a pixel.
    pub fn samples(&self) -> usize {
        3 * self.image_size.height * self.image_size.width
    }

    /// Prepares images: normalised red, green, blue, `[N, H, W, 3]` of [`Self::image_size`].
    ///
    /// # Panics
    /// As [`Self::write`].
    pub fn apply(&self, images: &[&Rgb]) -> Vec<f32> {
        let mut pixels = vec![0.; images.len() * self.samples()];
        if !pixels.is_empty() {
            let places = pixels.par_chunks_exact_mut(self.samples());
            places.zip(images).for_each(|(place, image)| self.write(image, place));
        }
        pixels
    }

    /// Decodes and prepares files side by side: `[H, W, 3]` of each, in their order.
    ///
    /// # Panics
    /// As [`Self::write`].
    pub fn read(&self, files: &[&Path]) -> Vec<Result<Vec<f32>, ImageError>> {
        let one = |file: &&Path| {
            let decoded = decode(file)?;
            if let Some(warning) = decoded.warning {
                tracing::warn!("{}: {warning}", file.display());
            }
            Ok(self.apply(&[&decoded.image]))
        };
        files.par_iter().map(one).collect()
    }

    /// Prepares one image into its place in a batch, `[H, W, 3]`.
    ///
    /// # Panics
    /// If the settings did not pass [`Self::check`], the image is empty, or `out` is not of
    /// [`Self::samples`] numbers.
    pub fn write(&self, image: &Rgb, out: &mut [f32]) {
        let size = image.size;
        assert!(size.height > 0 && size.width > 0, "cannot prepare an empty image ({size})");
        assert_eq!(out.len(), self.samples(), "an image of {}", self.image_size);
        let to = self.image_size;
        match (self.crop, self.interpolation) {
            (CropRule::ShortSide(short), Interpolation::PilBicubic) => {
                self.normalize(&pil::short_side_and_centre(image, short, to, &pil::BICUBIC), out);
            }
            (CropRule::ShortSide(short), Interpolation::PilBilinear) => {
                self.normalize(&pil::short_side_and_centre(image, short, to, &pil::BILINEAR), out);
            }
            (CropRule::Central(fraction), Interpolation::LegacyBilinear) => {
                legacy::resize(image, central(size, fraction), to, [self.mean, self.std], out);
            }
            (CropRule::Squash, Interpolation::LegacyBilinear) => {
                legacy::resize(image, Region::all(size), to, [self.mean, self.std], out);
            }
            (CropRule::Central(fraction), Interpolation::HalfPixelBilinear) => {
                let part = cut(image, central(size, fraction));
                resize_normalized(&part, to, self.mean, self.std, out, 3 * to.width);
            }
            (CropRule::Squash, Interpolation::HalfPixelBilinear) => {
                resize_normalized(image, to, self.mean, self.std, out, 3 * to.width);
            }
            (crop, interpolation) => {
                unreachable!("check() refuses {crop:?} with {interpolation:?}")
            }
        }
    }

    fn by_pil(&self) -> bool {
        matches!(self.interpolation, Interpolation::PilBicubic | Interpolation::PilBilinear)
    }

    /// torchvision's `ToTensor` and `Normalize`, in their order of operations.
    fn normalize(&self, samples: &[u8], out: &mut [f32]) {
        let table = [0, 1, 2].map(|c| {
            let value = |v: usize| (v as f32 / 255. - self.mean[c]) / self.std[c];
            std::array::from_fn::<f32, 256, _>(value)
        });
        for (to, from) in out.as_chunks_mut::<3>().0.iter_mut().zip(samples.as_chunks::<3>().0) {
            *to = [0, 1, 2].map(|c| table[c][usize::from(from[c])]);
        }
    }
}

/// A part of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    top: usize,
    left: usize,
    size: Size,
}

impl Region {
    fn all(size: Size) -> Self {
        Self { top: 0, left: 0, size }
    }
}

/// TensorFlow's `central_crop`: what is cut off is rounded down on both sides.
fn central(size: Size, fraction: f64) -> Region {
    let offset = |n: usize| ((n as f64 - n as f64 * fraction) / 2.) as usize;
    let (top, left) = (offset(size.height), offset(size.width));
    Region { top, left, size: Size::new(size.height - 2 * top, size.width - 2 * left) }
}

fn cut(image: &Rgb, region: Region) -> Rgb {
    let rows = image.pixels.chunks_exact(3 * image.size.width);
    let rows = rows.skip(region.top).take(region.size.height);
    let pixels =
        rows.flat_map(|row| &row[3 * region.left..][..3 * region.size.width]).copied().collect();
    Rgb { size: region.size, pixels }
}

#[cfg(test)]
mod tests;
