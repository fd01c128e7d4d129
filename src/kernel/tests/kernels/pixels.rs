//! Copies and norms.

use detect_kernel::{Grid, Operation, Segment, Step};
use proptest::prelude::*;

use crate::maps::{Gaps, Maps, Residual, check, gaps, grids, number, pixels, place, sets, targets};

fn at([image, y, x]: [usize; 3], channel: usize, seed: u32) -> f32 {
    number(seed, ((image * 251 + y) * 251 + x) * 131 + channel)
}

/// `(v - mean) / sqrt(variance + epsilon)` of each channel of an image, or of all of them together.
fn normal(values: &[Vec<f64>], together: bool, epsilon: f64) -> Vec<Vec<f64>> {
    let channels = values[0].len();
    let moments = |of: &dyn Fn(usize) -> bool| {
        let chosen = || {
            values.iter().flat_map(|v| v.iter().enumerate().filter(|(c, _)| of(*c)).map(|(_, v)| v))
        };
        let count = chosen().count() as f64;
        let mean = chosen().sum::<f64>() / count;
        (mean, chosen().map(|v| (v - mean).powi(2)).sum::<f64>() / count)
    };
    let of_channel = |c: usize| moments(&|other| together || other == c);
    let moments: Vec<(f64, f64)> = (0..channels).map(of_channel).collect();
    let one = |v: &Vec<f64>| {
        v.iter().zip(&moments).map(|(v, (mean, var))| (v - mean) / (var + epsilon).sqrt()).collect()
    };
    values.iter().map(one).collect()
}

proptest! {
    #[test]
    fn a_copy_takes_its_segments(
        grid in grids(),
        runs in prop::collection::vec((0..4_usize, 1..30_usize), 1..4),
        beyond in 0..9_usize,
        (given, source_first) in any::<(bool, bool)>(),
        (source_gaps, residual) in (gaps(), prop::option::of(gaps())),
        (targets, seed) in (targets(), any::<u32>()),
    ) {
        let mut end = 0;
        let mut segments = Vec::new();
        for (gap, length) in runs {
            segments.push(Segment { offset: end + gap, length });
            end += gap + length;
        }
        let places: Vec<usize> = segments.iter().flat_map(|s| s.offset..s.offset + s.length).collect();
        let channels = places.len() + beyond;
        let (mut maps, mut apart) = (Maps::default(), Maps::default());
        let lay_out = |maps: &mut Maps, gaps: Gaps| {
            let view = maps.add(grid, end, 0, gaps);
            for pixel in pixels(grid) {
                for (channel, offset) in places.iter().enumerate() {
                    maps.floats[place(&view, pixel) + offset] = at(pixel, channel, seed);
                }
            }
            view
        };
        let residual = Residual(residual);
        let results = |maps: &mut Maps| {
            (residual.add(maps, grid, channels), maps.outs(&targets, grid, channels))
        };
        let (source, (added, outs)) = match (given, source_first) {
            (true, _) => (lay_out(&mut apart, source_gaps), results(&mut maps)),
            (false, true) => (lay_out(&mut maps, source_gaps), results(&mut maps)),
            (false, false) => {
                let results = results(&mut maps);
                (lay_out(&mut maps, source_gaps), results)
            }
        };
        let operation = Operation::Copy { given, source, segments };
        let step = Step { operation, grid, channels, residual: added, outs };
        let value = |pixel: [usize; 3], channel: usize| {
            // Beyond the segments are zeros, whatever the residual has there.
            let there = channel < places.len();
            if there { at(pixel, channel, seed) + residual.of(pixel, channel) } else { 0. }
        };
        let expected = maps.after(&step.outs, grid, channels, value);
        for set in sets() {
            check(set, &step, &maps.floats, &apart.floats, &expected, 0.)?;
        }
    }

    #[test]
    fn a_norm_is_over_each_image(
        grid in grids(),
        (real, beyond) in (1..20_usize, 0..5_usize),
        together in any::<bool>(),
        epsilon in prop_oneof![Just(1e-12_f32), Just(1e-6), Just(1e-3)],
        source_first in any::<bool>(),
        source_gaps in gaps(),
        (targets, seed) in (targets(), any::<u32>()),
    ) {
        let channels = real + beyond;
        let mut maps = Maps::default();
        let source = |pixel: [usize; 3], channel: usize| at(pixel, channel, seed);
        let (view, outs) = if source_first {
            (maps.filled(grid, channels, source_gaps, source), maps.outs(&targets, grid, channels))
        } else {
            let outs = maps.outs(&targets, grid, channels);
            (maps.filled(grid, channels, source_gaps, source), outs)
        };
        let list = |seed: u32| (0..real).map(|c| number(seed, c)).collect::<Vec<_>>();
        let (scale, offset) = (list(seed ^ 3), list(seed ^ 4));
        let operation = Operation::Norm {
            source: view, together, epsilon, scale: scale.clone(), offset: offset.clone(),
        };
        let step = Step { operation, grid, channels, residual: None, outs };
        let normals: Vec<Vec<Vec<f64>>> = (0..grid.images).map(|image| {
            let of_image = pixels(Grid { images: 1, ..grid });
            let values: Vec<Vec<f64>> = of_image
                .map(|[_, y, x]| (0..real).map(|c| f64::from(source([image, y, x], c))).collect())
                .collect();
            normal(&values, together, f64::from(epsilon))
        }).collect();
        let value = |[image, y, x]: [usize; 3], channel: usize| {
            let Some(&scale) = scale.get(channel) else { return 0. };
            let normal = normals[image][y * grid.width + x][channel];
            (normal * f64::from(scale) + f64::from(offset[channel])) as f32
        };
        let expected = maps.after(&step.outs, grid, channels, value);
        // Computed in f64 on both sides, whose sums of whole numbers are exact: what differs is one rounding of numbers
        // of at most 3 times the root of the number of values.
        let values = grid.height * grid.width * if together { real } else { 1 };
        let limit = 2. * f32::EPSILON * (3. + 3. * (values as f32).sqrt());
        for set in sets() {
            check(set, &step, &maps.floats, &[], &expected, limit)?;
        }
    }
}
