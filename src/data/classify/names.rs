//! What a classifier's outputs are called.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// ImageNet-1k's classes: index, WordNet id, name, one class a line after a heading.
const IMAGENET: &str = include_str!("../../../data/imagenet_classes.tsv");

/// Why a list of classes can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NamesError {
    /// There are none.
    #[error("there are no class names")]
    None,
    /// A WordNet id for each class, or none at all.
    #[error("there are {names} class names and {wnids} WordNet ids")]
    Counts {
        /// Names.
        names: usize,
        /// WordNet ids.
        wnids: usize,
    },
    /// A WordNet id stands twice.
    #[error("the WordNet id '{wnid}' stands for two classes")]
    Twice {
        /// Which.
        wnid: String,
    },
}

/// What the outputs of a classifier are called, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassNames {
    /// Class `k` is `names[k]`. ImageNet has two cranes and two maillots: names may repeat.
    pub names: Vec<String>,
    /// WordNet ids, such as `n01440764`, of the same classes; empty where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wnids: Vec<String>,
}

impl ClassNames {
    /// The 1000 classes of ImageNet (ILSVRC 2012) in the order of the published networks' outputs, which
    /// is that of the WordNet ids.
    pub fn imagenet() -> Self {
        let row = |line: &str| {
            let mut fields = line.split('\t').skip(1).map(str::to_owned);
            let field = fields.next().zip(fields.next());
            field.expect("a test reads every line of the compiled-in list")
        };
        let (wnids, names) = IMAGENET.lines().skip(1).map(row).unzip();
        Self { names, wnids }
    }

    /// The classes of CIFAR-10 in the order of its labels.
    pub fn cifar10() -> Self {
        let names = [
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ];
        Self { names: names.map(str::to_owned).to_vec(), wnids: Vec::new() }
    }

    /// Names for `count` classes of which nothing is known.
    pub fn numbered(count: usize) -> Self {
        Self { names: (0..count).map(|k| format!("class {k}")).collect(), wnids: Vec::new() }
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none, which [`Self::check`] refuses.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The WordNet id of class `k`, where ids are known.
    pub fn wnid(&self, k: usize) -> Option<&str> {
        self.wnids.get(k).map(String::as_str)
    }

    /// Whether it is a list of classes.
    ///
    /// # Errors
    /// See [`NamesError`].
    pub fn check(&self) -> Result<(), NamesError> {
        let (names, wnids) = (self.names.len(), self.wnids.len());
        if names == 0 {
            return Err(NamesError::None);
        }
        if wnids != 0 && wnids != names {
            return Err(NamesError::Counts { names, wnids });
        }
        let mut seen = HashSet::new();
        match self.wnids.iter().find(|wnid| !seen.insert(*wnid)) {
            Some(wnid) => Err(NamesError::Twice { wnid: wnid.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_imagenet_is_whole_and_in_order() {
        let heading = IMAGENET.lines().next().unwrap();
        assert_eq!(heading, "index\twnid\tname");
        for (k, line) in IMAGENET.lines().skip(1).enumerate() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [index, wnid, name] = fields[..] else { panic!("line {k}: {line}") };
            assert_eq!(index, k.to_string());
            assert!(wnid.len() == 9 && wnid.starts_with('n'), "{line}");
            assert!(wnid[1..].bytes().all(|b| b.is_ascii_digit()), "{line}");
            assert_eq!(name.trim(), name);
            assert!(!name.is_empty(), "{line}");
        }
        let classes = ClassNames::imagenet();
        assert_eq!(classes.len(), 1000);
        assert!(classes.wnids.is_sorted_by(|a, b| a < b), "ascending, so each once");
        assert_eq!(classes.check(), Ok(()));
    }

    /// Known from everywhere: 0 is the tench, 207 the golden retriever, 281 the tabby, 999 toilet paper.
    #[test]
    fn well_known_classes_stand_in_their_places() {
        let classes = ClassNames::imagenet();
        for (k, wnid, name) in [
            (0, "n01440764", "tench"),
            (134, "n02012849", "crane"),
            (207, "n02099601", "golden retriever"),
            (281, "n02123045", "tabby"),
            (517, "n03126707", "crane"),
            (999, "n15075141", "toilet tissue"),
        ] {
            assert_eq!(classes.wnid(k), Some(wnid));
            assert!(classes.names[k].starts_with(name), "{k}: {}", classes.names[k]);
        }
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        let list = |names: &[&str], wnids: &[&str]| ClassNames {
            names: names.iter().map(|s| (*s).to_owned()).collect(),
            wnids: wnids.iter().map(|s| (*s).to_owned()).collect(),
        };
        assert_eq!(list(&[], &[]).check(), Err(NamesError::None));
        assert_eq!(
            list(&["a", "b"], &["n1"]).check(),
            Err(NamesError::Counts { names: 2, wnids: 1 })
        );
        let twice = NamesError::Twice { wnid: "n1".into() };
        assert_eq!(list(&["a", "b"], &["n1", "n1"]).check(), Err(twice));
        assert_eq!(list(&["crane", "crane"], &["n1", "n2"]).check(), Ok(()));
        assert_eq!(list(&["a", "a"], &[]).check(), Ok(()));
        assert_eq!(ClassNames::numbered(2).names, ["class 0", "class 1"]);
    }
}
