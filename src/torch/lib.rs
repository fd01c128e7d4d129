//! The half of `detect` that needs libtorch: the network as tensors, training and inference with it. The verbs
//! that only look at images are those of the library [`detect`], run with the engine of [`predict`].
//!
//! # Layers
//! A module uses only modules to its left, and all of the library `detect`:
//!
//! `ranks, shim, precision, profile, device, nn -> backbone -> detector -> weights -> predict -> evaluate -> train -> verbs`
//!
//! The legend of letters and words is that of [`detect`].

pub mod backbone;
pub mod detector;
pub mod device;
pub mod evaluate;
pub mod nn;
pub mod precision;
pub mod predict;
pub mod profile;
pub mod ranks;
pub mod shim;
pub mod train;
pub mod verbs;
pub mod weights;
