//! The things that are to be found: eight classes, each a function from a point of the square
//! `[-1, 1] x [-1, 1]` (v down) to a colour, or to nothing outside the thing.

use crate::canvas::{Rgb, fractal, hsv, mix, scaled, smooth};
use crate::stream::Stream;

type Point = [f32; 2];

/// A class of things.
#[derive(Debug)]
pub(crate) struct Class {
    /// COCO's category id: with gaps, as COCO's own are.
    pub(crate) id: u32,
    /// What it is.
    pub(crate) name: &'static str,
    /// COCO's grouping.
    pub(crate) group: &'static str,
    /// It is turned by at most this, in radians.
    pub(crate) tilt: f32,
    /// Common hues, in turns; half of the things take one of them.
    hues: &'static [f32],
    paint: fn(&Look, Point) -> Option<Rgb>,
}

const ANY: f32 = std::f32::consts::PI;

/// The classes, by id.
pub(crate) const CLASSES: [Class; 8] = [
    Class { id: 1, name: "star", group: "sign", tilt: ANY, hues: &[0.13, 0.0], paint: star },
    Class { id: 2, name: "ring", group: "sign", tilt: ANY, hues: &[0.12, 0.02], paint: ring },
    Class { id: 3, name: "arrow", group: "sign", tilt: ANY, hues: &[0.0, 0.6], paint: arrow },
    Class { id: 5, name: "mug", group: "household", tilt: 0.5, hues: &[0.6, 0.05], paint: mug },
    Class { id: 6, name: "key", group: "household", tilt: ANY, hues: &[0.13, 0.6], paint: key },
    Class {
        id: 8,
        name: "leaf",
        group: "nature",
        tilt: ANY,
        hues: &[0.3, 0.24, 0.07],
        paint: leaf,
    },
    Class { id: 9, name: "fish", group: "nature", tilt: 0.6, hues: &[0.06, 0.55], paint: fish },
    Class { id: 11, name: "house", group: "building", tilt: 0.3, hues: &[0.04, 0.1], paint: house },
];

/// How one thing looks.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    main: Rgb,
    second: Rgb,
    dark: Rgb,
    pale: Rgb,
    /// Width of the dark rim, 0 for none.
    rim: f32,
    /// Proportions and patterns, 0 to 1; what each means is the class's affair.
    vary: [f32; 3],
    grain: f32,
    grain_seed: u32,
    light: Point,
    mirrored: bool,
}

impl Look {
    /// Colours and proportions for a thing of `class`.
    pub(crate) fn draw(stream: &mut Stream, class: &Class) -> Self {
        let usual = class.hues[stream.below(class.hues.len())] + stream.between(-0.04, 0.04);
        let any = stream.unit();
        let hue = if stream.chance(0.5) { usual } else { any };
        let saturation = if stream.chance(0.15) { 0.06 } else { stream.between(0.45, 0.95) };
        let main = hsv(hue, saturation, stream.between(0.45, 1.));
        let apart = hue + stream.between(0.15, 0.85);
        let second = match stream.below(3) {
            0 => hsv(apart, stream.between(0.5, 0.95), stream.between(0.4, 0.95)),
            1 => hsv(hue, 0.12, 0.95),
            _ => scaled(main, 0.5),
        };
        Self {
            main,
            second,
            dark: scaled(main, stream.between(0.15, 0.4)),
            pale: mix(main, [1.; 3], 0.75),
            rim: if stream.chance(0.6) { stream.between(0.04, 0.09) } else { 0. },
            vary: [(); 3].map(|()| stream.unit()),
            grain: stream.between(0., 0.3),
            grain_seed: stream.bits(),
            light: stream.direction(ANY),
            mirrored: stream.chance(0.5),
        }
    }

    /// The colour at a point, shading and grain included; `None` outside the thing.
    pub(crate) fn at(&self, class: &Class, [u, v]: Point) -> Option<Rgb> {
        let u = if self.mirrored { -u } else { u };
        let colour = (class.paint)(self, [u, v])?;
        let shade = 1. + 0.2 * (self.light[0] * u + self.light[1] * v);
        let grain = 1. + self.grain * (fractal(self.grain_seed, u * 5., v * 5., 3) - 0.5);
        Some(scaled(colour, shade * grain))
    }

    /// Dark within the rim of a shape with signed distance `d` (negative inside), else `colour`.
    fn rimmed(&self, d: f32, colour: Rgb) -> Option<Rgb> {
        if d > 0. {
            None
        } else if d > -self.rim {
            Some(self.dark)
        } else {
            Some(colour)
        }
    }
}

/// Signed distance to a rectangle.
fn rectangle([u, v]: Point, [cu, cv]: Point, [hu, hv]: Point) -> f32 {
    let (a, b) = ((u - cu).abs() - hu, (v - cv).abs() - hv);
    let (outside_a, outside_b) = (a.max(0.), b.max(0.));
    (outside_a * outside_a + outside_b * outside_b).sqrt() + a.max(b).min(0.)
}

/// Signed distance to a disc.
fn disc([u, v]: Point, [cu, cv]: Point, radius: f32) -> f32 {
    ((u - cu) * (u - cu) + (v - cv) * (v - cv)).sqrt() - radius
}

/// About the signed distance to an upright ellipse: right at the edge, close near it.
fn ellipse([u, v]: Point, [cu, cv]: Point, [ru, rv]: Point) -> f32 {
    let (a, b) = ((u - cu) / ru, (v - cv) / rv);
    ((a * a + b * b).sqrt() - 1.) * ru.min(rv)
}

/// Signed distance to a polygon.
pub(crate) fn polygon([u, v]: Point, corners: &[Point]) -> f32 {
    let mut nearest = f32::MAX;
    let mut inside = false;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        let (eu, ev) = (to[0] - from[0], to[1] - from[1]);
        let (du, dv) = (u - from[0], v - from[1]);
        let t = ((du * eu + dv * ev) / (eu * eu + ev * ev)).clamp(0., 1.);
        let (ru, rv) = (du - eu * t, dv - ev * t);
        nearest = nearest.min(ru * ru + rv * rv);
        if (from[1] > v) != (to[1] > v) && du < eu * dv / ev {
            inside = !inside;
        }
        from = to;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

/// The place within a period, 0 to 1.
fn phase(x: f32) -> f32 {
    x - x.floor()
}

/// The five directions of a star's points, the first upwards.
const POINTS: [Point; 5] = [
    [0., -1.],
    [0.951_056_5, -0.309_017],
    [0.587_785_3, 0.809_017],
    [-0.587_785_3, 0.809_017],
    [-0.951_056_5, -0.309_017],
];

/// Five points, with facets or with a disc in the middle.
fn star(look: &Look, p: Point) -> Option<Rgb> {
    let inner = 0.4 + 0.12 * look.vary[0];
    let corners: [Point; 10] = std::array::from_fn(|i| {
        // A hollow lies opposite to a point.
        let hollow = POINTS[(i / 2 + 3) % 5];
        if i % 2 == 0 { POINTS[i / 2] } else { [-hollow[0] * inner, -hollow[1] * inner] }
    });
    let d = polygon(p, &corners);
    let along = |q: &Point| q[0] * p[0] + q[1] * p[1];
    let arm = POINTS.iter().max_by(|a, b| along(a).total_cmp(&along(b))).expect("five points");
    let left = arm[0] * p[1] - arm[1] * p[0] < 0.;
    let facet = scaled(look.main, if left { 1.08 } else { 0.72 });
    let colour = if look.vary[1] < 0.5 {
        facet
    } else if disc(p, [0., 0.], 0.28) < 0. {
        look.second
    } else {
        look.main
    };
    look.rimmed(d, colour)
}

/// A band round a hole, bevelled; half of them have four patches, as a lifebuoy has.
fn ring(look: &Look, p: Point) -> Option<Rgb> {
    let hole = 0.48 + 0.2 * look.vary[0];
    let radius = disc(p, [0., 0.], 0.);
    let d = (radius - 1.).max(hole - radius);
    let across = 2. * (radius - hole) / (1. - hole) - 1.;
    let towards = (p[0] * look.light[0] + p[1] * look.light[1]) / radius.max(1e-3);
    let bevel = 1. + 0.35 * across * towards - 0.25 * across * across;
    let patch = look.vary[1] < 0.5 && p[0].abs().min(p[1].abs()) < 0.26;
    look.rimmed(d, scaled(if patch { look.second } else { look.main }, bevel))
}

/// A block arrow to the right, its shaft with chevrons or a bar along it.
fn arrow(look: &Look, p: Point) -> Option<Rgb> {
    let shaft = 0.18 + 0.1 * look.vary[0];
    let neck = 0.05 + 0.2 * look.vary[1];
    let d = polygon(
        p,
        &[
            [1., 0.],
            [neck, 0.68],
            [neck, shaft],
            [-1., shaft],
            [-1., -shaft],
            [neck, -shaft],
            [neck, -0.68],
        ],
    );
    let chevron = p[0] < neck && phase((p[0] + p[1].abs()) * 2.4) < 0.4;
    let bar = p[1].abs() < 0.08;
    let marked = if look.vary[2] < 0.6 { chevron } else { bar };
    look.rimmed(d, if marked { look.second } else { look.main })
}

/// A mug: body with a band, dark mouth, handle on the right.
fn mug(look: &Look, p: Point) -> Option<Rgb> {
    let [u, v] = p;
    let (middle, half) = (-0.18, 0.6 - 0.06 * (v + 0.7) * look.vary[0]);
    let body = rectangle(p, [middle, 0.05], [half - 0.1, 0.75]) - 0.1;
    let mouth = ellipse(p, [middle, -0.72], [0.6, 0.2]);
    let around = disc(p, [0.4, 0.08], 0.);
    let handle = (around - 0.52).max(0.3 - around).max(0.35 - u);
    if mouth < 0. {
        let inside = ellipse(p, [middle, -0.72], [0.5, 0.13]);
        return Some(if inside < 0. { look.dark } else { look.pale });
    }
    let bulge = (u - middle) / half;
    let lit = 1.05 - 0.4 * (bulge - 0.35 * look.light[0]) * (bulge - 0.35 * look.light[0]);
    let band = match (look.vary[1] * 3.) as u32 {
        0 => (v - 0.2).abs() < 0.17,
        1 => phase(u * 2.6) < 0.35,
        _ => disc(p, [middle, 0.15], 0.26) < 0.,
    };
    if body < 0. && v > -0.75 {
        look.rimmed(body, scaled(if band { look.second } else { look.main }, lit))
    } else {
        look.rimmed(handle, scaled(look.main, 0.85))
    }
}

/// A door key: bow with a hole, shaft, two or three teeth.
fn key(look: &Look, p: Point) -> Option<Rgb> {
    let [u, v] = p;
    let hole = 0.16 + 0.06 * look.vary[0];
    let bow = if look.vary[1] < 0.5 {
        disc(p, [-0.56, 0.], 0.44)
    } else {
        rectangle(p, [-0.56, 0.], [0.3, 0.3]) - 0.13
    };
    let shaft = rectangle(p, [0.3, 0.], [0.7, 0.12]);
    let mut d = bow.min(shaft);
    d = d.min(rectangle(p, [0.86, 0.22], [0.1, 0.22])).min(rectangle(p, [0.56, 0.2], [0.09, 0.18]));
    if look.vary[2] < 0.5 {
        d = d.min(rectangle(p, [0.3, 0.18], [0.07, 0.12]));
    }
    d = d.max(-disc(p, [-0.62, 0.], hole));
    let groove = (v + 0.02).abs() < 0.035 && u > -0.1;
    let plate = bow < -0.12 && bow > -0.18;
    let glint = 1.12 - 0.5 * smooth(-0.4, 0.4, v);
    look.rimmed(d, if groove || plate { look.dark } else { scaled(look.main, glint) })
}

/// A leaf with its stem on the left, a midrib and slanting veins.
fn leaf(look: &Look, p: Point) -> Option<Rgb> {
    let [u, v] = p;
    let along = (u + 0.7) / 1.7;
    let stem = rectangle(p, [-0.82, 0.], [0.18, 0.05]);
    let width = 0.44 + 0.14 * look.vary[0];
    let teeth = if look.vary[1] < 0.5 { 1. - 0.12 * phase(-along * 9.) } else { 1. };
    let edge = width * 4. * along * (1. - along) * (1.35 - 0.7 * along) * teeth;
    if !(0. ..1.).contains(&along) || v.abs() > edge {
        return (stem < 0.).then_some(look.dark);
    }
    let rib = v.abs() < 0.05 * (1.1 - along);
    let vein = phase((along * 1.7 - v.abs() * 0.8) * 4.) < 0.16;
    let colour = if rib || vein {
        if look.vary[2] < 0.5 { look.pale } else { look.dark }
    } else {
        scaled(look.main, if v > 0. { 0.85 } else { 1.05 })
    };
    look.rimmed((v.abs() - edge) * 0.8, colour)
}

/// A fish that looks to the left: eye, gill, fins, tail, and bands or scales.
fn fish(look: &Look, p: Point) -> Option<Rgb> {
    let [u, v] = p;
    let belly = 0.38 + 0.12 * look.vary[0];
    let body = ellipse(p, [-0.25, 0.], [0.75, belly]);
    let tail = polygon(p, &[[0.35, 0.], [1., -0.48], [0.84, 0.], [1., 0.48]]);
    let top = polygon(p, &[[-0.45, -belly * 0.8], [0., -belly - 0.24], [0.28, -belly * 0.6]]);
    let bottom = polygon(p, &[[-0.2, belly * 0.85], [0.12, belly + 0.2], [0.12, belly * 0.7]]);
    if body > 0. {
        let fins = tail.min(top).min(bottom);
        let rays = if phase((u * 0.6 + v) * 7.) < 0.35 { 0.7 } else { 1. };
        return look.rimmed(fins, scaled(look.second, rays));
    }
    let eye = disc(p, [-0.68, -0.1], 0.);
    if eye < 0.12 {
        return Some(if eye < 0.06 { [0.05; 3] } else { [0.95; 3] });
    }
    let gill = disc(p, [-0.75, 0.02], 0.34).abs() < 0.035;
    let pattern = u > -0.35
        && match (look.vary[1] * 3.) as u32 {
            0 => phase(u * 3. + 0.3 * v * v) < 0.4,
            1 => disc([phase(u * 5.), phase(v * 5.)], [0.5, 0.5], 0.3).abs() < 0.1,
            _ => (v + 0.02).abs() < 0.09,
        };
    let colour = if gill {
        look.dark
    } else if pattern {
        look.second
    } else {
        mix(look.main, look.pale, smooth(-0.1, 0.5, v))
    };
    look.rimmed(body, colour)
}

/// A house: wall, roof, chimney, door and windows with bars.
fn house(look: &Look, p: Point) -> Option<Rgb> {
    let [u, v] = p;
    let peak = -0.8 - 0.2 * look.vary[0];
    let roof = polygon(p, &[[-1., -0.1], [0., peak], [1., -0.1]]);
    if roof < 0. {
        let tiles = if phase(v * 7.) < 0.25 { 0.75 } else { 1. };
        return look.rimmed(roof, scaled(look.second, tiles));
    }
    let chimney = rectangle(p, [0.5, -0.55], [0.13, 0.35]);
    if chimney < 0. && v < -0.1 {
        return look.rimmed(chimney, scaled(look.main, 0.7));
    }
    let wall = rectangle(p, [0., 0.42], [0.8, 0.53]);
    let side = if look.vary[1] < 0.5 { 0. } else { 0.45 };
    let door = rectangle(p, [side, 0.62], [0.17, 0.33]);
    if door < 0. {
        return Some(if disc(p, [side + 0.09, 0.65], 0.04) < 0. { look.pale } else { look.dark });
    }
    let windows: &[f32] = if side == 0. { &[-0.48, 0.48] } else { &[-0.42] };
    for &at in windows {
        let pane = rectangle(p, [at, 0.3], [0.18, 0.18]);
        if pane < 0. {
            let bar = (u - at).abs().min((v - 0.3).abs()) < 0.035;
            return Some(if bar || pane > -0.03 { look.dark } else { [0.8, 0.9, 0.95] });
        }
    }
    let course = (v * 6.).floor();
    let joint = phase(v * 6.) < 0.14 || phase(u * 3. + course * 0.5) < 0.07;
    let brick = look.vary[2] < 0.5 && joint;
    look.rimmed(wall, scaled(look.main, if brick { 0.72 } else { 1. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_negative_inside_and_exact() {
        assert_eq!(rectangle([0., 0.], [0., 0.], [2., 1.]), -1.);
        assert_eq!(rectangle([5., 5.], [0., 0.], [2., 1.]), 5.);
        assert_eq!(disc([3., 4.], [0., 0.], 1.), 4.);
        let square = [[0., 0.], [2., 0.], [2., 2.], [0., 2.]];
        assert_eq!(polygon([1., 0.5], &square), -0.5);
        assert_eq!(polygon([5., 6.], &square), 5.);
    }

    #[test]
    fn every_thing_fills_its_square_and_no_more_of_it() {
        const N: usize = 60;
        for class in &CLASSES {
            for index in 0..20 {
                let look = Look::draw(&mut Stream::new(4, 0, index), class);
                let (mut filled, mut left, mut right) = (0, N, 0);
                for i in 0..N * N {
                    let (x, y) = (i % N, i / N);
                    let at = |k: usize| (k as f32 + 0.5) / N as f32 * 2. - 1.;
                    if look.at(class, [at(x), at(y)]).is_some() {
                        (filled, left, right) = (filled + 1, left.min(x), right.max(x));
                    }
                }
                // A key is thin, a house nearly full; each reaches over most of the width.
                let share = filled as f32 / (N * N) as f32;
                assert!((0.15..0.8).contains(&share), "{} {share}", class.name);
                assert!(right - left > N * 4 / 5, "{} {left} {right}", class.name);
            }
        }
    }
}
