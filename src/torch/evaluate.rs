//! A detector over a split: every image through the network, then COCO's metric.

use std::sync::Arc;

use detect::config::{Input, Loader};
use detect::data::loader::{EvalLoader, LoadError};
use detect::data::{Category, Dataset};
use detect::eval::{Evaluation, GroundTruth, ResultEntry, Results, evaluate};
use detect::failure::{Exit, OrExit as _};
use detect::geometry::Detection;
use tch::Device;

use crate::backbone::NasNet;
use crate::detector::FasterRcnn;
use crate::predict;

/// How images are read and batched.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// From image to network input.
    pub input: &'a Input,
    /// Images that go through the network together.
    pub batch: usize,
    /// Threads that decode.
    pub loader: &'a Loader,
}

/// Detections of all images as a COCO results list, and the images that could not be read.
#[derive(Debug, Default)]
pub struct Run {
    /// One entry a detection, image by image.
    pub results: Vec<ResultEntry>,
    /// Why an image has none.
    pub failed: Vec<LoadError>,
}

/// Sends every image of `dataset` through `network`, whose class `k` is `categories[k]`. `progress`
/// is called with the number of images done.
pub fn run(
    network: &FasterRcnn<NasNet>,
    categories: &[Category],
    dataset: &Arc<Dataset>,
    reading: Reading<'_>,
    device: Device,
    mut progress: impl FnMut(usize),
) -> Run {
    let mut out = Run::default();
    let loader = EvalLoader::start(dataset.clone(), reading.input, reading.batch, reading.loader);
    for batch in loader {
        match batch {
            Ok(batch) => {
                let found = predict::detect(network, &batch, device);
                for (sample, detections) in batch.samples.iter().zip(&found) {
                    let entry = |d: &Detection| to_entry(d, sample.image_id, categories);
                    out.results.extend(detections.iter().map(entry));
                }
                progress(batch.samples.len());
            }
            Err(error) => {
                progress(1);
                out.failed.push(error);
            }
        }
    }
    out
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

/// Scores `results` against the annotations of `dataset`.
pub fn score(dataset: &Dataset, results: Vec<ResultEntry>) -> anyhow::Result<Evaluation> {
    let ids: Vec<i64> = dataset.images.iter().map(|image| image.id).collect();
    let truth = GroundTruth::from_files(&dataset.annotation_files).or_exit(Exit::Data)?;
    let truth = truth.restricted_to(&ids);
    evaluate(&truth, &Results::from(results)).or_exit(Exit::Data)
}
