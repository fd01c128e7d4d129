//! A feature map.

/// Pixels of several images, `[N, H, W, C]`, contiguous.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Map {
    /// `N`; regions, where it holds crops of them.
    pub images: usize,
    /// `H`.
    pub height: usize,
    /// `W`.
    pub width: usize,
    /// `C`.
    pub channels: usize,
    /// `N * H * W * C` numbers.
    pub data: Vec<f32>,
}

impl Map {
    /// A map of `[N, H, W, C]`.
    ///
    /// # Panics
    /// If there are not as many numbers.
    pub fn new([images, height, width, channels]: [usize; 4], data: Vec<f32>) -> Self {
        assert_eq!(images * height * width * channels, data.len(), "numbers of a map");
        Self { images, height, width, channels, data }
    }

    /// Pixels of all images.
    pub fn pixels(&self) -> usize {
        self.images * self.height * self.width
    }

    /// The channels of pixels `(y, x)` to `(y, x + count - 1)` of an image.
    ///
    /// # Panics
    /// If they are not all there.
    pub fn run(&self, image: usize, y: usize, x: usize, count: usize) -> &[f32] {
        debug_assert!(y < self.height && x + count <= self.width, "a run within a row");
        let first = (image * self.height + y) * self.width + x;
        &self.data[first * self.channels..][..count * self.channels]
    }
}

/// Zeros for a map.
///
/// # Panics
/// Where memory does not suffice, in the words of C++, by which `detect` knows it.
pub(super) fn zeros<T: Clone + Default>(length: usize) -> Vec<T> {
    detect_kernel::zeros(length).unwrap_or_else(|| {
        let mib = length.saturating_mul(size_of::<T>()) >> 20;
        panic!("std::bad_alloc: {mib} MiB for a map")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    #[should_panic(expected = "std::bad_alloc: ")]
    fn what_memory_does_not_hold_is_told_as_such() {
        drop(super::zeros::<f32>(usize::MAX / 8));
    }
}
