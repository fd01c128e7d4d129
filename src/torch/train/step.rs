//! The gradients of a step, of one batch or of several that count as one.

use std::sync::Once;

use detect::config::LossWeights;
use detect::data::loader::Batch;
use detect::geometry::Size;
use tch::{Device, Kind, Tensor};

use super::optim::Optimizer;
use crate::backbone::Backbone;
use crate::detector::assign::Draws;
use crate::detector::boxes;
use crate::detector::{Counts, FasterRcnn, Images, Losses, Truth};
use crate::nn::{Mode, channels_last, synchronised};
use crate::precision::Precision;
use crate::predict;
use crate::profile::{self, Part};
use crate::ranks::{Group, Ranks};

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
    pub(super) ranks: Group,
    /// Whether batch norm takes the batches of all processes as one.
    pub(super) synchronised: bool,
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
    let (rounds, size) = rounds(batches, settings);
    let mut whole: Option<Counts> = None;
    loop {
        optimizer.zero_grad();
        let mut parts: Vec<(Tensor, Counts)> = Vec::with_capacity(batches.len());
        let mut sum = Counts::ZERO;
        let mut first = share.rank * settings.batch;
        let backward = |total: Tensor| {
            network.backward(&if settings.scale == 1. { total } else { total * settings.scale });
            profile::lap(Part::Backward);
        };
        for batch in batches {
            let own = batch.samples.len();
            let seeds: Vec<i64> = (first..first + own).map(settings.seed).collect();
            first += own + (share.count - 1) * settings.batch;
            // For drop path; samples are drawn from seeds of their own.
            tch::manual_seed(seeds.first().copied().unwrap_or_default());
            synchronised::within(ranks, true, || {
                let (losses, counts) = losses(network, batch, &seeds, settings);
                let whole = *whole.get_or_insert_with(|| guess(counts, [own, images], &*ranks));
                backward(losses.total(&counts.share(whole, settings.loss_weights)));
                parts.push((losses.stacked(), counts));
                sum += counts;
            });
        }
        for _ in batches.len()..rounds {
            synchronised::within(ranks, false, || {
                let losses = losses_of_nothing(network, size, settings);
                whole.get_or_insert_with(|| guess(Counts::ZERO, [0, images], &*ranks));
                backward(losses.total(&LossWeights::ONES) * 0.);
            });
        }
        // The others wait for this process's part of the first guess, even if it has no batch.
        whole.get_or_insert_with(|| guess(Counts::ZERO, [0, images], &*ranks));
        let mut counts = [sum.anchors, sum.regions];
        ranks.sum_f64(&mut counts);
        let sum = Counts { anchors: counts[0], regions: counts[1] };
        match &before {
            Some(before) if whole != Some(sum) => {
                static TOLD: Once = Once::new();
                TOLD.call_once(|| {
                    tracing::info!(
                        "images offer other numbers of regions than roi.sampled and rpn.sampled: such steps are computed twice"
                    );
                });
                tch::no_grad(|| optimizer.fixed().copy_(before));
                whole = Some(sum);
            }
            _ => {
                let values = agreed(values(&parts, sum), batches, &*ranks)?;
                if let Some(before) = before.filter(|_| share.count > 1) {
                    ranks.sum_tensor(optimizer.gradients());
                    average_statistics(&mut optimizer.fixed(), &before, &*ranks);
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
    settings.precision.within(settings.device, || {
        let truths: Vec<Truth> = batch.samples.iter().map(Truth::of).collect();
        let images = predict::images(batch, settings.device);
        network.counted_losses(&images, &truths, settings.mode, Draws::Seeds(seeds))
    })
}

/// How many batches this process goes through in the step, and a size of input. Where batch norm is synchronised,
/// all go through as many as process 0, which has most: each norm waits for all.
fn rounds(batches: &[Batch], settings: &Settings<'_>) -> (usize, Size) {
    let size = batches.first().map_or(Size::new(1, 1), |batch| batch.padded);
    if !settings.synchronised || settings.ranks.share().count == 1 {
        return (batches.len(), size);
    }
    let lead = |number: usize| settings.ranks.lead_number(number as f64) as usize;
    let rounds = lead(batches.len());
    (rounds, Size::new(lead(size.height), lead(size.width)))
}

/// The losses of an image that is not there, by which a process without a batch takes part in the others' norms.
fn losses_of_nothing<B: Backbone>(
    network: &FasterRcnn<B>,
    size: Size,
    settings: &Settings<'_>,
) -> Losses {
    settings.precision.within(settings.device, || {
        let shape = [1, 3, size.height as i64, size.width as i64];
        let pixels = Tensor::zeros(shape, (Kind::Float, settings.device));
        let images = Images { pixels: channels_last(&pixels), sizes: vec![size] };
        network.counted_losses(&images, &[Truth::default()], settings.mode, Draws::Seeds(&[0])).0
    })
}

#[cfg(test)]
mod tests;
