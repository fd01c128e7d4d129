//! NASNet as tensors: walks a [`Plan`] and makes each cell from its genotype.

use std::ops::Range;

use detect::config::{self, Cut, Pooling};
use detect::geometry::Size;
use detect::nasnet::genotype::{Combine, Op, OpKind, State};
use detect::nasnet::layers::{Leaf, Place};
use detect::nasnet::names;
use detect::nasnet::plan::{Map, Plan, Site};
use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::nn::{
    ChannelNorm, Init, Linear, Mode, NormSettings, Over, Unit, channels_last, nchw, same,
};

/// What the heads of a detector need to know of a featurizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutSpec {
    /// Channels of the trunk's map.
    pub channels: i64,
    /// Input pixels for each of its cells.
    pub stride: i64,
    /// Length of the vector that the tail gives for a region.
    pub tail_channels: i64,
}

/// A featurizer in two parts: the trunk sees the image once, the tail sees each region.
pub trait Backbone: std::fmt::Debug + Send {
    /// Sizes of what it gives.
    fn spec(&self) -> CutSpec;
    /// `[N, 3, H, W]` to `[N, C, H / stride, W / stride]`.
    fn trunk(&self, images: &Tensor, mode: Mode) -> Tensor;
    /// `[R, C, k, k]` to `[R, D]`.
    fn tail(&self, crops: &Tensor, mode: Mode) -> Tensor;
}

/// A map and its ReLU: every reader but the taps and the first stem cell wants the latter, which is
/// computed once.
#[derive(Debug)]
struct Feature {
    raw: Tensor,
    relu: Tensor,
}

impl Feature {
    fn new(raw: Tensor) -> Self {
        let relu = raw.relu();
        Self { raw, relu }
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
struct Cell {
    site: Site,
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
    fn new(
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
    fn forward(&self, current: &Feature, previous: &Feature, mode: Mode) -> Tensor {
        let mut h = Live::new(self.current.forward(&current.relu, mode));
        let mut p = Live::new(match &self.previous {
            Some(fit) => fit.forward(&previous.relu, mode),
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

    /// Scheduled drop path (Zoph et al. 2018, section 4, and slim's `nasnet_utils`): each image loses an
    /// operation's output with a probability that grows with depth and time. Identities are exempt.
    fn drop_path(&self, xs: &Tensor, op: Op, mode: Mode) -> Tensor {
        let Mode::Train { progress } = mode else { return xs.shallow_clone() };
        let keep = 1. - progress.min(1.) * (1. - self.keep);
        if keep >= 1. || op.kind == OpKind::Identity {
            return xs.shallow_clone();
        }
        let mask = Tensor::rand([xs.size()[0], 1, 1, 1], (xs.kind(), xs.device()));
        let mask: Tensor = (mask + keep).floor() / keep; // [N, 1, 1, 1]
        xs * mask
    }
}

/// A NASNet, whole or up to where a detector needs it.
#[derive(Debug)]
pub struct NasNet {
    plan: Plan,
    cut: Cut,
    conv0: Unit,
    cells: Vec<Cell>,
}

impl NasNet {
    /// Makes the featurizer's tensors under `path`: all cells, or those up to the cut.
    pub fn new(path: &Path, section: &config::Backbone, cut: Cut, with_tail: bool) -> Self {
        let plan = section.plan();
        let (norm, tail_norm) = (NormSettings::trunk(section), NormSettings::tail(section));
        let trunk = plan.stride_16().map_or(plan.cells.len(), |cut| cut[1].0);
        let made = if with_tail { plan.cells.len() } else { trunk };
        let cell = |(i, site)| {
            let norm = if i < trunk { norm } else { tail_norm };
            Cell::new(path, site, section, norm, plan.cells.len())
        };
        Self {
            conv0: Unit::new(path, None, &plan.stem(), norm),
            cells: plan.cells[..made].iter().enumerate().map(cell).collect(),
            plan,
            cut,
        }
    }

    /// The stack of cells.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Every map by its published name, raw (before ReLU), in the order of computation.
    ///
    /// # Shapes
    /// `[N, 3, H, W]`, normalised, at least 3 pixels a side.
    pub fn features(&self, images: &Tensor, mode: Mode) -> Vec<(String, Tensor)> {
        let mut maps = self.stem(images, mode);
        let all: Vec<Map> = (0..=self.cells.len()).map(Map).collect();
        self.run(&mut maps, 0..self.cells.len(), &all, mode);
        let name = |i| self.plan.map_name(Map(i)).to_owned();
        let raw = |map: Option<Feature>| map.expect("every map is kept").raw;
        maps.into_iter().enumerate().map(|(i, map)| (name(i), raw(map))).collect()
    }

    /// The stem convolution in a list with a place for every map.
    fn stem(&self, images: &Tensor, mode: Mode) -> Vec<Option<Feature>> {
        let mut maps: Vec<Option<Feature>> = (0..=self.cells.len()).map(|_| None).collect();
        let stem = self.conv0.forward_stem(&channels_last(images), mode);
        maps[Map::STEM.0] = Some(Feature::new(stem));
        maps
    }

    /// Runs `cells`, reading and filling `maps`, and drops each map after its last reader unless it
    /// stands in `keep`.
    fn run(&self, maps: &mut [Option<Feature>], cells: Range<usize>, keep: &[Map], mode: Mode) {
        for i in cells.clone() {
            let site = &self.cells[i].site;
            let of = |map: Map| maps[map.0].as_ref().expect("cells run in order");
            let made = self.cells[i].forward(of(site.current), of(site.previous), mode);
            maps[i + 1] = Some(Feature::new(made));
            let read_later = |map: Map| {
                self.cells[i + 1..cells.end]
                    .iter()
                    .any(|cell| cell.site.current == map || cell.site.previous == map)
            };
            for (j, map) in maps[..=i].iter_mut().enumerate() {
                if !keep.contains(&Map(j)) && !read_later(Map(j)) {
                    *map = None;
                }
            }
        }
    }
}

/// Where a detector cuts the network.
fn cut_of(plan: &Plan) -> [Map; 2] {
    plan.stride_16().expect("configurations of detectors are checked for it")
}

impl Backbone for NasNet {
    fn spec(&self) -> CutSpec {
        let [first, last] = cut_of(&self.plan).map(|map| self.plan.channels(map) as i64);
        let channels = match self.cut {
            Cut::Pair => first + last,
            Cut::Last => last,
        };
        CutSpec { channels, stride: 16, tail_channels: self.plan.name.channels as i64 }
    }

    fn trunk(&self, images: &Tensor, mode: Mode) -> Tensor {
        let [first, last] = cut_of(&self.plan);
        let mut maps = self.stem(images, mode);
        self.run(&mut maps, 0..last.0, &[first, last], mode);
        let mut take = |map: Map| maps[map.0].take().expect("it was kept");
        match self.cut {
            Cut::Pair => Tensor::cat(&[take(first).raw, take(last).raw], 1),
            Cut::Last => take(last).relu,
        }
    }

    fn tail(&self, crops: &Tensor, mode: Mode) -> Tensor {
        let [first, last] = cut_of(&self.plan);
        let widths = [first, last].map(|map| self.plan.channels(map) as i64);
        let halves = crops.split_with_sizes(widths, 1);
        let mut maps: Vec<Option<Feature>> = (0..=self.cells.len()).map(|_| None).collect();
        for (map, half) in [first, last].into_iter().zip(halves) {
            maps[map.0] = Some(Feature::new(half));
        }
        let end = Map(self.cells.len());
        self.run(&mut maps, last.0..end.0, &[end], mode);
        let features = maps[end.0].take().expect("it was kept").relu;
        features.mean_dim([2, 3].as_slice(), false, None::<Kind>) // [R, D]
    }
}

/// The auxiliary classifier on the last map before the second reduction, for training (slim's
/// `_build_aux_head`).
#[derive(Debug)]
pub struct Auxiliary {
    convolutions: [Unit; 2],
    linear: Linear,
    map: Map,
}

impl Auxiliary {
    /// Makes the tensors under `path` for images of `size`, whose map must be a square of at least 5
    /// pixels: `None` where it is not.
    pub fn new(
        path: &Path,
        section: &config::Backbone,
        classes: usize,
        size: Size,
    ) -> Option<Self> {
        let plan = section.plan();
        let map = plan.auxiliary_map();
        let [project, cover, linear] = plan.auxiliary(plan.sizes(size)?[map.0], classes)?;
        let norm = NormSettings::trunk(section);
        let shape = [linear.outputs as i64, linear.inputs as i64];
        let place = path / names::AUXILIARY / "linear";
        Some(Self {
            convolutions: [&project, &cover].map(|layer| Unit::new(path, None, layer, norm)),
            linear: Linear::new(&place, &shape, Init::PytorchDefault),
            map,
        })
    }

    /// `maps` are a [`Classifier`]'s, `[N, classes]` comes back.
    ///
    /// # Panics
    /// If the map has another size than in [`Self::new`].
    pub fn forward(&self, maps: &[(String, Tensor)], mode: Mode) -> Tensor {
        let read = maps[self.map.0].1.relu();
        let pooled = read.avg_pool2d([5, 5], [3, 3], [0, 0], false, true, None::<i64>);
        let [project, cover] = &self.convolutions;
        let covered = cover.forward_valid(&project.forward(&pooled, mode).relu(), mode).relu();
        let [_, _, height, width] = nchw(&covered);
        assert_eq!([height, width], [1, 1], "the second convolution covers its whole map");
        self.linear.forward(&covered.flatten(1, 3))
    }
}

/// The whole network with its classifier.
#[derive(Debug)]
pub struct Classifier {
    /// All cells.
    pub features: NasNet,
    last_linear: Linear,
}

impl Classifier {
    /// Makes the tensors under `path`.
    pub fn new(path: &Path, section: &config::Backbone, classes: usize) -> Self {
        let shape = [classes as i64, section.name.channels as i64];
        Self {
            features: NasNet::new(path, section, Cut::Last, true),
            last_linear: Linear::new(&(path / names::CLASSIFIER), &shape, Init::PytorchDefault),
        }
    }

    /// Every map by its published name and then `logits`: the classifier on the mean of the last
    /// map's ReLU.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Vec<(String, Tensor)> {
        let mut maps = self.features.features(images, mode);
        let last = &maps.last().expect("there is a stem").1;
        let pooled = last.relu().mean_dim([2, 3].as_slice(), false, None::<Kind>); // [N, F]
        maps.push(("logits".into(), self.last_linear.forward(&pooled)));
        maps
    }
}
