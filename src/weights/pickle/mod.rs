//! PyTorch checkpoints (`.pth`, `.pt`, `.bin`), read without running them.
//!
//! A checkpoint is a pickle, and a pickle is a program that can call anything. [`PickleFile`] only
//! puts together the values of a short list of names: ordered dicts, tensors, storages, sizes. Whatever
//! else a file names ends the reading with an error that says so; there is no way to call anything.
//!
//! Both forms of `torch.save` are read: the zip archive (since 1.6), stored or deflated, and the older
//! form of 2017 to 2020. Little-endian only; sparse, quantised and complex tensors are not read.
//!
//! # Which tensors
//! Those of the dict under `state_dict`, `model_state_dict`, `model`, `model_ema` or `state_dict_ema`,
//! the first of these that has any, else those of the top dict; [`PickleFile::place`] says which. Where
//! every name begins with `module.`, that is left out. What is no tensor is passed over.
//!
//! # Bounds
//! Nothing is allocated by a number in the file before the file is known to have so much. The description
//! may take as much memory as the file has bytes, and 24 MiB; all tensors together twice that of the file,
//! and 24 MiB, since views can share a storage. A tensor is read by itself.

mod build;
mod fault;
mod input;
mod legacy;
mod machine;
mod state;
mod value;
mod view;
mod zip;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use self::fault::{Budget, Fault};
use self::machine::Machine;
use self::value::{Heap, Value, View};
use self::zip::Archive;
use super::{Element, Source, StoredTensor, TensorInfo, WeightsError};

/// Memory that a file may take beyond its own size, in bytes.
const ROOM: u64 = 24 << 20;

/// An open checkpoint.
#[derive(Debug)]
pub struct PickleFile {
    path: PathBuf,
    storages: Storages,
    place: Option<&'static str>,
    infos: BTreeMap<String, TensorInfo>,
    views: BTreeMap<String, View>,
}

/// Where the bytes of the storages are.
#[derive(Debug)]
enum Storages {
    /// Records of these names.
    Zip(Archive, Vec<String>),
    /// From these bytes of the file on.
    Legacy(File, Vec<u64>),
}

impl PickleFile {
    /// Reads what the checkpoint `path` holds, without its tensors.
    ///
    /// # Errors
    /// [`WeightsError::Broken`] says what is wrong and at which byte of the pickle or in which record;
    /// names that a file of tensors has no use for are such an error.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::open_file(path).map_err(|fault| fault.of(path))
    }

    /// The key of the top value under which the state dict was found; `None` for the top value itself.
    pub fn place(&self) -> Option<&str> {
        self.place
    }

    fn open_file(path: &Path) -> Result<Self, Fault> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut head = Vec::new();
        (&file).take(512).read_to_end(&mut head)?;
        file.seek(SeekFrom::Start(0))?;
        let mut budget = Budget::new(length.saturating_add(ROOM));
        let (heap, top, storages) = if head.starts_with(b"PK\x03\x04") {
            open_zip(file, length, &mut budget)?
        } else if head.first() == Some(&0x80) {
            let (heap, top, starts) = legacy::open(&file, length, &mut budget)?;
            (heap, top, Storages::Legacy(file, starts))
        } else if head.get(257..262) == Some(b"ustar") {
            return Err("it is of the form before PyTorch 0.2, a tar archive; save it again with a newer one".into());
        } else {
            return Err("it is neither a zip archive nor a pickle".into());
        };
        let state = state::find(&heap, &top, &mut budget)?;
        let mut opened = Self {
            path: path.into(),
            storages,
            place: state.place,
            infos: BTreeMap::new(),
            views: BTreeMap::new(),
        };
        for (name, view) in state.tensors {
            let info = TensorInfo { element: view.element, shape: view.shape.clone() };
            opened.infos.insert(name.clone(), info);
            // Of two equal names Python keeps the last, too.
            opened.views.insert(name, view);
        }
        opened.check_sizes(&heap, length)?;
        opened.check_strides(&heap)?;
        Ok(opened)
    }

    /// Refuses tensors that together are far larger than the file, or that take too long to unpack.
    fn check_sizes(&self, heap: &Heap, length: u64) -> Result<(), Fault> {
        let mut all: u64 = 0;
        let mut work: u64 = 0;
        let mut largest: u64 = 0;
        for view in self.views.values() {
            let stored = heap.storages[view.storage].length * view.element.bytes() as u64;
            all = all.saturating_add(view.bytes());
            work = work.saturating_add(match &self.storages {
                Storages::Zip(archive, names) if archive.is_packed(&names[view.storage]) => stored,
                _ => 0,
            });
            if !view.is_contiguous() {
                largest = largest.max(view.range_bytes());
            }
        }
        // With what the description took, all tensors at once stay under twice the file and 64 MiB.
        if all.saturating_add(largest) > length.saturating_mul(2).saturating_add(ROOM) {
            return Err(format!("its tensors take {all} bytes, far more than the file").into());
        }
        if work / 64 > length.saturating_add(ROOM) {
            return Err("its tensors share packed storages too often".into());
        }
        Ok(())
    }

    /// The older form has no checksum that would report a damaged stride. Where a tensor has as many
    /// elements as its storage, as in every state dict of a network, it must take each of them once.
    fn check_strides(&self, heap: &Heap) -> Result<(), Fault> {
        if matches!(self.storages, Storages::Zip(..)) {
            return Ok(());
        }
        let torn = |view: &View| {
            let length = heap.storages[view.storage].length * view.element.bytes() as u64;
            view.bytes() == length && !view.is_dense()
        };
        match self.views.iter().find(|(_, view)| torn(view)) {
            Some((name, view)) => Err(Fault::Broken(format!(
                "the strides {:?} of the tensor '{name}' leave gaps; the file is damaged",
                view.strides
            ))),
            None => Ok(()),
        }
    }

    fn read_view(&mut self, view: &View) -> Result<StoredTensor, Fault> {
        let range = view.range();
        let bytes = if range.is_empty() {
            // Also an empty tensor's record must be whole.
            self.read_bytes(view, 0..0)?
        } else {
            self.read_bytes(view, range)?
        };
        let bytes = if view.is_contiguous() { bytes } else { view.gather(&bytes) };
        if view.element == Element::Bool && bytes.iter().any(|&byte| byte > 1) {
            return Err("a truth value that is neither 0 nor 1".into());
        }
        Ok(StoredTensor { element: view.element, shape: view.shape.clone(), bytes })
    }

    fn read_bytes(&mut self, view: &View, range: Range<u64>) -> Result<Vec<u8>, Fault> {
        match &mut self.storages {
            Storages::Zip(archive, names) => archive.read(&names[view.storage], range),
            Storages::Legacy(file, starts) => {
                file.seek(SeekFrom::Start(starts[view.storage] + range.start))?;
                // Its end was compared with that of the file.
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

impl Source for PickleFile {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&mut self, name: &str) -> Result<StoredTensor, WeightsError> {
        let Some(view) = self.views.get(name).cloned() else {
            let fault = Fault::Broken(format!("it has no tensor '{name}'"));
            return Err(fault.of(&self.path));
        };
        let read = self.read_view(&view);
        read.map_err(|fault| fault.at(&format!("the tensor '{name}'")).of(&self.path))
    }
}

/// Reads the pickle of the archive `file`, and compares its storages with their records.
fn open_zip(
    file: File,
    length: u64,
    budget: &mut Budget,
) -> Result<(Heap, Value, Storages), Fault> {
    let mut archive = Archive::open(file, length, budget)?;
    // The records lie in one folder, whose name is free.
    let mut pickles = archive.names().filter_map(|name| name.strip_suffix("data.pkl"));
    let folder = match (pickles.next(), pickles.next()) {
        (Some(folder), None) if folder.ends_with('/') => folder.to_owned(),
        (Some(_), Some(_)) => return Err("it has several records 'data.pkl'".into()),
        _ => return Err("it is a zip archive, but not one of torch.save: there is no record 'data.pkl' in a folder".into()),
    };
    drop(pickles);
    let has = |record: &str| archive.names().any(|name| name == record);
    if has(&format!("{folder}constants.pkl")) {
        return Err("it is a TorchScript program; save the state dict of its module instead".into());
    }
    let order = format!("{folder}byteorder");
    if has(&order) {
        let size = archive.size(&order)?.min(16);
        match archive.read(&order, 0..size)?.as_slice() {
            b"little" => {}
            b"big" => {
                return Err(
                    "it was written by a big-endian machine; save it again on a little-endian one"
                        .into(),
                );
            }
            _ => return Err(format!("the record '{order}' is damaged").into()),
        }
    }
    let pickle = format!("{folder}data.pkl");
    let place = |fault: Fault| fault.at(&pickle);
    let size = archive.size(&pickle)?;
    // Even one that does nothing pays for each of its bytes.
    budget.take(size / 8).map_err(place)?;
    // Before it is read as a pickle, so that damage is called damage.
    archive.verify(&pickle)?;
    let (heap, top) = {
        let mut machine = Machine::new(BufReader::new(archive.content(&pickle)?), budget);
        let top = machine.run().map_err(place)?;
        if machine.position() != size {
            return Err(place("bytes follow its end".into()));
        }
        (machine.heap, top)
    };

    let mut names = Vec::with_capacity(heap.storages.len());
    for storage in &heap.storages {
        let name = format!("{folder}data/{}", storage.key);
        budget.take(2 * (name.len() + size_of::<String>()) as u64)?;
        let found = archive.size(&name)?;
        let expected = storage.length * storage.element.bytes() as u64;
        if found != expected {
            let what = format!("the record '{name}' has {found} bytes, expected {expected}");
            return Err(what.into());
        }
        names.push(name);
    }
    Ok((heap, top, Storages::Zip(archive, names)))
}
