//! What was left out, changed, or left as it is: nothing is lost silently.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Serialize, Serializer};

use super::files::shown;

/// This many places of each kind are named.
const EXAMPLES: usize = 10;

/// This many of them stand in an error: the parts of a set, as train, val and test.
const TOLD: usize = 3;

/// What became of the entries of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Something that could not be used is not in the new folder.
    Failed,
    /// Something is not in the new folder.
    Dropped,
    /// Something is in the new folder, but otherwise.
    Changed,
    /// Something is wrong, and as it was: there is no one right answer.
    Wrong,
    /// Something is worth a look, and as it was.
    Kept,
}

macro_rules! changes {
    ($($name:ident, $fate:ident, $meaning:literal;)*) => {
        /// What can happen to an entry. The order is that of reports.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[expect(missing_docs, reason = "Change::meaning says it")]
        pub enum Change { $($name,)* }

        impl Change {
            /// What became of it.
            pub fn fate(self) -> Fate {
                match self { $(Self::$name => Fate::$fate,)* }
            }

            /// In words, for a line that begins with a number.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

changes! {
    MissingImage, Failed, "images left out with their boxes: no such file in the source folder";
    BrokenImage, Failed, "images left out with their boxes: they can't be decoded";
    BadFileName, Failed, "images left out with their boxes: their names leave the image folder";
    NotAnnotated, Failed, "images of a split left out: they have no annotation file";
    NotListed, Dropped, "annotated images left out: no split lists them";
    SplitLeftOut, Dropped, "splits left out";
    UnusedLabels, Failed, "label files left out: no image of a split is theirs";
    FileSkipped, Dropped, "files not read";
    BrokenEntry, Failed, "entries left out: they can't be read";
    UnknownImage, Failed, "annotations left out: their image is not listed";
    UnknownCategory, Failed, "annotations left out: their category is not listed";
    NoBox, Dropped, "objects left out: they have no box";
    BadBox, Dropped, "objects left out: their boxes are none";
    ZeroAreaBox, Dropped, "objects left out: their boxes have no area";
    OutsideBox, Dropped, "objects left out: they lie outside of the image";
    RepeatedEntry, Dropped, "entries left out: they stand there twice";
    DifficultDropped, Dropped, "difficult objects left out, as asked";
    DetailDropped, Dropped, "details of objects left out";
    DifficultAsCrowd, Changed, "difficult objects marked as crowds: not trained on, ignored in evaluation (see --difficult)";
    ClippedBox, Changed, "boxes cut off at the edge of the image";
    TurnedImage, Changed, "images whose boxes were turned as EXIF turns the image";
    Slashed, Changed, "file names whose folders are separated by / now";
    SizeCorrected, Changed, "declared sizes replaced by the file's";
    SizeAdded, Changed, "sizes taken from the file, where none was declared";
    Renumbered, Changed, "annotations with a new id: theirs was used twice or is no whole number";
    FilledIn, Changed, "annotations with an area or iscrowd that they did not have: the area of the mask or the box, iscrowd 0";
    WholeId, Changed, "ids that stood there as texts or with a decimal point: whole numbers now";
    NamedCategory, Changed, "categories without a name: named by their number";
    NoSplit, Changed, "files outside of the folders that name splits, so that all images went into one: move them, or name it with --split";
    SplitRenamed, Changed, "splits renamed";
    EmptyList, Wrong, "lists that must not be empty or missing";
    DuplicateImageId, Wrong, "image ids that stand for several files";
    DuplicateCategoryId, Wrong, "category ids that stand for several names";
    NoLabels, Wrong, "images, and no label file for any of them";
    OtherSize, Wrong, "images of another size than their boxes were made for";
    NotTurned, Wrong, "images annotated before EXIF turned them, with masks or keypoints that are not turned here";
    SharedName, Kept, "categories with the name of another, kept apart from it";
    MaybeTurned, Kept, "images mirrored or turned over by EXIF: their boxes may be for either side";
    Background, Kept, "images without objects, kept as background";
}

/// All entries of one kind in one split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// What.
    pub kind: Change,
    /// What became of them.
    pub fate: Fate,
    /// Where; `None` is the whole source.
    pub split: Option<String>,
    /// How many.
    pub count: usize,
    /// The first of them.
    pub examples: Vec<String>,
}

/// Everything that happened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Log(BTreeMap<(Change, Option<String>), (usize, Vec<String>)>);

impl Log {
    /// Notes one entry.
    pub(super) fn add(&mut self, kind: Change, split: Option<&str>, example: impl Into<String>) {
        let (count, examples) = self.0.entry((kind, split.map(str::to_owned))).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example.into());
        }
    }

    /// Notes that a file is not read, and what it lacks.
    pub(super) fn skipped(&mut self, path: &Path, lacks: &str) {
        self.add(Change::FileSkipped, None, format!("{}: {lacks}", shown(path)));
    }

    /// All of it, by kind and split.
    pub fn entries(&self) -> Vec<Entry> {
        let entry =
            |((kind, split), (count, examples)): (&(Change, Option<String>), &(usize, _))| {
                let examples: &Vec<String> = examples;
                Entry {
                    kind: *kind,
                    fate: kind.fate(),
                    split: split.clone(),
                    count: *count,
                    examples: examples.clone(),
                }
            };
        self.0.iter().map(entry).collect()
    }

    /// Whether nothing happened.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything has this fate.
    pub fn has(&self, fate: Fate) -> bool {
        self.0.keys().any(|(kind, _)| kind.fate() == fate)
    }

    /// The first thing that was left out, in words.
    pub(super) fn first_drop(&self) -> String {
        let first = self.0.iter().find(|((kind, _), _)| kind.fate() <= Fate::Dropped);
        first.map_or("it has no images".to_owned(), |((kind, _), noted)| told(*kind, noted, TOLD))
    }

    /// The first of these that happened in the split, in words.
    pub(super) fn first_of(&self, kinds: &[Change], split: &str) -> Option<String> {
        kinds.iter().find_map(|&kind| {
            let noted = self.0.get(&(kind, Some(split.to_owned())))?;
            Some(told(kind, noted, 1))
        })
    }
}

/// A kind of entry with this many examples at most.
fn told(kind: Change, (count, examples): &(usize, Vec<String>), most: usize) -> String {
    let examples = examples[..examples.len().min(most)].join("; ");
    format!("{count} {} ({examples})", kind.meaning())
}

impl Serialize for Log {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries().serialize(serializer)
    }
}
