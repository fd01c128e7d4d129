//! Checkpoints: all that is needed to go on as if nothing had happened.
//!
//! A `.safetensors` with `model.*`, `ema.*` and `optim.*`; step, configuration and a seal (`seal.rs`) in
//! its metadata. The one before it is kept as `prev`, and used where `last` is damaged.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use detect::config::{Config, upgrade};
use detect::data::{Category, Fingerprint};
use detect::failure::Exit;
pub use detect::weights::model::BEST;
use detect::weights::model::{CHECKPOINT as FORMAT, Trained};
use detect::weights::{Contents, ModelInfo, WeightsError};
use detect::whole;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::scale::LossScale;
use super::seal;

/// The newest checkpoint of a run folder.
pub const LAST: &str = "last.safetensors";
/// The one before it.
pub const PREVIOUS: &str = "prev.safetensors";
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
    /// The newest may be whole, but can't be read now: to go on from the one before it would lose steps.
    #[error("{reason}; it may be whole: mend that, or move the file away to go on from {PREVIOUS}")]
    Unreadable {
        /// What can't be read, and why.
        reason: String,
    },
    /// It would hold what nobody can go on from.
    #[error(
        "{tensor} is not finite, so that nothing was saved; {run} holds the last good checkpoint"
    )]
    NonFinite {
        /// The run folder.
        run: PathBuf,
        /// Which tensor.
        tensor: String,
    },
    /// It can't be written or moved.
    #[error("cannot save the checkpoint {path}")]
    Save {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CheckpointError {
    /// How the program ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::None { .. } | Self::Unreadable { .. } => Exit::Data,
            Self::NonFinite { .. } => Exit::NonFinite,
            Self::Save { .. } => Exit::Output,
        }
    }
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
    /// Whether `step` was to be followed by an evaluation that was not made: the run was stopped in it.
    #[serde(default)]
    pub evaluation_due: bool,
    /// Steps in a row, up to `step`, that were passed over because they were not finite.
    #[serde(default)]
    pub skipped: usize,
    /// Steps up to `step` that were left out, because they were not finite or overflowed: what counts updates
    /// (AdamW's correction, the average's start) does not count them.
    #[serde(default)]
    pub left_out: usize,
    /// The factor on the loss, in float16.
    #[serde(default)]
    pub loss_scale: Option<LossScale>,
    /// What the run was started with.
    pub config: Config,
    /// Class `k` is `categories[k]`.
    pub categories: Vec<Category>,
    /// The data set's folder.
    pub data: PathBuf,
    /// What the training split was; the first versions did not write it.
    #[serde(default)]
    pub split: Option<Fingerprint>,
    /// What the validation split was, where there is one and the version wrote it.
    #[serde(default)]
    pub val: Option<Fingerprint>,
    /// What it was computed with, where the version wrote it.
    #[serde(default)]
    pub computing: Option<Computing>,
}

impl State {
    /// All that decides what a run does next, in words: alike in processes that share it.
    pub fn standing(&self) -> String {
        let Self { step, best, stale, evaluation_due, skipped, left_out, loss_scale, .. } = self;
        let mut parts = vec![format!("after step {step}")];
        if *evaluation_due {
            parts.push("before its evaluation".into());
        }
        if let Some((score, step)) = best {
            parts.push(format!("best {score} of step {step}, {stale} evaluations ago"));
        }
        if *left_out > 0 {
            parts.push(format!("{left_out} steps left out, {skipped} of them the last"));
        }
        if let Some(scale) = loss_scale {
            parts.push(format!("loss scale {scale:?}"));
        }
        parts.join(", ")
    }
}

/// What the last bits of a step hang on, beside the recipe and the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Computing {
    /// `cpu` or `cuda`.
    pub device: String,
    /// What convolutions and products compute in, as a recipe names it.
    pub precision: String,
    /// Threads of each process; on a GPU they count for nothing, and are 0.
    pub threads: usize,
    /// Processes that share a step.
    pub processes: usize,
    /// Version of libtorch.
    pub libtorch: String,
    /// Whether a GPU takes only kernels that give the same bits each time; a CPU has no others, and this is false.
    #[serde(default)]
    pub deterministic: bool,
}

impl Computing {
    /// What `new` has otherwise, in words.
    pub fn differences(&self, new: &Self) -> Vec<String> {
        let pairs = [
            ("device", self.device.clone(), new.device.clone()),
            ("precision", self.precision.clone(), new.precision.clone()),
            ("threads", self.threads.to_string(), new.threads.to_string()),
            ("processes", self.processes.to_string(), new.processes.to_string()),
            ("libtorch", self.libtorch.clone(), new.libtorch.clone()),
            ("--deterministic", self.deterministic.to_string(), new.deterministic.to_string()),
        ];
        let differs = |(what, a, b): &(_, _, _)| (a != b).then(|| format!("{what}: {a} -> {b}"));
        pairs.iter().filter_map(differs).collect()
    }
}

/// Writes `contents` as the newest checkpoint of `run`; what was the newest becomes `prev`.
///
/// # Errors
/// A value that is not finite, and what the disk says. `last` and `prev` are then what they were, or `prev` is what
/// `last` was.
pub fn save(run: &Path, contents: Contents, state: &State) -> Result<(), CheckpointError> {
    save_through(run, contents, state, |contents, file| {
        let mut out = io::BufWriter::new(file);
        contents.write_to(&mut out)?;
        out.flush()
    })
}

/// [`save`], with what lies between the contents and the file: where a test lets the disk fail.
pub fn save_through(
    run: &Path,
    mut contents: Contents,
    state: &State,
    put: impl FnOnce(&Contents, &mut File) -> io::Result<()>,
) -> Result<(), CheckpointError> {
    if let Some(tensor) = contents.non_finite() {
        return Err(CheckpointError::NonFinite { run: run.into(), tensor: tensor.into() });
    }
    let (last, previous) = (run.join(LAST), run.join(PREVIOUS));
    let json = serde_json::to_string(state).expect("plain structs become JSON");
    contents.metadata.insert("format".into(), FORMAT.into());
    contents.metadata.insert("version".into(), VERSION.into());
    contents.metadata.insert("state".into(), json);
    seal::seal(&mut contents);
    // First the new file whole, under another name: a kill at any point leaves one that can be read.
    let write = || {
        let next = whole::stage(&last, |file| put(&contents, file))?;
        if last.exists() {
            fs::rename(&last, &previous)?;
        }
        next.commit()
    };
    write().map_err(|source| CheckpointError::Save { path: last.clone(), source })
}

/// Removes what a kill has left of files that were being written.
pub fn sweep(run: &Path) {
    // The latter are what the first versions wrote.
    let left = |name: &str| {
        whole::is_temporary(name) || ["next.safetensors.part", "metrics.jsonl.part"].contains(&name)
    };
    let files = fs::read_dir(run).into_iter().flatten().flatten();
    for file in files.filter(|file| file.file_name().to_str().is_some_and(left)) {
        // What can't be removed is in nobody's way.
        let _ = fs::remove_file(file.path());
    }
}

/// Takes a damaged `last` out of the way of a run that goes on from `prev`: else the next [`save`] would
/// put it in `prev`'s place, and a kill there would leave neither.
pub fn set_aside(run: &Path) -> Result<(), CheckpointError> {
    let (last, aside) = (run.join(LAST), run.join("damaged.safetensors"));
    if !last.exists() {
        return Ok(());
    }
    fs::rename(&last, aside).map_err(|source| CheckpointError::Save { path: last, source })
}

/// Whether a folder has the files of a run.
pub fn is_run(folder: &Path) -> bool {
    [LAST, PREVIOUS].iter().any(|name| folder.join(name).exists())
}

/// Reads the newest checkpoint of `run` that is whole, and says which file it was.
pub fn load(run: &Path) -> Result<(Contents, State, PathBuf), CheckpointError> {
    let last = run.join(LAST);
    let damage = match read(&last) {
        Ok((contents, state)) => return Ok((contents, state, last)),
        Err(Fault::Unreadable(reason)) => return Err(CheckpointError::Unreadable { reason }),
        Err(Fault::Damage(reason)) => reason,
    };
    let previous = run.join(PREVIOUS);
    match read(&previous) {
        Ok((contents, state)) => {
            tracing::warn!("{damage}; going on from {}", previous.display());
            Ok((contents, state, previous))
        }
        Err(fault) => Err(CheckpointError::None {
            run: run.into(),
            last: damage,
            previous: fault.to_string(),
        }),
    }
}

/// Whether a file is a checkpoint, by its metadata.
pub fn is_checkpoint(contents: &Contents) -> bool {
    contents.metadata.get("format").is_some_and(|format| format == FORMAT)
}

/// The model in a checkpoint, as its run would have kept it: the moving average of the weights, where there is one.
pub fn model(contents: &Contents, state: &State) -> Contents {
    let average = only(contents, "ema.");
    let mut model = if average.tensors.is_empty() { only(contents, "model.") } else { average };
    let images = state.split.as_ref().map_or(0, |split| split.images);
    let trained = Trained { steps: state.step, images, ap: None };
    ModelInfo { config: state.config.clone(), categories: state.categories.clone(), trained }
        .write_to(&mut model);
    model
}

/// The tensors of a checkpoint under `prefix`, without it.
pub(super) fn only(contents: &Contents, prefix: &str) -> Contents {
    let tensors = contents.tensors.iter();
    let tensors = tensors
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
        .collect();
    Contents { tensors, ..Contents::default() }
}

/// What is wrong with a checkpoint, in words.
#[derive(Debug, Error)]
pub enum Fault {
    /// It is not there, or not what was written: the one before it is the best that there is.
    #[error("{0}")]
    Damage(String),
    /// It may well be whole: the system does not give it, or another version has written it.
    #[error("{0}")]
    Unreadable(String),
}

/// Reads one checkpoint.
pub fn read(path: &Path) -> Result<(Contents, State), Fault> {
    let contents = Contents::read(path).map_err(|error| match &error {
        WeightsError::Read { source, .. } => {
            let told = format!("{error}: {source}");
            // One that is too short is no error of the system's.
            let system = source.raw_os_error().is_some();
            let there = system && source.kind() != io::ErrorKind::NotFound;
            if there { Fault::Unreadable(told) } else { Fault::Damage(told) }
        }
        _ => Fault::Damage(match fs::metadata(path) {
            Ok(found) => format!("{error}, {} bytes long", found.len()),
            Err(_) => error.to_string(),
        }),
    })?;
    let get = |key: &str| contents.metadata.get(key).map(String::as_str).unwrap_or_default();
    let damage = if seal::is_sealed(&contents) {
        seal::broken(path, &contents)
            .map_err(|e| Fault::Unreadable(format!("cannot read {}: {e}", path.display())))?
    } else {
        // The first versions knew a checksum of the tensors.
        (get("sha256") != contents.sha256()).then(|| "its checksum is wrong".to_owned())
    };
    if let Some(damage) = damage {
        return Err(Fault::Damage(format!("{} is damaged: {damage}", path.display())));
    }
    if get("format") != FORMAT {
        let told = format!("{} is not a checkpoint of a training run", path.display());
        return Err(Fault::Damage(told));
    }
    let unreadable = |e: serde_json::Error| {
        // Its seal is whole: so was it written.
        Fault::Unreadable(format!("{} has a state that can't be read: {e}", path.display()))
    };
    let mut state: serde_json::Value = serde_json::from_str(get("state")).map_err(unreadable)?;
    match get("version") {
        VERSION => {}
        "" | "2" => {
            if let Some(config) = state.get_mut("config") {
                upgrade(config);
            }
        }
        other => {
            return Err(Fault::Unreadable(format!(
                "{} is of version '{other}', which this program does not know",
                path.display()
            )));
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
        let mut config = Config::recipe("tiny", &[]).unwrap();
        config.train.precision = detect::config::Precision::Float32;
        let state = State {
            step: 3,
            total: 9,
            best: None,
            stale: 0,
            seconds: 1.5,
            evaluation_due: false,
            skipped: 0,
            left_out: 0,
            loss_scale: Some(LossScale { factor: 1024., good: 7 }),
            config,
            categories: Vec::new(),
            data: "data".into(),
            split: None,
            val: None,
            computing: None,
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
            ("train", "precision"),
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
        contents.metadata.remove("pieces");
        contents.metadata.insert("sha256".into(), contents.sha256());
        contents.write(&path).unwrap();
        assert_eq!(load(run.path()).unwrap().1, state);
        // What may be whole is not passed over for the one before it.
        save(run.path(), Contents::default(), &state).unwrap();
        contents.metadata.insert("version".into(), "4".into());
        contents.write(&path).unwrap();
        let error = load(run.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("version '4'") && error.contains("move the file away"), "{error}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap(); // which the system does not read
        let error = load(run.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(LAST) && error.contains("move the file away"), "{error}");
        fs::remove_dir(&path).unwrap();
        assert_eq!(load(run.path()).unwrap().2, run.path().join(PREVIOUS));
    }
}
