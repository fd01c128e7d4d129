//! Pools.

use detect_kernel::{Fold, Grid, Instructions, Operation, Step};
use proptest::prelude::*;

use crate::maps::{Gaps, Maps, Residual, Target, check, gaps, number, sets, targets};

#[derive(Debug, Clone)]
struct Pool {
    images: usize,
    size: [usize; 2],
    kernel: usize,
    stride: usize,
    fold: Fold,
    vectors: usize,
    source_first: bool,
    source_gaps: Gaps,
    residual: Option<Gaps>,
    targets: Vec<Target>,
    seed: u32,
}

prop_compose! {
    fn pool()(
        (images, size) in (1..3_usize, prop_oneof![
            4 => [1..9_usize, 1..9_usize],
            1 => [1..4_usize, 40..110_usize],
        ]),
        (kernel, stride) in (prop_oneof![Just(3), Just(5), Just(7)], 1..3_usize),
        fold in prop_oneof![
            Just(Fold::Mean(1.)), Just(Fold::Mean(2.)), Just(Fold::Sum(1. / 9.)), Just(Fold::Largest),
        ],
        vectors in 1..4_usize,
        source_first in any::<bool>(),
        (source_gaps, residual) in (gaps(), prop::option::of(gaps())),
        (targets, seed) in (targets(), any::<u32>()),
    ) -> Pool {
        Pool { images, size, kernel, stride, fold, vectors, source_first, source_gaps, residual, targets, seed }
    }
}

impl Pool {
    fn check(&self, set: Instructions) -> Result<(), TestCaseError> {
        let Self { images, size, kernel, stride, fold, seed, .. } = *self;
        let channels = self.vectors * set.lanes();
        let [height, width] = size.map(|n| n.div_ceil(stride));
        let grid = Grid { images, height, width };
        let source = |[image, y, x]: [usize; 3], channel: usize| {
            number(seed, ((image * 251 + y) * 251 + x) * 131 + channel)
        };
        let whole = Grid { images, height: size[0], width: size[1] };
        let mut maps = Maps::default();
        let residual = Residual(self.residual);
        let results = |maps: &mut Maps| {
            (residual.add(maps, grid, channels), maps.outs(&self.targets, grid, channels))
        };
        let (view, (added, outs)) = if self.source_first {
            (maps.filled(whole, channels, self.source_gaps, source), results(&mut maps))
        } else {
            let results = results(&mut maps);
            (maps.filled(whole, channels, self.source_gaps, source), results)
        };
        let step = Step {
            operation: Operation::Pool { source: view, size, stride, kernel, fold },
            grid,
            channels,
            residual: added,
            outs,
        };
        let value = |pixel: [usize; 3], channel: usize| {
            let [image, y, x] = pixel;
            // TensorFlow's SAME, the pixels that exist.
            let span = |at: usize, n: usize| {
                let all = ((n.div_ceil(stride) - 1) * stride + kernel).saturating_sub(n);
                let first = (at * stride) as isize - (all / 2) as isize;
                (first..first + kernel as isize).filter(move |&i| i >= 0 && i < n as isize)
            };
            let columns = || span(x, size[1]);
            let window: Vec<f64> = span(y, size[0])
                .flat_map(|y| columns().map(move |x| (y, x)))
                .map(|(y, x)| f64::from(source([image, y as usize, x as usize], channel)))
                .collect();
            let sum: f64 = window.iter().sum();
            let own = match fold {
                Fold::Mean(factor) => sum / window.len() as f64 * f64::from(factor),
                Fold::Sum(factor) => sum * f64::from(factor),
                Fold::Largest => window.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            };
            (own + f64::from(residual.of(pixel, channel))) as f32
        };
        let expected = maps.after(&step.outs, grid, channels, value);
        // The sums are exact; the factor, the product with it and the residual are each rounded once, and none is above 24.
        let limit = if fold == Fold::Largest { 0. } else { 4. * 24. * f32::EPSILON };
        check(set, &step, &maps.floats, &[], &expected, limit)
    }
}

proptest! {
    #[test]
    fn a_pool_looks_at_the_pixels_that_exist(case in pool()) {
        for set in sets() {
            case.check(set)?;
        }
    }
}
