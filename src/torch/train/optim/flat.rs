//! All variables of a network in one flat tensor, all gradients in another.
//!
//! Variables and gradients are views into them, so that an optimizer's step is a few operations whatever the
//! number of layers. Autograd adds to a gradient that exists in place, and so does filling the buffer with
//! zeros: the views stay.
//!
//! Weights lie contiguous. A channels-last map makes libtorch reorder the weight of a convolution at each
//! use; that costs nothing for kernels of 1x1 and for depthwise ones, whose two orders are the same, and so
//! next to nothing here: only the stem and the RPN's 3x3 convolution have others. The same holds for cuDNN, which
//! libtorch calls in the order of the map: a second, channels-last copy of all weights would save the reordering of
//! these two, and cost a copy of every weight after each step. In half precision weights are cast at each use anyway.

use std::ops::Range;

use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::weights::named_variables;

/// Norms are taken by rows of this many numbers first: a single float32 sum over tens of millions of squares
/// stops growing.
const ROW: i64 = 4096;

/// A variable's place.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Its name in the store.
    pub name: String,
    /// Its elements.
    pub range: Range<i64>,
    shape: Vec<i64>,
}

impl Slot {
    /// Its view into `flat`, in its own shape.
    pub fn of(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.range.start, self.range.end - self.range.start).view(&self.shape[..])
    }
}

/// Where each variable lies: first those that learn and decay, then those that learn, then the others.
#[derive(Debug, Clone)]
pub struct Layout {
    learning: Vec<Slot>,
    others: Vec<Slot>,
    decayed: i64,
    learned: i64,
    numel: i64,
}

impl Layout {
    /// Of the variables of `store`, which learn if they require a gradient.
    pub fn of(store: &VarStore, decays: impl Fn(&str, &Tensor) -> bool) -> Self {
        let (learning, others): (Vec<_>, Vec<_>) =
            named_variables(store).into_iter().partition(|(_, weight)| weight.requires_grad());
        let (decaying, steady) =
            learning.into_iter().partition::<Vec<_>, _>(|(name, weight)| decays(name, weight));
        let mut end = 0;
        let mut place = |variables: Vec<(String, Tensor)>| -> Vec<Slot> {
            let slot = |(name, variable): (String, Tensor)| {
                assert_eq!(variable.kind(), Kind::Float, "{name}: variables are float32");
                let range = end..end + variable.numel() as i64;
                end = range.end;
                Slot { name, range, shape: variable.size() }
            };
            variables.into_iter().map(slot).collect()
        };
        let mut learning = place(decaying);
        let decayed = learning.last().map_or(0, |slot| slot.range.end);
        learning.extend(place(steady));
        let learned = learning.last().map_or(0, |slot| slot.range.end);
        let others = place(others);
        Self { learning, others, decayed, learned, numel: end }
    }

    /// The variables that learn.
    pub fn learning(&self) -> &[Slot] {
        &self.learning
    }

    /// The part of `flat` that decays.
    pub fn decayed(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, 0, self.decayed)
    }

    /// The part of `flat` that learns, what decays included.
    pub fn learned(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, 0, self.learned)
    }

    /// The part of `flat` that does not learn: running statistics, and what is frozen.
    pub fn fixed(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.learned, self.numel - self.learned)
    }

    /// Moves the variables of `store`, with their values, into a new flat tensor, which is given.
    pub fn gather(&self, store: &VarStore) -> Tensor {
        let flat = Tensor::zeros([self.numel], (Kind::Float, store.device()));
        let mut variables = named_variables(store);
        for slot in self.learning.iter().chain(&self.others) {
            let variable = variables.get_mut(&slot.name).expect("stores of one network agree");
            let mut place = slot.of(&flat);
            tch::no_grad(|| place.copy_(variable));
            variable.set_data(&place);
        }
        flat
    }

    /// Gives each variable of `store` that learns a gradient in a new flat tensor of zeros, which is given.
    pub fn gather_gradients(&self, store: &VarStore) -> Tensor {
        // Whole rows, for the norm: nothing ever writes behind the last gradient.
        let rows = (self.learned.max(1) + ROW - 1) / ROW;
        let flat = Tensor::zeros([rows * ROW], (Kind::Float, store.device()));
        let variables = named_variables(store);
        for slot in &self.learning {
            let variable = &variables[&slot.name];
            // A first gradient for there to be one; then its memory is exchanged.
            variable.sum(Kind::Float).backward();
            variable.grad().set_data(&slot.of(&flat));
        }
        flat
    }
}

/// The norm of a tensor that [`Layout::gather_gradients`] made: a scalar.
pub fn norm(gradients: &Tensor) -> Tensor {
    gradients.view([-1, ROW]).norm_scalaropt_dim(2, [1], false).norm()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;
    use tch::nn::init::Init;

    fn store() -> VarStore {
        let store = VarStore::new(Device::Cpu);
        let ramp = |name: &str, shape: &[i64]| {
            let mut variable = store.root().var(name, shape, Init::Const(0.));
            let numel: i64 = shape.iter().product();
            let values = Tensor::arange(numel, (Kind::Float, Device::Cpu)).reshape(shape) + 1.;
            tch::no_grad(|| variable.copy_(&values));
        };
        ramp("b", &[2, 3]);
        ramp("a", &[3]);
        ramp("c", &[2]);
        let _running = store.root().ones_no_train("d", &[2]);
        store
    }

    #[test]
    fn variables_and_gradients_are_and_stay_views() {
        let store = store();
        let layout = Layout::of(&store, |_, weight| weight.dim() > 1);
        let names: Vec<&str> = layout.learning().iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"], "what decays comes first");
        let mut flat = layout.gather(&store);
        let mut gradients = layout.gather_gradients(&store);
        let all = |flat: &Tensor| Vec::<f32>::try_from(flat).unwrap();
        assert_eq!(all(&flat), [1., 2., 3., 4., 5., 6., 1., 2., 3., 1., 2., 1., 1.]);
        assert_eq!([&layout.decayed(&flat), &layout.fixed(&flat)].map(Tensor::numel), [6, 2]);
        assert!(all(&gradients).iter().all(|&g| g == 0.), "the first gradients are gone");
        let variables = named_variables(&store);
        for round in 1..=2 {
            let loss =
                (&variables["a"] * 2.).sum(Kind::Float) + variables["b"].square().sum(Kind::Float);
            loss.backward();
            let expected: Vec<f32> = [2., 4., 6., 8., 10., 12., 2., 2., 2., 0., 0.]
                .map(|g: f32| g * round as f32)
                .to_vec();
            assert_eq!(all(&gradients)[..11], expected, "added in place, backward {round}");
        }
        let far = (norm(&gradients).double_value(&[]) - 2. * (4_f64 * 91. + 12.).sqrt()).abs();
        assert!(far < 1e-5);
        let _ = gradients.zero_();
        assert_eq!(variables["b"].grad().abs().max().double_value(&[]), 0.);
        variables["c"].sum(Kind::Float).backward();
        assert_eq!(all(&gradients)[9..11], [1., 1.], "still views after zeroing");
        let _ = flat.fill_(7.);
        assert_eq!(variables["c"].double_value(&[1]), 7., "a step reaches the variables");
        assert!(variables["c"].requires_grad() && variables["c"].is_leaf());
    }

    #[test]
    fn the_norm_of_many_gradients_is_exact() {
        // A single float32 sum of this many squares would stop growing at 2^24.
        let many = Tensor::ones([1 << 25], (Kind::Float, Device::Cpu));
        assert_eq!(norm(&many).double_value(&[]), f64::from(1 << 25).sqrt() as f32 as f64);
    }
}
