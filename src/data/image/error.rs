//! Why an image is refused, worded for the person whose file it is.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Format;
use crate::geometry::Size;

/// Why an image can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The operating system refuses: no such file, no permission, a broken disk.
    #[error("cannot read the image {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder where a file is expected.
    #[error("{path} is a folder, not an image")]
    Folder {
        /// Which folder.
        path: PathBuf,
    },
    /// A pipe, socket or device: reading one could wait for ever.
    #[error("{path} is not a regular file; save the image to a file first")]
    NotAFile {
        /// Which one.
        path: PathBuf,
    },
    /// A file of 0 bytes.
    #[error("{path} is empty (0 bytes)")]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The content is not that of an image, whatever the name says.
    #[error("{path} is not an image{hint}")]
    NotAnImage {
        /// Which file.
        path: PathBuf,
        /// What it looks like, where that is known; starts with `: `, or empty.
        hint: String,
    },
    /// An image, but of a format or a kind that is not read.
    #[error(
        "{path}: {what} is not supported; convert it to one of JPEG, PNG, WebP, BMP, GIF, TIFF (8 or 16 bit) or PNM"
    )]
    NotSupported {
        /// Which file.
        path: PathBuf,
        /// The format, or what is special in it.
        what: String,
    },
    /// Refused by its header, before anything is decoded.
    #[error(
        "{path} is too large: it declares {width} x {height} pixels, and an image may have at most 89,478,485 pixels and 512 MiB while it is decoded; make it smaller first",
        width = size.width, height = size.height
    )]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The size that its header declares.
        size: Size,
    },
    /// This machine, or what it lets the program have, is too small for it now.
    #[error(
        "{path}: not enough memory to decode its {width} x {height} pixels, which takes {bytes} bytes",
        width = size.width, height = size.height
    )]
    Memory {
        /// Which file.
        path: PathBuf,
        /// The size that its header declares.
        size: Size,
        /// What a buffer that could not be had takes.
        bytes: u64,
    },
    /// The data is cut or damaged.
    #[error("{path} is a damaged {format} file: {reason}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// What is wrong with it.
        reason: String,
    },
    /// The decoder panicked: a bug of ours or of a library, met on bad data.
    #[error("{path}: the {format} decoder failed on this file ({reason}); please report it")]
    Decoder {
        /// Which file.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// The panic's message.
        reason: String,
    },
}

impl ImageError {
    /// The same about `name`: the file that was read is a copy that the user does not know.
    #[must_use]
    pub fn about(mut self, name: &Path) -> Self {
        let (Self::Read { path, .. }
        | Self::Folder { path }
        | Self::NotAFile { path }
        | Self::Empty { path }
        | Self::NotAnImage { path, .. }
        | Self::NotSupported { path, .. }
        | Self::TooLarge { path, .. }
        | Self::Memory { path, .. }
        | Self::Damaged { path, .. }
        | Self::Decoder { path, .. }) = &mut self;
        name.clone_into(path);
        self
    }
}

/// An [`ImageError`] before it knows its file.
#[derive(Debug)]
pub(super) enum Fail {
    Io(io::Error),
    NotSupported(String),
    TooLarge(Size),
    Memory(Size, u64),
    Damaged(String),
    Panic(String),
}

impl Fail {
    /// Names the file.
    pub(super) fn at(self, path: &Path, format: Format) -> ImageError {
        let path = path.to_owned();
        match self {
            Self::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                ImageError::Damaged { path, format, reason: CUT.into() }
            }
            Self::Io(source) => ImageError::Read { path, source },
            Self::NotSupported(what) => ImageError::NotSupported { path, what },
            Self::TooLarge(size) => ImageError::TooLarge { path, size },
            Self::Memory(size, bytes) => ImageError::Memory { path, size, bytes },
            Self::Damaged(reason) => ImageError::Damaged { path, format, reason },
            Self::Panic(reason) => ImageError::Decoder { path, format, reason },
        }
    }

    /// An error of the `image` crate about an image of `size`.
    pub(super) fn from_image(error: image::ImageError, format: Format, size: Option<Size>) -> Self {
        use image::ImageError as E;
        match error {
            E::IoError(e) => Self::Io(e),
            E::Unsupported(e) => Self::NotSupported(format!("this kind of {format} ({e})")),
            E::Limits(e) => size.map_or_else(|| Self::Damaged(e.to_string()), Self::TooLarge),
            E::Decoding(e) if is_end_of_file(&e) => Self::Damaged(CUT.into()),
            // The inner error, without the name of the format, which is said already.
            E::Decoding(e) => Self::Damaged(
                std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string),
            ),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// What is said of a file that ends before its data does.
pub(super) const CUT: &str = "it is cut: the data ends before the picture does";

/// Whether an error goes back to the end of the file.
fn is_end_of_file(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(e) = at {
        if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof) {
            return true;
        }
        at = e.source();
    }
    false
}

impl From<io::Error> for Fail {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
