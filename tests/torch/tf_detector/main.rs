//! The rules of TensorFlow's `faster_rcnn_nas` against TensorFlow itself: each stage from the golden input of
//! that stage, then from the image to detections, and a training step with its gradients; and for each
//! rule that is easily got wrong, that getting it wrong is seen.
//!
//! Cases are found on disk: `small` has two cells a stage, `thin` the published six; both have few channels
//! and random weights.
//! With `--nocapture` every comparison is printed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what they found"
)]

mod case;
#[path = "../common/mod.rs"]
mod common;
mod mutants;
mod names;
mod stages;
mod training;
