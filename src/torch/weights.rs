//! Between tensors and files: strict in both directions.

use std::collections::BTreeMap;
use std::path::Path;

use detect::weights::{Contents, Element, StoredTensor, WeightsError, strict};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// As it will lie in a file. Waits for the device.
///
/// # Panics
/// If the tensor has a kind that networks do not have: a bug of ours.
pub fn to_stored(tensor: &Tensor) -> StoredTensor {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let element = match tensor.kind() {
        Kind::Float => Element::F32,
        Kind::Double => Element::F64,
        Kind::Half => Element::F16,
        Kind::BFloat16 => Element::BF16,
        Kind::Int64 => Element::I64,
        Kind::Uint8 => Element::U8,
        other => panic!("tensors of kind {other:?} are not stored"),
    };
    let numel = tensor.numel();
    let mut bytes = vec![0; numel * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, numel);
    StoredTensor { element, shape: tensor.size().iter().map(|&n| n as usize).collect(), bytes }
}

/// From a file to the CPU, in the kind that it has there.
pub fn from_stored(stored: &StoredTensor) -> Tensor {
    let kind = match stored.element {
        Element::F32 => Kind::Float,
        Element::F64 => Kind::Double,
        Element::F16 => Kind::Half,
        Element::BF16 => Kind::BFloat16,
        Element::I64 => Kind::Int64,
        Element::I32 => Kind::Int,
        Element::I16 => Kind::Int16,
        Element::I8 => Kind::Int8,
        Element::U8 => Kind::Uint8,
        Element::Bool => Kind::Bool,
    };
    let shape: Vec<i64> = stored.shape.iter().map(|&n| n as i64).collect();
    Tensor::from_data_size(&stored.bytes, &shape, kind)
}

/// Every variable of `store` by name, in the order of names.
pub fn named_variables(store: &VarStore) -> BTreeMap<String, Tensor> {
    store.variables().into_iter().collect()
}

/// All variables of `store` as they will lie in a file; `prefix` goes before each name.
pub fn collect(store: &VarStore, prefix: &str) -> BTreeMap<String, StoredTensor> {
    let stored = |(name, tensor): (String, Tensor)| (format!("{prefix}{name}"), to_stored(&tensor));
    named_variables(store).into_iter().map(stored).collect()
}

/// Copies every tensor of `contents` whose name starts with `prefix` into the variable of that name.
/// Kinds are converted. All that is missing, unexpected or misshapen is listed, and then nothing is
/// copied. `num_batches_tracked`, which PyTorch counts and nobody reads, is passed over.
pub fn load(
    store: &VarStore,
    contents: &Contents,
    prefix: &str,
    path: &Path,
) -> Result<(), WeightsError> {
    load_into(named_variables(store), contents, prefix, path)
}

/// [`load`] for any tensors by name.
pub fn load_into(
    variables: BTreeMap<String, Tensor>,
    contents: &Contents,
    prefix: &str,
    path: &Path,
) -> Result<(), WeightsError> {
    let shape = |tensor: &Tensor| tensor.size().iter().map(|&n| n as usize).collect();
    let expected = variables.iter().map(|(name, of)| (name.clone(), shape(of))).collect();
    let stored = strict::fit(&expected, contents, |name| name.strip_prefix(prefix), path)?;
    tch::no_grad(|| {
        for (name, mut variable) in variables {
            variable.copy_(&from_stored(stored[name.as_str()]));
        }
    });
    Ok(())
}

/// Stores every tensor of two or more dimensions in half precision. Batch norm and biases, which are
/// small and may lie outside its range, stay as they are.
pub fn halve(contents: &mut Contents) {
    for tensor in contents.tensors.values_mut() {
        if tensor.element == Element::F32 && tensor.shape.len() > 1 {
            *tensor = to_stored(&from_stored(tensor).to_kind(Kind::Half));
        }
    }
}
