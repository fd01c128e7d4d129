//! What a run learns from, so that a changed data set is told from the one it began with.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::coco::{Dataset, hex};

/// A split in three numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many images it has.
    pub images: usize,
    /// How many annotations.
    pub annotations: usize,
    /// SHA-256 (hexadecimal) over the images' ids, names and sizes, and their annotations. Pixels are not
    /// read.
    pub sha256: String,
    /// The same over the annotations' areas, which say what counts as small or large; the first versions did not write it.
    #[serde(default)]
    pub areas: Option<String>,
}

impl Fingerprint {
    /// Of a split.
    pub fn of(dataset: &Dataset) -> Self {
        let (mut hash, mut areas) = (Sha256::new(), Sha256::new());
        let mut annotations = 0;
        for image in &dataset.images {
            hash.update(format!("{}\0{}\0{:?}\n", image.id, image.file_name, image.size));
            for a in &image.annotations {
                hash.update(a.id.to_le_bytes());
                hash.update((a.label.0 as u64).to_le_bytes());
                for side in a.bbox.to_xywh() {
                    hash.update(side.to_le_bytes());
                }
                hash.update([u8::from(a.crowd)]);
                areas.update(a.area.to_le_bytes());
                annotations += 1;
            }
        }
        let [sha256, areas] = [hash, areas].map(|hash| hex(&hash.finalize()));
        Self { images: dataset.images.len(), annotations, sha256, areas: Some(areas) }
    }

    /// What `new` has otherwise, in words.
    pub fn difference(&self, new: &Self) -> Option<String> {
        let mut parts = Vec::new();
        for (what, a, b) in [
            ("images", self.images, new.images),
            ("annotations", self.annotations, new.annotations),
        ] {
            if a != b {
                parts.push(format!("{what}: {a} -> {b}"));
            }
        }
        if parts.is_empty() && self.sha256 != new.sha256 {
            parts.push("as many images and annotations as before, but not the same".to_owned());
        }
        if parts.is_empty()
            && let (Some(a), Some(b)) = (&self.areas, &new.areas)
            && a != b
        {
            parts.push("the areas of annotations are others".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}
