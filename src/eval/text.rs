//! JSON's texts: escapes, UTF-8, and the quick way past plain ones.

use std::borrow::Cow;

use super::json::{Scan, Scanner};

impl<'a> Scanner<'a> {
    /// Goes past a text.
    pub(super) fn skip_text(&mut self) -> Scan<()> {
        let start = self.at + 1;
        let (length, is_ascii) = plain_length(&self.bytes[start..]);
        if is_ascii && self.bytes.get(start + length) == Some(&b'"') {
            self.at = start + length + 1;
            return Ok(());
        }
        self.text().map(|_| ())
    }

    /// A text.
    pub(super) fn text(&mut self) -> Scan<Cow<'a, str>> {
        if !self.take(b'"') {
            return self.fail("expected a text in double quotes");
        }
        let mut owned: Option<String> = None;
        loop {
            let from = self.at;
            let (length, _) = plain_length(&self.bytes[from..]);
            self.at += length;
            let piece = match std::str::from_utf8(&self.bytes[from..self.at]) {
                Ok(piece) => piece,
                Err(e) => return self.fail_at(from + e.valid_up_to(), "the text is not UTF-8"),
            };
            match self.bytes.get(self.at) {
                None => return self.fail("the file ends inside a text"),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(piece),
                        Some(text) => Cow::Owned(text + piece),
                    });
                }
                Some(b'\\') => {
                    owned.get_or_insert_default().push_str(piece);
                    self.at += 1;
                    let c = self.escape()?;
                    owned.get_or_insert_default().push(c);
                }
                Some(_) => return self.fail("a control character inside a text"),
            }
        }
    }

    fn escape(&mut self) -> Scan<char> {
        let Some(&byte) = self.bytes.get(self.at) else {
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
                // Python keeps half a pair; no Rust text can.
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => {
                self.at -= 1;
                return self.fail("an unknown escape inside a text");
            }
        })
    }

    fn hex4(&mut self) -> Scan<u32> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let Some(digits) = digits.filter(|d| d.iter().all(u8::is_ascii_hexdigit)) else {
            return self.fail("expected four hexadecimal digits");
        };
        self.at += 4;
        Ok(digits.iter().fold(0, |n, &b| n * 16 + (b as char).to_digit(16).unwrap_or(0)))
    }
}

/// How many bytes come before the first that is a quote, a backslash or a control character; and
/// whether they are all ASCII.
#[inline]
pub(super) fn plain_length(bytes: &[u8]) -> (usize, bool) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (mut length, mut seen) = (0, 0);
    while let Some(eight) = bytes[length..].first_chunk::<8>() {
        let x = u64::from_le_bytes(*eight);
        // The high bit of the first such byte is right; a borrow can set those behind it wrongly.
        let is = |byte: u8| {
            let y = x ^ (ONES * u64::from(byte));
            y.wrapping_sub(ONES) & !y
        };
        let control = x.wrapping_sub(ONES * 0x20) & !x;
        let found = (is(b'"') | is(b'\\') | control) & HIGH;
        if found != 0 {
            let before = found.trailing_zeros() & !7;
            // The bytes ahead of the found one, if any.
            seen |= x & ((1 << before) - 1);
            return (length + before as usize / 8, seen & HIGH == 0);
        }
        seen |= x;
        length += 8;
    }
    let rest = bytes[length..].iter();
    for &byte in rest.take_while(|&&b| b != b'"' && b != b'\\' && b >= 0x20) {
        seen |= u64::from(byte);
        length += 1;
    }
    (length, seen & HIGH == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(Scanner::new(text.as_bytes()).text().unwrap(), expected);
        }
        // Half a surrogate pair, which only Python reads.
        assert_eq!(Scanner::new(br#""\ud800x""#).text().unwrap(), "\u{fffd}x");
        assert_eq!(Scanner::new(br#""\ud800\u0041""#).text().unwrap(), "\u{fffd}A");
    }

    #[test]
    fn plain_bytes_are_counted() {
        for special in [b'"', b'\\', 0, 0x1f] {
            for before in 0..20 {
                let mut text = "0 ~!{}[]:,é".repeat(4).into_bytes()[..before].to_vec();
                text.push(special);
                text.extend(b"\"\\ \x01 and so on");
                let expected = (before, text[..before].is_ascii());
                assert_eq!(plain_length(&text), expected);
                assert_eq!(plain_length(&text[..before]), expected);
            }
        }
    }
}
