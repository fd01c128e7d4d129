//! The work on a step's pixels, some of them at a time.

use std::ops::Range;

use crate::product::{Finish, Rows, Segment, Sink, product};
use crate::step::{Fold, Grid, OUTS, Operation, Out, Step, TILE, View};
use crate::vector::{Kernel, Vector};
use crate::window::{Along, Depthwise, Window};

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
        let mut places = [[0; TILE]; OUTS + 1];
        let mut pixels = [[0; 3]; TILE];
        let mut at = grid.place(first);
        for (i, pixel) in pixels[..count].iter_mut().enumerate() {
            *pixel = at;
            for (places, out) in places.iter_mut().zip(outs) {
                places[i] = out.view.at(at);
            }
            if let Some(residual) = residual {
                places[OUTS][i] = residual.at(at);
            }
            at[2] += 1;
            if at[2] == grid.width {
                at = [at[0], at[1] + 1, 0];
                if at[1] == grid.height {
                    at = [at[0] + 1, 0, 0];
                }
            }
        }
        let pixels = &pixels[..count];
        let mut sinks = [Sink { start: self.memory, at: &[], relu: false }; OUTS];
        for ((sink, places), out) in sinks.iter_mut().zip(&places).zip(outs) {
            (sink.at, sink.relu) = (&places[..count], out.relu);
        }
        let sinks = &sinks[..outs.len()];
        let start = self.memory.cast_const();
        let finish = Finish { residual: residual.map(|_| (start, &places[OUTS][..count])), sinks };
        // SAFETY: the step was checked: all that is read and written lies in the memory.
        unsafe {
            match operation {
                Operation::Product { given, source, stride, reading, edge, valid, weights } => {
                    let base = if *given { self.given } else { start };
                    let [down, across] = *stride;
                    let strided =
                        View { pixel: source.pixel * across, row: source.row * down, ..*source };
                    let whole = *valid == [grid.height, grid.width];
                    let even = strided.row == grid.width * strided.pixel
                        && strided.image == grid.height * strided.row;
                    let mut row = 0;
                    while row < count {
                        let [_, y, x] = pixels[row];
                        let inside = y < valid[0] && x < valid[1];
                        // As many as lie at equal distances and read the same segments.
                        let some = if whole && even {
                            count
                        } else {
                            let end = if inside { valid[1] } else { grid.width };
                            (end - x).min(count - row)
                        };
                        let rows = Rows {
                            first: base.add(strided.at(pixels[row])),
                            distance: strided.pixel,
                            count: some,
                        };
                        let reading = if inside { reading } else { edge };
                        let mut room = [sinks[0]; OUTS];
                        let finish = finish.from(row, &mut room);
                        product::<V>(rows, reading, weights, finish, self.scratch);
                        row += some;
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
                    let mut row = 0;
                    while row < count {
                        let some = (grid.width - pixels[row][2]).min(count - row);
                        let from = start.add(strided.at(pixels[row]));
                        V::call(Along {
                            walk,
                            source: from,
                            weights: depthwise.as_ptr(),
                            out: self.scratch.add(row * channels),
                            count: some,
                        });
                        row += some;
                    }
                    let rows = Rows { first: self.scratch, distance: *channels, count };
                    let room = self.scratch.add(count * channels);
                    product::<V>(rows, reading, weights, finish, room);
                }
                Operation::Pool { source, size, stride, kernel, fold } => {
                    let before = [0, 1].map(|axis| {
                        let (n, out) = (size[axis], [grid.height, grid.width][axis]);
                        ((out - 1) * stride + kernel).saturating_sub(n) / 2
                    });
                    for (i, &[image, y, x]) in pixels.iter().enumerate() {
                        let span = |at: usize, axis: usize| {
                            let begin = (at * stride) as isize - before[axis] as isize;
                            let end = (begin + *kernel as isize).min(size[axis] as isize);
                            let begin = begin.max(0);
                            (begin as usize, (end - begin) as usize)
                        };
                        let ((top, rows), (left, columns)) = (span(y, 0), span(x, 1));
                        let window = Window {
                            first: start.add(source.at([image, top, left])),
                            rows,
                            columns,
                            pixel: source.pixel,
                            row: source.row,
                        };
                        for channel in (0..channels).step_by(V::LANES) {
                            let value: V = match fold {
                                Fold::Mean(scale) => {
                                    window.sum(channel, scale / (rows * columns) as f32)
                                }
                                Fold::Sum(scale) => window.sum(channel, *scale),
                                Fold::Largest => window.largest(channel),
                            };
                            finish.write(i, channel, value);
                        }
                    }
                }
                Operation::Copy { given, source, segments } => {
                    let base = if *given { self.given } else { start };
                    for (i, &pixel) in pixels.iter().enumerate() {
                        self.copy(
                            base.add(source.at(pixel)),
                            segments,
                            outs,
                            pixel,
                            finish.residual.map(|(start, at)| start.add(at[i])),
                        );
                    }
                }
                Operation::Norm { .. } => unreachable!("it was done above"),
            }
            for out in outs.iter().filter(|out| out.margin > 0) {
                for &pixel in pixels {
                    self.clear_around(out, pixel);
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
                        *to.add(channel) = if out.relu { value.max(0.) } else { value };
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
        if !(left || right || top || bottom) {
            return;
        }
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
        let mut count = (height * width) as f64;
        let share = |values: &mut [f64], count: f64| {
            if together {
                let all: f64 = values.iter().sum();
                values.fill(all / (count * channels as f64));
            } else {
                for value in values.iter_mut() {
                    *value /= count;
                }
            }
        };
        share(&mut sums, count);
        for pixel in pixels() {
            let add =
                |(c, square): (usize, &mut f64)| *square += (read(pixel, c) - sums[c]).powi(2);
            squares.iter_mut().enumerate().for_each(add);
        }
        share(&mut squares, count);
        count = f64::from(epsilon);
        for pixel in pixels() {
            for c in 0..self.step.channels {
                let value = if c < channels {
                    let normal = (read(pixel, c) - sums[c]) / (squares[c] + count).sqrt();
                    (normal * f64::from(scale[c]) + f64::from(offset[c])) as f32
                } else {
                    0.
                };
                for out in &self.step.outs {
                    let value = if out.relu { value.max(0.) } else { value };
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
