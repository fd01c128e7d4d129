//! What happens to results while they are in registers: what is added to them, and where they go.

use crate::vector::Vector;

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
        Finish { residual, sinks: &room[..self.sinks.len()] }
    }

    /// Asks for what will be added to a block of some rows.
    ///
    /// # Safety
    /// As for [`Self::write`].
    #[inline(always)]
    pub(crate) unsafe fn fetch<V: Vector, const ROWS: usize>(&self, row: usize, column: usize) {
        if let Some((start, at)) = self.residual {
            for i in 0..ROWS {
                // SAFETY: there is a place for each row.
                unsafe { V::prefetch(start.add(*at.get_unchecked(row + i) + column)) };
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
