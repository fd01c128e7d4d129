//! Matrix products: some rows of words, which are floats or two inputs in bfloat16, times packed weights.
//!
//! A block of the result, a few rows by a few vectors, stays in registers while all of the weights of its columns
//! pass by; those lie in the order in which they are read. Rows need not be contiguous: a row is a list of segments,
//! so that a convolution reads its taps, and a concatenation its parts, where they lie.

use std::ops::Range;

use half::bf16;

use crate::finish::Finish;
use crate::packed::{Packed, Panel, Reading, Segment, cut};
use crate::vector::{CACHE_LINE, Kernel, Vector};

/// Rows at equal distances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) first: *const f32,
    pub(crate) distance: usize,
    pub(crate) count: usize,
}

impl Rows {
    /// Words of what is read of rows of floats: where a word is a float those rows, else others, made in `room`.
    ///
    /// # Safety
    /// The rows are far from the processor, or not, and lie in memory as far as `reading` goes, which is no longer than
    /// the weights' inputs; `room` is good for [`Reading::room`] floats, and no other thread uses it.
    #[inline(always)]
    pub(crate) unsafe fn words<'a, V: Vector>(
        self,
        cold: bool,
        reading: &'a Reading,
        weights: &'a Packed,
        room: *mut f32,
    ) -> Words<'a> {
        if V::INPUTS == 1 {
            return Words { rows: self, cold, reading, room };
        }
        let distance = weights.words();
        // SAFETY: the caller's.
        unsafe {
            V::call(Narrow { rows: self, cold, reading, words: room, distance });
            let rows = Rows { first: room, distance, ..self };
            Words {
                rows,
                cold: false,
                reading: &weights.all,
                room: room.add(self.count * distance),
            }
        }
    }

    /// How words of the outputs of a depthwise convolution are read, which begin at `first`: floats where they lie; of two
    /// inputs a word segments are moved together, and what stands beside the last input is made zero.
    ///
    /// # Safety
    /// The words lie in memory that no other thread uses, and `reading` reads all of the weights' inputs.
    #[inline(always)]
    pub(crate) unsafe fn together<'a, V: Vector>(
        self,
        first: *mut f32,
        reading: &'a Reading,
        weights: &'a Packed,
    ) -> &'a Reading {
        if V::INPUTS == 1 {
            return reading;
        }
        let segments = || reading.parts.iter().flatten();
        let next = |end: usize, s: &Segment| (s.offset == end).then_some(end + s.length);
        let neighbours = segments().try_fold(0, next).is_some();
        if !neighbours || !weights.inputs.is_multiple_of(V::INPUTS) {
            for row in 0..self.count {
                let mut done = 0;
                // SAFETY: the caller's; a segment never moves to the right.
                unsafe {
                    let row = first.add(row * self.distance).cast::<bf16>();
                    for segment in segments() {
                        row.add(segment.offset).copy_to(row.add(done), segment.length);
                        done += segment.length;
                    }
                    row.add(done).write_bytes(0, weights.words() * V::INPUTS - done);
                }
            }
        }
        &weights.all
    }
}

/// What a product reads.
pub(crate) struct Words<'a> {
    pub(crate) rows: Rows,
    /// Whether the rows are far from the processor, and so is what follows them in the same distance.
    pub(crate) cold: bool,
    pub(crate) reading: &'a Reading,
    /// For sums of parts.
    pub(crate) room: *mut f32,
}

/// Makes words of rows of floats, side by side, and zeros of the inputs that are not read.
struct Narrow<'a> {
    rows: Rows,
    cold: bool,
    reading: &'a Reading,
    words: *mut f32,
    /// Words of a row.
    distance: usize,
}

impl Kernel for Narrow<'_> {
    /// # Safety
    /// As for [`Rows::words`].
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { rows, cold, reading, words, distance } = self;
        for row in 0..rows.count {
            // SAFETY: the caller's.
            unsafe {
                let from = rows.first.wrapping_add(row * rows.distance);
                let to = words.add(row * distance).cast::<bf16>();
                let mut done = 0;
                for segment in reading.parts.iter().flatten() {
                    if cold {
                        // What will be made words of next comes from afar: during the product.
                        let next = rows.count * rows.distance + segment.offset;
                        for line in (0..segment.length).step_by(CACHE_LINE) {
                            V::prefetch(from.wrapping_add(next + line));
                        }
                    }
                    V::narrow(from.add(segment.offset), segment.length, to.add(done));
                    done += segment.length;
                }
                to.add(done).write_bytes(0, distance * V::INPUTS - done);
            }
        }
    }
}

/// Words times the first of the `weights`, as many as are read, plus the bias, finished.
pub(crate) struct Product<'a> {
    pub(crate) words: Words<'a>,
    pub(crate) weights: &'a Packed,
    pub(crate) finish: Finish<'a>,
}

impl Kernel for Product<'_> {
    /// # Safety
    /// The weights were packed for `V`; the reading is at most as long as the weights' words and lies in memory for each
    /// row; residual and sinks have a place for each row, good for the weights' padded outputs, and no other thread uses
    /// the sinks' or the room.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { words: Words { rows, cold, reading, room }, weights, finish } = self;
        debug_assert_eq!(weights.packing(), V::PACKING);
        let mut from = 0;
        let last = reading.parts.len() - 1;
        for (number, segments) in reading.parts.iter().enumerate() {
            let words = segments.iter().map(|s| s.length).sum::<usize>();
            // Where the weights of a word lie, or else of the next one that the panel uses.
            let place = |panel: &Panel, word: usize| {
                let Range { start, end } = panel.used;
                panel.start + (word.clamp(start, end) - start) * panel.vectors * V::LANES
            };
            for (i, panel) in weights.panels.iter().enumerate() {
                let Panel { first, vectors, lower, .. } = *panel;
                // What the panel uses of what this part reads.
                let inside = |word: usize| word.clamp(from, from + words) - from;
                let used = inside(panel.used.start)..inside(panel.used.end);
                let cut = (used.len() < words).then(|| cut(segments, &used));
                // What is read next: this part of the next panel, or the first panel's next part, or its first one by the
                // next tile.
                let then = match weights.panels.get(i + 1) {
                    Some(next) => place(next, from),
                    None => place(&weights.panels[0], (from + words) % weights.words()),
                };
                // SAFETY: the panel is whole, and what holds for the product holds for it.
                unsafe {
                    let sweep = Sweep {
                        rows,
                        segments: cut.as_ref().unwrap_or(segments),
                        weights: weights.data.as_ptr().add(place(panel, from)),
                        next: weights.data.as_ptr().wrapping_add(then),
                        length: used.len() * vectors * V::LANES,
                        begin: if number == 0 {
                            weights.bias.as_ptr().add(first)
                        } else {
                            ZEROS.as_ptr()
                        },
                        before: (number > 0).then_some(room),
                        after: (number < last).then_some(room),
                        finish,
                        column: first,
                        lower,
                        padded: weights.padded(),
                    };
                    let (cold, far) = (cold && first == 0, weights.far());
                    match vectors {
                        3 if V::COLUMNS.max(V::LAST[0]) >= 3 => sweep.call::<V, 3>(cold, far),
                        2 if V::COLUMNS >= 2 => sweep.call::<V, 2>(cold, far),
                        _ => sweep.call::<V, 1>(cold, far),
                    }
                }
            }
            from += words;
        }
    }
}

/// The widest panel's.
static ZEROS: [f32; 64] = [0.; 64];

/// Words of a row that a block takes at once.
const AHEAD: usize = 4;

/// The most rows of a block of so many vectors side by side.
const fn most_rows<V: Vector>(columns: usize) -> usize {
    if columns > V::COLUMNS { V::LAST[1] } else { V::ROWS }
}

/// All rows times a panel.
struct Sweep<'a> {
    rows: Rows,
    segments: &'a [Segment],
    weights: *const f32,
    /// The weights that are read after these, and about how many they are: they come from afar, and the first block to
    /// read them would wait for each line.
    next: *const f32,
    length: usize,
    /// With what the sums of each row begin: the bias, or zeros.
    begin: *const f32,
    /// Sums of the parts before.
    before: Option<*mut f32>,
    /// Where sums go that another part will add to.
    after: Option<*mut f32>,
    finish: Finish<'a>,
    column: usize,
    /// Whether the upper half of the last vector is padding.
    lower: bool,
    /// Floats of a row of `before` and `after`.
    padded: usize,
}

/// A sweep of `COLUMNS` vectors, during which the next rows are asked for or not, and the next weights or not: the processor
/// does not see by itself which they are. `LOWER` leaves out the upper half of the last vector.
struct Wide<'a, const COLUMNS: usize, const COLD: bool, const FAR: bool, const LOWER: bool>(
    Sweep<'a>,
);

impl<const COLUMNS: usize, const COLD: bool, const FAR: bool, const LOWER: bool> Kernel
    for Wide<'_, COLUMNS, COLD, FAR, LOWER>
{
    /// # Safety
    /// As for [`Product`].
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let sweep = self.0;
        let (mut row, mut asked) = (0, 0);
        let most = const { most_rows::<V>(COLUMNS) };
        while row < sweep.rows.count {
            // Blocks of nearly the same size, rather than large ones and a small rest.
            let left = sweep.rows.count - row;
            // SAFETY: `row` and those that follow it are below the count.
            unsafe {
                row += match left.div_ceil(left.div_ceil(most)) {
                    8 if const { most_rows::<V>(COLUMNS) >= 8 } => {
                        sweep.block::<V, 8, COLUMNS, COLD, FAR, LOWER>(row, &mut asked)
                    }
                    7 if const { most_rows::<V>(COLUMNS) >= 7 } => {
                        sweep.block::<V, 7, COLUMNS, COLD, FAR, LOWER>(row, &mut asked)
                    }
                    6 if const { most_rows::<V>(COLUMNS) >= 6 } => {
                        sweep.block::<V, 6, COLUMNS, COLD, FAR, LOWER>(row, &mut asked)
                    }
                    5 if const { most_rows::<V>(COLUMNS) >= 5 } => {
                        sweep.block::<V, 5, COLUMNS, COLD, FAR, LOWER>(row, &mut asked)
                    }
                    4 if const { most_rows::<V>(COLUMNS) >= 4 } => {
                        sweep.block::<V, 4, COLUMNS, COLD, FAR, LOWER>(row, &mut asked)
                    }
                    3 => sweep.block::<V, 3, COLUMNS, COLD, FAR, LOWER>(row, &mut asked),
                    2 => sweep.block::<V, 2, COLUMNS, COLD, FAR, LOWER>(row, &mut asked),
                    _ => sweep.block::<V, 1, COLUMNS, COLD, FAR, LOWER>(row, &mut asked),
                }
            }
        }
    }
}

impl Sweep<'_> {
    /// Computes it, of `COLUMNS` vectors, and asks for what follows that is `cold` or `far`.
    ///
    /// # Safety
    /// As for [`Product`].
    #[inline(always)]
    unsafe fn call<V: Vector, const COLUMNS: usize>(self, cold: bool, far: bool) {
        // SAFETY: the caller's.
        unsafe {
            if V::HALVES && self.lower {
                self.choose::<V, COLUMNS, true>(cold, far);
            } else {
                self.choose::<V, COLUMNS, false>(cold, far);
            }
        }
    }

    /// # Safety
    /// As for [`Self::call`].
    #[inline(always)]
    unsafe fn choose<V: Vector, const COLUMNS: usize, const LOWER: bool>(
        self,
        cold: bool,
        far: bool,
    ) {
        // SAFETY: the caller's.
        unsafe {
            match (cold, far) {
                (true, true) => V::call(Wide::<COLUMNS, true, true, LOWER>(self)),
                (true, false) => V::call(Wide::<COLUMNS, true, false, LOWER>(self)),
                (false, true) => V::call(Wide::<COLUMNS, false, true, LOWER>(self)),
                (false, false) => V::call(Wide::<COLUMNS, false, false, LOWER>(self)),
            }
        }
    }

    /// One block in registers, from row `row` on; gives how many rows it has.
    #[inline(always)]
    unsafe fn block<
        V: Vector,
        const ROWS: usize,
        const COLUMNS: usize,
        const COLD: bool,
        const FAR: bool,
        const LOWER: bool,
    >(
        &self,
        row: usize,
        asked: &mut usize,
    ) -> usize {
        let distance = self.rows.distance;
        // Some lines of the next weights at each step, until all were asked for.
        let lines = (COLUMNS * V::LANES * AHEAD).div_ceil(4 * CACHE_LINE);
        let mut ask = self.next.wrapping_add(*asked);
        let pace = if *asked < self.length { CACHE_LINE } else { 0 };
        // SAFETY: rows, segments, weights and places are as for `Product`.
        unsafe {
            if self.after.is_none() {
                // While the block is computed: another step made it, and it is far from the processor.
                let columns = self.column..self.column + COLUMNS * V::LANES;
                self.finish.fetch::<V>(row..row + ROWS, columns);
            }
            let begin: [V; COLUMNS] =
                std::array::from_fn(|j| V::load(self.begin.add(j * V::LANES)));
            let mut sums = [begin; ROWS];
            let mut weights = self.weights;
            let first = self.rows.first.wrapping_add(row * distance);
            for segment in self.segments {
                // One pointer for three rows: the processor adds once or twice the distance by itself.
                let mut inputs: [*const f32; 3] = std::array::from_fn(|i| {
                    V::opaque(first.wrapping_add(segment.offset + 3 * i * distance))
                });
                for step in 0..segment.length / AHEAD {
                    if COLD {
                        // Two of the rows that follow at a time: when a line of them begins again, all were asked for.
                        const { assert!(AHEAD * AHEAD == CACHE_LINE && 2 * AHEAD >= V::ROWS) };
                        let next = inputs[0].wrapping_add((ROWS + step % AHEAD * 2) * distance);
                        V::prefetch(next);
                        V::prefetch(next.wrapping_add(distance));
                    }
                    for _ in 0..if FAR { lines } else { 0 } {
                        V::prefetch_far(ask);
                        ask = ask.wrapping_add(pace);
                    }
                    for ahead in 0..AHEAD {
                        multiply_add::<V, ROWS, COLUMNS, LOWER>(
                            &mut sums, inputs, distance, weights, ahead,
                        );
                    }
                    weights = weights.add(AHEAD * COLUMNS * V::LANES);
                    for input in &mut inputs {
                        *input = input.wrapping_add(AHEAD);
                    }
                }
                for _ in 0..segment.length % AHEAD {
                    multiply_add::<V, ROWS, COLUMNS, LOWER>(
                        &mut sums, inputs, distance, weights, 0,
                    );
                    weights = weights.add(COLUMNS * V::LANES);
                    for input in &mut inputs {
                        *input = input.wrapping_add(1);
                    }
                }
            }
            *asked = (ask.addr() - self.next.addr()) / size_of::<f32>();
            let place = row * self.padded + self.column;
            if let Some(before) = self.before {
                // Now, rather than to begin with them: short sums are rounded less.
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = sum.add(V::load(before.add(place + i * self.padded + j * V::LANES)));
                    }
                }
            }
            if let Some(after) = self.after {
                for (i, sums) in sums.iter().enumerate() {
                    for (j, sum) in sums.iter().enumerate() {
                        sum.store(after.add(place + i * self.padded + j * V::LANES));
                    }
                }
                return ROWS;
            }
            self.finish.write(row, self.column, sums);
        }
        ROWS
    }
}

/// Adds to a block the products of the word that lies `ahead` of the pointers.
///
/// # Safety
/// As for [`Product`].
#[inline(always)]
unsafe fn multiply_add<V: Vector, const ROWS: usize, const COLUMNS: usize, const LOWER: bool>(
    sums: &mut [[V; COLUMNS]; ROWS],
    inputs: [*const f32; 3],
    distance: usize,
    weights: *const f32,
    ahead: usize,
) {
    // SAFETY: inputs and weights are there, as for `Product`.
    unsafe {
        let factors: [V; COLUMNS] =
            std::array::from_fn(|j| V::load(weights.add((ahead * COLUMNS + j) * V::LANES)));
        for i in 0..ROWS {
            let x = V::splat(*inputs[i / 3].add(i % 3 * distance + ahead));
            for j in 0..COLUMNS {
                sums[i][j] = if LOWER && j + 1 == COLUMNS {
                    x.dot_add_lower(factors[j], sums[i][j])
                } else {
                    x.dot_add(factors[j], sums[i][j])
                };
            }
        }
    }
}
