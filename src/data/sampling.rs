//! Which images an epoch shows, and in which order.
//!
//! Uniform: each once. Class-balanced: repeat factor sampling (Gupta et al. 2019, section 4.2), where an image
//! is shown `max(1, sqrt(t / f))` times, `f` being the share of images with its rarest category. What is left
//! of a factor after whole times is drawn anew in each epoch, so that every epoch has the same length and
//! each image comes as often as its factor says on average.

use std::sync::Arc;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use super::augment::{Purpose, stream};
use super::coco::Dataset;
use crate::config;

/// One showing of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// Place in `Dataset::images`.
    pub index: usize,
    /// How often this epoch has shown it before.
    pub copy: usize,
}

/// What one of several processes takes of work in an order: every `count`-th unit, from `rank` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which process, below `count`.
    pub rank: usize,
    /// How many there are, at least 1.
    pub count: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { rank: 0, count: 1 };

    /// How many of `units` fall to it.
    pub fn of(self, units: usize) -> usize {
        units.saturating_sub(self.rank).div_ceil(self.count)
    }

    /// Whether `unit`, counted from 0, does.
    pub fn takes(self, unit: usize) -> bool {
        unit % self.count == self.rank
    }
}

/// The epochs of a training split: what one shows depends on (seed, epoch) alone.
#[derive(Debug, Clone)]
pub struct Epochs {
    seed: u64,
    images: usize,
    /// How often each image is shown, at least once; `None` where each is shown once. Their sum is whole.
    factors: Option<Arc<[f64]>>,
    length: usize,
}

impl Epochs {
    /// Of `dataset`, as `data` says.
    pub fn new(dataset: &Dataset, data: &config::Data, seed: u64) -> Self {
        let images = dataset.images.len();
        match data.sampling {
            config::EpochSampling::Uniform => Self::uniform(images, seed),
            config::EpochSampling::ClassBalanced => {
                Self::by_factors(&repeat_factors(dataset, data.rare_under), seed)
            }
        }
    }

    /// Shows each of `images` once.
    pub fn uniform(images: usize, seed: u64) -> Self {
        Self { seed, images, factors: None, length: images }
    }

    /// Shows image `i` `factors[i]` times on average, each of which is at least 1.
    fn by_factors(factors: &[f64], seed: u64) -> Self {
        let sum: f64 = factors.iter().sum();
        let length = sum.ceil() as usize;
        // To a whole number of visits: by less than one visit an epoch in all.
        let whole = factors.iter().map(|f| f * length as f64 / sum).collect();
        Self { seed, images: factors.len(), factors: Some(whole), length }
    }

    /// Visits of an epoch.
    #[expect(clippy::len_without_is_empty, reason = "a data set has images")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// The visits of `epoch` in their order.
    pub fn order(&self, epoch: usize) -> Vec<Visit> {
        let mut rng = stream(self.seed, epoch as u64, 0, Purpose::Order);
        let mut images: Vec<usize> = (0..self.images).collect();
        images.shuffle(&mut rng);
        let Some(factors) = &self.factors else {
            return images.into_iter().map(|index| Visit { index, copy: 0 }).collect();
        };
        // One draw for all (systematic sampling): an image is shown once for each whole number that the
        // running sum passes, and the order is new in each epoch.
        let mut visits = Vec::with_capacity(self.length);
        let mut sum = rng.random::<f64>();
        for index in images {
            let before = sum.floor();
            sum += factors[index];
            let times = (sum.floor() - before) as usize;
            visits.extend((0..times).map(|copy| Visit { index, copy }));
        }
        // Rounding of the sum can cost or add the last one.
        visits.truncate(self.length);
        while visits.len() < self.length {
            let last = visits
                .last()
                .map_or(Visit { index: 0, copy: 0 }, |v| Visit { copy: v.copy + 1, ..*v });
            visits.push(last);
        }
        visits.shuffle(&mut rng);
        visits
    }
}

/// How often each image is shown: `max(1, sqrt(rare_under / f))` of its rarest category, `f` being the share of
/// images that show it. Crowds do not count: nothing is learned from them.
pub fn repeat_factors(dataset: &Dataset, rare_under: f64) -> Vec<f64> {
    let categories = |image: usize| {
        let annotations = dataset.images[image].annotations.iter().filter(|a| !a.crowd);
        let mut labels: Vec<usize> = annotations.map(|a| a.label.0).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    };
    let images = dataset.images.len();
    let mut shown = vec![0_usize; dataset.categories.len()];
    for image in 0..images {
        for label in categories(image) {
            shown[label] += 1;
        }
    }
    let of_category = |label: usize| (rare_under * images as f64 / shown[label] as f64).sqrt();
    let of_image = |image| categories(image).into_iter().map(of_category).fold(1., f64::max);
    (0..images).map(of_image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::coco::{Annotation, Category, ImageRecord};
    use crate::geometry::{Box2, Label};

    fn dataset(labels: &[&[usize]]) -> Dataset {
        let images = labels.iter().enumerate().map(|(i, labels)| ImageRecord {
            id: i as i64,
            file: format!("{i}.jpg").into(),
            file_name: format!("{i}.jpg"),
            size: None,
            annotations: (labels.iter())
                .map(|&label| Annotation {
                    id: 0,
                    area: 81.,
                    label: Label(label),
                    bbox: Box2::new(0., 0., 9., 9.),
                    crowd: false,
                })
                .collect(),
        });
        Dataset {
            root: "data".into(),
            annotation_files: vec!["data/a.json".into()],
            split: "train".into(),
            categories: (0..3).map(|id| Category { id, name: id.to_string() }).collect(),
            images: images.collect(),
        }
    }

    #[test]
    fn a_uniform_epoch_visits_every_image_once_in_its_own_order() {
        let (a, b) = (Epochs::uniform(100, 3).order(0), Epochs::uniform(100, 3).order(1));
        assert_ne!(a, b);
        assert_ne!(a, Epochs::uniform(100, 4).order(0));
        for mut epoch in [a, b] {
            epoch.sort_unstable_by_key(|visit| visit.index);
            let all = (0..100).map(|index| Visit { index, copy: 0 });
            assert!(epoch.into_iter().eq(all));
        }
    }

    #[test]
    fn factors_are_those_of_the_rarest_category() {
        // Of 8 images 0 is on 6, 1 on 2, 2 on 1; two boxes of one category count once.
        let set = dataset(&[&[0], &[0, 0], &[0], &[0], &[0], &[0, 1, 2], &[1, 1], &[]]);
        let found = repeat_factors(&set, 0.5);
        // sqrt(0.5 / (6 / 8)) < 1, sqrt(0.5 / (1 / 8)) = 2, sqrt(0.5 / (2 / 8)) = sqrt(2).
        let expected = [1., 1., 1., 1., 1., 2., 2_f64.sqrt(), 1.];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn a_balanced_epoch_shows_images_as_often_as_their_factors_say() {
        let factors = [1., 1.25, 3.5, 1., 2.];
        let epochs = Epochs::by_factors(&factors, 5);
        assert_eq!(epochs.len(), 9); // 8.75 in all
        assert_eq!(epochs.order(4), epochs.order(4));
        assert_ne!(epochs.order(4), epochs.order(5));
        let mut seen = [0_usize; 5];
        let rounds = 4000;
        for epoch in 0..rounds {
            let order = epochs.order(epoch);
            assert_eq!(order.len(), 9);
            for (index, seen) in seen.iter_mut().enumerate() {
                let mut copies: Vec<_> =
                    order.iter().filter(|v| v.index == index).map(|v| v.copy).collect();
                copies.sort_unstable();
                assert!(copies.iter().copied().eq(0..copies.len()), "copies are counted");
                let factor = factors[index] * 9. / 8.75;
                let fair = factor.floor() as usize..=factor.ceil() as usize;
                assert!(fair.contains(&copies.len()), "{index}: {}", copies.len());
                *seen += copies.len();
            }
        }
        for (seen, factor) in seen.iter().zip(factors) {
            let mean = *seen as f64 / rounds as f64;
            // A standard deviation is at most 0.5 / sqrt(4000) = 0.008.
            assert!((mean - factor * 9. / 8.75).abs() < 0.04, "{mean} for {factor}");
        }
    }
}
