//! Small data sets that tests write themselves.

use std::fs;
use std::path::{Path, PathBuf};

use image::{ExtendedColorType, ImageEncoder as _, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A data set folder in the short form (`annotations/SPLIT.json`, `images/`), empty at first.
pub(crate) struct Set {
    dir: TempDir,
}

impl Set {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        fs::create_dir(dir.path().join("annotations")).unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        Self { dir }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file at `path` in the folder.
    pub(crate) fn file(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn split(&self, name: &str, annotations: &Value) {
        self.file(&format!("annotations/{name}.json"), annotations.to_string());
    }

    /// Writes `images/NAME` as PNG: `grey`, with a white rectangle `[x, y, width, height]`.
    pub(crate) fn png(&self, name: &str, (height, width): (u32, u32), grey: u8, white: [u32; 4]) {
        self.file(&format!("images/{name}"), encode(&picture(height, width, grey, white), "png"));
    }

    /// The same as JPEG with an EXIF orientation.
    pub(crate) fn jpeg(&self, name: &str, (height, width): (u32, u32), grey: u8, orientation: u8) {
        let jpeg = encode(&picture(height, width, grey, [0; 4]), "jpeg");
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let length = (exif.len() + 2) as u16;
        let app1 = [&[0xff, 0xe1][..], &length.to_be_bytes(), &exif].concat();
        self.file(&format!("images/{name}"), [&jpeg[..2], &app1, &jpeg[2..]].concat());
    }
}

fn picture(height: u32, width: u32, grey: u8, [x, y, w, h]: [u32; 4]) -> RgbImage {
    RgbImage::from_fn(width, height, |px, py| {
        let inside = (x..x + w).contains(&px) && (y..y + h).contains(&py);
        image::Rgb([if inside { 255 } else { grey }; 3])
    })
}

fn encode(picture: &RgbImage, format: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (w, h, color) = (picture.width(), picture.height(), ExtendedColorType::Rgb8);
    match format {
        "png" => image::codecs::png::PngEncoder::new(&mut out).write_image(picture, w, h, color),
        _ => image::codecs::jpeg::JpegEncoder::new(&mut out).write_image(picture, w, h, color),
    }
    .unwrap();
    out
}

/// An entry of `images`.
pub(crate) fn image(id: i64, file_name: &str, (height, width): (u32, u32)) -> Value {
    json!({"id": id, "file_name": file_name, "height": height, "width": width})
}

/// An entry of `annotations`.
pub(crate) fn annotation(id: i64, image_id: i64, category_id: i64, bbox: [f64; 4]) -> Value {
    json!({"id": id, "image_id": image_id, "category_id": category_id, "bbox": bbox,
           "area": bbox[2] * bbox[3], "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]})
}

/// An annotation file with the categories 1 `cat` and 7 `dog`.
pub(crate) fn annotations(images: &[Value], annotations: &[Value]) -> Value {
    json!({"info": {"year": 2024}, "licenses": [], "images": images, "annotations": annotations,
           "categories": [{"id": 7, "name": "dog"}, {"id": 1, "name": "cat", "supercategory": "pet"}]})
}

/// The larger test material, or `None` after saying that the test is skipped.
pub(crate) fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("DETECT_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: DETECT_TEST_DATA is not set");
    }
    folder
}
