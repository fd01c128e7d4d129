//! The zip archive that PyTorch has written since 1.6.
//!
//! Own code, since the zip crate builds its table of an archive of any number of entries before one
//! can look at it, which is no bound on memory. This one reads what is needed of a record, and no
//! more: stored or deflated, with 64-bit sizes, without encryption or parts. A record's checksum is
//! verified over the whole record when it is first read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _, SeekFrom};
use std::ops::Range;

use flate2::bufread::DeflateDecoder;

use super::fault::{Budget, Fault};

/// Bytes of the end record without its comment.
const END: u64 = 22;
/// Bytes of the 64-bit end record, and of the pointer to it that stands before the end record.
const END_64: u64 = 56;
const LOCATOR: u64 = 20;
const MOST_NAME: usize = 4096;
const CHUNK: usize = 1 << 16;

/// One file of the archive.
#[derive(Debug, Clone)]
struct Record {
    /// Where its own header starts.
    header: u64,
    /// Bytes in the archive.
    packed: u64,
    /// Bytes of its content.
    size: u64,
    crc: u32,
    deflated: bool,
    verified: bool,
}

/// An open archive.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    /// Where the table of its records starts: none of them reaches beyond.
    table: u64,
    records: BTreeMap<String, Record>,
}

impl Archive {
    /// Reads the table of the archive `file`, which has `length` bytes.
    pub(super) fn open(file: File, length: u64, budget: &mut Budget) -> Result<Self, Fault> {
        let (count, range) = find_table(&file, length)?;
        let mut archive = Self { file, table: range.start, records: BTreeMap::new() };
        (&archive.file).seek(SeekFrom::Start(range.start))?;
        let mut table = BufReader::new((&archive.file).take(range.end - range.start));
        for _ in 0..count {
            let (name, record) = entry(&mut table, budget)?;
            if record.header.checked_add(record.packed).is_none_or(|end| end > range.start) {
                return Err(format!("the record '{name}' leaves the file").into());
            }
            if archive.records.contains_key(&name) {
                return Err(format!("there are two records '{name}'").into());
            }
            archive.records.insert(name, record);
        }
        if table.read(&mut [0])? != 0 {
            return Err("its table has more entries than its end says".into());
        }
        Ok(archive)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(String::as_str)
    }

    fn record(&self, name: &str) -> Result<Record, Fault> {
        let found = self.records.get(name).cloned();
        found.ok_or_else(|| Fault::Broken(format!("the record '{name}' is missing")))
    }

    /// Bytes of a record's content.
    pub(super) fn size(&self, name: &str) -> Result<u64, Fault> {
        Ok(self.record(name)?.size)
    }

    /// Whether a record must be unpacked from its start to reach any of it.
    pub(super) fn is_packed(&self, name: &str) -> bool {
        self.records.get(name).is_some_and(|record| record.deflated)
    }

    /// Reads the bytes `range` of a record.
    pub(super) fn read(&mut self, name: &str, range: Range<u64>) -> Result<Vec<u8>, Fault> {
        let record = self.record(name)?;
        if range.start > range.end || range.end > record.size {
            return Err(format!(
                "the record '{name}' has {} bytes, not {}",
                record.size, range.end
            )
            .into());
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        if record.verified && !record.deflated {
            let start = self.data_start(name, &record)? + range.start;
            (&self.file).seek(SeekFrom::Start(start))?;
            (&self.file).read_exact(&mut bytes)?;
            return Ok(bytes);
        }
        self.pass_over(name, |at, chunk| {
            // The part of the chunk that lies in the range.
            let from = range.start.clamp(at, at + chunk.len() as u64);
            let to = range.end.clamp(from, (at + chunk.len() as u64).max(from));
            if from < to {
                let target = (from - range.start) as usize..(to - range.start) as usize;
                bytes[target].copy_from_slice(&chunk[(from - at) as usize..(to - at) as usize]);
            }
        })?;
        Ok(bytes)
    }

    /// Reads a whole record and compares its checksum.
    pub(super) fn verify(&mut self, name: &str) -> Result<(), Fault> {
        self.pass_over(name, |_, _| ())
    }

    /// The content of a record; without a checksum.
    pub(super) fn content(&self, name: &str) -> Result<Box<dyn Read + '_>, Fault> {
        let record = self.record(name)?;
        let start = self.data_start(name, &record)?;
        (&self.file).seek(SeekFrom::Start(start))?;
        let packed = BufReader::with_capacity(CHUNK, (&self.file).take(record.packed));
        Ok(if record.deflated {
            // One byte more than announced, so that too many are seen.
            Box::new(BufReader::new(DeflateDecoder::new(packed).take(record.size + 1)))
        } else {
            Box::new(packed)
        })
    }

    /// Reads a record from start to end, chunk by chunk with their offsets, and verifies it.
    fn pass_over(&mut self, name: &str, mut see: impl FnMut(u64, &[u8])) -> Result<(), Fault> {
        let place = |fault: Fault| fault.at(&format!("the record '{name}'"));
        let record = self.record(name)?;
        let mut content = self.content(name)?;
        let mut chunk = vec![0; CHUNK];
        let mut hash = crc32fast::Hasher::new();
        let mut at = 0;
        loop {
            let length = content.read(&mut chunk).map_err(|e| place(e.into()))?;
            if length == 0 {
                break;
            }
            if at + length as u64 > record.size {
                return Err(place("it is longer than the table says".into()));
            }
            hash.update(&chunk[..length]);
            see(at, &chunk[..length]);
            at += length as u64;
        }
        drop(content);
        if at != record.size {
            return Err(place(format!("it has {at} bytes, the table says {}", record.size).into()));
        }
        if hash.finalize() != record.crc {
            return Err(place("its checksum is wrong; the file is damaged".into()));
        }
        self.records.get_mut(name).expect("it was found above").verified = true;
        Ok(())
    }

    /// Where a record's data starts: after its own header, which must agree with the table.
    fn data_start(&self, name: &str, record: &Record) -> Result<u64, Fault> {
        let wrong = || Fault::Broken(format!("the header of the record '{name}' is damaged"));
        (&self.file).seek(SeekFrom::Start(record.header))?;
        let mut head = [0; 30];
        (&self.file).read_exact(&mut head)?;
        let length = u64::from(short(&head, 26));
        let mut own = vec![0; length as usize];
        (&self.file).read_exact(&mut own)?;
        let start = record.header + 30 + length + u64::from(short(&head, 28));
        let method = if record.deflated { 8 } else { 0 };
        let fits = head.starts_with(b"PK\x03\x04")
            && own == name.as_bytes()
            && short(&head, 8) == method
            && start + record.packed <= self.table;
        if fits { Ok(start) } else { Err(wrong()) }
    }
}

/// Number of entries and place of the table, from the end of the file.
fn find_table(mut file: &File, length: u64) -> Result<(u64, Range<u64>), Fault> {
    const NONE: &str = "its table is missing; the file was cut, or is no zip archive";
    // A comment of up to 65,535 bytes can stand behind the end record.
    let tail_length = length.min(END + 0xffff);
    file.seek(SeekFrom::Start(length - tail_length))?;
    let mut tail = vec![0; tail_length as usize];
    file.read_exact(&mut tail)?;
    let starts = (0..(tail.len() + 1).saturating_sub(END as usize)).rev();
    let is_end = |&at: &usize| {
        tail[at..].starts_with(b"PK\x05\x06")
            && at + END as usize + usize::from(short(&tail, at + 20)) == tail.len()
    };
    let at = starts.into_iter().find(is_end).ok_or(NONE)?;
    let end = &tail[at..];
    let end_at = length - tail_length + at as u64;
    if [short(end, 4), short(end, 6)] != [0, 0] && [short(end, 4), short(end, 6)] != [0xffff; 2] {
        return Err("it is one part of an archive of several".into());
    }
    let (mut count, mut size, mut start) =
        (u64::from(short(end, 10)), u64::from(word(end, 12)), u64::from(word(end, 16)));
    let mut behind = end_at;
    let locator = end_at.checked_sub(LOCATOR);
    let mut pointer = [0; LOCATOR as usize];
    if let Some(locator) = locator {
        file.seek(SeekFrom::Start(locator))?;
        file.read_exact(&mut pointer)?;
    }
    if pointer.starts_with(b"PK\x06\x07") {
        behind = long(&pointer, 8);
        if behind.checked_add(END_64).is_none_or(|end| end > end_at) {
            return Err("its 64-bit end record leaves the file".into());
        }
        file.seek(SeekFrom::Start(behind))?;
        let mut wide = [0; END_64 as usize];
        file.read_exact(&mut wide)?;
        let (wide_count, wide_size, wide_start) =
            (long(&wide, 32), long(&wide, 40), long(&wide, 48));
        // The narrow fields repeat the wide ones, or say that they are too narrow.
        let agree = (count == wide_count || count == 0xffff)
            && (size == wide_size || size == 0xffff_ffff)
            && (start == wide_start || start == 0xffff_ffff);
        if !wide.starts_with(b"PK\x06\x06") || !agree {
            return Err("its two end records do not agree".into());
        }
        (count, size, start) = (wide_count, wide_size, wide_start);
    }
    // Nothing stands between the table and what follows it.
    if start.checked_add(size) != Some(behind) {
        return Err("its table is not where its end says".into());
    }
    Ok((count, start..behind))
}

/// The next entry of the table.
fn entry(table: &mut impl Read, budget: &mut Budget) -> Result<(String, Record), Fault> {
    let mut head = [0; 46];
    table.read_exact(&mut head)?;
    if !head.starts_with(b"PK\x01\x02") {
        return Err("its table is damaged".into());
    }
    let [name_length, extra_length, comment] = [28, 30, 32].map(|at| usize::from(short(&head, at)));
    if name_length > MOST_NAME {
        return Err(format!("a record's name of {name_length} bytes").into());
    }
    // The name, and a row of a tree that may be half empty.
    budget.take(name_length as u64 + 3 * size_of::<(String, Record)>() as u64)?;
    let mut name = vec![0; name_length];
    table.read_exact(&mut name)?;
    let name = String::from_utf8(name).map_err(|_| "a record's name is not UTF-8")?;
    let mut extra = vec![0; extra_length];
    table.read_exact(&mut extra)?;
    let mut rest = vec![0; comment];
    table.read_exact(&mut rest)?;

    let wrong = |what: &str| Fault::Broken(format!("the record '{name}' {what}"));
    if short(&head, 8) & 1 != 0 {
        return Err(wrong("is encrypted"));
    }
    let deflated = match short(&head, 10) {
        0 => false,
        8 => true,
        other => return Err(wrong(&format!("is packed by method {other}; known are 0 and 8"))),
    };
    // In this order the 64-bit field holds those that do not fit their own.
    let mut wide = wide_fields(&extra).unwrap_or_default().chunks_exact(8);
    let mut number = |at: usize| -> Result<u64, Fault> {
        match word(&head, at) {
            u32::MAX => wide.next().map(|n| long(n, 0)).ok_or_else(|| wrong("lacks its size")),
            narrow => Ok(narrow.into()),
        }
    };
    let (size, packed, header) = (number(24)?, number(20)?, number(42)?);
    if !deflated && size != packed {
        return Err(wrong("has two sizes"));
    }
    let crc = word(&head, 16);
    Ok((name, Record { header, packed, size, crc, deflated, verified: false }))
}

/// The content of the extra field 1, among others that do not matter.
fn wide_fields(mut extra: &[u8]) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let (id, length) = (short(extra, 0), usize::from(short(extra, 2)));
        let content = extra.get(4..4 + length)?;
        if id == 1 {
            return Some(content);
        }
        extra = &extra[4 + length..];
    }
    None
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
