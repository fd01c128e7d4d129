//! COCO's box metric: results and annotations in, average precision and recall out.
//!
//! `json` scans the files, `read` makes [`GroundTruth`] and [`Results`] of them, `matching` pairs
//! detections with truths image by image, `coco` turns the pairs into curves and the twelve numbers,
//! `report` prints them.
//!
//! The numbers are those of pycocotools (`COCOeval` with its default parameters for boxes, on x86-64)
//! bit for bit, its oddities included; where it raises, so do we, with the place named.

pub mod coco;
mod error;
mod json;
mod matching;
pub mod read;
pub mod report;

pub use coco::{CategoryScore, Evaluation, STAT_NAMES, evaluate};
pub use error::EvalError;
pub use read::{GroundTruth, ResultEntry, Results};
