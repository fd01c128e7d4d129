//! NASNet classifiers in PyTorch's names: timm's, and Cadene's, which are the same but for numbers.
//!
//! Cadene's mobile network leaves gaps in the numbers of its cells (0-3, 6-9, 12-15), and his large one
//! has a background class before the 1000.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Settings;
use super::wanted::{Rows, Sides, Wanted};
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
    /// The file's number of each normal cell, of all stages or of the first two.
    pub numbers: Vec<usize>,
}

impl Found {
    /// Reads names and shapes below `prefix`. Where there is no classifier, F follows from the cells. Those
    /// from the second reduction on may be missing: who wants a classifier finds out in [`wanted`].
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
        let has =
            |cell: &str| tensors.keys().any(|name| name.starts_with(&format!("{prefix}{cell}.")));
        let width =
            |number: Option<&usize>| side(&format!("cell_{}.conv_1x1.conv.weight", number?), 0);
        let [first, last] = [numbers.first(), numbers.last()].map(width);
        // Each stage is twice as wide as the one before. A body that was pruned to its map of stride 16 ends
        // before the second reduction.
        let pruned = !has("reduction_cell_1") && last == first.and_then(|n| n.checked_mul(2));
        let stages = if pruned { 2 } else { 3 };
        let fit = numbers.len().is_multiple_of(stages) && numbers.len() <= 64 * stages;
        if numbers.is_empty() || !fit {
            return Err(error(&format!(
                "{} normal cells are not {stages} equal stages",
                numbers.len()
            )));
        }
        let form = match (has("cell_stem_0"), has("reduction_cell_0")) {
            (false, _) => Form::Cifar,
            (true, true) => Form::ImageNet,
            (true, false) => Form::Strided,
        };
        // A cell's output is six states joined.
        let joined = last.and_then(|width| width.checked_mul(6 << (3 - stages)));
        let channels = side("last_linear.weight", 1).or(joined);
        let channels = channels.ok_or_else(|| error("there is no last cell"))?;
        let name = BackboneName::a(numbers.len() / stages, channels, form);
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

/// What to take for the network, and for its classifier where `classes` says how many of its outputs.
pub fn wanted(found: &Found, section: &Backbone, classes: Option<usize>) -> Vec<Wanted> {
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
    let Some(classes) = classes else { return wanted };
    let layer = plan.classifier(classes);
    for (leaf, shape) in layer.tensors() {
        let tensor = NetworkTensor { site: None, layer, leaf, shape };
        let of = found.classes.unwrap_or(classes);
        wanted.push(Wanted {
            name: format!("backbone.{}", tensor.name()),
            from: tensor.name(),
            shape: tensor.shape,
            sides: Sides::Same,
            rows: Rows::without_background(of, classes),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Element;

    /// Names and shapes of a body in timm's names, without a classifier.
    fn body(name: &str, keep: impl Fn(&str) -> bool) -> BTreeMap<String, TensorInfo> {
        let name: BackboneName = name.parse().unwrap();
        let section = super::super::section(name, 8, &Settings::default(), true);
        let plan = section.plan();
        let tensors = plan.tensors().filter(|tensor| keep(&tensor.name()));
        let entry = |tensor: NetworkTensor<'_>| {
            let info = TensorInfo { element: Element::F32, shape: tensor.shape.clone() };
            (format!("backbone.body.{}", tensor.name()), info)
        };
        tensors.map(entry).collect()
    }

    fn read(tensors: &BTreeMap<String, TensorInfo>) -> Result<Found, WeightsError> {
        Found::read(tensors, "backbone.body.", Path::new("w.pth"))
    }

    #[test]
    fn bodies_are_named_whole_and_pruned_to_stride_16() {
        let pruned = |name: &str| {
            let behind = name.strip_prefix("cell_").and_then(|rest| rest.split_once('.'));
            let behind = behind.and_then(|(n, _)| n.parse::<usize>().ok()).is_some_and(|n| n > 11);
            !behind && !name.starts_with("reduction_cell_1.")
        };
        for name in ["nasnet-a-6@96", "nasnet-a-6@384"] {
            let whole = read(&body(name, |_| true)).unwrap();
            assert_eq!((whole.name.to_string(), whole.classes), (name.into(), None));
            assert_eq!(whole.numbers, (0..18).collect::<Vec<_>>());
            let cut = read(&body(name, pruned)).unwrap();
            assert_eq!((cut.name, cut.stem_filters), (whole.name, 8));
            assert_eq!(cut.numbers, (0..12).collect::<Vec<_>>());
        }
        // A reduction that is lost is no pruning: the file is read as what it was, so that the error lists
        // what it lacks.
        let lost =
            read(&body("nasnet-a-6@96", |name| !name.starts_with("reduction_cell_1."))).unwrap();
        assert_eq!((lost.name.to_string().as_str(), lost.numbers.len()), ("nasnet-a-6@96", 18));
        // A cell too few is no stage.
        let lacks = |name: &str| pruned(name) && !name.starts_with("cell_11.");
        let message = read(&body("nasnet-a-6@96", lacks)).unwrap_err().to_string();
        assert!(message.contains("11 normal cells are not 2 equal stages"), "{message}");
    }
}
