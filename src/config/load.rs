//! Reading a recipe, changing single keys of it, and checking that it makes sense.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use super::{Config, Crop, Cut, Head, Rules};

/// Why a configuration is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a recipe: the inner error quotes the line.
    #[error("{origin} is not a valid configuration:\n{source}")]
    Parse {
        /// Which file or recipe, with its overrides.
        origin: String,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// `--set` without a value, or with a key that leads nowhere.
    #[error("--set {text}: {reason}")]
    Override {
        /// What was given.
        text: String,
        /// Why it can't be used.
        reason: String,
    },
    /// A value that can't work.
    #[error("{key}: {reason}")]
    Value {
        /// The dotted key.
        key: &'static str,
        /// Why it can't work.
        reason: String,
    },
    /// No such recipe.
    #[error("there is no recipe '{name}'; the recipes are {known}")]
    UnknownRecipe {
        /// What was given.
        name: String,
        /// All that exist.
        known: String,
    },
}

/// One `--set a.b=value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    key: String,
    value: toml::Value,
}

impl FromStr for Override {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error =
            |reason: &str| ConfigError::Override { text: text.into(), reason: reason.into() };
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| error("expected KEY=VALUE, such as train.lr=0.005"))?;
        // A bare word is a string: `backbone.wiring=large` needs no quotes.
        let parsed = toml::from_str::<toml::Table>(&format!("v = {value}"))
            .ok()
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.trim().into()));
        Ok(Self { key: key.trim().into(), value: parsed })
    }
}

impl Override {
    /// `key = value`, for flags of the command line that are short for a `--set`.
    pub fn new(key: &str, value: impl Into<toml::Value>) -> Self {
        Self { key: key.into(), value: value.into() }
    }

    fn apply(&self, table: &mut toml::Table) -> Result<(), ConfigError> {
        let text = || self.to_string();
        let mut at = table;
        let mut parts = self.key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                at.insert(part.into(), self.value.clone());
                return Ok(());
            }
            let Some(toml::Value::Table(inner)) = at.get_mut(part) else {
                let reason = format!("there is no section '{part}'");
                return Err(ConfigError::Override { text: text(), reason });
            };
            at = inner;
        }
        Err(ConfigError::Override { text: text(), reason: "the key is empty".into() })
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl Config {
    /// The recipe as text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain structs become TOML")
    }

    /// Reads a recipe file and applies `overrides` in order.
    pub fn from_file(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::from_toml(&text, &path.display().to_string(), overrides)
    }

    /// Reads a recipe; `origin` names it in errors.
    pub fn from_toml(
        text: &str,
        origin: &str,
        overrides: &[Override],
    ) -> Result<Self, ConfigError> {
        let parse = |source: toml::de::Error, origin: String| ConfigError::Parse {
            origin,
            source: Box::new(source),
        };
        // The text itself first, so that a mistake in the file is shown with its line.
        let plain: Self = toml::from_str(text).map_err(|e| parse(e, origin.into()))?;
        let config = if overrides.is_empty() {
            plain
        } else {
            let mut table: toml::Table =
                toml::from_str(text).map_err(|e| parse(e, origin.into()))?;
            for change in overrides {
                change.apply(&mut table)?;
            }
            let keys: Vec<&str> = overrides.iter().map(|o| o.key.as_str()).collect();
            let origin = format!("{origin} with {} changed", keys.join(", "));
            // Through the text, for errors that quote what is wrong.
            let text = toml::to_string(&table).expect("a parsed table can be written");
            toml::from_str(&text).map_err(|e| parse(e, origin))?
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses values that can't work, by key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &'static str, reason: &str| {
            Err(ConfigError::Value { key, reason: reason.to_owned() })
        };
        let fraction = |key: &'static str, x: f64| {
            if (0. ..=1.).contains(&x) { Ok(()) } else { refuse(key, "must be between 0 and 1") }
        };
        if self.name.is_empty()
            || self.name.contains(['/', '\\', '\0'])
            || self.name.starts_with('.')
        {
            return refuse("name", "must be a plain word: run folders are named after it");
        }
        if self.backbone.stem_filters == 0 || self.backbone.stem_filters > 1024 {
            return refuse("backbone.stem_filters", "must be 1 to 1024");
        }
        match self.backbone.check() {
            Err(e) => return refuse("backbone.name", &e.to_string()),
            Ok(plan) if plan.stride_16().is_none() => {
                let reason = "has no two maps of stride 16, where a detector is cut; it is a classifier only";
                return refuse("backbone.name", reason);
            }
            Ok(_) => {}
        }
        if self.backbone.norm_eps.is_nan() || self.backbone.norm_eps <= 0. {
            return refuse("backbone.norm_eps", "must be positive");
        }
        fraction("backbone.norm_momentum", self.backbone.norm_momentum)?;
        if !(self.backbone.drop_path_keep > 0. && self.backbone.drop_path_keep <= 1.) {
            return refuse("backbone.drop_path_keep", "must be above 0 and at most 1 (1 is off)");
        }
        let detector = &self.detector;
        if detector.head == Head::Tail && detector.cut != Cut::Pair {
            return refuse(
                "detector.head",
                "'tail' needs detector.cut = 'pair': the next cell reads both maps",
            );
        }
        if detector.rules == Rules::Tf || detector.crop == Crop::CropAndResize {
            return refuse(
                "detector.rules",
                "the rules 'tf' and the crop 'crop_and_resize' are not built yet; use 'torchvision' and 'roi_align'",
            );
        }
        if !(1..=64).contains(&detector.crop_size) {
            return refuse("detector.crop_size", "must be 1 to 64");
        }
        if detector.head == Head::Mlp && detector.mlp_width == 0 {
            return refuse("detector.mlp_width", "must be positive");
        }
        let positive = |x: &f32| x.is_finite() && *x > 0.;
        if self.anchors.per_cell() == 0
            || !self.anchors.sizes.iter().chain(&self.anchors.ratios).all(positive)
        {
            return refuse("anchors", "needs at least one size and one ratio, all positive");
        }
        for (key, x) in [
            ("rpn.positive_iou", self.rpn.positive_iou),
            ("rpn.negative_iou", self.rpn.negative_iou),
            ("rpn.positive_fraction", self.rpn.positive_fraction),
            ("rpn.nms_iou", self.rpn.nms_iou),
            ("roi.positive_iou", self.roi.positive_iou),
            ("roi.positive_fraction", self.roi.positive_fraction),
            ("roi.score_floor", self.roi.score_floor),
            ("roi.nms_iou", self.roi.nms_iou),
            ("train.augment.flip", self.train.augment.flip),
            ("train.augment.vertical_flip", self.train.augment.vertical_flip),
            ("train.augment.color", self.train.augment.color),
        ] {
            fraction(key, x)?;
        }
        if self.rpn.negative_iou > self.rpn.positive_iou {
            return refuse("rpn.negative_iou", "must not be above rpn.positive_iou");
        }
        for (key, n) in [
            ("rpn.sampled", self.rpn.sampled),
            ("rpn.pre_nms_train", self.rpn.pre_nms_train),
            ("rpn.post_nms_train", self.rpn.post_nms_train),
            ("rpn.pre_nms_eval", self.rpn.pre_nms_eval),
            ("rpn.post_nms_eval", self.rpn.post_nms_eval),
            ("roi.sampled", self.roi.sampled),
            ("roi.max_detections", self.roi.max_detections),
            ("train.batch", self.train.batch),
            ("train.log_every", self.train.log_every),
            ("train.checkpoint_every", self.train.checkpoint_every),
            ("train.loader.threads", self.train.loader.threads),
            ("train.loader.prefetch", self.train.loader.prefetch),
        ] {
            if n == 0 {
                return refuse(key, "must be at least 1");
            }
        }
        let input = &self.input;
        if !(32..=4096).contains(&input.short_side) || !(32..=8192).contains(&input.long_side) {
            return refuse(
                "input.short_side",
                "must be 32 to 4096, and input.long_side 32 to 8192",
            );
        }
        if input.long_side < input.short_side {
            return refuse("input.long_side", "must not be below input.short_side");
        }
        if !input.std.iter().all(positive) {
            return refuse("input.std", "must be positive");
        }
        let train = &self.train;
        if train.steps == 0 && train.epochs == 0 {
            return refuse("train.epochs", "either epochs or steps must be positive");
        }
        if !(train.lr > 0. && train.lr.is_finite()) {
            return refuse("train.lr", "must be positive");
        }
        if !(0. ..1.).contains(&train.momentum) {
            return refuse("train.momentum", "must be at least 0 and under 1");
        }
        if !(0. ..1.).contains(&train.ema.decay) {
            return refuse("train.ema.decay", "must be at least 0 (off) and under 1");
        }
        if !(train.weight_decay >= 0. && train.clip_norm >= 0.) {
            return refuse("train.weight_decay", "must not be negative, nor may train.clip_norm");
        }
        let [low, high] = train.augment.scale;
        if !(0.1 <= low && low <= high && high <= 4.) {
            return refuse("train.augment.scale", "must be [low, high] within 0.1 to 4");
        }
        Ok(())
    }
}
