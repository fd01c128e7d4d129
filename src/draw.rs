//! Annotated pictures: boxes with a name on them, outlines of masks, and saving them.

mod outline;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ab_glyph::{Font as _, FontRef, PxScale, PxScaleFont, ScaleFont as _, point};
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use thiserror::Error;

pub use self::outline::outline;
use crate::data::image::Rgb;
use crate::geometry::{Box2, Size};
use crate::whole;

/// The font `DejaVu Sans`, cut down to Latin, Greek and Cyrillic; its licence lies beside it.
static FONT: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("../data/fonts/DejaVuSans-subset.ttf"))
        .expect("the font is compiled in and was read by a test")
});

/// JPEG quality of saved pictures.
const JPEG_QUALITY: u8 = 92;

/// A box to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// Where, in pixels of the picture.
    pub bbox: Box2,
    /// What stands on it, such as `cat 0.97`.
    pub text: String,
    /// Which colour it has: every class its own.
    pub class: usize,
}

/// Draws boxes with their text on a copy of `image`.
///
/// The first item lies on top. Parts of boxes outside the image are cut off; a box that lies wholly
/// outside, or has a corner that is not a number, is left out.
pub fn annotate(image: &Rgb, items: &[Labelled]) -> Rgb {
    let mut canvas = image.clone();
    let short = image.size.height.min(image.size.width) as f32;
    let line = (short / 200.).round().clamp(1., 8.) as i64;
    let font = FONT.as_scaled(PxScale::from((short / 30.).clamp(13., 40.).round()));
    let shown: Vec<(&Labelled, Area)> =
        items.iter().filter_map(|i| Area::of_box(i.bbox, image.size).map(|a| (i, a))).collect();
    for (item, area) in shown.iter().rev() {
        draw_frame(&mut canvas, *area, line, color(item.class));
    }
    // Tags after all frames, so that no line runs through a text; places from the first item on.
    let mut placed: Vec<Area> = Vec::new();
    for (item, area) in &shown {
        let size = tag_size(&font, &item.text);
        placed.push(place_tag(*area, size, image.size, &placed));
    }
    for ((item, _), tag) in shown.iter().zip(&placed).rev() {
        draw_tag(&mut canvas, *tag, &font, &item.text, color(item.class));
    }
    canvas
}

/// Pixels `left..right` x `top..bottom`; may lie outside the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Area {
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

impl Area {
    /// The pixels that a box touches inside an image; `None` where there are none.
    fn of_box(bbox: Box2, size: Size) -> Option<Self> {
        if [bbox.x1, bbox.y1, bbox.x2, bbox.y2].iter().any(|v| v.is_nan()) {
            return None;
        }
        let b = bbox.clipped(size);
        let area = Self {
            left: b.x1.floor() as i64,
            top: b.y1.floor() as i64,
            right: b.x2.ceil() as i64,
            bottom: b.y2.ceil() as i64,
        };
        (area.left < area.right && area.top < area.bottom).then_some(area)
    }

    fn overlaps(self, other: Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }
}

/// A colour for a class: hues that are far apart for neighbouring numbers, in two brightnesses.
fn color(class: usize) -> [u8; 3] {
    // The golden angle never comes back to a hue; f32 keeps it exact enough for any number of classes.
    let hue = (class % 4096) as f32 * 0.618_034 % 1. * 6.;
    let (saturation, value) = if (class / 8).is_multiple_of(2) { (0.85, 1.) } else { (0.7, 0.75) };
    [5f32, 3., 1.].map(|n| {
        let k = (n + hue) % 6.;
        let part = value - value * saturation * k.min(4. - k).clamp(0., 1.);
        (255. * part).round() as u8
    })
}

/// Black or white, whichever is easier to read on `background`.
fn ink(background: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = background.map(f32::from);
    if 0.299 * r + 0.587 * g + 0.114 * b > 140. { [0; 3] } else { [255; 3] }
}

fn fill(canvas: &mut Rgb, area: Area, color: [u8; 3]) {
    let Size { height, width } = canvas.size;
    let columns =
        area.left.clamp(0, width as i64) as usize..area.right.clamp(0, width as i64) as usize;
    let rows =
        area.top.clamp(0, height as i64) as usize..area.bottom.clamp(0, height as i64) as usize;
    for y in rows {
        for x in columns.clone() {
            let at = 3 * (y * width + x);
            canvas.pixels[at..at + 3].copy_from_slice(&color);
        }
    }
}

/// A frame of `line` pixels, inwards from the edge of `area`.
fn draw_frame(canvas: &mut Rgb, area: Area, line: i64, color: [u8; 3]) {
    let Area { left, top, right, bottom } = area;
    fill(canvas, Area { bottom: bottom.min(top + line), ..area }, color);
    fill(canvas, Area { top: top.max(bottom - line), ..area }, color);
    fill(canvas, Area { right: right.min(left + line), ..area }, color);
    fill(canvas, Area { left: left.max(right - line), ..area }, color);
}

type Scaled = PxScaleFont<&'static FontRef<'static>>;

/// Pixels between a tag's edge and its text.
fn padding(font: &Scaled) -> f32 {
    (font.height() / 8.).ceil()
}

/// Width and height of a tag around `text`.
fn tag_size(font: &Scaled, text: &str) -> (i64, i64) {
    let width: f32 = text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum();
    let pad = 2. * padding(font);
    ((width + pad).ceil() as i64, (font.height() + pad).ceil() as i64)
}

/// A place for a tag inside the image: above its box, else in its upper edge, else below; one that no
/// other tag has, where there is one.
fn place_tag(area: Area, (width, height): (i64, i64), size: Size, taken: &[Area]) -> Area {
    let at = |top: i64| {
        // Inside the image; where it is too large for that, its beginning is.
        let left = area.left.min(size.width as i64 - width).max(0);
        let top = top.min(size.height as i64 - height).max(0);
        Area { left, top, right: left + width, bottom: top + height }
    };
    let above = if area.top >= height { area.top - height } else { area.top };
    let places = [above, area.top, area.bottom, area.bottom - height].map(at);
    let free = places.iter().find(|place| !taken.iter().any(|t| t.overlaps(**place)));
    *free.unwrap_or(&places[0])
}

fn draw_tag(canvas: &mut Rgb, tag: Area, font: &Scaled, text: &str, background: [u8; 3]) {
    fill(canvas, tag, background);
    let ink = ink(background);
    let pad = padding(font);
    let baseline = tag.top as f32 + pad + font.ascent();
    let mut x = tag.left as f32 + pad;
    let (width, height) = (canvas.size.width as i64, canvas.size.height as i64);
    for c in text.chars() {
        let mut glyph = font.scaled_glyph(c);
        glyph.position = point(x, baseline);
        x += font.h_advance(glyph.id);
        let Some(outline) = font.font.outline_glyph(glyph) else { continue };
        let bounds = outline.px_bounds();
        outline.draw(|dx, dy, coverage| {
            let px = bounds.min.x as i64 + i64::from(dx);
            let py = bounds.min.y as i64 + i64::from(dy);
            if (0..width).contains(&px) && (0..height).contains(&py) {
                let at = 3 * (py * width + px) as usize;
                let coverage = coverage.clamp(0., 1.);
                for (old, new) in canvas.pixels[at..at + 3].iter_mut().zip(ink) {
                    let mixed = f32::from(*old) * (1. - coverage) + f32::from(new) * coverage;
                    *old = mixed.round() as u8;
                }
            }
        });
    }
}

/// Why a picture was not saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The name does not say PNG or JPEG.
    #[error("cannot save {path}: its name must end in .png, .jpg or .jpeg")]
    Extension {
        /// Which file.
        path: PathBuf,
    },
    /// The picture can't be encoded so: JPEG ends at 65,535 pixels a side.
    #[error("cannot encode {path}")]
    Encode {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// The disk refuses.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Saves a picture as PNG or JPEG, by the extension of `path`.
///
/// It is written beside and renamed: a reader never sees half a picture. A file of that name is replaced.
pub fn save(image: &Rgb, path: &Path) -> Result<(), SaveError> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let (width, height) = (image.size.width as u32, image.size.height as u32);
    let mut bytes = Vec::new();
    let encoded = match extension.as_str() {
        "png" => PngEncoder::new(&mut bytes).write_image(
            &image.pixels,
            width,
            height,
            ExtendedColorType::Rgb8,
        ),
        "jpg" | "jpeg" => JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).write_image(
            &image.pixels,
            width,
            height,
            ExtendedColorType::Rgb8,
        ),
        _ => return Err(SaveError::Extension { path: path.into() }),
    };
    encoded.map_err(|source| SaveError::Encode { path: path.into(), source })?;
    whole::write(path, |file| file.write_all(&bytes))
        .map_err(|source| SaveError::Write { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::decode;

    fn grey(height: usize, width: usize) -> Rgb {
        Rgb { size: Size::new(height, width), pixels: vec![128; 3 * height * width] }
    }

    fn item(x1: f32, y1: f32, x2: f32, y2: f32) -> Labelled {
        Labelled { bbox: Box2::new(x1, y1, x2, y2), text: "кот, Größe 0.97".into(), class: 3 }
    }

    fn pixel(image: &Rgb, y: usize, x: usize) -> [u8; 3] {
        let at = 3 * (y * image.size.width + x);
        [0, 1, 2].map(|c| image.pixels[at + c])
    }

    #[test]
    fn a_frame_lies_on_the_edge_of_its_box_and_leaves_the_inside() {
        let image = grey(200, 300);
        let drawn = annotate(&image, &[item(40., 60., 240., 160.)]);
        for (y, x) in [(60, 100), (159, 100), (100, 40), (100, 239), (159, 239)] {
            assert_eq!(pixel(&drawn, y, x), color(3), "row {y}, column {x}");
        }
        for (y, x) in [(100, 100), (160, 100), (100, 240), (158, 238), (100, 39)] {
            assert_eq!(pixel(&drawn, y, x), [128; 3], "row {y}, column {x}");
        }
        // Above the box stands its tag, with text in another colour than its own.
        let tag: Vec<_> = (45..58).flat_map(|y| (41..100).map(move |x| (y, x))).collect();
        assert!(
            tag.iter().filter(|&&(y, x)| pixel(&drawn, y, x) == color(3)).count() > tag.len() / 3
        );
        // Thin strokes are mixed with the tag's colour; nearer to the ink is ink.
        let far = |p: [u8; 3], q| -> i32 {
            std::iter::zip(p, q).map(|(a, b): (u8, u8)| i32::from(a.abs_diff(b))).sum()
        };
        let is_ink = |p| far(p, ink(color(3))) < far(p, color(3));
        assert!(tag.iter().filter(|&&(y, x)| is_ink(pixel(&drawn, y, x))).count() > 40);
    }

    #[test]
    fn any_box_on_any_image_is_drawn_or_left_out() {
        let nan = f32::NAN;
        let items = [
            item(0., 0., 1., 1.),
            item(-50., -50., 500., 500.),
            item(900., 900., 950., 950.),
            item(5., 5., 5., 5.),
            item(9., 9., 2., 2.),
            item(nan, 0., 1., 1.),
            item(0., 0., f32::INFINITY, f32::INFINITY),
            item(-3e38, -3e38, 3e38, 3e38),
        ];
        for (h, w) in [(1, 1), (1, 3000), (3000, 1), (7, 11), (200, 200)] {
            let drawn = annotate(&grey(h, w), &items);
            assert_eq!(drawn.pixels.len(), 3 * h * w);
        }
        let image = grey(50, 50);
        assert_eq!(annotate(&image, &items[2..6]), image, "nothing of these can be seen");
        assert_eq!(annotate(&image, &[]), image);
    }

    #[test]
    fn tags_stay_inside_and_apart() {
        let size = Size::new(100, 200);
        let corner = Area { left: 180, top: 0, right: 200, bottom: 20 };
        let first = place_tag(corner, (60, 15), size, &[]);
        assert_eq!(first, Area { left: 140, top: 0, right: 200, bottom: 15 });
        let second = place_tag(corner, (60, 15), size, &[first]);
        assert!(!second.overlaps(first) && second.right <= 200 && second.bottom <= 100);
    }

    #[test]
    fn neighbouring_classes_have_colours_that_can_be_told_apart() {
        for a in 0..80usize {
            for b in a + 1..a + 4 {
                let apart: i32 = std::iter::zip(color(a), color(b))
                    .map(|(x, y)| (i32::from(x) - i32::from(y)).abs())
                    .sum();
                assert!(apart > 100, "{a} and {b}: {:?} {:?}", color(a), color(b));
            }
        }
    }

    #[test]
    fn the_font_has_the_letters_that_names_need() {
        for c in "azAZ09.,%-_ äßñøşđžłαωЖяїғ…€".chars() {
            assert_ne!(FONT.glyph_id(c).0, 0, "{c}");
        }
    }

    #[test]
    fn pictures_are_saved_whole_readable_and_by_their_extension() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = annotate(&grey(40, 60), &[item(5., 20., 50., 35.)]);
        let png = folder.path().join("a.png");
        save(&image, &png).expect("it can be saved");
        save(&image, &png).expect("and replaced");
        assert_eq!(decode(&png).expect("it is good").image, image);
        let jpeg = folder.path().join("b.JPG");
        save(&image, &jpeg).expect("it can be saved");
        let back = decode(&jpeg).expect("it is good").image;
        let worst = std::iter::zip(&back.pixels, &image.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(back.size == image.size && worst < Some(120), "{worst:?}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = png.metadata().expect("it is there").permissions().mode();
            assert_eq!(mode & 0o600, 0o600);
            assert_eq!(mode & 0o133, 0, "{mode:o}");
        }
        let names = || std::fs::read_dir(folder.path()).expect("readable").count();
        assert_eq!(names(), 2, "no temporary file is left");
        let gif = save(&image, &folder.path().join("c.gif")).expect_err("refused");
        assert!(matches!(gif, SaveError::Extension { .. }), "{gif}");
        let nowhere = save(&image, &folder.path().join("no/d.png")).expect_err("refused");
        assert!(matches!(nowhere, SaveError::Write { .. }), "{nowhere}");
        let too_wide = grey(1, 70_000);
        let wide = save(&too_wide, &folder.path().join("e.jpg")).expect_err("refused");
        assert!(matches!(wide, SaveError::Encode { .. }), "{wide}");
        assert_eq!(names(), 2);
    }
}
