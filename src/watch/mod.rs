//! What a training run tells those who watch it, without tensors.
//!
//! [`record`] is `metrics.jsonl`, the record of a run; everything else follows from it. [`events`] are the
//! same numbers as TensorBoard reads them, [`progress`] is the bar or the lines on stderr. [`machine`] says what the
//! run stands on. [`report`] reads run folders for `detect report`.

pub mod events;
pub mod machine;
pub mod progress;
pub mod record;
pub mod report;

/// In a run folder: the detections of the last evaluation, a COCO results list.
pub const DETECTIONS: &str = "detections.json";
/// In a run folder: the numbers of the last evaluation, those of each category included.
pub const EVALUATION: &str = "evaluation.json";
