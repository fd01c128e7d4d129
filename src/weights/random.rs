//! Classifiers with random weights, for timing: a network takes the same time whatever it has learned, as
//! long as its numbers stay ordinary ones.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{ClassifierInfo, Contents, StoredTensor};
use crate::nasnet::layers::{Leaf, NetworkTensor};

/// Weights for the network of `info`, `backbone.*`. Maps neither vanish nor overflow: each layer keeps the
/// size of what it reads.
pub fn classifier(info: &ClassifierInfo, seed: u64) -> Contents {
    let plan = info.backbone.plan();
    let layer = plan.classifier(info.classes.names.len());
    let last = layer.tensors().into_iter();
    let last = last.map(|(leaf, shape)| NetworkTensor { site: None, layer, leaf, shape });
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut contents = Contents::default();
    for tensor in plan.tensors().chain(last) {
        let name = format!("backbone.{}", tensor.name());
        let shape = tensor.shape;
        let numel = shape.iter().product();
        let values: Vec<f32> = match tensor.leaf {
            Leaf::Gamma | Leaf::Variance => vec![1.; numel],
            Leaf::Beta | Leaf::Mean | Leaf::Bias => vec![0.; numel],
            leaf => {
                // A ReLU halves the mean square, and is before all but the second of two convolutions.
                let after_relu = !matches!(leaf, Leaf::Pointwise | Leaf::Down);
                let reads = shape[1..].iter().product::<usize>() as f32;
                let deviation = (if after_relu { 2. } else { 1. } / reads).sqrt();
                let most = deviation * 3_f32.sqrt();
                (0..numel).map(|_| most * (2. * random.random::<f32>() - 1.)).collect()
            }
        };
        contents.tensors.insert(name, StoredTensor::from_f32(shape, &values));
    }
    info.write_to(&mut contents);
    contents
}
