//! From whatever samples a decoder gives to upright 8-bit RGB.

use crate::geometry::Size;

/// How a decoder lays out one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    pub(super) channels: usize,
    /// 1, or 2 for 16 bit in the machine's byte order.
    pub(super) bytes: usize,
}

impl Layout {
    /// Bytes of a pixel.
    pub(super) fn pixel(self) -> usize {
        self.channels * self.bytes
    }

    /// Zeros for `pixels` pixels, with room for [`to_rgb`] to work in place.
    pub(super) fn buffer(self, pixels: usize) -> Vec<u8> {
        let mut buffer = vec![0; pixels * self.pixel().max(3)];
        buffer.truncate(pixels * self.pixel());
        buffer
    }
}

/// Turns samples into RGB of 8 bit, in place: alpha is dropped and the colour under it kept, grey is
/// repeated, 16 bit are rounded to 8.
pub(super) fn to_rgb(mut data: Vec<u8>, layout: Layout) -> Vec<u8> {
    let from = layout.pixel();
    if layout == (Layout { channels: 3, bytes: 1 }) {
        return data;
    }
    let pixels = data.len() / from;
    let read = |data: &[u8], i: usize| -> [u8; 3] {
        let pixel = &data[i * from..(i + 1) * from];
        let sample = |channel: usize| {
            if layout.bytes == 1 {
                return pixel[channel];
            }
            let wide = u16::from_ne_bytes([pixel[2 * channel], pixel[2 * channel + 1]]);
            ((u32::from(wide) + 128) / 257) as u8
        };
        if layout.channels < 3 { [sample(0); 3] } else { [sample(0), sample(1), sample(2)] }
    };
    if from >= 3 {
        for i in 0..pixels {
            let rgb = read(&data, i);
            data[3 * i..3 * i + 3].copy_from_slice(&rgb);
        }
        data.truncate(3 * pixels);
        data.shrink_to_fit();
    } else {
        data.resize(3 * pixels, 0);
        // From the end, so that nothing is overwritten before it is read.
        for i in (0..pixels).rev() {
            let rgb = read(&data, i);
            data[3 * i..3 * i + 3].copy_from_slice(&rgb);
        }
    }
    data
}

/// Pixels along a side of a tile.
const TILE: usize = 32;

/// Applies an EXIF orientation (1 to 8) to RGB pixels of `size`; gives the upright size and pixels.
pub(super) fn upright(size: Size, pixels: Vec<u8>, orientation: u8) -> (Size, Vec<u8>) {
    if orientation <= 1 {
        return (size, pixels);
    }
    let (h, w) = (size.height, size.width);
    let turned = if orientation >= 5 { Size::new(w, h) } else { size };
    let mut out = vec![0; pixels.len()];
    // In tiles: a turned row is a stored column, and one pixel of each cache line is too little to use.
    for top in (0..turned.height).step_by(TILE) {
        for left in (0..turned.width).step_by(TILE) {
            for y in top..turned.height.min(top + TILE) {
                for x in left..turned.width.min(left + TILE) {
                    // Where pixel (y, x) of the upright picture is stored.
                    let (sy, sx) = match orientation {
                        2 => (y, w - 1 - x),
                        3 => (h - 1 - y, w - 1 - x),
                        4 => (h - 1 - y, x),
                        5 => (x, y),
                        6 => (h - 1 - x, y),
                        7 => (h - 1 - x, w - 1 - y),
                        _ => (x, w - 1 - y),
                    };
                    let (from, to) = (3 * (sy * w + sx), 3 * (y * turned.width + x));
                    out[to..to + 3].copy_from_slice(&pixels[from..from + 3]);
                }
            }
        }
    }
    (turned, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_is_dropped_and_grey_repeated() {
        let rgb = |data: &[u8], channels, bytes| {
            let layout = Layout { channels, bytes };
            let mut buffer = layout.buffer(data.len() / layout.pixel());
            buffer.copy_from_slice(data);
            to_rgb(buffer, layout)
        };
        assert_eq!(rgb(&[1, 2], 1, 1), [1, 1, 1, 2, 2, 2]);
        assert_eq!(rgb(&[1, 0, 2, 9], 2, 1), [1, 1, 1, 2, 2, 2]);
        assert_eq!(rgb(&[1, 2, 3, 0, 4, 5, 6, 255], 4, 1), [1, 2, 3, 4, 5, 6]);
        let wide: Vec<u8> =
            [0u16, 65535, 257, 128, 129, 32896].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(rgb(&wide, 3, 2), [0, 255, 1, 0, 1, 128]);
        assert_eq!(rgb(&wide[..4], 1, 2), [0, 0, 0, 255, 255, 255]);
        assert_eq!(rgb(&wide[..8], 2, 2), [0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn every_orientation_is_the_turn_that_exif_names() {
        // Stored 2 x 3:   a b c      The letters are the red samples.
        //                 d e f
        let stored: Vec<u8> = b"abcdef".iter().flat_map(|&c| [c, 0, 0]).collect();
        let cases: [(u8, (usize, usize), &[u8]); 8] = [
            (1, (2, 3), b"abcdef"),
            (2, (2, 3), b"cbafed"), // mirrored
            (3, (2, 3), b"fedcba"), // half a turn
            (4, (2, 3), b"defabc"), // upside down, mirrored
            (5, (3, 2), b"adbecf"), // transposed
            (6, (3, 2), b"daebfc"), // shown turned clockwise
            (7, (3, 2), b"fcebda"), // transposed along the other diagonal
            (8, (3, 2), b"cfbead"), // shown turned counter-clockwise
        ];
        for (orientation, (h, w), expected) in cases {
            let (size, pixels) = upright(Size::new(2, 3), stored.clone(), orientation);
            let red: Vec<u8> = pixels.chunks(3).map(|p| p[0]).collect();
            assert_eq!(size, Size::new(h, w), "orientation {orientation}");
            assert_eq!(red, expected, "orientation {orientation}");
        }
    }
}
