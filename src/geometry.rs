//! Boxes, sizes and labels: the few types that every layer speaks in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A dense class index, `0..K` without background. COCO category ids live only in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label(pub usize);

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Size {
    /// `height` x `width`.
    pub const fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

/// The size of a network's input as a user gives it: `S` or `HxW`, each side from 1 to 16384.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSize {
    /// One number: a square, or the short side where images keep their shape.
    Side(usize),
    /// Height and width.
    Sides(Size),
}

impl ImageSize {
    /// Height and width, where images do not keep their shape.
    pub const fn size(self) -> Size {
        match self {
            Self::Side(side) => Size::new(side, side),
            Self::Sides(size) => size,
        }
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Side(side) => side.fmt(f),
            Self::Sides(size) => size.fmt(f),
        }
    }
}

impl FromStr for ImageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let side = |t: &str| match t.trim().parse::<usize>() {
            Ok(n) if (1..=16_384).contains(&n) => Ok(n),
            _ => Err(format!("'{t}' is not a number of pixels between 1 and 16384")),
        };
        match text.split_once(['x', 'X']) {
            Some((h, w)) => Ok(Self::Sides(Size::new(side(h)?, side(w)?))),
            None => side(text).map(Self::Side),
        }
    }
}

/// A box by two corners, `(x1, y1)` top left and `(x2, y2)` bottom right, half-open (no +1).
///
/// Inside the program its unit is the pixel of the network's input; at the borders (annotations,
/// results) that of the original image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Box2 {
    /// Left.
    pub x1: f32,
    /// Top.
    pub y1: f32,
    /// Right.
    pub x2: f32,
    /// Bottom.
    pub y2: f32,
}

impl Box2 {
    /// The box with these corners.
    pub const fn new(x1: f32, y1: f32, x2: f32, y2: f32) -> Self {
        Self { x1, y1, x2, y2 }
    }

    /// Width, negative where the corners are swapped.
    pub fn width(self) -> f32 {
        self.x2 - self.x1
    }

    /// Height, negative where the corners are swapped.
    pub fn height(self) -> f32 {
        self.y2 - self.y1
    }

    /// Width times height.
    pub fn area(self) -> f32 {
        self.width() * self.height()
    }

    /// Intersection over union, 0 where the boxes do not touch.
    ///
    /// The float expression is torchvision's (`inter / (area_a + area_b - inter)` in f32), since its
    /// matcher compares such values for equality. 0/0 is NaN, as there.
    pub fn iou(self, other: Self) -> f32 {
        let w = (self.x2.min(other.x2) - self.x1.max(other.x1)).max(0.);
        let h = (self.y2.min(other.y2) - self.y1.max(other.y1)).max(0.);
        let inter = w * h;
        inter / (self.area() + other.area() - inter)
    }

    /// The part inside an image of `size`.
    #[must_use]
    pub fn clipped(self, size: Size) -> Self {
        let (w, h) = (size.width as f32, size.height as f32);
        Self {
            x1: self.x1.clamp(0., w),
            y1: self.y1.clamp(0., h),
            x2: self.x2.clamp(0., w),
            y2: self.y2.clamp(0., h),
        }
    }

    /// Every x times `sx`, every y times `sy`.
    #[must_use]
    pub fn scaled(self, sy: f32, sx: f32) -> Self {
        Self { x1: self.x1 * sx, y1: self.y1 * sy, x2: self.x2 * sx, y2: self.y2 * sy }
    }

    /// Mirrored left to right in an image `width` pixels wide.
    #[must_use]
    pub fn flipped(self, width: f32) -> Self {
        Self { x1: width - self.x2, x2: width - self.x1, ..self }
    }

    /// COCO's `[x, y, width, height]`.
    pub fn to_xywh(self) -> [f32; 4] {
        [self.x1, self.y1, self.width(), self.height()]
    }
}

/// One object found: a box in original pixels, its class and score (0 to 1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Where, in pixels of the original image.
    pub bbox: Box2,
    /// What.
    pub label: Label,
    /// How sure, 0 to 1.
    pub score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_a_side_or_as_height_by_width() {
        assert_eq!("320".parse(), Ok(ImageSize::Side(320)));
        assert_eq!("480x640".parse(), Ok(ImageSize::Sides(Size::new(480, 640))));
        for bad in ["", "x", "0", "-3", "12x", "axb", "99999"] {
            assert!(bad.parse::<ImageSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn iou_is_one_on_itself_and_zero_apart() {
        let a = Box2::new(1., 2., 5., 9.);
        assert_eq!(a.iou(a), 1.);
        assert_eq!(a.iou(Box2::new(6., 2., 8., 9.)), 0.);
        assert_eq!(a.iou(Box2::new(3., 2., 7., 9.)), 14. / 42.);
    }

    #[test]
    fn flipping_twice_gives_the_box_back() {
        let a = Box2::new(1.5, 2., 5., 9.);
        assert_eq!(a.flipped(64.).flipped(64.), a);
    }
}
