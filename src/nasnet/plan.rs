//! How a NASNet is stacked: from a name to a list of cells with widths, strides, inputs and counts.
//!
//! The ImageNet form (Zoph et al. 2018, Figure 2, and TF-slim's `nasnet.py`): a 3x3 convolution of
//! stride 2 without padding, two stem cells, then three stages of `N` normal cells with a reduction
//! cell between them. Everything that has to know the network's shape reads it here.

use serde::{Deserialize, Serialize};

use super::genotype::{Genotype, NORMAL, OpKind, REDUCTION, State};
use super::{BackboneName, names};
use crate::geometry::Size;

/// Which map the first cell after a reduction takes as `P`. It changes no shape and no count, so that
/// only numbers can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wiring {
    /// The last but one cell of the stage before (6@4032; slim's `skip_reduction_layer_input = 1`).
    Large,
    /// The last cell of the stage before (everything else).
    Mobile,
}

impl Wiring {
    /// What was published for `name`: `Large` for 6@4032 alone.
    pub fn published(name: BackboneName) -> Self {
        if name == BackboneName::LARGE { Self::Large } else { Self::Mobile }
    }
}

/// Filters of the stem convolution that were published for `name`: 96 for 6@4032, else 32.
pub fn published_stem_filters(name: BackboneName) -> usize {
    if name == BackboneName::LARGE { 96 } else { 32 }
}

/// A feature map by the order in which it is made: 0 is the stem convolution's, `i + 1` is cell `i`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Map(pub usize);

impl Map {
    /// The output of the stem convolution.
    pub const STEM: Self = Self(0);
}

/// How a cell makes `P` fit its own width and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Not at all: the first stem cell reads the stem convolution as it is.
    Raw,
    /// ReLU, 1x1 convolution, batch norm.
    Project,
    /// ReLU, two 1x1 convolutions on the even and on the odd pixels, joined, batch norm: `P` is twice
    /// as large as `H`.
    Factorized,
}

/// Which of the two genotypes a cell has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellKind {
    /// Keeps the size.
    Normal,
    /// Halves it.
    Reduction,
}

/// One place in the stack: what differs between two cells of the same kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Published name, such as `cell_stem_0`, `cell_7`, `reduction_cell_1`.
    pub name: String,
    /// Which genotype.
    pub kind: CellKind,
    /// Filters of each state in the cell.
    pub width: usize,
    /// The map read as `H`.
    pub current: Map,
    /// The map read as `P`.
    pub previous: Map,
    /// Channels of `current`.
    pub current_channels: usize,
    /// Channels of `previous`.
    pub previous_channels: usize,
    /// How `P` is fitted.
    pub fit: Fit,
    /// Position among all cells, stem cells included, for scheduled drop path.
    pub number: usize,
}

impl Site {
    /// The cell's table.
    pub fn genotype(&self) -> &'static Genotype {
        match self.kind {
            CellKind::Normal => &NORMAL,
            CellKind::Reduction => &REDUCTION,
        }
    }

    /// Stride of the operations that read `H` or `P`. Sums have the output's size already.
    pub fn stride(&self, input: State) -> usize {
        match (self.kind, input) {
            (CellKind::Reduction, State::H | State::P) => 2,
            _ => 1,
        }
    }

    /// Channels of a state before the operation that reads it.
    pub fn state_channels(&self, state: State) -> usize {
        match (self.fit, state) {
            (Fit::Raw, State::P) => self.previous_channels,
            _ => self.width,
        }
    }

    /// Channels of the output.
    pub fn out_channels(&self) -> usize {
        self.genotype().concat.iter().map(|&s| self.state_channels(s)).sum()
    }
}

/// A whole featurizer: the stem convolution, then `cells` in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it is called.
    pub name: BackboneName,
    /// Which second input follows a reduction.
    pub wiring: Wiring,
    /// Filters of the stem convolution.
    pub stem_filters: usize,
    /// Every cell, in the order of computation.
    pub cells: Vec<Site>,
}

/// A convolution of the network, for counting and for executors that want a flat list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Convolution {
    kernel: usize,
    inputs: usize,
    outputs: usize,
    groups: usize,
}

impl Convolution {
    fn weights(self) -> usize {
        self.kernel * self.kernel * self.inputs / self.groups * self.outputs
    }
}

/// What a cell costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CellCount {
    /// Published name.
    pub name: String,
    /// Channels of the output.
    pub channels: usize,
    /// Height and width of the output.
    pub size: Size,
    /// Trainable parameters.
    pub parameters: usize,
    /// Running means and variances.
    pub batch_norm_statistics: usize,
    /// Multiply-adds of the convolutions, one image.
    pub multiply_adds: u64,
}

impl Plan {
    /// Stacks the cells. `stem_filters` is positive.
    pub fn new(name: BackboneName, wiring: Wiring, stem_filters: usize) -> Self {
        let filters = name.channels / 24;
        let mut stack = Stack {
            cells: Vec::new(),
            channels: vec![stem_filters],
            previous: Map::STEM,
            current: Map::STEM,
        };
        stack.push("cell_stem_0".into(), CellKind::Reduction, filters / 4, Fit::Raw);
        stack.push("cell_stem_1".into(), CellKind::Reduction, filters / 2, Fit::Factorized);
        for stage in 0..3 {
            let width = filters << stage;
            if stage > 0 {
                let before = stack.previous;
                let name = format!("reduction_cell_{}", stage - 1);
                stack.push(name, CellKind::Reduction, width, Fit::Project);
                if wiring == Wiring::Large {
                    stack.previous = before;
                }
            }
            for i in 0..name.cells_per_stage {
                let fit = if i == 0 { Fit::Factorized } else { Fit::Project };
                let name = format!("cell_{}", stage * name.cells_per_stage + i);
                stack.push(name, CellKind::Normal, width, fit);
            }
        }
        Self { name, wiring, stem_filters, cells: stack.cells }
    }

    /// The plan as `name` was published.
    pub fn published(name: BackboneName) -> Self {
        Self::new(name, Wiring::published(name), published_stem_filters(name))
    }

    /// The output of normal cell `index`, counted over all stages from 0.
    ///
    /// # Panics
    /// If there is no such cell.
    pub fn normal_cell(&self, index: usize) -> Map {
        let name = format!("cell_{index}");
        let at = self.cells.iter().position(|site| site.name == name);
        Map(at.expect("the index is within 3N") + 1)
    }

    /// Channels of a map.
    pub fn channels(&self, map: Map) -> usize {
        match map.0 {
            0 => self.stem_filters,
            i => self.cells[i - 1].out_channels(),
        }
    }

    /// Published name of a map.
    pub fn map_name(&self, map: Map) -> &str {
        match map.0 {
            0 => names::CONV0,
            i => &self.cells[i - 1].name,
        }
    }

    /// The last normal cells of the stage with stride 16, where detectors cut the network: cells
    /// `2N - 2` and `2N - 1`, in that order. With `N = 1` the first is the reduction cell.
    pub fn stride_16(&self) -> [Map; 2] {
        let last = self.normal_cell(2 * self.name.cells_per_stage - 1);
        [Map(last.0 - 1), last]
    }

    /// Height and width of every map for an image of `size`: `None` where the image is too small for
    /// the stem convolution.
    pub fn sizes(&self, size: Size) -> Option<Vec<Size>> {
        // conv0 has kernel 3, stride 2 and no padding.
        let side = |n: usize| (n >= 3).then(|| (n - 3) / 2 + 1);
        let mut sizes = vec![Size::new(side(size.height)?, side(size.width)?)];
        for site in &self.cells {
            let Size { height, width } = sizes[site.current.0];
            sizes.push(match site.kind {
                CellKind::Normal => Size::new(height, width),
                CellKind::Reduction => Size::new(height.div_ceil(2), width.div_ceil(2)),
            });
        }
        Some(sizes)
    }

    /// What the stem convolution and each cell cost for an image of `size`, counted as the paper's
    /// tables are: multiply-adds of convolutions alone, batch size 1.
    pub fn counts(&self, size: Size) -> Option<Vec<CellCount>> {
        let sizes = self.sizes(size)?;
        let stem = Convolution { kernel: 3, inputs: 3, outputs: self.stem_filters, groups: 1 };
        let mut rows = vec![CellCount {
            name: names::CONV0.into(),
            channels: self.stem_filters,
            size: sizes[0],
            parameters: stem.weights() + 2 * self.stem_filters,
            batch_norm_statistics: 2 * self.stem_filters,
            multiply_adds: (stem.weights() * sizes[0].height * sizes[0].width) as u64,
        }];
        for (i, site) in self.cells.iter().enumerate() {
            rows.push(count_cell(site, sizes[site.current.0], sizes[i + 1]));
        }
        Some(rows)
    }
}

/// The stack while it grows.
struct Stack {
    cells: Vec<Site>,
    channels: Vec<usize>,
    previous: Map,
    current: Map,
}

impl Stack {
    fn push(&mut self, name: String, kind: CellKind, width: usize, fit: Fit) {
        let site = Site {
            name,
            kind,
            width,
            current: self.current,
            previous: self.previous,
            current_channels: self.channels[self.current.0],
            previous_channels: self.channels[self.previous.0],
            fit,
            number: self.cells.len(),
        };
        self.channels.push(site.out_channels());
        self.cells.push(site);
        self.previous = self.current;
        self.current = Map(self.cells.len());
    }
}

/// `input` is the size of `H`, `output` that of the cell's output.
fn count_cell(site: &Site, input: Size, output: Size) -> CellCount {
    let pixels = |s: Size| (s.height * s.width) as u64;
    let pointwise = |inputs, outputs| Convolution { kernel: 1, inputs, outputs, groups: 1 };
    let (mut weights, mut norms, mut multiply_adds) = (0, 0, 0);
    let mut add = |c: Convolution, at: Size| {
        weights += c.weights();
        multiply_adds += c.weights() as u64 * pixels(at);
    };
    add(pointwise(site.current_channels, site.width), input);
    norms += site.width;
    match site.fit {
        Fit::Raw => {}
        Fit::Project => {
            add(pointwise(site.previous_channels, site.width), input);
            norms += site.width;
        }
        Fit::Factorized => {
            // Two paths of half the width each, on a quarter of `P`'s pixels, which is `H`'s size.
            add(pointwise(site.previous_channels, site.width), input);
            norms += site.width;
        }
    }
    for op in site.genotype().sums.iter().flatten() {
        if let OpKind::Separable { kernel } = op.kind {
            let inputs = site.state_channels(op.input);
            for inputs in [inputs, site.width] {
                add(Convolution { kernel, inputs, outputs: inputs, groups: inputs }, output);
                add(pointwise(inputs, site.width), output);
                norms += site.width;
            }
        }
    }
    CellCount {
        name: site.name.clone(),
        channels: site.out_channels(),
        size: output,
        parameters: weights + 2 * norms,
        batch_norm_statistics: 2 * norms,
        multiply_adds,
    }
}

/// The whole network with a classifier of `classes` outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkCount {
    /// Trainable parameters: convolutions, batch norm's gamma and beta, classifier.
    pub parameters: usize,
    /// The same and the running statistics.
    pub parameters_with_batch_norm_statistics: usize,
    /// Multiply-adds of convolutions and classifier, one image.
    pub multiply_adds: u64,
    /// Stem convolution and cells.
    pub cells: Vec<CellCount>,
}

impl NetworkCount {
    /// Counts `plan` with `classes` outputs for images of `size`; `None` for an image under 3 pixels.
    pub fn new(plan: &Plan, size: Size, classes: usize) -> Option<Self> {
        let cells = plan.counts(size)?;
        let features = plan.name.channels;
        let parameters =
            cells.iter().map(|c| c.parameters).sum::<usize>() + (features + 1) * classes;
        let statistics = cells.iter().map(|c| c.batch_norm_statistics).sum::<usize>();
        let multiply_adds =
            cells.iter().map(|c| c.multiply_adds).sum::<u64>() + (features * classes) as u64;
        let parameters_with_batch_norm_statistics = parameters + statistics;
        Some(Self { parameters, parameters_with_batch_norm_statistics, multiply_adds, cells })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: BackboneName, side: usize) -> NetworkCount {
        NetworkCount::new(&Plan::published(name), Size::new(side, side), 1000).unwrap()
    }

    #[test]
    fn the_paper_s_networks_have_the_paper_s_counts() {
        let large = count(BackboneName::LARGE, 331);
        assert_eq!(large.parameters, 88_753_150);
        assert_eq!(large.parameters_with_batch_norm_statistics, 88_949_818);
        assert_eq!(large.multiply_adds, 23_783_414_658);
        let mobile = count(BackboneName::MOBILE, 224);
        assert_eq!(mobile.parameters, 5_289_978);
        assert_eq!(mobile.parameters_with_batch_norm_statistics, 5_326_716);
        assert_eq!(mobile.multiply_adds, 563_638_816);
    }

    #[test]
    fn the_cell_after_a_reduction_reads_what_its_wiring_says() {
        let previous = |plan: &Plan, cell: usize| {
            let site = &plan.cells[plan.normal_cell(cell).0 - 1];
            plan.map_name(site.previous).to_owned()
        };
        let large = Plan::published(BackboneName::LARGE);
        assert_eq!([previous(&large, 6), previous(&large, 12)], ["cell_4", "cell_10"]);
        assert_eq!([previous(&large, 7), previous(&large, 0)], ["reduction_cell_0", "cell_stem_0"]);
        let mobile = Plan::published(BackboneName::MOBILE);
        assert_eq!([previous(&mobile, 4), previous(&mobile, 8)], ["cell_3", "cell_7"]);
        assert_eq!(mobile.cells[1].previous, Map::STEM);
        assert_eq!(mobile.cells[1].current, Map(1));
    }

    #[test]
    fn sizes_follow_the_published_traces() {
        let trace = |name, side| -> Vec<usize> {
            let plan = Plan::published(name);
            let sizes = plan.sizes(Size::new(side, side)).unwrap();
            [0, 1, 2]
                .into_iter()
                .map(|i| sizes[i].height)
                .chain([2, 3].map(|stage| {
                    sizes[plan.normal_cell(stage * name.cells_per_stage - 1).0].height
                }))
                .collect()
        };
        assert_eq!(trace(BackboneName::LARGE, 331), [165, 83, 42, 21, 11]);
        assert_eq!(trace(BackboneName::MOBILE, 224), [111, 56, 28, 14, 7]);
        assert!(Plan::published(BackboneName::MOBILE).sizes(Size::new(2, 9)).is_none());
    }
}
