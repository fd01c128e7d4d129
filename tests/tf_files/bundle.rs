//! A writer of TensorFlow checkpoints for tests: forms that TensorFlow reads but does not write itself.

use std::fs;
use std::path::Path;

/// `float` in a `BundleEntryProto`.
pub(crate) const FLOAT: u64 = 1;

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field that holds an integer.
pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field that holds bytes.
pub(crate) fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

pub(crate) fn masked(data: &[u8]) -> u32 {
    // One bit at a time, so that the reader's crate is held against something else.
    let mut crc = !0_u32;
    for &byte in data {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A header for so many data files; `more` are further fields.
pub(crate) fn header(shards: u64, more: &[u8]) -> Vec<u8> {
    [number(1, shards), more.to_vec()].concat()
}

/// An entry for `data`, which lies in `shard` at `offset`.
pub(crate) fn entry(dtype: u64, shape: &[u64], shard: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let sides: Vec<u8> = shape.iter().flat_map(|&side| bytes(2, &number(1, side))).collect();
    let checksum = [varint(6 << 3 | 5), masked(data).to_le_bytes().to_vec()].concat();
    [
        number(1, dtype),
        bytes(2, &sides),
        number(3, shard),
        number(4, offset),
        number(5, data.len() as u64),
        checksum,
    ]
    .concat()
}

/// How a table is written.
pub(crate) struct Form {
    /// Entries in a data block.
    pub per_block: usize,
    /// Whether blocks are packed.
    pub snappy: bool,
}

/// A table of these entries, in this order.
pub(crate) fn table(entries: &[(Vec<u8>, Vec<u8>)], form: &Form) -> Vec<u8> {
    let mut file = Vec::new();
    let mut index = Vec::new();
    for chunk in entries.chunks(form.per_block) {
        let handle = block(&mut file, chunk, form.snappy);
        index.push((chunk.last().unwrap().0.clone(), handle));
    }
    let meta = block(&mut file, &[], form.snappy);
    let index = block(&mut file, &index, form.snappy);
    file.extend(footer(&meta, &index));
    file
}

/// Appends a block; its handle.
pub(crate) fn block(file: &mut Vec<u8>, entries: &[(Vec<u8>, Vec<u8>)], snappy: bool) -> Vec<u8> {
    let (mut body, mut restarts, mut last) = (Vec::new(), vec![0_u32], Vec::new());
    for (i, (key, value)) in entries.iter().enumerate() {
        let mut shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
        if i > 0 && i % 16 == 0 {
            restarts.push(body.len() as u32);
            shared = 0;
        }
        for length in [shared, key.len() - shared, value.len()] {
            body.extend(varint(length as u64));
        }
        body.extend(&key[shared..]);
        body.extend(value);
        last.clone_from(key);
    }
    body.extend(restarts.iter().flat_map(|at| at.to_le_bytes()));
    body.extend((restarts.len() as u32).to_le_bytes());
    if snappy {
        body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    }
    raw(file, body, snappy.into())
}

/// Appends what is said to be a block; its handle.
pub(crate) fn raw(file: &mut Vec<u8>, mut body: Vec<u8>, kind: u8) -> Vec<u8> {
    let handle = [varint(file.len() as u64), varint(body.len() as u64)].concat();
    body.push(kind);
    let checksum = masked(&body);
    file.extend(body);
    file.extend(checksum.to_le_bytes());
    handle
}

/// The end of a table.
pub(crate) fn footer(meta: &[u8], index: &[u8]) -> Vec<u8> {
    let mut footer = [meta, index].concat();
    footer.resize(40, 0);
    footer.extend(0xdb47_7524_8b80_fb57_u64.to_le_bytes());
    footer
}

/// Writes a checkpoint `model.ckpt` of `float` vectors: `shards[i]` is what data file `i` holds.
pub(crate) fn write(folder: &Path, shards: &[&[(&str, Vec<f32>)]], form: &Form) {
    let mut entries = vec![(Vec::new(), header(shards.len() as u64, &[]))];
    for (shard, tensors) in shards.iter().enumerate() {
        let mut file = Vec::new();
        for (name, values) in *tensors {
            let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let at = file.len() as u64;
            let entry = entry(FLOAT, &[values.len() as u64], shard as u64, at, &data);
            entries.push((name.as_bytes().to_vec(), entry));
            file.extend(data);
        }
        let name = format!("model.ckpt.data-{shard:05}-of-{:05}", shards.len());
        fs::write(folder.join(name), file).unwrap();
    }
    entries.sort();
    fs::write(folder.join("model.ckpt.index"), table(&entries, form)).unwrap();
}
