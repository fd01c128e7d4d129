//! `.safetensors` files, read one tensor at a time.
//!
//! The crate's own reader wants the whole file in memory, and a tensor then stands there twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;

use super::{Element, Source, StoredTensor, TensorInfo, WeightsError};

const FORMAT: &str = ".safetensors";
/// Bytes of the header's length.
const PREFIX: u64 = 8;
/// The format's own limit.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// An open file.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    /// Where the tensors begin.
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
    /// Of each tensor, from `start`.
    offsets: BTreeMap<String, (usize, usize)>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Reads the header, and checks that the file has the length that it says.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let error = |source: io::Error| WeightsError::Read { path: path.into(), source };
        let broken = |reason: &str| WeightsError::Broken {
            path: path.into(),
            format: FORMAT,
            reason: reason.into(),
        };
        let mut file = File::open(path).map_err(error)?;
        let length = file.metadata().map_err(error)?.len();
        let mut prefix = [0; PREFIX as usize];
        if length < PREFIX {
            return Err(broken("it is too short for a header"));
        }
        file.read_exact(&mut prefix).map_err(error)?;
        if let Some(other) = other_format(prefix) {
            return Err(broken(&format!(
                "it is {other}: 'detect import {} --out NAME.safetensors' makes a model of one that holds a network",
                path.display()
            )));
        }
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > MOST_HEADER_BYTES || header_bytes > length - PREFIX {
            return Err(broken("its header is longer than the file, or than any header may be"));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header).map_err(error)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|e| broken(&format!("its header can't be read: {e}")))?;
        if header.data_len() as u64 != length - PREFIX - header_bytes {
            return Err(broken(&format!(
                "it has {} bytes of tensors where its header says {}",
                length - PREFIX - header_bytes,
                header.data_len()
            )));
        }
        let (mut tensors, mut offsets) = (BTreeMap::new(), BTreeMap::new());
        for (name, info) in header.tensors() {
            let element = Element::from_dtype(info.dtype).ok_or_else(|| WeightsError::Element {
                path: path.into(),
                tensor: name.clone(),
                dtype: format!("{:?}", info.dtype),
            })?;
            let shape = info.shape.clone();
            tensors.insert(name.clone(), TensorInfo { element, shape });
            offsets.insert(name, info.data_offsets);
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let start = PREFIX + header_bytes;
        Ok(Self { path: path.into(), file, start, tensors, offsets, metadata })
    }

    /// Free text by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

/// What a file is that begins so and is none of this format, whose first bytes are the low ones of a length.
fn other_format(begin: [u8; PREFIX as usize]) -> Option<&'static str> {
    let known: [(&[u8], &str); 3] = [
        (b"PK\x03\x04", "a zip archive, such as PyTorch's checkpoints"),
        (b"\x80\x02", "a pickle, such as PyTorch's older checkpoints"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as weights of Keras"),
    ];
    let long = u64::from_le_bytes(begin) > MOST_HEADER_BYTES;
    known.iter().find(|(magic, _)| long && begin.starts_with(magic)).map(|(_, title)| *title)
}

impl Source for SafetensorsFile {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&mut self, name: &str) -> Result<StoredTensor, WeightsError> {
        let error = |source: io::Error| WeightsError::Read { path: self.path.clone(), source };
        let (Some(info), Some(&(from, to))) = (self.tensors.get(name), self.offsets.get(name))
        else {
            let reason = format!("has no tensor '{name}'");
            return Err(WeightsError::NotAModel { path: self.path.clone(), reason });
        };
        self.file.seek(SeekFrom::Start(self.start + from as u64)).map_err(error)?;
        let mut bytes = vec![0; to - from];
        self.file.read_exact(&mut bytes).map_err(error)?;
        Ok(StoredTensor { element: info.element, shape: info.shape.clone(), bytes })
    }
}
