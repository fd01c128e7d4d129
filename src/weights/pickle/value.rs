//! The values that a pickle can hold here, and the only names it may call.

use std::rc::Rc;

use crate::weights::Element;

/// Place of a container or tensor in the [`Heap`].
pub(super) type Id = usize;

/// A value. Containers lie in the heap, so that a value is small, shared ones are one, cycles do no
/// harm, and dropping deep ones needs no recursion.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    /// Larger whole numbers than these are [`Value::Ignored`].
    Int(i128),
    Text(Rc<str>),
    Tuple(Id),
    List(Id),
    /// Keys and values by turns.
    Dict(Id),
    Known(Known),
    Storage(StorageView),
    Tensor(Id),
    /// A value that no tensor depends on: a float, bytes, a set, a numpy scalar.
    Ignored,
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a whole number",
            Self::Text(_) => "a text",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Known(_) => "a name",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Ignored => "another value",
        }
    }
}

/// The part of a storage that a persistent id means; in elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct StorageView {
    pub(super) storage: Id,
    pub(super) start: u64,
    pub(super) length: u64,
}

/// A storage as the pickle describes it.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) key: Rc<str>,
    pub(super) element: Element,
    /// Elements.
    pub(super) length: u64,
}

/// A tensor: a strided view into a storage that it does not leave.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) storage: Id,
    pub(super) element: Element,
    /// First element in the storage.
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    /// Elements from one index to the next, for each side.
    pub(super) strides: Vec<u64>,
}

/// Everything that a pickle made.
#[derive(Debug, Default)]
pub(super) struct Heap {
    pub(super) items: Vec<Vec<Value>>,
    pub(super) tensors: Vec<View>,
    pub(super) storages: Vec<Storage>,
}

/// The names that a pickle may use. Each only makes a value; none runs anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    Parameter,
    Size,
    /// A kind of storage; `None` for `TypedStorage`, which does not say of what.
    Storage(Option<Element>),
    /// Of no interest beside tensors: types of elements, and what a numpy scalar is made of.
    Ignored,
}

impl Known {
    /// The value that `module.name` stands for; `None` where it is not on the list.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensorV2,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch.nn.parameter", "Parameter") => Self::Parameter,
            ("torch", "Size") => Self::Size,
            ("torch.storage", "UntypedStorage") => Self::Storage(Some(Element::U8)),
            ("torch.storage", "TypedStorage" | "_TypedStorage") => Self::Storage(None),
            ("torch", name) => match name.strip_suffix("Storage") {
                Some(kind) => Self::Storage(Some(storage_element(kind)?)),
                None if DTYPES.contains(&name) => Self::Ignored,
                None => return None,
            },
            // A training checkpoint often keeps its best score as a numpy scalar, which is
            // scalar(dtype(...), encode(...)).
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
            | ("numpy", "dtype")
            | ("_codecs", "encode") => Self::Ignored,
            _ => return None,
        })
    }
}

fn storage_element(kind: &str) -> Option<Element> {
    Some(match kind {
        "Float" => Element::F32,
        "Double" => Element::F64,
        "Half" => Element::F16,
        "BFloat16" => Element::BF16,
        "Long" => Element::I64,
        "Int" => Element::I32,
        "Short" => Element::I16,
        "Char" => Element::I8,
        "Byte" => Element::U8,
        "Bool" => Element::Bool,
        _ => return None,
    })
}

/// `torch.float32` and so on, which training checkpoints keep among their settings.
const DTYPES: [&str; 17] = [
    "float32",
    "float",
    "float64",
    "double",
    "float16",
    "half",
    "bfloat16",
    "int64",
    "long",
    "int32",
    "int",
    "int16",
    "short",
    "int8",
    "uint8",
    "bool",
    "complex64",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_values_is_known() {
        let known = |module, name| Known::find(module, name);
        assert_eq!(known("torch", "HalfStorage"), Some(Known::Storage(Some(Element::F16))));
        assert_eq!(known("torch", "bfloat16"), Some(Known::Ignored));
        assert_eq!(known("torch.storage", "_TypedStorage"), Some(Known::Storage(None)));
        for (module, name) in [
            ("torch", "Storage"),
            ("torch", "ComplexFloatStorage"),
            ("torch", "UntypedStorage"),
            ("torch", "load"),
            ("torch", ""),
            ("", "FloatStorage"),
            ("torch.cuda", "FloatStorage"),
            ("collections", "defaultdict"),
            ("torch._utils", "_rebuild_tensor_v3"),
            ("torch._utils", "_rebuild_tensor_v2.__globals__"),
            ("torch.nn.parameter", "Buffer"),
            ("numpy", "load"),
            ("numpy.core.multiarray", "fromfile"),
            ("_codecs", "decode"),
            ("builtins", "getattr"),
            ("argparse", "Namespace"),
        ] {
            assert_eq!(known(module, name), None, "{module}.{name}");
        }
    }
}
