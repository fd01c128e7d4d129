//! Less memory for more time: the gradients of a stretch of the network (a cell, or the stem) are
//! computed from a second forward pass through it (Chen et al. 2016, *Training Deep Nets with Sublinear
//! Memory Cost*).
//!
//! The first pass keeps the maps between stretches alone. Each of them starts a graph of its own, so
//! that the losses' backward pass ends at the last ones; [`Record::backward`] then goes back stretch by
//! stretch. Both passes draw the same random numbers, and the second leaves running statistics alone:
//! the weights learn what they would learn without.

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

use crate::nn::Mode;
use crate::nn::synchronised::{self, Shared};
use crate::precision::Precision;

/// What was run without keeping what its gradients need, in order.
#[derive(Debug, Default)]
pub(super) struct Record(RefCell<Vec<Step>>);

#[derive(Debug)]
struct Step {
    /// Each starts its own graph; its gradient arrives with the backward pass of what comes behind.
    outputs: Vec<Tensor>,
    from: From,
}

#[derive(Debug)]
enum From {
    /// To be run again.
    Stretch {
        stretch: Stretch,
        mode: Mode,
        seed: Option<i64>,
        precision: Precision,
        /// Whose batches its norms take as one.
        shared: Shared,
    },
    /// The ends of a graph that was kept.
    Graph(Vec<Tensor>),
}

/// What can be run again.
#[derive(Debug)]
pub(super) enum Stretch {
    /// The stem convolution on images.
    Stem(Tensor),
    /// A cell, by its number, on the maps `H` and `P`.
    Cell(usize, [Tensor; 2]),
}

impl Record {
    /// Forgets all: the last backward pass may not have come.
    pub(super) fn clear(&self) {
        self.0.take();
    }

    /// Runs a stretch, and keeps nothing but how to run it again.
    pub(super) fn run(
        &self,
        stretch: Stretch,
        mode: Mode,
        seed: Option<i64>,
        forward: impl Fn(&Stretch, Mode) -> Tensor,
    ) -> Tensor {
        let output = tch::no_grad(|| forward(&stretch, mode)).set_requires_grad(true);
        let outputs = vec![output.shallow_clone()];
        let precision = Precision::current(output.device());
        let shared = synchronised::current();
        let from = From::Stretch { stretch, mode, seed, precision, shared };
        self.0.borrow_mut().push(Step { outputs, from });
        output
    }

    /// The same maps without the graph that made them, which is kept as it is.
    pub(super) fn cut(&self, maps: &[Tensor]) -> Vec<Tensor> {
        let anew = maps.iter().map(|map| map.detach().set_requires_grad(true));
        let outputs: Vec<Tensor> = anew.collect();
        let handed_out = outputs.iter().map(Tensor::shallow_clone).collect();
        let from = From::Graph(maps.iter().map(Tensor::shallow_clone).collect());
        self.0.borrow_mut().push(Step { outputs, from });
        handed_out
    }

    /// Goes on with a backward pass that has ended at the outputs of what was run.
    pub(super) fn backward(&self, forward: impl Fn(&Stretch, Mode) -> Tensor) {
        let mut steps = self.0.take();
        // Each is dropped when it is done, with its map and gradient.
        while let Some(Step { outputs, from }) = steps.pop() {
            let gradients: Vec<Tensor> = outputs.iter().map(Tensor::grad).collect();
            if !gradients.iter().any(Tensor::defined) {
                continue;
            }
            let again = match from {
                From::Graph(maps) => maps,
                From::Stretch { stretch, mode, seed, precision, shared } => {
                    seed.into_iter().for_each(tch::manual_seed);
                    let device = outputs[0].device();
                    let again = || precision.within(device, || forward(&stretch, mode.again()));
                    vec![synchronised::within(shared.group, shared.takes_part, again)]
                }
            };
            let pairs = again.iter().zip(&gradients);
            let learns = pairs.filter(|(map, gradient)| map.requires_grad() && gradient.defined());
            // The derivative of this sum by a map is its gradient.
            let sums = learns.map(|(map, gradient)| (map * gradient).sum(None::<Kind>));
            if let Some(sum) = sums.reduce(|a, b| a + b) {
                sum.backward();
            }
        }
    }
}

/// Starts libtorch's generator anew from a number that it draws, and returns that: what follows can
/// be drawn again.
pub(super) fn reseed() -> i64 {
    let drawn = Tensor::randint(i64::MAX, [1], (Kind::Int64, Device::Cpu));
    let seed = drawn.int64_value(&[0]);
    tch::manual_seed(seed);
    seed
}
