//! Where the shipped models lie.

use std::path::{Path, PathBuf};

/// Folders that may hold shipped models: beside the running program, and in the source tree that it was
/// built from. The current folder plays no part.
pub fn models_dirs() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Some(folder) = std::env::current_exe().ok().and_then(|exe| exe.canonicalize().ok()) {
        let folder = folder.parent().unwrap_or(Path::new(".")).to_owned();
        dirs.push(folder.join("data/models"));
        dirs.push(folder.join("../share/detect/models"));
    }
    dirs.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models"));
    dirs
}

/// The file of the shipped model `name`.
pub fn find(name: &str) -> Option<PathBuf> {
    let file = format!("{name}.safetensors");
    models_dirs().into_iter().map(|dir| dir.join(&file)).find(|path| path.is_file())
}

/// Names of all shipped models, sorted.
pub fn names() -> Vec<String> {
    let entries = models_dirs().into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    let name = |path: PathBuf| {
        let is_model = path.extension().is_some_and(|e| e == "safetensors");
        is_model.then(|| path.file_stem()?.to_str().map(str::to_owned)).flatten()
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| name(entry.ok()?.path())).collect();
    names.sort();
    names.dedup();
    names
}
