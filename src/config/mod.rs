//! Recipes: everything that changes a number, as one TOML file.
//!
//! A recipe is whole (no inheritance), every key is known, and the resolved configuration travels in
//! each checkpoint and model file. Sections are plain structs; a module takes its own section.

mod check;
mod detector;
mod diff;
mod genotype_file;
mod input;
mod load;
mod memory;
mod optimizer;
mod recipes;
mod train;
mod upgrade;

use serde::{Deserialize, Serialize};

pub use detector::{
    Anchors, Backbone, Crop, Cut, DetectorSection, Head, NormMode, Pooling, Roi, Rpn, Rules,
};
pub use genotype_file::{GenotypeError, OwnBackbone};
pub use input::{Input, Resize, Sampling};
pub use load::{ConfigError, Override};
pub use memory::Memory;
pub use optimizer::{Clip, Decay, Optimizer, WeightDecay};
pub use recipes::{RECIPES, recipe_for};
pub use train::{
    Augment, Data, Ema, EpochSampling, Loader, LossWeights, Metric, Precision, Schedule, Train,
};
pub use upgrade::upgrade;

/// A whole recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What runs are called.
    pub name: String,
    /// The featurizer.
    pub backbone: Backbone,
    /// How the detector is put together.
    pub detector: DetectorSection,
    /// Anchor boxes.
    pub anchors: Anchors,
    /// Region proposal network.
    pub rpn: Rpn,
    /// Region heads.
    pub roi: Roi,
    /// From image to network input.
    pub input: Input,
    /// Which splits of the data set.
    pub data: Data,
    /// Training.
    pub train: Train,
}
