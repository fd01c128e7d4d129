//! A detector of tensors over a split: the run of [`over_split`].

use std::ops::ControlFlow;
use std::sync::Arc;

use detect::data::loader::LoadError;
use detect::data::{Category, Dataset};
use detect::eval::over_split;
pub use detect::eval::over_split::{Reading, Run, score};
use tch::Device;

use crate::backbone::NasNet;
use crate::detector::FasterRcnn;
use crate::predict;

/// [`over_split::run`] for `network` on `device`.
///
/// # Errors
/// As there.
pub fn run(
    network: &FasterRcnn<NasNet>,
    categories: &[Category],
    dataset: &Arc<Dataset>,
    reading: Reading<'_>,
    device: Device,
    progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Run, LoadError> {
    let detect = |batch: &_| predict::detect(network, batch, device);
    over_split::run(detect, categories, dataset, reading, progress)
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use detect::data::loader::{Batch, Sample};
    use detect::eval::over_split::sparing;
    use detect::failure::out_of_memory;
    use detect::geometry::Size;
    use tch::Device;

    fn batch(images: usize) -> Batch {
        let size = Size::new(1, 2);
        let sample = |index| Sample {
            index,
            image_id: 10 + index as i64,
            original: size,
            resized: size,
            boxes: Vec::new(),
            labels: Vec::new(),
        };
        Batch {
            samples: (0..images).map(sample).collect(),
            padded: size,
            pixels: (0..images * 6).map(|i| i as f32).collect::<Vec<_>>().into(),
        }
    }

    /// Has memory for `room` images; what it finds tells the image and its first pixel.
    fn network(room: usize) -> impl Fn(&Batch) -> Vec<(i64, f32)> {
        move |batch| {
            let images = batch.samples.len();
            if images > room {
                // As libtorch says it.
                let _ = tch::Tensor::zeros([i64::MAX / 16], (tch::Kind::Float, Device::Cpu));
            }
            let pixels = batch.pixels.chunks_exact(6);
            batch.samples.iter().zip(pixels).map(|(s, p)| (s.image_id, p[0])).collect()
        }
    }

    #[test]
    fn a_batch_that_is_too_large_is_taken_apart() {
        let all = [(10, 0.), (11, 6.), (12, 12.)];
        assert_eq!(sparing(batch(3), network(3)), all);
        assert_eq!(sparing(batch(3), network(1)), all);
        let none = catch_unwind(|| sparing(batch(3), network(0))).unwrap_err();
        assert!(out_of_memory(&*none).unwrap().contains("allocate"));
        let bug = catch_unwind(|| sparing(batch(2), |_| -> Vec<()> { panic!("a bug") }));
        assert_eq!(bug.unwrap_err().downcast_ref(), Some(&"a bug"));
    }
}
