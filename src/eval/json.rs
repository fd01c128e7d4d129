//! A JSON scanner for large files of numbers: no tree, one pass, callbacks for members and elements.
//!
//! It reads what Python's `json` reads, since that is what wrote most of these files: `NaN`,
//! `Infinity` and `-Infinity` are numbers, and a key given twice is handed over twice (the reader
//! keeps the last). Numbers become the nearest double.

use std::borrow::Cow;

/// Deeper nesting is refused: nothing in a COCO file needs it, and the scanner recurses.
const MAX_DEPTH: usize = 200;

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Bytes before the place.
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
            Self::Bool(b) => Some(f64::from(u8::from(b))),
            Self::Int(i) => Some(i as f64),
            Self::BigInt(x) if x.is_infinite() => None,
            Self::BigInt(x) | Self::Float(x) => Some(x),
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

type Scan<T> = Result<T, SyntaxError>;

/// Reads one JSON text from its start to its end.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    fn fail<T>(&self, problem: &'static str) -> Scan<T> {
        Err(SyntaxError { offset: self.at, problem })
    }

    /// The next byte that is no white space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes `byte` if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
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
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Scan<()>,
    ) -> Scan<()> {
        if !self.take(b'{') {
            return self.fail("expected an object");
        }
        self.enter()?;
        if !self.take(b'}') {
            loop {
                if !self.at_text() {
                    return self.unexpected("expected a key in double quotes");
                }
                let key = self.text()?;
                if !self.take(b':') {
                    return self.unexpected("expected ':' after a key");
                }
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

    /// A list; `element` takes each value.
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
    fn unexpected<T>(&mut self, problem: &'static str) -> Scan<T> {
        let problem = if self.peek().is_none() { "the file ends too early" } else { problem };
        self.fail(problem)
    }

    /// Any value; of lists and objects the inside is checked and skipped.
    pub(super) fn value(&mut self) -> Scan<Value> {
        match self.peek() {
            Some(b'{') => self.object(|s, _| s.value().map(|_| ())).map(|()| Value::Object),
            Some(b'[') => self.list(|s| s.value().map(|_| ())).map(|()| Value::List),
            Some(b'"') => self.text().map(|_| Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') if self.take_word("true") => Ok(Value::Bool(true)),
            Some(b'f') if self.take_word("false") => Ok(Value::Bool(false)),
            Some(b'n') if self.take_word("null") => Ok(Value::Null),
            Some(b'N') if self.take_word("NaN") => Ok(Value::Float(f64::NAN)),
            Some(b'I') if self.take_word("Infinity") => Ok(Value::Float(f64::INFINITY)),
            _ => self.unexpected("expected a value"),
        }
    }

    fn number(&mut self) -> Scan<Value> {
        if self.take_word("-Infinity") {
            return Ok(Value::Float(f64::NEG_INFINITY));
        }
        let bytes = self.text.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let start = self.at;
        let first = start + usize::from(bytes[start] == b'-');
        let whole = digits(first);
        if whole == 0 {
            return self.fail("expected a digit");
        }
        // A number that starts with 0 ends there: what follows `01` is found wrong by the caller.
        let mut end = first + if bytes[first] == b'0' { 1 } else { whole };
        let mut is_whole = true;
        if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
            end += 1 + digits(end + 1);
            is_whole = false;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = bytes.get(end + 1 + sign).map_or(0, |_| digits(end + 1 + sign));
            if exponent > 0 {
                end += 1 + sign + exponent;
                is_whole = false;
            }
        }
        let text = &self.text[start..end];
        self.at = end;
        if is_whole && let Ok(i) = text.parse() {
            return Ok(Value::Int(i));
        }
        // `str::parse` rounds to the nearest double, as Python does.
        match text.parse() {
            Ok(x) if is_whole => Ok(Value::BigInt(x)),
            Ok(x) => Ok(Value::Float(x)),
            Err(_) => self.fail("not a number"),
        }
    }

    /// A text.
    pub(super) fn text(&mut self) -> Scan<Cow<'a, str>> {
        if !self.take(b'"') {
            return self.fail("expected a text in double quotes");
        }
        let mut owned: Option<String> = None;
        let mut from = self.at;
        loop {
            let bytes = self.text.as_bytes();
            match bytes.get(self.at) {
                None => return self.fail("the file ends inside a text"),
                Some(b'"') => {
                    let tail = &self.text[from..self.at];
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(tail),
                        Some(text) => Cow::Owned(text + tail),
                    });
                }
                Some(b'\\') => {
                    let text = owned.get_or_insert_default();
                    text.push_str(&self.text[from..self.at]);
                    self.at += 1;
                    let c = self.escape()?;
                    owned.get_or_insert_default().push(c);
                    from = self.at;
                }
                Some(0..=0x1f) => return self.fail("a control character inside a text"),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Scan<char> {
        let Some(&byte) = self.text.as_bytes().get(self.at) else {
            return self.fail("the file ends inside a text");
        };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                let before = self.at;
                if (0xd800..0xdc00).contains(&high) && self.take_word("\\u") {
                    let low = self.hex4()?;
                    if (0xdc00..0xe000).contains(&low) {
                        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    // Not a pair: the second one is read again by itself.
                    self.at = before;
                }
                // Python keeps half a pair; no Rust text can, and none of these texts is compared.
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => {
                self.at -= 1;
                return self.fail("an unknown escape inside a text");
            }
        })
    }

    fn hex4(&mut self) -> Scan<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let Some(digits) = digits.filter(|d| d.iter().all(u8::is_ascii_hexdigit)) else {
            return self.fail("expected four hexadecimal digits");
        };
        self.at += 4;
        Ok(digits.iter().fold(0, |n, &b| n * 16 + (b as char).to_digit(16).unwrap_or(0)))
    }
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "digits as they are printed elsewhere")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Scan<Value> {
        let mut scanner = Scanner::new(text);
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
    fn texts_are_those_that_serde_json_reads() {
        for text in [
            r#""plain""#,
            r#""a\"b\\c\/d\b\f\n\r\t""#,
            r#""\u00e9\u20ac\ud83d\ude00 \u0000""#,
            "\"é€😀\"",
            r#""""#,
        ] {
            let expected: String = serde_json::from_str(text).unwrap();
            assert_eq!(Scanner::new(text).text().unwrap(), expected);
        }
        // Half a surrogate pair, which only Python reads.
        assert_eq!(Scanner::new(r#""\ud800x""#).text().unwrap(), "\u{fffd}x");
        assert_eq!(Scanner::new(r#""\ud800\u0041""#).text().unwrap(), "\u{fffd}A");
    }

    #[test]
    fn a_key_given_twice_is_handed_over_twice() {
        let mut seen = Vec::new();
        Scanner::new(r#"{"a": 1, "b": {"a": [2]}, "a": 3}"#)
            .object(|s, key| {
                seen.push((key.to_owned(), s.value()?));
                Ok(())
            })
            .unwrap();
        let expected = [("a", Value::Int(1)), ("b", Value::Object), ("a", Value::Int(3))];
        assert_eq!(seen, expected.map(|(k, v)| (k.to_owned(), v)));
    }
}
