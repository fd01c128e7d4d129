//! The whole network with a classifier on it, and the auxiliary one of its training.

use detect::config::{self, Cut};
use detect::geometry::Size;
use detect::nasnet::names;
use detect::nasnet::plan::Map;
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::NasNet;
use crate::nn::{Init, Linear, Mode, NormSettings, Unit, nchw};

/// The auxiliary classifier on the last map before the second reduction, for training (slim's
/// `_build_aux_head`).
#[derive(Debug)]
pub struct Auxiliary {
    convolutions: [Unit; 2],
    linear: Linear,
    map: Map,
}

impl Auxiliary {
    /// Makes the tensors under `path` for images of `size`, whose map must be a square of at least 5
    /// pixels: `None` where it is not.
    pub fn new(
        path: &Path,
        section: &config::Backbone,
        classes: usize,
        size: Size,
    ) -> Option<Self> {
        let plan = section.plan();
        let map = plan.auxiliary_map();
        let [project, cover, linear] = plan.auxiliary(plan.sizes(size)?[map.0], classes)?;
        let norm = NormSettings::trunk(section);
        let shape = [linear.outputs as i64, linear.inputs as i64];
        let place = path / names::AUXILIARY / "linear";
        Some(Self {
            convolutions: [&project, &cover].map(|layer| Unit::new(path, None, layer, norm)),
            linear: Linear::new(&place, &shape, Init::PytorchDefault),
            map,
        })
    }

    /// `maps` are a [`Classifier`]'s, `[N, classes]` comes back.
    ///
    /// # Panics
    /// If the map has another size than in [`Self::new`].
    pub fn forward(&self, maps: &[(String, Tensor)], mode: Mode) -> Tensor {
        let read = maps[self.map.0].1.relu();
        let pooled = read.avg_pool2d([5, 5], [3, 3], [0, 0], false, true, None::<i64>);
        let [project, cover] = &self.convolutions;
        let covered = cover.forward_valid(&project.forward(&pooled, mode).relu(), mode).relu();
        let [_, _, height, width] = nchw(&covered);
        assert_eq!([height, width], [1, 1], "the second convolution covers its whole map");
        self.linear.forward(&covered.flatten(1, 3))
    }
}

/// The whole network with its classifier.
#[derive(Debug)]
pub struct Classifier {
    /// All cells.
    pub features: NasNet,
    last_linear: Linear,
}

impl Classifier {
    /// Makes the tensors under `path`.
    pub fn new(path: &Path, section: &config::Backbone, classes: usize) -> Self {
        let shape = [classes as i64, section.name.channels as i64];
        Self {
            features: NasNet::new(path, section, Cut::Last, true),
            last_linear: Linear::new(&(path / names::CLASSIFIER), &shape, Init::PytorchDefault),
        }
    }

    /// Every map by its published name and then `logits`: the classifier on the mean of the last
    /// map's ReLU.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Vec<(String, Tensor)> {
        let mut maps = self.features.features(images, mode);
        let last = &maps.last().expect("there is a stem").1;
        maps.push(("logits".into(), self.classify(last)));
        maps
    }

    /// The logits alone, `[N, classes]`, in less memory.
    pub fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        self.classify(&self.features.last(images, mode))
    }

    /// The logits of the last map.
    fn classify(&self, last: &Tensor) -> Tensor {
        let pooled = last.relu().mean_dim([2, 3].as_slice(), false, None::<Kind>); // [N, F]
        self.last_linear.forward(&pooled)
    }
}
