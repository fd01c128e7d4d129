//! COCO's box metric: results and annotations in, average precision and recall out. `classification`
//! counts the right answers of a classifier.
//!
//! `json` (with `number` and `text`) scans the files, `pieces` lets all threads read a long list,
//! `read` and `results` make [`GroundTruth`] and [`Results`] of them (`annotation_lists` and
//! `detection_list` entry by entry, `section` and `fields` know their parts, `id` their ids; `masks` what is drawn). `cells` sorts the entries by image and category, `matching` pairs
//! detections with truths by their `overlap`, `curves` turns the pairs into precision and recall, `coco` puts it all
//! together (`mean` rounds as numpy does), `report` words it, `npz` writes the arrays. `submission` writes what
//! COCO's servers take where the truth is not public (both are an `archive`). `over_split` sends a split through a detector and scores that.
//!
//! The numbers are those of pycocotools (`COCOeval` for boxes, on x86-64) bit for bit, its oddities
//! included; where it raises, so do we, with the place named.

pub mod analysis;
mod annotation_lists;
mod archive;
mod cells;
mod choice;
pub mod classification;
pub mod coco;
mod curves;
mod detection_list;
mod error;
mod fields;
mod id;
mod json;
pub mod masks;
pub mod matching;
mod mean;
pub mod npz;
mod number;
pub mod over_split;
mod overlap;
mod pieces;
pub mod read;
pub mod report;
pub mod results;
mod section;
pub mod settings;
pub mod submission;
mod text;

pub use coco::{Arrays, CategoryScore, Evaluation, STAT_NAMES, Stat, evaluate, evaluate_with};
pub use error::EvalError;
pub use id::Id;
pub use matching::{CellMatches, match_cells};
pub use read::GroundTruth;
pub use results::{ResultEntry, Results};
pub use settings::{IouType, Settings};
