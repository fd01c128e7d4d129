//! NASNet classifiers as Keras names them (`keras.applications.nasnet`, after titu1994's Keras-NASNet).
//!
//! The names end with the cell: `stem_1`, `stem_2`, then one number a cell, through all stages and over
//! the reductions, which are called `reduce_N` and `reduce_2N` by the number they take.

use std::collections::BTreeMap;
use std::path::Path;

use super::wanted::{Sides, Wanted};
use crate::config::Backbone;
use crate::nasnet::layers::{LayerKind, Leaf, NetworkTensor, Place};
use crate::nasnet::{BackboneName, Form};
use crate::weights::{TensorInfo, WeightsError};

/// The stem convolution's weight, which every such file has, and no other.
pub const STEM: &str = "stem_conv1/kernel";

/// What a user of such a file should know.
pub const NOTE: &str = "Keras pads its pools with zeros, which count in averages and in maxima; here, as in TensorFlow, they do not. So the outputs differ somewhat from those in Keras";

/// Whether `name` is known and not needed: the auxiliary head of titu1994's `NASNet-auxiliary-*.h5`.
pub fn is_ignored(name: &str) -> bool {
    name.starts_with("aux_")
}

/// A NASNet whose weights lie in a file of Keras.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Cells and channels.
    pub name: BackboneName,
    /// Filters of the stem convolution.
    pub stem_filters: usize,
    /// Outputs of the classifier.
    pub classes: usize,
}

impl Found {
    /// Reads names and shapes.
    pub fn read(tensors: &BTreeMap<String, TensorInfo>, path: &Path) -> Result<Self, WeightsError> {
        let error = |reason: &str| WeightsError::NotAModel {
            path: path.into(),
            reason: format!("is no NASNet classifier of Keras: {reason}"),
        };
        let side = |name: &str, side: usize| {
            tensors.get(name).and_then(|tensor| tensor.shape.get(side).copied())
        };
        let stem_filters =
            side(STEM, 3).ok_or_else(|| error(&format!("there is no {STEM} of four sides")))?;
        let [channels, classes] = [0, 1].map(|i| side("predictions/kernel", i));
        let (Some(channels), Some(classes)) = (channels, classes) else {
            return Err(error(
                "there is no predictions/kernel; files called no-top hold no classifier: take the one without no-top in its name",
            ));
        };
        let number = |name: &str| {
            let rest = name.strip_prefix("normal_conv_1_")?;
            rest.split_once('/')?.0.parse::<usize>().ok()
        };
        // The first cell is 0, the last is 3N: each of the three stages takes one number more.
        let last = tensors.keys().filter_map(|name| number(name)).max().unwrap_or(0);
        if last == 0 || last % 3 != 0 {
            return Err(error(&format!(
                "its last normal cell is {last}, so there are not three equal stages"
            )));
        }
        let name = BackboneName::a(last / 3, channels, Form::ImageNet);
        // The same rules as for names that are typed.
        name.to_string().parse::<BackboneName>().map_err(|e| error(&e.to_string()))?;
        Ok(Self { name, stem_filters, classes })
    }

    /// Whether a cell is `normal` or `reduction`, and Keras's ending of its layers.
    fn cell(&self, ours: &str) -> (&'static str, String) {
        let n = self.name.cells_per_stage;
        let numbered = |prefix: &str| ours.strip_prefix(prefix)?.parse::<usize>().ok();
        if let Some(stem) = numbered("cell_stem_") {
            return ("reduction", format!("stem_{}", stem + 1));
        }
        if let Some(reduction) = numbered("reduction_cell_") {
            return ("reduction", format!("reduce_{}", (reduction + 1) * n));
        }
        let cell = numbered("cell_").expect("the ImageNet form has no other cells");
        // The first reduction takes a number, and the second stage begins after it. The second takes the
        // last number of the second stage again.
        ("normal", if cell < n { cell } else { cell + 1 }.to_string())
    }

    /// Keras's name of a tensor of the network.
    pub fn name_of(&self, tensor: &NetworkTensor<'_>) -> String {
        let (kind, cell) = tensor.site.map(|site| self.cell(&site.name)).unwrap_or_default();
        // Layers of the weights and of the batch norm.
        let (layer, norm) = match (tensor.layer.place, tensor.layer.kind) {
            (Place::Stem, _) => ("stem_conv1".to_owned(), "stem_bn1".to_owned()),
            (Place::Current, _) => (format!("{kind}_conv_1_{cell}"), format!("{kind}_bn_1_{cell}")),
            (Place::Previous, LayerKind::Factorized) => {
                let path = if tensor.leaf == Leaf::Path(1) { 2 } else { 1 };
                (format!("adjust_conv_{path}_{cell}"), format!("adjust_bn_{cell}"))
            }
            (Place::Previous, _) => {
                (format!("adjust_conv_projection_{cell}"), format!("adjust_bn_{cell}"))
            }
            (Place::Operation { row, side, half }, _) => {
                let side = ["left", "right"][side];
                // The reduction's fifth block has the name of its fourth, which has no weights.
                let block = if kind == "reduction" && row == 4 { 4 } else { row + 1 };
                let step = half + 1;
                let ending = format!("{kind}_{side}{block}_{cell}");
                (
                    format!("separable_conv_{step}_{ending}"),
                    format!("separable_conv_{step}_bn_{ending}"),
                )
            }
            (Place::Classifier, _) => ("predictions".into(), String::new()),
            (Place::Output(_) | Place::Combine { .. } | Place::Auxiliary(_), _) => {
                unreachable!(
                    "cells of the ImageNet form join states of one size; no head is asked for"
                )
            }
        };
        match tensor.leaf {
            Leaf::Depthwise => layer + "/depthwise_kernel",
            Leaf::Pointwise => layer + "/pointwise_kernel",
            Leaf::Bias => layer + "/bias",
            Leaf::Gamma => norm + "/gamma",
            Leaf::Beta => norm + "/beta",
            Leaf::Mean => norm + "/moving_mean",
            Leaf::Variance => norm + "/moving_variance",
            _ => layer + "/kernel",
        }
    }
}

/// What to take for the whole classifier.
pub fn wanted(found: &Found, section: &Backbone) -> Vec<Wanted> {
    let plan = section.plan();
    let layer = plan.classifier(found.classes);
    let head = layer.tensors().into_iter();
    let head = head.map(|(leaf, shape)| NetworkTensor { site: None, layer, leaf, shape });
    (plan.tensors().chain(head))
        .map(|tensor| Wanted {
            name: format!("backbone.{}", tensor.name()),
            from: found.name_of(&tensor),
            sides: Sides::of_tf(tensor.leaf, tensor.shape.len()),
            rows: None,
            shape: tensor.shape,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nasnet::Plan;

    /// The names are from `keras.applications.NASNetLarge` and `NASNetMobile` themselves.
    #[test]
    fn cells_have_the_numbers_of_keras() {
        for (name, weights, expected) in [
            (
                BackboneName::LARGE,
                1544,
                [
                    "adjust_conv_2_stem_2/kernel 1",
                    "separable_conv_1_reduction_left4_stem_1/depthwise_kernel 1",
                    "adjust_conv_projection_5/kernel 1",
                    "separable_conv_2_bn_reduction_right3_reduce_6/gamma 1",
                    "adjust_conv_1_7/kernel 1",
                    "adjust_bn_12/beta 1",
                    "reduction_conv_1_reduce_12/kernel 1",
                    "normal_bn_1_13/moving_mean 1",
                    "separable_conv_2_normal_left5_18/pointwise_kernel 1",
                    "normal_conv_1_6/kernel 0",
                ],
            ),
            (
                BackboneName::MOBILE,
                1124,
                [
                    "stem_bn1/moving_variance 1",
                    "adjust_conv_1_stem_1/kernel 0",
                    "adjust_conv_projection_3/kernel 1",
                    "reduction_bn_1_reduce_4/gamma 1",
                    "adjust_conv_2_5/kernel 1",
                    "adjust_conv_projection_8/kernel 1",
                    "adjust_conv_projection_reduce_8/kernel 1",
                    "adjust_conv_1_9/kernel 1",
                    "separable_conv_1_bn_normal_right2_12/beta 1",
                    "normal_conv_1_4/kernel 0",
                ],
            ),
        ] {
            let plan = Plan::published(name);
            let found = Found { name, stem_filters: plan.stem_filters, classes: 1000 };
            let names: Vec<String> = plan.tensors().map(|tensor| found.name_of(&tensor)).collect();
            assert_eq!(names.len(), weights, "{name}");
            for line in expected {
                let (weight, count) = line.split_once(' ').unwrap();
                let there = names.iter().filter(|name| *name == weight).count();
                assert_eq!(there.to_string(), count, "{name}: {weight}");
            }
        }
    }

    #[cfg(not(feature = "keras"))]
    #[test]
    fn without_its_reader_a_file_is_refused_with_advice() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\x89HDF\r\n\x1a\n and more").unwrap();
        let error = super::super::open(file.path()).unwrap_err().to_string();
        assert!(error.contains("build detect with `--features keras`"), "{error}");
    }
}
