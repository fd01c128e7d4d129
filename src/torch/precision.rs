//! Mixed precision: in which numbers convolutions and matrix products of a training step compute.
//!
//! libtorch's autocast casts the inputs of those operations, their weights included, at each use, and leaves the
//! others as they come or widens them. Weights, their gradients, the optimizer's state and the statistics of batch
//! norm are float32 throughout. What needs more than the 8 bits of a bfloat16 is widened by [`widened`]: crops,
//! whose bilinear weights are fractions of a cell, layer norm, and what the heads say of boxes.
//!
//! Evaluation is in float32, so that its figures are those of the stored model.

use detect::config::Precision as Wanted;
use tch::{Device, Kind, Tensor};

use crate::shim;

/// What a training step computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// float32 throughout. On a GPU libtorch lets cuDNN round the inputs of convolutions to TF32.
    Float32,
    /// bfloat16 where it pays.
    Bf16,
    /// float16 where it pays, with a scaled loss.
    Fp16,
}

impl Precision {
    /// What a recipe's `wanted` is on `device`: `auto` is bfloat16 on a GPU that computes in it, else float32.
    pub fn on(wanted: Wanted, device: Device) -> Self {
        match wanted {
            Wanted::Auto if shim::has_bf16(device) => Self::Bf16,
            Wanted::Auto | Wanted::Float32 => Self::Float32,
            Wanted::Bf16 => Self::Bf16,
            Wanted::Fp16 => Self::Fp16,
        }
    }

    /// What operations on `device` compute in at the moment, in this thread.
    pub fn current(device: Device) -> Self {
        match shim::autocast(device) {
            0 => Self::Float32,
            2 => Self::Fp16,
            _ => Self::Bf16,
        }
    }

    /// As a recipe names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
        }
    }

    /// Calls `f`, in which operations on `device` compute in this precision.
    pub fn within<T>(self, device: Device, f: impl FnOnce() -> T) -> T {
        /// Sets back what was, also where `f` panics.
        struct Before(Device, i32);
        impl Drop for Before {
            fn drop(&mut self) {
                shim::set_autocast(self.0, self.1);
            }
        }
        let code = match self {
            Self::Float32 => 0,
            Self::Bf16 => 1,
            Self::Fp16 => 2,
        };
        let before = Before(device, shim::autocast(device));
        if before.1 != code {
            shim::set_autocast(device, code);
        }
        f()
    }
}

/// The same numbers in float32 where they are of half its size.
pub fn widened(xs: &Tensor) -> Tensor {
    xs.to_kind(wide(xs.kind()))
}

/// The kind of [`widened`] numbers of `kind`.
pub fn wide(kind: Kind) -> Kind {
    if matches!(kind, Kind::BFloat16 | Kind::Half) { Kind::Float } else { kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_cast_within_and_only_within() {
        let cpu = Device::Cpu;
        let a = Tensor::ones([2, 2], (Kind::Float, cpu));
        let kinds = |a: &Tensor| (a.matmul(a).kind(), (a + a).kind());
        for (precision, kind) in [(Precision::Bf16, Kind::BFloat16), (Precision::Fp16, Kind::Half)]
        {
            precision.within(cpu, || {
                assert_eq!(kinds(&a), (kind, Kind::Float));
                assert_eq!(Precision::current(cpu), precision);
                Precision::Float32.within(cpu, || assert_eq!(kinds(&a).0, Kind::Float));
                assert_eq!(kinds(&a).0, kind, "what was before is set back");
            });
            assert_eq!(kinds(&a).0, Kind::Float);
        }
        let panicked =
            std::panic::catch_unwind(|| Precision::Bf16.within(cpu, || panic!("on purpose")));
        assert!(panicked.is_err() && Precision::current(cpu) == Precision::Float32);
    }

    #[test]
    fn a_weight_learns_although_a_pass_without_gradients_came_first() {
        let cpu = Device::Cpu;
        let weight = Tensor::ones([2, 2], (Kind::Float, cpu)).set_requires_grad(true);
        let xs = Tensor::ones([1, 2], (Kind::Float, cpu));
        Precision::Bf16.within(cpu, || {
            let _without = tch::no_grad(|| xs.matmul(&weight));
            xs.matmul(&weight).sum(Kind::Float).backward();
        });
        assert_eq!((weight.kind(), weight.grad().kind()), (Kind::Float, Kind::Float));
        assert_eq!(weight.grad().sum(Kind::Float).double_value(&[]), 4.);
    }

    #[test]
    fn auto_is_float32_on_a_cpu() {
        let on = |wanted| Precision::on(wanted, Device::Cpu);
        assert_eq!(on(Wanted::Auto), Precision::Float32);
        assert_eq!([Wanted::Bf16, Wanted::Fp16].map(on), [Precision::Bf16, Precision::Fp16]);
    }
}
