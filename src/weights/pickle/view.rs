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

    /// Whether its elements lie without gaps, each once, in any order of the sides.
    pub(super) fn is_dense(&self) -> bool {
        let sides = self.shape.iter().zip(&self.strides).filter(|(side, _)| **side != 1);
        let mut sides: Vec<_> = sides.map(|(&side, &stride)| (stride, side as u64)).collect();
        sides.sort_unstable();
        let mut expected = 1;
        self.shape.contains(&0)
            || sides.iter().all(|&(stride, side)| {
                let fits = stride == expected;
                expected *= side;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Element;

    fn view(offset: u64, shape: &[usize], strides: &[u64]) -> View {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        View { storage: 0, element: Element::I16, offset, shape, strides }
    }

    /// Every element by its own index, the slow way.
    fn expected(view: &View, storage: &[u16]) -> Vec<u8> {
        let mut indices = vec![Vec::new()];
        for &side in &view.shape {
            indices = indices
                .into_iter()
                .flat_map(|index: Vec<u64>| {
                    (0..side as u64).map(move |i| [index.clone(), vec![i]].concat())
                })
                .collect();
        }
        let place = |index: &Vec<u64>| {
            view.offset + index.iter().zip(&view.strides).map(|(i, s)| i * s).sum::<u64>()
        };
        indices.iter().flat_map(|index| storage[place(index) as usize].to_le_bytes()).collect()
    }

    #[test]
    fn views_of_all_kinds_are_gathered() {
        let storage: Vec<u16> = (500..600).collect();
        let bytes: Vec<u8> = storage.iter().flat_map(|n| n.to_le_bytes()).collect();
        // Shape, strides, row-major, each element once.
        let cases: [(&[usize], &[u64], bool, bool); 12] = [
            (&[], &[], true, true),
            (&[4, 5], &[5, 1], true, true),
            (&[4, 5], &[1, 4], false, true),
            (&[2, 3, 4], &[1, 2, 6], false, true),
            (&[2, 3, 4], &[12, 1, 3], false, true),
            (&[4, 5], &[0, 1], false, false),
            (&[3, 3], &[0, 0], false, false),
            (&[3, 3], &[10, 2], false, false),
            (&[1, 5], &[77, 1], true, true),
            (&[3, 1, 2], &[2, 9, 1], true, true),
            (&[2, 0, 3], &[9, 9, 9], true, true),
            (&[4, 4], &[1, 1], false, false),
        ];
        for (shape, strides, contiguous, dense) in cases {
            for offset in [0, 7] {
                let view = view(offset, shape, strides);
                let range = view.range();
                let part = &bytes[range.start as usize..range.end as usize];
                assert_eq!(view.gather(part), expected(&view, &storage), "{view:?}");
                assert_eq!(view.is_contiguous(), contiguous, "{view:?}");
                assert_eq!(view.is_dense(), dense, "{view:?}");
                if contiguous {
                    assert_eq!(part, expected(&view, &storage), "{view:?}");
                }
            }
        }
    }
}
