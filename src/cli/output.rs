//! Files that a verb is told to write: looked at before its work, not after.

use std::path::Path;

use crate::failure::Exit;
use crate::whole;

/// Refuses to write `path`, which the argument `flag` names, where its folder is not there, where it is a device or the
/// like, or where it is one of `inputs`, by whatever name.
///
/// # Errors
/// With the exit code for output, or for wrong usage.
pub(super) fn check(flag: &str, path: &Path, inputs: &[&Path]) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return crate::fail!(
            Exit::Output,
            "{flag}: cannot write {}, since there is no folder {}",
            path.display(),
            folder.display()
        );
    }
    if path.is_dir() {
        return crate::fail!(Exit::Output, "{flag} {} is a folder", path.display());
    }
    if !whole::may_become_file(path) {
        return crate::fail!(
            Exit::Output,
            "{flag} {} is no regular file, and would become one: name a file",
            path.display()
        );
    }
    if let Some(input) = inputs.iter().find(|input| is_same(path, input)) {
        return crate::fail!(
            Exit::Usage,
            "{flag} {} is {}, which is read: choose another name",
            path.display(),
            input.display()
        );
    }
    Ok(())
}

/// Whether two names mean the same file, which is there.
fn is_same(a: &Path, b: &Path) -> bool {
    let [a, b] = [a, b].map(|path| path.canonicalize().ok());
    a.is_some() && a == b
}
