//! NASNet classifiers in PyTorch's names: timm's, and Cadene's, which are the same but for numbers.
//!
//! Cadene's mobile network leaves gaps in the numbers of its cells (0-3, 6-9, 12-15), and his large one
//! has a background class before the 1000.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::wanted::{Rows, Sides, Wanted};
use super::{Settings, background_dropped};
use crate::config::Backbone;
use crate::nasnet::layers::NetworkTensor;
use crate::nasnet::{BackboneName, Form, Plan};
use crate::weights::{TensorInfo, WeightsError};

/// A NASNet whose weights lie in a file without a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Cells and channels.
    pub name: BackboneName,
    /// Filters of the stem convolution.
    pub stem_filters: usize,
    /// Outputs of the classifier in the file; `None` where there is none.
    pub classes: Option<usize>,
    /// The file's number of each normal cell.
    pub numbers: Vec<usize>,
}

impl Found {
    /// Reads names and shapes below `prefix`. Where there is no classifier, F follows from the cells.
    pub fn read(
        tensors: &BTreeMap<String, TensorInfo>,
        prefix: &str,
        path: &Path,
    ) -> Result<Self, WeightsError> {
        let error = |reason: &str| WeightsError::NotAModel {
            path: path.into(),
            reason: format!("is no NASNet in timm's names: {reason}"),
        };
        let shape = |name: &str| tensors.get(&format!("{prefix}{name}")).map(|t| &t.shape[..]);
        let side = |name: &str, side: usize| shape(name).and_then(|s| s.get(side).copied());
        let stem_filters =
            side("conv0.conv.weight", 0).ok_or_else(|| error("there is no conv0.conv.weight"))?;
        let number = |name: &str| {
            let rest = name.strip_prefix(prefix)?.strip_prefix("cell_")?;
            rest.split_once('.')?.0.parse::<usize>().ok()
        };
        let numbers: BTreeSet<usize> = tensors.keys().filter_map(|name| number(name)).collect();
        let numbers: Vec<usize> = numbers.into_iter().collect();
        if numbers.is_empty() || !numbers.len().is_multiple_of(3) || numbers.len() > 192 {
            return Err(error(&format!(
                "{} normal cells are not three equal stages",
                numbers.len()
            )));
        }
        let has =
            |cell: &str| tensors.keys().any(|name| name.starts_with(&format!("{prefix}{cell}.")));
        let form = match (has("cell_stem_0"), has("reduction_cell_0")) {
            (false, _) => Form::Cifar,
            (true, true) => Form::ImageNet,
            (true, false) => Form::Strided,
        };
        // The last cell is a quarter of its output's channels wide, six states joined.
        let width = || {
            let last = format!("cell_{}.conv_1x1.conv.weight", numbers.last()?);
            Some(6 * side(&last, 0)?)
        };
        let channels = side("last_linear.weight", 1).or_else(width);
        let channels = channels.ok_or_else(|| error("there is no last cell"))?;
        let name = BackboneName::a(numbers.len() / 3, channels, form);
        // The same rules as for names that are typed.
        name.to_string().parse::<BackboneName>().map_err(|e| error(&e.to_string()))?;
        Ok(Self { name, stem_filters, classes: side("last_linear.weight", 0), numbers })
    }

    /// The file's name of a tensor of ours.
    pub fn name_of(&self, tensor: &NetworkTensor<'_>) -> String {
        let ours = tensor.name();
        let renumbered = || {
            let (cell, rest) = ours.strip_prefix("cell_")?.split_once('.')?;
            let number = self.numbers.get(cell.parse::<usize>().ok()?)?;
            Some(format!("cell_{number}.{rest}"))
        };
        renumbered().unwrap_or(ours)
    }
}

/// What to take for the whole classifier.
pub fn wanted(found: &Found, section: &Backbone, classes: usize) -> Vec<Wanted> {
    let plan: Plan = section.plan();
    let mut wanted: Vec<Wanted> = (plan.tensors())
        .map(|tensor| Wanted {
            name: format!("backbone.{}", tensor.name()),
            from: found.name_of(&tensor),
            shape: tensor.shape,
            sides: Sides::Same,
            rows: None,
        })
        .collect();
    let layer = plan.classifier(classes);
    for (leaf, shape) in layer.tensors() {
        let tensor = NetworkTensor { site: None, layer, leaf, shape };
        let of = found.classes.unwrap_or(classes);
        wanted.push(Wanted {
            name: format!("backbone.{}", tensor.name()),
            from: tensor.name(),
            shape: tensor.shape,
            sides: Sides::Same,
            rows: (of != classes).then(|| Rows { of, picked: background_dropped(classes) }),
        });
    }
    wanted
}

/// Names that every PyTorch state dict may have besides.
pub fn is_counter(name: &str) -> bool {
    name.ends_with(".num_batches_tracked")
}

/// The section of the network, with what the file can't say from `settings` or from what is published.
pub fn section(found: &Found, settings: &Settings, timm_pooling: bool) -> Backbone {
    super::section(found.name, found.stem_filters, settings, timm_pooling)
}
