//! Pieces of COCO's files: numbers and boxes, with what is wrong with them.

use super::json::{Scan, Scanner, Value};
use super::number::{Number, number_at, short_decimal};

impl Scanner<'_> {
    /// A list of four numbers. Where anything else comes, nothing is taken.
    #[inline]
    pub(super) fn four_numbers(&mut self) -> Option<[f64; 4]> {
        self.peek()?;
        let start = self.at;
        let numbers = self.four();
        if numbers.is_none() {
            self.at = start;
        }
        numbers
    }

    #[inline]
    fn four(&mut self) -> Option<[f64; 4]> {
        let mut numbers = [0.; 4];
        for (i, number) in numbers.iter_mut().enumerate() {
            if !self.take(if i == 0 { b'[' } else { b',' }) {
                return None;
            }
            self.peek()?;
            *number = self.decimal()?;
        }
        self.take(b']').then_some(numbers)
    }

    /// A number that comes at once.
    #[inline]
    pub(super) fn decimal(&mut self) -> Option<f64> {
        if let Some((x, end)) = short_decimal(self.bytes, self.at) {
            self.at = end;
            return Some(x);
        }
        self.bytes.get(self.at)?;
        let (number, end) = number_at(self.bytes, self.at)?;
        self.at = end;
        match number {
            Number::Float(x) => Some(x),
            Number::Int(i) => Some(i as f64),
            Number::BigInt(_) => None,
        }
    }

    /// An integer that comes at once.
    #[inline]
    pub(super) fn integer(&mut self) -> Option<i64> {
        self.bytes.get(self.at)?;
        let (Number::Int(i), end) = number_at(self.bytes, self.at)? else { return None };
        self.at = end;
        Some(i)
    }

    /// Takes a text if it comes at once.
    #[inline]
    pub(super) fn literal<const N: usize>(&mut self, text: &[u8; N]) -> bool {
        let next = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let found = next == Some(text);
        self.at += if found { N } else { 0 };
        found
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
