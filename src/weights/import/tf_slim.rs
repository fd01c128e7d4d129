//! NASNet classifiers as TF-slim's checkpoints name them (`research/slim/nets/nasnet`).

use std::collections::BTreeMap;
use std::path::Path;

use super::wanted::{Rows, Sides, Wanted};
use crate::config::Backbone;
use crate::nasnet::layers::{LayerKind, Leaf, NetworkTensor, Place};
use crate::nasnet::names::state_number;
use crate::nasnet::{BackboneName, Form};
use crate::weights::{TensorInfo, WeightsError};

/// A variable's moving average, which slim evaluates with.
pub(super) const AVERAGE: &str = "/ExponentialMovingAverage";

/// What optimizers and counters leave beside the weights.
const SLOTS: [&str; 8] =
    [AVERAGE, "/RMSProp", "/RMSProp_1", "/Momentum", "/Adam", "/Adam_1", "/Adagrad", "/biased"];

/// Whether `name` is known and not needed: optimizer slots, counters, the auxiliary head.
pub fn is_ignored(name: &str) -> bool {
    SLOTS.iter().any(|slot| name.ends_with(slot))
        || matches!(name, "global_step" | "beta1_power" | "beta2_power")
        || name.starts_with("aux_")
}

/// The variable that a slot belongs to, or the name itself.
pub fn without_slot(name: &str) -> &str {
    SLOTS.iter().find_map(|slot| name.strip_suffix(slot)).unwrap_or(name)
}

/// Whether the name ends as those of weights do, rather than of other constants in a graph.
pub fn is_weight(name: &str) -> bool {
    const LEAVES: [&str; 8] = [
        "weights",
        "biases",
        "depthwise_weights",
        "pointwise_weights",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ];
    name.rsplit_once('/').is_some_and(|(_, leaf)| LEAVES.contains(&leaf))
}

/// A NASNet whose weights lie in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Cells and channels.
    pub name: BackboneName,
    /// Filters of the stem convolution.
    pub stem_filters: usize,
    /// Outputs of the classifier in the file.
    pub classes: usize,
}

impl Found {
    /// Reads names and shapes.
    pub fn read(tensors: &BTreeMap<String, TensorInfo>, path: &Path) -> Result<Self, WeightsError> {
        let error = |reason: &str| WeightsError::NotAModel {
            path: path.into(),
            reason: format!("is no NASNet of TF-slim: {reason}"),
        };
        let side = |name: &str, side: usize| {
            tensors.get(name).and_then(|tensor| tensor.shape.get(side).copied())
        };
        let (form, stem) = match side("l1_stem_3x3/weights", 3) {
            Some(stem) => (Form::Cifar, Some(stem)),
            None if tensors.keys().any(|name| name.starts_with("reduction_cell_0/")) => {
                (Form::ImageNet, side("conv0/weights", 3))
            }
            None => (Form::Strided, side("conv0/weights", 3)),
        };
        let stem_filters = stem.ok_or_else(|| error("there is no conv0/weights"))?;
        let [channels, classes] = [0, 1].map(|i| side("final_layer/FC/weights", i));
        let (Some(channels), Some(classes)) = (channels, classes) else {
            return Err(error("there is no final_layer/FC/weights"));
        };
        let cells = normal_cells(tensors.keys().map(String::as_str), "");
        if cells == 0 || !cells.is_multiple_of(3) {
            return Err(error(&format!("{cells} normal cells are not three equal stages")));
        }
        let name = BackboneName::a(cells / 3, channels, form);
        name.to_string().parse::<BackboneName>().map_err(|e| error(&e.to_string()))?;
        Ok(Self { name, stem_filters, classes })
    }
}

/// One more than the largest number of a normal cell in the scope `prefix`.
pub fn normal_cells<'a>(names: impl Iterator<Item = &'a str>, prefix: &str) -> usize {
    let number = |name: &str| {
        let rest = name.strip_prefix(prefix)?.strip_prefix("cell_")?;
        rest.split_once('/')?.0.parse::<usize>().ok()
    };
    names.filter_map(number).max().map_or(0, |last| last + 1)
}

/// slim's name of a tensor of the network.
pub fn name_of(tensor: &NetworkTensor<'_>, form: Form) -> String {
    let cell = tensor.site.map_or("", |site| site.name.as_str());
    // Scope, name of the convolution's weights, scope of the batch norm.
    let (scope, weight, norm) = match (tensor.layer.place, tensor.layer.kind) {
        (Place::Stem, _) if form == Form::Cifar => {
            (String::new(), "l1_stem_3x3/weights".to_owned(), "l1_stem_bn".to_owned())
        }
        (Place::Stem, _) => (String::new(), "conv0/weights".into(), "conv0_bn".into()),
        (Place::Current, _) => (format!("{cell}/"), "1x1/weights".into(), "beginning_bn".into()),
        (Place::Previous, LayerKind::Factorized) => {
            (format!("{cell}/"), String::new(), "final_path_bn".into())
        }
        (Place::Previous, _) => (format!("{cell}/"), "prev_1x1/weights".into(), "prev_bn".into()),
        (Place::Operation { row, side, half }, kind) => {
            let scope = format!("{cell}/comb_iter_{row}/{}/", ["left", "right"][side]);
            let step = half + 1;
            match kind {
                LayerKind::Separable { kernel: k } => {
                    let leaf =
                        if tensor.leaf == Leaf::Depthwise { "depthwise" } else { "pointwise" };
                    let weight = format!("separable_{k}x{k}_{step}/{leaf}_weights");
                    (scope, weight, format!("bn_sep_{k}x{k}_{step}"))
                }
                _ => (scope, "1x1/weights".into(), "bn_1".into()),
            }
        }
        (Place::Output(state), kind) => {
            let scope = format!("{cell}/cell_output/reduction_{}/", state_number(state));
            match kind {
                LayerKind::Factorized => (scope, String::new(), "final_path_bn".into()),
                _ => (scope, "path_conv/weights".into(), "path_bn".into()),
            }
        }
        (Place::Classifier, _) => {
            let leaf = if tensor.leaf == Leaf::Bias { "biases" } else { "weights" };
            return format!("final_layer/FC/{leaf}");
        }
        (Place::Auxiliary(_) | Place::Combine { .. }, _) => {
            unreachable!(
                "the auxiliary head is not imported, and no published cell has such a norm"
            )
        }
    };
    match tensor.leaf {
        Leaf::Path(n) => format!("{scope}path{}_conv/weights", n + 1),
        Leaf::Gamma => format!("{scope}{norm}/gamma"),
        Leaf::Beta => format!("{scope}{norm}/beta"),
        Leaf::Mean => format!("{scope}{norm}/moving_mean"),
        Leaf::Variance => format!("{scope}{norm}/moving_variance"),
        _ => scope + &weight,
    }
}

/// The moving average of the variable `name` where the file has one, else the variable itself.
pub fn averaged(tensors: &BTreeMap<String, TensorInfo>, name: String) -> String {
    let average = format!("{name}{AVERAGE}");
    if tensors.contains_key(&average) { average } else { name }
}

/// What to take for the whole classifier; `raw` takes the variables rather than their averages.
pub fn wanted(
    found: &Found,
    section: &Backbone,
    classes: usize,
    tensors: &BTreeMap<String, TensorInfo>,
    raw: bool,
) -> Vec<Wanted> {
    let plan = section.plan();
    let layer = plan.classifier(classes);
    let head = layer.tensors().into_iter();
    let head = head.map(|(leaf, shape)| NetworkTensor { site: None, layer, leaf, shape });
    (plan.tensors().chain(head))
        .map(|tensor| {
            let own = name_of(&tensor, found.name.form);
            let of = found.classes;
            let cut = layer.place == tensor.layer.place && of != classes;
            Wanted {
                name: format!("backbone.{}", tensor.name()),
                from: if raw { own } else { averaged(tensors, own) },
                sides: Sides::of_tf(tensor.leaf, tensor.shape.len()),
                rows: cut.then(|| Rows::without_background(of, classes)).flatten(),
                shape: tensor.shape,
            }
        })
        .collect()
}
