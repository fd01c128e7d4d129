//! How much memory a training run will take, estimated before its first step.
//!
//! Counted is what the backward pass needs of the forward pass: of each convolution its input, of each
//! batch norm its input, of each ReLU its output, of each pool its input. A quarter is added for what
//! kernels need in passing and what the allocator wastes. Measured runs on a CPU took 0.93 to 1.2 times the
//! estimate (docs/training.md).

use super::{Config, Head, Optimizer, Resize};
use crate::geometry::Size;
use crate::nasnet::genotype::OpKind;
use crate::nasnet::layers::{LayerKind, Place};
use crate::nasnet::plan::{Plan, Site};

/// Bytes of a number in single precision.
const FLOAT: u64 = 4;
/// Bytes of the place that a maximum was found at.
const INDEX: u64 = 8;
/// The program itself with libtorch, in bytes.
const PROGRAM: u64 = 150 << 20;

/// What a run holds at the busiest moment of a step, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Weights, their gradients, the optimizer's state and the moving average.
    pub weights: u64,
    /// What the backward pass needs of the forward pass, and the gradients on their way.
    pub maps: u64,
    /// Batches that are read ahead; in the computer's memory also where the network runs on a GPU.
    pub batches: u64,
}

impl Memory {
    /// All of it, with the program.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.maps).saturating_add(self.batches).saturating_add(PROGRAM)
    }
}

impl Config {
    /// The largest input that the recipe makes of images of at most `aspect` as long as wide, or the
    /// other way.
    pub fn largest_input(&self, aspect: f64) -> Size {
        let sides = |short: usize, long: usize| {
            let wide = (short as f64 * aspect).ceil().min(long as f64) as usize;
            self.input.padded([Size::new(short.min(wide), wide)].into_iter())
        };
        match self.input.resize {
            Resize::ShortSide { short_side, long_side } => {
                let scale = self.train.augment.scale[1];
                let short = self.train.augment.short_sides.iter().copied().max();
                let short = short.unwrap_or((short_side as f64 * scale).round() as usize);
                sides(short, (long_side as f64 * scale).round() as usize)
            }
            Resize::Fixed { height, width } => Size::new(height, width),
            Resize::KeepAspect { min_dimension, max_dimension, .. } => {
                sides(min_dimension, max_dimension)
            }
        }
    }

    /// An estimate for a detector of `classes` classes on inputs of `size`, with `parameters` weights of
    /// which `learned` learn. `None` for inputs too small for the network.
    pub fn training_memory(&self, size: Size, parameters: u64, learned: u64) -> Option<Memory> {
        let states = match self.train.optimizer {
            Optimizer::Sgd { .. } => 1,
            Optimizer::RmsProp { .. } | Optimizer::AdamW { .. } => 2,
        };
        let average = if self.train.ema.decay > 0. { parameters } else { 0 };
        let images = self.train.batch as u64;
        let pixels = 3 * area(size) * images;
        let ahead = self.train.loader.prefetch + self.train.loader.threads;
        Some(Memory {
            weights: FLOAT * (parameters + average + learned * (1 + states)),
            // With the quarter.
            maps: (FLOAT + FLOAT / 4)
                .saturating_mul(pixels.saturating_add(self.kept(size, images)?)),
            batches: FLOAT * pixels * ahead as u64,
        })
    }

    /// Numbers that are held of a batch, its pixels apart.
    fn kept(&self, size: Size, images: u64) -> Option<u64> {
        let plan = self.backbone.plan();
        let sizes = plan.sizes(size)?;
        let [first, last] = plan.stride_16()?;
        let trunk = Stretch::over(&plan, 0..last.0, &sizes, images);
        let channels = plan.channels(last) as u64;
        let hidden = match self.rpn.channels {
            0 => channels,
            channels => channels as u64,
        };
        let rpn = 3 * hidden * area(sizes[last.0]) * images;

        let regions = images * self.roi.sampled as u64;
        let crop = area(Size::new(self.detector.crop_size, self.detector.crop_size));
        let heads = match self.detector.head {
            Head::Mlp => {
                let width = self.detector.mlp_width as u64;
                Stretch { maps: regions * (crop * channels + 4 * width), ..Stretch::default() }
            }
            Head::Tail => {
                let bins = Size::new(self.detector.crop_size, self.detector.crop_size);
                let mut of_crop = vec![bins; plan.cells.len() + 1];
                for (i, site) in plan.cells.iter().enumerate().skip(last.0) {
                    let Size { height, width } = of_crop[site.current.0];
                    let half = |n: usize| n.div_ceil(site.stride);
                    of_crop[i + 1] = Size::new(half(height), half(width));
                }
                let mut tail = Stretch::over(&plan, last.0..plan.cells.len(), &of_crop, regions);
                tail.crops = regions * crop * (plan.channels(first) as u64 + channels);
                tail
            }
        };
        // On the way back a cell's gradients stand beside what it kept.
        let largest = trunk.largest.max(heads.largest);
        let (inside, back) = if self.train.recompute {
            // A cell that is computed again is whole before its gradients begin; those of the crops wait for the tail's
            // first cell.
            (largest, largest + heads.crops)
        } else {
            (trunk.inside + heads.inside, largest / 2)
        };
        Some(trunk.maps + heads.maps + heads.crops + rpn + inside + back)
    }
}

/// Numbers that some cells hold.
#[derive(Debug, Default)]
struct Stretch {
    /// Their outputs.
    maps: u64,
    /// All else that their gradients need.
    inside: u64,
    /// The same of the largest cell.
    largest: u64,
    /// What the first cell of a tail is given.
    crops: u64,
}

impl Stretch {
    /// Of `cells` on `count` maps of `sizes`, and of the stem before the first of them.
    fn over(plan: &Plan, cells: std::ops::Range<usize>, sizes: &[Size], count: u64) -> Self {
        let mut stretch = Self::default();
        if cells.start == 0 {
            stretch.maps += plan.stem_filters as u64 * area(sizes[0]) * count;
        }
        for i in cells {
            let site = &plan.cells[i];
            let sizes = [sizes[site.current.0], sizes[site.previous.0], sizes[i + 1]].map(area);
            let inside = kept_in(site, sizes) * count;
            stretch.maps += site.out_channels() as u64 * sizes[2] * count;
            stretch.inside += inside;
            stretch.largest = stretch.largest.max(inside);
        }
        stretch
    }
}

/// Numbers that the gradients of a cell need, its output apart; areas of `H`, `P` and the output.
fn kept_in(site: &Site, [current, previous, output]: [u64; 3]) -> u64 {
    // Both inputs after their ReLU.
    let mut kept =
        site.current_channels as u64 * current + site.previous_channels as u64 * previous;
    for layer in site.layers() {
        let (inputs, outputs) = (layer.inputs as u64, layer.outputs as u64);
        let (before, after) = match layer.place {
            Place::Current => (current, current),
            Place::Previous => (previous, current),
            Place::Operation { half: 1, .. } => (output, output),
            _ => (current, output),
        };
        // The map before the batch norm, and after a ReLU what reads it.
        kept += 2 * outputs * after;
        kept += match layer.kind {
            LayerKind::Separable { .. } => inputs * after,
            LayerKind::Split { .. } => outputs * before,
            // Every second pixel, twice.
            LayerKind::Factorized => inputs * before / 2,
            _ => 0,
        };
    }
    for op in site.genotype.rows.iter().flat_map(|row| row.ops) {
        if let OpKind::Max { .. } = op.kind {
            kept += INDEX / FLOAT * site.state_channels(op.input) as u64 * output;
        }
    }
    kept
}

fn area(size: Size) -> u64 {
    (size.height as u64).saturating_mul(size.width as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(recipe: &str, changes: &[&str]) -> Memory {
        let changes: Vec<_> = changes.iter().map(|text| text.parse().unwrap()).collect();
        let config = Config::recipe(recipe, &changes).unwrap();
        config.training_memory(config.largest_input(2.), 1_000_000, 800_000).unwrap()
    }

    #[test]
    fn maps_grow_with_the_batch_and_shrink_where_cells_are_computed_again() {
        let one = memory("peer_c4", &["train.batch=1"]);
        let four = memory("peer_c4", &["train.batch=4"]);
        assert_eq!((four.maps, four.weights), (4 * one.maps, one.weights));
        let again = memory("peer_c4", &["train.batch=4", "train.recompute=true"]);
        assert!(2 * again.maps < four.maps, "{} of {}", again.maps, four.maps);
        assert_eq!(again.weights, four.weights);
    }

    #[test]
    fn weights_count_gradients_state_and_average() {
        let sgd = memory("peer_c4", &["train.ema.decay=0.0"]);
        assert_eq!(sgd.weights, 4 * (1_000_000 + 2 * 800_000));
        let averaged = memory("peer_c4", &["train.ema.decay=0.9"]);
        assert_eq!(averaged.weights - sgd.weights, 4 * 1_000_000);
    }

    #[test]
    fn the_largest_input_is_that_of_the_longest_images() {
        let config = |changes: &[&str]| {
            let changes: Vec<_> = changes.iter().map(|text| text.parse().unwrap()).collect();
            Config::recipe("peer_c4", &changes).unwrap()
        };
        assert_eq!(config(&[]).largest_input(1.5), Size::new(320, 480));
        assert_eq!(config(&[]).largest_input(9.), Size::new(320, 640));
        assert_eq!(
            config(&["train.augment.short_sides=[200, 400]"]).largest_input(1.),
            Size::new(416, 416)
        );
    }
}
