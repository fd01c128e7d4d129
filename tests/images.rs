//! Image files of every kind, good and bad: what is decoded, what is refused, and how it is said.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use detect::config::{Config, Resize};
use detect::data::image::{
    Decoded, ImageError, MAX_PIXELS, Rgb, decode, header, resize_normalized_f32,
};
use detect::geometry::Size;
use image::{DynamicImage, ImageFormat};
use safetensors::SafeTensors;

/// The larger test material, or `None` after saying that the test is skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("DETECT_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: DETECT_TEST_DATA is not set");
    }
    folder
}

/// What has to come out of a file.
enum Outcome {
    /// Upright height and width, without a warning.
    Good(usize, usize),
    /// The same, and a warning that contains the words.
    Warned(usize, usize, &'static str),
    /// An error of this variant, whose message contains the words.
    Bad(&'static str, &'static str),
}
use Outcome::{Bad, Good, Warned};

/// Every file of the folder `badfiles`. Where decoders differ, the rule is ours: pixels that are not in
/// the file are never made up.
const FILES: &[(&str, Outcome)] = &[
    ("jpeg_truncated_60pct.jpg", Bad("Damaged", "cut: the data ends after 49 %")),
    ("jpeg_truncated_2_bytes_missing.jpg", Warned(150, 226, "end marker")),
    ("jpeg_header_only.jpg", Bad("Damaged", "cut")),
    ("jpeg_trailing_garbage.jpg", Good(150, 226)),
    // Each of the random codes can be decoded, so nothing shows that they are not the picture's.
    ("jpeg_corrupt_middle.jpg", Good(150, 226)),
    ("zero_bytes.jpg", Bad("Empty", "0 bytes")),
    ("one_byte.png", Bad("NotAnImage", "not an image")),
    ("text_named.jpg", Bad("NotAnImage", "not an image")),
    ("html_named.jpg", Bad("NotAnImage", "web page")),
    ("png_bytes_named.jpg", Good(150, 226)),
    ("jpeg_bytes_named.png", Good(150, 226)),
    ("jpeg_no_extension", Good(150, 226)),
    ("UPPER.JPG", Good(150, 226)),
    ("name with spaces & ünïcode ⚠.jpg", Good(150, 226)),
    ("cmyk_adobe.jpg", Good(150, 226)),
    ("grayscale.jpg", Good(150, 226)),
    ("progressive.jpg", Good(150, 226)),
    ("jpeg_444.jpg", Good(150, 226)),
    ("jpeg_odd_size_420.jpg", Good(23, 37)),
    ("exif_orientation_1.jpg", Good(150, 226)),
    ("exif_orientation_2.jpg", Good(150, 226)),
    ("exif_orientation_3.jpg", Good(150, 226)),
    ("exif_orientation_4.jpg", Good(150, 226)),
    ("exif_orientation_5.jpg", Good(150, 226)),
    ("exif_orientation_6.jpg", Good(150, 226)),
    ("exif_orientation_7.jpg", Good(150, 226)),
    ("exif_orientation_8.jpg", Good(150, 226)),
    ("exif_orientation_0_invalid.jpg", Good(150, 226)),
    ("exif_orientation_6.png", Good(150, 226)),
    ("png_16bit_rgb.png", Good(150, 226)),
    ("png_16bit_gray.png", Good(150, 226)),
    ("png_gray_alpha.png", Good(150, 226)),
    ("png_rgba.png", Good(150, 226)),
    ("png_palette_trns.png", Good(150, 226)),
    ("png_1bit.png", Good(150, 226)),
    ("png_bad_crc.png", Warned(150, 226, "checksum")),
    ("png_truncated.png", Bad("Damaged", "cut")),
    ("png_too_little_data.png", Bad("Damaged", "not have enough data")),
    ("png_interlaced.png", Good(150, 226)),
    ("bomb_declared_60000x60000.png", Bad("TooLarge", "60000 x 60000")),
    ("bomb_zero_size.png", Bad("Damaged", "size of 0x0")),
    ("bomb_valid_20000x20000_1bit.png", Bad("TooLarge", "20000 x 20000")),
    ("bomb_jpeg_65535x65535.jpg", Bad("TooLarge", "65535 x 65535")),
    ("jpeg_height_zero.jpg", Bad("Damaged", "size of 0x226")),
    ("one_pixel.png", Good(1, 1)),
    ("one_pixel.jpg", Good(1, 1)),
    ("thin_1x3000.png", Good(3000, 1)),
    ("wide_5000x2.jpg", Good(2, 5000)),
    ("animated.gif", Good(80, 120)),
    ("animated.png", Good(80, 120)),
    ("lossy.webp", Good(150, 226)),
    ("lossless_alpha.webp", Good(150, 226)),
    ("animated.webp", Good(80, 120)),
    ("rgb24.bmp", Good(40, 60)),
    ("palette8.bmp", Good(41, 61)),
    ("rgb_lzw.tif", Good(150, 226)),
    ("gray16.tif", Good(150, 226)),
    ("cmyk.tif", Good(40, 60)),
    ("multipage.tif", Good(80, 120)),
    ("float32.tif", Bad("NotSupported", "TIFF")),
    ("icon.ico", Bad("NotSupported", "ICO")),
    ("binary.ppm", Good(27, 40)),
    ("photo.avif", Bad("NotSupported", "AVIF")),
    ("vector.svg.png", Bad("NotSupported", "SVG")),
    // Archives hold these two as small text files; the real ones are made by a test of their own.
    ("directory_named.jpg", Bad("NotAnImage", "not an image")),
    ("dangling_link.jpg", Bad("NotAnImage", "not an image")),
    ("real/broken.png", Bad("Damaged", "IHDR")),
    ("real/broken_data_stream.png", Bad("Damaged", "PNG")),
    ("real/broken_exif_dpi.jpg", Good(100, 100)),
    ("real/decompression_bomb.gif", Bad("Damaged", "GIF")),
    ("real/decompression_bomb_extents.gif", Good(100, 100)),
    ("real/pil_sample_cmyk.jpg", Good(100, 100)),
    ("real/invalid-exif.jpg", Good(200, 200)),
    ("real/exif_typeerror.jpg", Good(531, 800)),
    // All of its data is there; of the end marker the first byte.
    ("real/truncated_jpeg.jpg", Warned(100, 100, "end marker")),
    ("real/truncated_image.png", Bad("Damaged", "cut")),
    ("real/hopper_16bit.pgm", Good(128, 128)),
    ("real/crash-754d9c7ec485ffb76a90eeaab191ef69a2a3a3cd.sgi", Bad("NotSupported", "SGI")),
    ("real/badrle.bmp", Bad("Damaged", "RLE")),
    ("real/badwidth.bmp", Bad("Damaged", "width")),
    ("real/oss-fuzz-36829.jpeg", Bad("Damaged", "Huffman table")),
    ("real/Bad_reallybig.bmp", Bad("Damaged", "too large")),
    ("real/Bad_shortfile.bmp", Bad("Damaged", "cut")),
    ("real/portrait_2.jpg", Good(150, 113)),
    ("real/truncated.jpg", Bad("Damaged", "cut")),
    ("real/raccoon_150_gray.jpg", Good(183, 275)),
];

/// The variant's name, as `Debug` writes it.
fn variant(error: &ImageError) -> String {
    format!("{error:?}").split([' ', '{', '(']).next().expect("a name").to_owned()
}

fn check(path: &Path, outcome: &Outcome) {
    let name = path.display();
    match (decode(path), outcome) {
        (Ok(d), Good(h, w)) => {
            assert_eq!(d.image.size, Size::new(*h, *w), "{name}");
            assert_eq!(d.image.pixels.len(), 3 * h * w, "{name}");
            assert_eq!(d.warning, None, "{name}");
        }
        (Ok(d), Warned(h, w, words)) => {
            assert_eq!(d.image.size, Size::new(*h, *w), "{name}");
            let warning = d.warning.unwrap_or_default();
            assert!(warning.contains(words), "{name}: {warning}");
        }
        (Err(error), Bad(kind, words)) => {
            let message = error.to_string();
            assert_eq!(variant(&error), *kind, "{message}");
            assert!(message.contains(words), "{message}");
            let file = path.file_name().expect("it has one").to_string_lossy();
            assert!(message.contains(&*file), "it must name the file: {message}");
        }
        (Ok(d), Bad(..)) => panic!("{name} must be refused, and was decoded as {}", d.image.size),
        (Err(error), _) => panic!("must be decoded: {error}"),
    }
}

#[test]
fn every_file_of_the_collection_has_the_right_outcome() {
    let Some(folder) = test_data().map(|d| d.join("data/badfiles")) else { return };
    for (name, outcome) in FILES {
        let path = folder.join(name);
        if path.is_file() {
            check(&path, outcome);
        } else {
            // Only these two may be missing: a folder and a dangling link are often lost in copies.
            assert!(["directory_named.jpg", "dangling_link.jpg"].contains(name), "no {name}");
        }
    }
    // No file is left out of the list.
    for folder in [folder.clone(), folder.join("real")] {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("an entry").path();
            let known = |(name, _): &(&str, Outcome)| path.ends_with(name);
            assert!(
                path.is_dir() || path.ends_with("README.md") || FILES.iter().any(known),
                "{} is not in the list",
                path.display()
            );
        }
    }
}

#[test]
fn orientations_turn_the_picture_upright() {
    let Some(folder) = test_data().map(|d| d.join("data/badfiles")) else { return };
    let upright = decode(&folder.join("exif_orientation_1.jpg")).expect("it is good");
    assert!(!upright.orientation_applied);
    for orientation in 2..=8u8 {
        let path = folder.join(format!("exif_orientation_{orientation}.jpg"));
        let turned = decode(&path).expect("it is good");
        assert!(turned.orientation_applied);
        let stored = if orientation >= 5 { Size::new(226, 150) } else { Size::new(150, 226) };
        assert_eq!(turned.stored, stored);
        let head = header(&path).expect("it is good");
        assert_eq!((head.size, head.orientation), (stored, orientation));
        assert_eq!(head.upright_size(), turned.image.size);
        // Each was compressed by itself: the mean difference of noise, not of another picture.
        let sum: u32 = std::iter::zip(&turned.image.pixels, &upright.image.pixels)
            .map(|(&a, &b)| u32::from(a.abs_diff(b)))
            .sum();
        let mean = f64::from(sum) / upright.image.pixels.len() as f64;
        assert!(mean < 3., "orientation {orientation}: mean difference {mean}");
    }
    // The same picture as PNG, whose orientation stands in another kind of chunk.
    let png = decode(&folder.join("exif_orientation_6.png")).expect("it is good");
    assert_eq!((png.image.size, png.stored), (Size::new(150, 226), Size::new(226, 150)));
}

#[test]
fn folders_links_and_pipes_are_refused_without_waiting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder.jpg")).expect("made");
    check(&at("folder.jpg"), &Bad("Folder", "is a folder"));
    check(&at("missing.png"), &Bad("Read", "cannot read"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at("nowhere.jpg"), at("link.jpg")).expect("made");
        check(&at("link.jpg"), &Bad("Read", "cannot read"));
        let made = std::process::Command::new("mkfifo").arg(at("pipe.jpg")).status();
        assert!(made.expect("mkfifo runs").success());
        check(&at("pipe.jpg"), &Bad("NotAFile", "regular file"));
        assert!(matches!(header(Path::new("/dev/zero")), Err(ImageError::NotAFile { .. })));
    }
}

/// A photograph-like picture: smooth, with edges and a little noise.
fn picture(size: Size) -> DynamicImage {
    let mut state = 1u32;
    let (w, h) = (size.width as u32, size.height as u32);
    DynamicImage::ImageRgb8(image::RgbImage::from_fn(w, h, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 27) as u8;
        let edge = if (x / 9 + y / 7) % 2 == 0 { 40 } else { 160 };
        image::Rgb([edge + noise, (3 * x) as u8, (5 * y) as u8 ^ noise])
    }))
}

const FORMATS: [ImageFormat; 7] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Gif,
    ImageFormat::Tiff,
    ImageFormat::Pnm,
];

/// The same small picture in every format.
fn encoded(size: Size) -> BTreeMap<String, Vec<u8>> {
    let encode = |format| {
        let mut bytes = Cursor::new(Vec::new());
        picture(size).write_to(&mut bytes, format).expect("it can be encoded");
        (format!("{format:?}"), bytes.into_inner())
    };
    FORMATS.map(encode).into()
}

/// Decodes bytes through a file, as everyone has to.
fn through(path: &Path, bytes: &[u8]) -> Result<Decoded, ImageError> {
    fs::write(path, bytes).expect("the file can be written");
    decode(path)
}

/// Cuts a file at many places: either an error, or the very picture that the whole file has.
fn cut_everywhere(path: &Path, name: &str, bytes: &[u8], step: usize) {
    let whole = through(path, bytes).expect("the whole file is good").image;
    let near_the_end = bytes.len().saturating_sub(40);
    for length in (0..bytes.len()).filter(|n| n % step == 0 || *n > near_the_end) {
        match through(path, &bytes[..length]) {
            Ok(d) => {
                assert_eq!(d.image, whole, "{name} cut at {length} of {}: made up", bytes.len());
            }
            Err(ImageError::Decoder { reason, .. }) => {
                panic!("{name} cut at {length}: the decoder panicked: {reason}")
            }
            Err(_) => {}
        }
    }
}

#[test]
fn a_cut_file_never_gives_a_picture_that_was_not_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cut");
    for (name, bytes) in encoded(Size::new(37, 45)) {
        cut_everywhere(&path, &name, &bytes, 1 + bytes.len() / 300);
    }
}

#[test]
fn a_cut_jpeg_is_not_mended_by_an_end_marker() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("closed");
    let whole = encoded(Size::new(64, 64)).remove("Jpeg").expect("it is encoded");
    for percent in [50, 70, 90, 98] {
        let mut bytes = whole[..whole.len() * percent / 100].to_vec();
        bytes.extend([0xff, 0xd9]);
        let error = through(&path, &bytes).expect_err("a part of the picture is missing");
        assert!(error.to_string().contains("% of the picture"), "{error}");
    }
}

#[test]
fn files_of_other_encoders_are_cut_too() {
    let Some(data) = test_data().map(|d| d.join("data/badfiles")) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cut");
    for name in [
        "progressive.jpg",
        "jpeg_444.jpg",
        "cmyk_adobe.jpg",
        "exif_orientation_6.jpg",
        "png_interlaced.png",
        "png_palette_trns.png",
        "lossy.webp",
        "lossless_alpha.webp",
        "animated.gif",
        "rgb_lzw.tif",
        "gray16.tif",
        "palette8.bmp",
        "binary.ppm",
        "real/hopper_16bit.pgm",
    ] {
        let bytes = fs::read(data.join(name)).expect("it can be read");
        cut_everywhere(&path, name, &bytes, 1 + bytes.len() / 100);
    }
}

#[test]
fn changed_bytes_neither_panic_nor_hang() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("changed");
    let mut state = 7u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for (name, bytes) in encoded(Size::new(21, 33)) {
        for _ in 0..400 {
            let mut changed = bytes.clone();
            for _ in 0..=random() % 3 {
                // Headers are short and matter most.
                let range = if random() % 2 == 0 { bytes.len().min(80) } else { bytes.len() };
                changed[random() % range] = random() as u8;
            }
            match through(&path, &changed) {
                Ok(d) => assert_eq!(
                    d.image.pixels.len(),
                    3 * d.image.size.height * d.image.size.width,
                    "{name}"
                ),
                Err(error) => assert!(!error.to_string().is_empty(), "{name}"),
            }
            let _ = header(&path);
        }
    }
}

#[test]
fn lossless_formats_give_the_pixels_back_and_headers_the_size() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("no-extension");
    let size = Size::new(37, 45);
    let expected = picture(size).into_rgb8().into_raw();
    for (name, bytes) in encoded(size) {
        let decoded = through(&path, &bytes).expect("it is good");
        assert_eq!(header(&path).expect("it is good").size, size, "{name}");
        assert_eq!((decoded.stored, decoded.warning), (size, None), "{name}");
        if !["Jpeg", "Gif"].contains(&name.as_str()) {
            assert!(decoded.image == Rgb { size, pixels: expected.clone() }, "{name} differs");
        }
    }
}

#[test]
fn the_limit_counts_pixels_in_the_header() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("big.pgm");
    // One row more than is allowed, and not a byte of data.
    let (w, h) = (10_000, MAX_PIXELS / 10_000 + 1);
    let error = through(&path, format!("P5\n{w} {h}\n255\n").as_bytes()).expect_err("refused");
    assert_eq!(variant(&error), "TooLarge", "{error}");
    // Fewer pixels, but of 8 bytes each.
    let bytes = "P7\nWIDTH 9000\nHEIGHT 9000\nDEPTH 4\nMAXVAL 65535\nTUPLTYPE RGB_ALPHA\nENDHDR\n";
    let error = through(&path, bytes.as_bytes()).expect_err("refused");
    assert_eq!(variant(&error), "TooLarge", "{error}");
}

fn floats(tensors: &SafeTensors, name: &str) -> (Vec<usize>, Vec<f32>) {
    let view = tensors.tensor(name).expect("it is there");
    let data = view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    (view.shape().to_vec(), data)
}

fn integers(tensors: &SafeTensors, name: &str) -> Vec<usize> {
    let view = tensors.tensor(name).expect("it is there");
    view.data().as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b) as usize).collect()
}

#[test]
fn resizing_equals_torchvision() {
    let Some(folder) = test_data().map(|d| d.join("oracle/ops")) else { return };
    let bytes = fs::read(folder.join("transform.safetensors")).expect("it can be read");
    let tensors = SafeTensors::deserialize(&bytes).expect("it is safetensors");
    let text = fs::read_to_string(folder.join("transform.json")).expect("it can be read");
    let cases: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let mut input = Config::recipe("default", &[]).expect("it is shipped").input;
    let mut images = 0;
    for (case, settings) in cases.as_object().expect("an object") {
        let number = |key: &str| settings[key].as_u64().map(|n| n as usize);
        let Some(short_side) = number("min_size") else { continue };
        let three =
            |key: &str| [0, 1, 2].map(|i| settings[key][i].as_f64().expect("a number") as f32);
        let long_side = number("max_size").expect("a number");
        input.resize = Resize::ShortSide { short_side, long_side };
        (input.mean, input.std) = (three("mean"), three("std"));
        let sizes = integers(&tensors, &format!("{case}.image_sizes_hw"));
        let (shape, expected) = floats(&tensors, &format!("{case}.batch"));
        let (height, width) = (shape[2], shape[3]);
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        for index in 0..shape[0] {
            let (shape, planes) = floats(&tensors, &format!("{case}.image.{index}"));
            let from = Size::new(shape[1], shape[2]);
            let plane = from.height * from.width;
            let samples: Vec<f32> = (0..3 * plane).map(|i| planes[i % 3 * plane + i / 3]).collect();
            let to = input.resized(from);
            assert_eq!([to.height, to.width], sizes[2 * index..2 * index + 2], "{case}.{index}");
            let mut out = vec![0f32; 3 * height * width];
            let row = 3 * width;
            resize_normalized_f32((&samples, from), to, input.mean, input.std, &mut out, row);
            let plane = height * width;
            for i in 0..3 * plane {
                let want = expected[(3 * index + i % 3) * plane + i / 3];
                assert!(
                    (out[i] - want).abs() <= 1e-5 * largest,
                    "{case}.{index} at {i}: {} instead of {want}",
                    out[i]
                );
            }
            images += 1;
        }
    }
    assert_eq!(images, 6);
    for row in integers(&tensors, "size_table.rows").as_chunks::<6>().0 {
        input.resize = Resize::ShortSide { short_side: row[0], long_side: row[1] };
        let resized = input.resized(Size::new(row[2], row[3]));
        assert_eq!([resized.height, resized.width], row[4..], "{row:?}");
    }
}
