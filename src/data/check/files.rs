//! Every image file: is it there, does it decode, has it the declared size, is it anywhere twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::super::image::decode;
use super::annotations::{Image, Read};
use super::{Example, Findings, Kind};
use crate::geometry::Size;

/// By how much a box may leave the image, in pixels: coordinates are rounded, to 0.01 in COCO.
const ROUNDING: f64 = 0.05;

/// What one file says.
#[derive(Default)]
struct Seen {
    found: Vec<(Kind, Example)>,
    sha256: Option<[u8; 32]>,
}

/// Reads all files of all splits in parallel.
pub(super) fn check(
    splits: &[Read],
    findings: &mut Findings,
    progress: &(dyn Fn(usize, usize) + Sync),
) {
    let images: Vec<(&str, &Image)> = splits
        .iter()
        .flat_map(|split| split.images.iter().map(|image| (split.summary.name.as_str(), image)))
        .collect();
    let done = AtomicUsize::new(0);
    let seen: Vec<Seen> = images
        .par_iter()
        .map(|(_, image)| {
            let seen = look_at(image);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, images.len());
            seen
        })
        .collect();

    let mut same: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
    for (i, seen) in seen.into_iter().enumerate() {
        for (kind, example) in seen.found {
            findings.add(kind, images[i].0, example);
        }
        if let Some(sha256) = seen.sha256 {
            same.entry(sha256).or_default().push(i);
        }
    }
    // In the order of the files, not of the hashes.
    let mut twice: Vec<Vec<usize>> = same.into_values().filter(|at| at.len() > 1).collect();
    twice.sort();
    for at in twice {
        let splits: BTreeSet<&str> = at.iter().map(|&i| images[i].0).collect();
        if splits.len() > 1 {
            let places: Vec<String> = at
                .iter()
                .map(|&i| format!("{} in {}", images[i].1.file_name, images[i].0))
                .collect();
            findings.add_between(Kind::IdenticalAcrossSplits, places.join(" = "));
        }
        for split in splits {
            let names: Vec<&str> = at
                .iter()
                .filter(|&&i| images[i].0 == split)
                .map(|&i| images[i].1.file_name.as_str())
                .collect();
            if names.len() > 1 {
                let example = Example { detail: names.join(" = "), ..Example::default() };
                findings.add(Kind::IdenticalWithinSplit, split, example);
            }
        }
    }
}

fn look_at(image: &Image) -> Seen {
    let mut seen = Seen::default();
    let mut size = image.declared;
    match std::fs::read(&image.file) {
        Ok(bytes) => {
            seen.sha256 = Some(Sha256::digest(&bytes).into());
            drop(bytes);
            match decode(&image.file) {
                Err(error) => {
                    seen.found.push((Kind::UndecodableFile, image.example(chain(&error))));
                }
                Ok(decoded) => {
                    let (is, stored) = (decoded.image.size, decoded.stored);
                    size = size.or(Some(is));
                    if let Some(warning) = decoded.warning {
                        seen.found.push((Kind::DamagedFile, image.example(warning)));
                    }
                    let kind = match image.declared {
                        Some(declared) if declared == is => None,
                        Some(declared) if declared == stored => Some(Kind::ExifMismatch),
                        Some(_) => Some(Kind::SizeMismatch),
                        None => None,
                    };
                    if let (Some(kind), Some(declared)) = (kind, image.declared) {
                        let detail = format!("is {is} (height x width), declared {declared}");
                        seen.found.push((kind, image.example(detail)));
                    } else if decoded.orientation_applied
                        && (image.declared.is_none() || is == stored)
                    {
                        seen.found.push((Kind::ExifAmbiguous, image.example(String::new())));
                    }
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            seen.found.push((Kind::MissingFile, image.example(String::new())));
        }
        Err(error) => {
            seen.found.push((Kind::UndecodableFile, image.example(error.to_string())));
        }
    }
    if let Some(size) = size {
        let outside = image.boxes.iter().filter(|(_, bbox)| leaves(*bbox, size));
        for &(id, bbox) in outside {
            let detail = format!("{bbox:?} in {size} (height x width)");
            let example = Example { annotation_id: Some(id), ..image.example(detail) };
            seen.found.push((Kind::BoxOutOfImage, example));
        }
    }
    seen
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Whether `[x, y, width, height]` leaves an image of this size.
pub(in crate::data) fn leaves([x, y, w, h]: [f64; 4], size: Size) -> bool {
    x < -ROUNDING
        || y < -ROUNDING
        || x + w > size.width as f64 + ROUNDING
        || y + h > size.height as f64 + ROUNDING
}
