//! Region heads: crops of the map, a vector for each, its class and its box.

use super::crop::{Cropper, Region};
use super::layers::{Layers, relu};
use crate::config::{DetectorSection, Head};
use crate::engine::dense::Dense;
use crate::engine::map::Map;
use crate::engine::{CutSpec, Featurizer};
use crate::geometry::Size;
use crate::weights::WeightsError;

/// What turns a crop into a vector.
#[derive(Debug)]
enum BoxHead {
    /// The rest of the featurizer.
    Tail,
    /// Two fully connected layers with ReLU.
    Mlp { fc6: Box<Dense>, fc7: Box<Dense> },
}

/// The layers.
#[derive(Debug)]
pub struct RoiHead {
    crop: Cropper,
    box_head: BoxHead,
    cls_score: Dense,
    bbox_pred: Dense,
}

/// What the heads say of regions, all images in one list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoiOutput {
    /// `[R, K + 1]`, background first.
    pub class_logits: Vec<f32>,
    /// `[R, 4 (K + 1)]`, or `[R, 4 K]` in a family whose background has no box; class-major.
    pub box_regression: Vec<f32>,
}

impl RoiHead {
    /// The layers `roi_heads.*`, on a map as `spec` says.
    pub fn new(
        layers: &Layers<'_>,
        section: &DetectorSection,
        spec: CutSpec,
    ) -> Result<Self, WeightsError> {
        let crop = Cropper::new(section, spec.stride);
        let box_head = match section.head {
            Head::Tail => BoxHead::Tail,
            Head::Mlp => BoxHead::Mlp {
                fc6: Box::new(layers.dense("roi_heads.box_head.fc6", crop.bins[0] * crop.bins[1])?),
                fc7: Box::new(layers.dense("roi_heads.box_head.fc7", 1)?),
            },
        };
        Ok(Self {
            crop,
            box_head,
            cls_score: layers.dense("roi_heads.box_predictor.cls_score", 1)?,
            bbox_pred: layers.dense("roi_heads.box_predictor.bbox_pred", 1)?,
        })
    }

    /// Classes without background.
    pub fn classes(&self) -> usize {
        self.cls_score.outputs() - 1
    }

    /// How regions are cut out.
    pub fn cropper(&self) -> &Cropper {
        &self.crop
    }

    /// A vector for each crop: `[R, k, k, C]` to `[R, D]`.
    pub fn vectors(&self, featurizer: &impl Featurizer, crops: &Map) -> Vec<f32> {
        match &self.box_head {
            BoxHead::Tail => featurizer.tail(crops),
            BoxHead::Mlp { fc6, fc7 } => {
                let hidden = with_relu(fc6, &crops.data, crops.images);
                with_relu(fc7, &hidden, crops.images)
            }
        }
    }

    /// Appends class logits and deltas of vectors `[R, D]` to `output`.
    pub fn classify(&self, vectors: &[f32], output: &mut RoiOutput) {
        let rows = vectors.len() / self.cls_score.inputs();
        let append = |layer: &Dense, to: &mut Vec<f32>| {
            let start = to.len();
            to.resize(start + rows * layer.outputs(), 0.);
            layer.run(vectors, &mut to[start..]);
        };
        append(&self.cls_score, &mut output.class_logits);
        append(&self.bbox_pred, &mut output.box_regression);
    }

    /// From the map to class logits and deltas of `regions`. Crops are made and read in parts: those of the
    /// published detector would take gigabytes.
    pub fn predict(
        &self,
        featurizer: &impl Featurizer,
        map: &Map,
        regions: &[Region],
        padded: Size,
    ) -> RoiOutput {
        self.predict_in_parts(featurizer, map, regions, padded, self.crop.at_once(map.channels))
    }

    /// [`Self::predict`] with at most `at_once` crops in memory together.
    ///
    /// # Panics
    /// If `at_once` is 0.
    pub fn predict_in_parts(
        &self,
        featurizer: &impl Featurizer,
        map: &Map,
        regions: &[Region],
        padded: Size,
        at_once: usize,
    ) -> RoiOutput {
        let mut output = RoiOutput::default();
        let mut crops = Map::default();
        for part in regions.chunks(at_once) {
            self.crop.crops(map, part, padded, &mut crops);
            self.classify(&self.vectors(featurizer, &crops), &mut output);
        }
        output
    }
}

fn with_relu(layer: &Dense, rows: &[f32], count: usize) -> Vec<f32> {
    let mut out = vec![0.; count * layer.outputs()];
    layer.run(rows, &mut out);
    relu(&mut out, f32::INFINITY);
    out
}
