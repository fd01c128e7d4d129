//! A few floats that the processor takes at once: the one thing in which instruction sets differ.
//!
//! The kernels are written once, over [`Vector`], and compiled for each set. A set of another processor (NEON)
//! is one more implementation here and one more line in `Instructions`.

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m256bh, __m256i, __m512, __m512bh, _CMP_UNORD_Q, _MM_HINT_T0, _MM_HINT_T1,
    _mm_prefetch, _mm256_add_ps, _mm256_blendv_ps, _mm256_cmp_ps, _mm256_dpbf16_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mask_storeu_epi16, _mm256_max_ps, _mm256_mul_ps,
    _mm256_set1_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_castps512_ps256, _mm512_cmp_ps_mask,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_mov_ps,
    _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_storeu_ps,
    _mm512_zextps256_ps512,
};
#[cfg(target_arch = "x86_64")]
use std::mem::transmute;

use half::bf16;

use crate::packed::Packing;

/// Floats of a line of the caches.
pub(crate) const CACHE_LINE: usize = 16;

/// Some floats side by side.
///
/// # Safety
/// All functions but those of [`Portable`] need the instruction set that the type is named after: they are called
/// inside of [`Vector::call`] only. Pointers are good for [`Self::LANES`] floats, of any alignment.
pub(crate) trait Vector: Copy {
    /// How many.
    const LANES: usize;
    /// Vectors side by side in a block of a product.
    const COLUMNS: usize;
    /// Rows of such a block: with the two others they fill the registers.
    const ROWS: usize;
    /// Vectors and rows of a block where one vector more is left of an output row than [`Self::COLUMNS`]: the few sums of one that
    /// is left alone would wait for each other.
    const LAST: [usize; 2];
    /// Pixels side by side of a depthwise convolution.
    const PIXELS: usize;
    /// Inputs of a product that lie in a *word*, the size of a float: 1, which is a float, or 2 in bfloat16, the first in
    /// the lower half.
    const INPUTS: usize;
    /// Whether half a vector takes half the time.
    const HALVES: bool = false;
    /// How weights are packed.
    const PACKING: Packing = Packing {
        lanes: Self::LANES,
        columns: Self::COLUMNS,
        last: Self::LAST[0],
        inputs: Self::INPUTS,
    };

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// The larger; `other` where one of them is no number.
    unsafe fn max(self, other: Self) -> Self;
    /// The same; no number where one of them is none.
    unsafe fn max_or_nan(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once where the set can.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;

    /// `sums`, and in each lane the product of two words: of each input with its weight.
    unsafe fn dot_add(self, weights: Self, sums: Self) -> Self;

    /// [`Self::dot_add`] where the upper half of the weights' lanes and the sums' are zeros, and stay so.
    #[inline(always)]
    unsafe fn dot_add_lower(self, weights: Self, sums: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { self.dot_add(weights, sums) }
    }

    /// Writes `count` floats one after the other as a word has them. `to` is good for as many, and no more.
    unsafe fn narrow(from: *const f32, count: usize, to: *mut bf16);

    /// Writes the floats as words; `to` is good for [`Self::LANES`] / [`Self::INPUTS`] of them.
    #[inline(always)]
    unsafe fn store_words(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            if Self::INPUTS == 1 {
                self.store(to);
            } else {
                Self::narrow((&raw const self).cast(), Self::LANES, to.cast());
            }
        }
    }

    /// Asks for the cache line at `from`, which need not be memory.
    #[inline(always)]
    unsafe fn prefetch(_from: *const f32) {}

    /// Asks for it in order to write there.
    #[inline(always)]
    unsafe fn prefetch_to_write(_to: *const f32) {}

    /// Asks for the cache line at `from` as far as the second level of the caches.
    #[inline(always)]
    unsafe fn prefetch_far(_from: *const f32) {}

    /// The same pointer, of which the compiler does not know how it came about: it would otherwise compute each of many
    /// that differ by the same distance anew, and run out of registers for them.
    #[inline(always)]
    unsafe fn opaque(pointer: *const f32) -> *const f32 {
        pointer
    }

    /// Runs `kernel` as a function of its own that is compiled for these instructions. All else is inlined into it.
    unsafe fn call(kernel: impl Kernel);
}

/// Code over any vectors.
pub(crate) trait Kernel {
    /// # Safety
    /// The processor has the instructions of `V`; the rest is the implementation's to say.
    unsafe fn run<V: Vector>(self);
}

/// Plain floats, which the compiler turns into whatever the processor's base set has; products read `INPUTS` inputs a
/// word.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Portable<const INPUTS: usize>([f32; 8]);

impl<const INPUTS: usize> Portable<INPUTS> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl<const INPUTS: usize> Vector for Portable<INPUTS> {
    const LANES: usize = 8;
    const COLUMNS: usize = 1;
    const ROWS: usize = 4;
    const LAST: [usize; 2] = [1, 4];
    const PIXELS: usize = 4;
    const INPUTS: usize = INPUTS;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: good for eight floats; arrays of floats have the alignment of a float.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max_or_nan(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b || a.is_nan() { a } else { b })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * factor.0[i] + term.0[i]))
    }
    #[inline(always)]
    unsafe fn dot_add(self, weights: Self, sums: Self) -> Self {
        if INPUTS == 1 {
            // SAFETY: there is nothing that it needs.
            return unsafe { self.mul_add(weights, sums) };
        }
        // A float whose lower half is zero is what its upper half is as a bfloat16.
        let first = |word: f32| f32::from_bits(word.to_bits() << 16);
        let second = |word: f32| f32::from_bits(word.to_bits() & 0xffff_0000);
        let both = self.zip(weights, |x, w| first(x) * first(w) + second(x) * second(w));
        sums.zip(both, |sum, both| sum + both)
    }
    #[inline(always)]
    unsafe fn narrow(from: *const f32, count: usize, to: *mut bf16) {
        for i in 0..count {
            // SAFETY: good for as many.
            unsafe { to.add(i).write_unaligned(bf16::from_f32(from.add(i).read_unaligned())) };
        }
    }
    #[inline(never)]
    unsafe fn call(kernel: impl Kernel) {
        // SAFETY: the caller's.
        unsafe { kernel.run::<Self>() }
    }
}

/// A vector over a register and its intrinsics. `$products` says what a word is: floats or bfloats. Of 16 lanes half can be
/// computed alone.
#[cfg(target_arch = "x86_64")]
macro_rules! vector {
    ($(#[$docs:meta])* $name:ident, $register:ty, $features:literal, lanes $lanes:tt, columns $columns:literal, rows $rows:literal,
     last $last:expr, pixels $pixels:literal, products $products:ident,
     $splat:ident $load:ident $store:ident $add:ident $mul:ident $max:ident $keep:ident $fma:ident) => {
        $(#[$docs])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name($register);

        // SAFETY of each body: the caller has seen to the instruction set and to the pointer.
        impl Vector for $name {
            const LANES: usize = $lanes;
            const COLUMNS: usize = $columns;
            const ROWS: usize = $rows;
            const LAST: [usize; 2] = $last;
            const PIXELS: usize = $pixels;

            vector!(@ $products $lanes);

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                Self(unsafe { $splat(x) })
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                Self(unsafe { $load(from) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { $store(to, self.0) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                Self(unsafe { $add(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                Self(unsafe { $mul(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                Self(unsafe { $max(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn max_or_nan(self, other: Self) -> Self {
                Self(unsafe { $keep($max(self.0, other.0), self.0) })
            }
            #[inline(always)]
            unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
                Self(unsafe { $fma(self.0, factor.0, term.0) })
            }
            #[inline(always)]
            unsafe fn prefetch(from: *const f32) {
                unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
            }
            #[inline(always)]
            #[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing changes but the caches")]
            unsafe fn prefetch_to_write(to: *const f32) {
                // The intrinsic becomes another instruction where the set has no name for this one, which all that have
                // AVX2 know.
                unsafe { asm!("prefetchw [{}]", in(reg) to, options(nomem, nostack, preserves_flags)) };
            }
            #[inline(always)]
            unsafe fn prefetch_far(from: *const f32) {
                unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
            }
            #[inline(always)]
            #[expect(clippy::pointers_in_nomem_asm_block, reason = "the pointer is handed on, and not followed")]
            unsafe fn opaque(pointer: *const f32) -> *const f32 {
                let mut pointer = pointer;
                // No instruction; `black_box` would go by way of the stack.
                unsafe { asm!("/* {} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags)) };
                pointer
            }
            #[inline(always)]
            unsafe fn call(kernel: impl Kernel) {
                #[target_feature(enable = $features)]
                #[inline(never)]
                unsafe fn compiled(kernel: impl Kernel) {
                    unsafe { kernel.run::<$name>() }
                }
                unsafe { compiled(kernel) }
            }
        }
    };
    (@ floats 8) => {
        vector!(@ floats);
    };
    (@ floats 16) => {
        vector!(@ floats);

        const HALVES: bool = true;

        #[inline(always)]
        unsafe fn dot_add_lower(self, weights: Self, sums: Self) -> Self {
            let [words, weights, sums] = [self.0, weights.0, sums.0].map(|x| unsafe { _mm512_castps512_ps256(x) });
            Self(unsafe { _mm512_zextps256_ps512(_mm256_fmadd_ps(words, weights, sums)) })
        }
    };
    (@ floats) => {
        const INPUTS: usize = 1;

        #[inline(always)]
        unsafe fn dot_add(self, weights: Self, sums: Self) -> Self {
            unsafe { self.mul_add(weights, sums) }
        }
        #[inline(always)]
        unsafe fn narrow(_from: *const f32, _count: usize, _to: *mut bf16) {
            unreachable!("a word is a float")
        }
    };
    (@ bfloats 16) => {
        const HALVES: bool = true;
        const INPUTS: usize = 2;

        #[inline(always)]
        unsafe fn dot_add_lower(self, weights: Self, sums: Self) -> Self {
            let [words, weights] =
                [self.0, weights.0].map(|bits| unsafe { transmute::<__m256, __m256bh>(_mm512_castps512_ps256(bits)) });
            let sums = unsafe { _mm512_castps512_ps256(sums.0) };
            Self(unsafe { _mm512_zextps256_ps512(_mm256_dpbf16_ps(sums, words, weights)) })
        }

        #[inline(always)]
        unsafe fn dot_add(self, weights: Self, sums: Self) -> Self {
            let [words, weights] = [self.0, weights.0].map(|bits| unsafe { transmute::<__m512, __m512bh>(bits) });
            Self(unsafe { _mm512_dpbf16_ps(sums.0, words, weights) })
        }
        #[inline(always)]
        unsafe fn narrow(from: *const f32, count: usize, to: *mut bf16) {
            for first in (0..count).step_by(Self::LANES) {
                let some = u16::MAX >> Self::LANES.saturating_sub(count - first);
                unsafe {
                    let narrow = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, from.add(first)));
                    _mm256_mask_storeu_epi16(to.add(first).cast(), some, transmute::<__m256bh, __m256i>(narrow));
                }
            }
        }
    };
}

/// `x`, or `y` where that is no number.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx")]
fn keep_nan_256(x: __m256, y: __m256) -> __m256 {
    _mm256_blendv_ps(x, y, _mm256_cmp_ps::<_CMP_UNORD_Q>(y, y))
}

/// The same.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn keep_nan_512(x: __m512, y: __m512) -> __m512 {
    _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(y, y), y)
}

#[cfg(target_arch = "x86_64")]
vector!(
    /// AVX2 and FMA: 16 registers.
    Avx2, __m256, "avx2,fma", lanes 8, columns 2, rows 6, last [3, 3], pixels 8, products floats,
    _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_add_ps _mm256_mul_ps _mm256_max_ps keep_nan_256 _mm256_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
vector!(
    /// AVX-512: 32 registers.
    Avx512, __m512, "avx512f,avx512vl,avx2,fma", lanes 16, columns 3, rows 8, last [2, 8], pixels 8, products floats,
    _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_add_ps _mm512_mul_ps _mm512_max_ps keep_nan_512 _mm512_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
vector!(
    /// AVX-512 with its instructions for bfloat16, which products read.
    Avx512Bf16, __m512, "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma", lanes 16, columns 3, rows 8, last [2, 8],
    pixels 8, products bfloats,
    _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_add_ps _mm512_mul_ps _mm512_max_ps keep_nan_512 _mm512_fmadd_ps
);
