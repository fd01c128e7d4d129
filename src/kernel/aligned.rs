//! Floats that begin with a cache line: a vector of 64 bytes elsewhere would be read from two of them.

use std::ops::{Deref, DerefMut};

/// Floats of a cache line.
const LINE: usize = 16;

/// Zeros, or `None` where memory does not suffice.
pub fn zeros<T: Clone + Default>(length: usize) -> Option<Vec<T>> {
    // `vec!`, whose zeros cost nothing, ends the process where memory does not suffice: ask first.
    let mut probe = Vec::<T>::new();
    probe.try_reserve_exact(length).ok()?;
    drop(std::hint::black_box(probe));
    Some(vec![T::default(); length])
}

/// Floats whose first lies at a multiple of 64 bytes.
#[derive(Debug, Default)]
pub struct Aligned {
    floats: Vec<f32>,
    /// Those before the first.
    before: usize,
    length: usize,
}

impl Aligned {
    /// Zeros, or `None` where memory does not suffice.
    pub fn zeros(length: usize) -> Option<Self> {
        let floats: Vec<f32> = zeros(length.checked_add(LINE)?)?;
        let before = floats.as_ptr().align_offset(4 * LINE).min(LINE);
        Some(Self { floats, before, length })
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.floats[self.before..][..self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.before..][..self.length]
    }
}

/// A copy may lie elsewhere, and so is aligned anew.
impl Clone for Aligned {
    fn clone(&self) -> Self {
        self.iter().copied().collect()
    }
}

/// # Panics
/// Where memory does not suffice, in the words of C++, by which `detect` knows it.
impl FromIterator<f32> for Aligned {
    fn from_iter<I: IntoIterator<Item = f32>>(all: I) -> Self {
        let all: Vec<f32> = all.into_iter().collect();
        let mut aligned = Self::zeros(all.len()).expect("std::bad_alloc: memory for weights");
        aligned.copy_from_slice(&all);
        aligned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_begin_with_a_line_wherever_they_are_copied_to() {
        for length in [0, 1, 15, 16, 1000, 300_000] {
            let floats: Aligned = (0..length).map(|i| i as f32).collect();
            let copy = floats.clone();
            for floats in [&floats, &copy] {
                assert_eq!((floats.as_ptr() as usize % 64, floats.len()), (0, length));
            }
            assert_eq!(*floats, *copy);
        }
        assert!(Aligned::zeros(usize::MAX).is_none() && Aligned::zeros(usize::MAX / 64).is_none());
    }
}
