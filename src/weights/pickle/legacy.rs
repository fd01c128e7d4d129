//! The form before PyTorch 1.6: five pickles in a row, then the bare storages.
//!
//! A magic number, the version of the form, facts about the machine, the object, and the keys of the
//! storages; then for each key the number of its elements (64 bits) and its bytes. There is no
//! checksum anywhere.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};

use super::fault::{Budget, Fault};
use super::machine::Machine;
use super::value::{Heap, Value};

/// The first pickle of each such file.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const VERSION: i128 = 1001;

/// Reads the pickles of `file`, which has `length` bytes: what it made, its top value, and where the
/// bytes of each storage start.
pub(super) fn open(
    mut file: &File,
    length: u64,
    budget: &mut Budget,
) -> Result<(Heap, Value, Vec<u64>), Fault> {
    file.seek(SeekFrom::Start(0))?;
    let mut machine = Machine::new(BufReader::new(file), budget);
    let magic = machine.run()?;
    if !matches!(magic, Value::Int(MAGIC)) {
        return Err("it is a pickle, but not one of torch.save: the magic number is missing".into());
    }
    match machine.run()? {
        Value::Int(VERSION) => {}
        _ => return Err(format!("it is not of version {VERSION} of the older form").into()),
    }
    let system = machine.run()?;
    check_byte_order(&machine.heap, &system)?;
    let top = machine.run()?;
    let keys = machine.run()?;
    let Value::List(keys) = keys else {
        return Err("the list of its storages is missing".into());
    };

    let count = machine.heap.storages.len() as u64;
    machine.budget.take(8 * count)?;
    let mut starts = vec![None; machine.heap.storages.len()];
    let mut at = machine.position();
    for key in &machine.heap.items[keys] {
        let Value::Text(key) = key else {
            return Err(format!("the list of its storages holds {}", key.kind()).into());
        };
        let wrong = |what: String| Fault::Broken(format!("the storage '{key}' {what}"));
        let Some(&storage) = machine.storages.get(key) else {
            return Err(wrong("belongs to no tensor".into()));
        };
        let described = &machine.heap.storages[storage];
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        let elements = i64::from_le_bytes(head);
        if u64::try_from(elements).ok() != Some(described.length) {
            let expected = described.length;
            return Err(wrong(format!(
                "has {elements} elements at byte {at}, expected {expected}"
            )));
        }
        let bytes = described.length * described.element.bytes() as u64;
        let end = (at + 8).checked_add(bytes).filter(|&end| end <= length);
        let end = end.ok_or_else(|| {
            wrong(format!("at byte {at} needs {bytes} bytes; the file ends before"))
        })?;
        if starts[storage].replace(at + 8).is_some() {
            return Err(wrong("is listed twice".into()));
        }
        at = end;
    }
    if at != length {
        return Err(format!("{} bytes follow its last storage", length - at).into());
    }
    let starts: Option<Vec<u64>> = starts.into_iter().collect();
    let starts = starts.ok_or("a tensor's storage is not among those of the file")?;
    Ok((machine.heap, top, starts))
}

fn check_byte_order(heap: &Heap, system: &Value) -> Result<(), Fault> {
    let Value::Dict(system) = system else {
        return Err("the facts about the machine that wrote it are missing".into());
    };
    let little = heap.items[*system].chunks_exact(2).find_map(|pair| match pair {
        [Value::Text(key), Value::Bool(little)] if &**key == "little_endian" => Some(*little),
        _ => None,
    });
    match little {
        Some(true) => Ok(()),
        Some(false) => {
            Err("it was written by a big-endian machine; save it again on a little-endian one"
                .into())
        }
        None => Err("it does not say in which order its bytes are".into()),
    }
}
