//! Model files: a `.safetensors` that describes itself.
//!
//! The metadata holds the configuration and the categories as JSON, so that `detect IMAGE` needs no
//! recipe. Tensors are named `backbone.<timm's name>`, heads have torchvision's names.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::shipped;
use super::{Contents, WeightsError};
use crate::config::Config;
use crate::data::Category;

/// Value of the key `format` in a model file.
const FORMAT: &str = "detect-model";
/// Version of the form of the metadata.
const VERSION: u32 = 1;

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
        if get("format") != Some(FORMAT) {
            return Err(error("holds tensors, but no description of a detector; model files are written by `detect train`".into()));
        }
        let version = get("version").unwrap_or_default();
        if version != VERSION.to_string() {
            return Err(error(format!(
                "is of version '{version}'; this program reads version {VERSION}"
            )));
        }
        let info: Self = serde_json::from_str(get("model").unwrap_or_default())
            .map_err(|e| error(format!("has a description that can't be read: {e}")))?;
        info.config
            .check()
            .map_err(|e| error(format!("has a configuration that does not work: {e}")))?;
        if info.categories.is_empty() {
            return Err(error("knows no categories".into()));
        }
        Ok(info)
    }
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
        (true, names) if !names.is_empty() => {
            format!("is neither a file nor a shipped model; shipped are {}", names.join(", "))
        }
        (true, _) => "is not a file, and no shipped models were found beside the program".into(),
        (false, _) => "does not exist or is not a file".into(),
    };
    Err(WeightsError::NotAModel { path: path.into(), reason })
}
