//! What follows the region heads in every family, image by image.

use std::ops::Range;

use detect::geometry::Size;
use tch::Tensor;

/// Calls `one` for each image with its rows of flat lists that have `columns` entries for each region, and
/// its size.
///
/// # Shapes
/// `regions`: for each image `[R_i, 4]`.
pub fn of_each_image<T>(
    regions: &[Tensor],
    sizes: &[Size],
    columns: usize,
    mut one: impl FnMut(Range<usize>, Size) -> T,
) -> Vec<T> {
    let mut first = 0;
    let rows = regions.iter().map(|regions| {
        let start = first;
        first += regions.size()[0] as usize * columns;
        start..first
    });
    rows.zip(sizes).map(|(rows, &size)| one(rows, size)).collect()
}
