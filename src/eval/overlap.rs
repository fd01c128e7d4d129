//! What overlaps are measured of: boxes, or masks.
//!
//! Boxes are compared as they are. Masks are drawn once, for the entries that are scored, and then
//! compared where detections and truths meet.

use std::sync::Arc;

use rayon::prelude::*;

use super::error::EvalError;
use super::masks::{Mask, Segmentation};
use super::matching::iou;
use super::read::{Annotation, GroundTruth};
use super::results::Results;
use crate::geometry::Size;

/// What the overlap of a detection and a truth is.
#[derive(Debug, Clone, Default)]
pub struct Overlaps(Option<Arc<Masks>>);

/// Masks of the entries that are scored, by place in their lists.
#[derive(Debug)]
struct Masks {
    detections: Vec<Option<Mask>>,
    truths: Vec<Option<Mask>>,
}

impl Overlaps {
    /// Of the masks of these detections and truths, by their places. Also says how many masks have
    /// another size than their image.
    pub(super) fn of_masks(
        gt: &GroundTruth,
        results: &Results,
        detections: &[u32],
        truths: &[u32],
    ) -> Result<(Self, usize), EvalError> {
        let (Some(of_truths), Some(of_detections)) = (&gt.masks, &results.masks) else {
            let problem = "both files have to be read with their masks to score masks".to_owned();
            return Err(EvalError::Settings { problem });
        };
        let drawn = |place: u32,
                     segmentation: &Result<Segmentation, String>,
                     image: Option<Size>| {
            let of_file = "its image has no `height` and `width` in the annotations";
            let image = image.ok_or_else(|| (place, of_file.to_owned()))?;
            let segmentation = segmentation.as_ref().map_err(|p| (place, problem(p)))?;
            let rle = segmentation.to_rle(image).map_err(|e| (place, problem(&e.to_string())))?;
            let other_size = usize::from(rle.size() != image);
            Ok((Mask::from(rle), other_size))
        };
        let size = |id| {
            let place = gt.images.binary_search(id).ok()?;
            gt.image_sizes[place]
        };
        let sizes: Vec<_> = gt.named_images.iter().map(size).collect();
        let (truths, odd_truths) = all(gt.annotations.len(), truths, |place| {
            let image = gt.annotations[place as usize].image as usize;
            drawn(place, &of_truths[place as usize], sizes[image])
        })
        .map_err(|(place, problem)| gt.entry_error(place, problem))?;
        let sizes: Vec<_> = results.image_ids.iter().map(size).collect();
        let (detections, odd_detections) = all(results.detections.len(), detections, |place| {
            let image = results.detections[place as usize].image as usize;
            drawn(place, &of_detections[place as usize], sizes[image])
        })
        .map_err(|(place, problem)| results.entry_error(place, problem))?;
        let masks = Masks { detections, truths };
        Ok((Self(Some(Arc::new(masks))), odd_truths + odd_detections))
    }

    /// Of a detection and a truth, by their places in their lists; of a crowd, the share of the
    /// detection that lies in it.
    pub(super) fn of(
        &self,
        gt: &GroundTruth,
        results: &Results,
        detection: usize,
        truth: usize,
        crowd: bool,
    ) -> f64 {
        match &self.0 {
            None => iou(&results.detections[detection].bbox, &gt.annotations[truth].bbox, crowd),
            Some(masks) => masks.of(detection, truth, crowd),
        }
    }

    /// `[D, G]` for detections and truths of a cell, by their places; none where boxes are compared.
    pub(super) fn of_cell(
        &self,
        detections: impl Iterator<Item = usize>,
        truths: &(impl Iterator<Item = usize> + Clone),
        annotations: &[&Annotation],
    ) -> Option<Vec<f64>> {
        let masks = self.0.as_ref()?;
        let pairs = detections.flat_map(|d| {
            let truths = truths.clone().zip(annotations);
            truths.map(move |(g, annotation)| masks.of(d, g, annotation.crowd))
        });
        Some(pairs.collect())
    }
}

impl Masks {
    fn of(&self, detection: usize, truth: usize, crowd: bool) -> f64 {
        match (&self.detections[detection], &self.truths[truth]) {
            (Some(detection), Some(truth)) => detection.overlap(truth, crowd),
            _ => unreachable!("the masks of all entries that are scored are drawn"),
        }
    }
}

fn problem(text: &str) -> String {
    format!("its `segmentation` can't be used: {text}")
}

/// Draws the masks at these places of a list; the first problem stands for all.
#[expect(clippy::type_complexity, reason = "a place and what is wrong there")]
fn all(
    count: usize,
    places: &[u32],
    draw: impl Fn(u32) -> Result<(Mask, usize), (u32, String)> + Sync,
) -> Result<(Vec<Option<Mask>>, usize), (u32, String)> {
    // Not `collect` into a result: which of several errors that keeps depends on the threads.
    let drawn: Vec<_> = places.par_iter().map(|&place| (place, draw(place))).collect();
    let mut masks = vec![None; count];
    let (mut odd, mut first): (usize, Option<(u32, String)>) = (0, None);
    for (place, result) in drawn {
        match result {
            Ok((mask, other_size)) => {
                odd += other_size;
                masks[place as usize] = Some(mask);
            }
            Err(error) => first = first.into_iter().chain([error]).min(),
        }
    }
    first.map_or(Ok((masks, odd)), Err)
}
