//! From files to batches: order, prefetching threads that own no tensors, padding.
//!
//! A batch is made by one thread; see `turns.rs` for how threads share the work.

mod error;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use self::error::LoadError;
use super::augment::{Changes, Purpose, stream};
use super::coco::{Dataset, ImageRecord};
use super::image::{Rgb, decode, fill};
use super::sampling::{Epochs, Share, Visit};
pub use super::shelf::Pixels;
use super::shelf::Shelf;
use super::turns::{Desk, PATIENCE, Turns};
use crate::config;
use crate::failure::panic_text;
use crate::geometry::{Box2, Label, Size};

/// Says which image a thread is slow at.
fn remark_slow(dataset: &Dataset, item: usize) {
    let file = dataset.images[item].file.display();
    tracing::warn!("waiting for {file}, which has taken {} s to read", PATIENCE.remark.as_secs());
}

/// One image of a batch and its truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Place in `Dataset::images`; in the list of images for [`prepare`].
    pub index: usize,
    /// The image's number in files; the place again for [`prepare`].
    pub image_id: i64,
    /// Of the image as decoded and turned upright.
    pub original: Size,
    /// Of the image inside the batch.
    pub resized: Size,
    /// In pixels of the resized image; no crowds, at least 1 pixel of the original on each side after
    /// clipping. Empty outside training.
    pub boxes: Vec<Box2>,
    /// One a box.
    pub labels: Vec<Label>,
}

/// Images ready for the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// One an image.
    pub samples: Vec<Sample>,
    /// Size of every image with its padding, as [`config::Input::padded`] says.
    pub padded: Size,
    /// Normalised red, green, blue, `[N, H, W, 3]` of the padded size: each image at the top left, with
    /// [`config::Input::padding`] around it.
    pub pixels: Pixels,
}

/// Prepares images for evaluation, without augmentation; `detect IMAGE` and `eval` alike.
///
/// # Panics
/// Where memory does not suffice, in the words by which the program knows it again; see [`out_of_memory`].
///
/// [`out_of_memory`]: crate::failure::out_of_memory
pub fn prepare(images: &[&Rgb], input: &config::Input) -> Batch {
    let samples = images.iter().enumerate();
    let samples = samples.map(|(place, image)| without_truth(place, place as i64, image, input));
    assemble(images, samples.collect(), input, &Shelf::new(0))
        .unwrap_or_else(|e| panic!("std::bad_alloc: {e}"))
}

/// A sample for evaluation.
fn without_truth(index: usize, image_id: i64, image: &Rgb, input: &config::Input) -> Sample {
    Sample {
        index,
        image_id,
        original: image.size,
        resized: input.resized(image.size),
        boxes: Vec::new(),
        labels: Vec::new(),
    }
}

/// Resizes each image into its place, in a buffer of `shelf`.
fn assemble(
    images: &[&Rgb],
    samples: Vec<Sample>,
    input: &config::Input,
    shelf: &Arc<Shelf>,
) -> Result<Batch, LoadError> {
    let padded = input.padded(samples.iter().map(|s| s.resized));
    let row = padded.width * 3;
    let around = input.padding();
    let length = samples.len() * padded.height * row;
    let Some((mut pixels, zero)) = shelf.take(length) else {
        return Err(LoadError::Memory { images: samples.len(), bytes: 4 * length });
    };
    if length > 0 {
        let places = pixels.chunks_exact_mut(padded.height * row);
        for ((image, sample), place) in images.iter().zip(&samples).zip(places) {
            fill(image, input, sample.resized, place, row);
            if !zero || around != [0.; 3] {
                pad(place, row, sample.resized, around);
            }
        }
    }
    Ok(Batch { samples, padded, pixels })
}

/// Writes `around` beside and below an image of `size` in `place`, whose rows are `row` floats long.
fn pad(place: &mut [f32], row: usize, size: Size, around: [f32; 3]) {
    let (image, below) = place.split_at_mut(size.height * row);
    for beside in image.chunks_exact_mut(row).map(|row| &mut row[3 * size.width..]).chain([below]) {
        beside.as_chunks_mut::<3>().0.fill(around);
    }
}

/// Decodes an image and checks that it is the one that was annotated. A damaged file is remarked on
/// where `remark` says so.
fn read(record: &ImageRecord, remark: bool) -> Result<Rgb, LoadError> {
    let file = || record.file.clone();
    let found = decode(&record.file)?;
    if let Some(warning) = found.warning.filter(|_| remark) {
        tracing::warn!("{}: {warning}", record.file.display());
    }
    let (decoded, stored) = (found.image.size, found.stored);
    match record.size {
        Some(declared) if declared != decoded => Err(if declared == stored {
            LoadError::Orientation { file: file(), stored, decoded }
        } else {
            LoadError::Size { file: file(), decoded, declared }
        }),
        _ => Ok(found.image),
    }
}

/// What `work` gives; a panic in it becomes an error that names the images it was about.
fn guarded<T>(
    records: &[&ImageRecord],
    work: impl FnOnce() -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let files: Vec<String> = records.iter().map(|r| r.file.display().to_string()).collect();
        let message = panic_text(&*panic).to_owned();
        Err(LoadError::Panicked { files: files.join(", "), message })
    })
}

/// The boxes that can be learned: no crowds, at least 1 pixel on each side after clipping.
fn learnable(record: &ImageRecord, size: Size) -> impl Iterator<Item = (Box2, Label)> + '_ {
    record
        .annotations
        .iter()
        .filter(|a| !a.crowd)
        .map(move |a| (a.bbox.clipped(size), a.label))
        .filter(|(b, _)| b.width() >= 1. && b.height() >= 1.)
}

/// Whether the image shows what can be learned, as far as its size is known.
pub fn shows_objects(record: &ImageRecord) -> bool {
    let size = record.size.unwrap_or(Size::new(1 << 30, 1 << 30));
    learnable(record, size).next().is_some()
}

/// A training sample: the picture with its changes, and its truth at the size of the network's input.
fn training_sample(
    dataset: &Dataset,
    index: usize,
    changes: Changes,
    input: &config::Input,
    remark: bool,
) -> Result<(Rgb, Sample), LoadError> {
    let record = &dataset.images[index];
    let mut image = read(record, remark)?;
    changes.apply(&mut image);
    let original = image.size;
    let resized = match changes.short_side {
        Some(side) => input.resized_to(original, side),
        None => input.resized_by(original, changes.scale),
    };
    let (h, w) = (original.height as f32, original.width as f32);
    let (sy, sx) = (resized.height as f32 / h, resized.width as f32 / w);
    let (boxes, labels) = learnable(record, original)
        .map(|(b, label)| (changes.apply_to_box(b, w, h).scaled(sy, sx), label))
        .unzip();
    Ok((image, Sample { index, image_id: record.id, original, resized, boxes, labels }))
}

/// Makes training batches ahead of time, in the order of steps.
///
/// An epoch's visits come in an order drawn from (seed, epoch); a batch takes the next `batch` of them, and the
/// last one of an epoch what is left. A batch depends on the seed and its number alone: starting at
/// `first_step` gives what a run from 0 would give there. A step has `train.accumulate` batches, the last one
/// of an epoch fewer.
#[derive(Debug)]
pub struct TrainLoader {
    turns: Turns<Result<Batch, LoadError>>,
    dataset: Arc<Dataset>,
}

impl TrainLoader {
    /// Starts the threads, for the steps `first_step..total_steps`. An epoch visits every image once.
    pub fn start(
        dataset: Arc<Dataset>,
        train: &config::Train,
        input: &config::Input,
        first_step: usize,
        total_steps: usize,
    ) -> Self {
        let epochs = Epochs::uniform(dataset.images.len(), train.seed);
        Self::by(epochs, dataset, train, input, first_step..total_steps)
    }

    /// The same with `epochs` of one's own, for `steps`.
    pub fn by(
        epochs: Epochs,
        dataset: Arc<Dataset>,
        train: &config::Train,
        input: &config::Input,
        steps: Range<usize>,
    ) -> Self {
        Self::shared(epochs, dataset, train, input, steps, Share::WHOLE)
    }

    /// The same for one of several processes, each of which takes its `share` of the batches of every step.
    pub fn shared(
        epochs: Epochs,
        dataset: Arc<Dataset>,
        train: &config::Train,
        input: &config::Input,
        steps: Range<usize>,
        share: Share,
    ) -> Self {
        let batch = train.batch.max(1);
        let accumulate = train.accumulate.max(1);
        let batches_per_epoch = epochs.len().div_ceil(batch).max(1);
        let steps_per_epoch = train.steps_per_epoch(epochs.len());
        // Of an epoch's batches, those that are made here.
        let own: Vec<usize> =
            (0..batches_per_epoch).filter(|b| share.takes(b % accumulate)).collect();
        let before = |step: usize| {
            let begun = step % steps_per_epoch * accumulate;
            step / steps_per_epoch * own.len() + own.partition_point(|&b| b < begun)
        };
        let (first, end) = (before(steps.start), before(steps.end));
        let (seed, augment, input) = (train.seed, train.augment.clone(), input.clone());
        let (threads, prefetch) = (train.loader.threads, train.loader.prefetch);
        let shelf = Shelf::new(threads);
        // A thread keeps the order of the epoch that it is in.
        let mut epoch_order = (usize::MAX, Vec::new());
        let known = Arc::clone(&dataset);
        let make = move |unit: usize, desk: &Desk| {
            let number = first + unit;
            let epoch = number / own.len();
            if epoch_order.0 != epoch {
                epoch_order = (epoch, epochs.order(epoch));
            }
            let from = own[number % own.len()] * batch;
            let visits = &epoch_order.1[from..epochs.len().min(from + batch)];
            // Once a file, not once an epoch.
            let remark = epoch == first / own.len();
            let mut pictures = Vec::with_capacity(visits.len());
            let mut samples = Vec::with_capacity(visits.len());
            for &Visit { index, copy } in visits {
                if desk.stopped() {
                    return Err(LoadError::ThreadEnded { file: None }); // nobody is left to receive it
                }
                desk.begin(index);
                // No data set has 2^32 images.
                let place = index as u64 | (copy as u64) << 32;
                let mut rng = stream(seed, epoch as u64, place, Purpose::Augment);
                let changes = Changes::draw(&augment, &mut rng);
                let (picture, sample) = guarded(&[&dataset.images[index]], || {
                    training_sample(&dataset, index, changes, &input, remark)
                })?;
                pictures.push(picture);
                samples.push(sample);
            }
            let records: Vec<_> = visits.iter().map(|v| &dataset.images[v.index]).collect();
            let pictures: Vec<_> = pictures.iter().collect();
            guarded(&records, || assemble(&pictures, samples, &input, &shelf))
        };
        let units = end.saturating_sub(first);
        Self { turns: Turns::start(units, threads, prefetch, PATIENCE, make), dataset: known }
    }
}

impl Iterator for TrainLoader {
    type Item = Result<Batch, LoadError>;

    /// The next batch; after an error, the one after it.
    fn next(&mut self) -> Option<Self::Item> {
        let unit = self.turns.next(|item| remark_slow(&self.dataset, item))?;
        Some(unit.unwrap_or_else(|lost| Err(LoadError::lost(&self.dataset, lost))))
    }
}

/// Every image of a data set once, in order, in batches without truth, which end early where [`config::Input::together`]
/// says so.
///
/// An image that can't be used comes as an error that names it, just before the batch that it is missing
/// from.
#[derive(Debug)]
pub struct EvalLoader {
    turns: Turns<Vec<Result<Batch, LoadError>>>,
    dataset: Arc<Dataset>,
    ready: std::vec::IntoIter<Result<Batch, LoadError>>,
}

impl EvalLoader {
    /// Starts the threads.
    pub fn start(
        dataset: Arc<Dataset>,
        input: &config::Input,
        batch: usize,
        loader: &config::Loader,
    ) -> Self {
        Self::shared(dataset, input, batch, loader, Share::WHOLE)
    }

    /// The same for one of several processes, each of which takes its `share` of the batches: no batch, and so no
    /// padding, hangs on how many processes there are.
    pub fn shared(
        dataset: Arc<Dataset>,
        input: &config::Input,
        batch: usize,
        loader: &config::Loader,
        share: Share,
    ) -> Self {
        let batch = batch.max(1);
        let input = input.clone();
        let units = share.of(dataset.images.len().div_ceil(batch));
        let known = Arc::clone(&dataset);
        let shelf = Shelf::new(loader.threads);
        let make = move |unit: usize, desk: &Desk| {
            let from = (unit * share.count + share.rank) * batch;
            let records = &dataset.images[from..dataset.images.len().min(from + batch)];
            let mut out = Vec::new();
            let mut pictures: Vec<(Rgb, usize)> = Vec::new();
            for (i, record) in records.iter().enumerate() {
                if desk.stopped() {
                    return out;
                }
                desk.begin(from + i);
                match guarded(&[record], || read(record, true)) {
                    Ok(picture) => pictures.push((picture, from + i)),
                    Err(error) => out.push(Err(error)),
                }
            }
            for group in pictures.chunk_by(|(a, _), (b, _)| input.together(a.size, b.size)) {
                let records: Vec<_> = group.iter().map(|(_, i)| &dataset.images[*i]).collect();
                out.push(guarded(&records, || {
                    let pictures: Vec<_> = group.iter().map(|(picture, _)| picture).collect();
                    let samples = group.iter().map(|(picture, index)| {
                        without_truth(*index, dataset.images[*index].id, picture, &input)
                    });
                    assemble(&pictures, samples.collect(), &input, &shelf)
                }));
            }
            out
        };
        Self {
            turns: Turns::start(units, loader.threads, loader.prefetch, PATIENCE, make),
            dataset: known,
            ready: Vec::new().into_iter(),
        }
    }
}

impl Iterator for EvalLoader {
    type Item = Result<Batch, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.next() {
                return Some(item);
            }
            let unit = self.turns.next(|item| remark_slow(&self.dataset, item))?;
            let unit = unit.unwrap_or_else(|lost| vec![Err(LoadError::lost(&self.dataset, lost))]);
            self.ready = unit.into_iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_names_the_image() {
        let record = ImageRecord {
            id: 7,
            file: "images/seven.jpg".into(),
            file_name: "seven.jpg".into(),
            size: None,
            annotations: Vec::new(),
        };
        let result = guarded::<()>(&[&record], || panic!("row {} is missing", 3));
        let message = result.expect_err("it panicked").to_string();
        assert!(message.contains("images/seven.jpg") && message.contains("row 3 is missing"));
    }
}
