//! Why a segmentation is no mask.

use thiserror::Error;

use super::rle::MAX_PIXELS;
use crate::geometry::Size;

/// What is wrong with a segmentation. Places are counted from 0.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum MaskError {
    /// It has not the form of a segmentation.
    #[error("{problem}")]
    Form {
        /// What stands there instead.
        problem: String,
    },
    /// The image has no pixels, or too many.
    #[error("an image of {size} can't hold a mask: it needs 1 to {MAX_PIXELS} pixels")]
    ImageSize {
        /// Its size.
        size: Size,
    },
    /// The runs do not fill the image.
    #[error("its {runs} counts sum to {sum}, not to the {pixels} pixels of a mask of {size}")]
    Sum {
        /// How many runs.
        runs: usize,
        /// Pixels in them.
        sum: u64,
        /// Pixels in the mask.
        pixels: u32,
        /// Size of the mask.
        size: Size,
    },
    /// A character that compressed counts do not use.
    #[error(
        "byte {offset} of its counts is {byte:#04x}; compressed counts use '0' (0x30) to 'o' (0x6f)"
    )]
    Character {
        /// Its place.
        offset: usize,
        /// Its value.
        byte: u8,
    },
    /// The compressed counts end within a count.
    #[error("its counts end within a count")]
    Cut,
    /// A count that is negative or larger than any mask.
    #[error("the count that starts at byte {offset} is out of range: {MAX_PIXELS} pixels at most")]
    Count {
        /// Place of its first character.
        offset: usize,
    },
    /// An empty list of polygons, or of masks to combine.
    #[error("it holds no polygon")]
    NoPolygon,
    /// Masks of several sizes can't be combined.
    #[error("masks of {first} and {other} can't be combined")]
    Sizes {
        /// Size of the first.
        first: Size,
        /// Another size among them.
        other: Size,
    },
    /// A coordinate is left over.
    #[error("polygon {polygon} has {count} numbers: an x without y")]
    Odd {
        /// Which polygon.
        polygon: usize,
        /// How many numbers it has.
        count: usize,
    },
    /// Fewer than three points.
    #[error("polygon {polygon} has {count} numbers; three points take 6")]
    Few {
        /// Which polygon.
        polygon: usize,
        /// How many numbers it has.
        count: usize,
    },
    /// A coordinate is not finite or far out of any image.
    #[error(
        "number {index} of polygon {polygon} is {value}, which is no place in or near an image"
    )]
    Coordinate {
        /// Which polygon.
        polygon: usize,
        /// Place in it.
        index: usize,
        /// The number.
        value: f64,
    },
    /// The outline crosses so many columns that drawing it would take too much memory.
    #[error("its outline crosses more than {most} columns of pixels, all edges together")]
    Outline {
        /// How many are drawn.
        most: usize,
    },
}
