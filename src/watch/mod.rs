//! What a training run tells those who watch it, without tensors.
//!
//! [`record`] is `metrics.jsonl`, the record of a run; everything else follows from it. [`events`] are the
//! same numbers as TensorBoard reads them. [`machine`] says what the run stands on.

pub mod events;
pub mod machine;
pub mod record;
