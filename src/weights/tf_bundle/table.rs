//! Sorted tables as `LevelDB` writes them: the form of a checkpoint's `.index`.
//!
//! A footer points at an index block, which points at data blocks. Each block has a checksum, and all
//! are verified. Nothing is looked up: the tables here are small and read from front to back.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::super::WeightsError;
use super::super::tf_proto::varint;
use super::{broken, masked_crc};

/// Bytes at the end of a table.
const FOOTER: usize = 48;
/// Last eight bytes of a table, little-endian.
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// Type and checksum after a block.
const TRAILER: usize = 5;
/// TensorFlow closes a block after 256 KiB; a larger one unpacks to too much.
const MOST_UNPACKED: usize = 8 << 20;
/// A network's table has one or two.
const MOST_BLOCKS: usize = 100_000;
/// Longer keys are no names; since keys share their beginnings, a small file could hold many.
const MOST_KEY: usize = 16 << 10;

/// Where a block lies.
#[derive(Debug, Clone, Copy)]
struct Handle {
    offset: u64,
    size: u64,
}

impl Handle {
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { offset: varint(bytes)?, size: varint(bytes)? })
    }
}

/// Whether a file ends as a table does.
pub(super) fn is_table(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length < FOOTER as u64 {
        return Ok(false);
    }
    let mut magic = [0; 8];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut magic)?;
    Ok(u64::from_le_bytes(magic) == MAGIC)
}

/// Calls `visit` with every key and value, keys ascending.
pub(super) fn read(
    path: &Path,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), WeightsError>,
) -> Result<(), WeightsError> {
    let mut table = Table::open(path)?;
    let [meta, index] = table.footer()?;
    table.block(meta, "meta index")?;
    let mut last_key = None;
    let mut end = 0;
    for handle in table.handles(index)? {
        // Blocks that lie over each other could make a short file take very long.
        if handle.offset < end {
            return Err(broken(path, "its blocks lie over each other"));
        }
        end = handle.offset.saturating_add(handle.size);
        let block = table.block(handle, "data")?;
        walk(&block, &mut last_key, &mut visit).map_err(|fault| fault.at(path))?;
    }
    Ok(())
}

struct Table<'a> {
    path: &'a Path,
    file: File,
    length: u64,
}

impl<'a> Table<'a> {
    fn open(path: &'a Path) -> Result<Self, WeightsError> {
        let open = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) =
            open().map_err(|source| WeightsError::Read { path: path.into(), source })?;
        Ok(Self { path, file, length })
    }

    fn bytes(&mut self, offset: u64, size: usize) -> Result<Vec<u8>, WeightsError> {
        let error = |source| WeightsError::Read { path: self.path.into(), source };
        let mut bytes = vec![0; size];
        self.file.seek(SeekFrom::Start(offset)).map_err(error)?;
        self.file.read_exact(&mut bytes).map_err(error)?;
        Ok(bytes)
    }

    /// The handles of the meta index block and the index block.
    fn footer(&mut self) -> Result<[Handle; 2], WeightsError> {
        let Some(start) = self.length.checked_sub(FOOTER as u64) else {
            let reason = format!("its {} bytes are too few for a table", self.length);
            return Err(broken(self.path, reason));
        };
        let footer = self.bytes(start, FOOTER)?;
        let (mut handles, magic) = footer.split_at(FOOTER - 8);
        if magic != MAGIC.to_le_bytes() {
            return Err(broken(self.path, "it does not end as a table does; it may be cut short"));
        }
        let handles = [Handle::take(&mut handles), Handle::take(&mut handles)];
        let [Some(meta), Some(index)] = handles else {
            return Err(broken(self.path, "its footer is cut short"));
        };
        Ok([meta, index])
    }

    /// Where the data blocks lie.
    fn handles(&mut self, index: Handle) -> Result<Vec<Handle>, WeightsError> {
        let path = self.path;
        let index = self.block(index, "index")?;
        let mut handles = Vec::new();
        walk(&index, &mut None, |_, value| {
            let handle = Handle::take(&mut { value });
            handles.push(handle.ok_or_else(|| broken(path, "an entry of its index is cut short"))?);
            if handles.len() > MOST_BLOCKS {
                return Err(broken(path, format!("it has more than {MOST_BLOCKS} blocks")));
            }
            Ok(())
        })
        .map_err(|fault| fault.at(path))?;
        Ok(handles)
    }

    /// A block, verified and unpacked.
    fn block(&mut self, handle: Handle, what: &str) -> Result<Vec<u8>, WeightsError> {
        let Handle { offset, size } = handle;
        let path = self.path;
        let error =
            |reason: String| broken(path, format!("the {what} block at byte {offset} {reason}"));
        let end = offset.checked_add(size).and_then(|end| end.checked_add(TRAILER as u64));
        if end.is_none_or(|end| end > self.length - FOOTER as u64) {
            return Err(error(format!("and of {size} bytes reaches beyond the file")));
        }
        let mut bytes = self.bytes(offset, size as usize + TRAILER)?;
        let (block, checksum) = bytes.split_at(size as usize + 1);
        if masked_crc(block).to_le_bytes() != checksum {
            return Err(error("has another checksum than was written".into()));
        }
        let kind = bytes[size as usize];
        bytes.truncate(size as usize);
        match kind {
            0 => Ok(bytes),
            1 => {
                let length = snap::raw::decompress_len(&bytes).map_err(|e| error(e.to_string()))?;
                if length > MOST_UNPACKED {
                    return Err(error(format!("unpacks to {length} bytes")));
                }
                snap::raw::Decoder::new()
                    .decompress_vec(&bytes)
                    .map_err(|e| error(format!("does not unpack: {e}")))
            }
            other => Err(error(format!("is packed in the unknown way {other}"))),
        }
    }
}

/// What stops a walk: the block, or the visitor.
enum Fault {
    Block(&'static str),
    Visitor(WeightsError),
}

impl Fault {
    fn at(self, path: &Path) -> WeightsError {
        match self {
            Self::Block(reason) => broken(path, reason),
            Self::Visitor(error) => error,
        }
    }
}

/// The entries of a block. `last` is the key before them, for the order; it becomes the last of them.
fn walk(
    block: &[u8],
    last: &mut Option<Vec<u8>>,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), WeightsError>,
) -> Result<(), Fault> {
    const CUT: Fault = Fault::Block("a block is cut short");
    let (rest, restarts) = block.split_last_chunk::<4>().ok_or(CUT)?;
    let restarts = (u32::from_le_bytes(*restarts) as usize).checked_mul(4).ok_or(CUT)?;
    let mut rest = &rest[..rest.len().checked_sub(restarts).ok_or(CUT)?];
    let mut key = Vec::new();
    while !rest.is_empty() {
        let mut length = || varint(&mut rest).and_then(|n| usize::try_from(n).ok()).ok_or(CUT);
        let (shared, own, value) = (length()?, length()?, length()?);
        if shared > key.len() {
            return Err(Fault::Block("a key continues one that is shorter"));
        }
        key.truncate(shared);
        let (own, after) = rest.split_at_checked(own).ok_or(CUT)?;
        let (value, after) = after.split_at_checked(value).ok_or(CUT)?;
        rest = after;
        key.extend_from_slice(own);
        if key.len() > MOST_KEY {
            return Err(Fault::Block("a key is longer than any name"));
        }
        if last.as_ref().is_some_and(|last| key <= *last) {
            return Err(Fault::Block("its keys are out of order"));
        }
        visit(&key, value).map_err(Fault::Visitor)?;
        last.get_or_insert_default().clone_from(&key);
    }
    Ok(())
}
