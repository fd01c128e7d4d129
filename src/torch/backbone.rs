//! NASNet as tensors: walks a [`Plan`] and makes each cell from its genotype.

use std::ops::Range;

use detect::config::{self, Cut, Pooling};
use detect::nasnet::genotype::{Op, OpKind, State};
use detect::nasnet::names;
use detect::nasnet::plan::{Fit, Map, Plan, Site};
use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::nn::{
    BatchNorm, Convolution, Init, Linear, Mode, NormSettings, Separable, at, channels_last, same,
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

/// A 1x1 convolution and its batch norm.
#[derive(Debug)]
struct Projection {
    conv: Convolution,
    bn: BatchNorm,
}

impl Projection {
    fn new(path: &Path, inputs: usize, outputs: usize, norm: NormSettings) -> Self {
        Self {
            conv: Convolution::pointwise(&(path / "conv"), inputs, outputs),
            bn: BatchNorm::new(&(path / "bn"), outputs, norm),
        }
    }

    fn forward(&self, activated: &Tensor, mode: Mode) -> Tensor {
        self.bn.forward(&self.conv.same(activated), mode)
    }
}

/// How a cell fits `P` to its width and size.
#[derive(Debug)]
enum Previous {
    Raw,
    Project(Projection),
    Factorized { paths: [Convolution; 2], norm: BatchNorm },
}

impl Previous {
    fn new(path: &Path, site: &Site, norm: NormSettings) -> Self {
        match site.fit {
            Fit::Raw => Self::Raw,
            Fit::Project => {
                let path = at(path, &names::previous(site));
                Self::Project(Projection::new(&path, site.previous_channels, site.width, norm))
            }
            Fit::Factorized => {
                let (paths, norm_name) = names::factorized(site);
                let half = site.width / 2;
                let widths = [half, site.width - half];
                let [first, second] = paths;
                let conv = |name: String, outputs| {
                    Convolution::pointwise(&at(path, &name), site.previous_channels, outputs)
                };
                Self::Factorized {
                    paths: [conv(first, widths[0]), conv(second, widths[1])],
                    norm: BatchNorm::new(&at(path, &norm_name), site.width, norm),
                }
            }
        }
    }

    fn forward(&self, map: &Feature, mode: Mode) -> Tensor {
        match self {
            Self::Raw => map.raw.shallow_clone(),
            Self::Project(projection) => projection.forward(&map.relu, mode),
            Self::Factorized { paths: [even, odd], norm } => {
                let halves = [
                    even.same(&same::every_second_pixel(&map.relu, 0)),
                    odd.same(&same::every_second_pixel(&map.relu, 1)),
                ];
                norm.forward(&Tensor::cat(&halves, 1), mode)
            }
        }
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
    current: Projection,
    previous: Previous,
    /// The separable convolutions by row and side; `None` where the operation has no weights.
    separables: Vec<[Option<Separable>; 2]>,
    pooling: Pooling,
    /// Drop path's keep probability at the end of training, of this cell.
    keep: f64,
}

impl Cell {
    fn new(path: &Path, site: &Site, section: &config::Backbone, cells: usize) -> Self {
        let norm = NormSettings::from(section);
        let separable = |row: usize, side: usize, op: Op| match op.kind {
            OpKind::Separable { kernel } => {
                let name = names::operation(site, row, side);
                let channels = [site.state_channels(op.input), site.width];
                Some(Separable::new(path, &name, kernel, site.stride(op.input), channels, norm))
            }
            OpKind::Average | OpKind::Max | OpKind::Identity => None,
        };
        let sums = site.genotype().sums.iter().enumerate();
        let separables =
            sums.map(|(row, &[l, r])| [separable(row, 0, l), separable(row, 1, r)]).collect();
        // Deeper cells lose more paths (slim's version 3 of drop path).
        let depth = (site.number + 1) as f64 / cells as f64;
        Self {
            site: site.clone(),
            current: Projection::new(
                &at(path, &names::current(site)),
                site.current_channels,
                site.width,
                norm,
            ),
            previous: Previous::new(path, site, norm),
            separables,
            pooling: section.pooling,
            keep: 1. - depth * (1. - section.drop_path_keep),
        }
    }

    /// `current` and `previous` are the maps `H` and `P` before fitting.
    fn forward(&self, current: &Feature, previous: &Feature, mode: Mode) -> Tensor {
        let mut h = Live::new(self.current.forward(&current.relu, mode));
        let mut p = Live::new(self.previous.forward(previous, mode));
        let mut sums: Vec<Live> = Vec::new();
        for (row, pair) in self.site.genotype().sums.iter().enumerate() {
            let mut sides: Vec<Tensor> = Vec::with_capacity(2);
            for (side, op) in pair.iter().enumerate() {
                // The normal cell pools `P` twice in one row: the pool is computed once.
                let made = match sides.first() {
                    Some(first) if pair[0] == pair[1] && self.separables[row][side].is_none() => {
                        first.shallow_clone()
                    }
                    _ => {
                        let state = match op.input {
                            State::H => &mut h,
                            State::P => &mut p,
                            State::S(n) => &mut sums[n],
                        };
                        self.operate(*op, self.separables[row][side].as_ref(), state, mode)
                    }
                };
                sides.push(made);
            }
            let [left, right] = [0, 1].map(|side| self.drop_path(&sides[side], pair[side], mode));
            sums.push(Live::new(left + right));
        }
        let parts: Vec<&Tensor> = (self.site.genotype().concat.iter())
            .map(|state| match state {
                State::H => &h.raw,
                State::P => &p.raw,
                State::S(n) => &sums[*n].raw,
            })
            .collect();
        Tensor::cat(&parts, 1)
    }

    fn operate(
        &self,
        op: Op,
        separable: Option<&Separable>,
        state: &mut Live,
        mode: Mode,
    ) -> Tensor {
        let stride = self.site.stride(op.input) as i64;
        match (op.kind, separable) {
            (OpKind::Separable { .. }, Some(separable)) => {
                separable.forward(&state.activated(), mode)
            }
            (OpKind::Average, _) => same::average_pool(&state.raw, stride, self.pooling),
            (OpKind::Max, _) => same::max_pool(&state.raw, stride),
            (OpKind::Identity, _) => state.raw.shallow_clone(),
            (OpKind::Separable { .. }, None) => {
                unreachable!("made in `new` for each separable operation")
            }
        }
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
    conv0: Projection,
    cells: Vec<Cell>,
}

impl NasNet {
    /// Makes the featurizer's tensors under `path`: all cells, or those up to the cut.
    pub fn new(path: &Path, section: &config::Backbone, cut: Cut, with_tail: bool) -> Self {
        let plan = section.plan();
        let norm = NormSettings::from(section);
        let conv0 = path / names::CONV0;
        let made = if with_tail { plan.cells.len() } else { plan.stride_16()[1].0 };
        let cell = |site| Cell::new(path, site, section, plan.cells.len());
        Self {
            conv0: Projection {
                conv: Convolution::new(&(&conv0 / "conv"), 3, plan.stem_filters, 3, 2, 1),
                bn: BatchNorm::new(&(&conv0 / "bn"), plan.stem_filters, norm),
            },
            cells: plan.cells[..made].iter().map(cell).collect(),
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
        let stem = self.conv0.conv.valid(&channels_last(images));
        maps[Map::STEM.0] = Some(Feature::new(self.conv0.bn.forward(&stem, mode)));
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

impl Backbone for NasNet {
    fn spec(&self) -> CutSpec {
        let [first, last] = self.plan.stride_16().map(|map| self.plan.channels(map) as i64);
        let channels = match self.cut {
            Cut::Pair => first + last,
            Cut::Last => last,
        };
        CutSpec { channels, stride: 16, tail_channels: self.plan.name.channels as i64 }
    }

    fn trunk(&self, images: &Tensor, mode: Mode) -> Tensor {
        let [first, last] = self.plan.stride_16();
        let mut maps = self.stem(images, mode);
        self.run(&mut maps, 0..last.0, &[first, last], mode);
        let mut take = |map: Map| maps[map.0].take().expect("it was kept");
        match self.cut {
            Cut::Pair => Tensor::cat(&[take(first).raw, take(last).raw], 1),
            Cut::Last => take(last).relu,
        }
    }

    fn tail(&self, crops: &Tensor, mode: Mode) -> Tensor {
        let [first, last] = self.plan.stride_16();
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
