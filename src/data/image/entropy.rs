//! The entropy-coded data of a JPEG, read without making pixels: only how far it reaches matters.

use super::huffman::{Entry, FAST, Huffman};
use crate::geometry::Size;

/// Why a walk ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The file ends.
    End,
    /// A marker stands where data is expected.
    Marker(u8),
    /// Bits that no code begins with.
    Code,
    /// A Huffman table that was not defined.
    Table,
}

/// One colour plane.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks of an MCU, across and down.
    sampling: (usize, usize),
    /// Blocks that hold pixels, across and down: a scan of this plane alone has these.
    blocks: (usize, usize),
    /// MCUs of a scan of several planes, across and down.
    mcus: (usize, usize),
    /// Blocks of a row with those that only fill up MCUs.
    stride: usize,
    /// The lowest bit of each coefficient that was read; [`UNREAD`] at first.
    low_bit: [u8; 64],
    /// Which coefficients of each block are not 0; only for progressive files, whose refining scans
    /// depend on it.
    nonzero: Vec<u64>,
}

const UNREAD: u8 = u8::MAX;

impl Component {
    /// A plane of an image of `size`, with its own and the largest sampling factors.
    pub(super) fn new(
        id: u8,
        size: Size,
        sampling: (usize, usize),
        (h_max, v_max): (usize, usize),
        progressive: bool,
    ) -> Self {
        let blocks = (
            (size.width * sampling.0).div_ceil(8 * h_max),
            (size.height * sampling.1).div_ceil(8 * v_max),
        );
        let mcus = (size.width.div_ceil(8 * h_max), size.height.div_ceil(8 * v_max));
        let stride = mcus.0 * sampling.0;
        let all = if progressive { stride * mcus.1 * sampling.1 } else { 0 };
        Self { id, sampling, blocks, mcus, stride, low_bit: [UNREAD; 64], nonzero: vec![0; all] }
    }

    /// How many coefficients it has, with those that only fill up MCUs.
    pub(super) fn coefficients(&self) -> u64 {
        (self.stride * self.mcus.1 * self.sampling.1) as u64 * 64
    }

    /// Whether anything of it was read.
    pub(super) fn is_begun(&self) -> bool {
        self.low_bit[0] != UNREAD
    }

    /// Whether every coefficient was read down to its last bit.
    pub(super) fn is_complete(&self) -> bool {
        self.low_bit.iter().all(|&b| b == 0)
    }
}

/// Reads bits, over stuffed zeros and up to a marker.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, at the top.
    buffer: u64,
    held: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at, buffer: 0, held: 0 }
    }

    /// Where the first byte that was not taken stands.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn fill(&mut self) {
        if self.held <= 56
            && let Some(&next) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>())
        {
            let next = u64::from_be_bytes(next);
            // No byte is ff where none of the complement is 0.
            if (!next).wrapping_sub(0x0101_0101_0101_0101) & next & 0x8080_8080_8080_8080 == 0 {
                let bytes = (64 - self.held) / 8;
                // Bits of a further byte may come with it; they are the ones that the next call brings again.
                self.buffer |= next >> self.held;
                self.at += bytes as usize;
                self.held += 8 * bytes;
                return;
            }
        }
        self.fill_by_bytes();
    }

    fn fill_by_bytes(&mut self) {
        while self.held <= 56 {
            let Some(&byte) = self.data.get(self.at) else { return };
            if byte == 0xff {
                if self.data.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.at += 1;
            self.buffer |= u64::from(byte) << (56 - self.held);
            self.held += 8;
        }
    }

    /// Why there are no more bits.
    fn fault(&self) -> Fault {
        let rest = &self.data[self.at..];
        match rest.iter().find(|&&b| b != 0xff) {
            Some(&marker) if rest[0] == 0xff => Fault::Marker(marker),
            _ => Fault::End,
        }
    }

    fn drop(&mut self, n: u32) -> Result<(), Fault> {
        if n > self.held {
            self.fill();
            if n > self.held {
                return Err(self.fault());
            }
        }
        self.buffer <<= n;
        self.held -= n;
        Ok(())
    }

    fn take(&mut self, n: u32) -> Result<usize, Fault> {
        if n == 0 {
            return Ok(0);
        }
        if n > self.held {
            self.fill();
        }
        let value = (self.buffer >> (64 - n)) as usize;
        self.drop(n).map(|()| value)
    }

    fn symbol(&mut self, table: &Huffman) -> Result<u8, Fault> {
        if self.held < 16 {
            self.fill();
        }
        let entry = table.entry(self.buffer);
        if entry.length > 0 {
            self.drop(entry.length.into())?;
            return Ok(entry.symbol);
        }
        let next = (self.buffer >> 48) as u32;
        let Some(length) = (FAST + 1..=16).find(|&l| next < table.limit[l as usize]) else {
            // Zeros that stand for missing bits must not be taken for a bad code.
            return Err(if self.held < 16 { self.fault() } else { Fault::Code });
        };
        let index = (next >> (16 - length)) as i32 + table.offset[length as usize];
        self.drop(length)?;
        table.symbols.get(index as usize).copied().ok_or(Fault::Code)
    }

    /// Steps over a code and the value that follows it; gives how many coefficients that takes a sequential
    /// block on.
    #[inline]
    fn step(&mut self, table: &Huffman) -> Result<usize, Fault> {
        // The longest code with the longest value.
        if self.held < 31 {
            self.fill();
        }
        let mut entry = table.entry(self.buffer);
        if entry.length == 0 {
            entry = Entry::new(0, self.symbol(table)?);
        }
        self.drop(entry.whole.into())?;
        Ok(entry.advance.into())
    }

    /// Steps over a restart marker; stray bytes before it are skipped, as other decoders do.
    fn restart(&mut self) -> Result<(), Fault> {
        (self.buffer, self.held) = (0, 0);
        loop {
            match self.data.get(self.at..self.at + 2) {
                None => return Err(Fault::End),
                Some([0xff, 0xd0..=0xd7]) => break,
                Some([0xff, 0x00 | 0xff] | [..=0xfe, _]) => self.at += 1,
                Some(other) => return Err(Fault::Marker(other[1])),
            }
        }
        self.at += 2;
        Ok(())
    }
}

/// Which bits of which coefficients a scan holds.
pub(super) struct Scan {
    progressive: bool,
    first: usize,
    last: usize,
    /// The bit that was read before, where this scan refines.
    high: usize,
    low: usize,
}

/// Component, DC table, AC table.
type Member = (usize, usize, usize);

impl Scan {
    /// Everything of each block.
    pub(super) fn sequential() -> Self {
        Self { progressive: false, first: 0, last: 63, high: 0, low: 0 }
    }

    /// Coefficients `first..=last`, down to the bit `low`; `high` is not 0 where it refines.
    pub(super) fn progressive(first: usize, last: usize, high: usize, low: usize) -> Self {
        Self { progressive: true, first, last, high, low }
    }

    /// Reads every block of the scan. Early ends come with the MCUs that were read, and those that
    /// should have been.
    pub(super) fn walk(
        &self,
        bits: &mut Bits,
        members: &[Member],
        components: &mut [Component],
        [dc, ac]: [&[Option<Huffman>; 4]; 2],
        restart: usize,
    ) -> Result<(), (Fault, usize, usize)> {
        let alone = members.len() == 1;
        let leader = &components[members[0].0];
        let (across, down) = if alone { leader.blocks } else { leader.mcus };
        let total = across * down;
        let mut end_of_band = 0;
        for mcu in 0..total {
            if restart > 0 && mcu > 0 && mcu % restart == 0 {
                bits.restart().map_err(|fault| (fault, mcu, total))?;
                end_of_band = 0;
            }
            for &(index, dc_table, ac_table) in members {
                let component = &mut components[index];
                let tables = [dc[dc_table].as_ref(), ac[ac_table].as_ref()];
                let (h, v) = if alone { (1, 1) } else { component.sampling };
                for block in 0..h * v {
                    let outcome = if self.progressive {
                        let row = mcu / across * v + block / h;
                        let column = mcu % across * h + block % h;
                        let nonzero = &mut component.nonzero[row * component.stride + column];
                        self.progressive_block(bits, tables, nonzero, &mut end_of_band)
                    } else {
                        sequential_block(bits, tables)
                    };
                    outcome.map_err(|fault| (fault, mcu, total))?;
                }
            }
        }
        for &(index, ..) in members {
            components[index].low_bit[self.first..=self.last].fill(self.low as u8);
        }
        Ok(())
    }

    fn progressive_block(
        &self,
        bits: &mut Bits,
        [dc, ac]: [Option<&Huffman>; 2],
        nonzero: &mut u64,
        end_of_band: &mut usize,
    ) -> Result<(), Fault> {
        if self.first == 0 {
            if self.high > 0 {
                return bits.drop(1);
            }
            let size = bits.symbol(dc.ok_or(Fault::Table)?)?;
            return bits.drop(u32::from(size & 15));
        }
        let ac = ac.ok_or(Fault::Table)?;
        if self.high == 0 {
            self.first_bits(bits, ac, nonzero, end_of_band)
        } else {
            self.refining_bits(bits, ac, nonzero, end_of_band)
        }
    }

    /// T.81, figure G.3.
    fn first_bits(
        &self,
        bits: &mut Bits,
        ac: &Huffman,
        nonzero: &mut u64,
        end_of_band: &mut usize,
    ) -> Result<(), Fault> {
        if *end_of_band > 0 {
            *end_of_band -= 1;
            return Ok(());
        }
        let mut k = self.first;
        while k <= self.last {
            let symbol = bits.symbol(ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size > 0 {
                k += run;
                bits.drop(size)?;
                *nonzero |= bit(k);
                k += 1;
            } else if run == 15 {
                k += 16;
            } else {
                *end_of_band = (1 << run) - 1 + bits.take(run as u32)?;
                break;
            }
        }
        Ok(())
    }

    /// T.81, figure G.7: every coefficient that is not 0 yet has a correction bit on the way.
    fn refining_bits(
        &self,
        bits: &mut Bits,
        ac: &Huffman,
        nonzero: &mut u64,
        end_of_band: &mut usize,
    ) -> Result<(), Fault> {
        let mut k = self.first;
        if *end_of_band == 0 {
            while k <= self.last {
                let symbol = bits.symbol(ac)?;
                let (mut run, size) = (usize::from(symbol >> 4), symbol & 15);
                if size > 0 {
                    bits.drop(1)?;
                } else if run < 15 {
                    *end_of_band = (1 << run) + bits.take(run as u32)?;
                    break;
                }
                while k <= self.last {
                    if *nonzero & bit(k) != 0 {
                        bits.drop(1)?;
                    } else if run == 0 {
                        break;
                    } else {
                        run -= 1;
                    }
                    k += 1;
                }
                if size > 0 {
                    *nonzero |= bit(k);
                }
                k += 1;
            }
        }
        if *end_of_band > 0 {
            while k <= self.last {
                if *nonzero & bit(k) != 0 {
                    bits.drop(1)?;
                }
                k += 1;
            }
            *end_of_band -= 1;
        }
        Ok(())
    }
}

/// The bit of coefficient `k`; none beyond the block, where damaged data can lead.
fn bit(k: usize) -> u64 {
    if k < 64 { 1 << k } else { 0 }
}

/// T.81, figures F.12 and F.13. A run beyond the block's end is let pass, as decoders do.
fn sequential_block(bits: &mut Bits, [dc, ac]: [Option<&Huffman>; 2]) -> Result<(), Fault> {
    let (dc, ac) = (dc.ok_or(Fault::Table)?, ac.ok_or(Fault::Table)?);
    bits.step(dc)?;
    let mut k = 1;
    while k < 64 {
        k += bits.step(ac)?;
    }
    Ok(())
}
