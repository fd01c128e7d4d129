//! Which form a source is in, by what its files hold.

use super::error::ConvertError;
use super::files::{Files, shown};
use super::{Format, json, table, voc, yolo};

/// The form that was asked for, or the only one that is found.
pub(super) fn format(files: &Files, from: Option<Format>) -> Result<Format, ConvertError> {
    if let Some(format) = from {
        return Ok(format);
    }
    let mut found: Vec<(Format, String)> = Vec::new();
    if let Some(file) = voc::sign(files) {
        found.push((Format::Voc, shown(file)));
    }
    if let Some(file) = yolo::sign(files) {
        found.push((Format::Yolo, shown(file)));
    }
    if let Some(file) = table::sign(files) {
        found.push((Format::Csv, shown(file)));
    }
    if let Some(file) =
        files.with_extension("json").into_iter().find(|path| json::is_coco(&files.path(path)))
    {
        found.push((Format::Coco, shown(file)));
    }
    let path = files.source();
    match &found[..] {
        [] => Err(ConvertError::Unknown { path }),
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
