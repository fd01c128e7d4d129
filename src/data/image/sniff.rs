//! Which format a file has, by its first bytes. The name's extension is never asked.

use std::fmt;

/// A format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// JPEG: baseline, extended or progressive, Huffman coded, 8 bit.
    Jpeg,
    /// PNG; the first frame of an APNG.
    Png,
    /// WebP, lossy or lossless; the first frame of an animation.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// GIF, the first frame.
    Gif,
    /// TIFF of 8 or 16 bit, the first page.
    Tiff,
    /// PBM, PGM, PPM or PAM.
    Pnm,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
            Self::Pnm => "PNM",
        })
    }
}

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    Image(Format),
    /// An image of a format that is not read.
    Other(&'static str),
    /// No image, and what it looks like (empty where that is unknown).
    NotAnImage(&'static str),
}

/// Bytes of the start of a file that [`sniff`] looks at.
pub(super) const SNIFFED_BYTES: usize = 1024;

/// Looks at the first bytes of a file, up to [`SNIFFED_BYTES`] of them.
pub(super) fn sniff(start: &[u8]) -> Sniffed {
    let at = |i: usize, magic: &[u8]| start.get(i..).is_some_and(|s| s.starts_with(magic));
    let image = Sniffed::Image;
    if at(0, b"\xff\xd8\xff") {
        return image(Format::Jpeg);
    }
    if at(0, b"\x89PNG\r\n\x1a\n") {
        return image(Format::Png);
    }
    if at(0, b"RIFF") && at(8, b"WEBP") {
        return image(Format::WebP);
    }
    if at(0, b"GIF87a") || at(0, b"GIF89a") {
        return image(Format::Gif);
    }
    if [&b"II*\0"[..], b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|m| at(0, m)) {
        return image(Format::Tiff);
    }
    // Two letters are too little: text can start with them. The length of the next header tells.
    if at(0, b"BM") && start.get(14).is_some_and(|n| [12, 16, 40, 52, 56, 64, 108, 124].contains(n))
    {
        return image(Format::Bmp);
    }
    if start.len() > 2
        && start[0] == b'P'
        && (b'1'..=b'7').contains(&start[1])
        && (start[2].is_ascii_whitespace() || start[2] == b'#')
    {
        return image(Format::Pnm);
    }
    if at(4, b"ftyp") {
        let brand = start.get(8..12).unwrap_or_default();
        return match brand {
            b"avif" | b"avis" => Sniffed::Other("AVIF"),
            b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1" => Sniffed::Other("HEIF"),
            _ => Sniffed::NotAnImage("it looks like a video"),
        };
    }
    let others: [(&[u8], &str); 13] = [
        (b"\0\0\x01\0", "ICO"),
        (b"\0\0\x02\0", "CUR"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\x01\xda", "SGI"),
        (b"8BPS", "PSD"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b"#?RADIANCE", "Radiance HDR"),
        (b"qoif", "QOI"),
        (b"DDS ", "DDS"),
        (b"farbfeld", "farbfeld"),
    ];
    if let Some((_, name)) = others.iter().find(|(magic, _)| at(0, magic)) {
        return Sniffed::Other(name);
    }
    if start.len() > 2 && (at(0, b"PF") || at(0, b"Pf")) && start[2].is_ascii_whitespace() {
        return Sniffed::Other("PFM");
    }
    let text = String::from_utf8_lossy(start).to_lowercase();
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if text.starts_with("<svg") || (text.starts_with("<?xml") && text.contains("<svg")) {
        return Sniffed::Other("SVG");
    }
    Sniffed::NotAnImage(if text.starts_with("<!doctype html") || text.starts_with("<html") {
        "it looks like a web page, perhaps an error page that a download got instead"
    } else if text.starts_with("version https://git-lfs") {
        "it is a Git LFS pointer; run `git lfs pull`"
    } else if text.starts_with("%pdf") {
        "it looks like a PDF"
    } else if at(0, b"PK\x03\x04") || at(0, b"\x1f\x8b") {
        "it looks like an archive"
    } else {
        ""
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_content() {
        let mut bmp = b"BM".to_vec();
        bmp.resize(14, 0);
        bmp.extend([40, 0, 0, 0]);
        let cases: [(&[u8], Sniffed); 12] = [
            (b"\xff\xd8\xff\xe0", Sniffed::Image(Format::Jpeg)),
            (b"GIF89a...", Sniffed::Image(Format::Gif)),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Sniffed::Image(Format::WebP)),
            (&bmp, Sniffed::Image(Format::Bmp)),
            (b"P6\n1 1 255\n", Sniffed::Image(Format::Pnm)),
            (b"MM\0*", Sniffed::Image(Format::Tiff)),
            (b"\0\0\0\x1cftypavif", Sniffed::Other("AVIF")),
            (b"  <svg xmlns", Sniffed::Other("SVG")),
            (b"BMW is a car, and this is a text", Sniffed::NotAnImage("")),
            (b"P", Sniffed::NotAnImage("")),
            (b"", Sniffed::NotAnImage("")),
            (b"PNG", Sniffed::NotAnImage("")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(sniff(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
