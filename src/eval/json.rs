//! A JSON scanner for large files of numbers: no tree, one pass, callbacks for members and elements.
//!
//! It reads what Python's `json` reads, since that is what wrote most of these files: `NaN`,
//! `Infinity` and `-Infinity` are numbers, and a key given twice is handed over twice (the reader
//! keeps the last). Numbers become the nearest double. A part of a file can be scanned by itself
//! (`at_offset`), which is how large lists are read in pieces.

use std::borrow::Cow;

use super::number::{Number, number_at, number_end, skip_numbers};
use super::text::plain_length;

/// Deeper nesting is refused; Python gives up at about this depth too.
const MAX_DEPTH: usize = 960;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Bytes of the file before the place.
    pub(super) offset: usize,
    /// What is wrong there.
    pub(super) problem: &'static str,
}

/// One value; of texts, lists and objects only the kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer that no `i64` holds, as the nearest double.
    BigInt(f64),
    Float(f64),
    Text,
    List,
    Object,
}

impl Value {
    /// The number that Python would compute with: `true` is 1.
    pub(super) fn as_f64(self) -> Option<f64> {
        match self {
            Self::Float(x) => Some(x),
            Self::Int(i) => Some(i as f64),
            Self::Bool(b) => Some(f64::from(u8::from(b))),
            Self::BigInt(x) => x.is_finite().then_some(x),
            Self::Null | Self::Text | Self::List | Self::Object => None,
        }
    }

    /// What it is, for messages.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a number",
            Self::BigInt(_) => "an integer beyond 64 bits",
            Self::Float(_) => "a number with a fraction",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

pub(super) type Scan<T> = Result<T, SyntaxError>;

/// Reads JSON from a stretch of bytes.
pub(super) struct Scanner<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    depth: usize,
    /// Bytes of the file before `bytes`.
    offset: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self::at_offset(bytes, 0)
    }

    /// Of bytes that stand `offset` bytes behind the start of their file.
    pub(super) fn at_offset(bytes: &'a [u8], offset: usize) -> Self {
        Self { bytes, at: 0, depth: 0, offset }
    }

    /// Bytes of the file before the next one.
    pub(super) fn position(&self) -> usize {
        self.offset + self.at
    }

    /// Goes on at a place of the file, which must lie in these bytes or at their end.
    pub(super) fn go_to(&mut self, position: usize) {
        self.at = position - self.offset;
    }

    /// The bytes from a place of the file to the next one.
    pub(super) fn since(&self, position: usize) -> &'a [u8] {
        &self.bytes[position - self.offset..self.at]
    }

    pub(super) fn fail<T>(&self, problem: &'static str) -> Scan<T> {
        self.fail_at(self.at, problem)
    }

    pub(super) fn fail_at<T>(&self, at: usize, problem: &'static str) -> Scan<T> {
        Err(SyntaxError { offset: self.offset + at, problem })
    }

    /// The next byte that is no white space, without taking it.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes `byte` if it comes next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.bytes[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn enter(&mut self) -> Scan<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("lists and objects are nested too deep");
        }
        Ok(())
    }

    /// Whether an object comes next.
    pub(super) fn at_object(&mut self) -> bool {
        self.peek() == Some(b'{')
    }

    /// Whether a list comes next.
    pub(super) fn at_list(&mut self) -> bool {
        self.peek() == Some(b'[')
    }

    /// Whether a text comes next.
    pub(super) fn at_text(&mut self) -> bool {
        self.peek() == Some(b'"')
    }

    /// Nothing but white space may be left.
    pub(super) fn end(&mut self) -> Scan<()> {
        if self.peek().is_some() { self.fail("something follows the value") } else { Ok(()) }
    }

    /// An object; `member` takes the value of each key.
    #[inline]
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &[u8]) -> Scan<()>,
    ) -> Scan<()> {
        if !self.take(b'{') {
            return self.fail("expected an object");
        }
        self.enter()?;
        if !self.take(b'}') {
            loop {
                let key = self.key()?;
                member(self, &key)?;
                if self.take(b',') {
                    continue;
                }
                if self.take(b'}') {
                    break;
                }
                return self.unexpected("expected ',' or '}'");
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// A key and the colon behind it.
    #[inline]
    fn key(&mut self) -> Scan<Cow<'a, [u8]>> {
        if !self.at_text() {
            return self.unexpected("expected a key in double quotes");
        }
        let bytes = self.bytes;
        let start = self.at + 1;
        let (length, is_ascii) = plain_length(&bytes[start..]);
        let end = start + length;
        // As nearly all are.
        if is_ascii && bytes.get(end) == Some(&b'"') && bytes.get(end + 1) == Some(&b':') {
            self.at = end + 2;
            return Ok(Cow::Borrowed(&bytes[start..end]));
        }
        self.odd_key()
    }

    #[cold]
    fn odd_key(&mut self) -> Scan<Cow<'a, [u8]>> {
        let key = match self.text()? {
            Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
            Cow::Owned(key) => Cow::Owned(key.into_bytes()),
        };
        if !self.take(b':') {
            return self.unexpected("expected ':' after a key");
        }
        Ok(key)
    }

    /// A list; `element` takes each value.
    #[inline]
    pub(super) fn list(&mut self, mut element: impl FnMut(&mut Self) -> Scan<()>) -> Scan<()> {
        if !self.take(b'[') {
            return self.fail("expected a list");
        }
        self.enter()?;
        if !self.take(b']') {
            loop {
                element(self)?;
                if self.take(b',') {
                    continue;
                }
                if self.take(b']') {
                    break;
                }
                return self.unexpected("expected ',' or ']'");
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// `problem`, or that nothing comes any more.
    pub(super) fn unexpected<T>(&mut self, problem: &'static str) -> Scan<T> {
        let problem = if self.peek().is_none() { "the file ends too early" } else { problem };
        self.fail(problem)
    }

    /// Any value; of lists and objects the inside is checked and skipped.
    #[inline]
    pub(super) fn value(&mut self) -> Scan<Value> {
        match self.peek() {
            Some(b'0'..=b'9' | b'-') => self.number(),
            Some(b'{' | b'[') => self.skip_nested(),
            Some(b'"') => self.skip_text().map(|()| Value::Text),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Scan<Value> {
        match self.peek() {
            Some(b't') if self.take_word("true") => Ok(Value::Bool(true)),
            Some(b'f') if self.take_word("false") => Ok(Value::Bool(false)),
            Some(b'n') if self.take_word("null") => Ok(Value::Null),
            Some(b'N') if self.take_word("NaN") => Ok(Value::Float(f64::NAN)),
            Some(b'I') if self.take_word("Infinity") => Ok(Value::Float(f64::INFINITY)),
            _ => self.unexpected("expected a value"),
        }
    }

    #[inline]
    fn number(&mut self) -> Scan<Value> {
        if let Some((number, end)) = number_at(self.bytes, self.at) {
            self.at = end;
            return Ok(match number {
                Number::Int(i) => Value::Int(i),
                Number::BigInt(x) => Value::BigInt(x),
                Number::Float(x) => Value::Float(x),
            });
        }
        if self.take_word("-Infinity") {
            return Ok(Value::Float(f64::NEG_INFINITY));
        }
        self.fail("expected a digit")
    }

    /// A list or an object, checked but not kept, without recursion.
    fn skip_nested(&mut self) -> Scan<Value> {
        let mut open = Vec::new(); // true for an object
        let kind = if self.bytes[self.at] == b'{' { Value::Object } else { Value::List };
        loop {
            // Here a value starts.
            match self.peek() {
                Some(b'0'..=b'9' | b'-') => {
                    let end = number_end(self.bytes, self.at);
                    match end {
                        Some(end) => self.at = end,
                        None => self.number().map(|_| ())?,
                    }
                }
                Some(b'"') => self.skip_text()?,
                Some(byte @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.enter()?;
                    let is_object = byte == b'{';
                    if self.take(if is_object { b'}' } else { b']' }) {
                        self.depth -= 1;
                    } else {
                        open.push(is_object);
                        if is_object {
                            self.key()?;
                        } else if matches!(self.peek(), Some(b'0'..=b'9' | b'-')) {
                            self.at = skip_numbers(self.bytes, self.at);
                        }
                        continue;
                    }
                }
                _ => {
                    self.word()?;
                }
            }
            // Here a value has ended.
            loop {
                let Some(&is_object) = open.last() else { return Ok(kind) };
                if self.take(b',') {
                    if is_object {
                        self.key()?;
                    }
                    break;
                }
                if !self.take(if is_object { b'}' } else { b']' }) {
                    let problem =
                        if is_object { "expected ',' or '}'" } else { "expected ',' or ']'" };
                    return self.unexpected(problem);
                }
                open.pop();
                self.depth -= 1;
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "digits as they are printed elsewhere")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Scan<Value> {
        let mut scanner = Scanner::new(text.as_bytes());
        let value = scanner.value()?;
        scanner.end().map(|()| value)
    }

    #[test]
    fn numbers_are_the_nearest_doubles() {
        assert_eq!(value("12"), Ok(Value::Int(12)));
        assert_eq!(value("-0"), Ok(Value::Int(0)));
        assert_eq!(value("9223372036854775808"), Ok(Value::BigInt(9_223_372_036_854_775_808.)));
        assert_eq!(value(" 9e-1 "), Ok(Value::Float(0.9)));
        assert_eq!(value("8.00000000000000000000000000000001E-1"), Ok(Value::Float(0.8)));
        // Halfway cases, where a sloppy reader is one off in the last place.
        assert_eq!(
            value("0.70000000000000006661338147750939"),
            Ok(Value::Float(0.7000000000000001))
        );
        assert_eq!(value("9007199254740993.0"), Ok(Value::Float(9_007_199_254_740_992.)));
        assert_eq!(value("1e400"), Ok(Value::Float(f64::INFINITY)));
        assert_eq!(value("-Infinity"), Ok(Value::Float(f64::NEG_INFINITY)));
        assert!(matches!(value("NaN"), Ok(Value::Float(x)) if x.is_nan()));
    }

    #[test]
    fn wrong_texts_are_refused_at_their_place() {
        let cases = [
            ("", 0, "the file ends too early"),
            ("{", 1, "the file ends too early"),
            ("{\"a\": 1,", 8, "the file ends too early"),
            ("[1, 2", 5, "the file ends too early"),
            ("{\"a\": ", 6, "the file ends too early"),
            ("{\"a\" 1}", 5, "expected ':' after a key"),
            ("{a: 1}", 1, "expected a key in double quotes"),
            ("[1 2]", 3, "expected ',' or ']'"),
            ("[1,]", 3, "expected a value"),
            ("01", 1, "something follows the value"),
            ("1.", 1, "something follows the value"),
            ("1e", 1, "something follows the value"),
            ("1e+", 1, "something follows the value"),
            ("-", 0, "expected a digit"),
            ("nul", 0, "expected a value"),
            ("\"a", 2, "the file ends inside a text"),
            ("\"\\", 2, "the file ends inside a text"),
            ("\"\\x\"", 2, "an unknown escape inside a text"),
            ("\"\\u12g4\"", 3, "expected four hexadecimal digits"),
            ("\"\n\"", 1, "a control character inside a text"),
        ];
        for (text, offset, problem) in cases {
            assert_eq!(value(text), Err(SyntaxError { offset, problem }), "{text:?}");
        }
        assert!(value(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        /// Whatever comes, no panic; and JSON is what serde_json takes for it.
        #[test]
        fn json_is_what_serde_json_takes_for_it(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"\"", "\\", "\\n", "\\u00e9", "\\u00", "é",
                "1", "0", "-", "-0", "1.5", ".5", "1.", "1e3", "1e", "E+2", "true", "fals", "e", "null",
                " ", "\n", "\t",
            ]), 0..12),
        ) {
            let text: String = pieces.concat();
            let expected = serde_json::from_str::<serde_json::Value>(&text);
            // Python takes a number beyond the doubles for an infinity.
            prop_assume!(!expected.as_ref().is_err_and(|e| e.to_string().contains("out of range")));
            prop_assert_eq!(value(&text).is_ok(), expected.is_ok(), "{}", text);
        }
    }

    #[test]
    fn a_key_given_twice_is_handed_over_twice() {
        let mut seen = Vec::new();
        Scanner::new(br#"{"a": 1, "b": {"a": [2]}, "a": 3}"#)
            .object(|s, key| {
                seen.push((String::from_utf8_lossy(key).into_owned(), s.value()?));
                Ok(())
            })
            .unwrap();
        let expected = [("a", Value::Int(1)), ("b", Value::Object), ("a", Value::Int(3))];
        assert_eq!(seen, expected.map(|(k, v)| (k.to_owned(), v)));
    }
}
