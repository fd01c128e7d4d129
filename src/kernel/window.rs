//! What looks at a window of each pixel, channel by channel: depthwise convolutions and pools.

use crate::finish::Finish;
use crate::step::Fold;
use crate::vector::{Kernel, Vector};

/// A depthwise convolution along a row of output pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Depthwise {
    /// Channels, in whole vectors.
    pub(crate) channels: usize,
    /// Side of the kernel.
    pub(crate) kernel: usize,
    /// Floats from a pixel of the source to the next, and from a row to the next.
    pub(crate) pixel: usize,
    pub(crate) row: usize,
    /// Pixels of the source from an output to the next.
    pub(crate) stride: usize,
}

impl Depthwise {
    /// One vector of some neighbouring outputs.
    #[inline(always)]
    unsafe fn block<V: Vector, const KERNEL: usize, const STRIDE: usize, const PIXELS: usize>(
        self,
        source: *const f32,
        weights: *const f32,
        out: *mut f32,
    ) {
        // SAFETY: as for `run`.
        unsafe {
            let mut sums = [V::splat(0.); PIXELS];
            let (mut weights, mut window) = (weights, source);
            for _ in 0..KERNEL {
                if STRIDE == 1 {
                    // A row of the kernel stays in registers, and each pixel is read once for all outputs that see it.
                    let factors: [V; KERNEL] =
                        std::array::from_fn(|x| V::load(weights.add(x * self.channels)));
                    for x in 0..PIXELS - 1 + KERNEL {
                        let value = V::load(window.add(x * self.pixel));
                        for (i, sum) in sums.iter_mut().enumerate() {
                            if x >= i && x - i < KERNEL {
                                *sum = value.mul_add(factors[x - i], *sum);
                            }
                        }
                    }
                } else {
                    // Fewer outputs see a pixel, and the registers do not suffice for as many as lie between.
                    for x in 0..KERNEL {
                        let factor = V::load(weights.add(x * self.channels));
                        let pixel = window.add(x * self.pixel);
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let value = V::load(pixel.add(i * STRIDE * self.pixel));
                            *sum = value.mul_add(factor, *sum);
                        }
                    }
                }
                weights = weights.wrapping_add(KERNEL * self.channels);
                window = window.wrapping_add(self.row);
            }
            for (i, sum) in sums.into_iter().enumerate() {
                sum.store(out.add(i * self.channels));
            }
        }
    }
}

/// A row of outputs of a depthwise convolution, `channels` floats each.
pub(crate) struct Along {
    pub(crate) walk: Depthwise,
    /// Where the first window begins.
    pub(crate) source: *const f32,
    /// `[kernel, kernel, channels]`.
    pub(crate) weights: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) count: usize,
}

impl Kernel for Along {
    /// # Safety
    /// The windows lie in memory, as does the room for the outputs, which no other thread uses.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's.
        unsafe {
            match [self.walk.kernel, self.walk.stride] {
                [3, 1] => self.all::<V, 3, 1>(),
                [5, 1] => self.all::<V, 5, 1>(),
                [7, 1] => self.all::<V, 7, 1>(),
                [3, 2] => self.all::<V, 3, 2>(),
                [5, 2] => self.all::<V, 5, 2>(),
                [7, 2] => self.all::<V, 7, 2>(),
                _ => unreachable!("steps are checked for it"),
            }
        }
    }
}

/// Half of the smallest innermost cache.
const FEW_BYTES: usize = 16 << 10;

impl Along {
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn all<V: Vector, const KERNEL: usize, const STRIDE: usize>(&self) {
        let Self { walk, count, .. } = self;
        // As many channels at once as have their weights in the innermost cache.
        let bytes = 4 * KERNEL * KERNEL * V::LANES;
        let step = (FEW_BYTES / bytes).max(1) * V::LANES;
        for first in (0..walk.channels).step_by(step) {
            let end = (first + step).min(walk.channels);
            let mut x = 0;
            while x < *count {
                // Blocks of nearly the same size, rather than large ones and a small rest.
                let left = count - x;
                let pixels = left.div_ceil(left.div_ceil(V::PIXELS));
                for channel in (first..end).step_by(V::LANES) {
                    // SAFETY: `x` and the pixels that follow it are below the count, as the channels are.
                    unsafe { self.some::<V, KERNEL, STRIDE>(x, pixels, channel) };
                }
                x += pixels;
            }
        }
    }

    /// A vector from channel `channel` on of some outputs.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn some<V: Vector, const KERNEL: usize, const STRIDE: usize>(
        &self,
        x: usize,
        pixels: usize,
        channel: usize,
    ) {
        let Self { walk, source, weights, out, .. } = self;
        // SAFETY: the caller's.
        unsafe {
            let source = source.add(x * walk.stride * walk.pixel + channel);
            let (weights, out) = (weights.add(channel), out.add(x * walk.channels + channel));
            match pixels {
                8 if V::PIXELS >= 8 => walk.block::<V, KERNEL, STRIDE, 8>(source, weights, out),
                7 if V::PIXELS >= 7 => walk.block::<V, KERNEL, STRIDE, 7>(source, weights, out),
                6 if V::PIXELS >= 6 => walk.block::<V, KERNEL, STRIDE, 6>(source, weights, out),
                5 if V::PIXELS >= 5 => walk.block::<V, KERNEL, STRIDE, 5>(source, weights, out),
                4 => walk.block::<V, KERNEL, STRIDE, 4>(source, weights, out),
                3 => walk.block::<V, KERNEL, STRIDE, 3>(source, weights, out),
                2 => walk.block::<V, KERNEL, STRIDE, 2>(source, weights, out),
                _ => walk.block::<V, KERNEL, STRIDE, 1>(source, weights, out),
            }
        }
    }
}

/// Pixels of a source, some rows by some columns, that a pool looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) first: *const f32,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) pixel: usize,
    pub(crate) row: usize,
    /// Pixels from this window to its neighbour.
    pub(crate) stride: usize,
    /// In whole vectors.
    pub(crate) channels: usize,
    pub(crate) fold: Fold,
}

impl Window {
    /// Pools this window and its neighbours to the right, `PIXELS` in all, for row `row` of the results and those after it.
    ///
    /// # Safety
    /// The instruction set is that of `V`; all pixels lie in memory, and the results have their places.
    #[inline(always)]
    pub(crate) unsafe fn pool<V: Vector, const PIXELS: usize>(
        self,
        row: usize,
        finish: Finish<'_>,
    ) {
        let count = (self.rows * self.columns) as f32;
        // SAFETY: the caller's.
        unsafe {
            match self.fold {
                Fold::Mean(scale) => self.all::<V, PIXELS, false>(row, finish, scale / count),
                Fold::Sum(scale) => self.all::<V, PIXELS, false>(row, finish, scale),
                Fold::Largest => self.all::<V, PIXELS, true>(row, finish, 1.),
            }
        }
    }

    /// # Safety
    /// As for [`Self::pool`].
    #[inline(always)]
    unsafe fn all<V: Vector, const PIXELS: usize, const LARGEST: bool>(
        self,
        row: usize,
        finish: Finish<'_>,
        scale: f32,
    ) {
        let step = self.stride * self.pixel;
        // SAFETY: the caller's.
        unsafe {
            for channel in (0..self.channels).step_by(V::LANES) {
                let start = V::splat(if LARGEST { f32::NEG_INFINITY } else { 0. });
                let mut results = [[start]; PIXELS];
                for y in 0..self.rows {
                    let mut pixel = self.first.add(y * self.row + channel);
                    for _ in 0..self.columns {
                        for (i, [result]) in results.iter_mut().enumerate() {
                            let value = V::load(pixel.add(i * step));
                            *result = if LARGEST { result.max(value) } else { result.add(value) };
                        }
                        pixel = pixel.wrapping_add(self.pixel);
                    }
                }
                if !LARGEST {
                    for [result] in &mut results {
                        *result = result.mul(V::splat(scale));
                    }
                }
                finish.write(row, channel, results);
            }
        }
    }
}
