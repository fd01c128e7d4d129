//! The gradients of a step, of one batch or of several that count as one.

use detect::config::LossWeights;
use detect::data::loader::Batch;
use detect::geometry::Size;
use tch::{Device, Kind, Tensor};

use super::optim::Optimizer;
use crate::backbone::Backbone;
use crate::detector::ahead::{Held, Pace};
use crate::detector::assign::Draws;
use crate::detector::boxes;
use crate::detector::{Counts, FasterRcnn, Images, Losses, Pass, Truth};
use crate::nn::{Mode, channels_last, synchronised};
use crate::precision::Precision;
use crate::predict;
use crate::profile;
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
    /// Of passes about which there are no doubts; alike in all processes.
    pub(super) pace: Pace,
}

/// What a batch leaves until the end of its step.
struct Part {
    /// Its losses, and whether they are right: `[6]`.
    row: Tensor,
    counts: Counts,
}

impl Part {
    fn of(pass: &Pass) -> Self {
        let losses = pass.losses.stacked();
        let held = match &pass.held {
            Held::Known(_) => losses.new_ones([1], (losses.kind(), losses.device())),
            Held::Told(held) => held.to_kind(losses.kind()).reshape([1]),
        };
        Self { row: Tensor::cat(&[losses, held], 0), counts: pass.counts }
    }
}

/// Passes of a step after which its numbers of samples are taken as they are. Where passes are alike, three suffice.
const ATTEMPTS: usize = 6;

/// Losses of a batch that are not finite.
#[derive(Debug)]
pub(super) struct NotFinite {
    pub(super) losses: [f64; 5],
    /// Of the batch.
    pub(super) image_ids: Vec<i64>,
}

/// Losses that are not finite, of a batch of this process.
struct Fault {
    losses: [f64; 5],
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
        let image_ids = words.iter().skip(5).map(|word| i64::from_le_bytes(*word));
        Self { losses: [0, 1, 2, 3, 4].map(loss), image_ids: image_ids.collect() }
    }
}

/// What a step may take for granted, since lately it was so.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    /// That a step's samples can be concluded from its first batches. Else they are counted beforehand: by a forward
    /// pass up to the regions, which is less than to make the step twice.
    counts: Doubts,
    /// That a pass can go ahead of its device. Else it waits.
    ahead: Doubts,
}

/// Steps in which something is not taken for granted.
#[derive(Debug)]
struct Doubts {
    /// That are still to come.
    left: u32,
    /// After the next time that it is taken for granted, and wrong.
    next: u32,
}

impl Default for Doubts {
    fn default() -> Self {
        Self { left: 0, next: Self::FIRST }
    }
}

impl Doubts {
    /// Steps after a wrong one: a count takes a fifth of a step, and waiting less, so that even where one step in a hundred
    /// surprises, they cost little.
    const FIRST: u32 = 8;
    /// At most so many, after several in a row.
    const MOST: u32 = 1024;

    fn any(&self) -> bool {
        self.left > 0
    }

    /// What was, or as far as is known would have been, taken for granted in a step was `right`.
    fn learn(&mut self, right: bool) {
        match (self.any(), right) {
            (false, true) => self.next = Self::FIRST,
            (false, false) => {
                self.left = self.next;
                self.next = (2 * self.next).min(Self::MOST);
            }
            (true, true) => self.left -= 1,
            (true, false) => self.left = self.left.max(Self::FIRST),
        }
    }
}

/// A pass of this process through the network: of a batch, or of nothing, where others still have one.
struct Turn<'a> {
    batch: Option<&'a Batch>,
    /// Of its images.
    seeds: Vec<i64>,
    /// Of what stands for nothing.
    size: Size,
}

impl<'a> Turn<'a> {
    /// Those of a step. Where batch norm is synchronised, all processes take as many as process 0, which has most: each
    /// norm waits for all.
    fn all(batches: &'a [Batch], settings: &Settings<'_>) -> Vec<Self> {
        let share = settings.ranks.share();
        let mut size = batches.first().map_or(Size::new(1, 1), |batch| batch.padded);
        let mut rounds = batches.len();
        if settings.synchronised && share.count > 1 {
            let lead = |number: usize| settings.ranks.lead_number(number as f64) as usize;
            rounds = lead(rounds);
            size = Size::new(lead(size.height), lead(size.width));
        }
        let mut first = share.rank * settings.batch;
        let mut own = batches.iter().map(|batch| {
            let seeds = (first..first + batch.samples.len()).map(settings.seed).collect();
            first += batch.samples.len() + (share.count - 1) * settings.batch;
            Self { batch: Some(batch), seeds, size }
        });
        let nothing = || Self { batch: None, seeds: vec![0], size };
        (0..rounds).map(|_| own.next().unwrap_or_else(nothing)).collect()
    }

    fn images(&self) -> usize {
        self.batch.map_or(0, |batch| batch.samples.len())
    }

    /// Calls `pass` with the turn's images.
    fn pass<T>(
        &self,
        settings: &Settings<'_>,
        pass: impl FnOnce(&Images, &[Truth], Draws<'_>) -> T,
    ) -> T {
        // For drop path; samples are drawn from seeds of their own.
        tch::manual_seed(self.seeds.first().copied().unwrap_or_default());
        settings.precision.within(settings.device, || {
            let (images, truths) = if let Some(batch) = self.batch {
                let truths = batch.samples.iter().map(Truth::of).collect();
                (predict::images(batch, settings.device), truths)
            } else {
                let shape = [1, 3, self.size.height as i64, self.size.width as i64];
                let pixels = Tensor::zeros(shape, (Kind::Float, settings.device));
                let images = Images { pixels: channels_last(&pixels), sizes: vec![self.size] };
                (images, vec![Truth::default()])
            };
            pass(&images, &truths, Draws::Seeds(&self.seeds))
        })
    }
}

/// Leaves the gradients of the losses of `batches`, taken as one batch, in `optimizer`, and gives the losses. With
/// several processes, `batches` are those of this one, and gradients and losses those of all.
///
/// A batch's losses are means over its sampled anchors and regions, or over its images. How many the batches have
/// together is known for certain only after the last one. It is concluded from the first, and where that was wrong,
/// which it is where an image offers fewer than the recipe samples, the step is made again; after such a step,
/// they are counted before it. A pass that goes ahead takes for granted, too, that its images offer enough, and the step
/// is made again where they did not. All ways give the same bits.
pub(super) fn gradients<B: Backbone>(
    network: &FasterRcnn<B>,
    optimizer: &mut Optimizer,
    forecast: &mut Forecast,
    batches: &[Batch],
    settings: &Settings<'_>,
) -> Result<[f64; 5], NotFinite> {
    let ranks = settings.ranks;
    let several = batches.len() > 1 || ranks.share().count > 1;
    let images: usize = batches.iter().map(|batch| batch.samples.len()).sum();
    let turns = Turn::all(batches, settings);
    let mut pace = if forecast.ahead.any() { Pace::Waits } else { settings.pace };
    // What another attempt must find as it was: running statistics.
    let before = (several || pace == Pace::Ahead).then(|| optimizer.fixed().copy());
    let restore = |optimizer: &Optimizer, before: &Tensor| {
        tch::no_grad(|| optimizer.fixed().copy_(before));
    };
    let mut whole: Option<Counts> = None;
    if let Some(before) = before.as_ref().filter(|_| several && forecast.counts.any()) {
        let [concluded, counted] = counted(network, &turns, images, settings);
        restore(optimizer, before);
        forecast.counts.learn(concluded == counted);
        whole = Some(counted);
    }
    // Whether the counts are still to be found as they were concluded.
    let mut relies = several && whole.is_none();
    let mut first = true;
    let mut attempts = 0;
    loop {
        attempts += 1;
        optimizer.zero_grad();
        let mut parts: Vec<Part> = Vec::with_capacity(batches.len());
        let mut sum = Counts::ZERO;
        let mut known = true;
        for turn in &turns {
            synchronised::within(ranks, turn.batch.is_some(), || {
                let pass = turn.pass(settings, |images, truths, draws| {
                    network.counted_losses(images, truths, settings.mode, draws, pace)
                });
                // Nothing has no part in the losses.
                let counts = turn.batch.map_or(Counts::ZERO, |_| pass.counts);
                let whole = *whole
                    .get_or_insert_with(|| conclude(counts, [turn.images(), images], &*ranks));
                let total = pass.losses.total(&counts.share(whole, settings.loss_weights));
                network.backward(&if settings.scale == 1. {
                    total
                } else {
                    total * settings.scale
                });
                profile::lap(profile::Part::Backward);
                if turn.batch.is_some() {
                    known &= !matches!(pass.held, Held::Known(false));
                    parts.push(Part::of(&pass));
                }
                sum += counts;
            });
        }
        // The others wait for this process's part of the first conclusion, even if it has no batch.
        whole.get_or_insert_with(|| conclude(Counts::ZERO, [0, images], &*ranks));
        let read = read(&parts);
        let right = read.iter().all(|row| row[5] == 1.);
        if pace == Pace::Ahead || (settings.pace == Pace::Ahead && first) {
            // Alike in all processes, whose paces are: see `Trainer::build`.
            let mut wrong = [right, right && known].map(|fine| f64::from(u8::from(!fine)));
            ranks.sum_f64(&mut wrong);
            if first {
                forecast.ahead.learn(wrong[1] == 0.);
            }
            first = false;
            if let Some(before) = before.as_ref().filter(|_| wrong[0] > 0.) {
                tracing::debug!("a step could not go ahead of its device, and is made again");
                restore(optimizer, before);
                pace = Pace::Waits;
                // Concluded from samples that were wrong; counts are of passes that wait.
                if relies {
                    let [concluded, counted] = counted(network, &turns, images, settings);
                    restore(optimizer, before);
                    forecast.counts.learn(concluded == counted);
                    (whole, relies) = (Some(counted), false);
                } else if !several {
                    whole = None;
                }
                continue;
            }
        }
        let sum = of_all(sum, &*ranks);
        let differs = several && whole != Some(sum);
        // On a device whose passes are not alike to the bit, numbers may differ by a few from each to the next.
        if differs && attempts == ATTEMPTS {
            tracing::warn!(
                "the numbers of samples of a step were others in each of {ATTEMPTS} passes"
            );
        }
        if let Some(before) = before.as_ref().filter(|_| differs && attempts < ATTEMPTS) {
            restore(optimizer, before);
            forecast.counts.learn(false);
            (whole, relies) = (Some(sum), false);
            continue;
        }
        if relies {
            forecast.counts.learn(true);
        }
        let values = agreed(values(&read, &parts, sum), batches, &*ranks)?;
        if let Some(before) = before.filter(|_| ranks.share().count > 1) {
            ranks.sum_tensor(optimizer.gradients());
            average_statistics(&mut optimizer.fixed(), &before, &*ranks);
        }
        profile::lap(profile::Part::Backward);
        return Ok(values);
    }
}

/// The counts of a step: what would be concluded from the first batches, and what they are.
fn counted<B: Backbone>(
    network: &FasterRcnn<B>,
    turns: &[Turn<'_>],
    images: usize,
    settings: &Settings<'_>,
) -> [Counts; 2] {
    let mut first = (Counts::ZERO, 0);
    let mut sum = Counts::ZERO;
    for (i, turn) in turns.iter().enumerate() {
        let found = synchronised::within(settings.ranks, turn.batch.is_some(), || {
            turn.pass(settings, |images, truths, draws| {
                network.counts(images, truths, settings.mode, draws)
            })
        });
        let counts = turn.batch.map_or(Counts::ZERO, |_| found);
        sum += counts;
        if i == 0 {
            first = (counts, turn.images());
        }
    }
    let ranks = settings.ranks;
    [conclude(first.0, [first.1, images], &*ranks), of_all(sum, &*ranks)]
}

/// The rows of `parts`: read at once, and after all of the backward pass, since whoever reads waits for the device.
fn read(parts: &[Part]) -> Vec<[f32; 6]> {
    if parts.is_empty() {
        return Vec::new();
    }
    let rows: Vec<&Tensor> = parts.iter().map(|part| &part.row).collect();
    boxes::to_vec(&Tensor::stack(&rows, 0)).as_chunks().0.to_vec()
}

/// The part of the losses of a step that its batches `parts` have, or the first batch whose losses are not finite.
fn values(read: &[[f32; 6]], parts: &[Part], whole: Counts) -> Result<[f64; 5], Fault> {
    const ONES: LossWeights = LossWeights { auxiliary: 1., ..LossWeights::ONES };
    let mut values = [0.; 5];
    for (batch, (row, part)) in read.iter().zip(parts).enumerate() {
        let losses = [0, 1, 2, 3, 4].map(|i| f64::from(row[i]));
        if !losses.iter().all(|v| v.is_finite()) {
            return Err(Fault { losses, batch });
        }
        let shares = Losses::weighted(losses, &part.counts.share(whole, &ONES));
        values.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
    }
    Ok(values)
}

/// What the processes found, as one: the losses of the step, or what is wrong in the first that has a fault.
fn agreed(
    found: Result<[f64; 5], Fault>,
    batches: &[Batch],
    ranks: &dyn Ranks,
) -> Result<[f64; 5], NotFinite> {
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

/// What all processes have together.
fn of_all(counts: Counts, ranks: &dyn Ranks) -> Counts {
    let mut sums = [counts.anchors, counts.regions, counts.images];
    ranks.sum_f64(&mut sums);
    Counts { anchors: sums[0], regions: sums[1], images: sums[2] }
}

/// The counts of the step, concluded from those of each process's first batch: of `own` of its `images`.
fn conclude(counts: Counts, [own, images]: [usize; 2], ranks: &dyn Ranks) -> Counts {
    let mut sums = [counts.anchors, counts.regions, own as f64, images as f64];
    ranks.sum_f64(&mut sums);
    let [anchors, regions, own, images] = sums;
    // Multiplied first: whole numbers stay exact.
    let of_all = |count: f64| count * images / own.max(1.);
    Counts { anchors: of_all(anchors), regions: of_all(regions), images }
}

/// Leaves in `fixed` what the processes have on average, of those in which any of it moved away from `before`: running
/// statistics of live batch norm. What moved nowhere, such as frozen weights, stays to the bit. (A process of which some
/// norms saw a batch and others did not, as where no region was offered, counts for all.)
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

#[cfg(test)]
mod tests;
