//! What looks at a window of each pixel, channel by channel: depthwise convolutions and pools.

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
    unsafe fn block<V: Vector, const PIXELS: usize>(
        self,
        source: *const f32,
        weights: *const f32,
        out: *mut f32,
    ) {
        let step = self.stride * self.pixel;
        // SAFETY: as for `run`.
        unsafe {
            let mut sums = [V::splat(0.); PIXELS];
            let mut weights = weights;
            for y in 0..self.kernel {
                let mut window = source.add(y * self.row);
                for _ in 0..self.kernel {
                    let factor = V::load(weights);
                    weights = weights.add(self.channels);
                    let thirds: [*const f32; 3] =
                        std::array::from_fn(|i| window.wrapping_add(3 * i * step));
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load(thirds[i / 3].add(i % 3 * step)).mul_add(factor, *sum);
                    }
                    window = window.add(self.pixel);
                }
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
        let Self { walk, count, .. } = self;
        // The weights of all channels stay in the innermost cache where they are few: then pixels, which lie side by side,
        // are read once. Where they are many, those of one vector stay there along the row.
        let bytes = 4 * walk.kernel * walk.kernel * walk.channels;
        let step = if bytes <= FEW_BYTES { walk.channels } else { V::LANES };
        for first in (0..walk.channels).step_by(step.max(1)) {
            let mut x = 0;
            while x < count {
                // Blocks of nearly the same size, rather than large ones and a small rest.
                let left = count - x;
                let pixels = left.div_ceil(left.div_ceil(V::PIXELS));
                for channel in (first..first + step).step_by(V::LANES) {
                    // SAFETY: `x` and the pixels that follow it are below the count, as the channels are.
                    unsafe { self.some::<V>(x, pixels, channel) };
                }
                x += pixels;
            }
        }
    }
}

/// Half of the smallest innermost cache.
const FEW_BYTES: usize = 16 << 10;

impl Along {
    /// A vector from channel `channel` on of some outputs.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline(always)]
    unsafe fn some<V: Vector>(&self, x: usize, pixels: usize, channel: usize) {
        let Self { walk, source, weights, out, .. } = self;
        // SAFETY: the caller's.
        unsafe {
            let source = source.add(x * walk.stride * walk.pixel + channel);
            let (weights, out) = (weights.add(channel), out.add(x * walk.channels + channel));
            match pixels {
                8 if V::PIXELS >= 8 => walk.block::<V, 8>(source, weights, out),
                7 if V::PIXELS >= 7 => walk.block::<V, 7>(source, weights, out),
                6 if V::PIXELS >= 6 => walk.block::<V, 6>(source, weights, out),
                5 if V::PIXELS >= 5 => walk.block::<V, 5>(source, weights, out),
                4 => walk.block::<V, 4>(source, weights, out),
                3 => walk.block::<V, 3>(source, weights, out),
                2 => walk.block::<V, 2>(source, weights, out),
                _ => walk.block::<V, 1>(source, weights, out),
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
}

impl Window {
    /// Folds a vector of each of its pixels, from channel `channel` on.
    ///
    /// # Safety
    /// The instruction set is that of `V`; all pixels lie in memory.
    #[inline(always)]
    unsafe fn fold<V: Vector>(self, channel: usize, start: V, with: impl Fn(V, V) -> V) -> V {
        let mut result = start;
        for y in 0..self.rows {
            for x in 0..self.columns {
                // SAFETY: as promised.
                let value =
                    unsafe { V::load(self.first.add(y * self.row + x * self.pixel + channel)) };
                result = with(result, value);
            }
        }
        result
    }

    /// The sum times `share`.
    ///
    /// # Safety
    /// As for [`Self::fold`].
    #[inline(always)]
    pub(crate) unsafe fn sum<V: Vector>(self, channel: usize, share: f32) -> V {
        // SAFETY: as promised.
        unsafe {
            let sum = self.fold(channel, V::splat(0.), |a: V, b| a.add(b));
            sum.mul(V::splat(share))
        }
    }

    /// The largest.
    ///
    /// # Safety
    /// As for [`Self::fold`].
    #[inline(always)]
    pub(crate) unsafe fn largest<V: Vector>(self, channel: usize) -> V {
        // SAFETY: as promised.
        unsafe { self.fold(channel, V::splat(f32::NEG_INFINITY), |a: V, b| a.max(b)) }
    }
}
