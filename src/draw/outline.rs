//! Outlines of masks.

use super::{Rgb, color};

/// Draws the closed polygon `x, y, x, y, ...` onto `canvas`, a pixel wide, in the colour of its class.
///
/// Parts outside the image are cut off; a point that is not a number leaves out its two sides.
pub fn outline(canvas: &mut Rgb, polygon: &[f64], class: usize) {
    let points: Vec<(f64, f64)> = polygon.chunks_exact(2).map(|p| (p[0], p[1])).collect();
    let next = points.iter().cycle().skip(1);
    for (&from, &to) in points.iter().zip(next) {
        side(canvas, from, to, color(class));
    }
}

fn side(canvas: &mut Rgb, from: (f64, f64), to: (f64, f64), color: [u8; 3]) {
    let (width, height) = (canvas.size.width as f64, canvas.size.height as f64);
    let Some((from, to)) = inside(from, to, width, height) else { return };
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    // A step moves by at most one pixel.
    let steps = dx.abs().max(dy.abs()).ceil().max(1.) as usize;
    for i in 0..=steps {
        let part = i as f64 / steps as f64;
        let x = ((from.0 + dx * part) as usize).min(canvas.size.width - 1);
        let y = ((from.1 + dy * part) as usize).min(canvas.size.height - 1);
        let at = 3 * (y * canvas.size.width + x);
        canvas.pixels[at..at + 3].copy_from_slice(&color);
    }
}

type Point = (f64, f64);

/// The part of a line that lies in the image (Liang and Barsky 1984); `None` where none does.
fn inside(from: Point, to: Point, width: f64, height: f64) -> Option<(Point, Point)> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (mut start, mut end) = (0f64, 1f64);
    for (step, room) in [(-dx, from.0), (dx, width - from.0), (-dy, from.1), (dy, height - from.1)]
    {
        if !step.is_finite() || !room.is_finite() {
            return None;
        }
        if step == 0. {
            if room < 0. {
                return None;
            }
        } else if step < 0. {
            start = start.max(room / step);
        } else {
            end = end.min(room / step);
        }
    }
    let at = |part: f64| (from.0 + dx * part, from.1 + dy * part);
    (start <= end).then(|| (at(start), at(end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;

    fn grey(height: usize, width: usize) -> Rgb {
        Rgb { size: Size::new(height, width), pixels: vec![128; 3 * height * width] }
    }

    #[test]
    fn sides_are_drawn_from_point_to_point_and_back_to_the_first() {
        let mut image = grey(10, 20);
        outline(&mut image, &[2., 1., 12., 1., 12., 8.], 0);
        let drawn = |x: usize, y: usize| image.pixels[3 * (y * 20 + x)..][..3] != [128; 3];
        for (x, y) in [(2, 1), (7, 1), (12, 1), (12, 5), (12, 8), (7, 4)] {
            assert!(drawn(x, y), "{x}, {y}");
        }
        for (x, y) in [(1, 1), (13, 1), (9, 3), (12, 9), (4, 6)] {
            assert!(!drawn(x, y), "{x}, {y}");
        }
    }

    #[test]
    fn any_polygon_on_any_image_is_drawn_or_left_out() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (height, width) in [(1, 1), (3, 500), (500, 3)] {
            let mut image = grey(height, width);
            for polygon in [
                &[][..],
                &[1.],
                &[1., 1.],
                &[-50., -50., 1e300, 1e300, 5., -1e300],
                &[inf, 1., 2., nan, 3., 3.],
                &[f64::MAX, f64::MAX, -f64::MAX, -f64::MAX],
            ] {
                outline(&mut image, polygon, 5);
            }
            assert_eq!(image.pixels.len(), 3 * height * width);
        }
        let mut image = grey(10, 10);
        outline(&mut image, &[-5., 5., 15., 5.], 1);
        let row = &image.pixels[3 * 50..3 * 60];
        assert!(row.chunks(3).all(|p| p != [128; 3]), "from edge to edge");
        let before = image.clone();
        outline(&mut image, &[20., 20., 30., 20., 30., 30.], 1);
        assert_eq!(image, before);
    }
}
