//! The factor on the loss in float16, whose smallest numbers are 6e-8: gradients below that would be 0.
//!
//! Gradients of a loss that is `factor` times as large are divided by it again, in float32. Where they overflow, the
//! step is left out and the factor halved; after a while without, it is doubled (Micikevicius et al. 2018, *Mixed
//! Precision Training*, section 3.2).

use serde::{Deserialize, Serialize};

/// Steps without an overflow after which the factor grows: PyTorch's.
const PATIENCE: u32 = 2000;
/// A factor that is not to be halved: what overflows with it does without one.
const SMALLEST: f64 = 1.;
/// A loss of a few hundred times this is still a float32.
const LARGEST: f64 = (1_u64 << 60) as f64;

/// The factor. It is a power of two, so that multiplying by it rounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// What the loss is multiplied by.
    pub factor: f64,
    /// Steps without an overflow since it changed.
    pub good: u32,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Made,
    /// It is left out: the factor was too large.
    LeftOut,
    /// The gradients are not finite whatever the factor.
    Hopeless,
}

impl Default for LossScale {
    /// PyTorch's start.
    fn default() -> Self {
        Self { factor: 65536., good: 0 }
    }
}

impl LossScale {
    /// Learns whether the gradients of a step were finite.
    pub fn learn(&mut self, finite: bool) -> Verdict {
        if finite {
            self.good += 1;
            if self.good >= PATIENCE {
                *self = Self { factor: (self.factor * 2.).min(LARGEST), good: 0 };
            }
            return Verdict::Made;
        }
        if self.factor <= SMALLEST {
            return Verdict::Hopeless;
        }
        *self = Self { factor: (self.factor / 2.).max(SMALLEST), good: 0 };
        Verdict::LeftOut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_patience_and_falls_at_once() {
        let mut scale = LossScale::default();
        assert!((1..2000).all(|_| scale.learn(true) == Verdict::Made));
        assert_eq!((scale.factor, scale.good), (65536., 1999));
        assert_eq!(scale.learn(true), Verdict::Made);
        assert_eq!((scale.factor, scale.good), (131_072., 0));
        scale.learn(true);
        assert_eq!(scale.learn(false), Verdict::LeftOut);
        assert_eq!((scale.factor, scale.good), (65536., 0), "an overflow starts the count anew");
        assert!((0..16).all(|_| scale.learn(false) == Verdict::LeftOut));
        assert_eq!(scale.factor, 1.);
        assert_eq!(scale.learn(false), Verdict::Hopeless);
        assert_eq!(scale.factor, 1.);
        let mut large = LossScale { factor: LARGEST, good: PATIENCE - 1 };
        large.learn(true);
        assert_eq!(large.factor, LARGEST);
    }
}
