//! An RGB picture of floats, and the passes over all of it: noise, backgrounds' base, blur, light, camera.

use crate::stream::Stream;

/// Red, green and blue, 0 to 1, gamma-coded as in a file.
pub(crate) type Rgb = [f32; 3];

/// `a` where `t` is 0, `b` where it is 1.
pub(crate) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * t)
}

/// `colour` times `factor`.
pub(crate) fn scaled(colour: Rgb, factor: f32) -> Rgb {
    colour.map(|x| x * factor)
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(crate) fn smooth(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0., 1.);
    t * t * (3. - 2. * t)
}

/// A colour from hue (in turns), saturation and value.
pub(crate) fn hsv(hue: f32, saturation: f32, value: f32) -> Rgb {
    [0., 2. / 3., 1. / 3.].map(|offset| {
        let t = (hue + offset).rem_euclid(1.) * 6.;
        let full = ((t - 3.).abs() - 1.).clamp(0., 1.);
        value * (1. - saturation + saturation * full)
    })
}

/// One value in `[0, 1)` for each point of a grid.
fn lattice(seed: u32, x: i32, y: i32) -> f32 {
    let mut h = seed ^ (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77);
    h = (h ^ h >> 15).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ h >> 12).wrapping_mul(0x297A_2D39);
    (h ^ h >> 15) as f32 / 4_294_967_296.
}

/// Value noise: random values on a grid of step 1, smooth between. In `[0, 1]`.
pub(crate) fn noise(seed: u32, x: f32, y: f32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let (i, j) = (fx as i32, fy as i32);
    let (tx, ty) = (smooth(0., 1., x - fx), smooth(0., 1., y - fy));
    let row = |j| {
        let (a, b) = (lattice(seed, i, j), lattice(seed, i + 1, j));
        a + (b - a) * tx
    };
    let (a, b) = (row(j), row(j + 1));
    a + (b - a) * ty
}

/// Value noise at several octaves, each twice as fine and 0.55 times as strong. In `[0, 1]`.
pub(crate) fn fractal(seed: u32, x: f32, y: f32, octaves: u32) -> f32 {
    let (mut sum, mut total, mut weight, mut step) = (0., 0., 1., 1.);
    for octave in 0..octaves {
        sum += weight * noise(seed.wrapping_add(octave * 7919), x * step, y * step);
        total += weight;
        weight *= 0.55;
        step *= 2.;
    }
    sum / total
}

/// A picture.
#[derive(Debug, Clone)]
pub(crate) struct Canvas {
    /// Columns.
    pub(crate) width: usize,
    /// Rows.
    pub(crate) height: usize,
    /// Row by row.
    pub(crate) pixels: Vec<Rgb>,
}

impl Canvas {
    /// A picture whose pixel at column x, row y is `colour(x, y)`.
    pub(crate) fn new(width: usize, height: usize, colour: impl Fn(f32, f32) -> Rgb) -> Self {
        let pixels = (0..width * height)
            .map(|i| colour((i % width) as f32 + 0.5, (i / width) as f32 + 0.5))
            .collect();
        Self { width, height, pixels }
    }

    /// Changes each pixel, given its centre.
    pub(crate) fn each(&mut self, mut change: impl FnMut(f32, f32, &mut Rgb)) {
        for (i, pixel) in self.pixels.iter_mut().enumerate() {
            change((i % self.width) as f32 + 0.5, (i / self.width) as f32 + 0.5, pixel);
        }
    }

    /// Three taps along each axis: `side` of each neighbour, the rest of the pixel itself.
    fn blur(&mut self, side: f32) {
        let (w, h) = (self.width, self.height);
        for step in [1, w] {
            let before = self.pixels.clone();
            for (i, pixel) in self.pixels.iter_mut().enumerate() {
                let (at, last) = if step == 1 { (i % w, w - 1) } else { (i / w, h - 1) };
                let back = if at == 0 { i } else { i - step };
                let next = if at == last { i } else { i + step };
                *pixel = std::array::from_fn(|c| {
                    before[i][c] * (1. - 2. * side) + (before[back][c] + before[next][c]) * side
                });
            }
        }
    }

    /// Light and camera: contrast, brightness, colour cast, vignette, blur, sensor noise.
    pub(crate) fn expose(&mut self, stream: &mut Stream) {
        let contrast = stream.between(0.72, 1.2);
        let brightness = stream.between(0.62, 1.18);
        let cast = [(); 3].map(|()| stream.between(0.88, 1.1) * brightness);
        let vignette = stream.between(0., 0.45);
        let (cx, cy) = (stream.between(0.35, 0.65), stream.between(0.35, 0.65));
        let (w, h) = (self.width as f32, self.height as f32);
        self.each(|x, y, pixel| {
            let (dx, dy) = (x / w - cx, y / h - cy);
            let light = 1. - vignette * (dx * dx + dy * dy) * 2.;
            *pixel = std::array::from_fn(|c| ((pixel[c] - 0.5) * contrast + 0.5) * cast[c] * light);
        });
        if stream.chance(0.7) {
            self.blur(stream.between(0.05, 0.25));
        }
        // Grain costs bytes: a JPEG of noise is twice as large.
        let noisy = stream.chance(0.5);
        let grain = if noisy { stream.between(0.004, 0.014) } else { 0.0015 };
        let tint = grain * 0.3;
        self.each(|_, _, pixel| {
            let shared = stream.normal() * grain;
            for x in pixel {
                *x += shared + stream.normal() * tint;
            }
        });
    }

    /// 8 bits a channel.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.pixels.iter().flatten().map(|x| (x.clamp(0., 1.) * 255. + 0.5) as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_go_round_the_colours() {
        assert_eq!(hsv(0., 1., 1.), [1., 0., 0.]);
        assert_eq!(hsv(0.5, 0., 0.25), [0.25; 3]);
        let green = hsv(1. / 3., 1., 0.5);
        assert!((green[1] - 0.5).abs() < 1e-6 && green[0].max(green[2]) < 1e-6, "{green:?}");
    }

    #[test]
    fn noise_meets_its_grid_and_stays_within_0_and_1() {
        assert_eq!(noise(5, 3., -2.), lattice(5, 3, -2));
        for i in 0..500 {
            let x = i as f32 * 0.37 - 80.;
            let v = fractal(9, x, -x * 1.7, 4);
            assert!((0. ..=1.).contains(&v), "{v}");
        }
    }

    #[test]
    fn blur_spreads_a_point_and_keeps_its_light() {
        let mut canvas = Canvas::new(5, 5, |x, y| [f32::from(x == 2.5 && y == 2.5); 3]);
        canvas.blur(0.25);
        assert_eq!(canvas.pixels[12][0], 0.25);
        assert_eq!(canvas.pixels[11][0], 0.125);
        assert_eq!(canvas.pixels[6][0], 0.0625);
        assert_eq!(canvas.pixels.iter().map(|p| p[0]).sum::<f32>(), 1.);
    }
}
