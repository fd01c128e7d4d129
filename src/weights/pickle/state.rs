//! Finds the state dict in what a pickle made.

use super::fault::{Budget, Fault};
use super::value::{Heap, Id, Value, View};

/// Where a training checkpoint keeps its state dict, in the order of preference: the plain weights
/// before their moving averages.
const PLACES: [&str; 5] =
    ["state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema"];

/// What `DataParallel` puts before every name.
const WRAPPER: &str = "module.";

/// A state dict: under which key of the top value it was found, and its tensors.
pub(super) struct State {
    pub(super) place: Option<&'static str>,
    pub(super) tensors: Vec<(String, View)>,
}

/// Finds the state dict in `top`.
pub(super) fn find(heap: &Heap, top: &Value, budget: &mut Budget) -> Result<State, Fault> {
    let Value::Dict(top) = *top else {
        return Err(format!("it holds {}, not a dict of tensors", top.kind()).into());
    };
    let inner = PLACES.iter().find_map(|&place| {
        let dict = heap.items[top].chunks_exact(2).rev().find_map(|pair| match pair {
            [Value::Text(key), Value::Dict(dict)] if &**key == place => Some(*dict),
            _ => None,
        })?;
        has_tensors(heap, dict).then_some((place, dict))
    });
    let (place, dict) = inner.map_or((None, top), |(place, dict)| (Some(place), dict));
    if !has_tensors(heap, dict) {
        return Err(format!(
            "it holds no tensors, neither at the top nor under {}",
            PLACES.join(", ")
        )
        .into());
    }
    let mut tensors = Vec::new();
    for pair in heap.items[dict].chunks_exact(2) {
        match pair {
            [Value::Text(name), Value::Tensor(id)] => {
                let view = &heap.tensors[*id];
                // The name stands in two tables, the sides too.
                let row = 4 * size_of::<(String, View)>() + 2 * name.len() + 32 * view.shape.len();
                budget.take(row as u64)?;
                tensors.push((name.to_string(), view.clone()));
            }
            [key, Value::Tensor(_)] => {
                return Err(format!("a tensor is named by {}, not by a text", key.kind()).into());
            }
            _ => {}
        }
    }
    if tensors.iter().all(|(name, _)| name.len() > WRAPPER.len() && name.starts_with(WRAPPER)) {
        for (name, _) in &mut tensors {
            name.drain(..WRAPPER.len());
        }
    }
    Ok(State { place, tensors })
}

fn has_tensors(heap: &Heap, dict: Id) -> bool {
    heap.items[dict].chunks_exact(2).any(|pair| matches!(pair[1], Value::Tensor(_)))
}
