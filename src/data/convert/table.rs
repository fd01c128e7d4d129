//! Tables: a row for each box.
//!
//! With a header, columns are found by their usual names. Without one the columns are `RetinaNet`'s:
//! `path,x1,y1,x2,y2,class`, where an image without objects has a row with nothing but its path.
//! Corners are taken as they are, x to x2, unless the options say that they are counted from 1.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Map;

use super::Options;
use super::error::ConvertError;
use super::files::{Files, Found, shown, split_of};
use super::log::Change;
use super::model::{Declared, FRACTION, Image, Object, Place, Source, Split};
use super::parts::{Names, note_splits, split_name};
use super::table_columns::Columns;

/// A row, and the line that it begins in.
type Record = (usize, csv::StringRecord);

/// What a table lacks to have boxes, if anything.
pub(super) fn lacks(files: &Files, path: &Path) -> Result<Option<String>, ConvertError> {
    Ok(columns(files, path)?.err())
}

/// The columns of a table, or what it lacks to have boxes.
fn columns(files: &Files, path: &Path) -> Result<Result<Columns, String>, ConvertError> {
    let text = files.text(path)?;
    let first = records(files, path, &text).next().transpose()?;
    Ok(match first {
        Some((_, row)) => Columns::of(&row),
        None => Err("it has no rows".to_owned()),
    })
}

fn reader(text: &str) -> csv::Reader<impl Read> {
    // Semicolons are what spreadsheets write where the comma is in numbers.
    let first = text.lines().next().unwrap_or_default();
    let count = |c: char| first.matches(c).count();
    let delimiter =
        [b';', b'\t'].into_iter().find(|&d| count(d as char) > count(',')).unwrap_or(b',');
    // With a row more, so that a quote which the last one leaves open takes something, too.
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes().chain(&b"\n."[..]))
}

/// The rows of a table that are not empty. A row is a line: a quote that is not closed takes all that
/// follows into its cell, and nothing that stands here is meant to go over lines.
fn records(
    files: &Files,
    path: &Path,
    text: &str,
) -> impl Iterator<Item = Result<Record, ConvertError>> {
    let breaks = ['\r', '\n'];
    let mut records = reader(text).into_records();
    std::iter::from_fn(move || {
        loop {
            let record = match records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(broken(files, path, &error))),
            };
            // The position is that of the empty lines before it, if there are any.
            let from = record.position()?;
            let rest = text.get(from.byte() as usize..)?;
            let row = rest.trim_start_matches(breaks);
            if row.is_empty() {
                return None;
            }
            let line = from.line() as usize + rest[..rest.len() - row.len()].matches('\n').count();
            let end = records.reader().position().byte() as usize;
            let length = end - (text.len() - row.len());
            let whole = row.get(..length).unwrap_or(row).trim_end_matches(breaks);
            if length > row.len() + 1 || whole.contains(breaks) {
                let problem = "a cell goes over the end of the line: close its quote (\"), or write it \
                               on one line";
                return Some(Err(ConvertError::bad(files.path(path), line, problem)));
            }
            if record.iter().any(|cell| !cell.is_empty()) || record.len() > 1 {
                return Some(Ok((line, record)));
            }
        }
    })
}

fn broken(files: &Files, path: &Path, error: &csv::Error) -> ConvertError {
    let line = error.position().map(|p| p.line() as usize);
    ConvertError::bad(files.path(path), line, format!("not a table: {error}"))
}

pub(super) fn read(files: &Files, options: &Options) -> Result<Source, ConvertError> {
    let mut source = Source { origin: Some(options.origin.unwrap_or(0)), ..Source::default() };
    let mut tables = Vec::new();
    for path in files.with_extension("csv") {
        match columns(files, path)? {
            Ok(columns) => tables.push((path, columns)),
            Err(lacks) => source.log.skipped(path, &lacks),
        }
    }
    let named = |path: &Path| {
        let stem = path.file_stem()?.to_str()?;
        let folder = path.parent().and_then(Path::file_name).and_then(|f| f.to_str());
        split_of(stem).or_else(|| split_of(folder?))
    };
    let names_its =
        |path: &Path, columns: &Columns| columns.split.is_some() || named(path).is_some();
    let all = tables.iter().map(|(path, columns)| (*path, names_its(path, columns)));
    note_splits(&mut source, options, all);
    split_name(None, &source, options)?;
    let mut reading = Reading {
        files,
        options,
        names: Names::default(),
        images: HashMap::new(),
        places: HashMap::new(),
    };
    for (path, columns) in &tables {
        reading.table(path, columns, named(path).as_deref(), &mut source)?;
    }
    reading.names.sort_into(&mut source);
    Ok(source)
}

struct Reading<'a> {
    files: &'a Files,
    options: &'a Options,
    names: Names,
    /// Split and file -> place of the split and of the image in it; `None` where there is no such file.
    images: HashMap<(String, String), Option<(usize, usize)>>,
    /// The same by the file that was found: a name can be written in several ways.
    places: HashMap<(String, PathBuf), (usize, usize)>,
}

impl Reading<'_> {
    fn table(
        &mut self,
        path: &Path,
        columns: &Columns,
        named: Option<&str>,
        source: &mut Source,
    ) -> Result<(), ConvertError> {
        let text = self.files.text(path)?;
        let file: Arc<str> = Arc::from(shown(path).as_str());
        let near = path.parent().unwrap_or(Path::new(""));
        let rows = rows(self.files, path, &text, columns)?;
        let fractions = fractions(&rows)
            .map_err(|(line, problem)| ConvertError::bad(self.files.path(path), line, problem))?;
        for row in rows {
            let bad = |problem: String| ConvertError::bad(self.files.path(path), row.line, problem);
            let found = row.split.as_deref().map(|s| split_of(s).unwrap_or(s.to_owned()));
            let found = found.as_deref().or(named);
            let split = split_name(found, source, self.options)?;
            let key = (split.clone(), row.file.clone());
            let place = match self.images.get(&key) {
                Some(place) => *place,
                None => match self.files.image(&row.file, near, Some(&split)) {
                    Found::Several(a, b) => {
                        return Err(bad(format!(
                            "{} could be {} and {}",
                            row.file,
                            shown(a),
                            shown(b)
                        )));
                    }
                    Found::None if row.file.split(['/', '\\']).any(|part| part == "..") => {
                        return Err(bad(format!(
                            "{} has '..': it must stay in the folder",
                            row.file
                        )));
                    }
                    Found::None => {
                        source.log.add(
                            Change::MissingImage,
                            Some(&split),
                            format!("{file}, line {}: {}", row.line, row.file),
                        );
                        self.images.insert(key, None);
                        None
                    }
                    Found::One(image) => {
                        let file = (split.clone(), image.to_owned());
                        let new = || new_image(source, &split, self.files, image, &row);
                        let place = *self.places.entry(file).or_insert_with(new);
                        self.images.insert(key, Some(place));
                        Some(place)
                    }
                },
            };
            let (Some((at, image)), Some([a, b, c, d])) = (place, row.sides) else { continue };
            if row.class.is_empty() {
                return Err(bad("a box without a class".to_owned()));
            }
            let id = self.names.id(&row.class);
            let one = f64::from(source.origin.unwrap_or(0));
            let place = Place::new(&file, row.line);
            let mut object = if columns.corners && !fractions {
                Object::of_box(id, [a - one, b - one, c - a + one, d - b + one], place)
            } else if columns.corners {
                Object::of_corners(id, [a, b, c, d], place)
            } else {
                let one = if fractions { 0. } else { one };
                Object::of_box(id, [a - one, b - one, c, d], place)
            };
            object.fractions = fractions;
            source.splits[at].images[image].objects.push(object);
        }
        Ok(())
    }
}

/// Whether the boxes are fractions of their images, as in Open Images; as in YOLO's files some may
/// leave the image.
///
/// # Errors
/// The line and what is wrong with it, where most boxes are fractions and one can't be: in pixels the
/// others would be specks in a corner.
fn fractions(rows: &[Row]) -> Result<bool, (usize, String)> {
    let boxes = rows.iter().filter_map(|row| Some((row.line, row.sides?)));
    let (inside, beyond): (Vec<_>, Vec<_>) =
        boxes.partition(|(_, sides)| sides.iter().all(|n| FRACTION.contains(n)));
    let broken = inside.iter().flat_map(|(_, sides)| sides).any(|n| n.fract() != 0.);
    if !broken || inside.len() < beyond.len() {
        return Ok(false);
    }
    let Some((line, sides)) = beyond.first() else { return Ok(true) };
    let n = sides.iter().find(|n| !FRACTION.contains(n)).expect("it is beyond");
    Err((
        *line,
        format!(
            "{n} is not a fraction of the image, but {} of {} boxes here are in fractions: correct it, or \
             write all boxes in pixels",
            inside.len(),
            inside.len() + beyond.len()
        ),
    ))
}

/// The place of a new image.
fn new_image(
    source: &mut Source,
    split: &str,
    files: &Files,
    image: &Path,
    row: &Row,
) -> (usize, usize) {
    let at = source.splits.iter().position(|s| s.name == split).unwrap_or_else(|| {
        source.splits.push(Split { name: split.to_owned(), ..Split::default() });
        source.splits.len() - 1
    });
    let images = &mut source.splits[at].images;
    images.push(Image {
        id: None,
        file: files.path(image),
        name: shown(image),
        declared: row.declared,
        objects: Vec::new(),
        rest: Map::new(),
    });
    (at, images.len() - 1)
}

struct Row {
    line: usize,
    file: String,
    /// `None` where all four are empty.
    sides: Option<[f64; 4]>,
    class: String,
    declared: Declared,
    split: Option<String>,
}

fn rows(
    files: &Files,
    path: &Path,
    text: &str,
    columns: &Columns,
) -> Result<Vec<Row>, ConvertError> {
    let mut rows = Vec::new();
    for record in records(files, path, text).skip(usize::from(columns.header)) {
        let (line, record) = record?;
        let bad = |problem: String| ConvertError::bad(files.path(path), line, problem);
        let cell = |at: usize| record.get(at).unwrap_or_default();
        let number = |at: usize| -> Result<f64, ConvertError> {
            let text = cell(at);
            let n: f64 = text
                .parse()
                .map_err(|_| bad(format!("'{text}' in column {} is not a number", at + 1)))?;
            if n.is_finite() {
                Ok(n)
            } else {
                Err(bad(format!("'{text}' is not a number of pixels")))
            }
        };
        // A row may end in empty cells, or before the others.
        if record.iter().skip(columns.count).any(|cell| !cell.is_empty()) {
            return Err(bad(format!(
                "{} cells for {} columns: a cell that holds a separator must stand in quotes, and a \
                 number must hold none",
                record.len(),
                columns.count
            )));
        }
        if cell(columns.file).is_empty() {
            return Err(bad(format!("no file name in column {}", columns.file + 1)));
        }
        let empty = columns.sides.iter().all(|&at| cell(at).is_empty());
        let mut sides = [0.; 4];
        if !empty {
            for (side, at) in sides.iter_mut().zip(columns.sides) {
                *side = number(at)?;
            }
        }
        let declared = match columns.size {
            Some([w, h]) if !cell(w).is_empty() || !cell(h).is_empty() => {
                Declared::of(Some(number(w)?), Some(number(h)?))
            }
            _ => Declared::None,
        };
        rows.push(Row {
            line,
            file: cell(columns.file).to_owned(),
            sides: (!empty).then_some(sides),
            class: cell(columns.class).to_owned(),
            declared,
            split: columns.split.map(|at| cell(at).to_owned()).filter(|s| !s.is_empty()),
        });
    }
    Ok(rows)
}
