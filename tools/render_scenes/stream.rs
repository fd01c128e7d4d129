//! The random numbers of a scene: one `ChaCha8` stream an image, and nothing else of `rand`, so that
//! the pictures stay the same bytes when that crate's sampling changes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// The random numbers of one image.
#[derive(Debug, Clone)]
pub(crate) struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of image `index` of the split with number `split`.
    pub(crate) fn new(seed: u64, split: u32, index: u32) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(u64::from(split) << 32 | u64::from(index));
        Self(rng)
    }

    /// Any 32 bits: the seed of a noise field.
    pub(crate) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in `[0, 1)`, in steps of 2^-24.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / 16_777_216.
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// A whole number, uniform in `0..count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        // The product stays below `count`: `unit` is at most 1 - 2^-24 and `count` is small.
        (self.unit() * count as f32) as usize
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// An index, with these weights.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut rest = self.below(weights.iter().sum::<u32>() as usize) as u32;
        for (i, &weight) in weights.iter().enumerate() {
            if rest < weight {
                return i;
            }
            rest -= weight;
        }
        unreachable!("`rest` starts below the sum of the weights")
    }

    /// Close to a standard normal: the sum of four uniform numbers, which needs no logarithm.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum = self.unit() + self.unit() + self.unit() + self.unit();
        (sum - 2.) * 1.732_050_8
    }

    /// Log-uniform in `[low, high)`.
    pub(crate) fn log_between(&mut self, low: f32, high: f32) -> f32 {
        let (low, high) = (f64::from(low), f64::from(high));
        // In f64, then rounded: the last digit of libm, which differs between systems, is gone.
        (low * (high / low).powf(f64::from(self.unit()))) as f32
    }

    /// A direction: cosine and sine of an angle in radians within `+-limit`.
    pub(crate) fn direction(&mut self, limit: f32) -> [f32; 2] {
        let (sin, cos) = f64::from(self.between(-limit, limit)).sin_cos();
        [cos as f32, sin as f32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_chacha8() {
        // The published test vector for 8 rounds, a key and a nonce of zeros: 3e 00 ef 2f 89 5f 40 d6.
        let mut stream = Stream::new(0, 0, 0);
        assert_eq!([stream.bits(), stream.bits()], [0x2fef_003e, 0xd640_5f89]);
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        let mut stream = Stream::new(1, 0, 0);
        let mut counts = [0; 3];
        for _ in 0..3000 {
            assert!((2. ..3.).contains(&stream.between(2., 3.)));
            assert!((19. ..=240.).contains(&stream.log_between(19., 240.)));
            let [cos, sin] = stream.direction(0.5);
            assert!((cos * cos + sin * sin - 1.).abs() < 1e-6 && cos > 0.87);
            counts[stream.weighted(&[1, 0, 2])] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((850..1150).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn the_sum_of_four_has_mean_0_and_variance_1() {
        let mut stream = Stream::new(3, 0, 0);
        let drawn: Vec<f32> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = drawn.iter().sum::<f32>() / 20_000.;
        let variance = drawn.iter().map(|x| x * x).sum::<f32>() / 20_000.;
        assert!(mean.abs() < 0.03 && (variance - 1.).abs() < 0.04, "{mean} {variance}");
    }
}
