//! Counts as text: 5 bits a character from '0' on, the lowest first, a sixth bit where more follow.
//! From the fourth count on it is the difference to the count two before, so that most are short.

use super::error::MaskError;
use super::rle::{MAX_PIXELS, Rle};
use crate::geometry::Size;

const FIRST: u8 = b'0';
const MORE: u8 = 0x20;
const BITS: u32 = 5;

/// The longest difference between counts of a mask: 30 bits with its sign.
const MOST_CHARACTERS: usize = 6;

impl Rle {
    /// The counts as COCO's results files have them.
    pub fn to_compressed(&self) -> String {
        let counts = self.counts();
        let mut text = String::with_capacity(2 * counts.len());
        for (i, &count) in counts.iter().enumerate() {
            let before = if i > 2 { counts[i - 2] } else { 0 };
            let mut rest = i64::from(count) - i64::from(before);
            loop {
                let low = (rest & 0x1f) as u8;
                rest >>= BITS;
                // The highest bit of the last character is the sign.
                let more = rest != if low & 0x10 == 0 { 0 } else { -1 };
                text.push((FIRST + low + if more { MORE } else { 0 }).into());
                if !more {
                    break;
                }
            }
        }
        text
    }

    /// Reads [`to_compressed`](Self::to_compressed)'s text.
    ///
    /// # Errors
    /// If the size is 0 or absurd, a character is none of the 64, a count is out of range or cut
    /// off, or the counts do not fill the size.
    pub fn from_compressed(size: Size, text: &str) -> Result<Self, MaskError> {
        let mut counts: Vec<u32> = Vec::with_capacity(text.len());
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let offset = at;
            let (mut value, mut shift) = (0_i64, 0);
            loop {
                let byte = *bytes.get(at).ok_or(MaskError::Cut)?;
                let six = byte
                    .checked_sub(FIRST)
                    .filter(|six| *six < 0x40)
                    .ok_or(MaskError::Character { offset: at, byte })?;
                at += 1;
                if at - offset > MOST_CHARACTERS {
                    return Err(MaskError::Count { offset });
                }
                value |= i64::from(six & 0x1f) << shift;
                shift += BITS;
                if six & MORE == 0 {
                    if six & 0x10 != 0 {
                        value |= -1 << shift;
                    }
                    break;
                }
            }
            if counts.len() > 2 {
                value += i64::from(counts[counts.len() - 2]);
            }
            let count = u32::try_from(value).ok().filter(|n| *n <= MAX_PIXELS);
            counts.push(count.ok_or(MaskError::Count { offset })?);
        }
        Self::new(size, counts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Rle, MaskError> {
        Rle::from_compressed(Size::new(10, 10), text)
    }

    #[test]
    fn what_is_no_text_of_counts_is_refused() {
        assert!(matches!(read(""), Err(MaskError::Sum { sum: 0, .. })));
        assert_eq!(read("T"), Err(MaskError::Cut));
        assert_eq!(read("T3/"), Err(MaskError::Character { offset: 2, byte: b'/' }));
        assert_eq!(read("p"), Err(MaskError::Character { offset: 0, byte: b'p' }));
        assert_eq!(read("T\0"), Err(MaskError::Character { offset: 1, byte: 0 }));
        assert_eq!(read("é"), Err(MaskError::Character { offset: 0, byte: 0xc3 }));
        // Negative at once, negative by a difference, too long.
        assert_eq!(read("O"), Err(MaskError::Count { offset: 0 }));
        assert_eq!(read("111N"), Err(MaskError::Count { offset: 3 }));
        assert_eq!(read("PPPPPP0"), Err(MaskError::Count { offset: 0 }));
        assert!(matches!(read("ooooo?"), Err(MaskError::Sum { sum: 0x1fff_ffff, .. })));
        assert!(matches!(read("T2"), Err(MaskError::Sum { sum: 68, .. })));
        assert_eq!(read("T3").unwrap().counts(), [100]);
    }

    #[test]
    fn the_largest_counts_come_back() {
        let size = Size::new(1, MAX_PIXELS as usize);
        for counts in
            [vec![MAX_PIXELS], vec![0, MAX_PIXELS - 1, 0, 1], vec![1, 0, 0, MAX_PIXELS - 1]]
        {
            let mask = Rle::new(size, counts).unwrap();
            assert_eq!(Rle::from_compressed(size, &mask.to_compressed()), Ok(mask));
        }
    }

    proptest! {
        #[test]
        fn any_counts_come_back(counts in proptest::collection::vec(0_u32..5000, 1..60)) {
            let pixels = counts.iter().sum::<u32>() as usize;
            prop_assume!(pixels > 0);
            let mask = Rle::new(Size::new(1, pixels), counts).unwrap();
            prop_assert_eq!(Rle::from_compressed(mask.size(), &mask.to_compressed()), Ok(mask));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-p]{0,40}", height in 0_usize..9, width in 0_usize..9) {
            if let Ok(mask) = Rle::from_compressed(Size::new(height, width), &text) {
                let pixels: u32 = mask.counts().iter().sum();
                prop_assert_eq!(pixels as usize, height * width);
            }
        }
    }
}
