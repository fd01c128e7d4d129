//! Makes values of the known names: the only "calls" that a pickle can make here.

use std::io::Read;
use std::rc::Rc;

use super::fault::Fault;
use super::machine::{Machine, SLOT};
use super::value::{Id, Known, Storage, StorageView, Value, View};

/// Sides of a tensor.
const MOST_SIDES: usize = 64;

/// What `known` makes of the tuple `arguments`.
pub(super) fn construct<R: Read>(
    machine: &mut Machine<'_, R>,
    known: Known,
    arguments: Id,
) -> Result<Value, Fault> {
    let arguments = &machine.heap.items[arguments];
    match (known, arguments.as_slice()) {
        (Known::OrderedDict, []) => machine.allocate(Vec::new(), Value::Dict),
        // Python 2 wrote an OrderedDict as a list of its pairs.
        (Known::OrderedDict, &[Value::List(list) | Value::Tuple(list)]) => {
            ordered_dict(machine, list)
        }
        (
            Known::RebuildTensor,
            &[
                Value::Storage(storage),
                Value::Int(offset),
                Value::Tuple(size),
                Value::Tuple(stride),
            ],
        ) => tensor(machine, storage, offset, size, stride),
        (
            Known::RebuildTensorV2,
            [
                Value::Storage(storage),
                Value::Int(offset),
                Value::Tuple(size),
                Value::Tuple(stride),
                Value::Bool(_),
                _,
                rest @ ..,
            ],
        ) => {
            // A seventh argument says that the values are to be negated or conjugated.
            let plain = match rest {
                [] | [Value::None] => true,
                [Value::Dict(id)] => machine.heap.items[*id].is_empty(),
                _ => false,
            };
            if !plain {
                return Err("a tensor with metadata (a negated or conjugated view)".into());
            }
            tensor(machine, *storage, *offset, *size, *stride)
        }
        (Known::RebuildParameter | Known::Parameter, [tensor @ Value::Tensor(_), ..]) => {
            Ok(tensor.clone())
        }
        (Known::Size, [tuple @ Value::Tuple(_)]) => Ok(tuple.clone()),
        (Known::Ignored, _) => Ok(Value::Ignored),
        (known, arguments) => {
            let kinds: Vec<_> = arguments.iter().take(8).map(Value::kind).collect();
            Err(format!("{known:?} can't be made of ({})", kinds.join(", ")).into())
        }
    }
}

fn ordered_dict<R: Read>(machine: &mut Machine<'_, R>, list: Id) -> Result<Value, Fault> {
    let count = machine.heap.items[list].len();
    machine.budget.take(2 * count as u64 * SLOT)?;
    let mut items = Vec::with_capacity(2 * count);
    for pair in &machine.heap.items[list] {
        match pair {
            Value::List(pair) | Value::Tuple(pair) if machine.heap.items[*pair].len() == 2 => {
                items.extend_from_slice(&machine.heap.items[*pair]);
            }
            other => return Err(format!("{} in place of a key and a value", other.kind()).into()),
        }
    }
    machine.allocate(items, Value::Dict)
}

/// A tensor that lies wholly in its storage.
fn tensor<R: Read>(
    machine: &mut Machine<'_, R>,
    storage: StorageView,
    offset: i128,
    size: Id,
    stride: Id,
) -> Result<Value, Fault> {
    let numbers = |id: Id, what: &str| -> Result<Vec<u64>, Fault> {
        let items = &machine.heap.items[id];
        if items.len() > MOST_SIDES {
            return Err(format!("a tensor of {} sides; at most {MOST_SIDES}", items.len()).into());
        }
        let number = |item: &Value| match item {
            // Sizes are i64 in PyTorch.
            Value::Int(n @ 0..=0x7fff_ffff_ffff_ffff) => Ok(*n as u64),
            other => Err(Fault::Broken(format!(
                "a tensor's {what} holds {}{}",
                other.kind(),
                if matches!(other, Value::Int(_)) { " out of range" } else { "" }
            ))),
        };
        items.iter().map(number).collect()
    };
    let (shape, strides) = (numbers(size, "size")?, numbers(stride, "stride")?);
    if shape.len() != strides.len() {
        return Err(
            format!("a tensor has {} sides and {} strides", shape.len(), strides.len()).into()
        );
    }
    let element = machine.heap.storages[storage.storage].element;
    let too_large = || Fault::Broken(format!("a tensor of shape {shape:?} is too large"));
    // Also where another side is 0: whoever multiplies the sides must not overflow.
    let filled =
        shape.iter().map(|&side| side.max(1)).try_fold(element.bytes() as u64, u64::checked_mul);
    filled.filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(too_large)?;
    let offset = u64::try_from(offset).map_err(|_| "a tensor starts before its storage")?;
    let empty = shape.contains(&0);
    let last = shape.iter().zip(&strides).try_fold(offset, |last, (&side, &stride)| {
        last.checked_add(side.saturating_sub(1).checked_mul(stride)?)
    });
    let inside = if empty {
        offset <= storage.length
    } else {
        last.is_some_and(|last| last < storage.length)
    };
    if !inside {
        return Err(format!(
            "a tensor of shape {shape:?}, strides {strides:?} and offset {offset} leaves its storage of {} elements",
            storage.length
        )
        .into());
    }
    machine.budget.take(size_of::<View>() as u64 * 3 + 16 * shape.len() as u64)?;
    machine.heap.tensors.push(View {
        storage: storage.storage,
        element,
        offset: storage.start + offset,
        shape: shape.iter().map(|&side| side as usize).collect(),
        strides,
    });
    Ok(Value::Tensor(machine.heap.tensors.len() - 1))
}

/// The storage that a persistent id means: `("storage", kind, key, location, elements[, view])`.
pub(super) fn persistent<R: Read>(
    machine: &mut Machine<'_, R>,
    id: &Value,
) -> Result<Value, Fault> {
    let wrong = |what: &str| Fault::Broken(format!("a persistent id {what}"));
    let Value::Tuple(id) = id else { return Err(wrong("that is no tuple")) };
    let (kind, key, length, view) = match machine.heap.items[*id].as_slice() {
        [
            Value::Text(tag),
            Value::Known(Known::Storage(kind)),
            Value::Text(key),
            Value::Text(_),
            Value::Int(length),
            view @ ..,
        ] if &**tag == "storage" => (*kind, Rc::clone(key), *length, view),
        _ => return Err(wrong("that describes no storage")),
    };
    let element = kind.ok_or_else(|| wrong("of a storage without a kind of element"))?;
    let most = i64::MAX as u64 / element.bytes() as u64;
    let length = u64::try_from(length).ok().filter(|&n| n <= most);
    let length = length.ok_or_else(|| wrong("of a storage of impossible size"))?;
    // A storage that is part of another one: (key, first element, elements).
    let (start, part) = match view {
        [] | [Value::None] => (0, length),
        &[Value::Tuple(view)] => match machine.heap.items[view].as_slice() {
            [_, Value::Int(start), Value::Int(part)] => {
                let range = u64::try_from(*start).ok().zip(u64::try_from(*part).ok());
                range
                    .filter(|(start, part)| {
                        start.checked_add(*part).is_some_and(|end| end <= length)
                    })
                    .ok_or_else(|| wrong("of a view that leaves its storage"))?
            }
            _ => return Err(wrong("with a view that is none")),
        },
        _ => return Err(wrong("with a view that is none")),
    };
    let storage = if let Some(&storage) = machine.storages.get(&key) {
        let known = &machine.heap.storages[storage];
        if (known.element, known.length) != (element, length) {
            return Err(wrong(&format!(
                "says another kind or size of storage '{key}' than before"
            )));
        }
        storage
    } else {
        // A row of the table, and one of the map.
        machine.budget.take(6 * size_of::<Storage>() as u64)?;
        let storage = machine.heap.storages.len();
        machine.heap.storages.push(Storage { key: Rc::clone(&key), element, length });
        machine.storages.insert(key, storage);
        storage
    };
    Ok(Value::Storage(StorageView { storage, start, length: part }))
}
