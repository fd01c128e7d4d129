//! Pieces of COCO's files: numbers and boxes, with what is wrong with them.

use super::json::{Scan, Scanner, Value};
use super::number::{Number, number_at};

impl Scanner<'_> {
    /// A list of four numbers, all of them as decimals are mostly written. Where anything else comes,
    /// nothing is taken.
    #[inline]
    pub(super) fn four_numbers(&mut self) -> Option<[f64; 4]> {
        self.peek()?;
        let start = self.at;
        let mut numbers = [0.; 4];
        for (i, number) in numbers.iter_mut().enumerate() {
            let opened = self.take(if i == 0 { b'[' } else { b',' });
            let read = opened.then(|| self.peek()).flatten();
            let read = read.and_then(|_| number_at(self.bytes, self.at));
            let Some((read, end)) = read else {
                self.at = start;
                return None;
            };
            *number = match read {
                Number::Float(x) => x,
                Number::Int(i) => i as f64,
                Number::BigInt(_) => {
                    self.at = start;
                    return None;
                }
            };
            self.at = end;
        }
        if !self.take(b']') {
            self.at = start;
            return None;
        }
        Some(numbers)
    }
}

/// An entry of a list that is no object, or what stands there.
#[inline]
pub(super) fn not_an_object(scanner: &mut Scanner<'_>) -> Scan<Option<String>> {
    if scanner.at_object() {
        return Ok(None);
    }
    Ok(Some(format!("is {}, not an object", scanner.value()?.kind())))
}

#[inline]
pub(super) fn number(key: &str, value: Option<Value>) -> Result<f64, String> {
    match value {
        Some(Value::Float(x)) => Ok(x),
        _ => other_number(key, value),
    }
}

fn other_number(key: &str, value: Option<Value>) -> Result<f64, String> {
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
    #[inline]
    pub(super) fn read(scanner: &mut Scanner<'_>) -> Scan<Self> {
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
    #[inline]
    pub(super) fn first_four(&self) -> Result<[f64; 4], String> {
        match *self {
            Self::List(4.., numbers, None) => Ok(numbers),
            _ => Err(self.problem()),
        }
    }

    #[cold]
    fn problem(&self) -> String {
        match *self {
            Self::Missing => "has no `bbox`".to_owned(),
            Self::NoList(kind) => format!("`bbox` is {kind}, not a list"),
            Self::List(_, _, Some(kind)) => format!("`bbox` holds {kind}, not four numbers"),
            Self::List(length, ..) => {
                format!("`bbox` has {length} numbers, not four (x, y, width, height)")
            }
        }
    }

    /// What is wrong with it besides.
    #[inline]
    pub(super) fn too_long(&self) -> Option<String> {
        matches!(*self, Self::List(5.., _, None)).then(|| self.problem())
    }
}
