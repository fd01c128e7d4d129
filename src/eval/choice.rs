//! Which of the listed images and categories are asked for, and which ids are looked for in vain.

use std::collections::HashMap;

use super::error::EvalError;
use super::id::Id;
use super::read::GroundTruth;

/// Which of the listed ids are asked for, as places in the list.
pub(super) fn chosen(
    gt: &GroundTruth,
    what: &'static str,
    wanted: Option<&[Id]>,
    listed: &[Id],
) -> Result<Vec<usize>, EvalError> {
    let Some(wanted) = wanted else { return Ok((0..listed.len()).collect()) };
    let mut unknown = Unknown::default();
    let mut places = Vec::with_capacity(wanted.len());
    for id in wanted {
        // A list on the command line does not tell the text "7" from the number.
        let text = || listed.binary_search(&Id::Text(id.to_string()));
        match listed.binary_search(id).or_else(|_| text()) {
            Ok(place) => places.push(place),
            Err(_) => unknown.add(id, 1),
        }
    }
    if unknown.entries > 0 {
        let named = |id: &Id| match id {
            Id::Text(name) if what == "category" => gt.categories.iter().find(|c| c.name == *name),
            _ => None,
        };
        let named =
            wanted.iter().filter_map(|id| Some(format!("{id} has the id {}", named(id)?.id)));
        let named: Vec<String> = named.take(10).collect();
        let advice = if named.is_empty() {
            String::new()
        } else {
            format!("; ids are asked for, not names: {}", named.join(", "))
        };
        return Err(EvalError::UnknownChoice {
            annotations: gt.file().to_owned(),
            what,
            first: unknown.first_ten(),
            advice,
        });
    }
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

/// Ids that were looked for in vain.
#[derive(Default)]
pub(super) struct Unknown {
    pub(super) entries: usize,
    /// Distinct ones, with their order of appearance.
    ids: HashMap<Id, usize>,
}

impl Unknown {
    pub(super) fn add(&mut self, id: &Id, entries: usize) {
        self.entries += entries;
        let next = self.ids.len();
        if !self.ids.contains_key(id) {
            self.ids.insert(id.clone(), next);
        }
    }

    /// What is said where an id is `listed` as a text and looked for as a number, or the other way.
    pub(super) fn of_other_kind(&self, listed: &[Id]) -> Option<&'static str> {
        let is_listed = |id: &Id| listed.binary_search(id).is_ok();
        let found =
            self.ids.keys().find(|id| id.in_other_kind().is_some_and(|id| is_listed(&id)))?;
        Some(match found {
            Id::Text(_) => {
                "the annotations have such ids as numbers, without quotes: write them so in the results"
            }
            _ => "the annotations have such ids as texts, in quotes: write them so in the results",
        })
    }

    pub(super) fn first_ten(&self) -> String {
        let mut ids: Vec<(usize, &Id)> = self.ids.iter().map(|(id, &order)| (order, id)).collect();
        ids.sort_unstable();
        let more = ids.len().saturating_sub(10);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let first: Vec<String> = ids.iter().take(10).map(|(_, id)| id.to_string()).collect();
        first.join(", ") + &more
    }
}
