//! Image files to upright RGB pixels: one way in for prediction, training and `detect check`.
//!
//! The format is told by content. Limits hold before anything is decoded. Cut or damaged data is an
//! error, never grey pixels; a missing end marker or a wrong checksum is a warning. No decoder's panic
//! leaves this module.

mod entropy;
mod error;
mod huffman;
mod jpeg;
mod pixels;
mod png;
mod resize;
mod sniff;

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use image::codecs::{bmp, gif, pnm, tiff, webp};
use image::metadata::Orientation;
use image::{ExtendedColorType, ImageDecoder, Limits};

pub use self::error::ImageError;
use self::error::{CUT, Fail};
use self::pixels::{Layout, to_rgb, upright};
pub use self::resize::{
    fill, resize_from_corners_normalized, resize_normalized, resize_normalized_f32,
};
pub use self::sniff::Format;
use self::sniff::{SNIFFED_BYTES, Sniffed, sniff};
use super::shelf::fits;
use crate::geometry::Size;

/// An image may have at most this many pixels: RGB of it twice is just under 512 MiB.
pub const MAX_PIXELS: u64 = 89_478_485;
/// Decoding may hold at most this many bytes at once, apart from the file itself.
pub const MAX_DECODED_BYTES: u64 = 512 << 20;

/// What a folder is searched for, in lower case. Files that are named themselves may be called anything.
pub const EXTENSIONS: [&str; 12] =
    ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "pnm", "ppm", "pgm", "pbm"];

/// Pixels: interleaved red, green, blue of 8 bit; rows from the top, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    /// Height and width.
    pub size: Size,
    /// `height * width * 3` samples.
    pub pixels: Vec<u8>,
}

/// An image as it is meant to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The upright picture.
    pub image: Rgb,
    /// The size in the file, before its orientation was applied.
    pub stored: Size,
    /// Whether the file asked for a turn or a mirror image.
    pub orientation_applied: bool,
    /// What is wrong with the file although the picture is whole.
    pub warning: Option<String>,
}

/// What can be known without decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The size in the file, before its orientation is applied.
    pub size: Size,
    /// EXIF's orientation, 1 to 8; 1 where there is none or an invalid one.
    pub orientation: u8,
    /// The format, by content.
    pub format: Format,
}

impl Header {
    /// The size of the upright picture.
    pub fn upright_size(&self) -> Size {
        if self.orientation >= 5 { Size::new(self.size.width, self.size.height) } else { self.size }
    }
}

/// Reads a file's size, orientation and format, and none of its pixels.
///
/// # Errors
/// As [`decode`], less what only decoding can find. An image that is too large is no error here.
pub fn header(path: &Path) -> Result<Header, ImageError> {
    let (mut file, format) = open(path)?;
    guarded(|| read_header(&mut file, format)).map_err(|fail| fail.at(path, format))
}

/// Reads an image: upright, RGB, 8 bit.
///
/// # Errors
/// See [`ImageError`]: each says what is wrong with the file and names it.
pub fn decode(path: &Path) -> Result<Decoded, ImageError> {
    let (file, format) = open(path)?;
    guarded(|| read_image(file, format)).map_err(|fail| fail.at(path, format))
}

/// Opens a regular file that begins like an image.
fn open(path: &Path) -> Result<(BufReader<File>, Format), ImageError> {
    let read = |source| ImageError::Read { path: path.into(), source };
    // Before opening, which waits where the file is a pipe.
    let metadata = fs::metadata(path).map_err(read)?;
    if metadata.is_dir() {
        return Err(ImageError::Folder { path: path.into() });
    }
    if !metadata.is_file() {
        return Err(ImageError::NotAFile { path: path.into() });
    }
    let mut file = File::open(path).map_err(read)?;
    let mut start = Vec::new();
    file.by_ref().take(SNIFFED_BYTES as u64).read_to_end(&mut start).map_err(read)?;
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    if start.is_empty() {
        return Err(ImageError::Empty { path: path.into() });
    }
    match sniff(&start) {
        Sniffed::Image(format) => Ok((BufReader::new(file), format)),
        Sniffed::Other(name) => {
            Err(ImageError::NotSupported { path: path.into(), what: name.into() })
        }
        Sniffed::NotAnImage(looks) => {
            let hint = if looks.is_empty() { String::new() } else { format!(": {looks}") };
            Err(ImageError::NotAnImage { path: path.into(), hint })
        }
    }
}

thread_local! {
    /// Whether a panic on this thread is caught and reported as an error of one image.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder; its panic becomes an error of this file, without a word on stderr.
fn guarded<T>(body: impl FnOnce() -> Result<T, Fail>) -> Result<T, Fail> {
    static HOOK: Once = Once::new();
    // The hook that is there stays in charge of every other panic.
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CAUGHT.try_with(Cell::get).unwrap_or(false) {
                others(info);
            }
        }));
    });
    let before = CAUGHT.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    CAUGHT.set(before);
    outcome.unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Fail::Panic(message.to_owned()))
    })
}

/// Refuses an image by its size and the bytes that decoding a pixel of it takes.
fn check_limits(size: Size, bytes_a_pixel: u64) -> Result<(), Fail> {
    if size.height == 0 || size.width == 0 {
        return Err(Fail::Damaged(format!("it declares a size of {size} pixels")));
    }
    let pixels = (size.height as u64).saturating_mul(size.width as u64);
    if pixels > MAX_PIXELS {
        return Err(Fail::TooLarge(size));
    }
    check_room(size, pixels * bytes_a_pixel)
}

/// Refuses an image whose decoding takes `bytes` that may not be, or can't be had.
fn check_room(size: Size, bytes: u64) -> Result<(), Fail> {
    if bytes > MAX_DECODED_BYTES {
        return Err(Fail::TooLarge(size));
    }
    if fits(bytes as usize) { Ok(()) } else { Err(Fail::Memory(size, bytes)) }
}

fn read_header(file: &mut BufReader<File>, format: Format) -> Result<Header, Fail> {
    let fail = |e| Fail::from_image(e, format, None);
    let header = match format {
        Format::Jpeg => return jpeg::header(file),
        Format::Png => return png::header(file),
        Format::WebP => header_of(webp::WebPDecoder::new(file).map_err(fail)?, format),
        Format::Bmp => header_of(bmp::BmpDecoder::new(file).map_err(fail)?, format),
        Format::Gif => header_of(gif::GifDecoder::new(file).map_err(fail)?, format),
        Format::Tiff => header_of(tiff::TiffDecoder::new(file).map_err(fail)?, format),
        Format::Pnm => header_of(pnm::PnmDecoder::new(file).map_err(fail)?, format),
    };
    Ok(header)
}

fn header_of(mut decoder: impl ImageDecoder, format: Format) -> Header {
    let (width, height) = decoder.dimensions();
    // What can't be read asks for nothing.
    let orientation = decoder.orientation().map_or(1, Orientation::to_exif);
    Header { size: Size::new(height as usize, width as usize), orientation, format }
}

/// Samples, their layout, and a warning.
type Samples = (Vec<u8>, Layout, Option<String>);

fn read_image(mut file: BufReader<File>, format: Format) -> Result<Decoded, Fail> {
    let header = read_header(&mut file, format)?;
    let size = header.size;
    check_limits(size, 3)?;
    file.seek(SeekFrom::Start(0))?;
    let fail = |e| Fail::from_image(e, format, Some(size));
    let (data, layout, warning) = match format {
        Format::Jpeg => read_jpeg(file, size)?,
        Format::Png => png::decode(file, size)?,
        Format::WebP => {
            check_whole_riff(&mut file)?;
            let decoder = webp::WebPDecoder::new(file).map_err(fail)?;
            // Its RGB comes out of RGBA; an animation needs a canvas besides.
            let own = if decoder.has_animation() { 8 } else { 4 };
            samples(decoder, size, own, format)?
        }
        Format::Bmp => samples(bmp::BmpDecoder::new(file).map_err(fail)?, size, 0, format)?,
        // A frame that is smaller than the canvas is decoded beside it.
        Format::Gif => samples(gif::GifDecoder::new(file).map_err(fail)?, size, 4, format)?,
        Format::Tiff => {
            let decoder = tiff::TiffDecoder::new(file).map_err(fail)?;
            if matches!(decoder.color_type(), image::ColorType::Rgb32F | image::ColorType::Rgba32F)
            {
                return Err(Fail::NotSupported("a TIFF of floating-point numbers".into()));
            }
            // It decodes into a buffer of its own, which for CMYK is larger.
            let own = match decoder.original_color_type() {
                ExtendedColorType::Cmyk16 => 8,
                _ => u64::from(decoder.color_type().bytes_per_pixel()).max(4),
            };
            samples(decoder, size, own, format)?
        }
        Format::Pnm => samples(pnm::PnmDecoder::new(file).map_err(fail)?, size, 0, format)?,
    };
    if header.orientation != 1 {
        // It is turned into a buffer of its own.
        check_room(size, data.capacity() as u64)?;
    }
    let (upright_size, pixels) = upright(size, to_rgb(data, layout), header.orientation);
    Ok(Decoded {
        image: Rgb { size: upright_size, pixels },
        stored: size,
        orientation_applied: header.orientation != 1,
        warning,
    })
}

/// Decodes with a decoder of the `image` crate, which holds `own` bytes a pixel besides its output.
fn samples(
    mut decoder: impl ImageDecoder,
    size: Size,
    own: u64,
    format: Format,
) -> Result<Samples, Fail> {
    use image::ColorType as C;
    let (channels, bytes) = match decoder.color_type() {
        C::L8 => (1, 1),
        C::La8 => (2, 1),
        C::Rgb8 => (3, 1),
        C::Rgba8 => (4, 1),
        C::L16 => (1, 2),
        C::La16 => (2, 2),
        C::Rgb16 => (3, 2),
        C::Rgba16 => (4, 2),
        other => return Err(Fail::NotSupported(format!("a {format} of {other:?} samples"))),
    };
    let layout = Layout { channels, bytes };
    check_limits(size, own + layout.pixel().max(3) as u64)?;
    let fail = |e| Fail::from_image(e, format, Some(size));
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    decoder.set_limits(limits).map_err(fail)?;
    let mut data = layout.buffer(size.height * size.width);
    if decoder.total_bytes() != data.len() as u64 {
        return Err(Fail::Damaged("its headers contradict each other".into()));
    }
    decoder.read_image(&mut data).map_err(fail)?;
    Ok((data, layout, None))
}

fn read_jpeg(file: BufReader<File>, size: Size) -> Result<Samples, Fail> {
    let mut data = Vec::new();
    // Far more than the largest picture needs: if a file is longer, something else follows it.
    file.take(MAX_DECODED_BYTES / 4).read_to_end(&mut data)?;
    let survey = jpeg::survey(&data)?;
    let pixels = (size.height * size.width) as u64;
    check_room(size, survey.buffered + 3 * pixels)?;
    // Only the picture itself, always with an end, so that the decoder has nothing to guess.
    data.truncate(survey.end);
    data.extend([0xff, 0xd9]);
    let warning = (!survey.end_marker).then(|| "the end marker is missing".to_owned());
    let fail = |e| Fail::from_image(e, Format::Jpeg, Some(size));
    let decoder = image::codecs::jpeg::JpegDecoder::new(Cursor::new(data)).map_err(fail)?;
    let (samples, layout, _) = samples(decoder, size, 0, Format::Jpeg)?;
    Ok((samples, layout, warning))
}

/// Whether a WebP is as long as it says. Its decoder takes missing data for zeros.
fn check_whole_riff(file: &mut BufReader<File>) -> Result<(), Fail> {
    let mut start = [0; 8];
    file.read_exact(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    let declared = u64::from(u32::from_le_bytes([4, 5, 6, 7].map(|i| start[i]))) + 8;
    if file.get_ref().metadata()?.len() < declared {
        return Err(Fail::Damaged(CUT.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_decoder_becomes_an_error_of_the_file() {
        let caught = guarded(|| -> Result<(), Fail> { panic!("at block {}", 7) });
        let Err(fail) = caught else { panic!("it must be an error") };
        let message = fail.at(Path::new("a.gif"), Format::Gif).to_string();
        assert!(message.contains("a.gif") && message.contains("at block 7"), "{message}");
        assert!(!CAUGHT.get(), "the next panic is somebody else's");
    }
}
