//! Region heads: crops of the map, a vector for each, its class and its box.

use std::ops::Range;

use detect::config::{DetectorSection, Head};
use detect::geometry::Size;
use tch::Tensor;
use tch::nn::Path;

use super::boxes;
use super::crop::Cropper;
use super::family::Layers;
use crate::backbone::{Backbone, CutSpec};
use crate::nn::{Init, Linear, Mode, synchronised};
use crate::precision::{wide, widened};

/// What turns a crop into a vector.
#[derive(Debug)]
enum BoxHead {
    /// The rest of the featurizer.
    Tail,
    /// Two fully connected layers with ReLU.
    Mlp { fc6: Linear, fc7: Linear },
}

/// The layers.
#[derive(Debug)]
pub struct RoiHead {
    crop: Cropper,
    box_head: BoxHead,
    cls_score: Linear,
    bbox_pred: Linear,
}

/// What the heads say of regions, all images in one list.
#[derive(Debug)]
pub struct RoiOutput {
    /// `[R, K + 1]`, background first.
    pub class_logits: Tensor,
    /// `[R, 4 (K + 1)]`, or `[R, 4 K]` in a family whose background has no box; class-major.
    pub box_regression: Tensor,
}

/// Regions of one image that were sampled for the loss.
#[derive(Debug)]
pub struct Sampled {
    /// Indices into what was sampled from, rising: `[S]`.
    pub indices: Tensor,
    /// `[S, 4]`.
    pub boxes: Tensor,
    /// 0 is background: `[S]`.
    pub labels: Tensor,
    /// Deltas to the matched ground truth; meaningless for background: `[S, 4]`.
    pub targets: Tensor,
}

impl RoiHead {
    /// Makes `path.box_head.*` and `path.box_predictor.*` for `classes` classes.
    pub fn new(
        path: &Path,
        detector: &DetectorSection,
        spec: CutSpec,
        classes: usize,
        layers: Layers,
    ) -> Self {
        let bins = detector.crop_size as i64;
        let (box_head, width) = match detector.head {
            Head::Tail => (BoxHead::Tail, spec.tail_channels),
            Head::Mlp => {
                let width = detector.mlp_width as i64;
                let inputs = spec.channels * bins * bins;
                let path = path / "box_head";
                let init = Init::PytorchDefault;
                let fc6 = Linear::new(&(&path / "fc6"), &[width, inputs], init);
                let fc7 = Linear::new(&(&path / "fc7"), &[width, width], init);
                (BoxHead::Mlp { fc6, fc7 }, width)
            }
        };
        let path = path / "box_predictor";
        let layer = |name: &str, outputs: i64| {
            Linear::new(&(&path / name), &[outputs, width], layers.predictors)
        };
        let classes = classes as i64;
        Self {
            crop: Cropper::new(detector, spec.stride),
            box_head,
            cls_score: layer("cls_score", classes + 1),
            bbox_pred: layer("bbox_pred", 4 * (classes + i64::from(layers.background_box))),
        }
    }

    /// Crops of each image's regions, in pixels of an input of `padded` size: `[R, C, k, k]`.
    pub fn crops(&self, map: &Tensor, regions: &[Tensor], padded: Size) -> Tensor {
        // Where a sample lies between cells takes more bits than half of float32's.
        self.crop.crops(&widened(map), regions, padded)
    }

    /// A vector for each crop: `[R, C, k, k]` to `[R, D]`.
    pub fn vectors(&self, backbone: &impl Backbone, crops: &Tensor, mode: Mode) -> Tensor {
        match &self.box_head {
            BoxHead::Tail => backbone.tail(crops, mode),
            BoxHead::Mlp { fc6, fc7 } => {
                // The published weight counts inputs as C, k, k. The crops have C innermost in memory, and
                // moving the weight's columns is much less work than moving every crop.
                let size = crops.size();
                let (c, k) = (size[1], size[2]);
                let weight = fc6.weight.reshape([-1, c, k, k]).permute([0, 2, 3, 1]).flatten(1, 3);
                let flat = crops.permute([0, 2, 3, 1]).flatten(1, 3); // [R, k k C]
                let hidden = flat.linear(&weight, Some(&fc6.bias)).relu();
                fc7.forward(&hidden).relu()
            }
        }
    }

    /// Class logits and deltas of vectors `[R, D]`.
    pub fn classify(&self, vectors: &Tensor) -> RoiOutput {
        RoiOutput {
            class_logits: widened(&self.cls_score.forward(vectors)),
            box_regression: widened(&self.bbox_pred.forward(vectors)),
        }
    }

    /// From the map to class logits and deltas of each image's regions. In evaluation the crops are made
    /// and read in parts: those of the published detector would take gigabytes.
    pub fn predict(
        &self,
        backbone: &impl Backbone,
        map: &Tensor,
        regions: &[Tensor],
        padded: Size,
        mode: Mode,
    ) -> RoiOutput {
        let counts: Vec<usize> = regions.iter().map(|r| r.size()[0] as usize).collect();
        if counts.iter().sum::<usize>() == 0 {
            if mode.is_train() && matches!(self.box_head, BoxHead::Tail) {
                // Other processes may have regions, whose norms wait for this one's, in the backward pass too.
                let of_nothing = || {
                    let corners = [0., 0., padded.width as f32, padded.height as f32];
                    let whole = boxes::upload(&Tensor::from_slice(&corners), map.device());
                    let mut regions: Vec<Tensor> =
                        regions.iter().map(|r| r.narrow(0, 0, 0)).collect();
                    // Two: a norm that is not shared needs more than one value.
                    regions[0] = whole.view([1, 4]).repeat([2, 1]);
                    let crops = self.crops(&map.detach(), &regions, padded);
                    self.classify(&self.vectors(backbone, &crops, mode).narrow(0, 0, 0))
                };
                if let Some(output) = synchronised::beside(of_nothing) {
                    return output;
                }
            }
            // No region in the whole batch: batch norm and reshapes refuse empty inputs.
            let empty = |layer: &Linear| {
                map.new_zeros([0, layer.bias.size()[0]], (wide(map.kind()), map.device()))
            };
            return RoiOutput {
                class_logits: empty(&self.cls_score),
                box_regression: empty(&self.bbox_pred),
            };
        }
        let vectors = |regions: &[Tensor]| {
            let crops = self.crops(map, regions, padded);
            self.vectors(backbone, &crops, mode)
        };
        if mode.is_train() {
            return self.classify(&vectors(regions));
        }
        let parts: Vec<Tensor> = parts(&counts, self.crop.at_once(map))
            .iter()
            .map(|part| {
                let of_image = |(r, range): (&Tensor, &Range<usize>)| {
                    r.narrow(0, range.start as i64, range.len() as i64)
                };
                vectors(&regions.iter().zip(part).map(of_image).collect::<Vec<_>>())
            })
            .collect();
        self.classify(&Tensor::cat(&parts, 0))
    }
}

/// Splits `counts` regions of each image into parts of at most `most` in their order: for each part a
/// range of every image's.
fn parts(counts: &[usize], most: usize) -> Vec<Vec<Range<usize>>> {
    let mut parts = Vec::new();
    let mut part = vec![0..0; counts.len()];
    let mut room = most;
    for (image, &count) in counts.iter().enumerate() {
        let mut start = 0;
        while start < count {
            if room == 0 {
                parts.push(std::mem::replace(&mut part, vec![0..0; counts.len()]));
                room = most;
            }
            let taken = room.min(count - start);
            part[image] = start..start + taken;
            (start, room) = (start + taken, room - taken);
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_full_and_keep_the_order() {
        assert_eq!(parts(&[3, 0, 4], 100), [[0..3, 0..0, 0..4]]);
        assert_eq!(
            parts(&[3, 0, 4], 2),
            [[0..2, 0..0, 0..0], [2..3, 0..0, 0..1], [0..0, 0..0, 1..3], [0..0, 0..0, 3..4],]
        );
        assert_eq!(parts(&[4, 0], 2), [[0..2, 0..0], [2..4, 0..0]]);
    }
}
