//! The bytes of a pickle, read in the pieces that its opcodes need.

use std::io::Read;

use super::fault::{Budget, Fault};

/// A text, or a whole number.
const MOST_TEXT: u64 = 16 << 20;
/// A line of the text opcodes.
const MOST_LINE: usize = 4096;

/// Reads from `source`, and counts.
pub(super) struct Input<R> {
    source: R,
    /// Bytes read.
    at: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// A line of the text opcodes, without its end.
    pub(super) fn line(&mut self, budget: &mut Budget) -> Result<String, Fault> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                byte if line.len() < MOST_LINE => line.push(byte),
                _ => return Err(format!("a line longer than {MOST_LINE} bytes").into()),
            }
        }
        budget.take(line.len() as u64)?;
        String::from_utf8(line).map_err(|_| "a line that is not UTF-8".into())
    }

    /// The next bytes; the budget has paid twice, since a text is copied once more.
    pub(super) fn take(&mut self, length: u64, budget: &mut Budget) -> Result<Vec<u8>, Fault> {
        if length > MOST_TEXT {
            return Err(format!("a text or number of {length} bytes; at most {MOST_TEXT}").into());
        }
        budget.take(2 * length)?;
        let mut bytes = vec![0; length as usize];
        self.source.read_exact(&mut bytes)?;
        self.at += length;
        Ok(bytes)
    }

    /// Passes over the next bytes.
    pub(super) fn skip(&mut self, length: u64) -> Result<(), Fault> {
        let read = std::io::copy(&mut (&mut self.source).take(length), &mut std::io::sink())?;
        self.at += read;
        if read < length { Err("it ends too early".into()) } else { Ok(()) }
    }
}
