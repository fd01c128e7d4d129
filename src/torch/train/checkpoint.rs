//! Checkpoints: all that is needed to go on as if nothing had happened.
//!
//! A `.safetensors` with `model.*`, `ema.*` and `optim.*`; step, configuration and a SHA-256 of the
//! tensors in its metadata. The one before it is kept as `prev`, and used where `last` is damaged.

use std::fs;
use std::path::{Path, PathBuf};

use detect::config::{Config, upgrade};
use detect::data::Category;
use detect::weights::{Contents, WeightsError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The newest checkpoint of a run folder.
pub const LAST: &str = "last.safetensors";
/// The one before it.
pub const PREVIOUS: &str = "prev.safetensors";
/// The best model so far: a model file.
pub const BEST: &str = "best.safetensors";

const FORMAT: &str = "detect-checkpoint";
/// Version of the form of the state; the first one wrote none.
const VERSION: &str = "3";

/// Why a run can't be continued.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Neither checkpoint can be used.
    #[error("{run} holds no usable checkpoint: {last}; {previous}")]
    None {
        /// The run folder.
        run: PathBuf,
        /// What is wrong with `last`.
        last: String,
        /// What is wrong with `prev`.
        previous: String,
    },
    /// It can't be written or moved.
    #[error("cannot save the checkpoint {path}")]
    Save {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps that are done.
    pub step: usize,
    /// Steps in all.
    pub total: usize,
    /// The best `train.best_by` so far and its step.
    pub best: Option<(f64, usize)>,
    /// Evaluations since then.
    #[serde(default)]
    pub stale: usize,
    /// Seconds of training so far.
    pub seconds: f64,
    /// What the run was started with.
    pub config: Config,
    /// Class `k` is `categories[k]`.
    pub categories: Vec<Category>,
    /// The data set's folder.
    pub data: PathBuf,
}

/// Writes `contents` as the newest checkpoint of `run`; what was the newest becomes `prev`.
pub fn save(run: &Path, mut contents: Contents, state: &State) -> Result<(), CheckpointError> {
    let (last, previous) = (run.join(LAST), run.join(PREVIOUS));
    let json = serde_json::to_string(state).expect("plain structs become JSON");
    contents.metadata.insert("format".into(), FORMAT.into());
    contents.metadata.insert("version".into(), VERSION.into());
    contents.metadata.insert("state".into(), json);
    contents.metadata.insert("sha256".into(), contents.sha256());
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| CheckpointError::Save {
        path: last.clone(),
        source,
    };
    // First the new file whole, under another name: a kill at any point leaves one that can be read.
    let next = run.join("next.safetensors.part");
    contents.write(&next).map_err(|e| failed(e.into()))?;
    if last.exists() {
        fs::rename(&last, &previous).map_err(|e| failed(e.into()))?;
    }
    fs::rename(&next, &last).map_err(|e| failed(e.into()))?;
    fs::File::open(run).and_then(|folder| folder.sync_all()).map_err(|e| failed(e.into()))
}

/// Reads the newest checkpoint of `run` that is whole, and says which file it was.
pub fn load(run: &Path) -> Result<(Contents, State, PathBuf), CheckpointError> {
    let last = run.join(LAST);
    let damage = match read(&last) {
        Ok((contents, state)) => return Ok((contents, state, last)),
        Err(reason) => reason,
    };
    let previous = run.join(PREVIOUS);
    match read(&previous) {
        Ok((contents, state)) => {
            tracing::warn!("{damage}; going on from {}", previous.display());
            Ok((contents, state, previous))
        }
        Err(reason) => {
            Err(CheckpointError::None { run: run.into(), last: damage, previous: reason })
        }
    }
}

fn read(path: &Path) -> Result<(Contents, State), String> {
    let contents = Contents::read(path).map_err(|error| match &error {
        WeightsError::Read { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    })?;
    let get = |key: &str| contents.metadata.get(key).map(String::as_str).unwrap_or_default();
    if get("format") != FORMAT {
        return Err(format!("{} is not a checkpoint of a training run", path.display()));
    }
    if get("sha256") != contents.sha256() {
        return Err(format!("{} is damaged: its checksum is wrong", path.display()));
    }
    let unreadable =
        |e: serde_json::Error| format!("{} has a state that can't be read: {e}", path.display());
    let mut state: serde_json::Value = serde_json::from_str(get("state")).map_err(unreadable)?;
    match get("version") {
        VERSION => {}
        "" | "2" => {
            if let Some(config) = state.get_mut("config") {
                upgrade(config);
            }
        }
        other => {
            return Err(format!(
                "{} is of version '{other}', which this program does not know",
                path.display()
            ));
        }
    }
    let state = serde_json::from_value(state).map_err(unreadable)?;
    Ok((contents, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_the_first_version_goes_on() {
        let state = State {
            step: 3,
            total: 9,
            best: None,
            stale: 0,
            seconds: 1.5,
            config: Config::recipe("tiny", &[]).unwrap(),
            categories: Vec::new(),
            data: "data".into(),
        };
        let run = tempfile::tempdir().unwrap();
        save(run.path(), Contents::default(), &state).unwrap();
        assert_eq!(load(run.path()).unwrap().1, state);
        // As the first version wrote it: without the keys that came later, and without a version.
        let path = run.path().join(LAST);
        let mut contents = Contents::read(&path).unwrap();
        let mut json: serde_json::Value =
            serde_json::from_str(&contents.metadata["state"]).unwrap();
        let config = &mut json["config"];
        for (section, key) in [
            ("backbone", "tail_norm"),
            ("rpn", "channels"),
            ("roi", "max_per_class"),
            ("train", "loss_weights"),
            ("train", "drop_path_steps"),
            ("train", "optimizer"),
            ("train", "weight_decay"),
            ("train", "clip"),
            ("train", "accumulate"),
            ("train", "freeze"),
            ("train", "label_smoothing"),
            ("train", "best_by"),
            ("train", "patience"),
            ("data", "sampling"),
            ("data", "rare_under"),
            ("input", "resize"),
        ] {
            config[section].as_object_mut().unwrap().remove(key).unwrap();
        }
        config["train"]["augment"].as_object_mut().unwrap().remove("short_sides").unwrap();
        for (key, value) in [("momentum", 0.9), ("weight_decay", 3e-4), ("clip_norm", 10.)] {
            config["train"][key] = value.into();
        }
        config["train"]["decay_norm"] = false.into();
        config["input"]["short_side"] = 96.into();
        config["input"]["long_side"] = 160.into();
        contents.metadata.insert("state".into(), json.to_string());
        contents.metadata.remove("version");
        contents.write(&path).unwrap();
        assert_eq!(load(run.path()).unwrap().1, state);
        contents.metadata.insert("version".into(), "4".into());
        contents.write(&path).unwrap();
        let error = load(run.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("version '4'"), "{error}");
    }
}
