//! Pascal VOC: an XML file for each image.
//!
//! The development kit counts pixels from 1 and its corners lie in the box: `xmin` 1 is the first
//! column, and a box from 1 to the width is as wide as the image. So `x = xmin - 1` and
//! `w = xmax - xmin + 1`. Many programs that write such files count from 0 with the right corner outside
//! (`x = xmin`, `w = xmax - xmin`). Where any corner is 0 the source can't be of the first kind and is
//! taken for the second; `Options::origin` decides otherwise.
//!
//! Objects that are `difficult` are neither found nor missed in VOC's evaluation, whatever a detector
//! says of them. What COCO's form has for that is the crowd.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use roxmltree::{Document, Node};
use serde_json::Map;

use super::error::ConvertError;
use super::files::{Files, Found, shown, split_of};
use super::log::{Change, Log};
use super::model::{Declared, Image, Object, Place, Source, Split};
use super::parts::{Names, note_splits, split_name};
use super::voc_lists;
use super::{Difficult, Options};

/// What an XML file lacks to be an annotation file, if anything.
pub(super) fn lacks(files: &Files, path: &Path) -> Result<Option<String>, ConvertError> {
    use std::io::Read as _;
    let mut start = Vec::new();
    std::fs::File::open(files.path(path))
        .and_then(|file| file.take(4096).read_to_end(&mut start))
        .map_err(|source| ConvertError::Read { path: files.path(path), source })?;
    if start.windows(11).any(|w| w == b"<annotation") {
        return Ok(None);
    }
    // In UTF-16 nothing is found, whatever the file holds.
    if [[0xff, 0xfe], [0xfe, 0xff]].iter().any(|mark| start.starts_with(mark)) {
        files.text(path)?;
    }
    Ok(Some("no <annotation> in it".to_owned()))
}

/// What one XML file says.
struct Read {
    declared: Declared,
    file_name: Option<String>,
    /// The box is still xmin, ymin, xmax, ymax.
    objects: Vec<(Object, bool)>,
}

pub(super) fn read(files: &Files, options: &Options) -> Result<Source, ConvertError> {
    let mut source = Source::default();
    let mut names = Names::default();
    let mut xmls: Vec<&Path> = Vec::new();
    for path in files.with_extension("xml") {
        match lacks(files, path)? {
            None => xmls.push(path),
            Some(what) => source.log.skipped(path, &what),
        }
    }
    let splits = split(files, &xmls, &mut source, options)?;
    let mut all = Vec::new();
    for (name, paths) in splits {
        let mut read = Vec::new();
        for path in paths {
            let xml = read_xml(files, path, &mut names, &mut source.log, &name)?;
            if let Some(file) = image(files, path, &xml, &name)? {
                read.push((file.to_owned(), xml));
            } else {
                let text = match &xml.file_name {
                    Some(file_name) => format!("{} ({file_name})", shown(path)),
                    None => shown(path),
                };
                source.log.add(Change::MissingImage, Some(&name), text);
            }
        }
        all.push((name, read));
    }
    let first = |object: &Object| {
        let [x1, y1, ..] = object.bbox;
        (0. ..1.).contains(&x1) || (0. ..1.).contains(&y1)
    };
    let from_zero = all.iter().flat_map(|(_, read)| read).flat_map(|(_, xml)| &xml.objects);
    let from_zero = from_zero.clone().any(|(object, _)| first(object));
    let origin = options.origin.unwrap_or(u8::from(!from_zero));
    source.origin = Some(origin);
    for (name, read) in all {
        let mut split = Split { name, ..Split::default() };
        for (file, mut xml) in read {
            for (object, _) in &mut xml.objects {
                let [x1, y1, x2, y2] = object.bbox;
                let one = f64::from(origin);
                // From the first pixel's left edge to the last one's right edge, or to the corner itself.
                object.bbox = [x1 - one, y1 - one, x2 - x1 + one, y2 - y1 + one];
            }
            split.images.push(Image {
                id: None,
                file: files.path(&file),
                name: shown(&file),
                declared: xml.declared,
                objects: decided(xml.objects, options.difficult, &split.name, &mut source.log),
                rest: Map::new(),
            });
        }
        source.splits.push(split);
    }
    names.sort_into(&mut source);
    Ok(source)
}

/// The objects that stay, with those that are difficult as they are asked for.
fn decided(
    objects: Vec<(Object, bool)>,
    difficult: Difficult,
    split: &str,
    log: &mut Log,
) -> Vec<Object> {
    let mut kept = Vec::new();
    for (mut object, is_difficult) in objects {
        let place = object.place.to_string();
        match (is_difficult, difficult) {
            (false, _) | (true, Difficult::Keep) => {}
            (true, Difficult::Crowd) => {
                object.crowd = true;
                log.add(Change::DifficultAsCrowd, Some(split), place);
            }
            (true, Difficult::Drop) => {
                log.add(Change::DifficultDropped, Some(split), place);
                continue;
            }
        }
        kept.push(object);
    }
    kept
}

/// Splits by name, each with its XML files.
pub(super) type Splits<'a> = Vec<(String, Vec<&'a Path>)>;

/// The XML files of each split, by the lists of ImageSets/Main, else by the names of folders.
fn split<'a>(
    files: &'a Files,
    xmls: &[&'a Path],
    source: &mut Source,
    options: &Options,
) -> Result<Splits<'a>, ConvertError> {
    if files.named.is_none()
        && let Some(splits) = voc_lists::splits(files, xmls, &mut source.log)?
    {
        source.named_splits = true;
        split_name(None, source, options)?;
        return Ok(splits);
    }
    // The nearest folder that is named after a split.
    let named = |path: &Path| {
        path.parent()?.components().rev().find_map(|c| split_of(c.as_os_str().to_str()?))
    };
    let all = xmls.iter().map(|path| (*path, named(path).is_some()));
    note_splits(source, options, all);
    let mut splits = Splits::new();
    for path in xmls {
        let name = split_name(named(path).as_deref(), source, options)?;
        match splits.iter_mut().find(|(known, _)| *known == name) {
            Some((_, paths)) => paths.push(path),
            None => splits.push((name, vec![path])),
        }
    }
    if splits.is_empty() {
        split_name(None, source, options)?;
    }
    Ok(splits)
}

/// The image that an XML file is about: the one with its name, as the development kit finds it, else
/// the one that it names.
fn image<'a>(
    files: &'a Files,
    path: &Path,
    xml: &Read,
    split: &str,
) -> Result<Option<&'a Path>, ConvertError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let beside = folder.parent().map(|root| root.join("JPEGImages"));
    let mut several = None;
    let nears: Vec<PathBuf> = beside.into_iter().chain([folder.to_owned()]).collect();
    for name in [Some(stem), xml.file_name.as_deref()].into_iter().flatten() {
        for near in &nears {
            match files.image(name, near, Some(split)) {
                Found::One(file) => return Ok(Some(file)),
                Found::None => {}
                Found::Several(a, b) => several = Some((a, b)),
            }
        }
    }
    let Some((a, b)) = several else { return Ok(None) };
    let problem = format!("its image could be {} and {}", shown(a), shown(b));
    Err(ConvertError::bad(files.path(path), None, problem))
}

fn read_xml(
    files: &Files,
    path: &Path,
    names: &mut Names,
    log: &mut Log,
    split: &str,
) -> Result<Read, ConvertError> {
    let text = files.text(path)?;
    let document = Document::parse(&text).map_err(|e| {
        ConvertError::bad(
            files.path(path),
            e.pos().row as usize,
            format!("not well-formed XML: {e}"),
        )
    })?;
    let file: Arc<str> = Arc::from(shown(path).as_str());
    let line = |node: Node<'_, '_>| document.text_pos_at(node.range().start).row as usize;
    let bad = |node: Node<'_, '_>, problem: String| {
        ConvertError::bad(files.path(path), line(node), problem)
    };
    let root = document.root_element();
    if root.tag_name().name() != "annotation" {
        return Err(bad(root, "the outermost element must be <annotation>".to_owned()));
    }
    let number = |parent: Node<'_, '_>, name: &str| -> Result<f64, ConvertError> {
        let Some(node) = child(parent, name) else {
            let parent_name = parent.tag_name().name();
            return Err(bad(parent, format!("<{parent_name}> has no <{name}>")));
        };
        let text = node.text().unwrap_or_default().trim();
        text.parse().map_err(|_| bad(node, format!("<{name}> is '{text}', not a number")))
    };
    let declared = match child(root, "size") {
        Some(size) => Declared::of(Some(number(size, "width")?), Some(number(size, "height")?)),
        None => Declared::None,
    };
    let mut objects = Vec::new();
    for node in root.children().filter(|n| n.has_tag_name("object")) {
        let name = text_of(node, "name").unwrap_or_default();
        if name.is_empty() {
            return Err(bad(node, "the object has no <name>".to_owned()));
        }
        let place = Place::new(&file, line(node));
        let Some(bndbox) = child(node, "bndbox") else {
            log.add(Change::NoBox, Some(split), format!("{place}: '{name}'"));
            continue;
        };
        let mut corners = [0.; 4];
        for (corner, name) in corners.iter_mut().zip(["xmin", "ymin", "xmax", "ymax"]) {
            *corner = number(bndbox, name)?;
        }
        let mut object = Object::of_box(names.id(name), corners, place);
        let mut difficult = false;
        for detail in node.children().filter(Node::is_element) {
            let key = detail.tag_name().name();
            let text = detail.text().unwrap_or_default().trim();
            match key {
                // Read already, or what labelling tools number objects with.
                "name" | "bndbox" | "id" | "deleted" | "verified" => {}
                "difficult" | "truncated" | "occluded" => {
                    let set = ["1", "true", "yes"].contains(&text.to_lowercase().as_str());
                    difficult |= set && key == "difficult";
                    object.rest.insert(key.to_owned(), u8::from(set).into());
                }
                "pose" => {
                    if !["", "unspecified"].contains(&text.to_lowercase().as_str()) {
                        object.rest.insert(key.to_owned(), text.into());
                    }
                }
                other => {
                    let text = format!("{}: <{other}>", object.place);
                    log.add(Change::DetailDropped, Some(split), text);
                }
            }
        }
        objects.push((object, difficult));
    }
    Ok(Read { declared, file_name: text_of(root, "filename").map(str::to_owned), objects })
}

fn child<'a, 'b>(parent: Node<'a, 'b>, name: &str) -> Option<Node<'a, 'b>> {
    parent.children().find(|node| node.has_tag_name(name))
}

fn text_of<'a>(parent: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(parent, name)?.text().map(str::trim).filter(|text| !text.is_empty())
}
