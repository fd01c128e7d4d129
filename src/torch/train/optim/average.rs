//! The moving average of the weights.

use tch::Tensor;

/// Moves the flat `average` of a network towards its flat `weights`, running statistics included, after
/// `step`, which counts from 0.
///
/// The decay starts low, so that the average forgets the start quickly.
pub fn update(average: &mut Tensor, weights: &Tensor, decay: f64, step: usize) {
    let decay = decay.min((1 + step) as f64 / (10 + step) as f64);
    tch::no_grad(|| {
        let _ = average.lerp_(weights, 1. - decay);
    });
}
