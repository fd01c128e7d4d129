//! From the plan of a network to a program: steps in waves, and one piece of memory for all maps.
//!
//! The builder walks the plan as the tensor path does, but with names instead of numbers: an operation makes a *leaf*
//! (the pixels of one state), a *value* is a list of leaves (a concatenation has one for each of its parts), and who
//! reads a value asks for a *buffer* that holds its leaves side by side: raw or after ReLU, with a margin of zeros or
//! without. When all is asked for, each operation writes its leaf straight into every buffer that wants it. So a ReLU is
//! taken once, a concatenation is written in place, and padding costs nothing but its zeros.

use detect_kernel::{Grid, OUTS, Operation, Out, Reading, Segment, Step, View};
use rayon::prelude::*;

use super::layout::{Span, lay_out};
use super::map::{Map, zeros};
use super::work::{Node, Source, Work};

/// One operation's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaf(usize);

/// Leaves side by side.
pub(super) type Value = Vec<Leaf>;

/// Leaves in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffer(usize);

#[derive(Debug)]
struct Made {
    grid: Grid,
    channels: usize,
    /// In whole vectors.
    padded: usize,
}

#[derive(Debug)]
struct Wanted {
    leaves: Value,
    relu: bool,
    margin: usize,
    /// It is read when the program has ended.
    kept: bool,
}

/// A program while it grows.
#[derive(Debug)]
pub(super) struct Builder {
    lanes: usize,
    leaves: Vec<Made>,
    nodes: Vec<Node>,
    buffers: Vec<Wanted>,
}

impl Builder {
    /// For vectors of `lanes` floats.
    pub(super) fn new(lanes: usize) -> Self {
        Self { lanes, leaves: Vec::new(), nodes: Vec::new(), buffers: Vec::new() }
    }

    /// Adds an operation whose result has `channels` channels at each pixel of `grid`. A pool that is there already is
    /// not made twice.
    pub(super) fn add(
        &mut self,
        work: Work,
        source: Source,
        residual: Option<Buffer>,
        (grid, channels): (Grid, usize),
    ) -> Leaf {
        let node = Node { work, source, residual };
        if let Some(at) = self.nodes.iter().position(|other| other.is_same_pool(&node)) {
            return Leaf(at);
        }
        self.nodes.push(node);
        let padded = channels.next_multiple_of(self.lanes);
        self.leaves.push(Made { grid, channels, padded });
        Leaf(self.leaves.len() - 1)
    }

    /// Pixels of a value.
    pub(super) fn grid(&self, value: &[Leaf]) -> Grid {
        self.leaves[value[0].0].grid
    }

    /// Channels of a value.
    pub(super) fn channels(&self, value: &[Leaf]) -> usize {
        value.iter().map(|leaf| self.leaves[leaf.0].channels).sum()
    }

    /// Where the channels of a value lie within its pixels. Neighbours without a gap are one segment.
    pub(super) fn segments(&self, value: &[Leaf]) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut offset = 0;
        for leaf in value {
            let Made { channels, padded, .. } = self.leaves[leaf.0];
            match segments.last_mut() {
                Some(last) if last.offset + last.length == offset => last.length += channels,
                _ => segments.push(Segment { offset, length: channels }),
            }
            offset += padded;
        }
        segments
    }

    /// Floats of a pixel of a value, in whole vectors.
    pub(super) fn padded(&self, value: &[Leaf]) -> usize {
        value.iter().map(|leaf| self.leaves[leaf.0].padded).sum()
    }

    /// A buffer of `value` with at least `margin` zeros around it.
    pub(super) fn read(&mut self, value: &[Leaf], relu: bool, margin: usize) -> Buffer {
        let same = |b: &Wanted| b.leaves == value && b.relu == relu;
        let at = self.buffers.iter().position(same).unwrap_or_else(|| {
            let leaves = value.to_vec();
            self.buffers.push(Wanted { leaves, relu, margin: 0, kept: false });
            self.buffers.len() - 1
        });
        let buffer = &mut self.buffers[at];
        buffer.margin = buffer.margin.max(margin);
        Buffer(at)
    }

    /// A buffer that is there when the program has ended.
    pub(super) fn keep(&mut self, value: &[Leaf], relu: bool) -> Buffer {
        let buffer = self.read(value, relu, 0);
        self.buffers[buffer.0].kept = true;
        buffer
    }

    /// Lays out the memory and writes the steps, for so many threads.
    pub(super) fn finish(self, threads: usize) -> Program {
        let Self { leaves, nodes, buffers, .. } = &self;
        // The wave in which each leaf is made: after all that it reads.
        let mut wave_of: Vec<usize> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let ready =
                |b: Buffer| buffers[b.0].leaves.iter().map(|leaf| wave_of[leaf.0] + 1).max();
            let wave = node.reads().filter_map(ready).max();
            wave_of.push(wave.unwrap_or(0));
        }
        let last_wave = wave_of.iter().copied().max().unwrap_or(0);
        // From when to when each buffer is in use.
        let mut used: Vec<[usize; 2]> = buffers
            .iter()
            .map(|b| {
                let made = || b.leaves.iter().map(|leaf| wave_of[leaf.0]);
                let first = made().min().unwrap_or(0);
                let last = if b.kept { last_wave } else { made().max().unwrap_or(0) };
                [first, last]
            })
            .collect();
        for (node, &wave) in nodes.iter().zip(&wave_of) {
            for buffer in node.reads() {
                used[buffer.0][1] = used[buffer.0][1].max(wave);
            }
        }
        let (views, floats) = self.views(&used, threads);
        let mut waves: Vec<Vec<Step>> = vec![Vec::new(); last_wave + 1];
        for (i, (node, &wave)) in nodes.iter().zip(&wave_of).enumerate() {
            let mut outs = Vec::new();
            for (buffer, view) in buffers.iter().zip(&views) {
                // A value may hold the same leaf twice.
                let places = (0..buffer.leaves.len()).filter(|&at| buffer.leaves[at] == Leaf(i));
                outs.extend(places.map(|place| {
                    let offset = self.padded(&buffer.leaves[..place]);
                    let view = View { start: view.start + offset, ..*view };
                    let Wanted { relu, margin, .. } = *buffer;
                    Out { view, relu, margin, around: leaves[i].padded }
                }));
            }
            // What more buffers want than a step has places for is computed again; what none wants, never.
            waves[wave].extend(outs.chunks(OUTS).map(|outs| Step {
                operation: self.operation(node, leaves[i].grid, &views),
                grid: leaves[i].grid,
                channels: leaves[i].padded,
                residual: node.residual.map(|b| views[b.0]),
                outs: outs.to_vec(),
            }));
        }
        let kept = buffers.iter().zip(&views).filter(|(buffer, _)| buffer.kept);
        let kept = kept.map(|(buffer, &view)| Kept {
            leaves: buffer.leaves.clone(),
            relu: buffer.relu,
            view,
            grid: self.grid(&buffer.leaves),
            segments: self.segments(&buffer.leaves),
        });
        Program { kept: kept.collect(), waves, floats }
    }

    /// Gives each buffer a place that no other has while it is in use.
    fn views(&self, used: &[[usize; 2]], threads: usize) -> (Vec<View>, usize) {
        let sizes = self.buffers.iter().map(|b| {
            let Grid { images, height, width } = self.grid(&b.leaves);
            let (pixel, margin) = (self.padded(&b.leaves), b.margin);
            let row = (width + 2 * margin) * pixel;
            let image = (height + 2 * margin) * row;
            (View { start: margin * (row + pixel), pixel, row, image }, images * image)
        });
        let (mut views, lengths): (Vec<View>, Vec<usize>) = sizes.unzip();
        let span = |(length, &used)| Span { length, used };
        let spans: Vec<Span> = lengths.into_iter().zip(used).map(span).collect();
        let (starts, floats) = lay_out(&spans, threads);
        views.iter_mut().zip(starts).for_each(|(view, start)| view.start += start);
        (views, floats)
    }

    fn operation(&self, node: &Node, grid: Grid, views: &[View]) -> Operation {
        let (given, view, size, segments, channels) = match node.source {
            Source::Given { height, width, channels, first } => {
                let row = width * channels;
                let view = View { start: first, pixel: channels, row, image: height * row };
                (true, view, [height, width], Vec::new(), channels)
            }
            Source::Buffer(buffer) => {
                let leaves = &self.buffers[buffer.0].leaves;
                let Grid { height, width, .. } = self.grid(leaves);
                let segments = self.segments(leaves);
                (false, views[buffer.0], [height, width], segments, self.padded(leaves))
            }
        };
        match &node.work {
            Work::Convolution { stride, taps, always, weights } => {
                // Offsets must not be negative: the view begins at the topmost, leftmost tap.
                let least = [0, 1].map(|axis| taps.iter().map(|t| t[axis]).min().unwrap_or(0));
                let start = view.start as isize
                    + least[0] * view.row as isize
                    + least[1] * view.pixel as isize;
                let source = View { start: start as usize, ..view };
                let segments =
                    if given { vec![Segment { offset: 0, length: channels }] } else { segments };
                let per_tap = segments.len();
                let mut of_taps: Vec<Segment> = Vec::with_capacity(taps.len() * per_tap);
                for &[y, x] in taps {
                    let offset =
                        (y - least[0]) as usize * view.row + (x - least[1]) as usize * view.pixel;
                    for segment in &segments {
                        let segment = Segment { offset: segment.offset + offset, ..*segment };
                        match of_taps.last_mut() {
                            // Neighbours of a row, where nothing lies between them.
                            Some(last)
                                if last.offset + last.length == segment.offset
                                    && *always == taps.len() =>
                            {
                                last.length += segment.length;
                            }
                            _ => of_taps.push(segment),
                        }
                    }
                }
                // How many outputs the later taps have pixels for; all, where there is no such tap.
                let reach = [0, 1].map(|axis| taps[*always..].iter().map(|t| t[axis]).max());
                let valid = [(0, grid.height), (1, grid.width)].map(|(axis, n)| {
                    let reach = reach[axis].unwrap_or(0).max(0) as usize;
                    let fits = (size[axis] + stride[axis] - 1).saturating_sub(reach) / stride[axis];
                    if *always == taps.len() { n } else { n.min(fits) }
                });
                Operation::Product {
                    given,
                    source,
                    stride: *stride,
                    edge: Reading::new(if *always == taps.len() {
                        &of_taps
                    } else {
                        &of_taps[..always * per_tap]
                    }),
                    reading: Reading::new(&of_taps),
                    valid,
                    weights: weights.clone(),
                }
            }
            Work::Separable { stride, kernel, before, depthwise, weights } => {
                Operation::Separable {
                    source: View {
                        start: view.start - before[0] * view.row - before[1] * view.pixel,
                        ..view
                    },
                    stride: *stride,
                    kernel: *kernel,
                    depthwise: depthwise.clone(),
                    channels,
                    reading: Reading::new(&segments),
                    weights: weights.clone(),
                }
            }
            Work::Pool { stride, kernel, fold } => Operation::Pool {
                source: view,
                size,
                stride: *stride,
                kernel: *kernel,
                fold: *fold,
            },
            Work::Copy { channels } => {
                let segments =
                    if given { vec![Segment { offset: 0, length: *channels }] } else { segments };
                Operation::Copy { given, source: view, segments }
            }
            Work::Norm { together, epsilon, scale, offset } => Operation::Norm {
                source: view,
                together: *together,
                epsilon: *epsilon,
                scale: scale.clone(),
                offset: offset.clone(),
            },
        }
    }
}

/// What can be run.
#[derive(Debug)]
pub(super) struct Program {
    /// Steps; those of a wave may run at the same time.
    pub(super) waves: Vec<Vec<Step>>,
    /// Memory that it needs.
    pub(super) floats: usize,
    kept: Vec<Kept>,
}

/// A buffer that can be read afterwards.
#[derive(Debug)]
struct Kept {
    leaves: Value,
    relu: bool,
    view: View,
    grid: Grid,
    segments: Vec<Segment>,
}

impl Program {
    /// Floats that each thread needs for itself.
    pub(super) fn scratch(&self) -> usize {
        self.waves.iter().flatten().map(Step::scratch).max().unwrap_or(0)
    }

    fn kept(&self, value: &Value, relu: bool) -> &Kept {
        let kept = self.kept.iter().find(|kept| kept.leaves == *value && kept.relu == relu);
        kept.expect("it was asked for")
    }

    /// The mean over the pixels of each image of what a kept buffer holds: `[N, C]`, row-major.
    pub(super) fn mean(&self, value: &Value, relu: bool, memory: &[f32]) -> Vec<f32> {
        let Kept { view, grid: Grid { images, height, width }, segments, .. } =
            self.kept(value, relu);
        let channels: usize = segments.iter().map(|s| s.length).sum();
        let mut means = vec![0.; images * channels];
        means.par_chunks_mut(channels.max(1)).enumerate().for_each(|(image, means)| {
            for (y, x) in (0..*height).flat_map(|y| (0..*width).map(move |x| (y, x))) {
                let pixel = view.start + image * view.image + y * view.row + x * view.pixel;
                let mut sums = &mut *means;
                for s in segments {
                    let sums = sums.split_off_mut(..s.length).expect("a sum for each channel");
                    let values = &memory[pixel + s.offset..][..s.length];
                    sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
                }
            }
            for mean in means {
                *mean /= (height * width) as f32;
            }
        });
        means
    }

    /// What kept buffers of one size hold after the program was run in `memory`, side by side.
    pub(super) fn read(&self, wanted: &[(&Value, bool)], memory: &[f32]) -> Map {
        let all: Vec<&Kept> = wanted.iter().map(|&(value, relu)| self.kept(value, relu)).collect();
        let Grid { images, height, width } = all[0].grid;
        let channels: usize = all.iter().flat_map(|kept| &kept.segments).map(|s| s.length).sum();
        let mut data = zeros(images * height * width * channels);
        let row = (width * channels).max(1);
        data.par_chunks_mut(row).enumerate().for_each(|(line, out)| {
            let (image, y) = (line / height, line % height);
            let mut out = out;
            for x in 0..width {
                for Kept { view, segments, .. } in &all {
                    let pixel = view.start + image * view.image + y * view.row + x * view.pixel;
                    for s in segments {
                        let to = out.split_off_mut(..s.length).expect("the row has all channels");
                        to.copy_from_slice(&memory[pixel + s.offset..][..s.length]);
                    }
                }
            }
        });
        Map::new([images, height, width, channels], data)
    }
}
