//! The plan of a network on its way into a program.

use std::sync::Arc;

use detect_kernel::{Fold, Grid, Packed};

use super::layers::Weights;
use super::network::Network;
use super::program::{Buffer, Builder, Leaf, Value};
use super::work::{Source, Work};
use crate::config::Pooling;
use crate::geometry::Size;
use crate::nasnet::genotype::{Combine, Op, OpKind, State};
use crate::nasnet::layers::{Layer, LayerKind, Place};
use crate::nasnet::plan::{self, Site};

/// The plan on its way into a program.
pub(super) struct Walk<'a> {
    pub(super) network: &'a Network,
    pub(super) builder: Builder,
    /// Those that are made, in the plan's order.
    pub(super) maps: Vec<Option<Value>>,
}

impl Walk<'_> {
    pub(super) fn map(&self, map: plan::Map) -> Value {
        self.maps[map.0].clone().expect("cells run in order")
    }

    pub(super) fn stem(&mut self, images: usize, size: Size) {
        let plan = &self.network.plan;
        let (channels, stride) = (plan.stem_filters, plan.stem_stride());
        let out = plan.sizes(size).expect("the image has at least 3 pixels a side")[0];
        let grid = Grid { images, height: out.height, width: out.width };
        let Weights::Dense(weights) = &self.network.layers.stem else {
            unreachable!("the stem is one convolution")
        };
        let given = Source::Given { height: size.height, width: size.width, channels: 3, first: 0 };
        let taps =
            |from: isize| (0..9).map(move |i| [i / 3 + from, i % 3 + from]).collect::<Vec<_>>();
        let leaf = if stride == 2 {
            let work = Work::Convolution {
                stride: [stride; 2],
                taps: taps(0),
                always: 9,
                weights: weights.clone(),
            };
            self.builder.add(work, given, None, (grid, channels))
        } else {
            // It keeps the size, and so looks beyond the image.
            let image = self.builder.add(Work::Copy { channels: 3 }, given, None, (grid, 3));
            let source = Source::Buffer(self.builder.read(&[image], false, 1));
            let work = Work::Convolution {
                stride: [stride; 2],
                taps: taps(-1),
                always: 9,
                weights: weights.clone(),
            };
            self.builder.add(work, source, None, (grid, channels))
        };
        self.maps[plan::Map::STEM.0] = Some(vec![leaf]);
    }

    /// The two maps at the cut from what is given; gives the first cell that follows.
    pub(super) fn cut(&mut self, images: usize, Size { height, width }: Size) -> usize {
        let plan = &self.network.plan;
        let maps = plan.stride_16().expect("configurations of detectors are checked for it");
        let widths = maps.map(|map| plan.channels(map));
        let grid = Grid { images, height, width };
        let mut first = 0;
        for (map, channels) in maps.into_iter().zip(widths) {
            let given = Source::Given { height, width, channels: widths.iter().sum(), first };
            let leaf = self.builder.add(Work::Copy { channels }, given, None, (grid, channels));
            self.maps[map.0] = Some(vec![leaf]);
            first += channels;
        }
        maps[1].0
    }

    pub(super) fn cell(&mut self, number: usize) -> Value {
        let network = self.network;
        let site = &network.plan.cells[number];
        let at = |place| network.layers.at(number, place);
        let (current, previous) = (self.map(site.current), self.map(site.previous));
        let fit = at(Place::Current).expect("each cell fits H");
        let h = vec![self.layer(fit, &current, true, None)];
        let p = match at(Place::Previous) {
            Some(fit) => vec![self.layer(fit, &previous, true, None)],
            None => previous,
        };
        let mut rows: Vec<Value> = Vec::new();
        for (i, row) in site.genotype.rows.iter().enumerate() {
            let state = |state: State| match state {
                State::H => &h,
                State::P => &p,
                State::S(n) => &rows[n],
            };
            let sides = row.ops.map(|op| state(op.input).clone());
            let made = match row.combine {
                Combine::Concat => {
                    let of = |walk: &mut Self, side| {
                        walk.operation(Edge { cell: number, row: i, side }, &sides[side], None, 1.)
                            .map_or_else(|| sides[side].clone(), |leaf| vec![leaf])
                    };
                    let left = of(self, 0);
                    left.into_iter().chain(of(self, 1)).collect()
                }
                Combine::Add => vec![self.sum(site, number, i, &sides)],
                Combine::AddLayerNorm | Combine::AddInstanceNorm => {
                    let sum = self.sum(site, number, i, &sides);
                    let together = row.combine == Combine::AddLayerNorm;
                    let Some((_, Weights::Norm([scale, offset]))) = at(Place::Combine { row: i })
                    else {
                        unreachable!("rows with a norm have its layer")
                    };
                    // TensorFlow's epsilons.
                    let epsilon = if together { 1e-12 } else { 1e-6 };
                    let (scale, offset) = (scale.clone(), offset.clone());
                    let work = Work::Norm { together, epsilon, scale, offset };
                    let source = Source::Buffer(self.builder.read(&[sum], false, 0));
                    let shape = (self.builder.grid(&[sum]), site.width);
                    vec![self.builder.add(work, source, None, shape)]
                }
            };
            rows.push(made);
        }
        let mut out = Vec::new();
        for &state in site.genotype.concat.iter() {
            let value = match state {
                State::H => &h,
                State::P => &p,
                State::S(n) => &rows[n],
            };
            match at(Place::Output(state)) {
                // Without a ReLU: slim's `_cell_profile` end.
                Some(fit) => out.push(self.layer(fit, value, false, None)),
                None => out.extend(value),
            }
        }
        out
    }

    /// The sum of a row's two operations. One is computed for itself, where it is more than a look at its input, and the
    /// other adds it to its own result.
    fn sum(&mut self, site: &Site, cell: usize, row: usize, sides: &[Value; 2]) -> Leaf {
        let [left, right] = site.genotype.rows[row].ops;
        let edge = |side| Edge { cell, row, side };
        let plain = |op: Op| matches!(op.kind, OpKind::Average | OpKind::Max { .. });
        if left == right && left.kind == OpKind::Average && !site.projects(left) {
            // The normal cell adds a pool to itself.
            return self.operation(edge(0), &sides[0], None, 2.).expect("it is a pool");
        }
        let unchanged = |op: Op| op.kind == OpKind::Identity && !site.projects(op);
        // An identity, or else a pool, comes first: adding is free at the end of a product.
        let second = usize::from(unchanged(left) || (plain(left) && !unchanged(right)));
        let first = 1 - second;
        let made = self.operation(edge(first), &sides[first], None, 1.);
        let read = made.map_or_else(|| self.single(&sides[first]), |leaf| vec![leaf]);
        let residual = self.builder.read(&read, false, 0);
        if let Some(leaf) = self.operation(edge(second), &sides[second], Some(residual), 1.) {
            return leaf;
        }
        self.copy(&sides[second], Some(residual))
    }

    /// The channels of `value` side by side without a gap, plus those of `residual`.
    fn copy(&mut self, value: &Value, residual: Option<Buffer>) -> Leaf {
        let channels = self.builder.channels(value);
        let source = Source::Buffer(self.builder.read(value, false, 0));
        let shape = (self.builder.grid(value), channels);
        self.builder.add(Work::Copy { channels }, source, residual, shape)
    }

    /// The same value without gaps, which what works channel by channel must not see.
    fn single(&mut self, value: &Value) -> Value {
        let whole = self.builder.segments(value).len() == 1;
        if whole { value.clone() } else { vec![self.copy(value, None)] }
    }

    /// An operation on `value`, or nothing where it is the identity. A plain average pool is multiplied by `factor`.
    fn operation(
        &mut self,
        edge: Edge,
        value: &Value,
        residual: Option<Buffer>,
        factor: f32,
    ) -> Option<Leaf> {
        let network = self.network;
        let Edge { cell, row, side } = edge;
        let site = &network.plan.cells[cell];
        let op = site.genotype.rows[row].ops[side];
        let layer = |half| network.layers.at(cell, Place::Operation { row, side, half });
        let stride = site.stride_of(op.input);
        let (kernel, fold) = match op.kind {
            OpKind::Average => match network.pooling {
                Pooling::Timm if stride == 2 => (3, Fold::Sum(factor / 9.)),
                Pooling::Timm | Pooling::Tf => (3, Fold::Mean(factor)),
            },
            OpKind::Max { kernel } => (kernel, Fold::Largest),
            OpKind::Identity
            | OpKind::Separable { .. }
            | OpKind::Convolution { .. }
            | OpKind::Split { .. } => {
                let first = layer(0)?;
                let Some(second) = layer(1) else {
                    return Some(self.layer(first, value, true, residual));
                };
                let between = self.layer(first, value, true, None);
                return Some(self.layer(second, &vec![between], true, residual));
            }
        };
        let projection = layer(0);
        let value = &self.single(value);
        let source = Source::Buffer(self.builder.read(value, false, 0));
        let Grid { images, height, width } = self.builder.grid(value);
        let [height, width] = [height, width].map(|n| n.div_ceil(stride));
        let shape = (Grid { images, height, width }, self.builder.channels(value));
        let work = Work::Pool { stride, kernel, fold };
        Some(match projection {
            None => self.builder.add(work, source, residual, shape),
            Some(projection) => {
                let pooled = self.builder.add(work, source, None, shape);
                // Without a ReLU.
                self.layer(projection, &vec![pooled], false, residual)
            }
        })
    }

    /// A layer with weights on `value`, after its ReLU if `relu`.
    fn layer(
        &mut self,
        (layer, weights): &(Layer, Weights),
        value: &Value,
        relu: bool,
        residual: Option<Buffer>,
    ) -> Leaf {
        let Grid { images, height, width } = self.builder.grid(value);
        let stride = layer.stride;
        let grid = |[sy, sx]: [usize; 2]| Grid {
            images,
            height: height.div_ceil(sy),
            width: width.div_ceil(sx),
        };
        let whole = (grid([stride, stride]), layer.outputs);
        match (layer.kind, weights) {
            (LayerKind::Convolution { kernel, dilation }, Weights::Dense(weights)) => {
                let walk = Reach { kernel: [kernel; 2], dilation, stride: [stride; 2] };
                self.convolution(walk, weights, value, relu, residual)
            }
            (LayerKind::Factorized, Weights::Dense(weights)) => {
                let source = Source::Buffer(self.builder.read(value, relu, 0));
                let taps = vec![[0, 0], [1, 1]];
                let work = Work::Convolution {
                    stride: [stride; 2],
                    taps,
                    always: 1,
                    weights: weights.clone(),
                };
                self.builder.add(work, source, residual, whole)
            }
            (LayerKind::Separable { kernel }, Weights::Separable(depthwise, weights)) => {
                let padding = [height, width].map(|n| padding(n, kernel, stride));
                let before = padding.map(|(before, _)| before);
                let margin = padding[0].1.max(padding[1].1);
                let source = Source::Buffer(self.builder.read(value, relu, margin));
                let (segments, padded) = (self.builder.segments(value), self.builder.padded(value));
                let depthwise = depthwise.laid_out(&segments, padded);
                let weights = weights.clone();
                let work = Work::Separable { stride, kernel, before, depthwise, weights };
                self.builder.add(work, source, residual, whole)
            }
            (LayerKind::Split { kernel }, Weights::Split([across, down])) => {
                let walk = |kernel: [usize; 2], stride| Reach { kernel, dilation: 1, stride };
                let first = walk([1, kernel], [1, stride]);
                let between = self.convolution(first, across, value, relu, None);
                let second = walk([kernel, 1], [stride, 1]);
                self.convolution(second, down, &vec![between], false, residual)
            }
            (kind, _) => unreachable!("{kind:?} has other weights"),
        }
    }

    /// A convolution with SAME padding.
    fn convolution(
        &mut self,
        Reach { kernel, dilation, stride }: Reach,
        weights: &Arc<Packed>,
        value: &Value,
        relu: bool,
        residual: Option<Buffer>,
    ) -> Leaf {
        let Grid { images, height, width } = self.builder.grid(value);
        let sides = [height, width];
        let reach = |axis: usize| (kernel[axis] - 1) * dilation + 1;
        let padding = [0, 1].map(|axis| padding(sides[axis], reach(axis), stride[axis]));
        let margin = padding[0].1.max(padding[1].1);
        let source = Source::Buffer(self.builder.read(value, relu, margin));
        let [top, left] = padding.map(|(before, _)| before as isize);
        let taps = (0..kernel[0]).flat_map(|y| (0..kernel[1]).map(move |x| [y, x]));
        let taps: Vec<[isize; 2]> = taps
            .map(|[y, x]| [(y * dilation) as isize - top, (x * dilation) as isize - left])
            .collect();
        let [height, width] = [0, 1].map(|axis| sides[axis].div_ceil(stride[axis]));
        let always = taps.len();
        let work = Work::Convolution { stride, taps, always, weights: weights.clone() };
        self.builder.add(
            work,
            source,
            residual,
            (Grid { images, height, width }, weights.outputs()),
        )
    }
}

/// How many pixels TensorFlow's SAME padding puts before `n` for a kernel of `reach`, and the most that it puts on
/// either side.
fn padding(n: usize, reach: usize, stride: usize) -> (usize, usize) {
    let both = ((n.div_ceil(stride) - 1) * stride + reach).saturating_sub(n);
    (both / 2, both - both / 2)
}

/// An operation of a cell by its place in the genotype.
#[derive(Clone, Copy)]
struct Edge {
    cell: usize,
    row: usize,
    side: usize,
}

/// Which pixels a convolution reads, down and across.
struct Reach {
    kernel: [usize; 2],
    dilation: usize,
    stride: [usize; 2],
}
