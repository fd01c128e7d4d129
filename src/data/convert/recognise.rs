//! Which form a source is in, by what its files hold.

use std::path::Path;

use super::error::ConvertError;
use super::files::{Files, shown};
use super::{Format, json, table, voc, yolo, yolo_lists};
use crate::page::printable;

/// Reasons of this many files are told.
const TOLD: usize = 10;

/// The form that was asked for, or the only one that is found.
pub(super) fn format(files: &Files, from: Option<Format>) -> Result<Format, ConvertError> {
    if let Some(format) = from {
        return Ok(format);
    }
    let mut passed = Vec::new();
    let mut first = |extensions: &[&str], lacks: Lacks| {
        let mut candidates =
            extensions.iter().flat_map(|extension| files.with_extension(extension));
        candidates.find(|path| match lacks(files, path) {
            Ok(None) => true,
            Ok(Some(what)) => {
                passed.push(format!("{}: {what}", shown(path)));
                false
            }
            Err(error) => {
                passed.push(error.to_string());
                false
            }
        })
    };
    let found: Vec<(Format, String)> = [
        (Format::Voc, first(&["xml"], voc::lacks)),
        (Format::Yolo, first(&["yaml", "yml"], yolo_lists::lacks).or_else(|| yolo::sign(files))),
        (Format::Csv, first(&["csv"], table::lacks)),
        (Format::Coco, first(&["json"], json::lacks)),
    ]
    .into_iter()
    .filter_map(|(format, file)| Some((format, shown(file?))))
    .collect();
    let path = files.source();
    match &found[..] {
        [] => Err(ConvertError::Unknown { path, passed: listed(&passed) }),
        [(format, _)] => Ok(*format),
        several => {
            let several: Vec<String> = several
                .iter()
                .map(|(format, file)| format!("{} ({file})", format.name()))
                .collect();
            Err(ConvertError::Several { path, found: several.join(" or ") })
        }
    }
}

/// What a file lacks to be of a form, if anything.
///
/// # Errors
/// Where it can't be read at all.
type Lacks = fn(&Files, &Path) -> Result<Option<String>, ConvertError>;

/// The first files that were passed over, each on a line, and how many more there are.
fn listed(passed: &[String]) -> String {
    let told = passed.iter().take(TOLD).map(|reason| format!("\n  {}", printable(reason)));
    let mut lines: Vec<String> = told.collect();
    if passed.len() > TOLD {
        lines.push(format!("\n  and {} more", passed.len() - TOLD));
    }
    lines.concat()
}
