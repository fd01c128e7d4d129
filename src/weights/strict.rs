//! Tensors of a file for a network that knows their names and shapes: all of them and no others.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};

use super::{Contents, Element, StoredTensor, WeightsError};

/// This many tensors that do not fit are named: of another network it would be all.
const NAMED: usize = 10;

/// Finds each of the `expected` tensors by name. What is missing, unexpected or misshapen is counted in one
/// error that names the first. `own` says under which name a tensor of the file is looked for, if it is the network's at all.
/// `num_batches_tracked`, which PyTorch counts and nobody reads, is passed over.
pub fn fit<'a>(
    expected: &BTreeMap<String, Vec<usize>>,
    contents: &'a Contents,
    own: impl Fn(&str) -> Option<&str>,
    path: &Path,
) -> Result<BTreeMap<&'a str, &'a StoredTensor>, WeightsError> {
    let stored: BTreeMap<&str, &StoredTensor> = (contents.tensors.iter())
        .filter_map(|(name, tensor)| Some((own(name)?, tensor)))
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .collect();
    let mut faults = Vec::new();
    for (name, shape) in expected {
        match stored.get(name.as_str()) {
            None => faults.push(format!("  missing: {name} {shape:?}")),
            Some(tensor) if tensor.shape != *shape => {
                faults
                    .push(format!("  misshapen: {name} is {:?}, expected {shape:?}", tensor.shape));
            }
            Some(_) => {}
        }
    }
    for (name, tensor) in &stored {
        if !expected.contains_key(*name) {
            faults.push(format!("  unexpected: {name} {:?}", tensor.shape));
        }
    }
    if faults.is_empty() {
        Ok(stored)
    } else {
        let more = faults.len().saturating_sub(NAMED);
        faults.truncate(NAMED);
        if more > 0 {
            faults.push(format!("  and {more} more"));
        }
        Err(WeightsError::Mismatch { path: path.into(), list: faults.join("\n") })
    }
}

/// Refuses a model that would compute nothing but numbers that are none.
///
/// # Errors
/// With every tensor that holds what is not finite, or variances below zero.
pub fn usable(contents: &Contents, path: &Path) -> Result<(), WeightsError> {
    let faults = contents.tensors.iter().filter_map(|(name, tensor)| unusable(name, tensor));
    let list: Vec<String> = faults.map(|what| format!("  {what}")).collect();
    if list.is_empty() {
        return Ok(());
    }
    Err(WeightsError::Mismatch { path: path.into(), list: list.join("\n") })
}

/// Why no network can compute with the tensor of this name of ours, if there is a reason.
pub(in crate::weights) fn unusable(name: &str, tensor: &StoredTensor) -> Option<String> {
    if !tensor.is_finite() {
        return Some(format!("{name} holds numbers that are not finite"));
    }
    let negative = name.ends_with("running_var")
        && tensor.to_f32().is_some_and(|values| values.iter().any(|&x| x < 0.));
    negative.then(|| format!("{name} holds negative variances"))
}

impl StoredTensor {
    /// Its elements as 32-bit floats, or `None` where they are no floats.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let bytes = &self.bytes;
        Some(match self.element {
            Element::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Element::F64 => {
                bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
            }
            Element::F16 => {
                bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
            }
            Element::BF16 => {
                bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_every_width_are_read() {
        let read = |element, bytes: &[u8]| {
            let shape = vec![bytes.len() / Element::bytes(element)];
            StoredTensor { element, shape, bytes: bytes.to_vec() }.to_f32()
        };
        // Patterns of IEEE 754: 1, -2, the smallest subnormal of a half, which is 2^-24.
        let halves = [0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00];
        assert_eq!(read(Element::F16, &halves), Some(vec![1., -2., 2_f32.powi(-24)]));
        assert_eq!(read(Element::BF16, &[0x80, 0x3f, 0x00, 0xc0]), Some(vec![1., -2.]));
        assert_eq!(read(Element::F32, &0.1_f32.to_le_bytes()), Some(vec![0.1]));
        assert_eq!(read(Element::F64, &0.1_f64.to_le_bytes()), Some(vec![0.1]));
        assert_eq!(read(Element::I64, &[0; 8]), None);
        assert_eq!(read(Element::F16, &[]), Some(vec![]));
    }

    #[test]
    fn what_nothing_can_be_computed_with_is_named() {
        let unusable = |name: &str, values: &[f32]| {
            unusable(name, &StoredTensor::from_f32(vec![values.len()], values))
        };
        assert_eq!(unusable("a.bn.running_var", &[0., 1.]), None);
        assert_eq!(unusable("a.bn.running_mean", &[-1., 1.]), None);
        let negative = unusable("a.bn.running_var", &[1., -1.]).unwrap();
        assert_eq!(negative, "a.bn.running_var holds negative variances");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let said = unusable("a.weight", &[1., bad]).unwrap();
            assert_eq!(said, "a.weight holds numbers that are not finite");
        }
    }

    #[test]
    fn all_that_does_not_fit_is_listed() {
        let tensor = |shape: &[usize]| StoredTensor {
            element: Element::F32,
            shape: shape.to_vec(),
            bytes: vec![0; 4 * shape.iter().product::<usize>()],
        };
        let contents = Contents {
            tensors: [
                ("net.a", tensor(&[2])),
                ("net.b", tensor(&[3])),
                ("net.d", tensor(&[1])),
                ("net.bn.num_batches_tracked", tensor(&[])),
                ("other", tensor(&[1])),
            ]
            .map(|(name, tensor)| (name.to_owned(), tensor))
            .into(),
            ..Contents::default()
        };
        let expected = |list: &[(&str, usize)]| {
            list.iter().map(|&(name, side)| (name.to_owned(), vec![side])).collect()
        };
        let found = |list: &[(&str, usize)]| {
            fit(&expected(list), &contents, |name| name.strip_prefix("net."), Path::new("file"))
        };
        let fitting = found(&[("a", 2), ("b", 3), ("d", 1)]).unwrap();
        assert_eq!(fitting.keys().copied().collect::<Vec<_>>(), ["a", "b", "d"]);
        let error = found(&[("a", 2), ("b", 4), ("c", 1)]).unwrap_err().to_string();
        let lines = "file does not fit the network:\n  misshapen: b is [3], expected [4]\n  \
                     missing: c [1]\n  unexpected: d [1]";
        assert_eq!(error, lines);
        // Of another network the first are enough.
        let names: Vec<String> = (10..24).map(|i| format!("x{i}")).collect();
        let other: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let error = found(&other).unwrap_err().to_string();
        assert!(error.ends_with("  missing: x19 [1]\n  and 7 more"), "{error}");
    }
}
