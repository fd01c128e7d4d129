//! `detect`: NASNet featurizers and Faster R-CNN detectors (Zoph et al. 2018; Ren et al. 2015).
//!
//! This library knows nothing of tensors: it holds the description of the network, the data, the
//! evaluator, the weight files, an engine for CPUs, the record of a run and the command line. The package
//! `detect-kernel` (`src/kernel`) computes for that engine; `detect-torch` (`src/torch`) builds tensors on top of it all.
//!
//! # Layers
//! A module uses only modules to its left:
//!
//! `failure, geometry, nms, whole, page -> nasnet -> config -> rules, data -> weights | eval | draw -> network -> engine -> watch -> cli`
//!
//! # Legend
//! The same letters and words are used in every file:
//!
//! | letter | meaning |
//! |---|---|
//! | `N` | images in a batch |
//! | `C` | channels |
//! | `H`, `W` | height, width |
//! | `R` | regions (proposals, or crops of them) |
//! | `A` | anchors a cell (or in all, where it says so) |
//! | `G` | ground truths |
//! | `K` | classes without background |
//!
//! `gt_` is truth, `pred_` predicted; *objectness* and *deltas* are what the RPN and the box head
//! predict; a *proposal* leaves the RPN, a *detection* leaves the detector.

pub mod cli;
pub mod config;
pub mod data;
pub mod draw;
pub mod engine;
pub mod eval;
pub mod failure;
pub mod geometry;
pub mod nasnet;
pub mod network;
pub mod nms;
mod page;
pub mod rules;
pub mod watch;
pub mod weights;
pub mod whole;
