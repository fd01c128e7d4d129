//! Huffman codes of a JPEG as tables.

/// A canonical Huffman code.
#[derive(Debug)]
pub(super) struct Huffman {
    /// By the next [`FAST`] bits.
    fast: Vec<Entry>,
    /// The first code after those of each length, shifted to 16 bits.
    pub(super) limit: [u32; 17],
    /// What to add to a code of each length to find its symbol.
    pub(super) offset: [i32; 17],
    pub(super) symbols: Vec<u8>,
}

/// What the next bits begin with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry {
    /// Of the code, in bits; 0 where it is longer than [`FAST`].
    pub(super) length: u8,
    pub(super) symbol: u8,
    /// Bits of the code and of the value that follows it.
    pub(super) whole: u8,
    /// Coefficients that it takes a sequential block on; 64 ends it.
    pub(super) advance: u8,
}

impl Entry {
    pub(super) fn new(length: u32, symbol: u8) -> Self {
        let (run, size) = (symbol >> 4, symbol & 15);
        let advance = if size > 0 || run == 15 { run + 1 } else { 64 };
        Self { length: length as u8, symbol, whole: length as u8 + size, advance }
    }
}

/// Bits that the fast table looks at.
pub(super) const FAST: u32 = 9;

impl Huffman {
    /// From the number of codes of each length; `None` where these don't fit in a code.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut fast = vec![Entry::default(); 1 << FAST];
        let (mut limit, mut offset) = ([0; 17], [0; 17]);
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=16u32 {
            let n = usize::from(counts[length as usize - 1]);
            offset[length as usize] = index as i32 - code as i32;
            if code as usize + n > 1 << length {
                return None;
            }
            if length <= FAST {
                for i in 0..n {
                    let begin = (code as usize + i) << (FAST - length);
                    let entry = Entry::new(length, symbols[index + i]);
                    fast[begin..begin + (1 << (FAST - length))].fill(entry);
                }
            }
            code += n as u32;
            index += n;
            limit[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(Self { fast, limit, offset, symbols: symbols.to_vec() })
    }

    /// By the bits at the top of `buffer`.
    pub(super) fn entry(&self, buffer: u64) -> Entry {
        self.fast[(buffer >> (64 - FAST)) as usize]
    }
}
