//! Faster R-CNN (Ren et al. 2015) on any featurizer in two parts.
//!
//! The layers ([`rpn`], [`roi`]) are the same everywhere. What their numbers mean is up to a [`Family`] of
//! rules: [`torchvision`]'s or [`tf`]'s, each made of free functions on tensors, so that each can be held
//! against its oracle by itself. [`FasterRcnn`] composes them in two verbs: [`FasterRcnn::losses`] and
//! [`FasterRcnn::detect`].
//!
//! # Where a GPU is waited for
//! A training step has two paces. [`Pace::Ahead`], which is that of a GPU, reads nothing before the step's end: which
//! anchors learn is decided on the CPU, while the trunk is computed, and which regions learn on the device ([`ahead`]).
//! What is sent to the device is sent by [`boxes::upload`], which does not wait.
//!
//! [`Pace::Waits`], which is that of a CPU and of what [`Pace::Ahead`] could not settle, reads, after the RPN, the boxes
//! that NMS chooses from (`Candidates::read`), and then how many regions were drawn. So does evaluation, and a pass in which
//! NMS would choose among more than [`ahead::MOST`] boxes.
//! `detector.sampling_ratio = 0`, which no shipped recipe has, reads the largest number of samples of a bin in both, and
//! norms that are synchronised over processes read their sums.

pub mod ahead;
pub mod assign;
pub mod boxes;
pub mod coder;
pub mod crop;
pub mod family;
pub mod image_head;
pub mod losses;
pub mod post;
pub mod roi;
pub mod rpn;
pub mod tf;
pub mod torchvision;

use detect::config::{Config, Head};
use detect::data::loader::Sample;
use detect::geometry::{Box2, Detection, Label, Size};
use tch::Tensor;
use tch::nn::Path;

use ahead::{Held, Pace};
use assign::Draws;
use family::Family;
use image_head::ImageHead;
pub use losses::{Counts, Losses};
use roi::{RoiHead, Sampled};
use rpn::{Rpn, RpnOutput};

use crate::backbone::{Backbone, NasNet};
use crate::nn::{Mode, nchw};
use crate::profile::{self, Part};

/// What is true of one image of a batch, in pixels of the network's input.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    /// One box an object, without crowds.
    pub boxes: Vec<Box2>,
    /// Its class.
    pub labels: Vec<Label>,
}

impl Truth {
    /// Of a sample that was read for training.
    pub fn of(sample: &Sample) -> Self {
        Self { boxes: sample.boxes.clone(), labels: sample.labels.clone() }
    }

    /// What is wrong with it for a detector of `classes` classes, if anything: a box for each label, labels
    /// below `classes`, boxes of finite numbers and more than no size.
    pub fn fault(&self, classes: usize) -> Option<String> {
        let (boxes, labels) = (self.boxes.len(), self.labels.len());
        if boxes != labels {
            return Some(format!("{boxes} boxes with {labels} labels"));
        }
        if let Some(label) = self.labels.iter().find(|label| label.0 >= classes) {
            return Some(format!("a label {} where there are {classes} classes", label.0));
        }
        let good = |b: &&Box2| {
            [b.x1, b.y1, b.x2, b.y2].iter().all(|x| x.is_finite()) && b.x1 < b.x2 && b.y1 < b.y2
        };
        let bad = self.boxes.iter().find(|b| !good(b))?;
        Some(format!("a box of ({}, {}) to ({}, {})", bad.x1, bad.y1, bad.x2, bad.y2))
    }
}

/// A batch of images on the network's device.
#[derive(Debug)]
pub struct Images {
    /// `[N, 3, H, W]`, normalised; each image at the top left of its plane.
    pub pixels: Tensor,
    /// Size of each image within its plane.
    pub sizes: Vec<Size>,
}

impl Images {
    /// Size of the planes.
    pub fn padded(&self) -> Size {
        let [_, _, height, width] = nchw(&self.pixels);
        Size::new(height as usize, width as usize)
    }
}

/// A batch up to the regions from which the heads learn.
struct Drawn {
    /// The trunk's.
    map: Tensor,
    objectness: Tensor,
    rpn_box_reg: Tensor,
    counts: Counts,
    /// Of each image.
    sampled: Vec<Sampled>,
    held: Held,
}

/// What a pass in training leaves.
#[derive(Debug)]
pub struct Pass {
    /// Means over `counts`.
    pub losses: Losses,
    /// If the pass went ahead, what they are if it `held`.
    pub counts: Counts,
    /// Whether a pass that goes ahead is right.
    pub held: Held,
}

/// The detector.
#[derive(Debug)]
pub struct FasterRcnn<B> {
    backbone: B,
    rpn: Rpn,
    roi: RoiHead,
    family: Box<dyn Family>,
    /// In training alone.
    image_head: Option<ImageHead>,
}

impl FasterRcnn<NasNet> {
    /// Makes the detector that `config` describes for `classes` classes, its tensors under `path`.
    pub fn new(path: &Path, config: &Config, classes: usize) -> Self {
        let with_tail = config.detector.head == Head::Tail;
        let backbone =
            NasNet::new(&(path / "backbone"), &config.backbone, config.detector.cut, with_tail);
        let backbone = if config.train.recompute { backbone.recomputing() } else { backbone };
        Self::on(backbone, path, config, classes)
    }
}

impl<B: Backbone> FasterRcnn<B> {
    /// Puts the heads that `config` describes on `backbone`.
    pub fn on(backbone: B, path: &Path, config: &Config, classes: usize) -> Self {
        let spec = backbone.spec();
        let family = family::of(config, spec);
        let (layers, anchors) = (family.layers(), config.anchors.per_cell());
        Self {
            rpn: Rpn::new(&(path / "rpn"), &config.rpn, anchors, spec, layers),
            roi: RoiHead::new(&(path / "roi_heads"), &config.detector, spec, classes, layers),
            backbone,
            family,
            image_head: None,
        }
    }

    /// The same detector with what is made for training alone: a head under `path` for the classes of whole images,
    /// where `config` gives its loss a weight.
    #[must_use]
    pub fn learning(mut self, path: &Path, config: &Config, classes: usize) -> Self {
        let wanted = config.train.loss_weights.auxiliary > 0.;
        let spec = self.backbone.spec();
        self.image_head = wanted.then(|| ImageHead::new(path, spec, classes));
        self
    }

    /// The featurizer.
    pub fn backbone(&self) -> &B {
        &self.backbone
    }

    /// The losses of a batch. Samples are drawn from libtorch's generator: for each image in the
    /// RPN, then for each image in the heads.
    ///
    /// # Panics
    /// If `images` and `truths` differ in length.
    pub fn losses(&self, images: &Images, truths: &[Truth], mode: Mode) -> Losses {
        self.counted_losses(images, truths, mode, Draws::GoOn, Pace::Waits).losses
    }

    /// The same with draws and a pace of one's own, and what the losses are means over.
    ///
    /// # Panics
    /// If `images` and `truths` differ in length, or [`Pace::Ahead`] is to draw from libtorch's generator.
    pub fn counted_losses(
        &self,
        images: &Images,
        truths: &[Truth],
        mode: Mode,
        draws: Draws<'_>,
        pace: Pace,
    ) -> Pass {
        let Drawn { map, objectness, rpn_box_reg, counts, sampled, held } =
            self.drawn(images, truths, mode, draws, pace);
        let regions: Vec<Tensor> = sampled.iter().map(|s| s.boxes.shallow_clone()).collect();
        let predicted = self.roi.predict(&self.backbone, &map, &regions, images.padded(), mode);
        let (classifier, box_reg) = self.family.roi_losses(&predicted, &sampled);
        let auxiliary = self.image_head.as_ref().map(|head| head.loss(&map, images, truths));
        profile::lap(Part::Roi);
        let losses = Losses { classifier, box_reg, objectness, rpn_box_reg, auxiliary };
        Pass { losses, counts, held }
    }

    /// What the losses of [`Self::counted_losses`] are means over, for the price of the trunk and the RPN alone: without
    /// gradients, and without the heads. Moves the trunk's running statistics as a forward pass does.
    ///
    /// # Panics
    /// If `images` and `truths` differ in length.
    pub fn counts(
        &self,
        images: &Images,
        truths: &[Truth],
        mode: Mode,
        draws: Draws<'_>,
    ) -> Counts {
        tch::no_grad(|| self.drawn(images, truths, mode, draws, Pace::Waits).counts)
    }

    /// A batch up to the regions from which the heads learn.
    fn drawn(
        &self,
        images: &Images,
        truths: &[Truth],
        mode: Mode,
        draws: Draws<'_>,
        pace: Pace,
    ) -> Drawn {
        assert_eq!(images.sizes.len(), truths.len(), "one truth an image");
        let device = images.pixels.device();
        profile::lap(Part::Other);
        let map = self.backbone.trunk(&images.pixels, mode);
        profile::lap(Part::Trunk);
        let rpn = self.anchored(&map, images, mode);
        let ahead = (pace == Pace::Ahead).then(|| self.family.proposals_ahead(&rpn, &images.sizes));
        let proposals =
            ahead.flatten().unwrap_or_else(|| self.family.proposals(&rpn, &images.sizes, mode));
        let gt_boxes: Vec<Tensor> = truths.iter().map(|t| boxes::to_tensor(&t.boxes)).collect();
        let gt_labels = truths.iter().map(|t| boxes::labels_to_tensor(&t.labels));
        let (objectness, rpn_box_reg, anchors) = self.family.rpn_losses(&rpn, &gt_boxes, draws);
        profile::lap(Part::Rpn);
        let gt_labels: Vec<Tensor> = gt_labels.map(|t| boxes::upload(&t, device)).collect();
        let gt_boxes: Vec<Tensor> = gt_boxes.iter().map(|t| boxes::upload(t, device)).collect();
        let (sampled, held) = self.family.sample(&rpn, &proposals, &gt_boxes, &gt_labels, draws);
        let regions = self.family.roi_count(&sampled);
        let [anchors, regions, images] = [anchors, regions, truths.len()].map(|n| n as f64);
        let counts = Counts { anchors, regions, images };
        Drawn { map, objectness, rpn_box_reg, counts, sampled, held }
    }

    /// The backward pass from a sum of the losses of the last batch.
    pub fn backward(&self, total: &Tensor) {
        total.backward();
        self.backbone.backward();
    }

    /// What is found in each image, in pixels of the *network's input*, best score first.
    pub fn detect(&self, images: &Images) -> Vec<Vec<Detection>> {
        // Given back by a panic, too, after which a training goes on: memory may run out here.
        let _without = tch::no_grad_guard();
        let map = self.backbone.trunk(&images.pixels, Mode::Eval);
        let rpn = self.anchored(&map, images, Mode::Eval);
        let proposals = self.family.proposals(&rpn, &images.sizes, Mode::Eval);
        let regions: Vec<Tensor> = proposals.into_iter().map(|p| p.boxes).collect();
        let padded = images.padded();
        let predicted = self.roi.predict(&self.backbone, &map, &regions, padded, Mode::Eval);
        self.family.select(&predicted, &regions, &images.sizes)
    }

    /// What the RPN says of each anchor that the family admits.
    fn anchored(&self, map: &Tensor, images: &Images, mode: Mode) -> RpnOutput {
        let [_, _, height, width] = nchw(map);
        let padded = images.padded();
        let anchors = self.family.anchors([height, width], padded);
        self.family.at_border(self.rpn.predict(map, anchors), padded, mode)
    }
}

#[cfg(test)]
mod tests;
