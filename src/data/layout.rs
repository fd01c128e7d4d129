//! Where the files of a data set lie: the two forms of a folder, and the splits in it.
//!
//! COCO's own form is `annotations/instances_<split>.json` with the images in `<split>/`; the short
//! form is `annotations/<split>.json` with the images of all splits in `images/`. Three splits of COCO
//! have names of their own: see [`find`].

use std::path::{Path, PathBuf};

use super::coco::DataError;

/// The list of image ids that makes [`MINIVAL`], in the data folder.
pub const MINIVAL_IDS: &str = "mscoco_minival_ids.txt";
/// The images of val2014 whose ids stand in [`MINIVAL_IDS`].
pub const MINIVAL: &str = "minival";
/// train2014 and the rest of val2014: what the paper trained on.
pub const TRAINVAL_MINUS_MINIVAL: &str = "trainval-minus-minival";
/// COCO's test-dev2017, which has no truth.
pub const TEST_DEV: &str = "test-dev";
/// The same by the name of its file.
pub const TEST_DEV_2017: &str = "test-dev2017";

/// Where the files of one split lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The annotation file.
    pub annotations: PathBuf,
    /// The folder that file names are relative to.
    pub images: PathBuf,
}

/// The files of `split`, which exist.
///
/// `test-dev` is `annotations/image_info_test-dev2017.json` with `test2017/`. [`MINIVAL`] and
/// [`TRAINVAL_MINUS_MINIVAL`] are made of other splits, by `Dataset::open`.
pub fn find(root: &Path, split: &str) -> Result<Layout, DataError> {
    if !root.is_dir() {
        return Err(DataError::NoFolder { path: root.to_owned(), advice: advice(root) });
    }
    if split.is_empty() || split.contains(['/', '\\', '\0']) {
        return Err(DataError::SplitName { split: split.to_owned() });
    }
    let layout = layout(root, split);
    if !layout.annotations.is_file() {
        let found = splits(root);
        let found = if found.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has: {}", found.join(", "))
        };
        return Err(DataError::NoSplit {
            root: root.to_owned(),
            split: split.to_owned(),
            found,
            advice: advice(root),
        });
    }
    if !layout.images.is_dir() {
        return Err(DataError::NoImageFolder {
            path: layout.images,
            annotations: layout.annotations,
        });
    }
    Ok(layout)
}

/// Whether `split` is test-dev by either of its names.
pub fn is_test_dev(split: &str) -> bool {
    split == TEST_DEV || split == TEST_DEV_2017
}

/// Whether `split` is looked for elsewhere than in a file of its own name: a data set of one's own that
/// has a split called so could not be opened.
pub fn is_reserved(split: &str) -> bool {
    split == MINIVAL || split == TRAINVAL_MINUS_MINIVAL || is_test_dev(split)
}

/// Where the files of `split` would lie, in the form that its annotation file has.
pub fn layout(root: &Path, split: &str) -> Layout {
    let annotations = root.join("annotations");
    if is_test_dev(split) {
        return Layout {
            annotations: annotations.join("image_info_test-dev2017.json"),
            images: root.join("test2017"),
        };
    }
    let coco = annotations.join(format!("instances_{split}.json"));
    if coco.is_file() {
        return Layout { annotations: coco, images: root.join(split) };
    }
    Layout { annotations: annotations.join(format!("{split}.json")), images: root.join("images") }
}

/// The splits that have an annotation file, by name.
pub fn splits(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.join("annotations")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // Hidden files are not the data set's: macOS leaves `._val.json` beside `val.json` in archives.
            let stem = name.strip_suffix(".json").filter(|stem| !stem.starts_with('.'))?;
            match stem {
                "image_info_test-dev2017" => return Some(TEST_DEV.to_owned()),
                // COCO's files for other tasks lie in the same folder.
                _ if ["captions_", "person_keypoints_", "image_info_", "stuff_", "panoptic_"]
                    .iter()
                    .any(|other| stem.starts_with(other)) =>
                {
                    return None;
                }
                _ => {}
            }
            Some(stem.strip_prefix("instances_").unwrap_or(stem).to_owned())
        })
        .collect();
    if names.iter().any(|n| n == "val2014") && root.join(MINIVAL_IDS).is_file() {
        names.push(MINIVAL.to_owned());
        names.push(TRAINVAL_MINUS_MINIVAL.to_owned());
    }
    names.sort();
    names.dedup();
    names
}

/// What a data set has to look like; for COCO's own place also where COCO comes from, and for a folder in
/// another form how it becomes one.
pub(super) fn advice(root: &Path) -> String {
    let dir = root.display();
    let mut text = format!(
        "a data set is a folder in one of two forms:\n  \
         {dir}/annotations/instances_SPLIT.json with the images in {dir}/SPLIT/ (COCO's own), or\n  \
         {dir}/annotations/SPLIT.json with the images in {dir}/images/"
    );
    if root.ends_with("data/coco") {
        text.push_str(
            "\nCOCO is published at https://cocodataset.org/#download: unpack train2017.zip, val2017.zip and \
             annotations_trainval2017.zip there. Another folder is named by --data or DETECT_DATA",
        );
    }
    if root.is_dir() && splits(root).is_empty() {
        text = format!("{text}\nIn another form? detect convert {dir} --out NEW");
    }
    text
}
