//! Ids of images, categories and annotations, compared as Python compares them.
//!
//! COCO's ids are integers, but any number and any text serves as one in pycocotools. Nearly all fit
//! an `i64`; tables and readers have a short way for those.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

use super::json::{Scan, Scanner, Value};

/// An id. Whole numbers are equal however they are written (1, 1.0, true); a text equals no number.
#[derive(Debug, Clone, PartialEq)]
pub enum Id {
    /// A whole number.
    Int(i128),
    /// A number with a fraction, never NaN.
    Fraction(f64),
    /// A text; in order of code points.
    Text(String),
}

impl Eq for Id {}

impl std::hash::Hash for Id {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Self::Int(id) => id.hash(state),
            Self::Fraction(id) => id.to_bits().hash(state),
            Self::Text(id) => id.hash(state),
        }
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Fraction(a), Self::Fraction(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            // A number with a fraction is below 2^53, where its floor is exact.
            (Self::Int(a), Self::Fraction(b)) => a.cmp(&(b.floor() as i128)).then(Ordering::Less),
            (Self::Fraction(_), Self::Int(_)) => other.cmp(self).reverse(),
            (Self::Text(_), _) => Ordering::Greater,
            (_, Self::Text(_)) => Ordering::Less,
        }
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<i64> for Id {
    fn from(id: i64) -> Self {
        Self::Int(i128::from(id))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(id) => write!(f, "{id}"),
            Self::Fraction(id) => write!(f, "{id}"),
            Self::Text(id) => {
                f.write_char('"')?;
                id.chars().try_for_each(|c| match c {
                    '"' | '\\' => write!(f, "\\{c}"),
                    // What would not be seen: as JSON may write it.
                    _ if c.is_control() || c.escape_debug().len() > 2 => {
                        let mut units = [0; 2];
                        c.encode_utf16(&mut units).iter().try_for_each(|u| write!(f, "\\u{u:04x}"))
                    }
                    _ => f.write_char(c),
                })?;
                f.write_char('"')
            }
        }
    }
}

/// As JSON writes it; a whole number beyond 64 bits as a text.
impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(id) => match (i64::try_from(*id), u64::try_from(*id)) {
                (Ok(id), _) => serializer.serialize_i64(id),
                (_, Ok(id)) => serializer.serialize_u64(id),
                _ => serializer.serialize_str(&id.to_string()),
            },
            Self::Fraction(id) => serializer.serialize_f64(*id),
            Self::Text(id) => serializer.serialize_str(id),
        }
    }
}

impl Id {
    /// The text that reads as this number, or the whole number that this text reads as.
    pub(super) fn in_other_kind(&self) -> Option<Self> {
        match self {
            Self::Int(id) => Some(Self::Text(id.to_string())),
            Self::Text(id) => id.parse().ok().map(Self::Int),
            Self::Fraction(_) => None,
        }
    }

    /// Python's `float(id) == 0`, for a text that reads as a number too; none where `float` raises.
    pub(super) fn is_zero(&self) -> Option<bool> {
        match self {
            Self::Int(id) => Some(*id == 0),
            Self::Fraction(_) => Some(false),
            Self::Text(id) => id.trim().parse::<f64>().ok().map(|id| id == 0.),
        }
    }
}

/// The value of a key that should hold an id.
#[derive(Debug, Default)]
pub(super) enum RawId {
    #[default]
    Missing,
    Int(i64),
    Other(Box<Id>),
    /// What can't be an id: what it is.
    Wrong(&'static str),
}

impl RawId {
    #[inline]
    pub(super) fn read(scanner: &mut Scanner<'_>) -> Scan<Self> {
        if scanner.at_text() {
            return Ok(Self::Other(Box::new(Id::Text(scanner.text()?.into_owned()))));
        }
        let start = scanner.position();
        Ok(match scanner.value()? {
            Value::Int(id) => Self::Int(id),
            other => Self::odd(other, scanner.since(start)),
        })
    }

    #[cold]
    fn odd(value: Value, written: &[u8]) -> Self {
        const LIMIT: f64 = 9_223_372_036_854_775_808.; // 2^63
        match value {
            Value::Bool(id) => Self::Int(i64::from(id)),
            Value::Float(id) if id.fract() == 0. && (-LIMIT..LIMIT).contains(&id) => {
                Self::Int(id as i64)
            }
            Value::Float(id) if id.fract() == 0. && id.abs() < LIMIT * LIMIT => {
                Self::Other(Box::new(Id::Int(id as i128)))
            }
            Value::Float(id) if id.is_finite() && id.fract() != 0. => {
                Self::Other(Box::new(Id::Fraction(id)))
            }
            Value::Float(_) => Self::Wrong("no finite number"),
            Value::BigInt(_) => {
                let id =
                    std::str::from_utf8(written).ok().and_then(|text| text.trim().parse().ok());
                id.map_or(Self::Wrong("an integer beyond 128 bits"), |id| {
                    Self::Other(Box::new(Id::Int(id)))
                })
            }
            other => Self::Wrong(other.kind()),
        }
    }

    /// What is wrong with it as the value of `key`.
    #[inline]
    pub(super) fn problem(&self, key: &str) -> Option<String> {
        match self {
            Self::Int(_) | Self::Other(_) => None,
            Self::Missing => Some(format!("has no `{key}`")),
            Self::Wrong(kind) => Some(format!("`{key}` is {kind}; an id is a number or a text")),
        }
    }

    /// The id; 0 for what has a problem.
    pub(super) fn into_id(self) -> Id {
        match self {
            Self::Int(id) => id.into(),
            Self::Other(id) => *id,
            Self::Missing | Self::Wrong(_) => Id::Int(0),
        }
    }
}

/// Ids numbered from 0 in order of appearance.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbering {
    ids: Vec<Id>,
    ints: HashMap<i64, u32>,
    others: HashMap<Id, u32>,
    /// The last one asked for: entries of an image mostly follow each other.
    last: Option<(i64, u32)>,
    /// Numbers of the ids 0 to 255, plus one; where all COCO's categories lie.
    small: Vec<u32>,
}

impl Numbering {
    pub(super) fn into_ids(self) -> Vec<Id> {
        self.ids
    }

    /// The number of `id`, a new one where it is new.
    #[inline]
    pub(super) fn int(&mut self, id: i64) -> u32 {
        if let Some((last, number)) = self.last
            && last == id
        {
            return number;
        }
        let number = match usize::try_from(id) {
            Ok(small) if small < 256 => self.small(small),
            _ => self.large(id),
        };
        self.last = Some((id, number));
        number
    }

    #[inline]
    fn small(&mut self, id: usize) -> u32 {
        if self.small.is_empty() {
            self.small = vec![0; 256];
        }
        if self.small[id] == 0 {
            self.ids.push(Id::Int(id as i128));
            self.small[id] = self.ids.len() as u32;
        }
        self.small[id] - 1
    }

    fn large(&mut self, id: i64) -> u32 {
        let ids = &mut self.ids;
        *self.ints.entry(id).or_insert_with(|| {
            ids.push(id.into());
            (ids.len() - 1) as u32
        })
    }

    pub(super) fn id(&mut self, id: Id) -> u32 {
        if let Id::Int(int) = id
            && let Ok(int) = i64::try_from(int)
        {
            return self.int(int);
        }
        let ids = &mut self.ids;
        *self.others.entry(id).or_insert_with_key(|id| {
            ids.push(id.clone());
            (ids.len() - 1) as u32
        })
    }

    #[inline]
    pub(super) fn raw(&mut self, id: RawId) -> u32 {
        match id {
            RawId::Int(id) => self.int(id),
            other => self.id(other.into_id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_pythons_order() {
        let text = |t: &str| Id::Text(t.to_owned());
        let ordered = [
            Id::Fraction(-1.5),
            Id::Int(-1),
            Id::Fraction(-0.5),
            Id::Int(0),
            Id::Fraction(0.5),
            Id::Int(1),
            Id::Int(1 << 53),
            Id::Int((1 << 53) + 1),
            text("10"),
            text("9"),
            text("é"),
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn equal_ids_have_one_number() {
        let mut numbering = Numbering::default();
        let mut number = |text: &str| {
            let raw = RawId::read(&mut Scanner::new(text.as_bytes())).unwrap();
            assert_eq!(raw.problem("id"), None, "{text}");
            numbering.raw(raw)
        };
        assert_eq!(number("1"), 0);
        assert_eq!(number("1.0"), 0);
        assert_eq!(number("true"), 0);
        assert_eq!(number("\"1\""), 1);
        assert_eq!(number("9007199254740993"), 2);
        assert_eq!(number("9007199254740992"), 3);
        assert_eq!(number("18446744073709551616"), 4);
        assert_eq!(number("18446744073709551616.0"), 4);
        assert_eq!(number("-7"), 5);
        assert_eq!(number("1.5"), 6);
        assert_eq!(number("\"1\""), 1);
        for wrong in ["null", "[1]", "NaN", "-Infinity"] {
            let raw = RawId::read(&mut Scanner::new(wrong.as_bytes())).unwrap();
            assert!(raw.problem("id").is_some(), "{wrong}");
        }
    }
}
