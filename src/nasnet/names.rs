//! The names of NASNet's tensors in our files: timm's (and Cadene's), and ours for what timm lacks.
//!
//! The grammar is in one place so that every reader and executor agrees on it. timm has no CIFAR or
//! strided form and no auxiliary head; `<op>.{conv,bn}`, `comb_iter_<row>.norm`, `<cell>.reduction_<state>` and `aux` are ours,
//! after TF-slim's scopes.

use super::genotype::State;
use super::layers::{Layer, LayerKind, Leaf, NetworkTensor, Place};
use super::plan::{CONV0, Site};

/// The classifier.
pub const CLASSIFIER: &str = "last_linear";
/// The auxiliary head.
pub const AUXILIARY: &str = "aux";

/// TF-slim's number of a state: 0 is `H`, 1 is `P`, then the rows.
pub fn state_number(state: State) -> usize {
    match state {
        State::H => 0,
        State::P => 1,
        State::S(n) => n + 2,
    }
}

impl NetworkTensor<'_> {
    /// Its name in our files, which is timm's.
    pub fn name(&self) -> String {
        tensor(self.site, &self.layer, self.leaf)
    }
}

/// The name of a layer's tensor.
pub fn tensor(site: Option<&Site>, layer: &Layer, leaf: Leaf) -> String {
    let cell = site.map_or("", |site| site.name.as_str());
    // The module, and within it where the convolution and the batch norm lie.
    let (module, weight, norm) = match (layer.place, layer.kind) {
        (Place::Stem, _) => (CONV0.to_owned(), "conv", "bn"),
        (Place::Current, _) => (format!("{cell}.conv_1x1"), "conv", "bn"),
        (Place::Previous, LayerKind::Factorized) => (cell.to_owned(), "conv", "final_path_bn"),
        (Place::Previous, _) => (format!("{cell}.conv_prev_1x1"), "conv", "bn"),
        (Place::Operation { row, side, half }, kind) => {
            let op = format!("{cell}.comb_iter_{row}_{}", ["left", "right"][side]);
            match (kind, half) {
                (LayerKind::Separable { .. }, 0) => (op, "separable_1", "bn_sep_1"),
                (LayerKind::Separable { .. }, _) => (op, "separable_2", "bn_sep_2"),
                _ => (op, "conv", "bn"),
            }
        }
        (Place::Combine { row }, _) => (format!("{cell}.comb_iter_{row}"), "", "norm"),
        (Place::Output(state), LayerKind::Factorized) => {
            (format!("{cell}.reduction_{}", state_number(state)), "conv", "final_path_bn")
        }
        (Place::Output(state), _) => {
            (format!("{cell}.reduction_{}", state_number(state)), "conv", "bn")
        }
        (Place::Auxiliary(n), _) => {
            let layer = ["proj", "conv", "linear"][n];
            return match leaf {
                Leaf::Weight if n < 2 => format!("{AUXILIARY}.{layer}.conv.weight"),
                Leaf::Weight => format!("{AUXILIARY}.{layer}.weight"),
                Leaf::Bias => format!("{AUXILIARY}.{layer}.bias"),
                _ => format!("{AUXILIARY}.{layer}.bn.{}", norm_leaf(leaf)),
            };
        }
        (Place::Classifier, _) => (CLASSIFIER.to_owned(), "", ""),
    };
    match leaf {
        Leaf::Weight if weight.is_empty() => format!("{module}.weight"),
        Leaf::Weight => format!("{module}.{weight}.weight"),
        Leaf::Bias => format!("{module}.bias"),
        Leaf::Depthwise => format!("{module}.{weight}.depthwise_conv2d.weight"),
        Leaf::Pointwise => format!("{module}.{weight}.pointwise_conv2d.weight"),
        Leaf::Path(n) => format!("{module}.path_{}.conv.weight", n + 1),
        Leaf::Across => format!("{module}.conv_across.weight"),
        Leaf::Down => format!("{module}.conv_down.weight"),
        _ => format!("{module}.{norm}.{}", norm_leaf(leaf)),
    }
}

fn norm_leaf(leaf: Leaf) -> &'static str {
    match leaf {
        Leaf::Gamma => "weight",
        Leaf::Beta => "bias",
        Leaf::Mean => "running_mean",
        Leaf::Variance => "running_var",
        _ => unreachable!("the other leaves are named by their layer"),
    }
}
