//! Model files that are classifiers: a `.safetensors` that describes itself, beside [`super::model`]'s
//! detectors.
//!
//! The metadata holds the network, the preprocessing and the classes as JSON. Tensors are named
//! `backbone.<timm's name>`, and the classifier's `backbone.last_linear.{weight,bias}`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Contents, WeightsError};
use crate::config::Backbone;
use crate::data::classify::{ClassNames, Preprocessing};

/// Value of the key `format` in a model file.
pub(super) const FORMAT: &str = "detect-classifier";
/// What [`super::model`] has in that place.
const DETECTOR: &str = "detect-model";
/// Version of the form of the metadata.
const VERSION: &str = "1";
/// The stem has no output for fewer pixels a side.
const FEWEST_PIXELS_A_SIDE: usize = 3;
/// More than any list of classes has; it bounds the last layer.
pub(super) const MOST_CLASSES: usize = 1 << 20;

/// What a classifier's file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassifierInfo {
    /// How the network is built.
    pub backbone: Backbone,
    /// How an image becomes its input.
    pub preprocessing: Preprocessing,
    /// What its outputs are called.
    pub classes: ClassNames,
    /// Where the weights are from, for people.
    pub origin: String,
}

/// Whether a file's metadata describe a classifier.
pub fn is_classifier(metadata: &BTreeMap<String, String>) -> bool {
    metadata.get("format").is_some_and(|format| format == FORMAT)
}

impl ClassifierInfo {
    /// Puts the description into the metadata of `contents`.
    pub fn write_to(&self, contents: &mut Contents) {
        contents.metadata.extend(self.metadata());
    }

    /// The description as metadata of a file.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let json = serde_json::to_string(self).expect("plain structs become JSON");
        let entries = [("format", FORMAT), ("version", VERSION), ("classifier", &json)];
        entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    /// Reads the description in `contents`, which came from `path`.
    ///
    /// # Errors
    /// It describes no classifier, or one that can't be run.
    pub fn read_from(contents: &Contents, path: &Path) -> Result<Self, WeightsError> {
        Self::from_metadata(&contents.metadata, path)
    }

    /// Reads the description in the metadata of the file `path`.
    ///
    /// # Errors
    /// As [`Self::read_from`].
    pub fn from_metadata(
        metadata: &BTreeMap<String, String>,
        path: &Path,
    ) -> Result<Self, WeightsError> {
        let error = |reason: String| WeightsError::NotAModel { path: path.into(), reason };
        let get = |key: &str| metadata.get(key).map(String::as_str);
        match get("format") {
            Some(FORMAT) => {}
            Some(DETECTOR) => {
                return Err(error(
                    "holds a detector, not a classifier; `detect IMAGE` and `detect eval --split NAME` take it".into(),
                ));
            }
            _ => {
                return Err(error(
                    "holds tensors, but no description of a classifier; such files are written by `detect import`".into(),
                ));
            }
        }
        let version = get("version").unwrap_or_default();
        if version != VERSION {
            return Err(error(format!(
                "is a classifier of version '{version}'; this program reads version {VERSION}"
            )));
        }
        let info: Self = serde_json::from_str(get("classifier").unwrap_or_default())
            .map_err(|e| error(format!("has a description that can't be read: {e}")))?;
        info.check().map_err(|e| error(format!("has a description that does not work: {e}")))?;
        Ok(info)
    }

    /// Whether a network can be built of it and fed.
    ///
    /// # Errors
    /// Which part makes no sense.
    pub fn check(&self) -> Result<(), String> {
        let Backbone { stem_filters, norm_eps, .. } = self.backbone;
        if !(1..=1024).contains(&stem_filters) {
            return Err(format!("backbone.stem_filters is {stem_filters}; it must be 1 to 1024"));
        }
        if !(norm_eps.is_finite() && norm_eps > 0.) {
            return Err(format!("backbone.norm_eps is {norm_eps}; it must be positive"));
        }
        self.backbone.check().map_err(|e| e.to_string())?;
        self.preprocessing.check()?;
        let size = self.preprocessing.image_size;
        if size.height.min(size.width) < FEWEST_PIXELS_A_SIDE {
            return Err(format!(
                "image_size is {size}; a network sees at least {FEWEST_PIXELS_A_SIDE} pixels a side"
            ));
        }
        self.classes.check().map_err(|e| e.to_string())?;
        if self.classes.len() > MOST_CLASSES {
            return Err(format!("it has {} classes; at most {MOST_CLASSES}", self.classes.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::data::Category;
    use crate::weights::ModelInfo;
    use crate::weights::model::Trained;

    fn info() -> ClassifierInfo {
        ClassifierInfo {
            backbone: Config::recipe("nasnet_large_coco", &[]).unwrap().backbone,
            preprocessing: Preprocessing::timm_large(),
            classes: ClassNames::imagenet(),
            origin: "timm nasnetalarge.tf_in1k".into(),
        }
    }

    fn refused(contents: &Contents) -> String {
        ClassifierInfo::read_from(contents, Path::new("w.safetensors")).unwrap_err().to_string()
    }

    #[test]
    fn a_file_says_what_was_written_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut contents = Contents::default();
        info().write_to(&mut contents);
        assert_eq!(contents.metadata["format"], "detect-classifier");
        assert_eq!(contents.metadata["version"], "1");
        contents.write(&path).unwrap();
        let read = ClassifierInfo::read_from(&Contents::read(&path).unwrap(), &path).unwrap();
        assert_eq!(read, info());
    }

    #[test]
    fn detectors_and_classifiers_are_told_apart() {
        let categories = vec![Category { id: 1, name: "cell".into() }];
        let config = Config::recipe("tiny", &[]).unwrap();
        let mut detector = Contents::default();
        ModelInfo { config, categories, trained: Trained::default() }.write_to(&mut detector);
        let message = refused(&detector);
        assert!(message.contains("holds a detector"), "{message}");
        assert!(message.contains("`detect IMAGE`"), "{message}");
        let mut classifier = Contents::default();
        info().write_to(&mut classifier);
        let message = ModelInfo::read_from(&classifier, Path::new("w")).unwrap_err().to_string();
        assert!(message.contains("holds a classifier"), "{message}");
        assert!(message.contains("`detect classify`"), "{message}");
        let message = refused(&Contents::default());
        assert!(message.contains("no description of a classifier"), "{message}");
    }

    #[test]
    fn descriptions_that_do_not_work_are_refused_with_the_place() {
        let mut good = Contents::default();
        info().write_to(&mut good);
        let with = |key: &str, value: &str| {
            let mut contents = good.clone();
            contents.metadata.insert(key.into(), value.into());
            refused(&contents)
        };
        assert!(with("version", "2").contains("version '2'"));
        assert!(with("classifier", "{}").contains("can't be read: missing field `backbone`"));
        let changed = |change: &dyn Fn(&mut ClassifierInfo)| {
            let mut info = info();
            change(&mut info);
            let mut contents = Contents::default();
            info.write_to(&mut contents);
            refused(&contents)
        };
        for (message, words) in [
            (changed(&|i| i.backbone.stem_filters = 0), "stem_filters is 0"),
            (changed(&|i| i.backbone.norm_eps = -1.), "norm_eps is -1"),
            (
                changed(&|i| i.backbone.name = "nasnet-own-4@768".parse().unwrap()),
                "cells are missing",
            ),
            (changed(&|i| i.preprocessing.image_size.height = 1), "image_size is 1x331"),
            (changed(&|i| i.preprocessing.std[0] = 0.), "std"),
            (changed(&|i| i.classes.names.clear()), "no class names"),
            (changed(&|i| drop(i.classes.wnids.pop())), "1000 class names and 999 WordNet ids"),
        ] {
            assert!(message.contains("does not work") && message.contains(words), "{message}");
        }
    }
}
