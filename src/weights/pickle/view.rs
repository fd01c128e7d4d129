//! Tensors as strided views, gathered into rows.

use std::ops::Range;

use super::value::View;

impl View {
    fn elements(&self) -> u64 {
        self.shape.iter().map(|&side| side as u64).product()
    }

    /// Bytes of the tensor in row-major order.
    pub(super) fn bytes(&self) -> u64 {
        self.elements() * self.element.bytes() as u64
    }

    /// The bytes of the storage from the tensor's first element to its last.
    pub(super) fn range(&self) -> Range<u64> {
        let size = self.element.bytes() as u64;
        if self.shape.contains(&0) {
            return self.offset * size..self.offset * size;
        }
        let last: u64 =
            self.shape.iter().zip(&self.strides).map(|(&n, s)| (n as u64 - 1) * s).sum();
        self.offset * size..(self.offset + last + 1) * size
    }

    /// Length of [`Self::range`].
    pub(super) fn range_bytes(&self) -> u64 {
        let range = self.range();
        range.end - range.start
    }

    /// Whether its elements lie in row-major order without gaps.
    pub(super) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.contains(&0)
            || self.shape.iter().zip(&self.strides).rev().all(|(&side, &stride)| {
                // Where a side is 1, its stride is never used.
                let fits = side == 1 || stride == expected;
                expected *= side as u64;
                fits
            })
    }

    /// The tensor in row-major order, from the bytes of [`Self::range`].
    pub(super) fn gather(&self, range: &[u8]) -> Vec<u8> {
        let size = self.element.bytes();
        let mut bytes = Vec::with_capacity(self.bytes() as usize);
        if self.shape.contains(&0) {
            return bytes;
        }
        // The innermost side in one loop, the others counted like an odometer.
        let (&side, outer) = self.shape.split_last().unwrap_or((&1, &[]));
        let stride = self.strides.last().map_or(0, |&s| s as usize) * size;
        let mut index = vec![0; outer.len()];
        loop {
            let start: usize = index.iter().zip(&self.strides).map(|(i, &s)| i * s as usize).sum();
            for step in 0..side {
                let at = start * size + step * stride;
                bytes.extend_from_slice(&range[at..at + size]);
            }
            let Some(turn) = (0..outer.len()).rev().find(|&d| index[d] + 1 < outer[d]) else {
                return bytes;
            };
            index[turn] += 1;
            index[turn + 1..].fill(0);
        }
    }
}
