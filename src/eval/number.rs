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
    // Both numbers are doubles exactly, so that the quotient is rounded once.
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
            match number {
                Number::Float(x) | Number::BigInt(x) => prop_assert_eq!(x.to_bits(), expected.to_bits()),
                Number::Int(i) => prop_assert_eq!(i as f64, expected),
            }
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
