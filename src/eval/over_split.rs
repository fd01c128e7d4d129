//! A detector over a split, whatever computes it: every image through it, then COCO's metric.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{EvalError, Evaluation, GroundTruth, ResultEntry, Results, evaluate};
use crate::config::{Input, Loader};
use crate::data::loader::{Batch, EvalLoader, LoadError};
use crate::data::plain_json;
use crate::data::sampling::Share;
use crate::data::{Category, Dataset};
use crate::failure::{Exit, OrExit as _, out_of_memory};
use crate::geometry::Detection;

/// How images are read and batched.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// From image to network input.
    pub input: &'a Input,
    /// Images that go through the network together.
    pub batch: usize,
    /// Threads that decode.
    pub loader: &'a Loader,
    /// Which of the batches: all, but where several processes share them.
    pub share: Share,
}

/// Detections of all images as a COCO results list, and the images that could not be read.
#[derive(Debug, Default)]
pub struct Run {
    /// One entry a detection, image by image.
    pub results: Vec<ResultEntry>,
    /// Why an image has none.
    pub failed: Vec<LoadError>,
    /// Whether `progress` asked to leave before the end.
    pub left: bool,
}

/// Sends every image of `dataset`, or of the share of it that `reading` names, through `detect`, which gives
/// detections in original pixels and whose class `k` is `categories[k]`. `progress` is called with the number
/// of images done and says whether to go on. A batch for which memory does not suffice is tried again image by
/// image.
///
/// # Errors
/// Where the threads that read images are lost or their memory ends, so that images would be missing.
pub fn run(
    detect: impl Fn(&Batch) -> Vec<Vec<Detection>>,
    categories: &[Category],
    dataset: &Arc<Dataset>,
    reading: Reading<'_>,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Run, LoadError> {
    let mut out = Run::default();
    let Reading { input, batch, loader, share } = reading;
    let loader = EvalLoader::shared(dataset.clone(), input, batch, loader, share);
    for batch in loader {
        let done = match batch {
            Ok(batch) => {
                let ids: Vec<i64> = batch.samples.iter().map(|sample| sample.image_id).collect();
                let found = sparing(batch, &detect);
                for (&image_id, detections) in ids.iter().zip(&found) {
                    let entry = |d: &Detection| to_entry(d, image_id, categories);
                    out.results.extend(detections.iter().map(entry));
                }
                ids.len()
            }
            Err(error) if error.ends_the_loader() => return Err(error),
            Err(error) => {
                out.failed.push(error);
                1
            }
        };
        if progress(done).is_break() {
            out.left = true;
            break;
        }
    }
    Ok(out)
}

/// What `detect` finds in a batch; where memory runs out ([`out_of_memory`]), in one image of it after the
/// other.
pub fn sparing<T>(batch: Batch, detect: impl Fn(&Batch) -> Vec<T>) -> Vec<T> {
    // Nothing that `detect` touches outlives its panic but the weights, which it only reads.
    let payload = match catch_unwind(AssertUnwindSafe(|| detect(&batch))) {
        Ok(found) => return found,
        Err(payload) => payload,
    };
    let Some(reason) = out_of_memory(&*payload).filter(|_| batch.samples.len() > 1) else {
        resume_unwind(payload)
    };
    tracing::warn!("{reason}; trying again with one image at a time");
    drop(payload);
    let pixels = batch.pixels.len() / batch.samples.len();
    let singles = batch.samples.into_iter().zip(batch.pixels.chunks_exact(pixels));
    singles
        .flat_map(|(sample, pixels)| {
            let (padded, pixels) = (batch.padded, pixels.to_vec().into());
            detect(&Batch { samples: vec![sample], padded, pixels })
        })
        .collect()
}

/// A detection as COCO writes it.
fn to_entry(detection: &Detection, image_id: i64, categories: &[Category]) -> ResultEntry {
    ResultEntry {
        image_id,
        category_id: categories[detection.label.0].id,
        bbox: detection.bbox.to_xywh().map(f64::from),
        score: f64::from(detection.score),
    }
}

/// Scores `results` against the annotations of `dataset`, and tells what pycocotools passes over in silence.
///
/// # Errors
/// The annotations can't be read, or say what is no truth.
pub fn score(dataset: &Dataset, results: Vec<ResultEntry>) -> anyhow::Result<Evaluation> {
    let results = Results::from(results);
    let evaluation = with_truth(dataset, |truth| evaluate(&truth, &results)).or_exit(Exit::Data)?;
    for warning in &evaluation.warnings {
        tracing::warn!("{warning}");
    }
    Ok(evaluation)
}

/// What `judge` makes of the truth of `dataset`'s images, as pycocotools reads it. Where it refuses that, since annotations
/// lack what [`Dataset::open`] does not ask for, they are taken as training takes them.
///
/// # Errors
/// Those of pycocotools' reading, where the other fails, too.
pub fn with_truth<T>(
    dataset: &Dataset,
    judge: impl Fn(GroundTruth) -> Result<T, EvalError>,
) -> Result<T, EvalError> {
    let ids: Vec<i64> = dataset.images.iter().map(|image| image.id).collect();
    let judge = |truth: GroundTruth| judge(truth.restricted_to(&ids));
    let files = &dataset.annotation_files;
    GroundTruth::from_files(files).and_then(judge).or_else(|error| {
        let truths = files.iter().map(|file| completed(file)).collect::<Option<Vec<_>>>();
        let truth = truths.and_then(|truths| truths.into_iter().reduce(GroundTruth::and));
        truth.and_then(|truth| judge(truth).ok()).ok_or(error)
    })
}

/// The truth of a file with what training takes for granted: the area of a box where none is given, and no crowd where
/// nothing says so.
fn completed(file: &Path) -> Option<GroundTruth> {
    let mut json: Value = serde_json::from_slice(&plain_json(std::fs::read(file).ok()?)).ok()?;
    for annotation in json.get_mut("annotations")?.as_array_mut()? {
        let annotation = annotation.as_object_mut()?;
        let side = |i: usize| annotation.get("bbox").and_then(|bbox| bbox.get(i)?.as_f64());
        if annotation.get("area").is_none_or(Value::is_null) {
            let area = side(2)? * side(3)?;
            annotation.insert("area".into(), area.into());
        }
        let crowd = match annotation.get("iscrowd") {
            None | Some(Value::Null | Value::Bool(false)) => 0,
            Some(Value::Bool(true)) => 1,
            Some(_) => continue,
        };
        annotation.insert("iscrowd".into(), crowd.into());
    }
    GroundTruth::from_json(&json.to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::loader::Sample;
    use crate::geometry::Size;

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
            // The words of an allocation that fails.
            assert!(images <= room, "std::bad_alloc: a batch of {images} images");
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
        assert!(out_of_memory(&*none).unwrap().contains("1 images"));
        let bug = catch_unwind(|| sparing(batch(2), |_| -> Vec<()> { panic!("a bug") }));
        assert_eq!(bug.unwrap_err().downcast_ref(), Some(&"a bug"));
    }
}
