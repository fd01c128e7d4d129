//! A step of a program: one operation over the pixels of a map.

use std::ops::Range;
use std::sync::Arc;

use crate::aligned::Aligned;
use crate::instructions::Instructions;
use crate::packed::{Packed, Reading, Segment};

/// Pixels of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Images, or regions.
    pub images: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Grid {
    /// Of all images.
    pub fn pixels(self) -> usize {
        self.images * self.height * self.width
    }

    /// Image, row and column of a pixel.
    pub(crate) fn place(self, pixel: usize) -> [usize; 3] {
        let (line, x) = (pixel / self.width, pixel % self.width);
        [line / self.height, line % self.height, x]
    }

    /// The rows, or parts of rows, that `pixels` are made of.
    pub(crate) fn runs(self, pixels: Range<usize>) -> impl Iterator<Item = Run> {
        let Range { start: first, end } = pixels;
        let mut next = first;
        std::iter::from_fn(move || {
            let at = self.place(next);
            let run = Run { at, count: (self.width - at[2]).min(end - next), begin: next - first };
            next += run.count;
            (run.count > 0).then_some(run)
        })
    }
}

/// Pixels side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Image, row and column of the first.
    pub(crate) at: [usize; 3],
    /// How many.
    pub(crate) count: usize,
    /// How many pixels of a tile come before them.
    pub(crate) begin: usize,
}

/// Where the pixels of a map lie, in floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The first pixel of the first image.
    pub start: usize,
    /// From a pixel to the next.
    pub pixel: usize,
    /// From a row to the next.
    pub row: usize,
    /// From an image to the next.
    pub image: usize,
}

impl View {
    pub(crate) fn at(&self, [image, y, x]: [usize; 3]) -> usize {
        self.start + image * self.image + y * self.row + x * self.pixel
    }
}

/// A place for results.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// Where.
    pub view: View,
    /// Whether negative numbers become 0.
    pub relu: bool,
    /// Pixels around the map that are set to zero.
    pub margin: usize,
    /// Floats of such a pixel.
    pub around: usize,
}

/// What a step computes at each pixel.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A product of what is read of a pixel, which beyond `valid` rows and columns of the output is less.
    Product {
        /// Whether it reads what the program is given, rather than the memory.
        given: bool,
        /// Where the first output's pixel lies.
        source: View,
        /// Down and across.
        stride: [usize; 2],
        /// What is read of a pixel.
        reading: Reading,
        /// What is read beyond `valid`.
        edge: Reading,
        /// Rows and columns of the output.
        valid: [usize; 2],
        /// Of what is read.
        weights: Arc<Packed>,
    },
    /// A depthwise convolution, then a product of its result.
    Separable {
        /// Where the window of the first output begins.
        source: View,
        /// Down and across: 1 or 2.
        stride: usize,
        /// Side of the window: 3, 5 or 7.
        kernel: usize,
        /// `[channels / lanes, kernel, kernel, lanes]`: a vector of channels after the other.
        depthwise: Arc<Aligned>,
        /// Floats of a pixel of the source, in whole vectors.
        channels: usize,
        /// What the product reads of the convolution's result.
        reading: Reading,
        /// The product's.
        weights: Arc<Packed>,
    },
    /// A pool over the pixels that exist.
    Pool {
        /// The first pixel that exists.
        source: View,
        /// Rows and columns of the source.
        size: [usize; 2],
        /// Down and across.
        stride: usize,
        /// Side of the window.
        kernel: usize,
        /// What is made of it.
        fold: Fold,
    },
    /// The source as it is.
    Copy {
        /// Whether it reads what the program is given, rather than the memory.
        given: bool,
        /// The first pixel.
        source: View,
        /// What is copied of a pixel.
        segments: Vec<Segment>,
    },
    /// Each image's channels (or all of them together) shifted and scaled to mean 0 and variance 1, then by `scale` and
    /// `offset`.
    Norm {
        /// The first pixel.
        source: View,
        /// Whether all channels are normed together.
        together: bool,
        /// Added to the variance.
        epsilon: f32,
        /// One a channel.
        scale: Vec<f32>,
        /// One a channel.
        offset: Vec<f32>,
    },
}

/// What a pool makes of its window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fold {
    /// The mean, times this.
    Mean(f32),
    /// The sum, times this.
    Sum(f32),
    /// The largest.
    Largest,
}

/// A step.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is computed.
    pub operation: Operation,
    /// Pixels of the result.
    pub grid: Grid,
    /// Floats of a pixel of the result, in whole vectors.
    pub channels: usize,
    /// Added to the result.
    pub residual: Option<View>,
    /// Where the result goes.
    pub outs: Vec<Out>,
}

/// The most pixels of a tile.
pub(crate) const TILE: usize = 128;
/// Pixels of a tile that stays in the innermost caches.
const FEW: usize = 72;
/// The most places of a step for results.
pub const OUTS: usize = 6;

impl Step {
    /// The pixels of which thread `thread` of `threads` is to begin with. Threads keep to their part of a map, step after
    /// step, so that what they read lies in their own caches.
    pub(crate) fn share(&self, thread: usize, threads: usize) -> Range<usize> {
        let pixels = self.grid.pixels();
        let whole = match self.operation {
            Operation::Norm { .. } => self.grid.height * self.grid.width,
            _ => 1,
        };
        let at = |thread: usize| pixels / whole.max(1) * thread / threads * whole;
        at(thread)..at(thread + 1)
    }

    /// Pixels of a tile.
    pub(crate) fn tile(&self) -> usize {
        match &self.operation {
            Operation::Norm { .. } => (self.grid.height * self.grid.width).max(1),
            Operation::Product { weights, .. } | Operation::Separable { weights, .. } => {
                // Each tile reads all weights: of those that come from memory it should make much.
                if weights.many() { TILE } else { FEW }
            }
            _ => FEW,
        }
    }

    /// Floats that a thread needs for itself.
    pub fn scratch(&self) -> usize {
        match &self.operation {
            Operation::Separable { channels, reading, weights, .. } => {
                TILE * channels + reading.room(TILE, weights)
            }
            Operation::Product { reading, weights, .. } => reading.room(TILE, weights),
            _ => 0,
        }
    }

    /// Refuses a step that would leave `memory` or `given` floats, or was not made for `instructions`.
    ///
    /// # Panics
    /// Where it would, or was not: a bug in the builder.
    pub fn check(&self, instructions: Instructions, memory: usize, given: usize) {
        let Grid { images, height, width } = self.grid;
        if self.grid.pixels() == 0 {
            return;
        }
        let last = |view: &View, [h, w]: [usize; 2]| view.at([images - 1, h - 1, w - 1]);
        let reach =
            |segments: &[Segment]| segments.iter().map(|s| s.offset + s.length).max().unwrap_or(0);
        let strided =
            |[down, across]: [usize; 2]| [(height - 1) * down + 1, (width - 1) * across + 1];
        let whole_vectors = |channels: usize| {
            assert!(channels.is_multiple_of(instructions.lanes()), "channels that end in a vector");
        };
        let packed = |weights: &Packed| {
            assert_eq!(weights.packing(), instructions.packing(), "weights for these instructions");
        };
        match &self.operation {
            Operation::Product {
                given: reads_given,
                source,
                stride,
                reading,
                edge,
                valid,
                weights,
            } => {
                let limit = if *reads_given { given } else { memory };
                let [h, w] = [0, 1].map(|axis| (valid[axis].max(1) - 1) * stride[axis] + 1);
                if valid.iter().all(|&n| n > 0) {
                    assert!(
                        last(source, [h, w]) + reading.reach() <= limit,
                        "a product leaves its source"
                    );
                }
                assert!(
                    edge.length() == 0 || last(source, strided(*stride)) + edge.reach() <= limit,
                    "a product leaves its source"
                );
                packed(weights);
                assert!(valid[0] <= height && valid[1] <= width, "valid outputs beyond the grid");
                assert_eq!(reading.length(), weights.inputs(), "inputs of a product");
                assert!(edge.length() <= weights.inputs(), "inputs of a product at the edge");
                assert_eq!(self.channels, weights.padded(), "outputs of a product");
            }
            Operation::Separable {
                source,
                stride,
                kernel,
                depthwise,
                channels,
                reading,
                weights,
            } => {
                packed(weights);
                whole_vectors(*channels);
                let sides = [3, 5, 7].contains(kernel) && [1, 2].contains(stride);
                assert!(sides, "a depthwise convolution that no network has");
                let [h, w] = strided([*stride; 2]).map(|n| n - 1 + kernel);
                assert!(last(source, [h, w]) + channels <= memory, "a window leaves its source");
                assert_eq!(depthwise.len(), kernel * kernel * channels, "depthwise weights");
                assert!(reading.reach() <= *channels, "a product leaves its window's result");
                assert_eq!(reading.length(), weights.inputs(), "inputs of a product");
                assert_eq!(self.channels, weights.padded(), "outputs of a product");
            }
            Operation::Pool { source, size, stride, kernel, .. } => {
                whole_vectors(self.channels);
                // What makes each window begin, and end, with a pixel that exists.
                assert!(*stride > 0 && *kernel > 0, "a pool without pixels");
                let outputs = size.map(|n| n.div_ceil(*stride));
                assert_eq!(outputs, [height, width], "outputs of a pool");
                assert!(last(source, *size) + self.channels <= memory, "a pool leaves its source");
            }
            Operation::Copy { given: reads_given, source, segments } => {
                let limit = if *reads_given { given } else { memory };
                assert!(
                    last(source, [height, width]) + reach(segments) <= limit,
                    "a copy leaves its source"
                );
                let length: usize = segments.iter().map(|s| s.length).sum();
                assert!(length <= self.channels, "a copy leaves its pixel");
            }
            Operation::Norm { source, scale, offset, .. } => {
                let end = last(source, [height, width]) + scale.len();
                assert!(end <= memory, "a norm leaves its source");
                assert_eq!(scale.len(), offset.len(), "a scale and an offset a channel");
                assert!(scale.len() <= self.channels, "a norm leaves its pixel");
                assert!(self.residual.is_none(), "a norm adds nothing");
            }
        }
        for out in &self.outs {
            let Out { view, margin, around, .. } = out;
            assert!(
                view.start >= margin * (view.row + view.pixel),
                "a margin begins before the memory"
            );
            let corner = last(view, [height, width]) + margin * (view.row + view.pixel);
            assert!(corner + self.channels.max(*around) <= memory, "a result leaves the memory");
        }
        if let Some(residual) = &self.residual {
            let end = last(residual, [height, width]) + self.channels;
            assert!(end <= memory, "a residual leaves the memory");
        }
        assert!(self.outs.len() <= OUTS, "more results than places for them");
    }
}
