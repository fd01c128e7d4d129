//! Boxes and outlines turned as EXIF turns their image.

use crate::geometry::Size;

/// Where the point `(x, y)` of the stored picture lies in the upright one.
///
/// `orientation` is EXIF's, 1 to 8; `stored` the size of the stored picture.
pub(super) fn turn((x, y): (f64, f64), orientation: u8, stored: Size) -> (f64, f64) {
    let (w, h) = (stored.width as f64, stored.height as f64);
    match orientation {
        2 => (w - x, y),
        3 => (w - x, h - y),
        4 => (x, h - y),
        5 => (y, x),
        6 => (h - y, x),
        7 => (h - y, w - x),
        8 => (y, w - x),
        _ => (x, y),
    }
}

/// `[x, y, width, height]`, turned.
pub(super) fn turn_box([x, y, w, h]: [f64; 4], orientation: u8, stored: Size) -> [f64; 4] {
    let (ax, ay) = turn((x, y), orientation, stored);
    let (bx, by) = turn((x + w, y + h), orientation, stored);
    // Sides keep their lengths to the last bit.
    let (w, h) = if orientation >= 5 { (h, w) } else { (w, h) };
    [ax.min(bx), ay.min(by), w, h]
}

/// A polygon x, y, x, y, ..., turned.
pub(super) fn turn_polygon(polygon: &mut [f64], orientation: u8, stored: Size) {
    for point in polygon.chunks_exact_mut(2) {
        let (x, y) = turn((point[0], point[1]), orientation, stored);
        point.copy_from_slice(&[x, y]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::decode;

    /// A picture with one white corner, stored with each orientation: the decoder says where it goes.
    #[test]
    fn boxes_go_where_the_pixels_go() {
        let (width, height) = (32u32, 16u32);
        let corner = [0., 0., 16., 8.];
        let picture = image::RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([if x < 16 && y < 8 { 255 } else { 0 }; 3])
        });
        let mut jpeg = Vec::new();
        image::ImageEncoder::write_image(
            image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 100),
            &picture,
            width,
            height,
            image::ExtendedColorType::Rgb8,
        )
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        for orientation in 1..=8u8 {
            let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
            exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
            let length = (exif.len() + 2) as u16;
            let app1 = [&[0xff, 0xe1][..], &length.to_be_bytes(), &exif].concat();
            let file = dir.path().join("a.jpg");
            std::fs::write(&file, [&jpeg[..2], &app1, &jpeg[2..]].concat()).unwrap();
            let upright = decode(&file).unwrap().image;
            let [x, y, w, h] = turn_box(corner, orientation, Size::new(16, 32));
            for row in 0..upright.size.height {
                for column in 0..upright.size.width {
                    let inside = (x..x + w).contains(&(column as f64 + 0.5))
                        && (y..y + h).contains(&(row as f64 + 0.5));
                    let white = upright.pixels[3 * (row * upright.size.width + column)] > 127;
                    assert_eq!(inside, white, "{orientation}: row {row}, column {column}");
                }
            }
            let mut polygon = vec![0., 0., 16., 0., 16., 8.];
            turn_polygon(&mut polygon, orientation, Size::new(16, 32));
            let xs = [polygon[0], polygon[2], polygon[4]];
            assert_eq!(xs.iter().copied().fold(f64::INFINITY, f64::min), x);
        }
    }
}
