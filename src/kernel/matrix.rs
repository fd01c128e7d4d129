//! Products of plain matrices.

use crate::finish::{Finish, Sink};
use crate::instructions::Instructions;
use crate::packed::{Packed, Reading, Segment};
use crate::product::{Product, Rows};
use crate::vector::{Kernel, Vector};

/// Rows of a plain matrix times weights, on this thread.
struct Matrix<'a> {
    weights: &'a Packed,
    rows: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Matrix<'_> {
    /// # Safety
    /// The weights were packed for `V`; `rows` are whole and `out` has as many.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { weights, rows, out } = self;
        let count = rows.len() / weights.inputs;
        let (padded, outputs) = (weights.padded(), weights.outputs);
        let reading = Reading::new(&[Segment { offset: 0, length: weights.inputs }]);
        let mut room = vec![0.; reading.room(count, weights)];
        // Whole vectors are written: by way of a wider matrix where a row does not end with one.
        let mut wide = vec![0.; if padded == outputs { 0 } else { count * padded }];
        let start = if padded == outputs { out.as_mut_ptr() } else { wide.as_mut_ptr() };
        let at: Vec<usize> = (0..count).map(|row| row * padded).collect();
        let sinks = [Sink { start, at: &at, relu: false }];
        let finish = Finish { residual: None, sinks: &sinks, far: false };
        let from = Rows { first: rows.as_ptr(), distance: weights.inputs, count };
        // SAFETY: rows, room and sink have the lengths that are needed.
        unsafe {
            let words = from.words::<V>(false, &reading, weights, room.as_mut_ptr());
            Product { words, weights, finish }.run::<V>();
        };
        if padded != outputs {
            for (to, from) in out.chunks_exact_mut(outputs).zip(wide.chunks_exact(padded)) {
                to.copy_from_slice(&from[..outputs]);
            }
        }
    }
}

/// `rows` `[M, inputs]` times `weights`, plus the bias, to `out` `[M, outputs]`, on this thread.
///
/// # Panics
/// If the lengths don't fit, or the weights were packed for other instructions.
pub fn multiply(instructions: Instructions, weights: &Packed, rows: &[f32], out: &mut [f32]) {
    assert_eq!(weights.packing(), instructions.packing(), "weights for these instructions");
    assert!(rows.len().is_multiple_of(weights.inputs), "whole rows");
    assert_eq!(rows.len() / weights.inputs * weights.outputs, out.len(), "a result for each row");
    if !out.is_empty() {
        // SAFETY: as asserted.
        unsafe { instructions.run(Matrix { weights, rows, out }) }
    }
}
