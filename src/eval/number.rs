//! JSON's numbers as the nearest doubles, quickly for the short decimals that fill these files.

/// A number as Python tells them apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    /// An integer that no `i64` holds, as the nearest double.
    BigInt(f64),
    Float(f64),
}

/// Powers of ten that are doubles exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// How many digits come first.
#[inline]
pub(super) fn digits_at(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let found = no_digit(u64::from_le_bytes(*eight));
        if found != 0 {
            return at - from + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at - from
}

/// The high bit of each of eight bytes that is no digit.
#[inline]
fn no_digit(x: u64) -> u64 {
    // A digit is 0x30 to 0x39: its upper half is 3, and 6 more do not change that.
    let y = x ^ 0x3030_3030_3030_3030; // a digit is now 0 to 9
    let above_nine = (y & 0x7f7f_7f7f_7f7f_7f7f) + 0x7676_7676_7676_7676;
    (above_nine | y) & 0x8080_8080_8080_8080
}

/// Where the number that starts at `start` ends; none where no digit comes.
#[inline]
pub(super) fn number_end(bytes: &[u8], start: usize) -> Option<usize> {
    let first = start + usize::from(bytes[start] == b'-');
    let whole = digits_at(bytes, first);
    if whole == 0 {
        return None;
    }
    // A number that starts with 0 ends there: what follows `01` is found wrong by the caller.
    let end = first + if bytes[first] == b'0' { 1 } else { whole };
    Some(tail_end(bytes, end))
}

/// Where a fraction and an exponent end that may start at `end`.
#[inline]
fn tail_end(bytes: &[u8], mut end: usize) -> usize {
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits_at(bytes, end + 1);
        if fraction == 0 {
            return end;
        }
        end += 1 + fraction;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits_at(bytes, end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    end
}

/// The number that starts at `start`, and where it ends; none where no digit comes.
#[inline]
pub(super) fn number_at(bytes: &[u8], start: usize) -> Option<(Number, usize)> {
    let negative = bytes[start] == b'-';
    let first = start + usize::from(negative);
    let Some((whole, length)) = few_digits(bytes, first) else { return long(bytes, start) };
    let end = first + length;
    let next = bytes[end];
    if bytes[first] == b'0' && length > 1 || matches!(next, b'e' | b'E') {
        return long(bytes, start);
    }
    if next != b'.' {
        let whole = whole as i64;
        return Some((Number::Int(if negative { -whole } else { whole }), end));
    }
    let Some((part, length)) = few_digits(bytes, end + 1) else { return long(bytes, start) };
    let end = end + 1 + length;
    if matches!(bytes[end], b'e' | b'E') {
        return long(bytes, start);
    }
    // Both numbers are doubles exactly, so that the quotient is rounded once.
    let x = (whole * TENS[length] + part) as f64 / POWERS[length];
    Some((Number::Float(if negative { -x } else { x }), end))
}

/// The double of a number of at most seven digits, with at most seven more behind a point; none for
/// any other. What [`number_at`] says, by the shortest way.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "half of the time goes into it, half of that into the call"
)]
pub(super) fn short_decimal(bytes: &[u8], start: usize) -> Option<(f64, usize)> {
    let negative = *bytes.get(start)? == b'-';
    let first = start + usize::from(negative);
    let (whole, length) = few_digits(bytes, first)?;
    if bytes[first] == b'0' && length > 1 {
        return None;
    }
    let mut end = first + length;
    let mut x = whole as f64;
    if bytes[end] == b'.' {
        let (part, length) = few_digits(bytes, end + 1)?;
        end += 1 + length;
        x = (whole * TENS[length] + part) as f64 / POWERS[length];
    }
    if matches!(bytes[end], b'e' | b'E') {
        return None;
    }
    Some((if negative { -x } else { x }, end))
}

const TENS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// One to seven digits and their number, which something follows.
#[inline(always)]
#[expect(clippy::inline_always, reason = "as above")]
fn few_digits(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let x = u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?);
    let length = no_digit(x).trailing_zeros() as usize / 8;
    if length == 0 || length == 8 {
        return None;
    }
    // The digits as eight with zeros in front; then two, four and eight of them at once.
    let x = (x ^ 0x3030_3030_3030_3030) << (64 - 8 * length);
    let x = x.wrapping_mul(10).wrapping_add(x >> 8);
    let low = (x & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = (x >> 16 & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some((low.wrapping_add(high) >> 32, length))
}

/// Numbers of any length.
fn long(bytes: &[u8], start: usize) -> Option<(Number, usize)> {
    let negative = bytes[start] == b'-';
    let first = start + usize::from(negative);
    let mut at = first;
    // Wraps for long numbers, which take the slow path.
    let mut digits = 0_u64;
    while let Some(digit) = digit(bytes, at) {
        digits = digits.wrapping_mul(10).wrapping_add(digit);
        at += 1;
        if at == first + 1 && digit == 0 {
            break; // a number that starts with 0 ends there
        }
    }
    if at == first {
        return None;
    }
    let whole_end = at;
    if bytes.get(at) == Some(&b'.') && digit(bytes, at + 1).is_some() {
        at += 1;
        while let Some(digit) = digit(bytes, at) {
            digits = digits.wrapping_mul(10).wrapping_add(digit);
            at += 1;
        }
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        return Some(slow(bytes, start));
    }
    if at == whole_end {
        if at - first > 18 {
            return Some(slow(bytes, start));
        }
        let magnitude = digits as i64;
        return Some((Number::Int(if negative { -magnitude } else { magnitude }), at));
    }
    let fraction = at - whole_end - 1;
    // As above.
    if at - first > 19 || digits > 1 << 53 || fraction >= POWERS.len() {
        return Some(slow(bytes, start));
    }
    let x = digits as f64 / POWERS[fraction];
    Some((Number::Float(if negative { -x } else { x }), at))
}

#[inline]
fn digit(bytes: &[u8], at: usize) -> Option<u64> {
    let digit = bytes.get(at)?.wrapping_sub(b'0');
    (digit < 10).then_some(u64::from(digit))
}

/// Any number; a digit is known to come.
#[cold]
fn slow(bytes: &[u8], start: usize) -> (Number, usize) {
    let end = number_end(bytes, start).unwrap_or(start);
    let text = std::str::from_utf8(&bytes[start..end]).unwrap_or_default();
    if !text.contains(['.', 'e', 'E']) {
        if let Ok(i) = text.parse() {
            return (Number::Int(i), end);
        }
        return (Number::BigInt(text.parse().unwrap_or(f64::NAN)), end);
    }
    // `str::parse` rounds to the nearest double, as Python does.
    (Number::Float(text.parse().unwrap_or(f64::NAN)), end)
}

const HIGH: u64 = 0x8080_8080_8080_8080;
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// From the start of a number in a list, the start of a later one; everything between them is a list
/// of numbers, each with `,` or `, ` behind it. Where nothing is so simple, the same place.
///
/// Outlines of masks are most of an annotations file. They are looked at eight bytes at a time: each
/// byte must be of a kind that can stand behind the one ahead of it. What that leaves open is whether
/// a number has two points or starts with two zeros, which is looked at besides.
pub(super) fn skip_numbers(bytes: &[u8], start: usize) -> usize {
    // In the last byte of the word ahead, moved to the first: its kind.
    let (mut digit_ahead, mut point_ahead, mut comma_ahead) = (0, 0, 0x80);
    let (mut blank_ahead, mut minus_ahead, mut zero_ahead) = (0, 0, 0);
    // The word ahead ends within the digits behind a point.
    let mut in_fraction = false;
    let (mut at, mut resume) = (start, start);
    while let Some(eight) = bytes[at..].first_chunk::<8>() {
        let x = u64::from_le_bytes(*eight);
        if x & HIGH != 0 {
            break;
        }
        let is = |byte: u8| !((x ^ (0x0101_0101_0101_0101 * u64::from(byte))) + LOW) & HIGH;
        let digit = !((x ^ 0x3030_3030_3030_3030) + 0x7676_7676_7676_7676) & HIGH;
        let (point, comma, blank, minus) = (is(b'.'), is(b','), is(b' '), is(b'-'));
        let behind_digit = digit << 8 | digit_ahead;
        let behind_point = point << 8 | point_ahead;
        let behind_comma = comma << 8 | comma_ahead;
        let behind_blank = blank << 8 | blank_ahead;
        let behind_minus = minus << 8 | minus_ahead;
        let first_zero = is(b'0') & !(behind_digit | behind_point);
        let behind_zero = first_zero << 8 | zero_ahead;
        // Digits behind a point: adding one to the first carries on to the byte behind the last.
        let digits = (digit >> 7) * 0xff;
        let first = (digit & behind_point) >> 7 | u64::from(in_fraction);
        let (sum, goes_on) = digits.overflowing_add(first);
        let fraction_end = (sum & !digits) << 7;
        let wrong = !(digit | point | comma | blank | minus) & HIGH
            | (point | comma) & !behind_digit
            | blank & !behind_comma
            | minus & !(behind_comma | behind_blank)
            | (behind_point | behind_minus) & !digit
            | behind_zero & digit
            | fraction_end & point;
        if wrong != 0 {
            break;
        }
        if comma != 0 {
            resume = at + 8 - comma.leading_zeros() as usize / 8;
        }
        (digit_ahead, point_ahead, comma_ahead) = (digit >> 56, point >> 56, comma >> 56);
        (blank_ahead, minus_ahead, zero_ahead) = (blank >> 56, minus >> 56, first_zero >> 56);
        in_fraction = goes_on;
        at += 8;
    }
    resume
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decimals_are_the_nearest_doubles(text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?") {
            let bytes = format!("{text},");
            let (number, end) = number_at(bytes.as_bytes(), 0).unwrap();
            prop_assert_eq!(end, text.len());
            prop_assert_eq!(number_end(bytes.as_bytes(), 0), Some(end));
            let expected: f64 = text.parse().unwrap();
            let padded = format!("{bytes} 1234567");
            if let Some((x, short_end)) = short_decimal(padded.as_bytes(), 0) {
                prop_assert_eq!((x, short_end), (expected, end));
            }
            match number {
                Number::Float(x) | Number::BigInt(x) => prop_assert_eq!(x.to_bits(), expected.to_bits()),
                Number::Int(i) => prop_assert_eq!(i as f64, expected),
            }
        }

        /// What was skipped is a list of numbers, and lists of plain numbers are skipped.
        #[test]
        fn lists_of_numbers_are_skipped(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "0", "7", "12", "305.25", "-4", ".", "-", ",", ", ", ", ", ", ", "0.5", "00", " ", "e", "]",
                ]),
                0..30,
            ),
            plain in prop::collection::vec((0..10_000_i32, 0..100_u8, any::<bool>()), 0..30),
        ) {
            let text: String = pieces.concat();
            let end = skip_numbers(text.as_bytes(), 0);
            if end > 0 {
                let skipped = text[..end].strip_suffix(',').unwrap();
                let json = format!("[{skipped}]");
                prop_assert!(serde_json::from_str::<Vec<f64>>(&json).is_ok(), "{}", json);
            }
            let numbers: Vec<String> = plain
                .iter()
                .map(|&(n, part, is_whole)| if is_whole { n.to_string() } else { format!("-{n}.{part}") })
                .collect();
            let text = numbers.join(", ");
            let end = skip_numbers(text.as_bytes(), 0);
            prop_assert!(text.len() - end < 32, "{} of {}", end, text);
        }

        #[test]
        fn digits_are_counted(bytes in prop::collection::vec(any::<u8>(), 0..40), digits in 0..40_usize) {
            let mut text = vec![b'7'; digits];
            text.extend(&bytes);
            let expected = text.iter().take_while(|b| b.is_ascii_digit()).count();
            prop_assert_eq!(digits_at(&text, 0), expected);
        }
    }
}
