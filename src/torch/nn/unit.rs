//! A weighted layer of the plan: its convolutions and the batch norm after them.

use detect::nasnet::layers::{Layer, LayerKind, Leaf};
use detect::nasnet::names;
use detect::nasnet::plan::Site;
use tch::Tensor;
use tch::nn::Path;

use super::{BatchNorm, Convolution, Mode, NormSettings, Walk, same};

/// One layer. The ReLU before it is the caller's, who shares it among all that read the same map.
#[derive(Debug)]
pub struct Unit {
    body: Body,
    norm: BatchNorm,
    stride: i64,
}

/// The convolutions, in the order of computation.
#[derive(Debug)]
enum Body {
    /// One, or two after one another: depthwise and pointwise, across and down.
    Chain(Vec<Convolution>),
    /// On the even and on the odd pixels, joined.
    Factorized([Convolution; 2]),
}

impl Unit {
    /// Makes the tensors of `layer` of the cell `site` under `path`, by their published names.
    ///
    /// # Panics
    /// If the layer is linear or a norm by itself, which have no batch norm.
    pub fn new(path: &Path, site: Option<&Site>, layer: &Layer, norm: NormSettings) -> Self {
        let stride = layer.stride as i64;
        let convolution = |wanted: Leaf, walk: Walk| {
            let found = layer.tensors().into_iter().find(|(leaf, _)| *leaf == wanted);
            let (leaf, shape) = found.expect("each kind of layer has its tensors");
            Convolution::new(path, &names::tensor(site, layer, leaf), &shape, walk)
        };
        let strided = Walk { stride: [stride, stride], ..Walk::DENSE };
        let body = match layer.kind {
            LayerKind::Convolution { dilation, .. } => Body::Chain(vec![convolution(
                Leaf::Weight,
                Walk { dilation: dilation as i64, ..strided },
            )]),
            LayerKind::Separable { .. } => Body::Chain(vec![
                convolution(Leaf::Depthwise, Walk { groups: layer.inputs as i64, ..strided }),
                convolution(Leaf::Pointwise, Walk::DENSE),
            ]),
            LayerKind::Split { .. } => Body::Chain(vec![
                convolution(Leaf::Across, Walk { stride: [1, stride], ..Walk::DENSE }),
                convolution(Leaf::Down, Walk { stride: [stride, 1], ..Walk::DENSE }),
            ]),
            LayerKind::Factorized => {
                Body::Factorized([0, 1].map(|n| convolution(Leaf::Path(n), Walk::DENSE)))
            }
            LayerKind::Linear | LayerKind::Norm => unreachable!("they have no batch norm"),
        };
        let norm_names = [Leaf::Gamma, Leaf::Beta, Leaf::Mean, Leaf::Variance]
            .map(|leaf| names::tensor(site, layer, leaf));
        Self { body, norm: BatchNorm::new(path, &norm_names, layer.outputs, norm), stride }
    }

    /// With TensorFlow's SAME padding.
    ///
    /// # Shapes
    /// `[N, C_in, H, W]` to `[N, C_out, ceil(H / stride), ceil(W / stride)]`.
    pub fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let made = match &self.body {
            Body::Chain(convolutions) => {
                convolutions.iter().fold(xs.shallow_clone(), |xs, c| c.same(&xs))
            }
            Body::Factorized([even, odd]) => {
                let halves = [(even, 0), (odd, 1)]
                    .map(|(conv, offset)| conv.same(&same::every_second_pixel(xs, offset)));
                Tensor::cat(&halves, 1)
            }
        };
        self.norm.forward(&made, mode)
    }

    /// Without padding where the layer has a stride: the stem convolution.
    pub fn forward_stem(&self, images: &Tensor, mode: Mode) -> Tensor {
        let Body::Chain(convolutions) = &self.body else {
            unreachable!("the stem is one convolution")
        };
        let stem = &convolutions[0];
        let made = if self.stride == 1 { stem.same(images) } else { stem.valid(images) };
        self.norm.forward(&made, mode)
    }

    /// Without padding at all: the convolution of the auxiliary head that covers its whole map.
    pub fn forward_valid(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let Body::Chain(convolutions) = &self.body else {
            unreachable!("the auxiliary head has plain convolutions")
        };
        self.norm.forward(&convolutions[0].valid(xs), mode)
    }
}
