//! A message of settings, asked key by key: what is wrong is said with key and line, and what nobody
//! asked for is found.

use super::super::text_format::{self, Field, Message, Value};

/// No size or count of a detector is larger.
const MOST: i64 = 1 << 20;

/// A line and what is wrong there.
pub(super) type Fault = (usize, String);

/// A message, with the keys that were asked for.
pub(super) struct Section<'a> {
    message: &'a Message,
    /// Where it lies, such as `model.faster_rcnn`.
    at: String,
    pub(super) line: usize,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn root(message: &'a Message) -> Self {
        Self { message, at: String::new(), line: 1, asked: Vec::new() }
    }

    /// The full name of a key.
    pub(super) fn key(&self, key: &str) -> String {
        if self.at.is_empty() { key.into() } else { format!("{}.{key}", self.at) }
    }

    pub(super) fn unsupported(&self, field: &Field, value: &str, expected: &str) -> Fault {
        let key = self.key(&field.name);
        (field.line, format!("{key} is {value}, which is not supported; expected {expected}"))
    }

    pub(super) fn all(&mut self, key: &'static str) -> Vec<&'a Field> {
        self.asked.push(key);
        self.message.fields(key).collect()
    }

    pub(super) fn one(&mut self, key: &'static str) -> Result<Option<&'a Field>, Fault> {
        match self.all(key)[..] {
            [] => Ok(None),
            [field] => Ok(Some(field)),
            [_, again, ..] => Err((again.line, format!("{} is set twice", self.key(key)))),
        }
    }

    pub(super) fn missing(&self, key: &str) -> Fault {
        (self.line, format!("{} is missing", self.key(key)))
    }

    pub(super) fn required(&mut self, key: &'static str) -> Result<&'a Field, Fault> {
        self.one(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn optional(&mut self, key: &'static str) -> Result<Option<Section<'a>>, Fault> {
        let Some(field) = self.one(key)? else { return Ok(None) };
        match &field.value {
            Value::Message(message) => Ok(Some(Section {
                message,
                at: self.key(key),
                line: field.line,
                asked: Vec::new(),
            })),
            _ => Err((field.line, format!("{} is no message in {{}}", self.key(key)))),
        }
    }

    /// A message that has to be there. Where another stands in its place, that is named.
    pub(super) fn inner(&mut self, key: &'static str) -> Result<Section<'a>, Fault> {
        if let Some(section) = self.optional(key)? {
            return Ok(section);
        }
        match &self.message.fields[..] {
            [other] => {
                let reason = format!("{} is not supported; expected {key}", self.key(&other.name));
                Err((other.line, reason))
            }
            _ => Err(self.missing(key)),
        }
    }

    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<(&'a Field, f64)>, Fault> {
        let Some(field) = self.one(key)? else { return Ok(None) };
        match number(field) {
            Some(value) => Ok(Some((field, value))),
            None => Err((field.line, format!("{} is {}, no number", self.key(key), shown(field)))),
        }
    }

    /// A whole number from 1 to [`MOST`].
    pub(super) fn count(&mut self, key: &'static str, or: Option<usize>) -> Result<usize, Fault> {
        let Some(field) = self.one(key)? else { return or.ok_or_else(|| self.missing(key)) };
        let value = integer(field).filter(|value| (1..=MOST).contains(value));
        value.map(|value| value as usize).ok_or_else(|| {
            let (key, shown) = (self.key(key), shown(field));
            (field.line, format!("{key} is {shown}; expected a whole number from 1 to {MOST}"))
        })
    }

    pub(super) fn within(&mut self, key: &'static str, or: f64, most: f64) -> Result<f64, Fault> {
        let Some((field, value)) = self.number(key)? else { return Ok(or) };
        if !(0. ..=most).contains(&value) {
            let reason = format!("{} is {value}; expected 0 to {most}", self.key(key));
            return Err((field.line, reason));
        }
        Ok(value)
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, key: &'static str, or: f64) -> Result<f64, Fault> {
        self.within(key, or, 1.)
    }

    pub(super) fn weight(&mut self, key: &'static str) -> Result<f64, Fault> {
        self.within(key, 1., 1e6)
    }

    /// One or more positive numbers.
    pub(super) fn positive(&mut self, key: &'static str) -> Result<Vec<f64>, Fault> {
        let fields = self.all(key);
        if fields.is_empty() {
            return Err(self.missing(key));
        }
        let value = |field: &Field| match number(field) {
            Some(value) if value > 0. => Ok(value),
            _ => {
                let reason = format!("{} is {}; expected above 0", self.key(key), shown(field));
                Err((field.line, reason))
            }
        };
        fields.into_iter().map(value).collect()
    }

    /// A switch that is off unless it is set.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, Fault> {
        let Some(field) = self.one(key)? else { return Ok(false) };
        match &field.value {
            Value::Word(word) if ["true", "True", "t", "1"].contains(&word.as_str()) => Ok(true),
            Value::Word(word) if ["false", "False", "f", "0"].contains(&word.as_str()) => Ok(false),
            _ => {
                let reason =
                    format!("{} is {}; expected true or false", self.key(key), shown(field));
                Err((field.line, reason))
            }
        }
    }

    /// Refuses what is switched on.
    pub(super) fn is_not(&mut self, key: &'static str) -> Result<(), Fault> {
        if self.flag(key)? {
            let field = self.required(key)?;
            return Err(self.unsupported(field, "true", "false"));
        }
        Ok(())
    }

    /// Refuses a number other than this, which is its default.
    pub(super) fn is(&mut self, key: &'static str, expected: f64) -> Result<(), Fault> {
        match self.number(key)? {
            Some((field, value)) if value != expected => {
                Err(self.unsupported(field, &value.to_string(), &expected.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Refuses the name of an enum's value other than this, or its number.
    pub(super) fn is_named(
        &mut self,
        key: &'static str,
        name: &str,
        number: &str,
        default: bool,
    ) -> Result<(), Fault> {
        match self.one(key)? {
            None if default => Ok(()),
            None => {
                let (line, reason) = self.missing(key);
                Err((line, format!("{reason}; expected {name}")))
            }
            Some(Field { value: Value::Word(word), .. }) if word == name || word == number => {
                Ok(())
            }
            Some(field) => Err(self.unsupported(field, &shown(field), name)),
        }
    }

    /// Refuses keys that nobody asked for, except those that change nothing.
    pub(super) fn finish(&self, ignored: &[&str]) -> Result<(), Fault> {
        let known = |name: &str| self.asked.contains(&name) || ignored.contains(&name);
        match self.message.fields.iter().find(|field| !known(&field.name)) {
            Some(field) => Err((field.line, format!("{} is not supported", self.key(&field.name)))),
            None => Ok(()),
        }
    }
}

/// What a field is set to, for messages.
pub(super) fn shown(field: &Field) -> String {
    match &field.value {
        Value::Word(word) => word.clone(),
        Value::Text(text) => format!("{text:?}"),
        Value::Message(_) => "a message".into(),
    }
}

/// A finite number; a float may end with `f`.
pub(super) fn number(field: &Field) -> Option<f64> {
    let Value::Word(word) = &field.value else { return None };
    if let Some(whole) = integer(field) {
        return Some(whole as f64);
    }
    let digits = word.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let plain = word.strip_suffix(['f', 'F']).unwrap_or(word);
    plain.parse().ok().filter(|value: &f64| digits && value.is_finite())
}

/// A whole number; it may be hexadecimal or octal.
fn integer(field: &Field) -> Option<i64> {
    let Value::Word(word) = &field.value else { return None };
    text_format::integer(word)
}
