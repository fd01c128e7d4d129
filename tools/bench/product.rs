//! `cargo bench -p detect-kernel --bench product`: the engine's matrix product beside those of two crates, on one core.
//!
//! The shapes are those of NASNet-A 4@1056 at 600 and 6@4032 at 331: pixels, channels read, channels made. Each cell is the
//! median of five rounds, in which the sides take turns, of nine runs each. The crates get plain matrices, and pack what
//! they need anew each time; the engine has its weights packed, goes over the pixels in tiles, and makes rows of whole
//! vectors, as it does in a network. What it does for outputs that nobody asked for does not count.

#![expect(unsafe_code, reason = "the crates take pointers")]
#![expect(clippy::print_stdout, reason = "it is what the bench is for")]

use std::hint::black_box;
use std::time::Instant;

use detect_kernel::{Instructions, Packed, multiply};
use gemm::Parallelism;
use matrixmultiply::sgemm;

const SHAPES: [[usize; 3]; 13] = [
    [784, 44, 44],
    [5625, 44, 44],
    [5625, 264, 44],
    [1444, 88, 88],
    [1444, 528, 88],
    [361, 176, 176],
    [361, 1056, 176],
    [1764, 168, 168],
    [1764, 1008, 168],
    [441, 336, 336],
    [441, 2016, 336],
    [121, 672, 672],
    [121, 4032, 672],
];
/// Pixels of a tile.
const TILE: usize = 72;

fn main() {
    let instructions = Instructions::best();
    println!("GFLOP/s on one core, {}", instructions.title());
    println!(
        "{:>6} {:>5} {:>5} {:>9} {:>9} {:>15}",
        "rows", "in", "out", "detect", "gemm", "matrixmultiply"
    );
    for [rows, inputs, outputs] in SHAPES {
        let number = |i: usize| (i % 13) as f32 - 6.;
        let a: Vec<f32> = (0..rows * inputs).map(number).collect();
        let b: Vec<f32> = (0..inputs * outputs).map(number).collect();
        let mut c = vec![0_f32; rows * outputs];
        let whole = outputs.next_multiple_of(instructions.lanes());
        let mut own = vec![0_f32; rows * whole];
        let weight = |output: usize, input: usize| {
            if output < outputs { b[input * outputs + output] } else { 0. }
        };
        let packed = Packed::new([whole, inputs], instructions.packing(), weight, |_| 0.);
        let [m, k, n] = [rows, inputs, outputs].map(|side| side as isize);
        let mut rounds: [Vec<f64>; 3] = Default::default();
        for _ in 0..5 {
            rounds[0].push(median(9, || {
                for (rows, made) in a.chunks(TILE * inputs).zip(own.chunks_mut(TILE * whole)) {
                    multiply(instructions, &packed, rows, made);
                }
            }));
            let (left, right, to) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
            // SAFETY: the matrices have these sides, row by row.
            rounds[1].push(median(9, || unsafe {
                let none = Parallelism::None;
                gemm::gemm(
                    rows, outputs, inputs, to, 1, n, false, left, 1, k, right, 1, n, 0., 1., false,
                    false, false, none,
                );
            }));
            // SAFETY: as above.
            rounds[2].push(median(9, || unsafe {
                sgemm(rows, inputs, outputs, 1., left, k, 1, right, n, 1, 0., to, n, 1);
            }));
            black_box((&own, &c));
        }
        let work = 2. * (m * k * n) as f64 / 1e9;
        let [ours, gemm, matrixmultiply] = rounds.map(|mut times| {
            times.sort_by(f64::total_cmp);
            work / times[times.len() / 2]
        });
        println!("{rows:6} {inputs:5} {outputs:5} {ours:9.1} {gemm:9.1} {matrixmultiply:15.1}");
    }
}

/// Seconds of a run.
fn median(runs: usize, mut run: impl FnMut()) -> f64 {
    run();
    let once = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    let mut times: Vec<f64> = (0..runs).map(once).collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}
