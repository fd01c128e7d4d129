//! Published weights into model files: whose names, which shapes, what is refused.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]
#![expect(clippy::print_stderr, reason = "what is skipped is said")]

#[path = "../pickle/counting.rs"]
mod counting;
#[path = "../damage/mod.rs"]
mod damage;
mod detector;
mod names;
mod strictness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use detect::weights::import::{self, Imported, Settings};
use detect::weights::{Contents, Element, Source, StoredTensor, TensorInfo, WeightsError};

/// A checkpoint that TF-slim itself wrote, of the smallest network there is.
fn slim(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tf_slim").join(case).join("model.ckpt")
}

fn imported(path: &Path, settings: &Settings) -> Result<Imported, WeightsError> {
    let mut source = import::open(path)?;
    import::import(source.as_mut(), None, settings, path)
}

/// The same network as a bare state dict in timm's names.
fn as_state_dict(imported: &Imported) -> Contents {
    let tensors = imported.contents.tensors.iter();
    let bare = |name: &str| name.strip_prefix("backbone.").unwrap().to_owned();
    Contents {
        tensors: tensors.map(|(name, tensor)| (bare(name), tensor.clone())).collect(),
        ..Contents::default()
    }
}

/// A file that holds zeros of any names and shapes.
#[derive(Debug)]
struct Zeros {
    tensors: BTreeMap<String, TensorInfo>,
}

impl Zeros {
    fn new<'a>(tensors: impl IntoIterator<Item = (&'a str, Vec<usize>)>) -> Self {
        let info = |shape| TensorInfo { element: Element::F32, shape };
        let tensors = tensors.into_iter().map(|(name, shape)| (name.to_owned(), info(shape)));
        Self { tensors: tensors.collect() }
    }
}

impl Source for Zeros {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&mut self, name: &str) -> Result<StoredTensor, WeightsError> {
        let TensorInfo { element, shape } = self.tensors[name].clone();
        let bytes = vec![0; element.bytes() * shape.iter().product::<usize>()];
        Ok(StoredTensor { element, shape, bytes })
    }
}
