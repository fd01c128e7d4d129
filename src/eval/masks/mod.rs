//! Masks of objects, the second thing that COCO measures the overlap of.
//!
//! `rle` holds a mask as the lengths of its runs, `string` writes and reads those lengths as text,
//! `polygon` draws outlines, `iou` measures overlaps, `read` takes what an annotations file has.
//! The results are those of pycocotools (`maskApi`, on x86-64) bit for bit. What has no meaning
//! there (runs that do not fill the image, half a point) or leads it out of bounds is an error here.

mod error;
mod iou;
mod polygon;
mod read;
mod rle;
mod string;

pub use error::MaskError;
pub use iou::{Mask, ious};
pub use rle::{Combine, MAX_PIXELS, Rle};

use crate::geometry::Size;

/// A `segmentation` as it stands in annotations and results. Nothing of it is checked yet but its form.
#[derive(Debug, Clone, PartialEq)]
pub enum Segmentation {
    /// Outlines of the parts of the object, each x, y, x, y, ... in pixels.
    Polygons(Vec<Vec<f64>>),
    /// Lengths of runs; `size` is height and width.
    Counts {
        /// Height and width.
        size: [u64; 2],
        /// Lengths of runs, down the columns, first outside of the mask.
        counts: Vec<u32>,
    },
    /// Lengths of runs as text; `size` is height and width.
    Compressed {
        /// Height and width.
        size: [u64; 2],
        /// See [`Rle::to_compressed`].
        counts: String,
    },
}

impl Segmentation {
    /// Reads the JSON of one segmentation.
    ///
    /// # Errors
    /// If it is no JSON, or neither a list of polygons nor an object with `size` and `counts`.
    pub fn from_json(json: &str) -> Result<Self, MaskError> {
        read::whole(json).map_err(|problem| MaskError::Form { problem })
    }

    /// The mask: polygons drawn in an image of this size, runs at the size that they name, which may
    /// be another.
    ///
    /// # Errors
    /// What [`Rle::from_polygons`], [`Rle::new`] and [`Rle::from_compressed`] refuse.
    pub fn to_rle(&self, image: Size) -> Result<Rle, MaskError> {
        let own = |[height, width]: [u64; 2]| {
            let side = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            Size::new(side(height), side(width))
        };
        match self {
            Self::Polygons(polygons) => Rle::from_polygons(polygons, image),
            Self::Counts { size, counts } => Rle::new(own(*size), counts.clone()),
            Self::Compressed { size, counts } => Rle::from_compressed(own(*size), counts),
        }
    }
}
