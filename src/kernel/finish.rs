//! What happens to results while they are in registers: what is added to them, and where they go.

use std::ops::Range;

use crate::vector::{CACHE_LINE, Vector};

/// Where results go: row `i` to `start + at[i]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sink<'a> {
    pub(crate) start: *mut f32,
    pub(crate) at: &'a [usize],
    /// Whether negative numbers become 0.
    pub(crate) relu: bool,
}

/// What happens to a block's rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// Added to row `i` from `start + at[i]` on.
    pub(crate) residual: Option<(*const f32, &'a [usize])>,
    pub(crate) sinks: &'a [Sink<'a>],
    /// Whether the results are so many that their places are far from the processor.
    pub(crate) far: bool,
}

impl<'a> Finish<'a> {
    /// The same for the rows from `row` on; the sinks are put into `room`.
    #[inline(always)]
    pub(crate) fn from<'b>(&self, row: usize, room: &'b mut [Sink<'a>]) -> Finish<'b>
    where
        'a: 'b,
    {
        for (place, sink) in room.iter_mut().zip(self.sinks) {
            *place = Sink { at: &sink.at[row..], ..*sink };
        }
        let residual = self.residual.map(|(start, at)| (start, &at[row..]));
        Finish { residual, sinks: &room[..self.sinks.len()], far: self.far }
    }

    /// Asks for what will be added to some rows and columns, and for the places of their results, if they are far.
    ///
    /// # Safety
    /// As for [`Self::write`].
    #[inline(always)]
    pub(crate) unsafe fn fetch<V: Vector>(&self, rows: Range<usize>, columns: Range<usize>) {
        let lines = || columns.clone().step_by(CACHE_LINE);
        // SAFETY: there is a place for each row.
        unsafe {
            if let Some((start, at)) = self.residual {
                for row in rows.clone() {
                    let from = start.add(*at.get_unchecked(row));
                    lines().for_each(|line| V::prefetch(from.add(line)));
                }
            }
            for sink in if self.far { self.sinks } else { &[] } {
                for row in rows.clone() {
                    let to = sink.start.add(*sink.at.get_unchecked(row));
                    lines().for_each(|line| V::prefetch_to_write(to.add(line)));
                }
            }
        }
    }

    /// Finishes a block of some rows from row `row` on and some vectors from column `column` on.
    ///
    /// # Safety
    /// The instruction set is that of `V`; residual and sinks have a place for each of the rows, good for the vectors, and no other
    /// thread uses the sinks'.
    #[inline(always)]
    pub(crate) unsafe fn write<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &self,
        row: usize,
        column: usize,
        mut block: [[V; COLUMNS]; ROWS],
    ) {
        // SAFETY: each has a place for each row.
        unsafe {
            if let Some((start, at)) = self.residual {
                for (i, values) in block.iter_mut().enumerate() {
                    let from = start.add(*at.get_unchecked(row + i) + column);
                    for (j, value) in values.iter_mut().enumerate() {
                        *value = value.add(V::load(from.add(j * V::LANES)));
                    }
                }
            }
            for sink in self.sinks {
                // What is below becomes this: nothing is below negative infinity.
                let floor = V::splat(if sink.relu { 0. } else { f32::NEG_INFINITY });
                for (i, values) in block.iter().enumerate() {
                    let to = sink.start.add(*sink.at.get_unchecked(row + i) + column);
                    for (j, value) in values.iter().enumerate() {
                        floor.max(*value).store(to.add(j * V::LANES));
                    }
                }
            }
        }
    }
}
