//! `multiply`.

use detect_kernel::{Instructions, Packed, multiply};
use proptest::prelude::*;

use crate::maps::{number, read_by, sets};

/// Rows times weights, at the precision of `f64`.
fn plain(weight: &[f32], bias: &[f32], rows: &[f32], inputs: usize) -> Vec<f64> {
    let one = |row: &[f32], output: usize| {
        let weight = &weight[output * inputs..][..inputs];
        let products = row.iter().zip(weight).map(|(&x, &w)| f64::from(x) * f64::from(w));
        f64::from(bias[output]) + products.sum::<f64>()
    };
    rows.chunks_exact(inputs)
        .flat_map(|row| (0..bias.len()).map(move |output| one(row, output)))
        .collect()
}

fn found(set: Instructions, weight: &[f32], bias: &[f32], rows: &[f32], inputs: usize) -> Vec<f32> {
    let of = |output: usize, input: usize| weight[output * inputs + input];
    let packed = Packed::new([bias.len(), inputs], set.packing(), of, |o| bias[o]);
    let mut out = vec![f32::NAN; rows.len() / inputs * bias.len()];
    multiply(set, &packed, rows, &mut out);
    out
}

fn sizes() -> impl Strategy<Value = (usize, usize, usize)> {
    // The inputs at which another part begins, too.
    let inputs = prop_oneof![1..60_usize, 500..530_usize, 1..1100_usize, 1020..1030_usize];
    (inputs, 1..130_usize, 0..70_usize)
}

proptest! {
    #[test]
    fn of_whole_numbers_it_is_exact((inputs, outputs, rows) in sizes(), seed in any::<u32>()) {
        let numbers = |count: usize, seed| (0..count).map(|i| number(seed, i)).collect::<Vec<_>>();
        let (weight, bias) = (numbers(outputs * inputs, seed), numbers(outputs, !seed));
        let rows = numbers(rows * inputs, seed ^ 1);
        let expected = plain(&weight, &bias, &rows, inputs);
        for set in sets() {
            let found = found(set, &weight, &bias, &rows, inputs);
            prop_assert_eq!(found.len(), expected.len());
            for (&found, &expected) in found.iter().zip(&expected) {
                prop_assert_eq!(f64::from(found), expected, "{}", set.name());
            }
        }
    }

    #[test]
    fn of_other_numbers_it_is_as_exact_as_any_order_of_adding(
        (inputs, outputs, rows) in sizes(),
        seed in any::<u32>(),
    ) {
        let numbers = |count: usize, seed| {
            (0..count).map(|i| number(seed, i) + number(!seed, i) / 7e3).collect::<Vec<_>>()
        };
        let (weight, bias) = (numbers(outputs * inputs, seed), numbers(outputs, seed ^ 2));
        let rows = numbers(rows * inputs, seed ^ 1);
        let sizes = |numbers: &[f32]| numbers.iter().map(|x| x.abs()).collect::<Vec<_>>();
        let largest = plain(&sizes(&weight), &sizes(&bias), &sizes(&rows), inputs);
        for set in sets() {
            let read = |numbers: &[f32]| -> Vec<f32> { numbers.iter().map(|&x| read_by(set, x)).collect() };
            let expected = plain(&read(&weight), &bias, &read(&rows), inputs);
            let found = found(set, &weight, &bias, &rows, inputs);
            for ((&found, &expected), &largest) in found.iter().zip(&expected).zip(&largest) {
                // Each of the products and sums is rounded once, by half a unit of at most the sum of absolute values.
                let limit = (inputs + 1) as f64 * f64::from(f32::EPSILON) * largest;
                let off = (f64::from(found) - expected).abs();
                prop_assert!(off <= limit, "{}: {} instead of {}", set.name(), found, expected);
            }
        }
    }
}

#[test]
#[should_panic(expected = "whole rows")]
fn rows_must_be_whole() {
    let set = Instructions::portable();
    let packed = Packed::new([1, 3], set.packing(), |_, _| 1., |_| 0.);
    multiply(set, &packed, &[0.; 4], &mut [0.]);
}

#[test]
#[should_panic(expected = "a result for each row")]
fn results_must_have_room() {
    let set = Instructions::portable();
    let packed = Packed::new([2, 3], set.packing(), |_, _| 1., |_| 0.);
    multiply(set, &packed, &[0.; 6], &mut [0.; 3]);
}

#[test]
#[should_panic(expected = "weights for these instructions")]
fn weights_are_packed_for_the_instructions() {
    let packed = Packed::new([1, 3], Instructions::portable_bf16().packing(), |_, _| 1., |_| 0.);
    multiply(Instructions::portable(), &packed, &[0.; 3], &mut [0.]);
}
