//! The gradients of a step, of one batch or of several that count as one.

use detect::config::LossWeights;
use detect::data::loader::Batch;
use tch::{Device, Tensor};

use super::optim::Optimizer;
use crate::backbone::Backbone;
use crate::detector::assign::Draws;
use crate::detector::boxes;
use crate::detector::{Counts, FasterRcnn, Losses, Truth};
use crate::nn::Mode;
use crate::precision::Precision;
use crate::predict;
use crate::profile::{self, Part};
use crate::ranks::Ranks;

/// What a step needs besides its batches.
pub(super) struct Settings<'a> {
    pub(super) mode: Mode,
    pub(super) loss_weights: &'a LossWeights,
    pub(super) device: Device,
    /// What the forward pass computes in.
    pub(super) precision: Precision,
    /// What the loss, and with it the gradients that are left, is multiplied by.
    pub(super) scale: f64,
    /// The seed of libtorch's generator for the nth image of the step.
    pub(super) seed: &'a dyn Fn(usize) -> i64,
    /// Who shares the step.
    pub(super) ranks: &'a dyn Ranks,
    /// Images of a batch, of which the last one of the step may have fewer.
    pub(super) batch: usize,
}

/// Losses of a batch that are not finite.
#[derive(Debug)]
pub(super) struct NotFinite {
    pub(super) losses: [f64; 4],
    /// Of the batch.
    pub(super) image_ids: Vec<i64>,
}

/// Losses that are not finite, of a batch of this process.
struct Fault {
    losses: [f64; 4],
    batch: usize,
}

impl NotFinite {
    /// What one process has found, for all.
    fn told(found: Option<Self>, ranks: &dyn Ranks) -> Self {
        let bytes = found.map_or_else(Vec::new, |found| {
            let losses = found.losses.iter().flat_map(|loss| loss.to_le_bytes());
            losses.chain(found.image_ids.iter().flat_map(|id| id.to_le_bytes())).collect()
        });
        let bytes = ranks.first(&bytes);
        let words = bytes.as_chunks::<8>().0;
        let loss = |i: usize| words.get(i).map_or(f64::NAN, |word| f64::from_le_bytes(*word));
        let image_ids = words.iter().skip(4).map(|word| i64::from_le_bytes(*word));
        Self { losses: [0, 1, 2, 3].map(loss), image_ids: image_ids.collect() }
    }
}

/// Leaves the gradients of the losses of `batches`, taken as one batch, in `optimizer`, and gives the losses. With
/// several processes, `batches` are those of this one, and gradients and losses those of all.
///
/// A batch's losses are means over its sampled anchors and regions, or over its images. How many the batches
/// have together is known for certain only after the last one: it is concluded from the first, and where that
/// was wrong, which it is where an image offers fewer than the recipe samples, the step is made again.
pub(super) fn gradients<B: Backbone>(
    network: &FasterRcnn<B>,
    optimizer: &mut Optimizer,
    batches: &[Batch],
    settings: &Settings<'_>,
) -> Result<[f64; 4], NotFinite> {
    let ranks = settings.ranks;
    let share = ranks.share();
    let images: usize = batches.iter().map(|batch| batch.samples.len()).sum();
    // What another attempt must find as it was: running statistics.
    let before = (batches.len() > 1 || share.count > 1).then(|| optimizer.fixed().copy());
    let mut whole: Option<Counts> = None;
    loop {
        optimizer.zero_grad();
        let mut parts: Vec<(Tensor, Counts)> = Vec::with_capacity(batches.len());
        let mut sum = Counts::ZERO;
        let mut first = share.rank * settings.batch;
        for batch in batches {
            let own = batch.samples.len();
            let seeds: Vec<i64> = (first..first + own).map(settings.seed).collect();
            first += own + (share.count - 1) * settings.batch;
            // For drop path; samples are drawn from seeds of their own.
            tch::manual_seed(seeds.first().copied().unwrap_or_default());
            let forward = || losses(network, batch, &seeds, settings);
            let (losses, counts) = settings.precision.within(settings.device, forward);
            let whole = *whole.get_or_insert_with(|| guess(counts, [own, images], ranks));
            let total = losses.total(&counts.share(whole, settings.loss_weights));
            network.backward(&if settings.scale == 1. { total } else { total * settings.scale });
            profile::lap(Part::Backward);
            parts.push((losses.stacked(), counts));
            sum += counts;
        }
        // The others wait for this process's part of the first guess, even if it has no batch.
        whole.get_or_insert_with(|| guess(Counts::ZERO, [0, images], ranks));
        let mut counts = [sum.anchors, sum.regions];
        ranks.sum_f64(&mut counts);
        let sum = Counts { anchors: counts[0], regions: counts[1] };
        match &before {
            Some(before) if whole != Some(sum) => {
                tch::no_grad(|| optimizer.fixed().copy_(before));
                whole = Some(sum);
            }
            _ => {
                let values = agreed(values(&parts, sum), batches, ranks)?;
                if let Some(before) = before.filter(|_| share.count > 1) {
                    ranks.sum_tensor(optimizer.gradients());
                    average_statistics(&mut optimizer.fixed(), &before, ranks);
                }
                profile::lap(Part::Backward);
                return Ok(values);
            }
        }
    }
}

/// The part of the losses of a step that its batches `parts` have, or the first batch whose losses are not finite:
/// read at once, and after all of the backward pass, since whoever reads waits for the device.
fn values(parts: &[(Tensor, Counts)], whole: Counts) -> Result<[f64; 4], Fault> {
    let mut values = [0.; 4];
    if parts.is_empty() {
        return Ok(values);
    }
    let stacked: Vec<&Tensor> = parts.iter().map(|(losses, _)| losses).collect();
    let read = boxes::to_vec(&Tensor::stack(&stacked, 0)); // [batches, 4]
    for (batch, (found, (_, counts))) in read.chunks_exact(4).zip(parts).enumerate() {
        let losses = [0, 1, 2, 3].map(|i| f64::from(found[i]));
        if !losses.iter().all(|v| v.is_finite()) {
            return Err(Fault { losses, batch });
        }
        let shares = Losses::weighted(losses, &counts.share(whole, &LossWeights::ONES));
        values.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
    }
    Ok(values)
}

/// What the processes found, as one: the losses of the step, or what is wrong in the first that has a fault.
fn agreed(
    found: Result<[f64; 4], Fault>,
    batches: &[Batch],
    ranks: &dyn Ranks,
) -> Result<[f64; 4], NotFinite> {
    let mut values = found.as_ref().copied().unwrap_or_default();
    let fault = found.err().map(|Fault { losses, batch }| {
        let image_ids = batches[batch].samples.iter().map(|sample| sample.image_id).collect();
        NotFinite { losses, image_ids }
    });
    if ranks.any(fault.is_some()) {
        return Err(NotFinite::told(fault, ranks));
    }
    ranks.sum_f64(&mut values);
    Ok(values)
}

/// The counts of the step, concluded from those of each process's first batch: of `own` of its `images`.
fn guess(counts: Counts, [own, images]: [usize; 2], ranks: &dyn Ranks) -> Counts {
    let mut sums = [counts.anchors, counts.regions, own as f64, images as f64];
    ranks.sum_f64(&mut sums);
    Counts { anchors: sums[0], regions: sums[1] }.times(sums[3] / sums[2].max(1.))
}

/// Leaves in `fixed` what the processes have on average, of those in which it moved away from `before`: running
/// statistics of live batch norm. What moved nowhere, such as frozen weights, stays to the bit.
fn average_statistics(fixed: &mut Tensor, before: &Tensor, ranks: &dyn Ranks) {
    let mut moved = [f64::from(u8::from(!fixed.equal(before)))];
    ranks.sum_f64(&mut moved);
    if moved[0] == 0. {
        return;
    }
    let change = &*fixed - before;
    ranks.sum_tensor(&change);
    tch::no_grad(|| fixed.copy_(&(before + change / moved[0])));
}

fn losses<B: Backbone>(
    network: &FasterRcnn<B>,
    batch: &Batch,
    seeds: &[i64],
    settings: &Settings<'_>,
) -> (Losses, Counts) {
    let truths: Vec<Truth> = batch.samples.iter().map(Truth::of).collect();
    let images = predict::images(batch, settings.device);
    network.counted_losses(&images, &truths, settings.mode, Draws::Seeds(seeds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::Alone;
    use detect::config::{Config, NormMode, Rules};
    use detect::data::loader::Sample;
    use detect::geometry::{Box2, Label, Size};
    use tch::Kind;
    use tch::nn::VarStore;

    const SIDE: usize = 64;

    /// A picture of noise with `objects` squares.
    fn sample(index: usize, objects: usize) -> Sample {
        let boxes = (0..objects).map(|i| {
            let at = (3 + 5 * index + 9 * i) as f32;
            Box2::new(at, at, at + 24., at + 30.)
        });
        Sample {
            index,
            image_id: index as i64,
            original: Size::new(SIDE, SIDE),
            resized: Size::new(SIDE, SIDE),
            boxes: boxes.collect(),
            labels: (0..objects).map(|i| Label(i % 2)).collect(),
        }
    }

    fn batch(samples: std::ops::Range<usize>) -> Batch {
        let size = Size::new(SIDE, SIDE);
        let one = |index: usize| {
            (0..SIDE * SIDE * 3).map(move |i| ((i * (index * 31 + 17)) % 251) as f32 / 125. - 1.)
        };
        Batch {
            pixels: samples.clone().flat_map(one).collect::<Vec<_>>().into(),
            samples: samples.map(|i| sample(i, 1 + i % 3)).collect(),
            padded: size,
        }
    }

    fn config(rules: Rules) -> Config {
        let mut config = Config::recipe("tiny", &[]).unwrap();
        config.backbone.norm = NormMode::Frozen;
        config.backbone.tail_norm = NormMode::Frozen;
        config.backbone.drop_path_keep = 1.;
        config.rpn.post_nms_train = 6;
        config.detector.rules = rules;
        if rules == Rules::Tf {
            (config.rpn.pre_nms_train, config.rpn.pre_nms_eval) = (0, 0);
        }
        config
    }

    /// Gradients and losses of the batches, and the largest difference to the network that was there before.
    fn gradients_of(config: &Config, batches: &[Batch]) -> (Tensor, [f64; 4]) {
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let network = FasterRcnn::new(&store.root(), config, 2);
        let mut optimizer = Optimizer::new(&store, &config.train);
        let settings = Settings {
            mode: Mode::Train { progress: 0. },
            loss_weights: &config.train.loss_weights,
            device: Device::Cpu,
            precision: Precision::Float32,
            scale: 1.,
            seed: &|image| image as i64 * 77 + 5,
            ranks: &Alone,
            batch: 4,
        };
        let losses = gradients(&network, &mut optimizer, batches, &settings).unwrap();
        (optimizer.gradients().copy(), losses)
    }

    #[test]
    fn several_batches_count_as_one() {
        let _alone = crate::nn::alone();
        for rules in [Rules::Torchvision, Rules::Tf] {
            for sampled in [8, 10_000] {
                // With 10,000 every image gives all it has, which differs from image to image.
                let mut config = config(rules);
                (config.rpn.sampled, config.roi.sampled) = (sampled, sampled);
                let (whole, losses) = gradients_of(&config, &[batch(0..4)]);
                for parts in [vec![0..2, 2..4], vec![0..1, 1..2, 2..4]] {
                    let parts: Vec<Batch> = parts.into_iter().map(batch).collect();
                    let (summed, summed_losses) = gradients_of(&config, &parts);
                    let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
                    let far = norm(&(&whole - &summed)) / norm(&whole);
                    assert!(far < 1e-6, "{rules:?} {sampled} in {}: {far}", parts.len());
                    for (a, b) in losses.iter().zip(summed_losses) {
                        assert!((a - b).abs() <= 1e-6 * a.abs(), "{losses:?} {summed_losses:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_step_that_is_made_again_moves_running_statistics_once() {
        let _alone = crate::nn::alone();
        let mut config = config(Rules::Torchvision);
        config.backbone.norm = NormMode::Live;
        (config.rpn.sampled, config.roi.sampled) = (10_000, 10_000);
        let moved = |batches: &[Batch]| {
            tch::manual_seed(1);
            let store = VarStore::new(Device::Cpu);
            let network = FasterRcnn::new(&store.root(), &config, 2);
            let mut optimizer = Optimizer::new(&store, &config.train);
            let settings = Settings {
                mode: Mode::Train { progress: 0. },
                loss_weights: &config.train.loss_weights,
                device: Device::Cpu,
                precision: Precision::Float32,
                scale: 1.,
                seed: &|image| image as i64,
                ranks: &Alone,
                batch: 4,
            };
            for step in batches.chunks(2) {
                gradients(&network, &mut optimizer, step, &settings).unwrap();
            }
            optimizer.fixed().copy()
        };
        // The same two batches as one step that is made twice, and as a plain walk through both.
        let batches = [batch(0..2), batch(2..4)];
        let together = moved(&batches);
        let alone = {
            tch::manual_seed(1);
            let store = VarStore::new(Device::Cpu);
            let network = FasterRcnn::new(&store.root(), &config, 2);
            let optimizer = Optimizer::new(&store, &config.train);
            let mode = Mode::Train { progress: 0. };
            for batch in &batches {
                let truths = vec![Truth::default(); 2];
                network.losses(&predict::images(batch, Device::Cpu), &truths, mode);
            }
            optimizer.fixed().copy()
        };
        assert!(together.equal(&alone));
    }

    #[test]
    fn a_loss_that_is_scaled_by_a_power_of_two_gives_the_same_gradients() {
        let _alone = crate::nn::alone();
        let config = config(Rules::Torchvision);
        let gradients_at = |scale: f64| {
            tch::manual_seed(1);
            let store = VarStore::new(Device::Cpu);
            let network = FasterRcnn::new(&store.root(), &config, 2);
            let mut optimizer = Optimizer::new(&store, &config.train);
            let settings = Settings {
                mode: Mode::Train { progress: 0. },
                loss_weights: &config.train.loss_weights,
                device: Device::Cpu,
                precision: Precision::Float32,
                scale,
                seed: &|image| image as i64,
                ranks: &Alone,
                batch: 4,
            };
            let losses = gradients(&network, &mut optimizer, &[batch(0..2)], &settings).unwrap();
            optimizer.divide_gradients(scale);
            (losses, optimizer.gradients().copy())
        };
        let (plain, scaled) = (gradients_at(1.), gradients_at(1024.));
        assert_eq!(plain.0, scaled.0, "losses are told without it");
        assert!(plain.1.equal(&scaled.1));
    }

    #[test]
    fn weights_whose_order_in_memory_a_convolution_would_change_are_few() {
        let _alone = crate::nn::alone(); // making a network draws its first weights
        // What `optim::flat` says of channels-last maps.
        let store = VarStore::new(Device::Cpu);
        let config = Config::recipe("default", &[]).unwrap();
        let network = FasterRcnn::new(&store.root(), &config, 2);
        let reordered = |weight: &Tensor| {
            let size = weight.size();
            // Both orders are the same where either the channels or the pixels of a kernel are one.
            size.len() == 4 && size[1] > 1 && size[2] * size[3] > 1
        };
        let variables = crate::weights::named_variables(&store);
        let found: Vec<&str> =
            variables.iter().filter(|(_, w)| reordered(w)).map(|(n, _)| n.as_str()).collect();
        assert_eq!(found, ["backbone.conv0.conv.weight", "rpn.head.conv.0.0.weight"]);
        // Maps stay channels-last through the whole trunk.
        let pixels = Tensor::zeros([1, 3, 64, 96], (Kind::Float, Device::Cpu));
        let map = tch::no_grad(|| network.backbone().trunk(&pixels, Mode::Eval));
        assert_eq!(map.stride()[1], 1);
    }
}
