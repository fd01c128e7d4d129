//! The network's layers ready for the kernels: batch norm folded into the weights, weights in the order of reading.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::nasnet::layers::{Layer, LayerKind, Leaf, Place};
use crate::nasnet::names;
use crate::nasnet::plan::{Plan, Site};
use detect_kernel::{Aligned, Instructions, Packed, Segment};

/// Gives a tensor by name: all its floats, row-major.
pub(super) type Tensors<'a> = dyn Fn(&str) -> Vec<f32> + Sync + 'a;

/// A layer's weights.
#[derive(Debug)]
pub(super) enum Weights {
    /// Inputs tap by tap, in each channel by channel; a factorized reduction has two taps of one pixel each.
    Dense(Arc<Packed>),
    /// Depthwise, then pointwise.
    Separable(Depthwise, Arc<Packed>),
    /// Across, then down.
    Split([Arc<Packed>; 2]),
    /// Scale and offset of a norm.
    Norm([Vec<f32>; 2]),
}

/// Where the channels of a map lie within its pixels, and floats of a pixel.
type Layout = (Vec<Segment>, usize);

/// A depthwise kernel, laid out for the maps that it reads.
#[derive(Debug)]
pub(super) struct Depthwise {
    /// `[C, k, k]`.
    weights: Vec<f32>,
    kernel: usize,
    /// Floats of a vector.
    lanes: usize,
    laid_out: Mutex<HashMap<Layout, Arc<Aligned>>>,
}

impl Depthwise {
    /// `[padded / lanes, k, k, lanes]`, with channels where `segments` say and zeros between them.
    pub(super) fn laid_out(&self, segments: &[Segment], padded: usize) -> Arc<Aligned> {
        let mut known = self.laid_out.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let taps = self.kernel * self.kernel;
            let mut out = vec![0.; taps * padded];
            let places = segments.iter().flat_map(|s| s.offset..s.offset + s.length);
            for (channel, place) in places.enumerate() {
                let (vector, lane) = (place / self.lanes, place % self.lanes);
                for tap in 0..taps {
                    out[(vector * taps + tap) * self.lanes + lane] =
                        self.weights[channel * taps + tap];
                }
            }
            Arc::new(out.into_iter().collect())
        };
        known.entry((segments.to_vec(), padded)).or_insert_with(make).clone()
    }
}

/// All layers of a network by cell.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) stem: Weights,
    /// Of each cell, in the plan's order of its layers.
    pub(super) cells: Vec<Vec<(Layer, Weights)>>,
}

impl Layers {
    /// The stem's and the first `cells` cells', with batch norm's `epsilon`.
    pub(super) fn new(
        plan: &Plan,
        cells: usize,
        epsilon: f64,
        tensors: &Tensors<'_>,
        instructions: Instructions,
    ) -> Self {
        let load = |site: Option<&Site>, layer: &Layer| {
            Loading { site, layer, epsilon, tensors, instructions }.weights()
        };
        let listed: Vec<(usize, Layer)> = (plan.cells[..cells].iter().enumerate())
            .flat_map(|(i, site)| site.layers().into_iter().map(move |layer| (i, layer)))
            .collect();
        let loaded: Vec<(usize, Layer, Weights)> = listed
            .into_par_iter()
            .map(|(i, layer)| (i, layer, load(Some(&plan.cells[i]), &layer)))
            .collect();
        let mut of_cells: Vec<Vec<(Layer, Weights)>> = (0..cells).map(|_| Vec::new()).collect();
        for (i, layer, weights) in loaded {
            of_cells[i].push((layer, weights));
        }
        Self { stem: load(None, &plan.stem()), cells: of_cells }
    }

    /// The layer at `place` of cell `cell`.
    pub(super) fn at(&self, cell: usize, place: Place) -> Option<&(Layer, Weights)> {
        self.cells[cell].iter().find(|(layer, _)| layer.place == place)
    }
}

/// A layer while it is loaded.
struct Loading<'a> {
    site: Option<&'a Site>,
    layer: &'a Layer,
    epsilon: f64,
    tensors: &'a Tensors<'a>,
    instructions: Instructions,
}

impl Loading<'_> {
    fn tensor(&self, leaf: Leaf) -> Vec<f32> {
        (self.tensors)(&names::tensor(self.site, self.layer, leaf))
    }

    fn weights(&self) -> Weights {
        let Layer { inputs, outputs, kind, .. } = *self.layer;
        let pack = |inputs: usize, weight: &dyn Fn(usize, usize) -> f32, fold: &Fold| {
            let weight = |o: usize, i: usize| weight(o, i) * fold.scale[o];
            let packing = self.instructions.packing();
            Arc::new(Packed::new([outputs, inputs], packing, weight, |o| fold.offset[o]))
        };
        match kind {
            LayerKind::Convolution { kernel, .. } => {
                let (weights, taps) = (self.tensor(Leaf::Weight), kernel * kernel);
                let weight =
                    |o: usize, i: usize| weights[(o * inputs + i % inputs) * taps + i / inputs];
                Weights::Dense(pack(taps * inputs, &weight, &self.fold()))
            }
            LayerKind::Factorized => {
                let (paths, fold) = ([0, 1].map(|n| self.tensor(Leaf::Path(n))), self.fold());
                let half = outputs / 2;
                // Each half of the outputs reads its own pixel, and nothing of the other: products leave the zeros out.
                let weight = |o: usize, i: usize| {
                    let (path, row) = if o < half { (0, o) } else { (1, o - half) };
                    let own = i / inputs == path;
                    if own { paths[path][row * inputs + i % inputs] } else { 0. }
                };
                Weights::Dense(pack(2 * inputs, &weight, &fold))
            }
            LayerKind::Separable { kernel } => {
                let pointwise = self.tensor(Leaf::Pointwise);
                let weight = |o: usize, i: usize| pointwise[o * inputs + i];
                let weights = self.tensor(Leaf::Depthwise);
                let lanes = self.instructions.lanes();
                let depthwise = Depthwise { weights, kernel, lanes, laid_out: Mutex::default() };
                Weights::Separable(depthwise, pack(inputs, &weight, &self.fold()))
            }
            LayerKind::Split { kernel } => {
                let of = |leaf: Leaf, inputs: usize, fold: &Fold| {
                    let weights = self.tensor(leaf);
                    let weight = |o: usize, i: usize| {
                        weights[(o * inputs + i % inputs) * kernel + i / inputs]
                    };
                    pack(kernel * inputs, &weight, fold)
                };
                let across = of(Leaf::Across, inputs, &Fold::none(outputs));
                Weights::Split([across, of(Leaf::Down, outputs, &self.fold())])
            }
            LayerKind::Norm => Weights::Norm([Leaf::Gamma, Leaf::Beta].map(|l| self.tensor(l))),
            LayerKind::Linear => unreachable!("the classifier is no layer of a cell"),
        }
    }

    /// The batch norm.
    fn fold(&self) -> Fold {
        let [gamma, beta, mean, variance] =
            [Leaf::Gamma, Leaf::Beta, Leaf::Mean, Leaf::Variance].map(|leaf| self.tensor(leaf));
        let scale: Vec<f64> = (gamma.iter().zip(&variance))
            .map(|(&g, &v)| f64::from(g) / (f64::from(v) + self.epsilon).sqrt())
            .collect();
        let offset = (beta.iter().zip(&mean).zip(&scale))
            .map(|((&b, &m), s)| (f64::from(b) - f64::from(m) * s) as f32)
            .collect();
        Fold { scale: scale.iter().map(|&s| s as f32).collect(), offset }
    }
}

/// What a batch norm does to each output.
struct Fold {
    scale: Vec<f32>,
    offset: Vec<f32>,
}

impl Fold {
    fn none(outputs: usize) -> Self {
        Self { scale: vec![1.; outputs], offset: vec![0.; outputs] }
    }
}
