//! Frozen graphs of TensorFlow (`frozen_inference_graph.pb`): a network with its weights as constants.
//!
//! A graph is one message, without checksums. It is walked node by node, and only the place of each
//! constant is kept; so memory follows the largest node, not the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::tf_proto::{self, Fields, Value};
use super::{Element, Source, StoredTensor, TensorInfo, WeightsError};

/// How errors call the file.
const FORMAT: &str = "frozen TensorFlow graph";
/// No network has more; each costs memory before it is read.
const MOST_CONSTANTS: usize = 100_000;
/// What a constant of few values may grow to, beyond the size of its file.
const MOST_FILLED: u64 = 32 << 20;

/// A frozen graph.
#[derive(Debug)]
pub struct TfGraph {
    path: PathBuf,
    file: File,
    length: u64,
    tensors: BTreeMap<String, TensorInfo>,
    /// Offset and length of each constant's node.
    places: BTreeMap<String, (u64, usize)>,
    left_out: BTreeMap<String, &'static str>,
}

impl TfGraph {
    /// Opens a graph: every `Const` node of numbers is a tensor named as its node.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let error = |source| WeightsError::Read { path: path.into(), source };
        let file = File::open(path).map_err(error)?;
        let length = file.metadata().map_err(error)?.len();
        let mut graph = Self {
            path: path.into(),
            file,
            length,
            tensors: BTreeMap::new(),
            places: BTreeMap::new(),
            left_out: BTreeMap::new(),
        };
        graph.scan()?;
        if graph.tensors.is_empty() {
            let reason = "holds no constants; a graph has its weights in it only when it is frozen, otherwise they are in the checkpoint beside it";
            return Err(graph.refused(reason));
        }
        Ok(graph)
    }

    /// What [`Source::tensors`] leaves out, with the type that it has: texts, and numbers that networks do
    /// not use.
    pub fn left_out(&self) -> &BTreeMap<String, &'static str> {
        &self.left_out
    }

    /// Finds the constants.
    fn scan(&mut self) -> Result<(), WeightsError> {
        let mut input = Counted { inner: BufReader::new(&self.file), at: 0, length: self.length };
        let mut node = Vec::new();
        while input.at < self.length {
            let start = input.at;
            let step = input.field(&mut node).map_err(|stop| match stop {
                Stop::Io(source) => WeightsError::Read { path: self.path.clone(), source },
                Stop::Broken(reason) => self.broken(format!("at byte {start}: {reason}")),
            })?;
            let at = match step {
                Step::Node(at) => at,
                Step::Other => continue,
                Step::SavedModel => {
                    let reason = "is a SavedModel, which keeps its weights elsewhere; name the folder 'variables' beside it, or a frozen_inference_graph.pb";
                    return Err(self.refused(reason));
                }
            };
            let found = constant(&node)
                .map_err(|reason| self.broken(format!("the node at byte {at}: {reason}")))?;
            let Some((name, kind)) = found else { continue };
            if self.tensors.contains_key(&name) || self.left_out.contains_key(&name) {
                return Err(self.broken(format!("it has two nodes '{name}'")));
            }
            match kind {
                Ok(info) => {
                    self.places.insert(name.clone(), (at, node.len()));
                    self.tensors.insert(name, info);
                }
                Err(kind) => {
                    self.left_out.insert(name, kind);
                }
            }
            if self.tensors.len() + self.left_out.len() > MOST_CONSTANTS {
                return Err(self.broken("it has more constants than any network"));
            }
        }
        Ok(())
    }

    fn broken(&self, reason: impl Into<String>) -> WeightsError {
        WeightsError::Broken { path: self.path.clone(), format: FORMAT, reason: reason.into() }
    }

    fn refused(&self, reason: &str) -> WeightsError {
        WeightsError::NotAModel { path: self.path.clone(), reason: reason.into() }
    }
}

impl Source for TfGraph {
    fn has_other_constants(&self) -> bool {
        true
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&mut self, name: &str) -> Result<StoredTensor, WeightsError> {
        let Some((info, &(at, length))) = self.tensors.get(name).zip(self.places.get(name)) else {
            return Err(match self.left_out.get(name) {
                Some(kind) => WeightsError::Element {
                    path: self.path.clone(),
                    tensor: name.into(),
                    dtype: (*kind).into(),
                },
                None => self.broken(format!("it has no constant '{name}'")),
            });
        };
        let error = |source| WeightsError::Read { path: self.path.clone(), source };
        let mut node = vec![0; length];
        self.file.seek(SeekFrom::Start(at)).map_err(error)?;
        self.file.read_exact(&mut node).map_err(error)?;
        let most = self.length + MOST_FILLED;
        let bytes = tensor(&node)
            .and_then(|tensor| values(tensor, info, most))
            .map_err(|reason| self.broken(format!("'{name}': {reason}")))?;
        Ok(StoredTensor { element: info.element, shape: info.shape.clone(), bytes })
    }
}

/// A field of the graph.
enum Step {
    /// A node, whose bytes begin here.
    Node(u64),
    /// A number where a graph has nodes.
    SavedModel,
    Other,
}

enum Stop {
    Io(io::Error),
    Broken(String),
}

/// A reader that knows where it is.
struct Counted<R> {
    inner: R,
    at: u64,
    length: u64,
}

impl<R: io::Read + io::Seek> Counted<BufReader<R>> {
    /// Takes one field; the bytes of a node go into `node`.
    fn field(&mut self, node: &mut Vec<u8>) -> Result<Step, Stop> {
        let (number, wire) = tf_proto::tag(self.varint()?).map_err(Stop::Broken)?;
        let length = match wire {
            0 => {
                self.varint()?;
                return Ok(if number == 1 { Step::SavedModel } else { Step::Other });
            }
            1 => 8,
            2 => self.varint()?,
            5 => 4,
            _ => return Err(Stop::Broken("it is no field of a graph".into())),
        };
        let left = self.length - self.at;
        if length > left {
            let reason = format!(
                "a part of {length} bytes, where {left} are left; the file is cut short or no graph"
            );
            return Err(Stop::Broken(reason));
        }
        let start = self.at;
        self.at += length;
        if number == 1 && wire == 2 {
            node.clear();
            node.resize(length as usize, 0);
            self.inner.read_exact(node).map_err(Stop::Io)?;
            return Ok(Step::Node(start));
        }
        self.inner.seek_relative(length as i64).map_err(Stop::Io)?;
        Ok(Step::Other)
    }

    fn varint(&mut self) -> Result<u64, Stop> {
        let mut bytes = Vec::with_capacity(10);
        loop {
            let mut byte = [0];
            if self.at == self.length || bytes.len() == 10 {
                return Err(Stop::Broken("a number is cut short or too long".into()));
            }
            self.inner.read_exact(&mut byte).map_err(Stop::Io)?;
            self.at += 1;
            bytes.push(byte[0]);
            if byte[0] < 128 {
                return tf_proto::varint(&mut bytes.as_slice())
                    .ok_or_else(|| Stop::Broken("a number is too long".into()));
            }
        }
    }
}

/// A constant's name, with what it holds or the name of a type that is left out.
type Constant = (String, Result<TensorInfo, &'static str>);

/// What a `NodeDef` says, if it is a constant.
fn constant(node: &[u8]) -> Result<Option<Constant>, String> {
    let (mut name, mut op) = (&b""[..], &b""[..]);
    for field in Fields::new(node) {
        match field? {
            (1, value) => name = value.bytes()?,
            (2, value) => op = value.bytes()?,
            _ => {}
        }
    }
    if op != b"Const" {
        return Ok(None);
    }
    let name = std::str::from_utf8(name).map_err(|_| "its name is no text")?;
    let named = |reason: String| format!("'{name}': {reason}");
    let message = tensor(node).map_err(named)?;
    let (mut dtype, mut shape) = (0, &b""[..]);
    for field in Fields::new(message) {
        match field.map_err(named)? {
            (1, value) => dtype = value.varint().map_err(named)?,
            (2, value) => shape = value.bytes().map_err(named)?,
            _ => {}
        }
    }
    if declared(node).map_err(named)?.is_some_and(|declared| declared != dtype) {
        return Err(named("its attribute 'dtype' and its value are of two types".into()));
    }
    let kind = match tf_proto::element(dtype) {
        Ok(element) => {
            let shape = tf_proto::shape(shape).map_err(named)?;
            tf_proto::byte_size(element, &shape).map_err(named)?;
            Ok(TensorInfo { element, shape })
        }
        Err(kind) => Err(kind),
    };
    Ok(Some((name.to_owned(), kind)))
}

/// The `TensorProto` in the attribute `value` of a node.
fn tensor(node: &[u8]) -> Result<&[u8], String> {
    let mut tensor = None;
    for field in Fields::new(node) {
        let (5, attribute) = field? else { continue };
        if let (b"value", value) = entry(attribute)? {
            for field in Fields::new(value) {
                if let (8, found) = field? {
                    tensor = Some(found.bytes()?);
                }
            }
        }
    }
    tensor.ok_or_else(|| "it is a constant without a value".into())
}

/// The attribute `dtype` of a node. It says again what the `TensorProto` says.
fn declared(node: &[u8]) -> Result<Option<u64>, String> {
    let mut declared = None;
    for field in Fields::new(node) {
        let (5, attribute) = field? else { continue };
        if let (b"dtype", value) = entry(attribute)? {
            for field in Fields::new(value) {
                if let (6, found) = field? {
                    declared = Some(found.varint()?);
                }
            }
        }
    }
    Ok(declared)
}

/// Name and `AttrValue` of an attribute.
fn entry(attribute: Value<'_>) -> Result<(&[u8], &[u8]), String> {
    let (mut key, mut value) = (&b""[..], &b""[..]);
    for field in Fields::new(attribute.bytes()?) {
        match field? {
            (1, found) => key = found.bytes()?,
            (2, found) => value = found.bytes()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The elements of a `TensorProto`, in at most `most` bytes.
///
/// They stand as they are in `tensor_content`, or one by one in the field of their type. There the last
/// one stands for all that follow, and none at all for zeros.
fn values(message: &[u8], info: &TensorInfo, most: u64) -> Result<Vec<u8>, String> {
    let element = info.element;
    let size = tf_proto::byte_size(element, &info.shape)?;
    let own = match element {
        Element::F32 => 5,
        Element::F64 => 6,
        Element::I32 | Element::I16 | Element::I8 | Element::U8 => 7,
        Element::I64 => 10,
        Element::Bool => 11,
        Element::F16 | Element::BF16 => 13,
    };
    // What has no place here is not passed over: it may be values whose field was damaged, and a tensor
    // without values is one of zeros.
    let (mut content, mut typed, mut last) = (&b""[..], false, 0);
    for field in Fields::new(message) {
        let (number, value) = field?;
        match (number, value) {
            (1 | 3, Value::Varint(_)) | (2, Value::Bytes(_)) if number != last => {}
            (4, Value::Bytes(bytes)) if number != last => content = bytes,
            _ if number == own => typed = true,
            _ => return Err(format!("its field {number} has no place in a tensor of {element:?}")),
        }
        last = number;
    }
    if !content.is_empty() {
        if typed {
            return Err("it has its values twice".into());
        }
        if content.len() != size {
            return Err(format!("{} bytes stand for a shape of {:?}", content.len(), info.shape));
        }
        tf_proto::check_bools(element, content)?;
        return Ok(content.to_vec());
    }
    if size as u64 > most {
        return Err(format!("its shape {:?} is out of proportion to the file", info.shape));
    }
    let mut out = Values { element, size, bytes: Vec::with_capacity(size) };
    for field in Fields::new(message) {
        match field? {
            (number, _) if number != own => {}
            (_, Value::Bytes(packed)) => out.packed(packed)?,
            (_, Value::Varint(value)) => out.integer(value)?,
            (_, Value::Fixed32(value)) if element == Element::F32 => {
                out.push(&value.to_le_bytes())?;
            }
            (_, Value::Fixed64(value)) if element == Element::F64 => {
                out.push(&value.to_le_bytes())?;
            }
            _ => return Err("its values are of another type than it says".into()),
        }
    }
    let mut bytes = out.bytes;
    let width = element.bytes();
    while bytes.len() < size {
        match bytes.len().checked_sub(width) {
            Some(last) => bytes.extend_from_within(last..),
            None => bytes.resize(size, 0),
        }
    }
    Ok(bytes)
}

/// Elements that are collected one by one.
struct Values {
    element: Element,
    size: usize,
    bytes: Vec<u8>,
}

impl Values {
    fn push(&mut self, element: &[u8]) -> Result<(), String> {
        if self.bytes.len() + element.len() > self.size {
            return Err("it has more values than its shape".into());
        }
        self.bytes.extend_from_slice(element);
        Ok(())
    }

    fn packed(&mut self, mut packed: &[u8]) -> Result<(), String> {
        if let Element::F32 | Element::F64 = self.element {
            let whole = packed.len().is_multiple_of(self.element.bytes());
            return if whole { self.push(packed) } else { Err("its values are cut short".into()) };
        }
        while !packed.is_empty() {
            let value = tf_proto::varint(&mut packed).ok_or("its values are cut short")?;
            self.integer(value)?;
        }
        Ok(())
    }

    fn integer(&mut self, value: u64) -> Result<(), String> {
        // Negative numbers stand in two's complement of 64 bits.
        let signed = value as i64;
        let beyond = |_| format!("{signed} is no {:?}", self.element);
        match self.element {
            Element::I64 => self.push(&signed.to_le_bytes()),
            Element::I32 => self.push(&i32::try_from(signed).map_err(beyond)?.to_le_bytes()),
            Element::I16 => self.push(&i16::try_from(signed).map_err(beyond)?.to_le_bytes()),
            Element::I8 => self.push(&i8::try_from(signed).map_err(beyond)?.to_le_bytes()),
            Element::U8 => self.push(&[u8::try_from(signed).map_err(beyond)?]),
            Element::Bool => self.push(&[u8::from(value != 0)]),
            // The bits of the number.
            Element::F16 | Element::BF16 => {
                self.push(&u16::try_from(signed).map_err(beyond)?.to_le_bytes())
            }
            Element::F32 | Element::F64 => Err("its values are no floats".into()),
        }
    }
}
