//! JPEG: the header, and whether all of the picture is there.
//!
//! The decoder (zune-jpeg, inside the `image` crate) fills what is missing with grey and says nothing,
//! as browsers do. A detector would learn grey corners from that, so [`survey`] walks the entropy-coded
//! data first, without making pixels, and finds whether every block of every scan is there.
//! The walk follows ITU T.81, sections F.2.2 (sequential) and G.2 (progressive).

use std::io::{BufRead, Seek, SeekFrom};

use image::metadata::Orientation;

use super::entropy::{Bits, Component, Fault, Scan};
use super::error::{CUT, Fail};
use super::huffman::Huffman;
use super::{Format, Header};
use crate::geometry::Size;

/// An APP1 segment begins so where it holds EXIF.
const EXIF: &[u8] = b"Exif\0\0";

/// A scan can be a few bytes that touch every block: a file of very many of them would take hours.
/// Encoders write about ten.
const MAX_SCANS: usize = 100;

/// Reads size and orientation, up to the first scan.
pub(super) fn header(reader: &mut (impl BufRead + Seek)) -> Result<Header, Fail> {
    let mut orientation = 1;
    let mut size = None;
    reader.seek(SeekFrom::Start(2))?;
    loop {
        let marker = next_marker(reader)?;
        if matches!(marker, 0xd8 | 0x01 | 0xd0..=0xd7) {
            continue;
        }
        if marker == 0xd9 {
            return Err(Fail::Damaged("it ends before the picture begins".into()));
        }
        let mut length = [0; 2];
        reader.read_exact(&mut length)?;
        let length = u16::from_be_bytes(length)
            .checked_sub(2)
            .ok_or_else(|| Fail::Damaged("a segment has a length below 2".into()))?;
        match marker {
            0xda => break,
            0xe1 | 0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let mut body = vec![0; length.into()];
                reader.read_exact(&mut body)?;
                if marker != 0xe1 {
                    size = Some(frame_size(marker, &body)?);
                } else if let Some(exif) = body.strip_prefix(EXIF)
                    && let Some(found) = Orientation::from_exif_chunk(exif)
                {
                    orientation = found.to_exif();
                }
            }
            _ => {
                reader.seek(SeekFrom::Current(length.into()))?;
            }
        }
    }
    let size = size.ok_or_else(|| Fail::Damaged("it has no frame header".into()))?;
    Ok(Header { size, orientation, format: Format::Jpeg })
}

/// Skips to the next marker, over fill bytes and stray ones.
fn next_marker(reader: &mut impl BufRead) -> Result<u8, Fail> {
    let mut byte = || -> Result<u8, Fail> {
        let mut b = [0];
        reader.read_exact(&mut b)?;
        Ok(b[0])
    };
    loop {
        while byte()? != 0xff {}
        let mut marker = byte()?;
        while marker == 0xff {
            marker = byte()?;
        }
        if marker != 0 {
            return Ok(marker);
        }
    }
}

/// The size in a start-of-frame segment, or what is not supported about it.
fn frame_size(marker: u8, body: &[u8]) -> Result<Size, Fail> {
    let &[precision, h1, h0, w1, w0, _, ..] = body else {
        return Err(Fail::Damaged("its frame header is too short".into()));
    };
    if !matches!(marker, 0xc0..=0xc2) {
        let kind = if marker >= 0xc9 { "arithmetic coding" } else { "a lossless JPEG" };
        return Err(Fail::NotSupported(kind.into()));
    }
    if precision != 8 {
        return Err(Fail::NotSupported(format!("a JPEG of {precision} bits a sample")));
    }
    let height = u16::from_be_bytes([h1, h0]).into();
    Ok(Size::new(height, u16::from_be_bytes([w1, w0]).into()))
}

/// What a walk through a JPEG found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// Bytes up to the end of the picture's data, without the end marker.
    pub(super) end: usize,
    /// Whether the end marker stands there.
    pub(super) end_marker: bool,
    /// Bytes of coefficients that a decoder has to keep until the end.
    pub(super) buffered: u64,
}

/// Walks through all scans of a JPEG in memory.
pub(super) fn survey(data: &[u8]) -> Result<Survey, Fail> {
    let mut walk = Walk { data, ..Walk::default() };
    let mut at = 2;
    loop {
        let Some((marker, body)) = find_marker(data, at) else {
            return walk.finish(data.len(), false);
        };
        if marker == 0xd9 {
            return walk.finish(body - 2, true);
        }
        if matches!(marker, 0xd8 | 0x01 | 0xd0..=0xd7) {
            at = body;
            continue;
        }
        let segment = data
            .get(body..body + 2)
            .map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])))
            .and_then(|length| data.get(body + 2..body + length.max(2)));
        let Some(segment) = segment else {
            return walk.finish(data.len(), false);
        };
        at = body + 2 + segment.len();
        match marker {
            0xc0..=0xc2 => walk.frame(marker, segment)?,
            0xc4 => walk.tables(segment)?,
            0xdd if segment.len() >= 2 => {
                walk.restart = usize::from(u16::from_be_bytes([segment[0], segment[1]]));
            }
            0xda => {
                at = walk.scan(segment, at)?;
                if !walk.progressive && walk.components.iter().all(Component::is_complete) {
                    // The end marker comes next, or is missing: what follows is not the picture's.
                    let marker = find_marker(data, at);
                    let there = matches!(marker, Some((0xd9, _)));
                    let end = marker.map_or(data.len(), |(_, body)| body - 2);
                    return walk.finish(end, there);
                }
            }
            _ => {}
        }
    }
}

/// The next marker from `at` on, and where its segment begins.
fn find_marker(data: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += data.get(at..)?.iter().position(|&b| b == 0xff)?;
        while *data.get(at)? == 0xff {
            at += 1;
        }
        if data[at] != 0 {
            return Some((data[at], at + 1));
        }
    }
}

#[derive(Default)]
struct Walk<'a> {
    data: &'a [u8],
    progressive: bool,
    components: Vec<Component>,
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    restart: usize,
    scans: usize,
    /// Whether pixels can only be made when all scans were read.
    buffered: bool,
}

impl Walk<'_> {
    fn frame(&mut self, marker: u8, body: &[u8]) -> Result<(), Fail> {
        let bad = || Fail::Damaged("its frame header makes no sense".into());
        if !self.components.is_empty() {
            return Err(Fail::Damaged("it has two frame headers".into()));
        }
        let size = frame_size(marker, body)?;
        self.progressive = marker == 0xc2;
        self.buffered = self.progressive;
        let specs = body.get(6..6 + 3 * usize::from(body[5])).ok_or_else(bad)?.as_chunks::<3>().0;
        let sampling: Vec<(usize, usize)> =
            specs.iter().map(|s| (usize::from(s[1] >> 4), usize::from(s[1] & 15))).collect();
        if !(1..=4).contains(&specs.len())
            || !sampling.iter().all(|(h, v)| (1..=4).contains(h) && (1..=4).contains(v))
        {
            return Err(bad());
        }
        let h_max = sampling.iter().map(|s| s.0).max().expect("at least one component");
        let v_max = sampling.iter().map(|s| s.1).max().expect("at least one component");
        for (spec, sampling) in specs.iter().zip(sampling) {
            self.components.push(Component::new(
                spec[0],
                size,
                sampling,
                (h_max, v_max),
                self.progressive,
            ));
        }
        Ok(())
    }

    fn tables(&mut self, mut body: &[u8]) -> Result<(), Fail> {
        let bad = || Fail::Damaged("a Huffman table makes no sense".into());
        while let Some((&head, rest)) = body.split_first() {
            let counts: &[u8; 16] = rest.first_chunk().ok_or_else(bad)?;
            let total: usize = counts.iter().map(|&n| usize::from(n)).sum();
            let symbols = rest.get(16..16 + total).ok_or_else(bad)?;
            let table = Huffman::new(counts, symbols).ok_or_else(bad)?;
            let slots = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *slots.get_mut(usize::from(head & 15)).ok_or_else(bad)? = Some(table);
            body = &rest[16 + total..];
        }
        Ok(())
    }

    /// Walks the scan whose data begins at `at`; gives where it ends.
    fn scan(&mut self, body: &[u8], at: usize) -> Result<usize, Fail> {
        let bad = || Fail::Damaged("a scan header makes no sense".into());
        let count = usize::from(*body.first().ok_or_else(bad)?);
        let selectors = body.get(1..1 + 2 * count).ok_or_else(bad)?.as_chunks::<2>().0;
        let spectral: &[u8; 3] =
            body.get(1 + 2 * count..).and_then(|b| b.first_chunk()).ok_or_else(bad)?;
        let mut members = Vec::new();
        for [id, tables] in selectors {
            let index = self.components.iter().position(|c| c.id == *id).ok_or_else(bad)?;
            members.push((index, usize::from(tables >> 4) & 3, usize::from(tables & 15) & 3));
        }
        if members.is_empty() || members.len() > 4 {
            return Err(bad());
        }
        if members.len() < self.components.len() {
            self.buffered = true;
        }
        let scan = if self.progressive {
            let [first, last, approximation] = spectral.map(usize::from);
            // Coefficients without the first one belong to one component at a time.
            if first > last || last > 63 || (first > 0 && members.len() > 1) {
                return Err(bad());
            }
            Scan::progressive(first, last, approximation >> 4, approximation & 15)
        } else {
            Scan::sequential()
        };
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err(Fail::Damaged(format!("it has more than {MAX_SCANS} scans")));
        }
        let mut bits = Bits::new(self.data, at);
        let outcome = scan.walk(
            &mut bits,
            &members,
            &mut self.components,
            [&self.dc, &self.ac],
            self.restart,
        );
        match outcome {
            Ok(()) => Ok(bits.position()),
            Err((fault, done, total)) => {
                // Where the data ends early at the end of the file, or at a marker that is none of the
                // stream's, the file is cut; else it is damaged.
                let percent = 100 * done / total.max(1);
                let share = if self.progressive {
                    format!("in scan {}", self.scans)
                } else {
                    format!("after {percent} % of the picture")
                };
                Err(Fail::Damaged(match fault {
                    Fault::End => format!("it is cut: the data ends {share}"),
                    Fault::Marker(m) => {
                        format!("the data breaks off at a stray marker (FF{m:02X}) {share}")
                    }
                    Fault::Code => format!("the data turns into an impossible code {share}"),
                    Fault::Table => "a scan uses a Huffman table that is not there".into(),
                }))
            }
        }
    }

    fn finish(&self, end: usize, end_marker: bool) -> Result<Survey, Fail> {
        let cut = || Fail::Damaged(CUT.into());
        if self.components.is_empty() || !self.components.iter().all(Component::is_begun) {
            return Err(cut());
        }
        // Without an end marker, only full precision shows that no further scan was to come.
        if !end_marker && !self.components.iter().all(Component::is_complete) {
            return Err(cut());
        }
        let coefficients: u64 = self.components.iter().map(Component::coefficients).sum();
        let buffered = if self.buffered { 2 * coefficients } else { 0 };
        Ok(Survey { end, end_marker, buffered })
    }
}
