//! Why a batch can't be made.

use std::path::PathBuf;

use crate::data::coco::Dataset;
use crate::data::image::ImageError;
use crate::data::turns::{Lost, PATIENCE};
use crate::failure::Exit;
use crate::geometry::Size;

/// Why an image can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum LoadError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(
        "{}: the image is {decoded} (height x width), its annotations were made for {declared}",
        file.display()
    )]
    Size { file: PathBuf, decoded: Size, declared: Size },
    #[error(
        "{}: the image is stored as {stored} (height x width) with an EXIF orientation that makes it \
         {decoded}, but its annotations were made for {stored}: its boxes would be on the wrong \
         side. Turn the stored pixels upright or remove the orientation", file.display()
    )]
    Orientation { file: PathBuf, stored: Size, decoded: Size },
    #[error("{files}: internal error while it was read (a bug in detect): {message}")]
    Panicked { files: String, message: String },
    #[error(
        "a thread that reads images could not start or ended early{}; train.loader.threads sets how many there are", at(file.as_ref())
    )]
    ThreadEnded { file: Option<PathBuf> },
    #[error("not enough memory for a batch of {images} images, which is {bytes} bytes")]
    Memory { images: usize, bytes: usize },
    #[error("{}: reading it has not ended after {seconds} s: is its disk or network there?", file.display())]
    Stuck { file: PathBuf, seconds: u64 },
}

impl LoadError {
    /// Whether it is not about one image, but about those who read them: nothing whole can follow.
    pub fn ends_the_loader(&self) -> bool {
        matches!(self, Self::ThreadEnded { .. } | Self::Stuck { .. }) || self.exit() == Exit::Memory
    }

    /// How the program ends where it can't go on.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Memory { .. } | Self::Image(ImageError::Memory { .. }) => Exit::Memory,
            _ => Exit::Data,
        }
    }

    pub(super) fn lost(dataset: &Dataset, lost: Lost) -> Self {
        let file = |item: usize| dataset.images[item].file.clone();
        match lost {
            Lost::Ended(item) => Self::ThreadEnded { file: item.map(file) },
            Lost::Stuck(item) => {
                Self::Stuck { file: file(item), seconds: PATIENCE.give_up.as_secs() }
            }
        }
    }
}

fn at(file: Option<&PathBuf>) -> String {
    file.map(|file| format!(" at {}", file.display())).unwrap_or_default()
}
