//! Where the models lie that the program ships: `NAME.safetensors` in a `data/models` folder.

use std::path::{Path, PathBuf};

/// The folders that can hold shipped models, in the order of the search; not all of them exist.
///
/// Beside the program (`data/models`, or `../share/detect/models` of an installed one), then in the
/// source tree that it was built from. The current folder plays no part.
pub fn models_dirs() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    // Links are followed, so that a link to the program somewhere on the PATH works.
    if let Ok(program) = std::env::current_exe().and_then(|p| p.canonicalize()) {
        let folder = program.parent().unwrap_or(Path::new("/"));
        dirs.push(folder.join("data/models"));
        if let Some(prefix) = folder.parent() {
            dirs.push(prefix.join("share/detect/models"));
        }
    }
    dirs.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models"));
    dirs
}

/// The file of the shipped model `name`, where there is one. A name is not a path.
pub fn find(name: &str) -> Option<PathBuf> {
    find_in(&models_dirs(), name)
}

/// The names of all shipped models, in alphabetical order.
pub fn names() -> Vec<String> {
    names_in(&models_dirs())
}

/// As [`find`], in these folders.
pub fn find_in(dirs: &[PathBuf], name: &str) -> Option<PathBuf> {
    if name.is_empty() || name.contains(['/', '\\', '\0']) {
        return None;
    }
    dirs.iter().map(|dir| dir.join(format!("{name}.safetensors"))).find(|file| file.is_file())
}

/// As [`names`], in these folders.
pub fn names_in(dirs: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = dirs
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flat_map(Iterator::flatten)
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| {
            Some(entry.file_name().to_str()?.strip_suffix(".safetensors")?.to_owned())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_a_model_wins() {
        let root = tempfile::tempdir().unwrap();
        let dirs =
            [root.path().join("beside"), root.path().join("absent"), root.path().join("source")];
        std::fs::create_dir(&dirs[0]).unwrap();
        std::fs::create_dir(&dirs[2]).unwrap();
        std::fs::write(dirs[0].join("bccd.safetensors"), "").unwrap();
        std::fs::write(dirs[2].join("bccd.safetensors"), "").unwrap();
        std::fs::write(dirs[2].join("scenes.safetensors"), "").unwrap();
        std::fs::write(dirs[2].join("scenes.md"), "").unwrap();
        assert_eq!(names_in(&dirs), ["bccd", "scenes"]);
        assert_eq!(find_in(&dirs, "bccd"), Some(dirs[0].join("bccd.safetensors")));
        assert_eq!(find_in(&dirs, "scenes"), Some(dirs[2].join("scenes.safetensors")));
    }

    #[test]
    fn a_path_is_no_name() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.safetensors"), "").unwrap();
        let dirs = [root.path().join("models")];
        std::fs::create_dir(&dirs[0]).unwrap();
        for name in ["../a", "", "b"] {
            assert_eq!(find_in(&dirs, name), None, "{name:?}");
        }
    }

    #[test]
    fn the_source_tree_is_searched_wherever_the_program_runs() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(models_dirs().last(), Some(&source.join("data/models")));
    }
}
