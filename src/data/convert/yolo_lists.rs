//! Names and splits of a YOLO data set: `data.yaml`, `obj.data`, `obj.names`, `classes.txt`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::error::ConvertError;
use super::files::{Files, Found, shown, split_of};
use super::log::{Change, Log};
use super::yaml::{self, Node, Value};

/// What is known of the whole set.
#[derive(Debug, Default)]
pub(super) struct Set {
    /// By class, from 0.
    pub(super) names: BTreeMap<i64, String>,
    /// Where the images of each split are, if anything says so.
    pub(super) splits: Option<Vec<(String, Vec<Part>)>>,
    /// How many numbers of keypoints follow a box.
    pub(super) keypoint_numbers: Option<usize>,
}

/// A folder of images, or a list of them, as it stands in a file.
#[derive(Debug)]
pub(super) struct Part {
    text: String,
    /// Folders that it may be relative to, in the source.
    near: Vec<PathBuf>,
    file: PathBuf,
    line: usize,
}

/// A file with the names of classes that is no YAML.
pub(super) fn sign(files: &Files) -> Option<&Path> {
    (files.with_extension("data").into_iter().next())
        .or_else(|| files.with_extension("names").into_iter().next())
        .or_else(|| files.called(&["classes.txt"]).into_iter().next())
}

/// What a YAML file lacks to describe a data set, if anything.
pub(super) fn lacks(files: &Files, path: &Path) -> Result<Option<String>, ConvertError> {
    Ok(described(files, path)?.is_none().then(|| NO_NAMES.to_owned()))
}

const NO_NAMES: &str = "no `names` in it";

/// What stands in a YAML file, if it has names.
fn described(files: &Files, path: &Path) -> Result<Option<Node>, ConvertError> {
    let node = yaml::parse(&files.text(path)?, &files.path(path))?;
    Ok(node.get("names").is_some().then_some(node))
}

pub(super) fn read(files: &Files, log: &mut Log) -> Result<Set, ConvertError> {
    let mut described_by = Vec::new();
    for path in [files.with_extension("yaml"), files.with_extension("yml")].concat() {
        match described(files, path)? {
            Some(node) => described_by.push((path, node)),
            None => log.skipped(path, NO_NAMES),
        }
    }
    if let [(path, node)] = &described_by[..] {
        return from_yaml(files, path, node);
    }
    if let [(a, _), (b, _), ..] = &described_by[..] {
        let message = format!(
            "{} and {} both have names: name one of them as the source",
            shown(a),
            shown(b)
        );
        return Err(ConvertError::Usage { message });
    }
    if let Some(path) = files.with_extension("data").first() {
        return from_darknet(files, path);
    }
    let names = [files.with_extension("names"), files.called(&["classes.txt"])].concat();
    let Some(path) = names.first() else {
        let problem =
            "classes have no names here: add classes.txt with a name in each line, or data.yaml";
        return Err(ConvertError::bad(files.source(), None, problem));
    };
    Ok(Set { names: name_lines(files, path)?, ..Set::default() })
}

fn from_yaml(files: &Files, path: &Path, node: &Node) -> Result<Set, ConvertError> {
    let bad = |line, problem: String| ConvertError::bad(files.path(path), line, problem);
    let mut set = Set::default();
    let names = node.get("names").expect("it was looked for before");
    let named = |line, i: i64, name: &str| match name.trim() {
        "" => Err(bad(line, format!("class {i} has no name"))),
        _ => Ok(()),
    };
    match &names.value {
        Value::List(items) => {
            for (i, item) in (0..).zip(items) {
                let Value::Text(name) = &item.value else {
                    return Err(bad(item.line, "a name must be a text".to_owned()));
                };
                named(item.line, i, name)?;
                set.names.insert(i, name.clone());
            }
        }
        Value::Map(entries) => {
            for (key, item) in entries {
                match (key.parse::<i64>(), &item.value) {
                    (Ok(i), Value::Text(name)) if (0..i64::MAX).contains(&i) => {
                        named(item.line, i, name)?;
                        set.names.insert(i, name.clone())
                    }
                    _ => {
                        return Err(bad(
                            item.line,
                            format!("'{key}' must be a number with a name"),
                        ));
                    }
                };
            }
        }
        Value::Text(text) => {
            return Err(bad(names.line, format!("names must be a list or a map, not '{text}'")));
        }
    }
    if let Some(count) = node.get("nc")
        && count.text().and_then(|text| text.parse().ok()) != Some(set.names.len())
    {
        let text = count.text().unwrap_or_default();
        return Err(bad(
            count.line,
            format!("nc is {text}, but there are {} names", set.names.len()),
        ));
    }
    if let Some(shape) = node.get("kpt_shape") {
        let numbers: Vec<usize> =
            shape.texts().iter().filter_map(|(_, text)| text.parse().ok()).collect();
        set.keypoint_numbers = numbers.iter().copied().reduce(usize::saturating_mul);
    }
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    // `path` is often that of another machine; then its place is where the file lies.
    let base = node.get("path").and_then(Node::text).and_then(|text| inside(&folder, text));
    let near: Vec<PathBuf> = base.into_iter().chain([folder]).collect();
    let mut splits = Vec::new();
    for (key, node) in [("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test")]
        .into_iter()
        .filter_map(|(key, name)| Some((name, node.get(key)?)))
    {
        let parts: Vec<Part> = node
            .texts()
            .into_iter()
            .map(|(line, text)| Part {
                text: text.to_owned(),
                near: near.clone(),
                file: path.to_owned(),
                line,
            })
            .collect();
        if !parts.is_empty() {
            splits.push((key.to_owned(), parts));
        }
    }
    set.splits = (!splits.is_empty()).then_some(splits);
    Ok(set)
}

/// Darknet: `key = value` in each line.
fn from_darknet(files: &Files, path: &Path) -> Result<Set, ConvertError> {
    let text = files.text(path)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut set = Set::default();
    let mut splits = Vec::new();
    let mut names = None;
    for (i, row) in text.lines().enumerate() {
        let row = row.trim();
        if row.is_empty() || row.starts_with('#') {
            continue;
        }
        let Some((key, value)) = row.split_once('=') else {
            let problem = format!("'{row}' is not of the form key = value");
            return Err(ConvertError::bad(files.path(path), i + 1, problem));
        };
        let (key, value) = (key.trim(), value.trim().to_owned());
        match key {
            "names" => names = Some((i + 1, value)),
            "train" | "valid" | "val" | "test" => {
                let part = Part {
                    text: value,
                    near: vec![folder.clone()],
                    file: path.to_owned(),
                    line: i + 1,
                };
                splits.push((split_of(key).unwrap_or(key.to_owned()), vec![part]));
            }
            _ => {}
        }
    }
    let Some((line, value)) = names else {
        return Err(ConvertError::bad(files.path(path), None, "it names no file with `names =`"));
    };
    let Some(names) = other(files, &value, &folder) else {
        return Err(ConvertError::bad(files.path(path), line, format!("no file {value} here")));
    };
    set.names = name_lines(files, names)?;
    set.splits = (!splits.is_empty()).then_some(splits);
    Ok(set)
}

/// A name in each line.
fn name_lines(files: &Files, path: &Path) -> Result<BTreeMap<i64, String>, ConvertError> {
    let text = files.text(path)?;
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
    if let Some(at) = lines.iter().position(|line| line.is_empty()) {
        return Err(ConvertError::bad(files.path(path), at + 1, "a class without a name"));
    }
    Ok((0..).zip(lines).map(|(i, name)| (i, name.to_owned())).collect())
}

/// The images of a split.
pub(super) fn images<'a>(
    files: &'a Files,
    split: &str,
    parts: &[Part],
    log: &mut Log,
) -> Result<Vec<&'a Path>, ConvertError> {
    let mut images = Vec::new();
    for part in parts {
        let list = part.near.iter().find_map(|near| other(files, &part.text, near));
        if let Some(list) = list {
            let near = list.parent().unwrap_or(Path::new(""));
            for (i, row) in files.text(list)?.lines().enumerate() {
                let row = row.trim();
                if row.is_empty() {
                    continue;
                }
                match files.image(row, near, Some(split)) {
                    Found::One(image) => images.push(image),
                    Found::None => {
                        let text = format!("{}, line {}: {row}", shown(list), i + 1);
                        log.add(Change::MissingImage, Some(split), text);
                    }
                    Found::Several(a, b) => {
                        let problem = format!("{row} could be {} and {}", shown(a), shown(b));
                        return Err(ConvertError::bad(files.path(list), i + 1, problem));
                    }
                }
            }
            continue;
        }
        let folder = part
            .near
            .iter()
            .filter_map(|near| inside(near, &part.text))
            .find(|folder| holds_images(files, folder))
            .or_else(|| moved(files, split, part));
        if let Some(folder) = folder {
            images.extend(
                files.images.iter().map(PathBuf::as_path).filter(|i| i.starts_with(&folder)),
            );
        } else if files.path(&part.file).exists() {
            let text = format!(
                "{split}: no images in {} ({}, line {}): write their folder as it lies beside this file",
                part.text,
                shown(&part.file),
                part.line
            );
            log.add(Change::SplitLeftOut, None, text);
        }
    }
    let mut seen = std::collections::HashSet::new();
    images.retain(|image| {
        let new = seen.insert(*image);
        if !new {
            log.add(Change::RepeatedEntry, Some(split), shown(image));
        }
        new
    });
    Ok(images)
}

fn holds_images(files: &Files, folder: &Path) -> bool {
    files.images.iter().any(|image| image.starts_with(folder))
}

/// The folder of images that the end of an absolute path means: it was right on another machine. The end
/// has to name the split, or it could be the folder of all.
fn moved(files: &Files, split: &str, part: &Part) -> Option<PathBuf> {
    let text = part.text.replace('\\', "/");
    let drive = text.as_bytes().get(1) == Some(&b':');
    let folders: Vec<&str> = text.split('/').filter(|f| !f.is_empty() && *f != ".").collect();
    if !(text.starts_with('/') || drive) || folders.contains(&"..") {
        return None;
    }
    let names_it = |name: &&str| split_of(name).is_some_and(|known| known.starts_with(split));
    (0..folders.len())
        .map(|from| &folders[from..])
        .take_while(|end| end.iter().any(names_it))
        .flat_map(|end| part.near.iter().map(|near| near.join(end.join("/"))))
        .find(|folder| holds_images(files, folder))
}

/// The file that is no image which `text`, written in a file in the folder `near`, means.
fn other<'a>(files: &'a Files, text: &str, near: &Path) -> Option<&'a Path> {
    let wanted = [inside(near, text), inside(Path::new(""), text)];
    let by_path = wanted.iter().flatten().find_map(|path| files.others.iter().find(|f| *f == path));
    let name = Path::new(text).file_name()?;
    // Lists move together with the set; their folder was another one.
    by_path
        .or_else(|| {
            let mut same = files.others.iter().filter(|f| f.file_name() == Some(name));
            let first = same.next()?;
            let extension = first.extension().is_some_and(|e| e == "txt" || e == "names");
            (extension && same.next().is_none()).then_some(first)
        })
        .map(PathBuf::as_path)
}

/// `text` as a path in the source. As Ultralytics has it, `../` that would leave the source is skipped:
/// Roboflow writes `../train/images` for a folder beside the file. An absolute path is none.
fn inside(near: &Path, text: &str) -> Option<PathBuf> {
    let text = text.replace('\\', "/");
    let mut path = near.to_owned();
    for part in Path::new(&text).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop();
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_source() {
        let path = |near: &str, text: &str| inside(Path::new(near), text).map(|p| shown(&p));
        assert_eq!(path("", "images/train").as_deref(), Some("images/train"));
        assert_eq!(path("", "../train/images").as_deref(), Some("train/images"));
        assert_eq!(path("a/b", "../c").as_deref(), Some("a/c"));
        assert_eq!(path("", "../../../etc").as_deref(), Some("etc"));
        assert_eq!(path("", "images\\train").as_deref(), Some("images/train"));
        assert_eq!(path("a", "./").as_deref(), Some("a"));
        assert_eq!(path("a", "/etc"), None);
    }
}
