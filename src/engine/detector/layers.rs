//! The layers of the heads, taken from a file.

use std::collections::BTreeMap;
use std::path::Path;

use crate::engine::dense::Dense;
use crate::weights::{Contents, StoredTensor, WeightsError, strict};

/// What the names of a detector's heads begin with.
pub const PREFIXES: [&str; 2] = ["rpn.", "roi_heads."];

/// The tensors of the heads, found and of the expected shapes.
#[derive(Debug)]
pub struct Layers<'a> {
    stored: BTreeMap<&'a str, &'a StoredTensor>,
    path: &'a Path,
}

impl<'a> Layers<'a> {
    /// Finds the `expected` tensors, and no others of the heads, in what `path` holds.
    pub fn find(
        expected: &BTreeMap<String, Vec<usize>>,
        contents: &'a Contents,
        path: &'a Path,
    ) -> Result<Self, WeightsError> {
        let own = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let stored = strict::fit(expected, contents, |name| own(name).then_some(name), path)?;
        Ok(Self { stored, path })
    }

    /// The linear layer or convolution `name`, whose inputs the file counts with channels outermost, `[C, k, k]`, and
    /// the engine with channels innermost, `[k, k, C]`: `places` is `k * k`, 1 where a row is of channels alone.
    ///
    /// # Panics
    /// If it is not among the expected tensors, or its inputs are not a multiple of `places`.
    pub fn dense(&self, name: &str, places: usize) -> Result<Dense, WeightsError> {
        let mut weight = self.numbers(&format!("{name}.weight"))?;
        let bias = self.numbers(&format!("{name}.bias"))?;
        let (outputs, inputs) = (bias.len(), weight.len() / bias.len().max(1));
        channels_innermost(&mut weight, inputs, places);
        Ok(Dense::new(&weight, &bias, outputs, inputs))
    }

    fn numbers(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let tensor = self.stored[name];
        tensor.to_f32().ok_or_else(|| {
            let list = format!("  {name} holds {:?}, expected floats", tensor.element);
            WeightsError::Mismatch { path: self.path.into(), list }
        })
    }
}

/// ReLU, and no more than `ceiling`.
pub(super) fn relu(xs: &mut [f32], ceiling: f32) {
    for x in xs {
        *x = x.clamp(0., ceiling);
    }
}

/// Turns rows `[C, places]` into rows `[places, C]`.
fn channels_innermost(weight: &mut [f32], inputs: usize, places: usize) {
    if places == 1 {
        return;
    }
    assert_eq!(inputs % places, 0, "a whole number of channels");
    for row in weight.chunks_exact_mut(inputs) {
        let old = row.to_vec();
        let moved = (0..places).flat_map(|place| old[place..].iter().step_by(places));
        row.iter_mut().zip(moved).for_each(|(to, &from)| *to = from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_move_inside() {
        // np.arange(12).reshape(2, 3, 2).transpose(0, 2, 1).ravel()
        let mut numbers: Vec<f32> = (0..12).map(|i| i as f32).collect();
        channels_innermost(&mut numbers, 6, 2);
        assert_eq!(numbers, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11].map(|i| i as f32));
    }
}
