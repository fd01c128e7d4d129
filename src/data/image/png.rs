//! PNG: what the `image` crate's decoder does not offer, namely a picture whose checksums are wrong, a
//! missing end marker, and an orientation that stands behind the picture.

use std::io::{BufRead, Read, Seek, SeekFrom};

use image::metadata::Orientation;
use png::{BitDepth, ColorType, DecodingError, Transformations};

use super::error::{CUT, Fail};
use super::pixels::Layout;
use super::{Header, MAX_DECODED_BYTES, check_limits};
use crate::data::image::Format;
use crate::geometry::Size;

/// An eXIf chunk larger than this is not looked at.
const MAX_EXIF_BYTES: u32 = 1 << 20;

/// Reads the size, and the orientation wherever its chunk stands, without reading pixels.
pub(super) fn header(reader: &mut (impl Read + Seek)) -> Result<Header, Fail> {
    let mut start = [0; 24];
    reader.seek(SeekFrom::Start(0))?;
    reader.read_exact(&mut start)?;
    if &start[12..16] != b"IHDR" {
        return Err(Fail::Damaged("it does not begin with a header (IHDR)".into()));
    }
    let side = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| start[at + i])) as usize;
    let size = Size::new(side(20), side(16));
    let orientation = orientation(reader).unwrap_or(1);
    Ok(Header { size, orientation, format: Format::Png })
}

/// The orientation of the first eXIf chunk. A chunk that can't be read means none.
fn orientation(reader: &mut (impl Read + Seek)) -> Option<u8> {
    reader.seek(SeekFrom::Start(8)).ok()?;
    loop {
        let mut head = [0; 8];
        reader.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, 1, 2, 3].map(|i| head[i]));
        match &head[4..] {
            b"eXIf" if length <= MAX_EXIF_BYTES => {
                let mut chunk = vec![0; length as usize];
                reader.read_exact(&mut chunk).ok()?;
                return Orientation::from_exif_chunk(&chunk).map(Orientation::to_exif);
            }
            b"IEND" => return None,
            _ => reader.seek(SeekFrom::Current(i64::from(length) + 4)).ok()?,
        };
    }
}

/// Decodes the picture (of an APNG, the one that programs without animation show).
///
/// Gives the samples, their layout, and a warning.
pub(super) fn decode(
    mut reader: impl BufRead + Seek,
    size: Size,
) -> Result<(Vec<u8>, Layout, Option<String>), Fail> {
    match samples(&mut reader, size, false) {
        Err(Fail::Damaged(reason)) if reason != CUT => {}
        other => return other,
    }
    // Not cut, but something is wrong with it. If it is only a checksum, the pixels are all there.
    let (data, layout, _) = samples(&mut reader, size, true)?;
    Ok((data, layout, Some("a checksum is wrong, although the picture is whole".into())))
}

fn samples(
    reader: &mut (impl BufRead + Seek),
    size: Size,
    ignore_checksums: bool,
) -> Result<(Vec<u8>, Layout, Option<String>), Fail> {
    let fail = |error: DecodingError| match error {
        DecodingError::IoError(e) => Fail::Io(e),
        DecodingError::LimitsExceeded => Fail::TooLarge(size),
        other => Fail::Damaged(other.to_string()),
    };
    let cut = |error: Fail| match error {
        Fail::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Fail::Damaged(CUT.into()),
        other => other,
    };
    reader.seek(SeekFrom::Start(0))?;
    let limits = png::Limits { bytes: MAX_DECODED_BYTES as usize };
    let mut decoder = png::Decoder::new_with_limits(&mut *reader, limits);
    decoder.ignore_checksums(ignore_checksums);
    // Neither is used, and both can be bombs of their own.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND);
    let mut picture = decoder.read_info().map_err(|e| cut(fail(e)))?;
    let (color, depth) = picture.output_color_type();
    let channels = match color {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb | ColorType::Indexed => 3,
        ColorType::Rgba => 4,
    };
    let layout = Layout { channels, bytes: if depth == BitDepth::Sixteen { 2 } else { 1 } };
    check_limits(size, layout.pixel() as u64)?;
    let mut data = layout.buffer(size.height * size.width);
    if picture.output_buffer_size() != Some(data.len()) {
        return Err(Fail::Damaged("its headers contradict each other".into()));
    }
    picture.next_frame(&mut data).map_err(|e| cut(fail(e)))?;
    if layout.bytes == 2 {
        for sample in data.chunks_exact_mut(2) {
            sample.copy_from_slice(&u16::from_be_bytes([sample[0], sample[1]]).to_ne_bytes());
        }
    }
    // Chunks behind the picture matter to nobody here, only whether the file is whole.
    let warning = picture.finish().err().map(|e| match cut(fail(e)) {
        Fail::Damaged(reason) if reason == CUT => "the end marker is missing".to_owned(),
        _ => "what follows the picture is damaged".to_owned(),
    });
    Ok((data, layout, warning))
}
