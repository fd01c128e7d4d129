//! Region proposal network (Ren et al. 2015, section 3.1): its layers, and what they say.

use detect::config;
use detect::geometry::Box2;
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::family::Layers;
use super::{ahead, boxes};
use crate::backbone::CutSpec;
use crate::nn::{Init, Linear, at, nchw};
use crate::precision::widened;

/// The layers.
#[derive(Debug)]
pub struct Rpn {
    conv: Linear,
    cls_logits: Linear,
    bbox_pred: Linear,
    layers: Layers,
}

/// What the network says of a batch.
#[derive(Debug)]
pub struct RpnOutput {
    /// Logits of every anchor, one or two by the family: `[N, H * W * A, 1]` or `[N, H * W * A, 2]`.
    pub objectness: Tensor,
    /// `[N, H * W * A, 4]`.
    pub deltas: Tensor,
    /// The same for every image, on the CPU: which of them learn is decided there. `[H * W * A, 4]`.
    pub anchors: Tensor,
}

/// Proposals of one image.
#[derive(Debug)]
pub struct Proposals {
    /// `[R, 4]`, clipped to the image, best first, without gradient.
    pub boxes: Tensor,
    /// Objectness, 0 to 1: `[R]`.
    pub scores: Tensor,
    /// Of a pass that does not wait for its device ([`ahead`]).
    pub unread: Option<Unread>,
}

/// Proposals that an image can have in training: no more than there are anchors, whatever the recipe allows.
pub(super) fn most_in_training(settings: &config::Rpn, output: &RpnOutput) -> usize {
    settings.post_nms_train.min(output.anchors.size()[0] as usize)
}

/// What the program does not know of proposals.
#[derive(Debug)]
pub struct Unread {
    /// Which rows are proposals, the first ones; the others mean nothing: `[R]` bool.
    pub real: Tensor,
    /// Whether they are the right ones: a bool, without dimensions.
    pub settled: Tensor,
}

/// Boxes of one image among which NMS chooses.
#[derive(Debug)]
pub(super) struct Candidates {
    /// `[M, 4]`.
    pub(super) boxes: Tensor,
    /// `[M]`.
    pub(super) scores: Tensor,
}

/// [`Candidates`] as numbers.
pub(super) struct Read {
    pub(super) boxes: Vec<Box2>,
    pub(super) scores: Vec<f32>,
}

impl Candidates {
    /// Those of all images. Waits for the device, once.
    pub(super) fn read(all: &[Self]) -> Vec<Read> {
        let rows = |of: &Self| {
            let column = |xs: &Tensor| xs.to_kind(Kind::Float).unsqueeze(1);
            let boxes = of.boxes.to_kind(Kind::Float);
            Tensor::cat(&[boxes, column(&of.scores)], 1) // [M, 5]
        };
        let flat = boxes::to_vec(&Tensor::cat(&all.iter().map(rows).collect::<Vec<_>>(), 0));
        let mut rows = flat.chunks_exact(5);
        let one = |of: &Self| {
            let count = of.boxes.size()[0] as usize;
            let rows: Vec<&[f32]> = rows.by_ref().take(count).collect();
            Read {
                boxes: rows.iter().map(|b| Box2::new(b[0], b[1], b[2], b[3])).collect(),
                scores: rows.iter().map(|row| row[4]).collect(),
            }
        };
        all.iter().map(one).collect()
    }

    /// Those of the given numbers, in their order.
    pub(super) fn pick(&self, kept: &[usize]) -> Proposals {
        self.picked(&boxes::indices(kept, self.boxes.device()), None)
    }

    /// The first `most` of those that are `kept` `[M]`, `M > 0`, without waiting.
    pub(super) fn pick_ahead(&self, kept: &Tensor, settled: Tensor, most: usize) -> Proposals {
        let most = most as i64;
        let places = Tensor::arange(most, (Kind::Int64, kept.device()));
        let real = places.lt_tensor(&kept.sum(Kind::Int64));
        self.picked(&ahead::first(kept, most), Some(Unread { real, settled }))
    }

    fn picked(&self, indices: &Tensor, unread: Option<Unread>) -> Proposals {
        let [boxes, scores] = [&self.boxes, &self.scores].map(|all| all.index_select(0, indices));
        Proposals { boxes, scores, unread }
    }
}

impl Rpn {
    /// Makes `path.head.*` for `anchors` a cell on a map as `spec` says.
    pub fn new(
        path: &Path,
        settings: &config::Rpn,
        anchors: usize,
        spec: CutSpec,
        layers: Layers,
    ) -> Self {
        let (inputs, anchors) = (spec.channels, anchors as i64);
        let channels = if settings.channels > 0 { settings.channels as i64 } else { inputs };
        let init = Init::Normal { std: 0.01 };
        let head = path / "head";
        let predictor = |name: &str, outputs: i64| {
            Linear::new(&(&head / name), &[outputs, channels, 1, 1], init)
        };
        Self {
            conv: Linear::new(&at(&head, "conv.0.0"), &[channels, inputs, 3, 3], init),
            cls_logits: predictor("cls_logits", layers.objectness * anchors),
            bbox_pred: predictor("bbox_pred", 4 * anchors),
            layers,
        }
    }

    /// What both predictors read: `[N, C, H, W]` to `[N, channels, H, W]`.
    pub fn hidden(&self, map: &Tensor) -> Tensor {
        (self.layers.activation)(&self.conv.convolve(map))
    }

    /// The raw maps of [`Self::hidden`]: objectness and deltas `[N, 4 A, H, W]`, both anchor-major.
    pub fn predictors(&self, hidden: &Tensor) -> (Tensor, Tensor) {
        (self.cls_logits.convolve(hidden), self.bbox_pred.convolve(hidden))
    }

    /// Objectness and deltas of every anchor of `map`, in the order of `anchors` `[H * W * A, 4]`, which are on
    /// the CPU.
    pub fn predict(&self, map: &Tensor, anchors: Tensor) -> RpnOutput {
        let (objectness, deltas) = self.predictors(&self.hidden(map));
        let n = nchw(map)[0];
        // [N, A * L, H, W] -> [N, H, W, A * L] -> [N, H W A, L]
        let by_anchor = |map: Tensor, each: i64| map.permute([0, 2, 3, 1]).reshape([n, -1, each]);
        RpnOutput {
            objectness: by_anchor(widened(&objectness), self.layers.objectness),
            deltas: by_anchor(widened(&deltas), 4),
            anchors,
        }
    }
}
