//! Weight files of Keras 2 (`.h5`), whose container is HDF5.
//!
//! Such a file holds a group for each layer. The attribute `layer_names` lists the layers, the attribute
//! `weight_names` of a layer's group lists its weights, and each is a dataset below that group. What
//! `save_weights` writes has this at its root, what `model.save` writes has it in the group
//! `model_weights`. The names of weights changed over time (`conv/kernel:0`, `conv_1/kernel:0` where a
//! network was built twice, `conv/kernel` of Keras 3); their last word did not, and the names of layers
//! did not. So a tensor is called `<layer>/<last word>`.
//!
//! # Bounds
//! The structure is read by the crate `hdf5-pure`, which checks lengths against the file's before it
//! allocates. But texts may share their bytes, so that a small file names gigabytes of them. So the crate
//! reads through an allowance, which gives it so many bytes and no more; that also ends whatever goes
//! round in circles. The weights themselves are read here: Keras stores each in one piece, so a place and
//! a length that lie inside the file are all that is needed. HDF5's checksums cover its later forms only,
//! and Keras writes the first: a changed value is not noticed, nor a changed place where no other weight
//! lies.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use hdf5_pure::{
    Dataset, Datatype, DatatypeByteOrder, FloatingPointLayout, FormatError, Group, Layout,
};

use super::{Element, Source, StoredTensor, TensorInfo, WeightsError};

/// What the format is called in messages.
const FORMAT: &str = "Keras .h5";

/// Bytes that are fetched from the disk at once.
const PAGE: u64 = 4096;

/// The layout of IEEE's half, which the crate does not name.
const HALF: FloatingPointLayout = FloatingPointLayout {
    bit_offset: 0,
    bit_precision: 16,
    exponent_location: 10,
    exponent_size: 5,
    mantissa_location: 0,
    mantissa_size: 10,
    exponent_bias: 15,
};

/// An open weight file of Keras.
#[derive(Debug)]
pub struct KerasFile {
    path: PathBuf,
    file: File,
    infos: BTreeMap<String, TensorInfo>,
    /// Where the bytes of each tensor are.
    places: BTreeMap<String, Place>,
}

/// Where a tensor's bytes are in the file.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    length: usize,
}

impl KerasFile {
    /// Reads what the file `path` holds, without its weights.
    ///
    /// # Errors
    /// If it can't be read, is damaged, or is no HDF5 file of Keras 2's structure; if a weight is stored
    /// in another way than Keras stores it, or holds anything but floats.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let error = |source: io::Error| WeightsError::Read { path: path.into(), source };
        let file = File::open(path).map_err(error)?;
        let length = file.metadata().map_err(error)?.len();
        let listing = Listing { path, length };
        let (mut infos, mut places) = (BTreeMap::new(), BTreeMap::new());
        for (name, info, place) in listing.read()? {
            if infos.insert(name.clone(), info).is_some() {
                return Err(listing.broken(format!(
                    "two weights are called '{name}'; a network inside of another is not looked for: save the inner one's weights by themselves"
                )));
            }
            places.insert(name, place);
        }
        // Weights lie apart. This finds some of the damage to places, and keeps all of them together from
        // taking more memory than the file has bytes.
        let mut sorted: Vec<(&String, &Place)> = places.iter().collect();
        sorted.sort_by_key(|(_, place)| (place.start, place.length));
        for pair in sorted.windows(2) {
            let [(one, first), (other, second)] = pair else { unreachable!("windows of two") };
            if first.start + first.length as u64 > second.start {
                return Err(listing.broken(format!("'{one}' and '{other}' lie in the same place")));
            }
        }
        Ok(Self { path: path.into(), file, infos, places })
    }
}

impl Source for KerasFile {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&mut self, name: &str) -> Result<StoredTensor, WeightsError> {
        let error = |source: io::Error| WeightsError::Read { path: self.path.clone(), source };
        let (Some(info), Some(place)) = (self.infos.get(name), self.places.get(name)) else {
            let reason = format!("has no weight '{name}'");
            return Err(WeightsError::NotAModel { path: self.path.clone(), reason });
        };
        self.file.seek(SeekFrom::Start(place.start)).map_err(error)?;
        let mut bytes = vec![0; place.length];
        self.file.read_exact(&mut bytes).map_err(error)?;
        Ok(StoredTensor { element: info.element, shape: info.shape.clone(), bytes })
    }
}

/// The reading of what a file holds.
struct Listing<'a> {
    path: &'a Path,
    /// Bytes of the file.
    length: u64,
}

type Entry = (String, TensorInfo, Place);

impl Listing<'_> {
    fn broken(&self, reason: impl Into<String>) -> WeightsError {
        let (path, reason) = (self.path.into(), reason.into());
        WeightsError::Broken { path, format: FORMAT, reason }
    }

    /// What the crate says is wrong with `what`.
    fn wrong(&self, what: &str) -> impl Fn(hdf5_pure::Error) -> WeightsError {
        move |e| match e {
            hdf5_pure::Error::Io(source) => WeightsError::Read { path: self.path.into(), source },
            other => self.broken(format!("{what}: {other}")),
        }
    }

    /// Every weight of every layer.
    fn read(&self) -> Result<Vec<Entry>, WeightsError> {
        let error = |source: io::Error| WeightsError::Read { path: self.path.into(), source };
        let source = Allowance::new(File::open(self.path).map_err(error)?).map_err(error)?;
        let file = hdf5_pure::File::from_source(source).map_err(self.wrong("its start"))?;
        let root = file.root();
        let mut top = root.clone();
        let mut layers = self.texts(&top, "/", "layer_names")?;
        if layers.is_none() {
            match root.group("model_weights") {
                Ok(inner) => {
                    layers = self.texts(&inner, "model_weights", "layer_names")?;
                    top = inner;
                }
                Err(hdf5_pure::Error::Format(FormatError::PathNotFound(_))) => {}
                Err(e) => return Err(self.wrong("model_weights")(e)),
            }
        }
        let layers = layers.ok_or_else(|| WeightsError::NotAModel {
            path: self.path.into(),
            reason: "is an HDF5 file, but without the attribute layer_names that Keras 2 writes; from Keras 3, save the model as .h5 rather than as .weights.h5 or .keras".into(),
        })?;
        // All at once: to find one, the names of all are read.
        let groups: HashMap<String, Group> =
            top.iter_groups().map_err(self.wrong("its list of layers"))?.collect();
        let mut entries = Vec::new();
        for layer in layers {
            let group = (groups.get(&layer))
                .ok_or_else(|| self.broken(format!("there is no group for the layer '{layer}'")))?;
            let weights = self.texts(group, &layer, "weight_names")?.ok_or_else(|| {
                self.broken(format!("the layer '{layer}' has no attribute weight_names"))
            })?;
            for weight in weights {
                let name = format!("{layer}/{}", last_word(&weight));
                let dataset =
                    group.dataset(&weight).map_err(self.wrong(&format!("the weight '{name}'")))?;
                let (info, place) = self.weight(&name, &dataset)?;
                entries.push((name, info, place));
            }
        }
        Ok(entries)
    }

    /// The texts of an attribute. One that is too long for a header lies in parts `name0`, `name1` ...
    fn texts(
        &self,
        group: &Group,
        place: &str,
        name: &str,
    ) -> Result<Option<Vec<String>>, WeightsError> {
        let values = group.attrs().map_err(self.wrong(&format!("the attributes of {place}")))?;
        // A layer without weights has an empty list of numbers.
        let kinds = group.attr_datatypes();
        let kinds = kinds.map_err(self.wrong(&format!("the attributes of {place}")))?;
        let texts = |name: &str| match values.get(name) {
            Some(value) => match value.as_strings() {
                Some(texts) => Ok(Some(texts.to_vec())),
                None if is_empty(value) => Ok(Some(Vec::new())),
                None => Err(self.broken(format!("{name} of {place} is no list of names"))),
            },
            None if kinds.contains_key(name) => {
                Err(self.broken(format!("{name} of {place} can't be read")))
            }
            None => Ok(None),
        };
        if let Some(whole) = texts(name)? {
            return Ok(Some(whole));
        }
        let mut parts: Option<Vec<String>> = None;
        for n in 0.. {
            let Some(part) = texts(&format!("{name}{n}"))? else { break };
            parts.get_or_insert_default().extend(part);
        }
        Ok(parts)
    }

    /// Shape and place of a weight.
    fn weight(&self, name: &str, dataset: &Dataset) -> Result<(TensorInfo, Place), WeightsError> {
        let what = format!("the weight '{name}'");
        let wrong = self.wrong(&what);
        let broken = |reason: String| self.broken(format!("the weight '{name}': {reason}"));
        let datatype = dataset.datatype().map_err(&wrong)?;
        let Some(element) = element(&datatype) else {
            let kind = dataset.dtype().map_err(&wrong)?;
            return Err(broken(format!(
                "it holds {kind}, or numbers in another order of bytes; Keras's weights are little-endian floats of 16, 32 or 64 bits"
            )));
        };
        let sides = dataset.shape().map_err(&wrong)?;
        let shape: Option<Vec<usize>> =
            sides.iter().map(|&side| usize::try_from(side).ok()).collect();
        let bytes = sides.iter().try_fold(element.bytes() as u64, |n, &side| n.checked_mul(side));
        let (Some(shape), Some(bytes)) = (shape, bytes) else {
            return Err(broken(format!("its shape {sides:?} is larger than any memory")));
        };
        let (start, length) = match dataset.layout().map_err(&wrong)? {
            Layout::Contiguous { address: Some(start), size } => (start, size),
            Layout::Contiguous { address: None, .. } => {
                return Err(broken("it was never written".into()));
            }
            _ => {
                return Err(broken(
                    "it is not stored in one piece, as Keras stores it; `h5repack -l CONTI -f NONE` makes it so".into(),
                ));
            }
        };
        if length != bytes {
            return Err(broken(format!("{length} bytes stand for a shape of {shape:?}")));
        }
        if start.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(broken(format!(
                "it lies at {start} with {length} bytes, but the file has {}; it is cut short",
                self.length
            )));
        }
        let length = usize::try_from(length).map_err(|_| broken("larger than memory".into()))?;
        Ok((TensorInfo { element, shape }, Place { start, length }))
    }
}

/// A file of which so many bytes may be read, and no more.
#[derive(Debug)]
struct Allowance {
    length: u64,
    state: Mutex<Reading>,
}

#[derive(Debug)]
struct Reading {
    file: File,
    /// What was read, by the number of the page: structure lies in small pieces and is read many times.
    pages: HashMap<u64, Vec<u8>>,
    left: u64,
}

impl Allowance {
    /// The structure of NASNet-large takes 13 MB to read, its file has 358; that of the smallest network
    /// 1.5 MB of 0.9. What is read is kept twice at most, and the pages beside it.
    fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let left = length / 4 + (20 << 20);
        let state = Mutex::new(Reading { file, pages: HashMap::new(), left });
        Ok(Self { length, state })
    }
}

impl Reading {
    fn page(&mut self, number: u64) -> io::Result<&[u8]> {
        if !self.pages.contains_key(&number) {
            let mut page = Vec::new();
            self.file.seek(SeekFrom::Start(number * PAGE))?;
            (&self.file).take(PAGE).read_to_end(&mut page)?;
            self.pages.insert(number, page);
        }
        Ok(&self.pages[&number])
    }
}

impl hdf5_pure::Source for Allowance {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> Result<(), FormatError> {
        let mut reading = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let spent = |left: u64| left.checked_sub(to.len() as u64);
        reading.left = spent(reading.left).ok_or_else(|| {
            FormatError::Source("its structure refers to the same bytes over and over".into())
        })?;
        let (mut at, mut done) = (offset, 0);
        while done < to.len() {
            let page = reading.page(at / PAGE).map_err(|e| FormatError::Source(e.to_string()))?;
            let rest = page.get((at % PAGE) as usize..).unwrap_or_default();
            let count = rest.len().min(to.len() - done);
            if count == 0 {
                let available = self.length.saturating_sub(offset) as usize;
                return Err(FormatError::UnexpectedEof { expected: to.len(), available });
            }
            to[done..done + count].copy_from_slice(&rest[..count]);
            (at, done) = (at + count as u64, done + count);
        }
        Ok(())
    }
}

/// `kernel` of `layer_1/kernel:0`.
fn last_word(weight: &str) -> &str {
    let word = weight.rsplit_once('/').map_or(weight, |(_, word)| word);
    match word.rsplit_once(':') {
        Some((word, number)) if number.bytes().all(|b| b.is_ascii_digit()) => word,
        _ => word,
    }
}

/// Whether an attribute is a list of nothing: h5py gives an empty list the type of a float.
fn is_empty(value: &hdf5_pure::AttrValue) -> bool {
    matches!(value, hdf5_pure::AttrValue::F64Array(numbers) if numbers.is_empty())
}

/// Little-endian IEEE floats.
fn element(datatype: &Datatype) -> Option<Element> {
    let Datatype::FloatingPoint { size, byte_order: DatatypeByteOrder::LittleEndian, layout } =
        datatype
    else {
        return None;
    };
    match (size, *layout) {
        (2, HALF) => Some(Element::F16),
        (4, FloatingPointLayout::IEEE754_BINARY32) => Some(Element::F32),
        (8, FloatingPointLayout::IEEE754_BINARY64) => Some(Element::F64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_called_by_its_last_word() {
        for (weight, word) in [
            ("conv/kernel:0", "kernel"),
            ("conv_1/kernel:0", "kernel"),
            ("scope/conv/depthwise_kernel", "depthwise_kernel"),
            ("kernel:12", "kernel"),
            ("kernel:x", "kernel:x"),
            ("", ""),
        ] {
            assert_eq!(last_word(weight), word);
        }
    }
}
