//! A linear layer on rows of numbers.

use rayon::prelude::*;

/// Outputs that are computed together.
const PANEL: usize = 16;
/// Rows that are computed together.
const TILE: usize = 4;
/// Rows of a thread's piece of work.
const BLOCK: usize = 32;
/// Inputs that are added up before they join the sum: a panel of them stays in the cache, and long sums stay exact.
const DEPTH: usize = 512;

/// Weights and biases, in the order in which they are read.
#[derive(Debug)]
pub struct Dense {
    /// `[outputs / PANEL, inputs, PANEL]`, the last panel filled up with zeros.
    panels: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Dense {
    /// The layer of `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    ///
    /// # Panics
    /// If the lengths don't fit, or without an input.
    pub fn new(weight: &[f32], bias: &[f32], outputs: usize, inputs: usize) -> Self {
        assert!(inputs > 0, "a layer without inputs");
        assert_eq!((weight.len(), bias.len()), (outputs * inputs, outputs), "weights of a layer");
        let mut panels = vec![0.; outputs.next_multiple_of(PANEL) * inputs];
        for (output, row) in weight.chunks_exact(inputs).enumerate() {
            let panel = &mut panels[output / PANEL * PANEL * inputs..][..PANEL * inputs];
            for (to, &from) in panel[output % PANEL..].iter_mut().step_by(PANEL).zip(row) {
                *to = from;
            }
        }
        Self { panels, bias: bias.to_vec(), inputs }
    }

    /// Numbers that a row has.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers that come out for a row.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// `rows` `[M, inputs]` to `out` `[M, outputs]`, which is overwritten.
    ///
    /// # Panics
    /// If the lengths don't fit.
    pub fn run(&self, rows: &[f32], out: &mut [f32]) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        assert_eq!(rows.len() % inputs, 0, "whole rows");
        assert_eq!(out.len(), rows.len() / inputs * outputs, "a result for each row");
        if out.is_empty() {
            return;
        }
        out.par_chunks_mut(BLOCK * outputs)
            .zip(rows.par_chunks(BLOCK * inputs))
            .for_each(|(out, rows)| self.block(rows, out));
    }

    /// [`Self::run`] on one thread.
    fn block(&self, rows: &[f32], out: &mut [f32]) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        out.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(&self.bias));
        for depth in (0..inputs).step_by(DEPTH) {
            let end = inputs.min(depth + DEPTH);
            for (i, panel) in self.panels.chunks_exact(PANEL * inputs).enumerate() {
                let panel = &panel[depth * PANEL..end * PANEL];
                let columns = i * PANEL..outputs.min((i + 1) * PANEL);
                for (out, rows) in out.chunks_mut(TILE * outputs).zip(rows.chunks(TILE * inputs)) {
                    // A tile that is not full reads its first row again.
                    let count = rows.len() / inputs;
                    let tile: [&[f32]; TILE] = std::array::from_fn(|r| {
                        let row = if r < count { r } else { 0 };
                        &rows[row * inputs + depth..row * inputs + end]
                    });
                    let sums = products(tile, panel);
                    for (row, sums) in out.chunks_exact_mut(outputs).zip(&sums) {
                        for (to, sum) in row[columns.clone()].iter_mut().zip(sums) {
                            *to += sum;
                        }
                    }
                }
            }
        }
    }
}

/// Rows times a panel `[inputs, PANEL]`.
fn products(rows: [&[f32]; TILE], panel: &[f32]) -> [[f32; PANEL]; TILE] {
    let mut sums = [[0.; PANEL]; TILE];
    let [a, b, c, d] = rows;
    let rows = a.iter().zip(b).zip(c.iter().zip(d));
    for (weights, ((a, b), (c, d))) in panel.as_chunks::<PANEL>().0.iter().zip(rows) {
        for (sums, x) in sums.iter_mut().zip([a, b, c, d]) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += x * weight;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_sum_of_products(
            inputs in prop_oneof![1..40_usize, DEPTH - 2..DEPTH + 3],
            outputs in 1..40_usize,
            rows in 0..70_usize,
            seed in 0..1000_i32,
        ) {
            // Small whole numbers: every order of adding gives the same.
            let number = |i: usize| (((i as i32).wrapping_mul(7919) ^ seed) % 7 - 3) as f32;
            let numbers = |count: usize| (0..count).map(number).collect::<Vec<_>>();
            let (weight, bias, xs) = (numbers(outputs * inputs), numbers(outputs), numbers(rows * inputs));
            let mut found = vec![f32::NAN; rows * outputs];
            Dense::new(&weight, &bias, outputs, inputs).run(&xs, &mut found);
            for (row, found) in xs.chunks_exact(inputs).zip(found.chunks_exact(outputs)) {
                for (o, &found) in found.iter().enumerate() {
                    let weight = &weight[o * inputs..][..inputs];
                    let sum: f32 = row.iter().zip(weight).map(|(x, w)| x * w).sum();
                    prop_assert_eq!(sum + bias[o], found);
                }
            }
        }
    }
}
