//! Model files: a `.safetensors` that describes itself.
//!
//! The metadata holds the configuration and the categories as JSON, so that `detect IMAGE` needs no
//! recipe. Tensors are named `backbone.<timm's name>`, heads have torchvision's names.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::shipped;
use super::{Contents, WeightsError, classifier};
use crate::config::{Config, upgrade};
use crate::data::Category;

/// Value of the key `format` in a model file.
const FORMAT: &str = "detect-model";
/// Value of the key `format` in a checkpoint, which holds more than a model and is none.
pub const CHECKPOINT: &str = "detect-checkpoint";
/// The model that a training run writes into its folder.
pub const BEST: &str = "best.safetensors";
/// Version of the form of the metadata.
const VERSION: u32 = 3;

/// The model that is used where none is named.
pub const DEFAULT_MODEL: &str = "scenes";

/// What a model file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// How the network is built.
    pub config: Config,
    /// Class `k` is `categories[k]`; ids are those of the data it learned from.
    pub categories: Vec<Category>,
    /// How it came about.
    pub trained: Trained,
}

/// How a model came about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Steps of training.
    pub steps: usize,
    /// Images of the training split.
    pub images: usize,
    /// AP of the evaluation during training that chose these weights, 0 to 1; `None` where there was none.
    pub ap: Option<f64>,
}

impl ModelInfo {
    /// Puts the description into the metadata of `contents`.
    pub fn write_to(&self, contents: &mut Contents) {
        let json = serde_json::to_string(self).expect("plain structs become JSON");
        contents.metadata.insert("format".into(), FORMAT.into());
        contents.metadata.insert("version".into(), VERSION.to_string());
        contents.metadata.insert("model".into(), json);
    }

    /// Reads the description in `contents`, which came from `path`.
    pub fn read_from(contents: &Contents, path: &Path) -> Result<Self, WeightsError> {
        let error = |reason: String| WeightsError::NotAModel { path: path.into(), reason };
        let get = |key: &str| contents.metadata.get(key).map(String::as_str);
        if get("format") == Some(classifier::FORMAT) {
            return Err(error("holds a classifier, not a detector; `detect classify` and `detect eval --task classification` take it".into()));
        }
        if get("format") == Some(CHECKPOINT) {
            return Err(error(format!(
                "is a checkpoint of a training run; its model is {BEST} beside it"
            )));
        }
        if get("format") != Some(FORMAT) {
            return Err(error("holds tensors, but no description of a detector; model files are written by `detect train`".into()));
        }
        let unreadable =
            |e: serde_json::Error| error(format!("has a description that can't be read: {e}"));
        let mut json: serde_json::Value =
            serde_json::from_str(get("model").unwrap_or_default()).map_err(unreadable)?;
        match get("version").and_then(|v| v.parse().ok()) {
            Some(VERSION) => {}
            Some(1 | 2) => {
                if let Some(config) = json.get_mut("config") {
                    upgrade(config);
                }
            }
            _ => {
                return Err(error(format!(
                    "is of version '{}'; this program reads versions 1 to {VERSION}",
                    get("version").unwrap_or_default()
                )));
            }
        }
        let info: Self = serde_json::from_value(json).map_err(unreadable)?;
        info.config
            .check()
            .map_err(|e| error(format!("has a configuration that does not work: {e}")))?;
        if info.categories.is_empty() {
            return Err(error("knows no categories".into()));
        }
        Ok(info)
    }
}

/// Whether `folder` holds the model of a training run.
pub fn has_best(folder: &Path) -> bool {
    folder.join(BEST).is_file()
}

/// The file that `--weights` means: a path, or the name of a shipped model; without it the default.
pub fn resolve(weights: Option<&str>) -> Result<PathBuf, WeightsError> {
    let name = weights.unwrap_or(DEFAULT_MODEL);
    let path = Path::new(name);
    if path.is_file() {
        return Ok(path.into());
    }
    let plain = !name.is_empty() && !name.contains(['/', '\\', '.']);
    if let Some(found) = shipped::find(name).filter(|_| plain) {
        return Ok(found);
    }
    let reason = match (plain, shipped::names()) {
        _ if has_best(path) => format!("is a folder; its model is {}", path.join(BEST).display()),
        _ if path.is_dir() => "is a folder, not a model file".into(),
        (true, names) if !names.is_empty() => {
            format!("is neither a file nor a shipped model; shipped are {}", names.join(", "))
        }
        (true, _) => "is not a file, and no shipped models were found beside the program".into(),
        (false, _) => "does not exist or is not a file".into(),
    };
    Err(WeightsError::NotAModel { path: path.into(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LossWeights, NormMode, Resize};

    /// A description as version 1 wrote it, from today's: what was added since is taken out again.
    fn of_version_1(info: &ModelInfo) -> Contents {
        let mut json = serde_json::to_value(info).unwrap();
        let config = &mut json["config"];
        let drop = |section: &mut serde_json::Value, key: &str| {
            section.as_object_mut().unwrap().remove(key).unwrap()
        };
        drop(&mut config["backbone"], "tail_norm");
        drop(&mut config["rpn"], "channels");
        drop(&mut config["roi"], "max_per_class");
        for key in ["loss_weights", "drop_path_steps", "accumulate", "freeze", "label_smoothing"] {
            drop(&mut config["train"], key);
        }
        for key in ["best_by", "patience", "clip"] {
            drop(&mut config["train"], key);
        }
        drop(&mut config["train"]["augment"], "short_sides");
        for key in ["sampling", "rare_under"] {
            drop(&mut config["data"], key);
        }
        let optimizer = drop(&mut config["train"], "optimizer");
        config["train"]["momentum"] = optimizer["momentum"].clone();
        let decay = drop(&mut config["train"], "weight_decay");
        config["train"]["weight_decay"] = decay["rate"].clone();
        config["train"]["decay_norm"] = decay["norm"].clone();
        config["train"]["clip_norm"] = 10.0.into();
        let resize = drop(&mut config["input"], "resize");
        config["input"]["short_side"] = resize["short_side"].clone();
        config["input"]["long_side"] = resize["long_side"].clone();
        let mut contents = Contents::default();
        info.write_to(&mut contents);
        contents.metadata.insert("version".into(), "1".into());
        contents.metadata.insert("model".into(), json.to_string());
        contents
    }

    fn info() -> ModelInfo {
        ModelInfo {
            config: Config::recipe("tiny", &[]).unwrap(),
            categories: vec![Category { id: 7, name: "cup".into() }],
            trained: Trained::default(),
        }
    }

    #[test]
    fn version_1_is_read_as_what_it_meant() {
        let read = ModelInfo::read_from(&of_version_1(&info()), Path::new("old")).unwrap();
        assert_eq!(read, info(), "the recipe has the values that mean what version 1 did");
        assert_eq!(read.config.backbone.tail_norm, NormMode::Live);
        assert_eq!(read.config.train.loss_weights, LossWeights::ONES);
        let resize = Resize::ShortSide { short_side: 96, long_side: 160 };
        assert_eq!(read.config.input.resize, resize);
    }

    #[test]
    fn what_a_training_run_leaves_is_told_apart() {
        let mut contents = Contents::default();
        contents.metadata.insert("format".into(), CHECKPOINT.into());
        let error = ModelInfo::read_from(&contents, Path::new("last")).unwrap_err().to_string();
        let words = "last is a checkpoint of a training run; its model is best.safetensors beside";
        assert!(error.starts_with(words), "{error}");
        let run = tempfile::tempdir().unwrap();
        let refused = || resolve(run.path().to_str()).unwrap_err().to_string();
        assert!(refused().ends_with("is a folder, not a model file"), "{}", refused());
        let best = run.path().join(BEST);
        std::fs::write(&best, "").unwrap();
        let words = format!("is a folder; its model is {}", best.display());
        assert!(refused().ends_with(&words), "{}", refused());
    }

    #[test]
    fn the_shipped_models_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models");
        for (name, version) in [("scenes", "1"), ("bccd", "1"), ("deeppcb", "3")] {
            let path = folder.join(name).with_extension("safetensors");
            let contents = Contents::read(&path).unwrap();
            assert_eq!(contents.metadata["version"], version, "{name}");
            let info = ModelInfo::read_from(&contents, &path).unwrap();
            assert_eq!(info.config.name, name);
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let mut contents = Contents::default();
        info().write_to(&mut contents);
        assert_eq!(ModelInfo::read_from(&contents, Path::new("new")).unwrap(), info());
        contents.metadata.insert("version".into(), "4".into());
        let error = ModelInfo::read_from(&contents, Path::new("new")).unwrap_err().to_string();
        assert!(error.contains("version '4'") && error.contains("1 to 3"), "{error}");
    }
}
