//! The files of a source, and which image a name in it means.
//!
//! Names in annotations come from strangers and from other machines: absolute paths, Windows' paths,
//! paths from another folder. What is found always lies in the source folder.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::error::ConvertError;
use crate::data::image::EXTENSIONS;

/// All files of a source folder, by path in it, in order of their names.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) root: PathBuf,
    /// The file that was named instead of the folder.
    pub(super) named: Option<PathBuf>,
    /// Without images, relative to the root.
    pub(super) others: Vec<PathBuf>,
    /// Relative to the root.
    pub(super) images: Vec<PathBuf>,
    by_name: HashMap<String, Vec<usize>>,
    by_stem: HashMap<String, Vec<usize>>,
    /// With and without their extension.
    by_path: HashMap<PathBuf, Vec<usize>>,
}

/// What a name means.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'a> {
    None,
    One(&'a Path),
    /// Some of them.
    Several(&'a Path, &'a Path),
}

impl Files {
    /// Of a folder, or of the one that a file lies in, or the one that holds its folder `annotations`.
    pub(super) fn of(source: &Path) -> Result<Self, ConvertError> {
        let read = |path: &Path, source| ConvertError::Read { path: path.to_owned(), source };
        let metadata = std::fs::metadata(source).map_err(|e| read(source, e))?;
        let (root, named) = if metadata.is_dir() {
            (source.to_owned(), None)
        } else {
            let folder = |path: &Path| match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            };
            let name = PathBuf::from(source.file_name().unwrap_or_default());
            let parent = folder(source);
            // Annotations have a folder beside those of the images.
            if parent.ends_with("annotations") {
                (folder(&parent), Some(Path::new("annotations").join(name)))
            } else {
                (parent, Some(name))
            }
        };
        let (mut others, mut images) = (Vec::new(), Vec::new());
        let walk = walkdir::WalkDir::new(&root).follow_links(true).sort_by_file_name();
        for entry in walk {
            let entry = match entry {
                Ok(entry) => entry,
                // A dangling link is a missing file, if anything asks for it.
                Err(error) if error.depth() > 0 && is_missing(&error) => continue,
                Err(error) => {
                    let path = error.path().unwrap_or(&root).to_owned();
                    let source = error.into_io_error().unwrap_or_else(|| {
                        std::io::Error::other("a link leads back to a folder that it lies in")
                    });
                    return Err(ConvertError::Read { path, source });
                }
            };
            if !entry.file_type().is_file() {
                continue;
            }
            let Ok(path) = entry.path().strip_prefix(&root) else { continue };
            if is_hidden(path) {
                continue;
            }
            if is_image(path) { images.push(path.to_owned()) } else { others.push(path.to_owned()) }
        }
        let (by_name, by_stem, by_path) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut files = Self { root, named, others, images, by_name, by_stem, by_path };
        for (i, path) in files.images.iter().enumerate() {
            let text = |part: Option<&std::ffi::OsStr>| part?.to_str().map(str::to_owned);
            for path in [path.clone(), path.with_extension("")] {
                files.by_path.entry(path).or_default().push(i);
            }
            if let Some(name) = text(path.file_name()) {
                files.by_name.entry(name).or_default().push(i);
            }
            if let Some(stem) = text(path.file_stem()) {
                files.by_stem.entry(stem).or_default().push(i);
            }
        }
        Ok(files)
    }

    /// A file of the source.
    pub(super) fn path(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    /// The text of a file of the source.
    pub(super) fn text(&self, relative: &Path) -> Result<String, ConvertError> {
        let path = self.path(relative);
        let bytes = std::fs::read(&path)
            .map_err(|source| ConvertError::Read { path: path.clone(), source })?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = good.split(|&b| b == b'\n').count();
            ConvertError::bad(&path, line, "this is not text in UTF-8: convert the file first")
        })?;
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }

    /// What was named as the source: the file, or the folder.
    pub(super) fn source(&self) -> PathBuf {
        self.named.as_ref().map_or(self.root.clone(), |named| self.root.join(named))
    }

    /// What may describe the set: the file that was named and no other, or all but images.
    fn describing(&self) -> impl Iterator<Item = &Path> {
        let others = if self.named.is_some() { &[][..] } else { &self.others[..] };
        self.named.iter().chain(others).map(PathBuf::as_path)
    }

    /// Those with this extension that may describe the set.
    pub(super) fn with_extension(&self, extension: &str) -> Vec<&Path> {
        let fits =
            |path: &&Path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
        self.describing().filter(fits).collect()
    }

    /// Those with one of these names that may describe the set.
    pub(super) fn called(&self, names: &[&str]) -> Vec<&Path> {
        let fits = |path: &&Path| path.file_name().is_some_and(|n| names.iter().any(|m| n == *m));
        self.describing().filter(fits).collect()
    }

    /// The image that `name`, which stands in a file in the folder `near`, means.
    ///
    /// As a path from `near` or from the root it means one file. Else it is the image whose path ends
    /// with most of it: paths were absolute, or from another folder, when they were written. Of several
    /// that is the one in a folder named after `split`. A name without an extension may mean an image
    /// with any.
    pub(super) fn image(&self, name: &str, near: &Path, split: Option<&str>) -> Found<'_> {
        let name = name.trim().replace('\\', "/");
        let parts: Vec<&str> =
            name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let Some(last) = parts.last().filter(|_| !parts.contains(&"..")) else {
            return Found::None;
        };
        let relative: PathBuf = parts.iter().collect();
        let candidates = match self.by_name.get(*last) {
            Some(places) => places,
            None => match self.by_stem.get(*last) {
                Some(places) => places,
                None => return Found::None,
            },
        };
        let path = |i: usize| self.images[i].as_path();
        if !name.starts_with('/') {
            for exact in [near.join(&relative), relative] {
                if let Some([i]) = self.by_path.get(&exact).map(Vec::as_slice) {
                    return Found::One(path(*i));
                }
            }
        }
        // How many folders from the end are the same; whether one is the split's; whether it is near.
        let rank = |i: usize| {
            let folders = path(i).parent().into_iter().flat_map(Path::components).rev();
            let wanted = parts[..parts.len() - 1].iter().rev();
            let same = folders.zip(wanted).take_while(|(a, b)| a.as_os_str() == **b).count();
            let of_split = split.is_some_and(|split| {
                let folders = path(i).parent().into_iter().flat_map(Path::components);
                folders
                    .filter_map(|f| f.as_os_str().to_str())
                    .any(|folder| folder == split || split_of(folder).as_deref() == Some(split))
            });
            (same, of_split, !near.as_os_str().is_empty() && path(i).starts_with(near))
        };
        let best = candidates.iter().map(|&i| rank(i)).max();
        let hits: Vec<usize> =
            candidates.iter().copied().filter(|&i| Some(rank(i)) == best).collect();
        match hits[..] {
            [] => Found::None,
            [i] => Found::One(path(i)),
            [i, j, ..] => Found::Several(path(i), path(j)),
        }
    }
}

fn is_missing(error: &walkdir::Error) -> bool {
    error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// Whether a folder or file on the way begins with a dot, or is what macOS leaves in archives.
fn is_hidden(path: &Path) -> bool {
    path.components().any(|part| match part {
        Component::Normal(name) => name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX",
        _ => false,
    })
}

fn is_image(path: &Path) -> bool {
    path.extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| EXTENSIONS.contains(&e.to_lowercase().as_str()))
}

/// A path with `/`, for messages and file names. What is not UTF-8 is replaced.
pub(super) fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The split that a folder or file is named after, by its usual names.
pub(super) fn split_of(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let word = |text: &str, word: &str| {
        text.strip_prefix(word)
            .is_some_and(|rest| rest.chars().next().is_none_or(|c| !c.is_ascii_alphabetic()))
    };
    // Whole words only: `training` is one of them, `trainer` is not.
    let usual = |text: &str| {
        let words =
            ["trainval", "train", "training", "val", "valid", "validation", "test", "testing"];
        words.into_iter().find(|w| word(text, w)).map(|w| {
            let year = &text[w.len()..];
            let short = match w {
                "training" => "train",
                "valid" | "validation" => "val",
                "testing" => "test",
                other => other,
            };
            if !year.is_empty() && year.chars().all(|c| c.is_ascii_digit()) {
                format!("{short}{year}")
            } else {
                short.to_owned()
            }
        })
    };
    usual(&name).or_else(|| {
        let mut parts = name.split(|c: char| !c.is_ascii_alphanumeric());
        parts.find_map(usual)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_recognised_by_their_usual_names() {
        for (name, split) in [
            ("train", Some("train")),
            ("Train", Some("train")),
            ("valid", Some("val")),
            ("validation", Some("val")),
            ("train2017", Some("train2017")),
            ("instances_val2017", Some("val2017")),
            ("trainval", Some("trainval")),
            ("train_labels", Some("train")),
            ("test_annotations", Some("test")),
            ("trainer", None),
            ("images", None),
            ("values", None),
            ("contest", None),
            ("", None),
        ] {
            assert_eq!(split_of(name).as_deref(), split, "{name}");
        }
    }

    #[test]
    fn names_find_their_images_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x.jpg", "b/x.jpg", "b/y.png", "z.JPG", ".h/w.jpg", "b/notes.txt"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let files = Files::of(dir.path()).unwrap();
        assert_eq!((files.images.len(), files.others.len()), (4, 1));
        let one = |name: &str, near: &str| match files.image(name, Path::new(near), None) {
            Found::One(path) => shown(path),
            other => format!("{other:?}"),
        };
        assert_eq!(one("a/x.jpg", ""), "a/x.jpg");
        assert_eq!(one("x.jpg", "b"), "b/x.jpg");
        assert_eq!(one("/home/me/set/b/x.jpg", ""), "b/x.jpg");
        assert_eq!(one("C:\\set\\b\\x.jpg", ""), "b/x.jpg");
        assert_eq!(one("./y.png", ""), "b/y.png");
        assert_eq!(one("y", ""), "b/y.png");
        assert_eq!(one("z", ""), "z.JPG");
        for none in ["../x.jpg", "b/../a/x.jpg", "w.jpg", "", "/", "notes.txt", "x"] {
            let found = files.image(none, Path::new(""), None);
            let several = matches!(found, Found::Several(..));
            assert!(found == Found::None || (none == "x" && several), "{none}: {found:?}");
        }
        let in_b = files.image("x.jpg", Path::new(""), Some("b"));
        assert_eq!(in_b, Found::One(Path::new("b/x.jpg")));
        assert!(matches!(files.image("x.jpg", Path::new(""), None), Found::Several(..)));
    }
}
