//! COCO's box metric: results and annotations in, average precision and recall out. `classification`
//! counts the right answers of a classifier.
//!
//! `json` scans the files, `read` makes [`GroundTruth`] and [`Results`] of them (`fields` knows their
//! pieces), `matching` pairs detections with truths image by image, `curves` turns the pairs into
//! precision and recall, `coco` puts it all together, `report` words it. `submission` writes what
//! COCO's servers take where the truth is not public.
//!
//! The numbers are those of pycocotools (`COCOeval` with its default parameters for boxes, on x86-64)
//! bit for bit, its oddities included; where it raises, so do we, with the place named.

pub mod classification;
pub mod coco;
mod curves;
mod error;
mod fields;
mod json;
mod matching;
pub mod read;
pub mod report;
pub mod submission;

pub use coco::{CategoryScore, Evaluation, STAT_NAMES, evaluate};
pub use error::EvalError;
pub use read::{GroundTruth, ResultEntry, Results};
