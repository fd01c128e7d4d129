//! How a NASNet is stacked: from a name to a list of cells with widths, strides and inputs.
//!
//! The ImageNet form (Zoph et al. 2018, Figure 2, and TF-slim's `nasnet.py`): a 3x3 convolution of
//! stride 2 without padding, two stem cells, then three stages of `N` normal cells with a reduction
//! cell between them. The CIFAR form has no stem cells and keeps the image's size until the first
//! reduction. The strided form has no reduction cells: its stem cells and the first cell of the later
//! stages are normal cells of stride 2. Everything that has to know the network's shape reads it here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::genotype::{Cells, Combine, Genotype, Op, OpKind, State};
use super::name::{BackboneName, Family, Form};
use crate::geometry::Size;

/// Published name of the stem convolution.
pub const CONV0: &str = "conv0";

/// Which map the first cell after a reduction takes as `P`. It changes no shape and no count, so that
/// only numbers can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
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

/// Filters of the stem convolution that were published for `name`: 96 for 6@4032, three times the
/// first stage's in the CIFAR form, else 32.
pub fn published_stem_filters(name: BackboneName) -> usize {
    match name.form {
        Form::Cifar => name.channels / 8,
        _ if name == BackboneName::LARGE => 96,
        _ => 32,
    }
}

/// Side of the square images for which `name` was published: 331 for 6@4032, 32 in the CIFAR form, 299 in
/// the strided form, else 224.
pub fn published_size(name: BackboneName) -> usize {
    match name.form {
        Form::ImageNet if name == BackboneName::LARGE => 331,
        Form::ImageNet => 224,
        Form::Strided => 299,
        Form::Cifar => 32,
    }
}

/// Classes for which `name` was published: CIFAR-10's in the CIFAR form, else ImageNet's 1000.
pub fn published_classes(name: BackboneName) -> usize {
    if name.form == Form::Cifar { 10 } else { 1000 }
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
    /// Not at all: the first cell reads the stem convolution as it is.
    Raw,
    /// ReLU, 1x1 convolution, batch norm.
    Project,
    /// ReLU, two 1x1 convolutions on the even and on the odd pixels, joined, batch norm: `P` is twice
    /// as large as `H`.
    Factorized,
}

/// One place in the stack: what differs between two cells of the same genotype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Published name, such as `cell_stem_0`, `cell_7`, `reduction_cell_1`.
    pub name: String,
    /// The cell's table.
    pub genotype: Arc<Genotype>,
    /// Stride of the operations that read `H` or `P`: 1, or 2 where the cell halves the size.
    pub stride: usize,
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
    /// Stride of an operation that reads `input`. What the rows made has the output's size already.
    pub fn stride_of(&self, input: State) -> usize {
        match input {
            State::H | State::P => self.stride,
            State::S(_) => 1,
        }
    }

    /// Channels of a state before the operation that reads it.
    pub fn state_channels(&self, state: State) -> usize {
        match state {
            State::P if self.fit == Fit::Raw => self.previous_channels,
            State::S(n) if self.genotype.rows[n].combine == Combine::Concat => 2 * self.width,
            _ => self.width,
        }
    }

    /// Whether an operation without weights of its own gets a 1x1 convolution and a batch norm: pools
    /// that change the width, and identities that change the width or the size (slim's rule).
    pub fn projects(&self, op: Op) -> bool {
        let widens = self.state_channels(op.input) != self.width;
        match op.kind {
            OpKind::Identity => widens || self.stride_of(op.input) > 1,
            OpKind::Average | OpKind::Max { .. } => widens,
            OpKind::Separable { .. } | OpKind::Convolution { .. } | OpKind::Split { .. } => false,
        }
    }

    /// The stride of the convolution by which a state is brought to the output's width and size before
    /// it is joined; `None` where it fits already.
    pub fn output_stride(&self, state: State) -> Option<usize> {
        let stride = self.stride_of(state);
        (stride > 1 || self.state_channels(state) != self.width).then_some(stride)
    }

    /// Channels of the output.
    pub fn out_channels(&self) -> usize {
        self.genotype.concat.len() * self.width
    }
}

/// A whole featurizer: the stem convolution, then `sites` in order.
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
    /// How often the size was halved before each map, the stem convolution's own stride apart.
    halvings: Vec<usize>,
}

/// Why cells can't be stacked to a network of that name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name}: {reason}")]
pub struct PlanError {
    /// What was asked for.
    name: BackboneName,
    /// Why it does not work.
    reason: String,
}

impl PlanError {
    pub(crate) fn new(name: BackboneName, reason: impl Into<String>) -> Self {
        Self { name, reason: reason.into() }
    }
}

impl Plan {
    /// Stacks the cells. `stem_filters` is positive.
    pub fn new(
        name: BackboneName,
        wiring: Wiring,
        stem_filters: usize,
        cells: &Cells,
    ) -> Result<Self, PlanError> {
        let error = |reason: String| PlanError::new(name, reason);
        let joined = cells.normal.concat.len();
        let unit = 4 * joined * if name.form == Form::Cifar { 1 } else { 4 };
        if !name.channels.is_multiple_of(unit) {
            return Err(error(format!(
                "F must be a multiple of {unit}, since the normal cell joins {joined} states and the filters double twice"
            )));
        }
        let filters = name.channels / (4 * joined);
        let normal = Arc::new(cells.normal.clone());
        let reduction = Arc::new(cells.reduction.clone());
        let mut stack = Stack {
            sites: Vec::new(),
            channels: vec![stem_filters],
            halvings: vec![0],
            previous: Map::STEM,
            current: Map::STEM,
        };
        let halving = if name.form == Form::Strided { &normal } else { &reduction };
        if name.form != Form::Cifar {
            stack.push("cell_stem_0".into(), halving, 2, filters / 4);
            stack.push("cell_stem_1".into(), halving, 2, filters / 2);
        }
        for stage in 0..3 {
            let width = filters << stage;
            if stage > 0 && name.form != Form::Strided {
                let before = stack.previous;
                stack.push(format!("reduction_cell_{}", stage - 1), &reduction, 2, width);
                if wiring == Wiring::Large {
                    stack.previous = before;
                }
            }
            for i in 0..name.cells_per_stage {
                let first = name.form == Form::Strided && stage > 0 && i == 0;
                let name = format!("cell_{}", stage * name.cells_per_stage + i);
                stack.push(name, &normal, if first { 2 } else { 1 }, width);
            }
        }
        let Stack { sites: cells, halvings, .. } = stack;
        for site in &cells {
            let halves = site.fit == Fit::Factorized
                || site.genotype.concat.iter().any(|&s| site.output_stride(s) == Some(2));
            if halves && site.width % 2 != 0 {
                let reason = format!(
                    "{} is {} filters wide, but halves a map in two paths of equal width; F must be a multiple of {}",
                    site.name,
                    site.width,
                    2 * unit
                );
                return Err(error(reason));
            }
        }
        Ok(Self { name, wiring, stem_filters, cells, halvings })
    }

    /// The plan as `name` was published.
    ///
    /// # Panics
    /// If `name` is not one of NASNet-A's.
    pub fn published(name: BackboneName) -> Self {
        assert_eq!(name.family, Family::A, "only NASNet-A's cells are known");
        Self::new(name, Wiring::published(name), published_stem_filters(name), &Cells::A)
            .expect("names of NASNet-A are checked when they are read")
    }

    /// Stride of the stem convolution, which has no padding where it is 2.
    pub fn stem_stride(&self) -> usize {
        if self.name.form == Form::Cifar { 1 } else { 2 }
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
            0 => CONV0,
            i => &self.cells[i - 1].name,
        }
    }

    /// The last two cells of stride 16, where detectors cut the network: cells `2N - 2` and `2N - 1`, in
    /// that order. With `N = 1` the first is the reduction cell. `None` where there are no two maps of
    /// stride 16: in the CIFAR form, and in the strided form with `N = 1`.
    pub fn stride_16(&self) -> Option<[Map; 2]> {
        let last = self.normal_cell(2 * self.name.cells_per_stage - 1);
        let pair = [Map(last.0 - 1), last];
        let stride_16 = |map: Map| self.stem_stride() << self.halvings[map.0] == 16;
        pair.into_iter().all(stride_16).then_some(pair)
    }

    /// Height and width of every map for an image of `size`: `None` where the image is too small for
    /// the stem convolution.
    pub fn sizes(&self, size: Size) -> Option<Vec<Size>> {
        let side = |n: usize| match self.stem_stride() {
            1 => Some(n),
            // Kernel 3, stride 2 and no padding.
            _ => (n >= 3).then(|| (n - 3) / 2 + 1),
        };
        let mut sizes = vec![Size::new(side(size.height)?, side(size.width)?)];
        for site in &self.cells {
            let Size { height, width } = sizes[site.current.0];
            sizes.push(Size::new(height.div_ceil(site.stride), width.div_ceil(site.stride)));
        }
        Some(sizes)
    }
}

/// The stack while it grows.
struct Stack {
    sites: Vec<Site>,
    channels: Vec<usize>,
    halvings: Vec<usize>,
    previous: Map,
    current: Map,
}

impl Stack {
    fn push(&mut self, name: String, genotype: &Arc<Genotype>, stride: usize, width: usize) {
        let previous_channels = self.channels[self.previous.0];
        let current_halvings = self.halvings[self.current.0];
        let fit = if self.sites.is_empty() {
            Fit::Raw
        } else if self.halvings[self.previous.0] < current_halvings {
            Fit::Factorized
        } else if previous_channels == width {
            Fit::Raw
        } else {
            Fit::Project
        };
        let site = Site {
            name,
            genotype: genotype.clone(),
            stride,
            width,
            current: self.current,
            previous: self.previous,
            current_channels: self.channels[self.current.0],
            previous_channels,
            fit,
            number: self.sites.len(),
        };
        self.channels.push(site.out_channels());
        self.halvings.push(current_halvings + usize::from(stride == 2));
        self.sites.push(site);
        self.previous = self.current;
        self.current = Map(self.sites.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let trace = |name: BackboneName, side| -> Vec<usize> {
            let plan = Plan::published(name);
            let sizes = plan.sizes(Size::new(side, side)).unwrap();
            let stages =
                [1, 2, 3].map(|s| sizes[plan.normal_cell(s * name.cells_per_stage - 1).0].height);
            [sizes[0].height, sizes[1].height].into_iter().chain(stages).collect()
        };
        assert_eq!(trace(BackboneName::LARGE, 331), [165, 83, 42, 21, 11]);
        assert_eq!(trace(BackboneName::MOBILE, 224), [111, 56, 28, 14, 7]);
        assert_eq!(trace(BackboneName::a(5, 1536, Form::Strided), 299), [149, 75, 38, 19, 10]);
        let cifar = Plan::published(BackboneName::a(6, 768, Form::Cifar));
        let sizes = cifar.sizes(Size::new(32, 32)).unwrap();
        assert_eq!([5, 11, 17].map(|i| sizes[cifar.normal_cell(i).0].height), [32, 16, 8]);
        assert!(Plan::published(BackboneName::MOBILE).sizes(Size::new(2, 9)).is_none());
    }

    #[test]
    fn detectors_are_cut_where_two_maps_have_stride_16() {
        let cut = |n, f, form| {
            let plan = Plan::published(BackboneName::a(n, f, form));
            plan.stride_16().map(|maps| maps.map(|map| plan.map_name(map).to_owned()))
        };
        let names = |a: &str, b: &str| Some([a.to_owned(), b.to_owned()]);
        assert_eq!(cut(6, 4032, Form::ImageNet), names("cell_10", "cell_11"));
        assert_eq!(cut(1, 96, Form::ImageNet), names("reduction_cell_0", "cell_1"));
        assert_eq!(cut(2, 192, Form::Strided), names("cell_2", "cell_3"));
        assert_eq!(cut(1, 192, Form::Strided), None);
        assert_eq!(cut(6, 768, Form::Cifar), None);
    }

    #[test]
    fn cells_that_do_not_add_up_are_refused() {
        let plan = |channels, cells: &Cells| {
            let name = BackboneName {
                family: Family::Own,
                ..BackboneName::a(2, channels, Form::ImageNet)
            };
            Plan::new(name, Wiring::Mobile, 8, cells).map_err(|e| e.to_string())
        };
        assert!(plan(96, &Cells::A).is_ok());
        assert!(plan(100, &Cells::A).unwrap_err().contains("multiple of 96"));
        let strided =
            Plan::new(BackboneName::a(4, 1056, Form::Strided), Wiring::Mobile, 32, &Cells::A);
        assert!(strided.unwrap_err().to_string().contains("multiple of 192"));
    }
}
