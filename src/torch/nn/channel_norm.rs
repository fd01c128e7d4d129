//! Layer norm and instance norm with a scale and an offset for each channel, as TensorFlow's
//! `contrib.layers` had them when the cells were searched.

use tch::Tensor;
use tch::nn::Path;

use super::place;
use crate::precision::widened;

/// Over what one mean and one variance are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// All channels and pixels of an image: layer norm.
    Image,
    /// The pixels of a channel: instance norm.
    Channel,
}

/// The norm.
#[derive(Debug)]
pub struct ChannelNorm {
    weight: Tensor,
    bias: Tensor,
    over: Over,
}

impl ChannelNorm {
    /// Makes scale and offset under `path` by `names` (dotted): the identity at first.
    pub fn new(path: &Path, names: &[String; 2], channels: usize, over: Over) -> Self {
        let [weight, bias] = names.each_ref().map(|name| place(path, name));
        let shape = [channels as i64];
        Self { weight: weight.0.ones(weight.1, &shape), bias: bias.0.zeros(bias.1, &shape), over }
    }

    /// `[N, C, H, W]` to the same.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        // TensorFlow's epsilons, added to the variance.
        let (dims, epsilon): (&[i64], f64) = match self.over {
            Over::Image => (&[1, 2, 3], 1e-12),
            Over::Channel => (&[2, 3], 1e-6),
        };
        let xs = &widened(xs);
        let (variance, mean) = xs.var_mean_dim(Some(dims), false, true); // biased
        let of_channel = |t: &Tensor| t.reshape([1, -1, 1, 1]);
        (xs - mean) * (variance + epsilon).rsqrt() * of_channel(&self.weight)
            + of_channel(&self.bias)
    }
}

#[cfg(test)]
mod tests {
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn they_are_torch_s_norms_with_weights_of_channels() {
        let _alone = crate::nn::alone();
        tch::manual_seed(1);
        let xs = Tensor::randn([2, 3, 5, 4], (Kind::Double, Device::Cpu)) * 3. + 1.;
        let names = ["n.weight".to_owned(), "n.bias".to_owned()];
        for (over, expected) in [
            (Over::Image, xs.layer_norm::<Tensor>([3, 5, 4], None, None, 1e-12, false)),
            (
                Over::Channel,
                xs.instance_norm::<Tensor>(None, None, None, None, true, 0., 1e-6, false),
            ),
        ] {
            let store = VarStore::new(Device::Cpu);
            let norm = ChannelNorm::new(&store.root(), &names, 3, over);
            let (scale, offset) =
                (Tensor::from_slice(&[1_f32, -2., 0.5]), Tensor::from_slice(&[0_f32, 3., -1.]));
            tch::no_grad(|| {
                let mut variables = store.variables();
                variables.get_mut("n.weight").unwrap().copy_(&scale);
                variables.get_mut("n.bias").unwrap().copy_(&offset);
            });
            let of_channel = |t: &Tensor| t.to_kind(Kind::Double).reshape([1, 3, 1, 1]);
            let expected = expected * of_channel(&scale) + of_channel(&offset);
            let worst = (norm.forward(&xs) - expected).abs().max().double_value(&[]);
            assert!(worst < 1e-9, "{over:?}: {worst}");
        }
    }
}
