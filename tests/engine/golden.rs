//! Golden tensors as slices, and how they are compared.

use std::path::{Path, PathBuf};

use detect::engine::map::Map;
use detect::geometry::Box2;
use detect::weights::{Contents, Element, StoredTensor};

/// A golden file.
pub(crate) struct Golden {
    path: PathBuf,
    contents: Contents,
}

/// A golden tensor of floats.
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f32>,
}

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        Self { path: path.into(), contents: Contents::read(path).unwrap() }
    }

    fn stored(&self, name: &str) -> &StoredTensor {
        let found = self.contents.tensors.get(name);
        found.unwrap_or_else(|| panic!("{} has no {name}", self.path.display()))
    }

    pub(crate) fn get(&self, name: &str) -> Array {
        let stored = self.stored(name);
        Array { shape: stored.shape.clone(), data: stored.to_f32().unwrap() }
    }

    /// Whole numbers.
    pub(crate) fn integers(&self, name: &str) -> Vec<usize> {
        let stored = self.stored(name);
        let bytes = &stored.bytes;
        match stored.element {
            Element::I64 => {
                bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as usize).collect()
            }
            Element::I32 => {
                bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as usize).collect()
            }
            Element::U8 => bytes.iter().map(|&b| usize::from(b)).collect(),
            other => panic!("{name} holds {other:?}"),
        }
    }

    pub(crate) fn shape(&self, name: &str) -> &[usize] {
        &self.stored(name).shape
    }

    pub(crate) fn boxes(&self, name: &str) -> Vec<Box2> {
        as_boxes(&self.get(name).data)
    }

    /// `[N, C, H, W]` as our map.
    pub(crate) fn map(&self, name: &str) -> Map {
        let Array { shape, data } = self.get(name);
        let &[images, channels, height, width] = &shape[..] else { panic!("{name}: {shape:?}") };
        let area = height * width;
        let at = |i: usize| {
            let (pixel, channel) = (i / channels, i % channels);
            data[(pixel / area * channels + channel) * area + pixel % area]
        };
        let moved = (0..data.len()).map(at).collect();
        Map::new([images, height, width, channels], moved)
    }

    /// `[N, H, W, C]`.
    pub(crate) fn channels_last(&self, name: &str) -> Map {
        let Array { shape, data } = self.get(name);
        Map::new(shape.try_into().unwrap(), data)
    }
}

/// `[.., 4]` numbers as boxes.
pub(crate) fn as_boxes(numbers: &[f32]) -> Vec<Box2> {
    numbers.as_chunks::<4>().0.iter().map(|&[x1, y1, x2, y2]| Box2 { x1, y1, x2, y2 }).collect()
}

/// Boxes as `[.., 4]` numbers.
pub(crate) fn as_numbers(boxes: &[Box2]) -> Vec<f32> {
    boxes.iter().flat_map(|b| [b.x1, b.y1, b.x2, b.y2]).collect()
}

/// The largest difference, as a share of the golden tensor's largest value.
pub(crate) fn difference(golden: &[f32], found: &[f32]) -> f64 {
    let worst = golden.iter().zip(found).fold(0_f64, |worst, (&g, &f)| {
        let far = (f64::from(g) - f64::from(f)).abs();
        assert!(!far.is_nan(), "NaN in a comparison");
        worst.max(far)
    });
    let scale = golden.iter().fold(0_f64, |largest, &g| largest.max(f64::from(g).abs()));
    if scale == 0. { worst } else { worst / scale }
}

/// Fails unless `found` is `golden` to within `limit` of its largest value; prints how far it is.
#[track_caller]
pub(crate) fn compare(what: &str, golden: &[f32], found: &[f32], limit: f64) {
    assert_eq!(golden.len(), found.len(), "{what}: lengths differ");
    let far = difference(golden, found);
    eprintln!("{what:60} {far:.2e}  (limit {limit:.0e})");
    assert!(far <= limit, "{what}: differs by {far:.2e} of the largest value (limit {limit:.0e})");
}
