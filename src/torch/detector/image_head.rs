//! An auxiliary task of training: which classes an image shows.
//!
//! NASNet's classifiers have an auxiliary head on the last map before their second reduction (TF-slim's `_build_aux_head`),
//! which is where a detector is cut. That head ends in a convolution over the whole of its map, and so is bound to one size
//! of image. This one is a classifier of many labels on a detector's backbone, as of Xu et al. 2020, "Exploring Categorical
//! Regularization for Domain Adaptive Object Detection": one layer on the mean of the map, and a binary cross-entropy for
//! each class. Nothing of it is left in a model.

use detect::geometry::Size;
use tch::nn::Path;
use tch::{Device, Kind, Reduction, Tensor};

use super::{Images, Truth, boxes};
use crate::backbone::CutSpec;
use crate::nn::{Init, Linear, nchw};
use crate::precision::widened;

/// Its tensors' place in a detector.
const NAME: &str = "auxiliary";

/// Whether a tensor of this `name` belongs to such a head.
pub fn is_of(name: &str) -> bool {
    name.split('.').next() == Some(NAME)
}

/// One layer on the mean of the trunk's map.
#[derive(Debug)]
pub struct ImageHead {
    linear: Linear,
    stride: i64,
}

impl ImageHead {
    /// Makes `path.auxiliary.*` for `classes` classes on a map as `spec` says.
    pub fn new(path: &Path, spec: CutSpec, classes: usize) -> Self {
        let shape = [classes as i64, spec.channels];
        let linear = Linear::new(&(path / NAME / "linear"), &shape, Init::PytorchDefault);
        Self { linear, stride: spec.stride }
    }

    /// Logits of a trunk's map `[N, C, H, W]` of images of `sizes` pixels, after ReLU: `[N, K]`. What pads an image does not
    /// count.
    pub fn logits(&self, map: &Tensor, sizes: &[Size]) -> Tensor {
        let map = widened(map).relu();
        let shares = boxes::upload(&self.shares(&map, sizes).to_kind(map.kind()), map.device());
        let mean = (map * shares).sum_dim_intlist([2, 3].as_slice(), false, None::<Kind>); // [N, C]
        widened(&self.linear.forward(&mean))
    }

    /// What each cell counts in the mean of its image: `[N, 1, H, W]` on the CPU.
    fn shares(&self, map: &Tensor, sizes: &[Size]) -> Tensor {
        let [_, _, height, width] = nchw(map);
        let one = |size: &Size| {
            let cells =
                |pixels: usize, most: i64| (pixels as i64).div_euclid(self.stride).clamp(1, most);
            let (rows, columns) = (cells(size.height, height), cells(size.width, width));
            let shares = Tensor::zeros([1, height, width], (Kind::Float, Device::Cpu));
            let own = shares.narrow(1, 0, rows).narrow(2, 0, columns);
            let _ = own.shallow_clone().fill_(1. / (rows * columns) as f64);
            shares
        };
        Tensor::stack(&sizes.iter().map(one).collect::<Vec<_>>(), 0)
    }

    /// The mean over images and classes.
    pub fn loss(&self, map: &Tensor, images: &Images, truths: &[Truth]) -> Tensor {
        let classes = self.linear.bias.size()[0] as usize;
        let logits = self.logits(map, &images.sizes);
        let target = boxes::upload(&shown(truths, classes).to_kind(logits.kind()), map.device());
        let mean = Reduction::Mean;
        logits.binary_cross_entropy_with_logits::<Tensor>(&target, None, None, mean)
    }
}

/// 1 for each class of which an image shows an object that is no crowd, else 0: `[N, K]` on the CPU.
fn shown(truths: &[Truth], classes: usize) -> Tensor {
    let mut shown = vec![0_f32; truths.len() * classes];
    for (truth, row) in truths.iter().zip(shown.chunks_exact_mut(classes)) {
        truth.labels.iter().for_each(|label| row[label.0] = 1.);
    }
    Tensor::from_slice(&shown).reshape([truths.len() as i64, classes as i64])
}

#[cfg(test)]
mod tests {
    use super::*;
    use detect::geometry::Label;
    use tch::nn::VarStore;

    #[test]
    fn each_class_is_a_question_of_its_own() {
        let _alone = crate::nn::alone(); // making a layer draws its first weights
        let store = VarStore::new(Device::Cpu);
        let spec = CutSpec { channels: 2, stride: 16, tail_channels: 0 };
        let head = ImageHead::new(&store.root(), spec, 3);
        let weights = [[1_f32, 0.], [0., 2.], [-1., 1.]];
        tch::no_grad(|| {
            head.linear.weight.shallow_clone().copy_(&Tensor::from_slice2(&weights));
            head.linear.bias.shallow_clone().copy_(&Tensor::from_slice(&[0.5_f32, 0., -0.5]));
        });
        // Images of two cells and of one beside which there is padding; negative cells count as 0. Means: (1, 0.5) and
        // (0, 3).
        let map = [[[2_f32, -7.], [1., 0.]], [[-1., 9.], [3., 9.]]];
        let map = Tensor::from_slice(map.as_flattened().as_flattened()).reshape([2, 2, 1, 2]);
        let sizes = vec![Size::new(16, 32), Size::new(16, 20)];
        let truth = |labels: &[usize]| Truth {
            labels: labels.iter().map(|&label| Label(label)).collect(),
            ..Truth::default()
        };
        // One class twice, and one; and none.
        let truths = [truth(&[0, 0, 2]), truth(&[])];
        let expected = [[1.5_f64, 1., -1.], [0.5, 6., 2.5]];
        let found = Vec::<f32>::try_from(head.logits(&map, &sizes).flatten(0, 1)).unwrap();
        let expected = expected.as_flattened();
        assert!(found.iter().zip(expected).all(|(f, e)| (f64::from(*f) - e).abs() < 1e-6));
        let targets = [1., 0., 1., 0., 0., 0.];
        let chance = |logit: f64| 1. / (1. + (-logit).exp());
        let each = expected.iter().zip(targets).map(|(&logit, target)| {
            -(target * chance(logit).ln() + (1. - target) * (1. - chance(logit)).ln())
        });
        let mean = each.sum::<f64>() / 6.;
        let images = Images { pixels: map.shallow_clone(), sizes };
        let found = head.loss(&map, &images, &truths).double_value(&[]);
        assert!((found - mean).abs() < 1e-6, "{found}, expected {mean}");
    }
}
