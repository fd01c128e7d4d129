//! A linear layer on rows of numbers.

use detect_kernel::{Instructions, Packed, multiply};
use rayon::prelude::*;

/// The most rows of a thread's piece of work.
const BLOCK: usize = 256;

/// Weights and biases, in the order in which they are read.
#[derive(Debug)]
pub struct Dense {
    packed: Packed,
    instructions: Instructions,
}

impl Dense {
    /// The layer of `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    ///
    /// # Panics
    /// If the lengths don't fit, or without an input.
    pub fn new(weight: &[f32], bias: &[f32], outputs: usize, inputs: usize) -> Self {
        assert!(inputs > 0, "a layer without inputs");
        assert_eq!((weight.len(), bias.len()), (outputs * inputs, outputs), "weights of a layer");
        let instructions = Instructions::best();
        let of = |output: usize, input: usize| weight[output * inputs + input];
        let packed = Packed::new([outputs, inputs], instructions.packing(), of, |o| bias[o]);
        Self { packed, instructions }
    }

    /// Numbers that a row has.
    pub fn inputs(&self) -> usize {
        self.packed.inputs()
    }

    /// Numbers that come out for a row.
    pub fn outputs(&self) -> usize {
        self.packed.outputs()
    }

    /// `rows` `[M, inputs]` to `out` `[M, outputs]`, which is overwritten.
    ///
    /// # Panics
    /// If the lengths don't fit.
    pub fn run(&self, rows: &[f32], out: &mut [f32]) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        assert_eq!(rows.len() % inputs, 0, "whole rows");
        assert_eq!(out.len(), rows.len() / inputs * outputs, "a result for each row");
        if out.is_empty() {
            return;
        }
        // The weights pass by once for each piece: few pieces, but one for each thread.
        let block = (rows.len() / inputs).div_ceil(rayon::current_num_threads()).clamp(1, BLOCK);
        out.par_chunks_mut(block * outputs)
            .zip(rows.par_chunks(block * inputs))
            .for_each(|(out, rows)| multiply(self.instructions, &self.packed, rows, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_sum_of_products(
            inputs in prop_oneof![1..40_usize, 510..515_usize, 1023..1030_usize],
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
