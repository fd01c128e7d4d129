//! Faster R-CNN (Ren et al. 2015) on any featurizer in two parts, inference alone.
//!
//! The layers ([`rpn`], [`roi`]) are the same everywhere; what their numbers mean is up to the family of rules,
//! [`torchvision`]'s or [`tf`]'s.

pub mod crop;
pub mod layers;
pub mod roi;
pub mod rpn;
pub mod tf;
pub mod torchvision;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use self::crop::Region;
use self::layers::Layers;
use self::roi::{RoiHead, RoiOutput};
use self::rpn::{Rpn, RpnOutput};
use super::map::Map;
use super::{CutSpec, Featurizer};
use crate::config::{self, Anchors, Config, Rules};
use crate::data::loader::Batch;
use crate::geometry::{Box2, Detection, Size};
use crate::rules::{self, anchors::Grid};
use crate::weights::import::heads::{self, Features};
use crate::weights::{Contents, WeightsError};

/// Names and shapes of the tensors of the heads that `config` describes, on a featurizer as `spec` says.
pub fn expected(config: &Config, spec: CutSpec, classes: usize) -> BTreeMap<String, Vec<usize>> {
    let features = Features { map: spec.channels, tail: spec.tail_channels };
    let tensors = heads::tensors_on(features, config, classes);
    tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect()
}

/// All that follows the trunk's map.
#[derive(Debug)]
pub struct Heads {
    rpn: Rpn,
    roi: RoiHead,
    rules: Rules,
    anchors: Anchors,
    rpn_settings: config::Rpn,
    roi_settings: config::Roi,
    stride: usize,
}

impl Heads {
    /// The heads that `config` describes for `classes` classes on a featurizer as `spec` says, with the tensors of
    /// `contents`, which came from `path`. All of the heads that is missing, unexpected or misshapen is listed.
    pub fn new(
        contents: &Contents,
        config: &Config,
        spec: CutSpec,
        classes: usize,
        path: &Path,
    ) -> Result<Self, WeightsError> {
        let layers = Layers::find(&expected(config, spec, classes), contents, path)?;
        Ok(Self {
            rpn: Rpn::new(&layers, config.detector.rules)?,
            roi: RoiHead::new(&layers, &config.detector, spec)?,
            rules: config.detector.rules,
            anchors: config.anchors.clone(),
            rpn_settings: config.rpn.clone(),
            roi_settings: config.roi.clone(),
            stride: spec.stride,
        })
    }

    /// The region proposal network.
    pub fn rpn(&self) -> &Rpn {
        &self.rpn
    }

    /// The region heads.
    pub fn roi(&self) -> &RoiHead {
        &self.roi
    }

    /// The anchors of a map of `cells` over an input of `padded` pixels, not clipped.
    pub fn anchors(&self, cells: Size, padded: Size) -> Grid {
        match self.rules {
            Rules::Torchvision => Grid::torchvision(&self.anchors, cells, padded),
            Rules::Tf => Grid::tf(&self.anchors, cells, self.stride),
        }
    }

    /// The best regions of each image, clipped to it, with their objectness from 0 to 1, best first.
    pub fn proposals(
        &self,
        output: &RpnOutput,
        anchors: &Grid,
        sizes: &[Size],
        padded: Size,
    ) -> Vec<Vec<(Box2, f32)>> {
        let one = |(image, &size): (usize, &Size)| {
            let (logits, deltas) = output.of_image(image, sizes.len());
            let settings = &self.rpn_settings;
            match self.rules {
                Rules::Torchvision => {
                    torchvision::proposals(settings, anchors, logits, deltas, size)
                }
                Rules::Tf => tf::proposals(settings, anchors, logits, deltas, size, padded),
            }
        };
        sizes.par_iter().enumerate().map(one).collect()
    }

    /// The detections of each image in pixels of the network's input, best score first, from what is said of
    /// `regions`, which are in the order of images.
    pub fn select(
        &self,
        output: &RoiOutput,
        regions: &[Region],
        sizes: &[Size],
    ) -> Vec<Vec<Detection>> {
        let classes = self.roi.classes();
        let one = |(image, &size): (usize, &Size)| {
            let start = regions.partition_point(|region| region.image < image);
            let end = regions.partition_point(|region| region.image <= image);
            let boxes: Vec<Box2> = regions[start..end].iter().map(|region| region.bbox).collect();
            let rows = |all: &[f32]| {
                let each = all.len() / regions.len().max(1);
                all[start * each..end * each].to_vec()
            };
            let output = RoiOutput {
                class_logits: rows(&output.class_logits),
                box_regression: rows(&output.box_regression),
            };
            let settings = &self.roi_settings;
            match self.rules {
                Rules::Torchvision => {
                    torchvision::detections(settings, &output, &boxes, classes, size)
                }
                Rules::Tf => tf::detections(settings, &output, &boxes, classes, size),
            }
        };
        sizes.par_iter().enumerate().map(one).collect()
    }

    /// From the trunk's map to the detections of each image, which is at the top left of an input of `padded` pixels.
    pub fn detect(
        &self,
        featurizer: &impl Featurizer,
        map: &Map,
        sizes: &[Size],
        padded: Size,
    ) -> Vec<Vec<Detection>> {
        let anchors = self.anchors(Size::new(map.height, map.width), padded);
        let proposals = self.proposals(&self.rpn.predict(map), &anchors, sizes, padded);
        let of_image = |(image, proposals): (usize, &Vec<(Box2, f32)>)| {
            proposals.iter().map(|&(bbox, _)| Region { image, bbox }).collect::<Vec<_>>()
        };
        let regions: Vec<Region> = proposals.iter().enumerate().flat_map(of_image).collect();
        let output = self.roi.predict(featurizer, map, &regions, padded);
        self.select(&output, &regions, sizes)
    }
}

/// The detector.
#[derive(Debug)]
pub struct FasterRcnn<F> {
    featurizer: F,
    heads: Heads,
}

impl<F: Featurizer> FasterRcnn<F> {
    /// Puts the heads that `config` describes on `featurizer`; see [`Heads::new`].
    pub fn new(
        featurizer: F,
        contents: &Contents,
        config: &Config,
        classes: usize,
        path: &Path,
    ) -> Result<Self, WeightsError> {
        let heads = Heads::new(contents, config, featurizer.spec(), classes, path)?;
        Ok(Self { featurizer, heads })
    }

    /// What sees the image.
    pub fn featurizer(&self) -> &F {
        &self.featurizer
    }

    /// What follows it.
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// What is found in each image, in pixels of the *network's input*, best score first.
    ///
    /// # Shapes
    /// `pixels` `[N, H, W, 3]`, normalised, of `padded` size, each image with its size of `sizes` at the top left.
    ///
    /// # Panics
    /// If there are not as many pixels.
    pub fn detect(&self, pixels: &[f32], sizes: &[Size], padded: Size) -> Vec<Vec<Detection>> {
        assert_eq!(
            pixels.len(),
            sizes.len() * padded.height * padded.width * 3,
            "pixels of images"
        );
        if sizes.is_empty() {
            return Vec::new();
        }
        let map = self.featurizer.trunk(pixels, sizes.len(), padded);
        self.heads.detect(&self.featurizer, &map, sizes, padded)
    }

    /// What is found in each image of a batch, in *original* pixels, best score first.
    pub fn predict(&self, batch: &Batch) -> Vec<Vec<Detection>> {
        let sizes: Vec<Size> = batch.samples.iter().map(|sample| sample.resized).collect();
        let mut found = self.detect(&batch.pixels, &sizes, batch.padded);
        for (detections, sample) in found.iter_mut().zip(&batch.samples) {
            rules::to_original(detections, sample.resized, sample.original);
        }
        found
    }
}

/// 0 to 1.
fn sigmoid(x: f32) -> f32 {
    1. / (1. + (-x).exp())
}

/// Probabilities of logits.
fn softmax(logits: &[f32]) -> impl Iterator<Item = f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|&x| (x - largest).exp()).sum();
    logits.iter().map(move |&x| (x - largest).exp() / sum)
}
