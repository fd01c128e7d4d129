//! The CPU engine's detector against torchvision and TensorFlow: each operator, then each stage from the golden
//! input of that stage, then from the image to the detections.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

#[path = "../common/oracle.rs"]
mod common;
mod golden;
mod ops;
mod properties;
mod tf;
mod torchvision;
