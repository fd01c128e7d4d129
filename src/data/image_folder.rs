//! Images sorted into a folder a class: `DIR/CLASS/*.jpg`, torchvision's `ImageFolder`.
//!
//! ImageNet's validation images lie so in `DIR/val/CLASS/`, and that folder is taken where there is one.
//! A folder is called by its class's WordNet id, name or index: [`ImageFolder::match_classes`].

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::classify::ClassNames;
use super::image::EXTENSIONS;

/// Folders inside a class folder are searched this deep, so that a link to itself ends.
const DEEPEST: usize = 8;
/// An error lists this many.
const LISTED: usize = 10;

/// Why a folder of classes can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageFolderError {
    /// There is no such folder.
    #[error("there is no folder {path}; {EXPECTED}")]
    NoFolder {
        /// Which.
        path: PathBuf,
    },
    /// It can't be read.
    #[error("cannot read the folder {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are no folders in it.
    #[error("{path} has no class folders ({holds}); {EXPECTED}")]
    NoClasses {
        /// Which.
        path: PathBuf,
        /// What it has instead.
        holds: String,
    },
    /// Folders without an image.
    #[error("{count} class folders in {path} hold no images: {list}; {EXPECTED}")]
    Empty {
        /// Where.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first of them.
        list: String,
    },
    /// Folders inside folders without end.
    #[error("{path}: folders inside a class folder are more than {DEEPEST} deep")]
    Deep {
        /// Where.
        path: PathBuf,
    },
    /// Folders that stand for no class of the model.
    #[error("{count} of the {folders} class folders are no class of the model: {list}; {advice}")]
    NoSuchClass {
        /// How many.
        count: usize,
        /// Of how many.
        folders: usize,
        /// The first of them.
        list: String,
        /// What folders may be called.
        advice: String,
    },
    /// Two folders that stand for one class.
    #[error("the class folders '{first}' and '{second}' are both class {class} of the model")]
    Twice {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// The class's index.
        class: usize,
    },
}

const EXPECTED: &str = "expected are DIR/CLASS/*.jpg or DIR/val/CLASS/*.jpg, a folder for each class, called by its WordNet id (n01440764), its name or its index";

/// An image of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderImage {
    /// The file.
    pub path: PathBuf,
    /// Its folder is `classes[class]`.
    pub class: usize,
}

/// A tree of images, a folder a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFolder {
    /// The folder that the class folders are in.
    pub root: PathBuf,
    /// Names of the class folders, ascending.
    pub classes: Vec<String>,
    /// By class, then by path. Each class has at least one.
    pub images: Vec<FolderImage>,
}

impl ImageFolder {
    /// Lists the images below `dir`, or below `dir/val` where that has folders in it. Nothing is decoded.
    ///
    /// # Errors
    /// See [`ImageFolderError`].
    pub fn open(dir: &Path) -> Result<Self, ImageFolderError> {
        if !dir.is_dir() {
            return Err(ImageFolderError::NoFolder { path: dir.to_owned() });
        }
        let val = dir.join("val");
        let root = if val.is_dir() && !Listing::of(&val)?.folders.is_empty() {
            val
        } else {
            dir.to_owned()
        };
        let Listing { folders, files } = Listing::of(&root)?;
        if folders.is_empty() {
            let images = files.iter().filter(|file| is_image(file)).count();
            let holds = match images {
                0 => "it holds no images either".to_owned(),
                n => format!("{n} images lie in it directly"),
            };
            return Err(ImageFolderError::NoClasses { path: root, holds });
        }
        let (mut classes, mut images, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        for folder in folders {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut found = Vec::new();
            collect(&folder, 0, &mut found)?;
            if found.is_empty() {
                empty.push(name.clone());
            }
            let class = classes.len();
            images.extend(found.into_iter().map(|path| FolderImage { path, class }));
            classes.push(name);
        }
        if !empty.is_empty() {
            let (count, list) = (empty.len(), first(&empty));
            return Err(ImageFolderError::Empty { path: root, count, list });
        }
        Ok(Self { root, classes, images })
    }

    /// For each class folder, which class of the model it is.
    ///
    /// All folders are called by one thing: WordNet ids, names or indices, whichever most of them fit. A
    /// name may be one of several that a class has ("tench, Tinca tinca") where no other class has it;
    /// case does not count, and `_` is a space.
    ///
    /// # Errors
    /// Folders that are no class of the model, or two that are the same.
    pub fn match_classes(&self, names: &ClassNames) -> Result<Vec<usize>, ImageFolderError> {
        let by_wnid: HashMap<&str, usize> =
            names.wnids.iter().enumerate().map(|(k, wnid)| (wnid.as_str(), k)).collect();
        let by_name = by_name(names);
        let index = |folder: &str| folder.parse().ok().filter(|k: &usize| *k < names.len());
        let fits: [Vec<Option<usize>>; 3] = [
            self.classes.iter().map(|f| by_wnid.get(f.as_str()).copied()).collect(),
            self.classes.iter().map(|f| by_name.get(&plain(f)).copied().flatten()).collect(),
            self.classes.iter().map(|f| index(f)).collect(),
        ];
        let count = |fit: &Vec<Option<usize>>| fit.iter().flatten().count();
        // The first of equals: names before indices, since classes may be called 0 to 9.
        let best = fits.iter().rev().max_by_key(|fit| count(fit)).expect("there are three");
        let strangers: Vec<String> = (self.classes.iter().zip(best))
            .filter(|(_, class)| class.is_none())
            .map(|(folder, _)| folder.clone())
            .collect();
        if !strangers.is_empty() {
            let example = |k: usize| match names.wnid(k) {
                Some(wnid) => format!("{wnid}, '{}' or {k}", names.names[k]),
                None => format!("'{}' or {k}", names.names[k]),
            };
            return Err(ImageFolderError::NoSuchClass {
                count: strangers.len(),
                folders: self.classes.len(),
                list: first(&strangers),
                advice: if names.is_empty() {
                    "the model has no classes".to_owned()
                } else {
                    format!(
                        "the model has {} classes, and a folder of the first is called {}",
                        names.len(),
                        example(0)
                    )
                },
            });
        }
        let matched: Vec<usize> = best.iter().copied().flatten().collect();
        let mut taken: HashMap<usize, &str> = HashMap::new();
        for (folder, &class) in self.classes.iter().zip(&matched) {
            if let Some(other) = taken.insert(class, folder) {
                let (first, second) = (other.to_owned(), folder.clone());
                return Err(ImageFolderError::Twice { first, second, class });
            }
        }
        Ok(matched)
    }
}

/// Names as they are compared.
fn plain(name: &str) -> String {
    name.trim().replace('_', " ").to_lowercase()
}

/// Classes by each of their names; `None` where several have it.
fn by_name(names: &ClassNames) -> HashMap<String, Option<usize>> {
    let mut found: HashMap<String, Option<usize>> = HashMap::new();
    let mut add = |name: String, k: usize| {
        found.entry(name).and_modify(|of| *of = of.filter(|of| *of == k)).or_insert(Some(k));
    };
    for (k, name) in names.names.iter().enumerate() {
        add(plain(name), k);
        name.split(',').for_each(|synonym| add(plain(synonym), k));
    }
    found
}

fn first(names: &[String]) -> String {
    let rest = names.len().saturating_sub(LISTED);
    let listed = names.iter().take(LISTED).map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ");
    if rest == 0 { listed } else { format!("{listed} and {rest} more") }
}

/// What is in a folder, ascending by name.
struct Listing {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Listing {
    fn of(folder: &Path) -> Result<Self, ImageFolderError> {
        let error = |source| ImageFolderError::Read { path: folder.to_owned(), source };
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(error)? {
            let entry = entry.map_err(error)?;
            // Hidden ones are other programs' own.
            if !entry.file_name().to_string_lossy().starts_with('.') {
                paths.push(entry.path());
            }
        }
        paths.sort();
        let (folders, files) = paths.into_iter().partition(|path| path.is_dir());
        Ok(Self { folders, files })
    }
}

fn is_image(file: &Path) -> bool {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

fn collect(folder: &Path, depth: usize, images: &mut Vec<PathBuf>) -> Result<(), ImageFolderError> {
    if depth > DEEPEST {
        return Err(ImageFolderError::Deep { path: folder.to_owned() });
    }
    let Listing { folders, files } = Listing::of(folder)?;
    images.extend(files.into_iter().filter(|file| is_image(file)));
    folders.iter().try_for_each(|folder| collect(folder, depth + 1, images))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        root
    }

    fn open(root: &tempfile::TempDir) -> ImageFolder {
        ImageFolder::open(root.path()).unwrap()
    }

    fn names(names: &[&str], wnids: &[&str]) -> ClassNames {
        ClassNames {
            names: names.iter().map(|s| (*s).to_owned()).collect(),
            wnids: wnids.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    #[test]
    fn folders_are_classes_in_the_order_of_their_names() {
        let root = tree(&[
            "b/2.JPEG",
            "b/1.jpg",
            "a/x.png",
            "B/sub/y.jpg",
            "a/notes.txt",
            ".git/z.jpg",
            "c.jpg",
        ]);
        let found = open(&root);
        assert_eq!(found.root, root.path());
        assert_eq!(found.classes, ["B", "a", "b"], "by code point, as Python sorts");
        let images: Vec<(String, usize)> = found
            .images
            .iter()
            .map(|i| (i.path.strip_prefix(root.path()).unwrap().display().to_string(), i.class))
            .collect();
        let expected = [("B/sub/y.jpg", 0), ("a/x.png", 1), ("b/1.jpg", 2), ("b/2.JPEG", 2)];
        assert_eq!(images, expected.map(|(path, class)| (path.to_owned(), class)));
    }

    #[test]
    fn the_validation_split_is_taken_where_there_is_one() {
        let root = tree(&["val/n01440764/1.jpg", "train/n01440764/2.jpg"]);
        let found = open(&root);
        assert_eq!(found.root, root.path().join("val"));
        assert_eq!((found.classes.len(), found.images.len()), (1, 1));
        // A class called "val" holds images, not folders.
        let root = tree(&["val/1.jpg", "other/2.jpg"]);
        assert_eq!(open(&root).classes, ["other", "val"]);
    }

    #[test]
    fn trees_of_another_form_are_refused_with_the_one_expected() {
        let root = tree(&["1.jpg", "2.jpg"]);
        for (dir, words) in [
            (root.path().to_owned(), "2 images lie in it directly"),
            (root.path().join("none"), "there is no folder"),
        ] {
            let message = ImageFolder::open(&dir).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("DIR/CLASS/*.jpg"), "{message}");
        }
        let root = tree(&["a/1.jpg", "b/notes.txt"]);
        let message = ImageFolder::open(root.path()).unwrap_err().to_string();
        assert!(message.contains("1 class folders") && message.contains("'b'"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_itself_ends() {
        let root = tree(&["a/1.jpg"]);
        std::os::unix::fs::symlink(root.path().join("a"), root.path().join("a/again")).unwrap();
        let message = ImageFolder::open(root.path()).unwrap_err().to_string();
        assert!(message.contains("more than 8 deep"), "{message}");
    }

    #[test]
    fn folders_are_called_by_wordnet_id_name_or_index() {
        let imagenet = ClassNames::imagenet();
        for (files, want) in [
            (["n01440764/1.jpg", "n15075141/1.jpg"], [0, 999]),
            // In the order of the folders: Tinca before toilet.
            (["toilet tissue/1.jpg", "Tinca_tinca/1.jpg"], [0, 999]),
            (["0007/1.jpg", "12/1.jpg"], [7, 12]),
        ] {
            assert_eq!(open(&tree(&files)).match_classes(&imagenet).unwrap(), want);
        }
        // Names before indices: here '0' is the second class.
        let digits = names(&["1", "0"], &[]);
        assert_eq!(open(&tree(&["0/a.jpg", "1/a.jpg"])).match_classes(&digits).unwrap(), [1, 0]);
    }

    #[test]
    fn folders_that_are_no_class_or_one_class_twice_are_named() {
        let two = names(&["cat, house cat", "dog"], &["n02121808", "n02084071"]);
        let message =
            |files: &[&str]| open(&tree(files)).match_classes(&two).unwrap_err().to_string();
        let text = message(&["cat/1.jpg", "bird/1.jpg", "dog/1.jpg"]);
        assert!(text.contains("1 of the 3 class folders") && text.contains("'bird'"), "{text}");
        assert!(text.contains("n02121808, 'cat, house cat' or 0"), "{text}");
        let text = message(&["cat/1.jpg", "house_cat/1.jpg"]);
        assert!(text.contains("'cat' and 'house_cat' are both class 0"), "{text}");
        let many: Vec<String> = (0..12).map(|k| format!("stranger {k:02}/1.jpg")).collect();
        let text = message(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(text.contains("'stranger 09' and 2 more"), "{text}");
        // Two classes of ImageNet are cranes: a folder of that name could be either.
        let cranes = open(&tree(&["crane/1.jpg"])).match_classes(&ClassNames::imagenet());
        assert!(cranes.unwrap_err().to_string().contains("'crane'"));
    }
}
