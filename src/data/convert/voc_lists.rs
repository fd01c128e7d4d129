//! The splits of Pascal VOC: lists of ids in `ImageSets/Main`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::error::ConvertError;
use super::files::{Files, Found, shown};
use super::log::{Change, Log};
use super::voc::Splits;

/// The XML files of each split, where there are lists. Those of several years go together.
pub(super) fn splits<'a>(
    files: &Files,
    xmls: &[&'a Path],
    log: &mut Log,
) -> Result<Option<Splits<'a>>, ConvertError> {
    let by_path: HashMap<&Path, &'a Path> = xmls.iter().map(|path| (*path, *path)).collect();
    let mut splits = Splits::new();
    let mut listed: HashSet<&Path> = HashSet::new();
    for list in files.with_extension("txt") {
        let Some(root) = root_of(list) else { continue };
        let text = files.text(list)?;
        let annotated =
            |id: &str| by_path.get(root.join("Annotations").join(format!("{id}.xml")).as_path());
        if is_of_one_class(&text, |id| annotated(id).is_some()) {
            log.skipped(list, "a list of one class");
            continue;
        }
        let name = list.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (mut paths, mut here) = (Vec::new(), HashSet::new());
        for (i, line) in text.lines().enumerate() {
            let id = line.trim();
            if id.is_empty() {
                continue;
            }
            let id = id.strip_suffix(".jpg").or(id.strip_suffix(".xml")).unwrap_or(id);
            if let Some(path) = annotated(id) {
                if !here.insert(*path) {
                    let text = format!("{}, line {}: {id}", shown(list), i + 1);
                    log.add(Change::RepeatedEntry, Some(&name), text);
                    continue;
                }
                paths.push(*path);
                listed.insert(path);
                continue;
            }
            let there = files.image(id, &root.join("JPEGImages"), None) != Found::None;
            let change = if there { Change::NotAnnotated } else { Change::MissingImage };
            let text = format!("{}, line {}: {id}", shown(list), i + 1);
            log.add(change, Some(&name), text);
        }
        match splits.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => known.extend(paths),
            None => splits.push((name, paths)),
        }
    }
    if splits.is_empty() {
        return Ok(None);
    }
    leave_out_union(&mut splits, log);
    splits.retain(|(name, paths)| {
        if paths.is_empty() {
            let text = format!("{name}: none of its images can be used");
            log.add(Change::SplitLeftOut, None, text);
        }
        !paths.is_empty()
    });
    for path in xmls.iter().filter(|path| !listed.contains(*path)) {
        log.add(Change::NotListed, None, shown(path));
    }
    Ok(Some(splits))
}

/// The folder with `Annotations` and `JPEGImages` that a list of `ImageSets/Main` belongs to.
fn root_of(list: &Path) -> Option<&Path> {
    let main = list.parent().filter(|folder| folder.ends_with("ImageSets/Main"))?;
    main.parent()?.parent()
}

/// Whether a list is of one class: behind each id stands whether the image shows it, -1, 0 or 1. Ids may
/// end so, too, and hold spaces: then they have annotations.
fn is_of_one_class(text: &str, annotated: impl Fn(&str) -> bool) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    lines.peek().is_some()
        && lines.all(|line| {
            let shows = line.rsplit_once(char::is_whitespace).map(|(_, shows)| shows);
            shows.is_some_and(|shows| ["-1", "0", "1"].contains(&shows)) && !annotated(line)
        })
}

/// `trainval` holds the images of `train` and `val`: all three would count images twice.
fn leave_out_union(splits: &mut Splits<'_>, log: &mut Log) {
    let of = |name: &str| splits.iter().find(|(known, _)| known == name).map(|(_, paths)| paths);
    let (Some(both), Some(train), Some(val)) = (of("trainval"), of("train"), of("val")) else {
        return;
    };
    let parts: HashSet<&Path> = train.iter().chain(val).copied().collect();
    if both.iter().all(|path| parts.contains(path)) {
        splits.retain(|(name, _)| name != "trainval");
        log.add(Change::SplitLeftOut, None, "trainval: its images are those of train and val");
    }
}
