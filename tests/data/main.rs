//! From annotation files and pictures to batches.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

#[path = "../common/coco.rs"]
mod coco;

mod annotations;
mod batches;
