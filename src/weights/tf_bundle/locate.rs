//! Which checkpoint a path means.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{WeightsError, text_format};
use super::{broken, refused, table};

/// The path of a checkpoint without `.index`.
pub(super) fn prefix(path: &Path) -> Result<PathBuf, WeightsError> {
    if path.is_dir() {
        return in_folder(path);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(stem) = name.strip_suffix(".index").or_else(|| data_of(name)) {
        return Ok(path.with_file_name(stem));
    }
    if with_suffix(path, ".index").is_file() {
        return Ok(path.into());
    }
    let error = |source| WeightsError::Read { path: path.into(), source };
    if table::is_table(path).map_err(error)? {
        return Err(first_form(path));
    }
    Err(broken(path, "there is no .index beside it"))
}

/// The files of the checkpoint `prefix`, those that are there.
pub(super) fn files(prefix: &Path) -> Vec<PathBuf> {
    let folder = match prefix.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let stem = prefix.file_name().and_then(|name| name.to_str());
    let is_data = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        stem.is_some() && name.and_then(data_of) == stem
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_data).collect();
    files.push(with_suffix(prefix, ".index"));
    files
}

/// `model.ckpt` of `model.ckpt.data-00000-of-00001`.
fn data_of(name: &str) -> Option<&str> {
    let (stem, numbers) = name.rsplit_once(".data-")?;
    let (number, of) = numbers.split_once("-of-")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits(number) && digits(of)).then_some(stem)
}

/// The file `checkpoint` names the latest; without it there has to be exactly one.
fn in_folder(folder: &Path) -> Result<PathBuf, WeightsError> {
    let error = |source| WeightsError::Read { path: folder.into(), source };
    if let Some(latest) = latest(folder)? {
        return Ok(latest);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.extension().is_some_and(|extension| extension == "index") {
            found.push(path);
        }
    }
    found.sort();
    match &found[..] {
        [one] => Ok(one.with_extension("")),
        [] => Err(refused(folder, "holds no TensorFlow checkpoint (no file *.index)".into())),
        several => {
            let names: Vec<_> =
                several.iter().map(|path| path.display().to_string()).take(8).collect();
            let reason =
                format!("holds {} checkpoints; name one of {}", several.len(), names.join(", "));
            Err(refused(folder, reason))
        }
    }
}

/// What the file `checkpoint` names, where that is there. Its path may be of another machine; then the
/// name counts.
fn latest(folder: &Path) -> Result<Option<PathBuf>, WeightsError> {
    let list = folder.join("checkpoint");
    if !list.is_file() {
        return Ok(None);
    }
    let tree = text_format::read(&list, "checkpoint")?;
    let named = tree.fields("model_checkpoint_path").next().and_then(|field| field.value.text());
    let Some(named) = named else {
        return Ok(None);
    };
    let named = Path::new(named);
    let beside = named.file_name().map(|name| folder.join(name));
    let candidates = [Some(folder.join(named)), beside];
    let there = |prefix: &PathBuf| with_suffix(prefix, ".index").is_file();
    Ok(candidates.into_iter().flatten().find(there))
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The error for checkpoints from before TensorFlow 0.12.
pub(super) fn first_form(path: &Path) -> WeightsError {
    let reason = "is a checkpoint of TensorFlow's first form (V1), which is not supported; restore it in TensorFlow and save it with tf.compat.v1.train.Saver(write_version=tf.compat.v1.train.SaverDef.V2)";
    refused(path, reason.into())
}
