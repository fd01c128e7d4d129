//! What is no number: it goes on, also where negative numbers become 0, so that whoever looks at results finds it.

use std::sync::Arc;

use detect_kernel::{Fold, Grid, Instructions, Operation, Packed, Reading, Segment, Step};

use crate::maps::{Maps, Target, after, pixels, place, sets};

const GRID: Grid = Grid { images: 1, height: 1, width: 9 };

/// One channel of `values`, through an operation, to a place after ReLU.
fn rectified(set: Instructions, values: [f32; 9], operation: &str) -> Vec<f32> {
    let channels = set.lanes();
    let mut maps = Maps::default();
    let source = maps.filled(
        GRID,
        channels,
        [0; 4],
        |[_, _, x], channel| {
            if channel == 0 { values[x] } else { 0. }
        },
    );
    let outs = maps.outs(&[Target { relu: true, margin: 0, gaps: [0; 4] }], GRID, channels);
    let segment = Segment { offset: 0, length: 1 };
    let operation = match operation {
        "product" => {
            let one = Packed::new([1, 1], set.packing(), |_, _| 1., |_| 0.);
            let reading = Reading::new(&[segment]);
            Operation::Product {
                given: false,
                source,
                stride: [1, 1],
                edge: reading.clone(),
                reading,
                valid: [1, 9],
                weights: Arc::new(one),
            }
        }
        "mean" | "largest" => Operation::Pool {
            source,
            size: [1, 9],
            stride: 1,
            kernel: 1,
            fold: if operation == "mean" { Fold::Mean(1.) } else { Fold::Largest },
        },
        "norm" => Operation::Norm {
            source,
            together: false,
            epsilon: 1e-3,
            scale: vec![1.],
            offset: vec![0.],
        },
        _ => Operation::Copy { given: false, source, segments: vec![segment] },
    };
    let step = Step { operation, grid: GRID, channels, residual: None, outs };
    let found = after(set, 1, &step, &maps.floats, &[]);
    pixels(GRID).map(|pixel| found[place(&step.outs[0].view, pixel)]).collect()
}

#[test]
fn relu_hands_on_what_is_no_number() {
    let values = [-2., f32::NAN, 3., f32::INFINITY, f32::NEG_INFINITY, -0.5, f32::NAN, 0., 7.];
    for set in sets() {
        for operation in ["product", "mean", "largest", "copy"] {
            for (i, found) in rectified(set, values, operation).into_iter().enumerate() {
                let (value, with) = (values[i], (set.name(), operation));
                if value.is_nan() {
                    assert!(found.is_nan(), "{with:?}: {found} where it was no number");
                } else {
                    assert_eq!(found, if value < 0. { 0. } else { value }, "{with:?}");
                }
            }
        }
    }
}

#[test]
fn the_largest_of_what_is_no_number_is_none() {
    // Wherever it stands among the nine pixels that the one in the middle looks at.
    let nine = Grid { images: 1, height: 3, width: 3 };
    let target = Target { relu: false, margin: 0, gaps: [0; 4] };
    for set in sets() {
        for at in 0..9 {
            let mut maps = Maps::default();
            let value = |[_, y, x]: [usize; 3], _| {
                if 3 * y + x == at { f32::NAN } else { (y + x) as f32 }
            };
            let source = maps.filled(nine, set.lanes(), [0; 4], value);
            let outs = maps.outs(&[target], nine, set.lanes());
            let operation =
                Operation::Pool { source, size: [3, 3], stride: 1, kernel: 3, fold: Fold::Largest };
            let step = Step { operation, grid: nine, channels: set.lanes(), residual: None, outs };
            let found = after(set, 1, &step, &maps.floats, &[]);
            let found = found[place(&step.outs[0].view, [0, 1, 1])];
            assert!(found.is_nan(), "{}, number {at}: {found}", set.name());
        }
    }
}

#[test]
fn a_norm_over_what_is_no_number_is_none() {
    let values = [-2., f32::NAN, 3., 1., 4., -0.5, 2., 0., 7.];
    for set in sets() {
        let found = rectified(set, values, "norm");
        assert!(found.iter().all(|x| x.is_nan()), "{}: {found:?}", set.name());
    }
}
