//! What looks at a window of each pixel, channel by channel: depthwise convolutions and pools.

use std::hint::black_box;
use std::ops::Range;

use crate::finish::Finish;
use crate::step::Fold;
use crate::vector::{CACHE_LINE, Kernel, Vector};

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
    /// All channels of some neighbouring outputs, as words.
    #[inline(always)]
    unsafe fn outputs<V: Vector, const KERNEL: usize, const STRIDE: usize, const PIXELS: usize>(
        self,
        source: *const f32,
        mut weights: *const f32,
        out: *mut f32,
    ) {
        for channel in (0..self.channels).step_by(V::LANES) {
            // SAFETY: as for `run`.
            unsafe {
                let (source, out) = (source.add(channel), out.add(channel / V::INPUTS));
                self.block::<V, KERNEL, STRIDE, PIXELS>(source, weights, out);
                weights = weights.add(KERNEL * KERNEL * V::LANES);
            }
        }
    }

    /// One vector of them.
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
            // The compiler does not see how many rows a large kernel has: unrolled, they are slower.
            for _ in 0..if KERNEL > 3 { black_box(KERNEL) } else { KERNEL } {
                // A row of the kernel stays in registers, and each pixel is read once for all outputs that see it.
                let factors: [V; KERNEL] =
                    std::array::from_fn(|x| V::load(weights.add(x * V::LANES)));
                let mut pixel = window.wrapping_sub(self.pixel);
                // No loop: where the compiler does not unroll it, the sums lie in memory.
                macro_rules! pixels {
                    ($($x:literal)*) => {$(
                        if const { $x < (PIXELS - 1) * STRIDE + KERNEL } {
                            pixel = V::opaque(pixel.wrapping_add(self.pixel));
                            let value = V::load(pixel);
                            for (i, sum) in sums.iter_mut().enumerate() {
                                if $x >= i * STRIDE && $x - i * STRIDE < KERNEL {
                                    *sum = value.mul_add(factors[$x - i * STRIDE], *sum);
                                }
                            }
                        }
                    )*};
                }
                pixels!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20);
                weights = weights.wrapping_add(KERNEL * V::LANES);
                window = window.wrapping_add(self.row);
            }
            for (i, sum) in sums.into_iter().enumerate() {
                sum.store_words(out.add(i * self.channels / V::INPUTS));
            }
        }
    }
}

/// A row of outputs of a depthwise convolution: the words of `channels` floats each.
pub(crate) struct Along {
    pub(crate) walk: Depthwise,
    /// Where the first window begins.
    pub(crate) source: *const f32,
    /// As in [`crate::step::Operation::Separable`].
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

impl Along {
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn all<V: Vector, const KERNEL: usize, const STRIDE: usize>(&self) {
        const { assert!(V::PIXELS <= 8, "more pixels than `Depthwise::block` has places for") };
        let Self { walk, source, weights, out, count } = self;
        let mut x = 0;
        while x < *count {
            // Blocks of nearly the same size, rather than large ones and a small rest.
            let left = count - x;
            let pixels = left.div_ceil(left.div_ceil(V::PIXELS));
            // SAFETY: `x` and the pixels that follow it are below the count.
            unsafe {
                let source = source.add(x * walk.stride * walk.pixel);
                let out = out.add(x * walk.channels / V::INPUTS);
                match pixels {
                    8 if V::PIXELS >= 8 => {
                        walk.outputs::<V, KERNEL, STRIDE, 8>(source, *weights, out);
                    }
                    7 if V::PIXELS >= 7 => {
                        walk.outputs::<V, KERNEL, STRIDE, 7>(source, *weights, out);
                    }
                    6 if V::PIXELS >= 6 => {
                        walk.outputs::<V, KERNEL, STRIDE, 6>(source, *weights, out);
                    }
                    5 if V::PIXELS >= 5 => {
                        walk.outputs::<V, KERNEL, STRIDE, 5>(source, *weights, out);
                    }
                    4 => walk.outputs::<V, KERNEL, STRIDE, 4>(source, *weights, out),
                    3 => walk.outputs::<V, KERNEL, STRIDE, 3>(source, *weights, out),
                    2 => walk.outputs::<V, KERNEL, STRIDE, 2>(source, *weights, out),
                    _ => walk.outputs::<V, KERNEL, STRIDE, 1>(source, *weights, out),
                }
            }
            x += pixels;
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
    /// Asks for what windows to the right of this one look at, so many windows away: for their last rows, since the windows
    /// above them looked at the others.
    ///
    /// # Safety
    /// The instruction set is that of `V`.
    #[inline(always)]
    pub(crate) unsafe fn fetch<V: Vector>(&self, away: Range<usize>) {
        for row in self.rows.saturating_sub(self.stride)..self.rows {
            for pixel in away.start * self.stride..away.end * self.stride {
                let pixel = self.first.wrapping_add(row * self.row + pixel * self.pixel);
                for line in (0..self.channels).step_by(CACHE_LINE) {
                    // SAFETY: the caller's.
                    unsafe { V::prefetch(pixel.wrapping_add(line)) };
                }
            }
        }
    }

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
                            *result =
                                if LARGEST { result.max_or_nan(value) } else { result.add(value) };
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
