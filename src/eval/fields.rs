//! Pieces of COCO's files: lists of entries, ids, numbers and boxes, with what is wrong with them.

use std::path::Path;

use super::error::EvalError;
use super::json::{Scanner, SyntaxError, Value};

/// A list of the file. A later one of the same name replaces it, problems and all.
pub(super) enum Section<T> {
    Missing,
    NoList(&'static str),
    List { entries: Vec<T>, first_problem: Option<(usize, String)> },
}

impl<T> Section<T> {
    pub(super) fn entries(
        self,
        file: &Path,
        list: &'static str,
    ) -> Result<Option<Vec<T>>, EvalError> {
        match self {
            Self::Missing => Ok(None),
            Self::NoList(kind) => Err(EvalError::Form {
                file: file.to_owned(),
                problem: format!("`{list}` is {kind}, not a list"),
            }),
            Self::List { first_problem: Some((index, problem)), .. } => {
                Err(EvalError::Entry { file: file.to_owned(), list, index, problem })
            }
            Self::List { entries, .. } => Ok(Some(entries)),
        }
    }
}

/// What an entry turns into, or what is wrong with it; the outer error is of the JSON itself.
pub(super) type Entry<T> = Result<Result<T, String>, SyntaxError>;

pub(super) fn section<T>(
    scanner: &mut Scanner<'_>,
    entry: impl Fn(&mut Scanner<'_>) -> Entry<T>,
) -> Result<Section<T>, SyntaxError> {
    if !scanner.at_list() {
        return Ok(Section::NoList(scanner.value()?.kind()));
    }
    let mut entries = Vec::new();
    let mut first_problem = None;
    let mut index = 0;
    scanner.list(|s| {
        let read = if s.at_object() {
            entry(s)?
        } else {
            Err(format!("is {}, not an object", s.value()?.kind()))
        };
        match read {
            Ok(read) => entries.push(read),
            Err(problem) => {
                first_problem.get_or_insert((index, problem));
            }
        }
        index += 1;
        Ok(())
    })?;
    Ok(Section::List { entries, first_problem })
}

/// An id: whole numbers are equal however they are written (1, 1.0, true), as in Python.
pub(super) fn id_of(key: &str, value: Option<Value>) -> Result<i64, String> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.; // 2^63
    match value {
        None => Err(format!("has no `{key}`")),
        Some(Value::Int(id)) => Ok(id),
        Some(Value::Bool(id)) => Ok(i64::from(id)),
        Some(Value::Float(id)) if id.fract() == 0. && (-LIMIT..LIMIT).contains(&id) => {
            Ok(id as i64)
        }
        Some(other) => Err(format!(
            "`{key}` is {}; ids must be whole numbers of at most 64 bits",
            other.kind()
        )),
    }
}

pub(super) fn number(key: &str, value: Option<Value>) -> Result<f64, String> {
    let value = value.ok_or_else(|| format!("has no `{key}`"))?;
    value.as_f64().ok_or_else(|| format!("`{key}` is {}, not a number", value.kind()))
}

/// A `bbox` as it stands in the file.
pub(super) enum Box4 {
    Missing,
    NoList(&'static str),
    /// Its length, its first four numbers, and what else than a number is in it.
    List(usize, [f64; 4], Option<&'static str>),
}

impl Box4 {
    pub(super) fn read(scanner: &mut Scanner<'_>) -> Result<Self, SyntaxError> {
        if !scanner.at_list() {
            return Ok(Self::NoList(scanner.value()?.kind()));
        }
        let (mut length, mut numbers, mut other) = (0, [0.; 4], None);
        scanner.list(|s| {
            let value = s.value()?;
            match value.as_f64() {
                Some(x) if length < 4 => numbers[length] = x,
                Some(_) => {}
                None => other = other.or(Some(value.kind())),
            }
            length += 1;
            Ok(())
        })?;
        Ok(Self::List(length, numbers, other))
    }

    /// The first four numbers of a list of at least four.
    pub(super) fn first_four(&self) -> Result<[f64; 4], String> {
        match *self {
            Self::Missing => Err("has no `bbox`".to_owned()),
            Self::NoList(kind) => Err(format!("`bbox` is {kind}, not a list")),
            Self::List(_, _, Some(kind)) => Err(format!("`bbox` holds {kind}, not four numbers")),
            Self::List(length, ..) if length < 4 => Err(Self::wrong_length(length)),
            Self::List(_, numbers, None) => Ok(numbers),
        }
    }

    pub(super) fn exactly(&self) -> Result<[f64; 4], String> {
        match *self {
            Self::List(length, _, None) if length > 4 => Err(Self::wrong_length(length)),
            _ => self.first_four(),
        }
    }

    fn wrong_length(length: usize) -> String {
        format!("`bbox` has {length} numbers, not four (x, y, width, height)")
    }
}
