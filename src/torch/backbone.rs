//! NASNet as tensors: walks a [`Plan`] and makes each cell from its genotype.

mod cell;
mod classifier;
mod recompute;

use std::ops::Range;

use detect::config::{self, Cut};
use detect::nasnet::plan::{Map, Plan};
use detect::weights::import::heads;
use tch::nn::Path;
use tch::{Kind, Tensor};

use self::cell::{Cell, Feature};
pub use self::classifier::{Auxiliary, Classifier};
use self::recompute::{Record, Stretch};
use crate::nn::{Mode, NormSettings, Unit, channels_last};

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
    /// Goes on with a backward pass that has reached the ends of what was run in training; nothing
    /// where all of the graph was kept.
    fn backward(&self) {}
}

/// A NASNet, whole or up to where a detector needs it.
#[derive(Debug)]
pub struct NasNet {
    plan: Plan,
    cut: Cut,
    conv0: Unit,
    cells: Vec<Cell>,
    /// What is run again in the backward pass, if anything is.
    record: Option<Record>,
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
            record: None,
        }
    }

    /// The same network, which in training keeps the maps between its cells alone and computes the
    /// rest again for the gradients.
    #[must_use]
    pub fn recomputing(self) -> Self {
        Self { record: Some(Record::default()), ..self }
    }

    /// Where a pass in this mode is recorded.
    fn record(&self, mode: Mode) -> Option<&Record> {
        self.record.as_ref().filter(|_| mode.is_train())
    }

    fn forward(&self, stretch: &Stretch, mode: Mode) -> Tensor {
        match stretch {
            Stretch::Stem(images) => self.conv0.forward_stem(&channels_last(images), mode),
            Stretch::Cell(i, maps) => {
                let [current, previous] =
                    maps.each_ref().map(|map| Feature::new(map.shallow_clone()));
                self.cells[*i].forward(&current, &previous, mode)
            }
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

    /// The last of them alone; the others are dropped as soon as nothing reads them.
    ///
    /// # Shapes
    /// As [`Self::features`].
    pub fn last(&self, images: &Tensor, mode: Mode) -> Tensor {
        let mut maps = self.stem(images, mode);
        let cells = self.cells.len();
        self.run(&mut maps, 0..cells, &[Map(cells)], mode);
        maps.pop().flatten().expect("it was kept").raw
    }

    /// The stem convolution in a list with a place for every map.
    fn stem(&self, images: &Tensor, mode: Mode) -> Vec<Option<Feature>> {
        let mut maps: Vec<Option<Feature>> = (0..=self.cells.len()).map(|_| None).collect();
        if let Some(record) = &self.record {
            record.clear();
        }
        let stretch = Stretch::Stem(images.shallow_clone());
        let stem = match self.record(mode) {
            Some(record) => record.run(stretch, mode, None, |s, mode| self.forward(s, mode)),
            None => self.forward(&stretch, mode),
        };
        maps[Map::STEM.0] = Some(Feature::new(stem));
        maps
    }

    /// Runs `cells`, reading and filling `maps`, and drops each map after its last reader unless it
    /// stands in `keep`.
    fn run(&self, maps: &mut [Option<Feature>], cells: Range<usize>, keep: &[Map], mode: Mode) {
        for i in cells.clone() {
            let site = &self.cells[i].site;
            let of = |map: Map| maps[map.0].as_ref().expect("cells run in order");
            let (current, previous) = (of(site.current), of(site.previous));
            // In both cases, so that what is drawn does not depend on what is kept.
            let seed = (self.cells[i].keep_at(mode) < 1.).then(recompute::reseed);
            let made = match self.record(mode) {
                Some(record) => {
                    let inputs = [current, previous].map(|map| map.raw.shallow_clone());
                    let forward = |stretch: &Stretch, mode| self.forward(stretch, mode);
                    record.run(Stretch::Cell(i, inputs), mode, seed, forward)
                }
                None => self.cells[i].forward(current, previous, mode),
            };
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
        let channels = heads::map_channels(&self.plan, self.cut) as i64;
        CutSpec { channels, stride: 16, tail_channels: self.plan.name.channels as i64 }
    }

    fn trunk(&self, images: &Tensor, mode: Mode) -> Tensor {
        let [first, last] = cut_of(&self.plan);
        let mut maps = self.stem(images, mode);
        self.run(&mut maps, 0..last.0, &[first, last], mode);
        let mut take = |map: Map| maps[map.0].take().expect("it was kept");
        match self.cut {
            Cut::Pair => Tensor::cat(&[take(first).raw, take(last).raw], 1),
            Cut::Last => take(last).relu().shallow_clone(),
        }
    }

    fn tail(&self, crops: &Tensor, mode: Mode) -> Tensor {
        let [first, last] = cut_of(&self.plan);
        let widths = [first, last].map(|map| self.plan.channels(map) as i64);
        let mut halves = crops.split_with_sizes(widths, 1);
        if let Some(record) = self.record(mode) {
            halves = record.cut(&halves);
        }
        let mut maps: Vec<Option<Feature>> = (0..=self.cells.len()).map(|_| None).collect();
        for (map, half) in [first, last].into_iter().zip(halves) {
            maps[map.0] = Some(Feature::new(half));
        }
        let end = Map(self.cells.len());
        self.run(&mut maps, last.0..end.0, &[end], mode);
        let features = maps[end.0].take().expect("it was kept");
        features.relu().mean_dim([2, 3].as_slice(), false, None::<Kind>) // [R, D]
    }

    fn backward(&self) {
        if let Some(record) = &self.record {
            record.backward(|stretch, mode| self.forward(stretch, mode));
        }
    }
}
