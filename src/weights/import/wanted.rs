//! What is taken from a published file: each of our tensors, from which of the file's, and how.

use std::collections::BTreeSet;
use std::path::Path;

use crate::nasnet::layers::Leaf;
use crate::weights::strict::unusable;
use crate::weights::{Contents, Source, StoredTensor, WeightsError};

/// Which of the file's sides becomes each of ours. The file's shape follows from ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// As they are.
    Same,
    /// `[k, k, inputs, outputs]` to `[outputs, inputs, k, k]`.
    ConvolutionOfTf,
    /// `[k, k, channels, 1]` to `[channels, 1, k, k]`.
    DepthwiseOfTf,
    /// `[inputs, outputs]` to `[outputs, inputs]`.
    LinearOfTf,
}

impl Sides {
    /// The sides of a tensor in TensorFlow's and Keras's layout.
    pub fn of_tf(leaf: Leaf, dimensions: usize) -> Self {
        match leaf {
            Leaf::Depthwise => Self::DepthwiseOfTf,
            Leaf::Weight if dimensions == 2 => Self::LinearOfTf,
            Leaf::Weight | Leaf::Pointwise | Leaf::Path(_) | Leaf::Across | Leaf::Down => {
                Self::ConvolutionOfTf
            }
            Leaf::Gamma | Leaf::Beta | Leaf::Mean | Leaf::Variance | Leaf::Bias => Self::Same,
        }
    }

    /// Side `i` of ours is side `order[i]` of the file's.
    fn order(self) -> &'static [usize] {
        match self {
            Self::Same => &[],
            Self::ConvolutionOfTf => &[3, 2, 0, 1],
            Self::DepthwiseOfTf => &[2, 3, 0, 1],
            Self::LinearOfTf => &[1, 0],
        }
    }
}

/// Which rows (entries of our first side) are taken, in our order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Rows that the file has.
    pub of: usize,
    /// The file's row for each of ours.
    pub picked: Vec<usize>,
}

impl Rows {
    /// Of a classifier of `of` outputs the last `classes`: without the background class, which is the first.
    pub fn without_background(of: usize, classes: usize) -> Option<Self> {
        (of != classes).then(|| Self { of, picked: (of - classes..of).collect() })
    }
}

/// One of our tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Our name.
    pub name: String,
    /// Our shape.
    pub shape: Vec<usize>,
    /// The file's name.
    pub from: String,
    /// How the file's sides lie.
    pub sides: Sides,
    /// Where the file has other rows than we.
    pub rows: Option<Rows>,
}

impl Wanted {
    /// The shape that the file must have.
    fn shape_in_file(&self) -> Vec<usize> {
        let mut ours = self.shape.clone();
        if let (Some(rows), Some(first)) = (&self.rows, ours.first_mut()) {
            *first = rows.of;
        }
        let order = self.sides.order();
        if order.is_empty() {
            return ours;
        }
        let mut theirs = vec![0; order.len()];
        for (side, &at) in ours.iter().zip(order) {
            theirs[at] = *side;
        }
        theirs
    }

    /// Our tensor from the file's.
    fn taken(&self, tensor: StoredTensor) -> StoredTensor {
        let mut tensor = permuted(tensor, self.sides.order());
        if let Some(rows) = &self.rows {
            let row = tensor.bytes.len() / rows.of.max(1);
            tensor.bytes =
                rows.picked.iter().flat_map(|r| &tensor.bytes[r * row..][..row]).copied().collect();
            tensor.shape[0] = rows.picked.len();
        }
        tensor
    }
}

/// The tensor with its sides in another order: side `i` of the result is side `order[i]`.
fn permuted(tensor: StoredTensor, order: &[usize]) -> StoredTensor {
    let shape: Vec<usize> = order.iter().map(|&side| tensor.shape[side]).collect();
    // Sides of 1 do not matter: a pointwise convolution is transposed as a matrix.
    let moved: Vec<usize> = order.iter().copied().filter(|&side| tensor.shape[side] != 1).collect();
    if order.is_empty() || moved.is_sorted() {
        let shape = if order.is_empty() { tensor.shape } else { shape };
        return StoredTensor { shape, ..tensor };
    }
    let size = tensor.element.bytes();
    let mut strides = vec![size; tensor.shape.len()];
    for side in (0..tensor.shape.len().saturating_sub(1)).rev() {
        strides[side] = strides[side + 1] * tensor.shape[side + 1];
    }
    let sides: Vec<(usize, usize)> =
        moved.iter().map(|&side| (tensor.shape[side], strides[side])).collect();
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    copy(&tensor.bytes, 0, &sides, size, &mut bytes);
    StoredTensor { element: tensor.element, shape, bytes }
}

/// Appends the elements from `at` on, along `sides` of (length, stride in bytes).
fn copy(from: &[u8], at: usize, sides: &[(usize, usize)], size: usize, to: &mut Vec<u8>) {
    match sides {
        [] => to.extend_from_slice(&from[at..at + size]),
        // Floats, which nearly all is: a fixed size copies several times faster.
        &[(length, stride)] if size == 4 => {
            for i in 0..length {
                let start = at + i * stride;
                to.extend_from_slice(from[start..].first_chunk::<4>().expect("inside the tensor"));
            }
        }
        [(length, stride), rest @ ..] => {
            (0..*length).for_each(|i| copy(from, at + i * stride, rest, size, to));
        }
    }
}

/// Reads all that is wanted. Before anything is read, every missing, unexpected and misshapen tensor
/// is listed in one error; `ignored` says which of the file's names are known and not needed.
pub fn take(
    source: &mut dyn Source,
    wanted: &[Wanted],
    ignored: impl Fn(&str) -> bool,
    path: &Path,
) -> Result<Contents, WeightsError> {
    let mut faults = Vec::new();
    let there = source.tensors();
    for w in wanted {
        let expected = w.shape_in_file();
        match there.get(&w.from) {
            None => faults.push(format!("  missing: {} {expected:?}", w.from)),
            Some(info) if info.shape != expected => faults.push(format!(
                "  misshapen: {} is {:?}, expected {expected:?}",
                w.from, info.shape
            )),
            Some(info) if !info.element.is_float() => {
                faults.push(format!("  {} holds {:?}, expected floats", w.from, info.element));
            }
            Some(_) => {}
        }
    }
    let used: BTreeSet<&str> = wanted.iter().map(|w| w.from.as_str()).collect();
    for (name, info) in there {
        if !used.contains(name.as_str()) && !ignored(name) {
            faults.push(format!("  unexpected: {name} {:?}", info.shape));
        }
    }
    if !faults.is_empty() {
        return Err(WeightsError::Mismatch { path: path.into(), list: faults.join("\n") });
    }
    let mut contents = Contents::default();
    for w in wanted {
        let tensor = w.taken(source.read(&w.from)?);
        faults.extend(unusable(&w.name, &tensor).map(|what| format!("  {what} (from {})", w.from)));
        contents.tensors.insert(w.name.clone(), tensor);
    }
    if faults.is_empty() {
        Ok(contents)
    } else {
        Err(WeightsError::Mismatch { path: path.into(), list: faults.join("\n") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Element;

    fn numbers(shape: &[usize]) -> StoredTensor {
        let count: usize = shape.iter().product();
        let bytes = (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
        StoredTensor { element: Element::F32, shape: shape.to_vec(), bytes }
    }

    fn values(tensor: &StoredTensor) -> Vec<f32> {
        tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    #[test]
    fn sides_move_as_numpy_s_transpose_moves_them() {
        // np.arange(24).reshape(2, 1, 3, 4).transpose(3, 2, 0, 1).ravel()
        let moved = permuted(numbers(&[2, 1, 3, 4]), Sides::ConvolutionOfTf.order());
        assert_eq!(moved.shape, [4, 3, 2, 1]);
        let expected =
            [0, 12, 4, 16, 8, 20, 1, 13, 5, 17, 9, 21, 2, 14, 6, 18, 10, 22, 3, 15, 7, 19, 11, 23];
        assert_eq!(values(&moved), expected.map(|i| i as f32));
        // A pointwise convolution is a matrix; halves go the slow way.
        let moved = permuted(numbers(&[1, 1, 2, 3]), Sides::ConvolutionOfTf.order());
        assert_eq!((values(&moved), moved.shape), (vec![0., 3., 1., 4., 2., 5.], vec![3, 2, 1, 1]));
        let bytes =
            StoredTensor { element: Element::U8, shape: vec![2, 2], bytes: vec![1, 2, 3, 4] };
        assert_eq!(permuted(bytes, Sides::LinearOfTf.order()).bytes, [1, 3, 2, 4]);
        // A depthwise kernel of one channel keeps its order.
        let moved = permuted(numbers(&[2, 2, 1, 1]), Sides::DepthwiseOfTf.order());
        assert_eq!((values(&moved), moved.shape), (vec![0., 1., 2., 3.], vec![1, 1, 2, 2]));
    }

    #[test]
    fn rows_are_picked_after_the_sides_are_moved() {
        let wanted = Wanted {
            name: "ours".into(),
            shape: vec![2, 2],
            from: "theirs".into(),
            sides: Sides::LinearOfTf,
            rows: Some(Rows { of: 3, picked: vec![2, 0] }),
        };
        assert_eq!(wanted.shape_in_file(), [2, 3]);
        let taken = wanted.taken(numbers(&[2, 3]));
        assert_eq!((values(&taken), taken.shape), (vec![2., 5., 0., 3.], vec![2, 2]));
    }
}
