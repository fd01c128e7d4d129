//! One cell as tensors, made from its genotype.

use std::cell::OnceCell;

use detect::config::{self, Pooling};
use detect::nasnet::genotype::{Combine, Op, OpKind, State};
use detect::nasnet::layers::{Leaf, Place};
use detect::nasnet::names;
use detect::nasnet::plan::Site;
use tch::Tensor;
use tch::nn::Path;

use crate::nn::{ChannelNorm, Mode, NormSettings, Over, Unit, same};
use crate::precision::wide;

/// A map and its ReLU: every reader but the taps and the first stem cell wants the latter, which is
/// computed once.
#[derive(Debug)]
pub(super) struct Feature {
    pub(super) raw: Tensor,
    relu: OnceCell<Tensor>,
}

impl Feature {
    pub(super) fn new(raw: Tensor) -> Self {
        Self { raw, relu: OnceCell::new() }
    }

    pub(super) fn relu(&self) -> &Tensor {
        self.relu.get_or_init(|| self.raw.relu())
    }
}

/// A state of a cell, and its ReLU once somebody asks for it.
struct Live {
    raw: Tensor,
    relu: Option<Tensor>,
}

impl Live {
    fn new(raw: Tensor) -> Self {
        Self { raw, relu: None }
    }

    fn activated(&mut self) -> Tensor {
        self.relu.get_or_insert_with(|| self.raw.relu()).shallow_clone()
    }
}

/// One cell.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) site: Site,
    current: Unit,
    previous: Option<Unit>,
    /// The weighted layers of each operation by row and side: two of a separable one, else one or none.
    operations: Vec<[Vec<Unit>; 2]>,
    /// The norm after the sum of each row, where it has one.
    norms: Vec<Option<ChannelNorm>>,
    /// What brings each joined state to the output's width and size, where it does not fit.
    outputs: Vec<Option<Unit>>,
    pooling: Pooling,
    /// Drop path's keep probability at the end of training, of this cell.
    keep: f64,
}

impl Cell {
    pub(super) fn new(
        path: &Path,
        site: &Site,
        section: &config::Backbone,
        norm: NormSettings,
        cells: usize,
    ) -> Self {
        let layers = site.layers();
        let made = |wanted: &dyn Fn(Place) -> bool| -> Vec<Unit> {
            let found = layers.iter().filter(|layer| wanted(layer.place));
            found.map(|layer| Unit::new(path, Some(site), layer, norm)).collect()
        };
        let operation = |row: usize, side: usize| {
            made(
                &|place| matches!(place, Place::Operation { row: r, side: s, .. } if (r, s) == (row, side)),
            )
        };
        let norm_of_row = |row: usize| {
            let over = match site.genotype.rows[row].combine {
                Combine::AddLayerNorm => Over::Image,
                Combine::AddInstanceNorm => Over::Channel,
                Combine::Add | Combine::Concat => return None,
            };
            let layer = layers.iter().find(|layer| layer.place == Place::Combine { row })?;
            let names = [Leaf::Gamma, Leaf::Beta].map(|l| names::tensor(Some(site), layer, l));
            Some(ChannelNorm::new(path, &names, site.width, over))
        };
        // Deeper cells lose more paths (slim's version 3 of drop path).
        let depth = (site.number + 1) as f64 / cells as f64;
        Self {
            current: made(&|place| place == Place::Current).remove(0),
            previous: made(&|place| place == Place::Previous).pop(),
            operations: (0..site.genotype.rows.len())
                .map(|row| [operation(row, 0), operation(row, 1)])
                .collect(),
            norms: (0..site.genotype.rows.len()).map(norm_of_row).collect(),
            outputs: (site.genotype.concat.iter())
                .map(|&state| made(&|place| place == Place::Output(state)).pop())
                .collect(),
            site: site.clone(),
            pooling: section.pooling,
            keep: 1. - depth * (1. - section.drop_path_keep),
        }
    }

    /// `current` and `previous` are the maps `H` and `P` before fitting.
    pub(super) fn forward(&self, current: &Feature, previous: &Feature, mode: Mode) -> Tensor {
        let mut h = Live::new(self.current.forward(current.relu(), mode));
        let mut p = Live::new(match &self.previous {
            Some(fit) => fit.forward(previous.relu(), mode),
            None => previous.raw.shallow_clone(),
        });
        let mut rows: Vec<Live> = Vec::new();
        let parts = self.site.genotype.rows.iter().zip(&self.operations).zip(&self.norms);
        for ((row, units), norm) in parts {
            let mut sides: Vec<Tensor> = Vec::with_capacity(2);
            for (op, units) in row.ops.iter().zip(units) {
                // The normal cell pools `P` twice in one row: the pool is computed once.
                let made = match sides.first() {
                    Some(first) if row.ops[0] == row.ops[1] && units.is_empty() => {
                        first.shallow_clone()
                    }
                    _ => {
                        let state = match op.input {
                            State::H => &mut h,
                            State::P => &mut p,
                            State::S(n) => &mut rows[n],
                        };
                        self.operate(*op, units, state, mode)
                    }
                };
                sides.push(made);
            }
            let [left, right] =
                [0, 1].map(|side| self.drop_path(&sides[side], row.ops[side], mode));
            let combined = match row.combine {
                Combine::Concat => Tensor::cat(&[left, right], 1),
                Combine::Add | Combine::AddLayerNorm | Combine::AddInstanceNorm => left + right,
            };
            rows.push(Live::new(match norm {
                Some(norm) => norm.forward(&combined),
                None => combined,
            }));
        }
        let parts: Vec<Tensor> = (self.site.genotype.concat.iter().zip(&self.outputs))
            .map(|(state, fit)| {
                let raw = match state {
                    State::H => &h.raw,
                    State::P => &p.raw,
                    State::S(n) => &rows[*n].raw,
                };
                // No ReLU here: slim's `_cell_profile` end.
                fit.as_ref().map_or_else(|| raw.shallow_clone(), |fit| fit.forward(raw, mode))
            })
            .collect();
        Tensor::cat(&parts, 1)
    }

    /// `units` are the operation's weighted layers.
    fn operate(&self, op: Op, units: &[Unit], state: &mut Live, mode: Mode) -> Tensor {
        let stride = self.site.stride_of(op.input) as i64;
        let pooled = match op.kind {
            OpKind::Average => same::average_pool(&state.raw, stride, self.pooling),
            OpKind::Max { kernel } => same::max_pool(&state.raw, kernel as i64, stride),
            OpKind::Identity if units.is_empty() => return state.raw.shallow_clone(),
            OpKind::Identity
            | OpKind::Separable { .. }
            | OpKind::Convolution { .. }
            | OpKind::Split { .. } => {
                let first = units[0].forward(&state.activated(), mode);
                return units[1..].iter().fold(first, |xs, unit| unit.forward(&xs.relu(), mode));
            }
        };
        // A pool that changes the width is projected without a ReLU.
        units.iter().fold(pooled, |xs, unit| unit.forward(&xs, mode))
    }

    /// Drop path's keep probability: 1 outside training.
    pub(super) fn keep_at(&self, mode: Mode) -> f64 {
        mode.progress().map_or(1., |progress| 1. - progress.min(1.) * (1. - self.keep))
    }

    /// Scheduled drop path (Zoph et al. 2018, section 4, and slim's `nasnet_utils`): each image loses an
    /// operation's output with a probability that grows with depth and time. Identities are exempt.
    fn drop_path(&self, xs: &Tensor, op: Op, mode: Mode) -> Tensor {
        let keep = self.keep_at(mode);
        if keep >= 1. || op.kind == OpKind::Identity {
            return xs.shallow_clone();
        }
        // Half of float32's bits would round a probability up to 1.
        let kind = wide(xs.kind());
        let mask = Tensor::rand([xs.size()[0], 1, 1, 1], (kind, xs.device()));
        let mask: Tensor = (mask + keep).floor() / keep; // [N, 1, 1, 1]
        xs * mask.to_kind(xs.kind())
    }
}
