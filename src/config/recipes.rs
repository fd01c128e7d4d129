//! The shipped recipes, compiled in so that a bare command has one.

use std::path::Path;

use super::{Config, ConfigError, Override};
use crate::nasnet::BackboneName;

/// Every shipped recipe: its name and its text.
pub const RECIPES: &[(&str, &str)] = &[
    ("nasnet_large_coco", include_str!("../../configs/nasnet_large_coco.toml")),
    ("nasnet_mobile_coco", include_str!("../../configs/nasnet_mobile_coco.toml")),
    ("default", include_str!("../../configs/default.toml")),
    ("scenes", include_str!("../../configs/scenes.toml")),
    ("bccd", include_str!("../../configs/bccd.toml")),
    ("deeppcb", include_str!("../../configs/deeppcb.toml")),
    ("microcontrollers", include_str!("../../configs/microcontrollers.toml")),
    ("peer_c4", include_str!("../../configs/peer_c4.toml")),
    ("tiny", include_str!("../../configs/tiny.toml")),
];

impl Config {
    /// The shipped recipe `name`, with `overrides` applied in order.
    pub fn recipe(name: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        let found = RECIPES.iter().find(|(n, _)| *n == name);
        let (_, text) = found.ok_or_else(|| ConfigError::UnknownRecipe {
            name: name.into(),
            known: RECIPES.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", "),
        })?;
        Self::from_toml(text, &format!("the recipe '{name}'"), overrides)
    }
}

impl Config {
    /// What `--config` means: a recipe file, or the name of a shipped recipe.
    pub fn named_or_file(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        let name = path.to_str().filter(|text| !text.contains(['/', '\\', '.']));
        match name {
            Some(name) if !path.is_file() => Self::recipe(name, overrides),
            _ => Self::from_file(path, overrides),
        }
    }
}

/// The recipe that `--backbone NAME` stands for without `--config`.
pub fn recipe_for(name: BackboneName) -> &'static str {
    match name {
        BackboneName::LARGE => "nasnet_large_coco",
        BackboneName::MOBILE => "nasnet_mobile_coco",
        _ => "default",
    }
}
