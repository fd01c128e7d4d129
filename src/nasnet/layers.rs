//! The network's weighted layers as one flat list: what is counted, imported and made.

use super::genotype::{Combine, OpKind, State};
use super::plan::{Fit, Map, Plan, Site};
use crate::geometry::Size;

/// Where in the network a layer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The convolution on the image.
    Stem,
    /// What fits `H`.
    Current,
    /// What fits `P`.
    Previous,
    /// An operation, or half of a separable one.
    Operation {
        /// Row of the genotype.
        row: usize,
        /// 0 left, 1 right.
        side: usize,
        /// 0 or 1 in a separable operation, else 0.
        half: usize,
    },
    /// The norm after the sum of a row.
    Combine {
        /// Row of the genotype.
        row: usize,
    },
    /// What brings a state to the output's width and size.
    Output(State),
    /// The auxiliary head's layers, in order: 0 and 1 convolutions, 2 its classifier.
    Auxiliary(usize),
    /// The classifier.
    Classifier,
}

/// What a layer computes. All but the last two end with a batch norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A `kernel` x `kernel` convolution.
    Convolution {
        /// Side of the kernel.
        kernel: usize,
        /// Distance of its taps.
        dilation: usize,
    },
    /// Two 1x1 convolutions on the even and on the odd pixels, joined.
    Factorized,
    /// A depthwise `kernel` x `kernel` and a pointwise convolution.
    Separable {
        /// Side of the depthwise kernel.
        kernel: usize,
    },
    /// A 1 x `kernel` and a `kernel` x 1 convolution.
    Split {
        /// Length of both kernels.
        kernel: usize,
    },
    /// Layer norm or instance norm with a scale and an offset for each channel, without statistics that
    /// stay.
    Norm,
    /// Fully connected, with a bias and no batch norm.
    Linear,
}

/// One tensor of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// The only weight: `[outputs, inputs, k, k]`, or `[outputs, inputs]`.
    Weight,
    /// `[inputs, 1, k, k]`.
    Depthwise,
    /// `[outputs, inputs, 1, 1]`.
    Pointwise,
    /// Path 0 or 1 of a factorized reduction: `[outputs / 2, inputs, 1, 1]`.
    Path(usize),
    /// `[outputs, inputs, 1, k]`.
    Across,
    /// `[outputs, outputs, k, 1]`.
    Down,
    /// Batch norm's scale, `[outputs]`.
    Gamma,
    /// Batch norm's offset, `[outputs]`.
    Beta,
    /// Batch norm's running mean, `[outputs]`.
    Mean,
    /// Batch norm's running variance, `[outputs]`.
    Variance,
    /// `[outputs]`.
    Bias,
}

impl Leaf {
    /// Whether it is learned, rather than a running statistic.
    pub fn is_trainable(self) -> bool {
        !matches!(self, Self::Mean | Self::Variance)
    }

    /// Whether it belongs to the batch norm.
    pub fn is_norm(self) -> bool {
        matches!(self, Self::Gamma | Self::Beta | Self::Mean | Self::Variance)
    }
}

/// A layer with weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Where it stands.
    pub place: Place,
    /// What it computes.
    pub kind: LayerKind,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// 1 or 2.
    pub stride: usize,
}

impl Layer {
    /// Its tensors and their shapes.
    pub fn tensors(&self) -> Vec<(Leaf, Vec<usize>)> {
        let Self { inputs, outputs, .. } = *self;
        let mut tensors = match self.kind {
            LayerKind::Convolution { kernel, .. } => {
                vec![(Leaf::Weight, vec![outputs, inputs, kernel, kernel])]
            }
            LayerKind::Factorized => {
                let half = outputs / 2;
                let path = |n, outputs| (Leaf::Path(n), vec![outputs, inputs, 1, 1]);
                vec![path(0, half), path(1, outputs - half)]
            }
            LayerKind::Separable { kernel } => vec![
                (Leaf::Depthwise, vec![inputs, 1, kernel, kernel]),
                (Leaf::Pointwise, vec![outputs, inputs, 1, 1]),
            ],
            LayerKind::Split { kernel } => vec![
                (Leaf::Across, vec![outputs, inputs, 1, kernel]),
                (Leaf::Down, vec![outputs, outputs, kernel, 1]),
            ],
            LayerKind::Norm => {
                return [Leaf::Gamma, Leaf::Beta].map(|leaf| (leaf, vec![outputs])).into();
            }
            LayerKind::Linear => {
                vec![(Leaf::Weight, vec![outputs, inputs]), (Leaf::Bias, vec![outputs])]
            }
        };
        if self.kind != LayerKind::Linear {
            let norm = [Leaf::Gamma, Leaf::Beta, Leaf::Mean, Leaf::Variance];
            tensors.extend(norm.map(|leaf| (leaf, vec![outputs])));
        }
        tensors
    }

    /// Multiplications for each output pixel: those of its weights, batch norm apart.
    pub fn multiply_adds(&self) -> usize {
        let weights = self.tensors().into_iter();
        let products = |shape: &[usize]| shape.iter().product::<usize>();
        weights
            .filter(|(leaf, _)| !leaf.is_norm() && *leaf != Leaf::Bias)
            .map(|(_, shape)| products(&shape))
            .sum()
    }
}

impl Site {
    /// The cell's layers.
    pub fn layers(&self) -> Vec<Layer> {
        let projection = |place, inputs, stride| {
            let kind = LayerKind::Convolution { kernel: 1, dilation: 1 };
            Layer { place, kind, inputs, outputs: self.width, stride }
        };
        let halving = |place, inputs| Layer {
            place,
            kind: LayerKind::Factorized,
            inputs,
            outputs: self.width,
            stride: 2,
        };
        let mut layers = vec![projection(Place::Current, self.current_channels, 1)];
        match self.fit {
            Fit::Raw => {}
            Fit::Project => layers.push(projection(Place::Previous, self.previous_channels, 1)),
            Fit::Factorized => layers.push(halving(Place::Previous, self.previous_channels)),
        }
        for (row, of_row) in self.genotype.rows.iter().enumerate() {
            for (side, op) in of_row.ops.into_iter().enumerate() {
                let place = |half| Place::Operation { row, side, half };
                let inputs = self.state_channels(op.input);
                let stride = self.stride_of(op.input);
                let layer = |half, kind, inputs, stride| Layer {
                    place: place(half),
                    kind,
                    inputs,
                    outputs: self.width,
                    stride,
                };
                match op.kind {
                    OpKind::Separable { kernel } => {
                        let kind = LayerKind::Separable { kernel };
                        layers.push(layer(0, kind, inputs, stride));
                        layers.push(layer(1, kind, self.width, 1));
                    }
                    OpKind::Convolution { kernel, dilation } => {
                        let kind = LayerKind::Convolution { kernel, dilation };
                        layers.push(layer(0, kind, inputs, stride));
                    }
                    OpKind::Split { kernel } => {
                        layers.push(layer(0, LayerKind::Split { kernel }, inputs, stride));
                    }
                    OpKind::Identity if self.projects(op) => {
                        layers.push(projection(place(0), inputs, stride));
                    }
                    // The pool itself has the stride.
                    OpKind::Average | OpKind::Max { .. } if self.projects(op) => {
                        layers.push(projection(place(0), inputs, 1));
                    }
                    OpKind::Average | OpKind::Max { .. } | OpKind::Identity => {}
                }
            }
            if matches!(of_row.combine, Combine::AddLayerNorm | Combine::AddInstanceNorm) {
                let (place, kind) = (Place::Combine { row }, LayerKind::Norm);
                let (inputs, outputs) = (self.width, self.width);
                layers.push(Layer { place, kind, inputs, outputs, stride: 1 });
            }
        }
        for &state in self.genotype.concat.iter() {
            let (place, inputs) = (Place::Output(state), self.state_channels(state));
            match self.output_stride(state) {
                None => {}
                Some(2) => layers.push(halving(place, inputs)),
                Some(_) => layers.push(projection(place, inputs, 1)),
            }
        }
        layers
    }
}

/// A tensor of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkTensor<'a> {
    /// Its cell; `None` for the stem convolution and the heads.
    pub site: Option<&'a Site>,
    /// Its layer.
    pub layer: Layer,
    /// Which of the layer's tensors.
    pub leaf: Leaf,
    /// Sides, outermost first.
    pub shape: Vec<usize>,
}

impl Plan {
    /// The convolution on the image.
    pub fn stem(&self) -> Layer {
        let kind = LayerKind::Convolution { kernel: 3, dilation: 1 };
        let (outputs, stride) = (self.stem_filters, self.stem_stride());
        Layer { place: Place::Stem, kind, inputs: 3, outputs, stride }
    }

    /// The classifier of `classes` outputs.
    pub fn classifier(&self, classes: usize) -> Layer {
        let inputs = self.cells.last().map_or(self.stem_filters, Site::out_channels);
        let (place, kind) = (Place::Classifier, LayerKind::Linear);
        Layer { place, kind, inputs, outputs: classes, stride: 1 }
    }

    /// The map that the auxiliary head reads: the last normal cell before the second reduction.
    pub fn auxiliary_map(&self) -> Map {
        self.normal_cell(2 * self.name.cells_per_stage - 1)
    }

    /// The auxiliary head on a map of `size`, which exists in training only: 1x1 and full-size
    /// convolution and a classifier, on the ReLU of the map after a 5x5 average pool of stride 3 (slim's
    /// `_build_aux_head`). `None` where the map is under 5 pixels or no square.
    pub fn auxiliary(&self, size: Size, classes: usize) -> Option<[Layer; 3]> {
        let side = size.height.checked_sub(5)? / 3 + 1;
        let convolution = |n, kernel, inputs, outputs| Layer {
            place: Place::Auxiliary(n),
            kind: LayerKind::Convolution { kernel, dilation: 1 },
            inputs,
            outputs,
            stride: 1,
        };
        (size.height == size.width).then(|| {
            [
                convolution(0, 1, self.channels(self.auxiliary_map()), 128),
                convolution(1, side, 128, 768),
                Layer {
                    place: Place::Auxiliary(2),
                    kind: LayerKind::Linear,
                    inputs: 768,
                    outputs: classes,
                    stride: 1,
                },
            ]
        })
    }

    /// Every tensor of the stem convolution and of the cells.
    pub fn tensors(&self) -> impl Iterator<Item = NetworkTensor<'_>> {
        let cells =
            self.cells.iter().flat_map(|s| s.layers().into_iter().map(move |l| (Some(s), l)));
        std::iter::once((None, self.stem())).chain(cells).flat_map(|(site, layer)| {
            layer.tensors().into_iter().map(move |(leaf, shape)| NetworkTensor {
                site,
                layer,
                leaf,
                shape,
            })
        })
    }
}
