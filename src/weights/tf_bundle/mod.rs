//! TensorFlow's checkpoints of the second form: a sorted table `NAME.index` that says where each
//! variable lies, and files `NAME.data-00000-of-00001` that hold their bytes one after the other.

mod locate;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::tf_proto::{self, Fields, Value};
use super::{Source, StoredTensor, TensorInfo, WeightsError};

/// How errors call the files.
const FORMAT: &str = "TensorFlow checkpoint";
/// No network has more variables; each costs memory before it is read.
const MOST_TENSORS: usize = 100_000;
/// Bytes of all names together.
const MOST_NAMES: usize = 8 << 20;
/// The form of bundle that this reader knows.
const VERSION: u64 = 1;

/// A checkpoint in TensorFlow's V2 form.
#[derive(Debug)]
pub struct TfBundle {
    index: PathBuf,
    shards: BTreeMap<u64, Shard>,
    /// The shard that was read last, open.
    open: Option<(u64, File)>,
    tensors: BTreeMap<String, TensorInfo>,
    places: BTreeMap<String, Place>,
    left_out: BTreeMap<String, &'static str>,
}

/// A file of bytes.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    length: u64,
}

/// Where the bytes of a variable lie.
#[derive(Debug)]
struct Place {
    shard: u64,
    offset: u64,
    checksum: u32,
}

/// The files of the checkpoint that `path` names, those that are there; none where it names no checkpoint.
pub fn files(path: &Path) -> Vec<PathBuf> {
    locate::prefix(path).map(|prefix| locate::files(&prefix)).unwrap_or_default()
}

impl TfBundle {
    /// Opens the checkpoint that `path` names: `model.ckpt`, its `.index`, one of its `.data-*` files, or
    /// a folder that holds exactly one checkpoint.
    ///
    /// The index is read and verified, and the data files have to be there and long enough.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let prefix = locate::prefix(path)?;
        let index = locate::with_suffix(&prefix, ".index");
        let listing = Listing::read(&index)?;
        let mut shards = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (name, Entry { info, size, place }) in listing.entries {
            let shard = match shards.entry(place.shard) {
                std::collections::btree_map::Entry::Occupied(shard) => shard.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(Shard::find(&prefix, place.shard, listing.shards)?)
                }
            };
            let end = place.offset.checked_add(size);
            if end.is_none_or(|end| end > shard.length) {
                let reason = format!(
                    "it has {} bytes, and '{name}' lies at {} with {size} bytes; the file is cut short or of another checkpoint",
                    shard.length, place.offset
                );
                return Err(broken(&shard.path, reason));
            }
            tensors.insert(name.clone(), info);
            places.insert(name, place);
        }
        Ok(Self { index, shards, open: None, tensors, places, left_out: listing.left_out })
    }

    /// What [`Source::tensors`] leaves out, with the type that it has: texts, resources and numbers that
    /// networks do not use.
    pub fn left_out(&self) -> &BTreeMap<String, &'static str> {
        &self.left_out
    }
}

impl Source for TfBundle {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&mut self, name: &str) -> Result<StoredTensor, WeightsError> {
        let Some((info, place)) = self.tensors.get(name).zip(self.places.get(name)) else {
            return Err(match self.left_out.get(name) {
                Some(kind) => WeightsError::Element {
                    path: self.index.clone(),
                    tensor: name.into(),
                    dtype: (*kind).into(),
                },
                None => broken(&self.index, format!("it has no '{name}'")),
            });
        };
        let shard = self.shards.get(&place.shard).expect("opening found the shard of every place");
        let error = |source| WeightsError::Read { path: shard.path.clone(), source };
        let size = tf_proto::byte_size(info.element, &info.shape)
            .expect("opening compared it with the file");
        let mut file = match self.open.take() {
            Some((number, file)) if number == place.shard => file,
            _ => File::open(&shard.path).map_err(error)?,
        };
        let mut bytes = vec![0; size];
        file.seek(SeekFrom::Start(place.offset)).map_err(error)?;
        file.read_exact(&mut bytes).map_err(error)?;
        self.open = Some((place.shard, file));
        if masked_crc(&bytes) != place.checksum {
            let reason = format!("'{name}' has another checksum than was written");
            return Err(broken(&shard.path, reason));
        }
        tf_proto::check_bools(info.element, &bytes)
            .map_err(|reason| broken(&shard.path, format!("'{name}': {reason}")))?;
        Ok(StoredTensor { element: info.element, shape: info.shape.clone(), bytes })
    }
}

impl Shard {
    fn find(prefix: &Path, number: u64, of: u64) -> Result<Self, WeightsError> {
        let path = locate::with_suffix(prefix, &format!(".data-{number:05}-of-{of:05}"));
        match path.metadata() {
            Ok(about) => Ok(Self { length: about.len(), path }),
            Err(source) => Err(WeightsError::Read { path, source }),
        }
    }
}

/// What an index says.
#[derive(Default)]
struct Listing {
    shards: u64,
    entries: Vec<(String, Entry)>,
    left_out: BTreeMap<String, &'static str>,
    /// Variables that are stored in parts.
    sliced: BTreeSet<String>,
}

struct Entry {
    info: TensorInfo,
    size: u64,
    place: Place,
}

impl Listing {
    fn read(index: &Path) -> Result<Self, WeightsError> {
        let mut listing = Self::default();
        let mut header = false;
        let mut names = 0;
        table::read(index, |key, value| {
            if !header {
                header = true;
                if !key.is_empty() {
                    return Err(broken(index, "it has no header"));
                }
                listing.shards = shards(index, value)?;
                return Ok(());
            }
            // Slices of partitioned variables: their keys are no texts. The variables are refused below.
            if key.first() == Some(&0) {
                return Ok(());
            }
            names += key.len();
            if listing.count() >= MOST_TENSORS || names > MOST_NAMES {
                return Err(broken(index, "it has more variables than any network"));
            }
            let name = std::str::from_utf8(key)
                .map_err(|_| broken(index, format!("the name {key:?} is no text")))?;
            listing.add(name, value).map_err(|reason| broken(index, format!("'{name}': {reason}")))
        })?;
        if !header {
            return Err(broken(index, "it is empty"));
        }
        if listing.sliced.is_empty() {
            return Ok(listing);
        }
        let names: Vec<_> = listing.sliced.into_iter().collect();
        Err(refused(
            index,
            format!(
                "stores {} in parts (partitioned variables), which is not supported; restore it in TensorFlow without a partitioner and save it again",
                names.join(", ")
            ),
        ))
    }

    fn count(&self) -> usize {
        self.entries.len() + self.left_out.len() + self.sliced.len()
    }

    /// Takes a `BundleEntryProto`.
    fn add(&mut self, name: &str, message: &[u8]) -> Result<(), String> {
        let (mut dtype, mut shape, mut sliced) = (0, Vec::new(), false);
        let (mut shard, mut offset, mut size, mut checksum) = (0, 0, 0, 0);
        for field in Fields::new(message) {
            match field? {
                (1, value) => dtype = value.varint()?,
                (2, value) => shape = tf_proto::shape(value.bytes()?)?,
                (3, value) => shard = value.varint()?,
                (4, value) => offset = value.varint()?,
                (5, value) => size = value.varint()?,
                (6, Value::Fixed32(value)) => checksum = value,
                (6, _) => return Err("its checksum is none".into()),
                (7, _) => sliced = true,
                _ => {}
            }
        }
        let element = match tf_proto::element(dtype) {
            Ok(_) if sliced => {
                self.sliced.insert(name.into());
                return Ok(());
            }
            Ok(element) => element,
            Err(kind) => {
                self.left_out.insert(name.into(), kind);
                return Ok(());
            }
        };
        let expected = tf_proto::byte_size(element, &shape)?;
        if expected as u64 != size {
            return Err(format!("{size} bytes were written for a shape of {shape:?}"));
        }
        if shard >= self.shards {
            return Err(format!("it lies in data file {shard} of {}", self.shards));
        }
        let info = TensorInfo { element, shape };
        let entry = Entry { info, size, place: Place { shard, offset, checksum } };
        self.entries.push((name.into(), entry));
        Ok(())
    }
}

/// Number of data files in a `BundleHeaderProto`.
fn shards(index: &Path, message: &[u8]) -> Result<u64, WeightsError> {
    let error = |reason: String| broken(index, format!("its header: {reason}"));
    let (mut shards, mut big_endian, mut version) = (0, false, 0);
    for field in Fields::new(message) {
        match field.map_err(error)? {
            (1, Value::Bytes(_)) => return Err(locate::first_form(index)),
            (1, value) => shards = value.varint().map_err(error)?,
            (2, value) => big_endian = value.varint().map_err(error)? != 0,
            (3, value) => {
                for field in Fields::new(value.bytes().map_err(error)?) {
                    if let (2, value) = field.map_err(error)? {
                        version = value.varint().map_err(error)?;
                    }
                }
            }
            _ => {}
        }
    }
    if big_endian {
        let reason = "was written on a big-endian machine, which is not supported; save it again on another machine";
        return Err(refused(index, reason.into()));
    }
    if version > VERSION {
        return Err(refused(index, format!("needs a reader of version {version}")));
    }
    if shards == 0 {
        return Err(error("it names no data files".into()));
    }
    Ok(shards)
}

/// CRC-32C, rotated and shifted: as TensorFlow and `LevelDB` store it.
pub(crate) fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn broken(path: &Path, reason: impl Into<String>) -> WeightsError {
    WeightsError::Broken { path: path.into(), format: FORMAT, reason: reason.into() }
}

/// A file that is what it claims to be, but can't be used.
fn refused(path: &Path, reason: String) -> WeightsError {
    WeightsError::NotAModel { path: path.into(), reason }
}
