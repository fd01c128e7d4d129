//! Makes checkpoints by hand, of bytes that torch would not write.

use std::io::Write as _;
use std::ops::Range;

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// A zip archive of these records, stored, or deflated where `pack` is set.
pub(crate) fn archive(records: &[(&str, &[u8])], pack: bool) -> Vec<u8> {
    let mut file = Vec::new();
    let mut table = Vec::new();
    for (name, content) in records {
        let packed = if pack {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        } else {
            content.to_vec()
        };
        let start = file.len() as u32;
        let mut head = vec![20, 0, 0, 0, if pack { 8 } else { 0 }, 0, 0, 0, 0, 0];
        head.extend(crc32fast::hash(content).to_le_bytes());
        head.extend((packed.len() as u32).to_le_bytes());
        head.extend((content.len() as u32).to_le_bytes());
        head.extend((name.len() as u16).to_le_bytes());
        head.extend([0, 0]);
        file.extend(b"PK\x03\x04");
        file.extend(&head);
        file.extend(name.as_bytes());
        file.extend(packed);
        table.extend(b"PK\x01\x02\x14\x00");
        table.extend(&head);
        table.extend([0; 10]);
        table.extend(start.to_le_bytes());
        table.extend(name.as_bytes());
    }
    let start = file.len() as u32;
    file.extend(&table);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([(records.len() as u16).to_le_bytes(); 2].concat());
    file.extend((table.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// The two forms of a checkpoint whose object pickle is `pickle`, and whose only storage has key 0.
pub(crate) fn both_forms(pickle: &[u8], storage: &[u8]) -> [Vec<u8>; 2] {
    let zip = archive(&[("a/data.pkl", pickle), ("a/data/0", storage)], false);
    [zip, legacy(pickle, b"little_endian\x88", storage)]
}

/// The older form; `order` names the byte order and says whether it is that.
pub(crate) fn legacy(pickle: &[u8], order: &[u8], storage: &[u8]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    let (name, value) = order.split_at(order.len() - 1);
    file.extend(b"\x80\x02}X");
    file.extend((name.len() as u32).to_le_bytes());
    file.extend([name, value, b"s."].concat());
    file.extend(pickle);
    file.extend(b"\x80\x02]X\x01\0\0\x000a.");
    file.extend((storage.len() as u64 / 4).to_le_bytes());
    file.extend(storage);
    file
}

/// A pickle of a dict with one tensor `w` in the storage 0 of `elements` floats.
pub(crate) fn tensor(elements: u32, offset: u32, shape: &[u32], strides: &[u32]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X\x01\0\0\0w".to_vec();
    pickle.extend(value(elements, offset, shape, strides));
    pickle.extend(b"s.");
    pickle
}

/// The opcodes that put such a tensor on the stack.
pub(crate) fn value(elements: u32, offset: u32, shape: &[u32], strides: &[u32]) -> Vec<u8> {
    let number = |n: u32| [b"J".as_slice(), &n.to_le_bytes()].concat();
    let tuple = |items: &[u32]| {
        let items: Vec<u8> = items.iter().flat_map(|&n| number(n)).collect();
        [b"(".as_slice(), &items, b"t"].concat()
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu".as_slice(),
        &number(elements),
        b"tQ",
        &number(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// Where the data of each record of a small archive lies.
pub(crate) fn records(archive: &[u8]) -> Vec<(String, Range<usize>)> {
    let short =
        |at: usize| usize::from(u16::from_le_bytes(archive[at..at + 2].try_into().unwrap()));
    let word = |at: usize| u32::from_le_bytes(archive[at..at + 4].try_into().unwrap()) as usize;
    let entries = (0..archive.len() - 4).filter(|&at| archive[at..].starts_with(b"PK\x01\x02"));
    entries
        .map(|at| {
            let name =
                String::from_utf8(archive[at + 46..at + 46 + short(at + 28)].to_vec()).unwrap();
            let header = word(at + 42);
            let start = header + 30 + short(header + 26) + short(header + 28);
            (name, start..start + word(at + 20))
        })
        .collect()
}
