//! Buffers that batches leave behind, for the batches to come.
//!
//! A batch of 4 images of 800 x 1333 pixels is 51 MB. Taken from the system each time, every page of it is mapped and
//! zeroed anew, which costs as much time as writing the pixels.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The floats of a batch. They go back to where they came from when it is dropped.
#[derive(Debug, Default)]
pub struct Pixels {
    values: Vec<f32>,
    home: Weak<Shelf>,
}

/// A few buffers that nobody uses.
#[derive(Debug)]
pub(super) struct Shelf {
    kept: Mutex<Kept>,
    room: usize,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<f32>>,
    /// The most floats that were ever asked for. New buffers have room for as many, so that memory stops
    /// growing once the largest batch was seen.
    largest: usize,
}

impl Shelf {
    /// With room for `room` buffers; what comes back to a full one is freed.
    pub(super) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), room })
    }

    /// `length` floats of any value, and whether all are zero; `None` where memory does not suffice.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Option<(Pixels, bool)> {
        let (found, capacity) = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.largest = kept.largest.max(length);
            let place = kept.buffers.iter().rposition(|buffer| buffer.capacity() >= length);
            // One that is too small makes room for the one that is not.
            let found = place.map(|place| kept.buffers.swap_remove(place));
            if found.is_none() {
                kept.buffers.pop();
            }
            (found, kept.largest)
        };
        let (values, zero) = if let Some(mut buffer) = found {
            buffer.resize(length, 0.);
            (buffer, false)
        } else {
            let mut buffer = zeros(capacity).or_else(|| zeros(length))?;
            buffer.truncate(length);
            (buffer, true)
        };
        Some((Pixels { values, home: Arc::downgrade(self) }, zero))
    }
}

/// `length` zeros; `None` where memory does not suffice.
pub(super) fn zeros(length: usize) -> Option<Vec<f32>> {
    // Of `vec!` zeros cost nothing.
    fits(length.checked_mul(size_of::<f32>())?).then(|| vec![0.; length])
}

/// Whether memory suffices for a buffer of so many bytes. To be asked before a large one is made, which ends the process
/// where it does not.
pub(super) fn fits(bytes: usize) -> bool {
    let mut probe = Vec::<u8>::new();
    let fits = probe.try_reserve_exact(bytes).is_ok();
    drop(std::hint::black_box(probe));
    fits
}

impl Drop for Pixels {
    fn drop(&mut self) {
        let Some(shelf) = self.home.upgrade() else { return };
        let mut kept = shelf.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.buffers.len() < shelf.room {
            kept.buffers.push(std::mem::take(&mut self.values));
        }
    }
}

impl From<Vec<f32>> for Pixels {
    fn from(values: Vec<f32>) -> Self {
        Self { values, home: Weak::new() }
    }
}

impl Deref for Pixels {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Pixels {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl Clone for Pixels {
    fn clone(&self) -> Self {
        self.values.clone().into()
    }
}

impl PartialEq for Pixels {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_is_given_out_again() {
        let shelf = Shelf::new(1);
        let (mut first, zero) = shelf.take(6).unwrap();
        assert!(zero && first.iter().all(|&v| v == 0.));
        first.fill(7.);
        let place = first.as_ptr();
        drop(first);
        let (second, zero) = shelf.take(4).unwrap();
        assert_eq!((second.as_ptr(), second.len(), zero), (place, 4, false));
        // A copy is nobody's.
        drop(second.clone());
        assert_eq!(shelf.kept.lock().unwrap().buffers.len(), 0);
        // There is room for one alone, and a larger batch replaces it.
        let (third, _) = shelf.take(9).unwrap();
        drop((second, third));
        assert_eq!(shelf.kept.lock().unwrap().buffers.len(), 1);
        let (large, _) = shelf.take(100).unwrap();
        assert_eq!(shelf.kept.lock().unwrap().buffers.len(), 0);
        drop(large);
        // From here on every new one has room for the largest.
        let (a, b) = (shelf.take(1).unwrap().0, shelf.take(1).unwrap().0);
        assert!(a.values.capacity() >= 100 && b.values.capacity() >= 100);
        drop(shelf);
        drop((a, b));
    }

    #[test]
    fn what_memory_cannot_hold_is_refused() {
        assert!(Shelf::new(1).take(usize::MAX / 64).is_none());
    }
}
