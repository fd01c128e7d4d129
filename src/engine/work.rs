//! The operations of a program before their places are known.

use std::sync::Arc;

use detect_kernel::{Aligned, Fold, Packed};

use super::program::Buffer;

/// What an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// What the program is given: `channels` floats a pixel, of which those from `first` on.
    Given { height: usize, width: usize, channels: usize, first: usize },
    /// A buffer.
    Buffer(Buffer),
}

/// An operation before its places are known.
#[derive(Debug)]
pub(super) enum Work {
    /// A convolution, pixel by pixel as a product: `taps` are the places of its kernel, down and across, from the
    /// output's pixel times `stride` on. Where pixels of a tap do not exist, it counts as zero and so must be one of the
    /// last: all but the first `always` taps.
    Convolution { stride: [usize; 2], taps: Vec<[isize; 2]>, always: usize, weights: Arc<Packed> },
    /// A depthwise convolution with SAME padding of `before` pixels, then a product.
    Separable {
        stride: usize,
        kernel: usize,
        before: [usize; 2],
        depthwise: Arc<Aligned>,
        weights: Arc<Packed>,
    },
    /// A pool with SAME padding.
    Pool { stride: usize, kernel: usize, fold: Fold },
    /// Nothing.
    Copy { channels: usize },
    /// A norm over each image.
    Norm { together: bool, epsilon: f32, scale: Vec<f32>, offset: Vec<f32> },
}

/// An operation, what it reads, and what it adds.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) work: Work,
    pub(super) source: Source,
    pub(super) residual: Option<Buffer>,
}

impl Node {
    /// The buffers that it reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = Buffer> {
        let source = match self.source {
            Source::Buffer(buffer) => Some(buffer),
            Source::Given { .. } => None,
        };
        source.into_iter().chain(self.residual)
    }

    /// Whether it is a pool that another one is as well: two rows of a cell may look at the same one.
    pub(super) fn is_same_pool(&self, other: &Self) -> bool {
        let pool = |node: &Self| match node.work {
            Work::Pool { stride, kernel, fold } => {
                Some((stride, kernel, fold, node.source, node.residual))
            }
            _ => None,
        };
        pool(self).is_some_and(|own| pool(other) == Some(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::program::Builder;
    use detect_kernel::Grid;

    #[test]
    fn a_pool_is_made_once() {
        let mut builder = Builder::new(8);
        let shape = (Grid { images: 1, height: 6, width: 6 }, 8);
        let given = Source::Given { height: 6, width: 6, channels: 8, first: 0 };
        let mut leaf = || builder.add(Work::Copy { channels: 8 }, given, None, shape);
        let maps = [leaf(), leaf()];
        assert_ne!(maps[0], maps[1], "what is no pool is made anew");
        let [one, other] = maps.map(|map| builder.read(&[map], false, 0));
        let mut pool = |from, stride, residual| {
            let work = Work::Pool { stride, kernel: 3, fold: Fold::Largest };
            builder.add(work, Source::Buffer(from), residual, shape)
        };
        let first = pool(one, 1, None);
        assert_eq!(pool(one, 1, None), first);
        for unlike in [pool(other, 1, None), pool(one, 2, None), pool(one, 1, Some(other))] {
            assert_ne!(unlike, first);
        }
    }
}
