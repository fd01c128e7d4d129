//! Reading and writing `.safetensors`: checked when read, whole or not at all when written.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{SafetensorsFile, Source as _};
use crate::whole;

/// Why a weight file can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// It can't be read.
    #[error("cannot read the weights {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A text beside the weights, such as a label map, can't be read.
    #[error("cannot read the {format} {path}")]
    ReadText {
        /// Which file.
        path: PathBuf,
        /// What it was to be.
        format: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is not of its format, or broken.
    #[error("{path} is not a valid {format} file ({reason})")]
    Broken {
        /// Which file.
        path: PathBuf,
        /// What it was read as, such as `.safetensors`.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of a kind that networks do not have.
    #[error(
        "{path}: the tensor '{tensor}' holds {dtype}; expected a float of 16 to 64 bits or an integer"
    )]
    Element {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        tensor: String,
        /// What it holds.
        dtype: String,
    },
    /// Names or shapes are not those of the network.
    #[error("{path} does not fit the network:\n{list}")]
    Mismatch {
        /// Which file.
        path: PathBuf,
        /// Missing, unexpected and misshapen tensors, one a line.
        list: String,
    },
    /// It is a `.safetensors`, but does not describe a detector.
    #[error("{path} {reason}")]
    NotAModel {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// It can't be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a tensor's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// IEEE half.
    F16,
    /// Brain float.
    BF16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// Byte.
    U8,
    /// A byte that is 0 or 1.
    Bool,
}

impl Element {
    pub(super) fn from_dtype(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F64 => Self::F64,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U8 => Self::U8,
            Dtype::BOOL => Self::Bool,
            _ => return None,
        })
    }

    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F64 => Dtype::F64,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::I64 => Dtype::I64,
            Self::I32 => Dtype::I32,
            Self::I16 => Dtype::I16,
            Self::I8 => Dtype::I8,
            Self::U8 => Dtype::U8,
            Self::Bool => Dtype::BOOL,
        }
    }

    /// Whether it is a float of any width.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// A tensor as it lies in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    /// Kind of its elements.
    pub element: Element,
    /// Sides, outermost first.
    pub shape: Vec<usize>,
    /// Row-major, little-endian.
    pub bytes: Vec<u8>,
}

impl StoredTensor {
    /// 32-bit numbers as they will lie in a file.
    ///
    /// # Panics
    /// If there are not as many as the sides say.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "numbers of {shape:?}");
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { element: Element::F32, shape, bytes }
    }

    /// Whether no element is an infinity or not a number.
    pub fn is_finite(&self) -> bool {
        // These have an exponent of ones, whatever the rest says.
        let exponent = match self.element {
            Element::F16 => 0x7c00,
            Element::BF16 => 0x7f80,
            Element::F32 => {
                let (all, _) = self.bytes.as_chunks();
                return all.iter().all(|&four| f32::from_le_bytes(four).is_finite());
            }
            Element::F64 => {
                let (all, _) = self.bytes.as_chunks();
                return all.iter().all(|&eight| f64::from_le_bytes(eight).is_finite());
            }
            _ => return true,
        };
        let (all, _) = self.bytes.as_chunks();
        all.iter().all(|&two| u16::from_le_bytes(two) & exponent != exponent)
    }
}

/// All that a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// Tensors by name.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
}

impl Contents {
    /// Reads a whole file.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let mut file = SafetensorsFile::open(path)?;
        let names: Vec<String> = file.tensors().keys().cloned().collect();
        let metadata = file.metadata().clone();
        let read = |name: String| Ok((name.clone(), file.read(&name)?));
        let tensors = names.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { tensors, metadata })
    }

    /// Writes the file whole or not at all: to a temporary file beside it, flushed to the disk, then
    /// renamed.
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        whole::write(path, |file| {
            let mut out = io::BufWriter::new(file);
            self.write_to(&mut out)?;
            out.flush()
        })
        .map_err(|source| WeightsError::Write { path: path.into(), source })
    }

    /// Writes the format, with everything in a fixed order: the crate's own writer draws that of the metadata.
    /// The same contents are the same bytes.
    pub fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        // Wide elements first, so that each lies at a multiple of its size, as other readers expect.
        let mut order: Vec<(&String, &StoredTensor)> = self.tensors.iter().collect();
        order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.element.bytes()));
        let mut header = serde_json::Map::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__".into(), json!(self.metadata));
        }
        let mut end = 0;
        for (name, tensor) in &order {
            let start = end;
            end += tensor.bytes.len();
            let (dtype, shape) = (tensor.element.dtype(), &tensor.shape);
            let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
            header.insert((*name).clone(), entry);
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        order.iter().try_for_each(|(_, tensor)| out.write_all(&tensor.bytes))
    }

    /// The name of the first tensor that holds an infinity or no number.
    pub fn non_finite(&self) -> Option<&str> {
        let bad = |(_, tensor): &(&String, &StoredTensor)| !tensor.is_finite();
        self.tensors.iter().find(bad).map(|(name, _)| name.as_str())
    }

    /// SHA-256 over names, shapes and bytes of all tensors, as hexadecimal text.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for (name, tensor) in &self.tensors {
            hash.update(name.as_bytes());
            hash.update(format!("\0{:?}{:?}\0", tensor.element, tensor.shape).as_bytes());
            hash.update(&tensor.bytes);
        }
        hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sample() -> Contents {
        let tensor = StoredTensor {
            element: Element::F32,
            shape: vec![2, 1],
            bytes: [1.5_f32, -2.].iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        Contents {
            tensors: [("a.weight".to_owned(), tensor)].into(),
            metadata: [("k".to_owned(), "v".to_owned())].into(),
        }
    }

    #[test]
    fn numbers_lie_in_a_file_as_they_are() {
        let tensor = StoredTensor::from_f32(vec![2, 1], &[1.5, -2.]);
        assert_eq!(tensor, sample().tensors["a.weight"]);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        sample().write(&path).unwrap();
        assert_eq!(Contents::read(&path).unwrap(), sample());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file is left");
    }

    #[test]
    fn the_same_contents_are_the_same_bytes_and_the_format_s_own_reader_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut contents = sample();
        for (i, key) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            contents.metadata.insert(key.into(), format!("{i} \"quoted\""));
            let tensor =
                StoredTensor { element: Element::I64, shape: vec![i], bytes: vec![7; 8 * i] };
            contents.tensors.insert(format!("{key}.n"), tensor);
            let tensor =
                StoredTensor { element: Element::U8, shape: vec![3], bytes: vec![i as u8; 3] };
            contents.tensors.insert(format!("{key}.u"), tensor);
        }
        let write = |name: &str| {
            let path = dir.path().join(name);
            contents.write(&path).unwrap();
            fs::read(path).unwrap()
        };
        let bytes = write("a.safetensors");
        assert_eq!(bytes, write("b.safetensors"));
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), contents.tensors.len());
        for (name, tensor) in &contents.tensors {
            let view = file.tensor(name).unwrap();
            let found = (view.dtype(), view.shape(), view.data());
            assert_eq!(
                found,
                (tensor.element.dtype(), &tensor.shape[..], &tensor.bytes[..]),
                "{name}"
            );
        }
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        assert_eq!(metadata.into_iter().collect::<BTreeMap<_, _>>(), contents.metadata);
    }

    #[test]
    fn what_is_not_finite_is_found_in_every_kind_of_float() {
        let stored = |element, bytes: &[u8]| StoredTensor {
            element,
            shape: vec![bytes.len() / element.bytes()],
            bytes: bytes.to_vec(),
        };
        // Patterns of IEEE 754: the largest number, infinity, a NaN.
        for (element, values) in [
            (Element::F16, [0x7bff, 0xfc00, 0x7e01]),
            (Element::BF16, [0xff7f, 0x7f80, 0xffc0]),
            (Element::F32, [0x7f7f_ffff, 0xff80_0000, 0x7fc0_0001]),
            (
                Element::F64,
                [0x7fef_ffff_ffff_ffff, 0xfff0_0000_0000_0000, 0x7ff0_0000_0000_0001_u64],
            ),
        ] {
            let bytes = |value: u64| {
                let one = &value.to_le_bytes()[..element.bytes()];
                [&vec![0; element.bytes()][..], one].concat()
            };
            let finite = values.map(|value| stored(element, &bytes(value)).is_finite());
            assert_eq!(finite, [true, false, false], "{element:?}");
        }
        assert!(stored(Element::I64, &[255; 8]).is_finite());
        let mut contents = sample();
        assert_eq!(contents.non_finite(), None);
        contents.tensors.insert("b".into(), stored(Element::F16, &[0, 0x7c]));
        assert_eq!(contents.non_finite(), Some("b"));
    }

    #[test]
    fn cut_and_foreign_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        sample().write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(Contents::read(&path), Err(WeightsError::Broken { .. })), "{length}");
        }
        for (begin, format) in [
            (&b"PK\x03\x04...."[..], "PyTorch"),
            (b"\x80\x02.......", "PyTorch"),
            (b"\x89HDF\r\n\x1a\n.", "Keras"),
        ] {
            fs::write(&path, begin).unwrap();
            let refused = Contents::read(&path).unwrap_err().to_string();
            assert!(refused.contains(format) && refused.contains("detect import"), "{refused}");
        }
        let missing = Contents::read(&dir.path().join("none"));
        assert!(matches!(missing, Err(WeightsError::Read { .. })));
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no/such/folder.safetensors");
        assert!(matches!(sample().write(&path), Err(WeightsError::Write { .. })));
    }
}
