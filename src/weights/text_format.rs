//! The text form of protocol buffers, read without their descriptions: settings, label maps and lists of
//! checkpoints of TensorFlow's Object Detection API.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::rc::Rc;

use super::WeightsError;

/// Such files have some kilobytes; the tree takes many times as much.
const MOST_BYTES: u64 = 1 << 20;
/// Messages in messages.
const MOST_DEPTH: usize = 64;

/// Fields in the order of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// A repeated field stands here once for each value.
    pub fields: Vec<Field>,
}

/// A name and one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// As it stands in the file; extensions keep their brackets. The values of a list share it.
    pub name: Rc<str>,
    /// Line of the value, from 1.
    pub line: usize,
    /// What it is set to.
    pub value: Value,
}

/// What a field is set to.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number, `true`, `false` or the name of an enum's value, as it is written.
    Word(String),
    /// A quoted text, without quotes and escapes.
    Text(String),
    /// A message.
    Message(Message),
}

impl Value {
    /// The quoted text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Message {
    /// All values of a field.
    pub fn fields<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Field> {
        self.fields.iter().filter(move |field| *field.name == *name)
    }
}

/// A whole number as the format writes it: decimal, `0x` hexadecimal or, after a zero, octal.
pub fn integer(word: &str) -> Option<i64> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let (radix, digits) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.starts_with('0') && digits.len() > 1 => (8, digits),
        None => (10, digits),
    };
    // The parser of integers takes a sign, which has been taken.
    let unsigned = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    i64::from_str_radix(digits, radix).ok().filter(|_| unsigned)?.checked_mul(sign)
}

/// Reads a file; `format` is how errors call it.
pub fn read(path: &Path, format: &'static str) -> Result<Message, WeightsError> {
    let error = |source: io::Error| WeightsError::ReadText { path: path.into(), format, source };
    let broken = |reason: String| WeightsError::Broken { path: path.into(), format, reason };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(error)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(broken(format!("it has more than {MOST_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| broken("it is not UTF-8 text".into()))?;
    parse(&text).map_err(|(line, reason)| broken(format!("line {line}: {reason}")))
}

/// Reads a text; an error has its line.
pub fn parse(text: &str) -> Result<Message, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser { rest: text, line: 1 };
    parser.message(None, 0).map_err(|reason| (parser.line, reason))
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Parser<'a> {
    /// Skips white space and comments; the next character.
    fn peek(&mut self) -> Option<char> {
        loop {
            let next = self.rest.chars().next()?;
            if next == '#' {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.rest = &self.rest[end..];
            } else if next.is_ascii_whitespace() || next == '\u{b}' {
                self.line += usize::from(next == '\n');
                self.rest = &self.rest[1..];
            } else {
                return Some(next);
            }
        }
    }

    /// Takes `mark` if it is next.
    fn take(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(mark);
        if found {
            self.rest = &self.rest[mark.len_utf8()..];
        }
        found
    }

    /// The fields up to `close`, or to the end of the file.
    fn message(&mut self, close: Option<char>, depth: usize) -> Result<Message, String> {
        if depth > MOST_DEPTH {
            return Err(format!("messages lie more than {MOST_DEPTH} deep in each other"));
        }
        let opened = self.line;
        let mut message = Message::default();
        loop {
            match (self.peek(), close) {
                (None, None) => return Ok(message),
                (None, Some(close)) => {
                    return Err(format!(
                        "'{close}' is missing; the message began in line {opened}"
                    ));
                }
                (next, Some(_)) if next == close => {
                    self.take(close.unwrap_or_default());
                    return Ok(message);
                }
                _ => self.field(&mut message, depth)?,
            }
        }
    }

    fn field(&mut self, message: &mut Message, depth: usize) -> Result<(), String> {
        let name = self.name()?.into();
        let colon = self.take(':');
        if self.take('[') {
            let mut first = true;
            while !self.take(']') {
                if !first && !self.take(',') {
                    return Err(format!("',' or ']' is missing in the list of '{name}'"));
                }
                first = false;
                message.fields.push(self.value(&name, colon, depth)?);
            }
        } else {
            message.fields.push(self.value(&name, colon, depth)?);
        }
        if !self.take(',') {
            self.take(';');
        }
        Ok(())
    }

    fn name(&mut self) -> Result<&'a str, String> {
        let rest = self.rest;
        let end = match rest.strip_prefix('[') {
            // An extension or the type of an Any.
            Some(inside) => inside
                .find([']', '\n'])
                .filter(|&at| inside[at..].starts_with(']'))
                .map(|at| at + 2),
            None => Some(
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len()),
            ),
        };
        let end = end.filter(|&end| end > 0 && !rest.starts_with(|c: char| c.is_ascii_digit()));
        let Some(end) = end else {
            return Err(format!("the name of a field was expected at {}", self.here()));
        };
        self.rest = &rest[end..];
        Ok(&rest[..end])
    }

    fn value(&mut self, name: &Rc<str>, colon: bool, depth: usize) -> Result<Field, String> {
        let next = self.peek();
        let line = self.line;
        let value = match next {
            Some(open @ ('{' | '<')) => {
                self.take(open);
                let close = if open == '{' { '}' } else { '>' };
                Value::Message(self.message(Some(close), depth + 1)?)
            }
            _ if !colon => return Err(format!("':' or a message is missing after '{name}'")),
            Some('"' | '\'') => Value::Text(self.text()?),
            _ => Value::Word(self.word(name)?),
        };
        Ok(Field { name: name.clone(), line, value })
    }

    /// A number or a name.
    fn word(&mut self, name: &str) -> Result<String, String> {
        let minus = self.take('-');
        self.peek();
        let rest = self.rest;
        let mut end = 0;
        for (at, next) in rest.char_indices() {
            // A sign belongs to a number only behind its exponent.
            let sign = matches!(next, '+' | '-')
                && rest[..at].ends_with(['e', 'E'])
                && rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
            if !(next.is_ascii_alphanumeric() || matches!(next, '_' | '.') || sign) {
                break;
            }
            end = at + next.len_utf8();
        }
        if end == 0 {
            return Err(format!("'{name}' has no value; {} follows", self.here()));
        }
        self.rest = &rest[end..];
        Ok(format!("{}{}", if minus { "-" } else { "" }, &rest[..end]))
    }

    /// One or more quoted texts, joined.
    fn text(&mut self) -> Result<String, String> {
        let mut bytes = Vec::new();
        while let Some(quote @ ('"' | '\'')) = self.peek() {
            self.take(quote);
            loop {
                let mut chars = self.rest.chars();
                let next = chars.next().filter(|&c| c != '\n').ok_or("a text does not end")?;
                self.rest = chars.as_str();
                match next {
                    '\\' => self.escape(&mut bytes)?,
                    _ if next == quote => break,
                    _ => bytes.extend(next.encode_utf8(&mut [0; 4]).bytes()),
                }
            }
        }
        String::from_utf8(bytes).map_err(|_| "a text is not UTF-8".into())
    }

    /// What follows a backslash.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        let mut chars = self.rest.chars();
        let next = chars.next().ok_or("a text does not end")?;
        let plain = match next {
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'v' => 11,
            '\\' | '\'' | '"' | '?' => next as u8,
            '0'..='7' => {
                let value = self.digits(8, 1, 3)?;
                bytes.push(u8::try_from(value).map_err(|_| format!("\\{value:o} is no byte"))?);
                return Ok(());
            }
            'x' | 'X' => {
                self.rest = chars.as_str();
                bytes.push(self.digits(16, 1, 2)? as u8);
                return Ok(());
            }
            'u' | 'U' => {
                self.rest = chars.as_str();
                let length = if next == 'u' { 4 } else { 8 };
                let value = self.digits(16, length, length)?;
                let c = char::from_u32(value).ok_or(format!("U+{value:04X} is no character"))?;
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                return Ok(());
            }
            _ => return Err(format!("'\\{}' is no escape", next.escape_default())),
        };
        self.rest = chars.as_str();
        bytes.push(plain);
        Ok(())
    }

    fn digits(&mut self, radix: u32, least: usize, most: usize) -> Result<u32, String> {
        let count = self.rest.chars().take(most).take_while(|c| c.is_digit(radix)).count();
        if count < least {
            return Err("an escape is cut short".into());
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        u32::from_str_radix(digits, radix).map_err(|e| e.to_string())
    }

    /// What is next, for messages.
    fn here(&self) -> String {
        match self.rest.chars().next() {
            Some(next) => format!("'{}'", next.escape_default()),
            None => "the end of the file".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree on one line: `name=word`, `name="text"`, `name{...}`.
    fn shown(message: &Message) -> String {
        let field = |field: &Field| match &field.value {
            Value::Word(word) => format!("{}={word}", field.name),
            Value::Text(text) => format!("{}={text:?}", field.name),
            Value::Message(inner) => format!("{}{{{}}}", field.name, shown(inner)),
        };
        message.fields.iter().map(field).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("", ""),
            ("a: 1 b: -2.5e-3f, c: TRUE; d: 0x1F", "a=1 b=-2.5e-3f c=TRUE d=0x1F"),
            ("a { b: 1 } c < d: 2 > e: { } f:<>", "a{b=1} c{d=2} e{} f{}"),
            ("a: [1, 2,3] b: [] c [{d: 1}, <d: 2>]", "a=1 a=2 a=3 c{d=1} c{d=2}"),
            ("# first\na: 1 # 'second' {\n#third", "a=1"),
            (
                "a: 'it\\'s' b: \"say \\\"hi\\\"\" c: '\"' d: \"'\"",
                "a=\"it's\" b=\"say \\\"hi\\\"\" c=\"\\\"\" d=\"'\"",
            ),
            ("a: 'one' \"two\"\n 'three' b: 1", "a=\"onetwothree\" b=1"),
            ("a: '\\x41\\102\\n\\u00e9\\U0001F600\\303\\251\\?'", "a=\"AB\\né😀é?\""),
            ("a: - 3 b: -inf c: 1e+5", "a=-3 b=-inf c=1e+5"),
            ("[type.org/a.B] { c: 1 } [d.e]: 2", "[type.org/a.B]{c=1} [d.e]=2"),
            ("\u{feff}a: 'ünï'", "a=\"ünï\""),
        ] {
            let tree = parse(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
            assert_eq!(shown(&tree), expected, "{text}");
        }
    }

    #[test]
    fn faults_are_named_with_their_line() {
        for (text, line, expected) in [
            ("a {\n b: 1\n", 3, "'}' is missing; the message began in line 1"),
            ("a <\n b: 1 }", 2, "the name of a field was expected at '}'"),
            ("\n}", 2, "the name of a field was expected at '}'"),
            ("a:\n\n}", 3, "'a' has no value; '}' follows"),
            ("a:", 1, "'a' has no value; the end of the file follows"),
            ("a 1", 1, "':' or a message is missing after 'a'"),
            ("1a: 1", 1, "the name of a field was expected at '1'"),
            ("a: e+1", 1, "the name of a field was expected at '+'"),
            ("a: [1 2]", 1, "',' or ']' is missing in the list of 'a'"),
            ("a: [1,", 1, "'a' has no value; the end of the file follows"),
            ("a: 'x\n'", 1, "a text does not end"),
            ("a: 'x", 1, "a text does not end"),
            ("a: 'x\\", 1, "a text does not end"),
            ("a: '\\q'", 1, "'\\q' is no escape"),
            ("a: '\\xg'", 1, "an escape is cut short"),
            ("a: '\\u12'", 1, "an escape is cut short"),
            ("a: '\\ud800'", 1, "U+D800 is no character"),
            ("a: '\\777'", 1, "\\777 is no byte"),
            ("a: '\\xff'", 1, "a text is not UTF-8"),
            ("[a: 1", 1, "the name of a field was expected at '['"),
            ("ü: 1", 1, "the name of a field was expected at '\\u{fc}'"),
        ] {
            assert_eq!(parse(text), Err((line, expected.into())), "{text:?}");
        }
        let deep = |depth: usize| parse(&("a{".repeat(depth) + &"}".repeat(depth)));
        assert!(deep(MOST_DEPTH).is_ok());
        let (_, reason) = deep(100_000).unwrap_err();
        assert_eq!(reason, "messages lie more than 64 deep in each other");
    }

    #[test]
    fn whole_numbers_are_read_in_three_bases() {
        let numbers = ["12", "-12", "0x1F", "-0XfF", "017", "0", "-0"].map(integer);
        assert_eq!(numbers, [12, -12, 31, -255, 15, 0, 0].map(Some));
        let none = ["", "-", "1.0", "--1", "0x", "0x-1", "+1", "1e3", "9223372036854775808", "08"];
        assert_eq!(none.map(integer), [None; 10]);
    }

    #[test]
    fn lines_count_from_one() {
        let tree = parse("a: 1\nb {\n  c:\n    2\n}").unwrap();
        assert_eq!(tree.fields.iter().map(|field| field.line).collect::<Vec<_>>(), [1, 2]);
        let Value::Message(inner) = &tree.fields[1].value else { panic!() };
        assert_eq!(inner.fields[0].line, 4);
    }
}
