//! The images that a command line names: files, folders of them, standard input.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::data::image::{self, EXTENSIONS, Rgb};
use crate::failure::Exit;
use crate::watch::progress::Progress;
use anyhow::Context as _;

/// The name that stands for standard input.
pub(super) const STDIN: &str = "-";

/// How the pictures end that `--out` is given. In a folder they are no images to look at: there may be those of an
/// earlier call.
pub(super) const PICTURE: &str = ".detections.jpg";

/// Images that are decoded a batch at a time. One that fails is named on stderr and counted.
pub(super) struct Inputs {
    files: std::vec::IntoIter<PathBuf>,
    total: usize,
    failed: usize,
    bar: Progress,
}

impl Inputs {
    /// The images that `arguments` stand for.
    pub(super) fn new(arguments: &[PathBuf]) -> Self {
        let (mut files, mut failed) = (Vec::new(), 0);
        for argument in arguments {
            match expand(argument) {
                Ok(found) => files.extend(found),
                Err(problem) => {
                    tracing::error!("{problem}");
                    failed += 1;
                }
            }
        }
        let total = files.len();
        let bar = if total < 2 { Progress::hidden() } else { Progress::start(total, 0, "images") };
        Self { files: files.into_iter(), total, failed, bar }
    }

    /// Those of the next `count` files that can be decoded; `None` at the end.
    pub(super) fn next(&mut self, count: usize) -> Option<Vec<(PathBuf, Rgb)>> {
        let chunk: Vec<PathBuf> = self.files.by_ref().take(count).collect();
        let mut images = Vec::new();
        // What was given out before is done by now.
        self.bar.set_position((self.total - self.files.len() - chunk.len()) as u64);
        for file in &chunk {
            match read(file) {
                Ok(image) => images.push((file.clone(), image)),
                Err(problem) => {
                    self.bar.suspend(|| tracing::error!("{problem:#}"));
                    self.failed += 1;
                }
            }
        }
        (!chunk.is_empty()).then_some(images)
    }

    /// The bar, which has to be suspended while something is printed.
    pub(super) fn bar(&self) -> &Progress {
        &self.bar
    }

    /// Ends the bar, and says what became of all.
    pub(super) fn finish(self) -> Exit {
        self.bar.finish_and_clear();
        if self.failed == 0 {
            return Exit::Done;
        }
        tracing::error!("{} of the inputs failed", self.failed);
        Exit::SomeInputsFailed
    }
}

/// The image files that an argument stands for: itself, or those in a folder, by name.
fn expand(input: &Path) -> Result<Vec<PathBuf>, String> {
    if !input.is_dir() {
        return Ok(vec![input.to_owned()]);
    }
    let unreadable = |e: std::io::Error| format!("cannot read the folder {}: {e}", input.display());
    let is_image = |path: &Path| {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()) && !path.is_dir()
    };
    let is_picture = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(PICTURE))
    };
    let is_hidden =
        |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
    let (mut found, [mut pictures, mut others, mut folders]) = (Vec::new(), [0; 3]);
    for entry in std::fs::read_dir(input).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if is_picture(&path) {
            pictures += 1;
        } else if is_image(&path) {
            found.push(path);
        } else if path.is_dir() {
            folders += usize::from(!is_hidden(&path));
        } else {
            others += usize::from(!is_hidden(&path));
        }
    }
    found.sort();
    let pictures_of_ours = format!("pictures *{PICTURE}");
    let left_out: Vec<String> = [
        (pictures, pictures_of_ours.as_str()),
        (others, "files with other endings"),
        (folders, "folders"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if !left_out.is_empty() {
        tracing::info!("{}: left out: {}", input.display(), left_out.join(", "));
    }
    if found.is_empty() {
        return Err(format!(
            "the folder {} holds no images ({})",
            input.display(),
            EXTENSIONS.join(", ")
        ));
    }
    Ok(found)
}

/// Decodes a file, or standard input.
fn read(file: &Path) -> anyhow::Result<Rgb> {
    let decoded = if file.as_os_str() == STDIN {
        let mut bytes = Vec::new();
        // One byte over what any image may have, so that an endless stream ends.
        let limit = image::MAX_DECODED_BYTES + 1;
        std::io::stdin()
            .take(limit)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        let mut copy = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        copy.write_all(&bytes).context("cannot write a temporary file")?;
        image::decode(copy.path()).map_err(|error| error.about(Path::new("standard input")))?
    } else {
        image::decode(file)?
    };
    if let Some(warning) = &decoded.warning {
        tracing::warn!("{}: {warning}", file.display());
    }
    Ok(decoded.image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stand_for_their_images_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.PNG", "a.jpg", "notes.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(dir.path().join("folder.jpg")).unwrap();
        let found = expand(dir.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.jpg", "b.PNG"]);
        let error = expand(&dir.path().join("folder.jpg")).unwrap_err();
        assert!(error.contains("holds no images"), "{error}");
    }
}
