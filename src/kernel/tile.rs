//! The work on a step's pixels, some of them at a time.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::finish::{Finish, Sink};
use crate::packed::Segment;
use crate::product::{Product, Rows, Words};
use crate::step::{Grid, OUTS, Operation, Out, Run, Step, TILE, View};
use crate::vector::{CACHE_LINE, Kernel, Vector};
use crate::window::{Along, Depthwise, Window};

/// Pixels that a pool takes together.
const POOLED: usize = 4;
/// So many pixels ahead a pool asks for what it will read and write.
const POOLED_AHEAD: usize = 8;

/// Floats of a map of which the caches of one processor keep little.
const FAR: usize = 1 << 16;

/// One tile of a step.
pub(crate) struct Tile<'a> {
    pub(crate) step: &'a Step,
    /// Its pixels, at most [`Step::tile`].
    pub(crate) pixels: Range<usize>,
    pub(crate) memory: *mut f32,
    pub(crate) given: *const f32,
    /// Floats for this thread alone, [`Step::scratch`] of them.
    pub(crate) scratch: *mut f32,
}

impl Kernel for Tile<'_> {
    /// # Safety
    /// The step was checked against the memory and what is given; no other thread writes what this tile writes or reads.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Step { operation, grid, channels, residual, outs } = self.step;
        let (grid, channels) = (*grid, *channels);
        let Range { start: first, end } = self.pixels;
        let count = end - first;
        if let Operation::Norm { source, together, epsilon, scale, offset } = operation {
            // SAFETY: the caller's.
            unsafe { self.norm(*source, *together, *epsilon, [scale, offset]) };
            return;
        }
        let runs = || grid.runs(first..end);
        // Where each pixel's results go, and what is added to them.
        let mut places = [[MaybeUninit::<usize>::uninit(); TILE]; OUTS + 1];
        let views = outs.iter().map(|out| &out.view).chain(residual);
        for (places, view) in places.iter_mut().zip(views) {
            for run in runs() {
                let mut place = view.at(run.at);
                for slot in &mut places[run.begin..run.begin + run.count] {
                    slot.write(place);
                    place += view.pixel;
                }
            }
        }
        // SAFETY: a place was written for each pixel.
        let of = |places: &[MaybeUninit<usize>; TILE]| unsafe {
            std::slice::from_raw_parts(places.as_ptr().cast::<usize>(), count)
        };
        let mut sinks = [Sink { start: self.memory, at: &[], relu: false }; OUTS];
        for ((sink, places), out) in sinks.iter_mut().zip(&places).zip(outs) {
            (sink.at, sink.relu) = (of(places), out.relu);
        }
        let sinks = &sinks[..outs.len()];
        let start = self.memory.cast_const();
        let far = grid.pixels() * channels > FAR;
        let residual = residual.map(|_| (start, of(&places[outs.len()])));
        let finish = Finish { residual, sinks, far };
        // SAFETY: the step was checked: all that is read and written lies in the memory.
        unsafe {
            match operation {
                Operation::Product { given, source, stride, reading, edge, valid, weights } => {
                    let base = if *given { self.given } else { start };
                    let [down, across] = *stride;
                    let strided =
                        View { pixel: source.pixel * across, row: source.row * down, ..*source };
                    let multiply = |at: [usize; 3], begin, count, reading| {
                        // Where nothing is read, it may lie outside.
                        let first = base.wrapping_add(strided.at(at));
                        let rows = Rows { first, distance: strided.pixel, count };
                        let mut room = [sinks[0]; OUTS];
                        let finish = finish.from(begin, &mut room);
                        let words = rows.words::<V>(true, reading, weights, self.scratch);
                        V::call(Product { words, weights, finish });
                    };
                    let whole = *valid == [grid.height, grid.width];
                    let even = strided.row == grid.width * strided.pixel
                        && strided.image == grid.height * strided.row;
                    if whole && even {
                        // All rows lie at equal distances.
                        multiply(grid.place(first), 0, count, reading);
                    } else {
                        for Run { at: [image, y, x], count, begin } in runs() {
                            let inside = if y < valid[0] {
                                valid[1].saturating_sub(x).min(count)
                            } else {
                                0
                            };
                            if inside > 0 {
                                multiply([image, y, x], begin, inside, reading);
                            }
                            if inside < count {
                                let (x, begin) = (x + inside, begin + inside);
                                multiply([image, y, x], begin, count - inside, edge);
                            }
                        }
                    }
                }
                Operation::Separable {
                    source,
                    stride,
                    kernel,
                    depthwise,
                    channels,
                    reading,
                    weights,
                } => {
                    let strided =
                        View { pixel: source.pixel * stride, row: source.row * stride, ..*source };
                    let walk = Depthwise {
                        channels: *channels,
                        kernel: *kernel,
                        pixel: source.pixel,
                        row: source.row,
                        stride: *stride,
                    };
                    for run in runs() {
                        V::call(Along {
                            walk,
                            source: start.add(strided.at(run.at)),
                            weights: depthwise.as_ptr(),
                            out: self.scratch.add(run.begin * channels / V::INPUTS),
                            count: run.count,
                        });
                    }
                    // The rows that the next tile is the first to read come from afar: during the product. The nearest cache
                    // would not hold them beside what the product reads.
                    for run in grid.runs(end..(end + count).min(grid.pixels())) {
                        let window = start.wrapping_add(strided.at(run.at));
                        let length = (run.count * stride + kernel - stride) * source.pixel;
                        for row in kernel - stride..*kernel {
                            for line in (0..length).step_by(CACHE_LINE) {
                                V::prefetch_far(window.wrapping_add(row * source.row + line));
                            }
                        }
                    }
                    let distance = channels / V::INPUTS;
                    let rows = Rows { first: self.scratch, distance, count };
                    let room = self.scratch.add(count * distance);
                    let reading = rows.together::<V>(self.scratch, reading, weights);
                    let words = Words { rows, cold: false, reading, room };
                    V::call(Product { words, weights, finish });
                }
                Operation::Pool { source, size, stride, kernel, fold } => {
                    let outputs = [grid.height, grid.width];
                    let span = |at: usize, axis: usize| {
                        let before =
                            ((outputs[axis] - 1) * stride + kernel).saturating_sub(size[axis]) / 2;
                        let begin = (at * stride).saturating_sub(before);
                        (begin, (at * stride + kernel - before).min(size[axis]) - begin)
                    };
                    for Run { at: [image, y, x], count: of_run, begin } in runs() {
                        let (top, rows) = span(y, 0);
                        let mut done = 0;
                        while done < of_run {
                            let (left, columns) = span(x + done, 1);
                            // Neighbours with whole windows are pooled together.
                            let whole = |i: usize| span(x + done + i, 1).1 == *kernel;
                            let together = done + POOLED <= of_run && whole(0) && whole(POOLED - 1);
                            let window = Window {
                                first: start.add(source.at([image, top, left])),
                                rows,
                                columns,
                                pixel: source.pixel,
                                row: source.row,
                                stride: *stride,
                                channels,
                                fold: *fold,
                            };
                            let row = begin + done;
                            if far {
                                window.fetch::<V>(POOLED_AHEAD..POOLED_AHEAD + POOLED);
                                let next = (row + POOLED_AHEAD).min(count);
                                let next = next..(next + POOLED).min(count);
                                finish.fetch::<V>(next, 0..channels);
                            }
                            if together {
                                window.pool::<V, POOLED>(row, finish);
                                done += POOLED;
                            } else {
                                window.pool::<V, 1>(row, finish);
                                done += 1;
                            }
                        }
                    }
                }
                Operation::Copy { given, source, segments } => {
                    let base = if *given { self.given } else { start };
                    for Run { at: [image, y, x], count, begin } in runs() {
                        for i in 0..count {
                            let pixel = [image, y, x + i];
                            self.copy(
                                base.add(source.at(pixel)),
                                segments,
                                outs,
                                pixel,
                                finish.residual.map(|(start, at)| start.add(at[begin + i])),
                            );
                        }
                    }
                }
                Operation::Norm { .. } => unreachable!("it was done above"),
            }
            for out in outs.iter().filter(|out| out.margin > 0) {
                for Run { at: [image, y, x], count, .. } in runs() {
                    let outermost = y == 0 || y + 1 == grid.height;
                    for i in 0..count {
                        if outermost || x + i == 0 || x + i + 1 == grid.width {
                            self.clear_around(out, [image, y, x + i]);
                        }
                    }
                }
            }
        }
    }
}

impl Tile<'_> {
    /// Copies the segments of a pixel, one after the other, float by float: sources need not end with a whole vector.
    ///
    /// # Safety
    /// As for [`Tile::run`].
    unsafe fn copy(
        &self,
        source: *const f32,
        segments: &[Segment],
        outs: &[Out],
        pixel: [usize; 3],
        residual: Option<*const f32>,
    ) {
        // SAFETY: the step was checked.
        unsafe {
            for out in outs {
                let to = self.memory.add(out.view.at(pixel));
                let mut channel = 0;
                for segment in segments {
                    for i in 0..segment.length {
                        let mut value = *source.add(segment.offset + i);
                        if let Some(residual) = residual {
                            value += *residual.add(channel);
                        }
                        *to.add(channel) = if out.relu && value < 0. { 0. } else { value };
                        channel += 1;
                    }
                }
                for rest in channel..self.step.channels {
                    *to.add(rest) = 0.;
                }
            }
        }
    }

    /// Sets to zero what lies around the map beside `pixel`.
    ///
    /// # Safety
    /// As for [`Tile::run`]; a margin belongs to the pixel at its side.
    unsafe fn clear_around(&self, out: &Out, [image, y, x]: [usize; 3]) {
        let Grid { height, width, .. } = self.step.grid;
        let (left, right) = (x == 0, x + 1 == width);
        let (top, bottom) = (y == 0, y + 1 == height);
        let Out { view, margin, around, .. } = *out;
        let first = |at: bool| if at { margin } else { 0 };
        let origin = view.at([image, y, x]);
        // SAFETY: the margin lies in the memory, and no other pixel has this part of it.
        unsafe {
            for row in 0..=first(top) + first(bottom) {
                for column in 0..=first(left) + first(right) {
                    if row == first(top) && column == first(left) {
                        continue;
                    }
                    let place = origin + row * view.row + column * view.pixel
                        - first(top) * view.row
                        - first(left) * view.pixel;
                    self.memory.add(place).write_bytes(0, around);
                }
            }
        }
    }

    /// # Safety
    /// As for [`Tile::run`]; the tile is an image.
    unsafe fn norm(
        &self,
        source: View,
        together: bool,
        epsilon: f32,
        [scale, offset]: [&[f32]; 2],
    ) {
        let Grid { height, width, .. } = self.step.grid;
        let image = self.pixels.start / (height * width);
        let pixels = || (0..height).flat_map(|y| (0..width).map(move |x| [image, y, x]));
        let channels = scale.len();
        // SAFETY: the step was checked.
        let read = |pixel: [usize; 3], c: usize| {
            f64::from(unsafe { *self.memory.add(source.at(pixel) + c) })
        };
        let (mut sums, mut squares) = (vec![0.; channels], vec![0.; channels]);
        for pixel in pixels() {
            sums.iter_mut().enumerate().for_each(|(c, sum)| *sum += read(pixel, c));
        }
        let count = (height * width) as f64;
        let share = |values: &mut [f64]| {
            if together {
                let all: f64 = values.iter().sum();
                values.fill(all / (count * channels as f64));
            } else {
                for value in values.iter_mut() {
                    *value /= count;
                }
            }
        };
        share(&mut sums);
        for pixel in pixels() {
            let add =
                |(c, square): (usize, &mut f64)| *square += (read(pixel, c) - sums[c]).powi(2);
            squares.iter_mut().enumerate().for_each(add);
        }
        share(&mut squares);
        let epsilon = f64::from(epsilon);
        for pixel in pixels() {
            for c in 0..self.step.channels {
                let value = if c < channels {
                    let normal = (read(pixel, c) - sums[c]) / (squares[c] + epsilon).sqrt();
                    (normal * f64::from(scale[c]) + f64::from(offset[c])) as f32
                } else {
                    0.
                };
                for out in &self.step.outs {
                    let value = if out.relu && value < 0. { 0. } else { value };
                    // SAFETY: the step was checked.
                    unsafe { *self.memory.add(out.view.at(pixel) + c) = value };
                }
            }
            for out in self.step.outs.iter().filter(|out| out.margin > 0) {
                // SAFETY: the step was checked.
                unsafe { self.clear_around(out, pixel) };
            }
        }
    }
}
