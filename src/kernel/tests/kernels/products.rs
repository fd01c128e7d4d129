//! Steps with a product: pointwise and other dense convolutions, and separable ones.

use std::sync::Arc;

use detect_kernel::{Grid, Instructions, Operation, Packed, Reading, Segment, Step, View};
use proptest::prelude::*;

use crate::maps::{
    Gaps, Maps, Residual, Target, check, gaps, grids, number, pixels, place, read_by, sets, targets,
};

/// Lengths of segments, each with the gap before it: sometimes more than one part of a product.
fn runs() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let few = prop::collection::vec((0..4_usize, 1..40_usize), 1..4);
    let many = (0..3_usize, 500..600_usize, 0..3_usize, 1..600_usize);
    prop_oneof![
        9 => few,
        1 => many.prop_map(|(a, b, c, d)| vec![(a, b), (c, d)]),
    ]
}

fn segments(runs: &[(usize, usize)]) -> Vec<Segment> {
    let mut end = 0;
    runs.iter()
        .map(|&(gap, length)| {
            let offset = end + gap;
            end = offset + length;
            Segment { offset, length }
        })
        .collect()
}

fn places(segments: &[Segment]) -> Vec<usize> {
    segments.iter().flat_map(|s| s.offset..s.offset + s.length).collect()
}

fn at([image, y, x]: [usize; 3], channel: usize, seed: u32) -> f32 {
    number(seed, ((image * 251 + y) * 251 + x) * 1301 + channel)
}

fn weight(seed: u32, output: usize, input: usize) -> f32 {
    number(!seed, output * 2411 + input)
}

fn packed(
    set: Instructions,
    [outputs, inputs]: [usize; 2],
    seed: u32,
    weight: impl Fn(usize, usize) -> f32,
) -> Arc<Packed> {
    let bias = |o| number(seed ^ 5, o);
    Arc::new(Packed::new([outputs, inputs], set.packing(), weight, bias))
}

/// Bias and products of `inputs`, of which `weight` are the weights.
fn sum(
    seed: u32,
    output: usize,
    inputs: impl Iterator<Item = f32>,
    weight: impl Fn(usize) -> f32,
) -> f32 {
    let products = inputs.enumerate().map(|(i, x)| weight(i) * x);
    number(seed ^ 5, output) + products.sum::<f32>()
}

/// A product that reads one or two places of its source.
#[derive(Debug, Clone)]
struct Dense {
    grid: Grid,
    outputs: usize,
    runs: Vec<(usize, usize)>,
    stride: [usize; 2],
    /// Which pixels it reads: 0 is the output's own, 1 lies one further down and across.
    taps: &'static [usize],
    /// Whether each half of the outputs reads one half of the inputs, as in a factorized reduction.
    paths: bool,
    /// Pixels of the source beyond the last that the first tap reads.
    beyond: [usize; 2],
    given: bool,
    source_first: bool,
    source_gaps: Gaps,
    residual: Option<Gaps>,
    targets: Vec<Target>,
    seed: u32,
}

prop_compose! {
    fn dense()(
        (grid, outputs, runs) in (grids(), prop_oneof![1..40_usize, 1..130_usize], runs()),
        stride in [1..3_usize, 1..3_usize],
        taps in prop::sample::select(vec![&[0][..], &[1], &[0, 1]]),
        beyond in [0..2_usize, 0..2_usize],
        (given, source_first, paths) in any::<(bool, bool, bool)>(),
        (source_gaps, residual) in (gaps(), prop::option::of(gaps())),
        (targets, seed) in (targets(), any::<u32>()),
    ) -> Dense {
        Dense {
            grid, outputs, runs, stride, taps, paths, beyond, given, source_first, source_gaps, residual, targets, seed,
        }
    }
}

impl Dense {
    fn check(&self, set: Instructions) -> Result<(), TestCaseError> {
        let Self { grid, outputs, stride, taps, beyond, seed, .. } = *self;
        let segments = segments(&self.runs);
        let places = places(&segments);
        let channels = outputs.next_multiple_of(set.lanes());
        let [height, width] =
            [(grid.height, 0), (grid.width, 1)].map(|(n, i)| (n - 1) * stride[i] + 1 + beyond[i]);
        let source = Grid { images: grid.images, height, width };
        let reach = segments.iter().map(|s| s.offset + s.length).max().unwrap();
        let (mut maps, mut apart) = (Maps::default(), Maps::default());
        let lay_out = |maps: &mut Maps| {
            let view = maps.add(source, reach, 0, self.source_gaps);
            for pixel in pixels(source) {
                for (channel, offset) in places.iter().enumerate() {
                    maps.floats[place(&view, pixel) + offset] = at(pixel, channel, seed);
                }
            }
            view
        };
        let residual = Residual(self.residual);
        let results = |maps: &mut Maps| {
            (residual.add(maps, grid, channels), maps.outs(&self.targets, grid, channels))
        };
        let (view, (added, outs)) = match (self.given, self.source_first) {
            (true, _) => (lay_out(&mut apart), results(&mut maps)),
            (false, true) => (lay_out(&mut maps), results(&mut maps)),
            (false, false) => {
                let results = results(&mut maps);
                (lay_out(&mut maps), results)
            }
        };
        let further = view.row + view.pixel;
        let moved = |by: usize| {
            let offset = by * further;
            segments.iter().map(move |s| Segment { offset: s.offset + offset, ..*s })
        };
        let all: Vec<Segment> = taps.iter().flat_map(|tap| moved(tap - taps[0])).collect();
        let edge: &[Segment] = if taps[0] == 0 { &segments } else { &[] };
        let exists = |[_, y, x]: [usize; 3]| y < height && x < width;
        let valid = if taps.contains(&1) {
            // Outputs whose further pixel exists.
            [(grid.height, 0, height), (grid.width, 1, width)]
                .map(|(n, i, size)| (0..n).filter(|at| at * stride[i] + 1 < size).count())
        } else {
            [grid.height, grid.width]
        };
        let inputs = places.len() * taps.len();
        let weight = |output: usize, input: usize| {
            let apart = (output < outputs / 2) != (input < inputs / 2);
            if self.paths && apart { 0. } else { weight(seed, output, input) }
        };
        let weights = packed(set, [outputs, inputs], seed, weight);
        let step = Step {
            operation: Operation::Product {
                given: self.given,
                source: View { start: view.start + taps[0] * further, ..view },
                stride,
                reading: Reading::new(&all),
                edge: Reading::new(edge),
                valid,
                weights,
            },
            grid,
            channels,
            residual: added,
            outs,
        };
        let value = |pixel: [usize; 3], output: usize| {
            let [image, y, x] = pixel;
            let tap = |by: usize| [image, y * stride[0] + by, x * stride[1] + by];
            let inputs = taps.iter().flat_map(|&by| {
                let from = tap(by);
                (0..places.len()).map(move |c| if exists(from) { at(from, c, seed) } else { 0. })
            });
            let own = if output < outputs {
                sum(seed, output, inputs, |i| weight(output, i))
            } else {
                0.
            };
            own + residual.of(pixel, output)
        };
        let expected = maps.after(&step.outs, grid, channels, value);
        check(set, &step, &maps.floats, &apart.floats, &expected, 0.)
    }
}

/// A depthwise convolution and a product.
#[derive(Debug, Clone)]
struct Separable {
    images: usize,
    size: [usize; 2],
    kernel: usize,
    stride: usize,
    /// Channels of the leaves of the source.
    leaves: Vec<usize>,
    outputs: usize,
    source_first: bool,
    source_gaps: Gaps,
    residual: Option<Gaps>,
    targets: Vec<Target>,
    seed: u32,
}

prop_compose! {
    fn separable()(
        (images, size) in (1..3_usize, prop_oneof![
            4 => [1..9_usize, 1..9_usize],
            1 => [1..4_usize, 40..70_usize],
        ]),
        (kernel, stride) in (prop_oneof![Just(3), Just(5), Just(7)], 1..3_usize),
        leaves in prop_oneof![
            6 => prop::collection::vec(1..40_usize, 1..4),
            1 => Just(vec![500, 23]),
        ],
        outputs in prop_oneof![1..40_usize, 1..130_usize],
        source_first in any::<bool>(),
        (source_gaps, residual) in (gaps(), prop::option::of(gaps())),
        (targets, seed) in (targets(), any::<u32>()),
    ) -> Separable {
        Separable {
            images, size, kernel, stride, leaves, outputs, source_first, source_gaps, residual, targets, seed,
        }
    }
}

impl Separable {
    fn check(&self, set: Instructions) -> Result<(), TestCaseError> {
        let Self { images, size, kernel, stride, outputs, seed, .. } = *self;
        let lanes = set.lanes();
        let mut end = 0;
        let segments: Vec<Segment> = (self.leaves.iter())
            .map(|&length| {
                let offset = end;
                end += length.next_multiple_of(lanes);
                Segment { offset, length }
            })
            .collect();
        let (read, places) = (end, places(&segments));
        let channels = outputs.next_multiple_of(lanes);
        let [height, width] = size.map(|n| n.div_ceil(stride));
        let grid = Grid { images, height, width };
        // TensorFlow's SAME: the odd pixel of padding comes after.
        let padding = size.map(|n| {
            let all = ((n.div_ceil(stride) - 1) * stride + kernel).saturating_sub(n);
            [all / 2, all - all / 2]
        });
        let [[top, bottom], [left, right]] = padding;
        let padded = Grid { images, height: top + size[0] + bottom, width: left + size[1] + right };
        let inside = |[_, y, x]: [usize; 3]| {
            (top..top + size[0]).contains(&y) && (left..left + size[1]).contains(&x)
        };
        let source = |pixel: [usize; 3], channel: usize| {
            if inside(pixel) { at(pixel, channel, seed) } else { 0. }
        };
        let tap = |channel: usize, y: usize, x: usize| {
            number(seed ^ 9, (channel * kernel + y) * kernel + x)
        };
        let mut maps = Maps::default();
        let lay_out = |maps: &mut Maps| -> View {
            let view = maps.add(padded, read, 0, self.source_gaps);
            for pixel in pixels(padded) {
                for (channel, offset) in places.iter().enumerate() {
                    maps.floats[place(&view, pixel) + offset] = source(pixel, channel);
                }
            }
            view
        };
        let residual = Residual(self.residual);
        let results = |maps: &mut Maps| {
            (residual.add(maps, grid, channels), maps.outs(&self.targets, grid, channels))
        };
        let (view, (added, outs)) = if self.source_first {
            (lay_out(&mut maps), results(&mut maps))
        } else {
            let results = results(&mut maps);
            (lay_out(&mut maps), results)
        };
        let mut depthwise = vec![0.; kernel * kernel * read];
        for (y, x) in (0..kernel).flat_map(|y| (0..kernel).map(move |x| (y, x))) {
            for (channel, offset) in places.iter().enumerate() {
                let (vector, lane) = (offset / lanes, offset % lanes);
                let place = ((vector * kernel + y) * kernel + x) * lanes + lane;
                depthwise[place] = tap(channel, y, x);
            }
        }
        let weight = |output, input| weight(seed, output, input);
        let step = Step {
            operation: Operation::Separable {
                source: view,
                stride,
                kernel,
                depthwise: Arc::new(depthwise.into_iter().collect()),
                channels: read,
                reading: Reading::new(&segments),
                weights: packed(set, [outputs, places.len()], seed, weight),
            },
            grid,
            channels,
            residual: added,
            outs,
        };
        let between = |[image, y, x]: [usize; 3], channel: usize| -> f32 {
            let taps = (0..kernel).flat_map(|dy| (0..kernel).map(move |dx| (dy, dx)));
            let one = |(dy, dx)| {
                source([image, y * stride + dy, x * stride + dx], channel) * tap(channel, dy, dx)
            };
            taps.map(one).sum()
        };
        let mut sums = Vec::new();
        for pixel in pixels(grid) {
            let inputs: Vec<f32> =
                (0..places.len()).map(|c| read_by(set, between(pixel, c))).collect();
            let one = |o| sum(seed, o, inputs.iter().copied(), |i| weight(o, i));
            sums.push((0..outputs).map(one).collect::<Vec<_>>());
        }
        let value = |pixel: [usize; 3], output: usize| {
            let [image, y, x] = pixel;
            let own = sums[(image * height + y) * width + x].get(output).copied().unwrap_or(0.);
            own + residual.of(pixel, output)
        };
        let expected = maps.after(&step.outs, grid, channels, value);
        check(set, &step, &maps.floats, &[], &expected, 0.)
    }
}

proptest! {
    #[test]
    fn a_product_reads_its_taps_and_writes_all_its_outs(case in dense()) {
        for set in sets() {
            case.check(set)?;
        }
    }

    #[test]
    fn a_separable_convolution_is_the_plain_one(case in separable()) {
        for set in sets() {
            case.check(set)?;
        }
    }
}
