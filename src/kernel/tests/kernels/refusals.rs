//! Steps that would leave the memory, or that a kernel can't take: `run` panics before it touches anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use detect_kernel::{
    Aligned, Fold, Grid, Instructions, Operation, Out, Packed, Packing, Reading, Segment, Step,
    View,
};

use crate::maps::{Maps, after};

const SET: Instructions = Instructions::portable();
const GRID: Grid = Grid { images: 2, height: 2, width: 3 };
const LANES: usize = 8;

/// Floats of the memory, and of what is given.
type Room = [usize; 2];

/// What `step` does in memories of just this size.
fn ran(step: &Step, [memory, given]: Room) -> Result<(), String> {
    let run = || after(SET, 1, step, &vec![0.; memory], &vec![0.; given]);
    catch_unwind(AssertUnwindSafe(run)).map(drop).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| panic.downcast_ref::<String>().cloned()).expect("panics have a text")
    })
}

#[track_caller]
fn refused(step: &Step, room: Room, why: &str) {
    let error = ran(step, room).expect_err(why);
    assert!(error.contains(why), "{error}, expected: {why}");
}

/// A map at the end of the memory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Last {
    Source,
    Residual,
    Out,
}

/// Views of a source of `size` with `channels` floats, a residual and a result with a margin of one pixel.
fn laid_out(last: Last, size: [usize; 2], channels: usize) -> ([View; 3], usize) {
    let mut maps = Maps::default();
    let mut views = [View { start: 0, pixel: 0, row: 0, image: 0 }; 3];
    let source = Grid { images: GRID.images, height: size[0], width: size[1] };
    let mut order = [Last::Source, Last::Residual, Last::Out];
    order.sort_by_key(|&map| map == last);
    for map in order {
        views[map as usize] = match map {
            Last::Source => maps.add(source, channels, 0, [0; 4]),
            Last::Residual => maps.add(GRID, LANES, 0, [0; 4]),
            Last::Out => maps.add(GRID, LANES, 1, [0; 4]),
        };
    }
    (views, maps.floats.len())
}

/// A step with `operation(source)` that is good for a memory of just this size.
fn step(
    last: Last,
    size: [usize; 2],
    channels: usize,
    operation: impl Fn(View) -> Operation,
) -> (Step, Room) {
    let ([source, residual, view], floats) = laid_out(last, size, channels);
    let operation = operation(source);
    let adds = !matches!(operation, Operation::Norm { .. });
    let step = Step {
        operation,
        grid: GRID,
        channels: LANES,
        residual: adds.then_some(residual),
        outs: vec![Out { view, relu: false, margin: 1, around: LANES }],
    };
    (step, [floats, 0])
}

fn weights(inputs: usize) -> Arc<Packed> {
    Arc::new(Packed::new([5, inputs], SET.packing(), |_, _| 1., |_| 0.))
}

fn reading(length: usize) -> Reading {
    Reading::new(&[Segment { offset: 0, length }])
}

/// A step is right with just enough memory, and refused with one float less, whichever map is the last.
#[track_caller]
fn needs_all(
    size: [usize; 2],
    channels: usize,
    source: &str,
    operation: impl Fn(View) -> Operation,
) -> (Step, Room) {
    let whys = [source, "a residual leaves the memory", "a result leaves the memory"];
    for (last, why) in [Last::Source, Last::Residual, Last::Out].into_iter().zip(whys) {
        let (step, [memory, given]) = step(last, size, channels, &operation);
        ran(&step, [memory, given]).unwrap();
        if last != Last::Residual || step.residual.is_some() {
            refused(&step, [memory - 1, given], why);
        }
    }
    let (mut other, room) = step(Last::Out, size, channels, &operation);
    // No room for the margin before the first row.
    other.outs[0].view.start = other.outs[0].view.row;
    refused(&other, room, "a margin begins before the memory");
    let (mut other, room) = step(Last::Out, size, channels, &operation);
    other.outs = vec![other.outs[0]; 7];
    refused(&other, room, "more results than places for them");
    step(Last::Source, size, channels, operation)
}

#[test]
fn a_product_that_leaves_its_source() {
    // Two taps, of which the second has no pixel in the last row and column.
    let product = |source: View| {
        let second = Segment { offset: source.row + source.pixel, length: 4 };
        let first = Segment { offset: 0, length: 4 };
        Operation::Product {
            given: false,
            source,
            stride: [1; 2],
            reading: Reading::new(&[first, second]),
            edge: reading(4),
            valid: [1, 2],
            weights: weights(8),
        }
    };
    let (step, room) = needs_all([2, 3], 4, "a product leaves its source", product);
    let with = |change: &dyn Fn(&mut Operation)| {
        let mut step = step.clone();
        change(&mut step.operation);
        step
    };
    let wrong = with(&|o| {
        let Operation::Product { valid, .. } = o else { unreachable!() };
        *valid = [2, 3];
    });
    refused(&wrong, room, "a product leaves its source");
    let wrong = with(&|o| {
        let Operation::Product { stride, .. } = o else { unreachable!() };
        *stride = [1, 2];
    });
    refused(&wrong, room, "a product leaves its source");
    let wrong = with(&|o| {
        let Operation::Product { valid, .. } = o else { unreachable!() };
        *valid = [3, 0];
    });
    refused(&wrong, room, "valid outputs beyond the grid");
    let wrong = with(&|o| {
        let Operation::Product { weights, .. } = o else { unreachable!() };
        *weights = self::weights(9);
    });
    refused(&wrong, room, "inputs of a product");
    let wrong = with(&|o| {
        let Operation::Product { edge, weights, .. } = o else { unreachable!() };
        (*edge, *weights) =
            (Reading::new(&[Segment { offset: 0, length: 3 }; 3]), self::weights(8));
    });
    refused(&wrong, room, "inputs of a product at the edge");
    let wrong = with(&|o| {
        let Operation::Product { weights, .. } = o else { unreachable!() };
        *weights = Arc::new(Packed::new([9, 8], SET.packing(), |_, _| 1., |_| 0.));
    });
    refused(&wrong, room, "outputs of a product");
    let wrong = with(&|o| {
        let Operation::Product { weights, .. } = o else { unreachable!() };
        let packing = Packing { lanes: SET.lanes() / 2, ..SET.packing() };
        *weights = Arc::new(Packed::new([5, 8], packing, |_, _| 1., |_| 0.));
    });
    refused(&wrong, room, "weights for these instructions");
    // The same of what the program is given, which ends where the source does.
    let wrong = with(&|o| {
        let Operation::Product { given, source, .. } = o else { unreachable!() };
        (*given, source.start) = (true, 0);
    });
    ran(&wrong, [room[0], 2 * 2 * 3 * 4]).unwrap();
    refused(&wrong, [room[0], 2 * 2 * 3 * 4 - 1], "a product leaves its source");
}

#[test]
fn a_separable_convolution_that_leaves_its_source() {
    let depthwise: Arc<Aligned> = Arc::new(vec![1.; 9 * LANES].into_iter().collect());
    let separable = |source: View| Operation::Separable {
        source,
        stride: 1,
        kernel: 3,
        depthwise: depthwise.clone(),
        channels: LANES,
        reading: reading(6),
        weights: weights(6),
    };
    let (step, room) = needs_all([4, 5], LANES, "a window leaves its source", separable);
    let with = |change: &dyn Fn(&mut Operation)| {
        let mut step = step.clone();
        change(&mut step.operation);
        step
    };
    let wrong = with(&|o| {
        let Operation::Separable { stride, .. } = o else { unreachable!() };
        *stride = 2;
    });
    refused(&wrong, room, "a window leaves its source");
    let wrong = with(&|o| {
        let Operation::Separable { depthwise, .. } = o else { unreachable!() };
        *depthwise = Arc::new(vec![1.; 9 * LANES - 1].into_iter().collect());
    });
    refused(&wrong, room, "depthwise weights");
    let wrong = with(&|o| {
        let Operation::Separable { reading, .. } = o else { unreachable!() };
        *reading = Reading::new(&[Segment { offset: 3, length: 6 }]);
    });
    refused(&wrong, room, "a product leaves its window's result");
    let wrong = with(&|o| {
        let Operation::Separable { weights, .. } = o else { unreachable!() };
        *weights = self::weights(7);
    });
    refused(&wrong, room, "inputs of a product");
    let wrong = with(&|o| {
        let Operation::Separable { channels, depthwise, .. } = o else { unreachable!() };
        (*channels, *depthwise) =
            (LANES - 1, Arc::new(vec![1.; 9 * (LANES - 1)].into_iter().collect()));
    });
    refused(&wrong, room, "channels that end in a vector");
}

#[test]
fn a_pool_that_leaves_its_source() {
    let pool = |source: View| Operation::Pool {
        source,
        size: [3, 5],
        stride: 2,
        kernel: 3,
        fold: Fold::Largest,
    };
    let (step, room) = needs_all([3, 5], LANES, "a pool leaves its source", pool);
    for (wrong_size, wrong_stride, why) in [
        // Windows without a pixel.
        ([1, 5], 2, "outputs of a pool"),
        ([3, 5], 4, "outputs of a pool"),
        ([0, 5], 2, "outputs of a pool"),
        ([3, 5], 0, "a pool without pixels"),
        ([4, 5], 2, "a pool leaves its source"),
    ] {
        let mut wrong = step.clone();
        let Operation::Pool { size, stride, .. } = &mut wrong.operation else { unreachable!() };
        (*size, *stride) = (wrong_size, wrong_stride);
        refused(&wrong, room, why);
    }
    let mut wrong = step.clone();
    wrong.channels = LANES - 1;
    refused(&wrong, room, "channels that end in a vector");
}

#[test]
fn a_copy_that_leaves_its_source() {
    let segments = vec![Segment { offset: 1, length: 2 }, Segment { offset: 4, length: 3 }];
    let copy = |source: View| Operation::Copy { given: false, source, segments: segments.clone() };
    let (step, room) = needs_all([2, 3], 7, "a copy leaves its source", copy);
    let mut wrong = step.clone();
    wrong.channels = 4;
    refused(&wrong, room, "a copy leaves its pixel");
    let mut wrong = step;
    let Operation::Copy { given, source, .. } = &mut wrong.operation else { unreachable!() };
    (*given, source.start) = (true, 0);
    ran(&wrong, [room[0], 2 * 2 * 3 * 7]).unwrap();
    refused(&wrong, [room[0], 2 * 2 * 3 * 7 - 1], "a copy leaves its source");
}

#[test]
fn a_norm_that_leaves_its_source() {
    let norm = |source: View| Operation::Norm {
        source,
        together: true,
        epsilon: 1e-6,
        scale: vec![1.; 6],
        offset: vec![0.; 6],
    };
    let (step, room) = needs_all([2, 3], 6, "a norm leaves its source", norm);
    let mut wrong = step.clone();
    wrong.channels = 5;
    refused(&wrong, room, "a norm leaves its pixel");
    let mut wrong = step.clone();
    let Operation::Norm { offset, .. } = &mut wrong.operation else { unreachable!() };
    offset.pop();
    refused(&wrong, room, "a scale and an offset a channel");
    let mut wrong = step;
    wrong.residual = Some(wrong.outs[0].view);
    refused(&wrong, room, "a norm adds nothing");
}
