//! Region proposal network (Ren et al. 2015, section 3.1): its layers, and what they say.

use std::ops::Range;

use rayon::prelude::*;

use super::layers::{Layers, relu};
use crate::config::Rules;
use crate::engine::dense::Dense;
use crate::engine::map::Map;
use crate::weights::WeightsError;

/// Patches in memory together: enough that weights are not read often.
const PATCH_BYTES: usize = 16 << 20;

/// Cells that a 3x3 convolution reads.
const PATCH: usize = 9;

/// The layers.
#[derive(Debug)]
pub struct Rpn {
    conv: Dense,
    cls_logits: Dense,
    bbox_pred: Dense,
    rules: Rules,
}

/// What the network says of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct RpnOutput {
    /// Logits of every anchor, one or two by the family: `[N, H * W * A, 1]` or `[N, H * W * A, 2]`.
    pub objectness: Vec<f32>,
    /// `[N, H * W * A, 4]`.
    pub deltas: Vec<f32>,
}

impl RpnOutput {
    /// Logits and deltas of an image of `images`.
    pub fn of_image(&self, image: usize, images: usize) -> (&[f32], &[f32]) {
        let rows = |all: &'_ [f32]| all.len() / images * image..all.len() / images * (image + 1);
        (&self.objectness[rows(&self.objectness)], &self.deltas[rows(&self.deltas)])
    }
}

impl Rpn {
    /// The layers `rpn.head.*`.
    pub fn new(layers: &Layers<'_>, rules: Rules) -> Result<Self, WeightsError> {
        Ok(Self {
            conv: layers.dense("rpn.head.conv.0.0", PATCH)?,
            cls_logits: layers.dense("rpn.head.cls_logits", 1)?,
            bbox_pred: layers.dense("rpn.head.bbox_pred", 1)?,
            rules,
        })
    }

    /// Objectness and deltas of every anchor of `map`.
    ///
    /// # Panics
    /// If the map has other channels than the layers.
    pub fn predict(&self, map: &Map) -> RpnOutput {
        let patch = self.conv.inputs() * size_of::<f32>();
        self.predict_in_bands(map, (PATCH_BYTES / patch).max(1))
    }

    /// [`Self::predict`] with the patches of at most `band` pixels in memory together.
    ///
    /// # Panics
    /// If `band` is 0, or the map has other channels than the layers.
    pub fn predict_in_bands(&self, map: &Map, band: usize) -> RpnOutput {
        let pixels = map.pixels();
        let (scores, deltas) = (self.cls_logits.outputs(), self.bbox_pred.outputs());
        // A pixel's outputs are those of its anchors, one after the other: already in the order of anchors.
        let mut output =
            RpnOutput { objectness: vec![0.; pixels * scores], deltas: vec![0.; pixels * deltas] };
        let mut hidden = Vec::new();
        for first in (0..pixels).step_by(band) {
            let band = first..pixels.min(first + band);
            self.hidden(map, band.clone(), &mut hidden);
            let part = |each: usize| band.start * each..band.end * each;
            self.cls_logits.run(&hidden, &mut output.objectness[part(scores)]);
            self.bbox_pred.run(&hidden, &mut output.deltas[part(deltas)]);
        }
        output
    }

    /// What both predictors read of the pixels `band`, counted over all images: `[pixels, channels]`.
    pub fn hidden(&self, map: &Map, band: Range<usize>, hidden: &mut Vec<f32>) {
        let mut patches = vec![0.; band.len() * PATCH * map.channels];
        patches.par_chunks_mut(PATCH * map.channels).zip(band.clone()).for_each(|(out, pixel)| {
            patch(map, pixel, out);
        });
        hidden.resize(band.len() * self.conv.outputs(), 0.);
        self.conv.run(&patches, hidden);
        let ceiling = match self.rules {
            Rules::Torchvision => f32::INFINITY,
            Rules::Tf => 6.,
        };
        relu(hidden, ceiling);
    }
}

/// The 3x3 cells around a pixel, zeros beyond the border: `[3, 3, C]`.
fn patch(map: &Map, pixel: usize, out: &mut [f32]) {
    let (image, place) = (pixel / (map.height * map.width), pixel % (map.height * map.width));
    let (y, x) = (place / map.width, place % map.width);
    let c = map.channels;
    for (dy, row) in out.chunks_exact_mut(3 * c).enumerate() {
        // Row y + dy - 1 of the map.
        if y + dy == 0 || y + dy > map.height {
            row.fill(0.);
            continue;
        }
        let (left, right) = (x == 0, x + 1 == map.width);
        let (start, end) = (usize::from(left), 3 - usize::from(right));
        row[..start * c].fill(0.);
        row[start * c..end * c].copy_from_slice(map.run(
            image,
            y + dy - 1,
            x + start - 1,
            end - start,
        ));
        row[end * c..].fill(0.);
    }
}
