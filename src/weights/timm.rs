//! Bare NASNet state dicts in timm's names: what the network is, read from names and shapes.

use std::path::Path;

use super::{Contents, WeightsError};
use crate::config::{Backbone, NormMode, Pooling};
use crate::nasnet::{BackboneName, Form, Wiring};

/// A NASNet whose weights lie in a file without a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BareNetwork {
    /// Cells and channels.
    pub name: BackboneName,
    /// Filters of the stem convolution.
    pub stem_filters: usize,
    /// Outputs of the classifier.
    pub classes: usize,
}

impl BareNetwork {
    /// Reads the shapes in `contents`, which came from `path`.
    pub fn read_from(contents: &Contents, path: &Path) -> Result<Self, WeightsError> {
        let error = |reason: &str| WeightsError::NotAModel {
            path: path.into(),
            reason: format!("is neither a model file nor a NASNet in timm's names: {reason}"),
        };
        let side = |name: &str, side: usize| {
            let shape = contents.tensors.get(name).map(|tensor| tensor.shape.as_slice());
            shape.and_then(|shape| shape.get(side).copied())
        };
        let stem_filters =
            side("conv0.conv.weight", 0).ok_or_else(|| error("there is no conv0.conv.weight"))?;
        let [classes, channels] = [0, 1].map(|i| side("last_linear.weight", i));
        let (Some(classes), Some(channels)) = (classes, channels) else {
            return Err(error("there is no last_linear.weight"));
        };
        let cell =
            |name: &str| name.strip_prefix("cell_")?.split_once('.')?.0.parse::<usize>().ok();
        let cells =
            contents.tensors.keys().filter_map(|name| cell(name)).max().map_or(0, |n| n + 1);
        if cells == 0 || cells % 3 != 0 {
            return Err(error(&format!("{cells} normal cells are not three equal stages")));
        }
        let has = |cell: &str| contents.tensors.keys().any(|name| name.starts_with(cell));
        let form = match (has("cell_stem_0."), has("reduction_cell_0.")) {
            (false, _) => Form::Cifar,
            (true, true) => Form::ImageNet,
            (true, false) => Form::Strided,
        };
        let name = BackboneName::a(cells / 3, channels, form);
        // The same rules as for names that are typed.
        name.to_string().parse::<BackboneName>().map_err(|e| error(&e.to_string()))?;
        Ok(Self { name, stem_filters, classes })
    }
}

impl BareNetwork {
    /// The section that builds it. `wiring` and `pooling` are what the file can't say: by default the
    /// wiring is `large` for the ImageNet form with N = 6, and timm's pooling is taken for exactly the
    /// network that timm publishes.
    pub fn section(&self, wiring: Option<Wiring>, pooling: Option<Pooling>) -> Backbone {
        let large = self.name.cells_per_stage == 6 && self.name.form == Form::ImageNet;
        let timm = self.name == BackboneName::LARGE && self.classes == 1000;
        let cifar = self.name.form == Form::Cifar;
        Backbone {
            name: self.name,
            wiring: wiring.unwrap_or(if large { Wiring::Large } else { Wiring::Mobile }),
            stem_filters: self.stem_filters,
            pooling: pooling.unwrap_or(if timm { Pooling::Timm } else { Pooling::Tf }),
            // slim's argument scopes: `cifar_config` and the two ImageNet ones.
            norm_eps: if cifar { 1e-5 } else { 1e-3 },
            norm_momentum: if cifar { 0.1 } else { 3e-4 },
            norm: NormMode::Frozen,
            tail_norm: NormMode::Frozen,
            drop_path_keep: 1.,
            genotype: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Element, StoredTensor};

    fn contents(shapes: &[(&str, &[usize])]) -> Contents {
        let tensor = |shape: &[usize]| StoredTensor {
            element: Element::F32,
            shape: shape.to_vec(),
            bytes: vec![0; 4 * shape.iter().product::<usize>()],
        };
        let tensors = shapes.iter().map(|(name, shape)| ((*name).to_owned(), tensor(shape)));
        Contents { tensors: tensors.collect(), ..Contents::default() }
    }

    #[test]
    fn the_network_is_read_from_the_shapes() {
        let file = contents(&[
            ("conv0.conv.weight", &[8, 3, 3, 3]),
            ("cell_stem_0.conv_1x1.conv.weight", &[1, 1, 1, 1]),
            ("cell_5.conv_1x1.conv.weight", &[1, 1, 1, 1]),
            ("reduction_cell_0.conv_1x1.conv.weight", &[1, 1, 1, 1]),
            ("last_linear.weight", &[5, 96]),
        ]);
        let found = BareNetwork::read_from(&file, Path::new("x")).unwrap();
        let name = BackboneName::a(2, 96, Form::ImageNet);
        assert_eq!(found, BareNetwork { name, stem_filters: 8, classes: 5 });
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let message =
            |file: &Contents| BareNetwork::read_from(file, Path::new("x")).unwrap_err().to_string();
        assert!(message(&contents(&[])).contains("no conv0.conv.weight"));
        let file =
            contents(&[("conv0.conv.weight", &[8, 3, 3, 3]), ("last_linear.weight", &[5, 97])]);
        assert!(message(&file).contains("three equal stages"));
    }
}
