//! Which processes take their batches as one in the batch norms of a step; [`super::BatchNorm`] has the formulas.
//!
//! As with libtorch's autocast it is a setting of the thread: a network has hundreds of norms, and one does not know
//! of the step that it is in.

use std::cell::Cell;

use crate::ranks::Group;

/// Whose batches count as one.
#[derive(Debug, Clone, Copy)]
pub struct Shared {
    /// They.
    pub(crate) group: Group,
    /// Whether this one has a batch.
    pub(crate) takes_part: bool,
}

impl Shared {
    /// What the numbers of this process are multiplied by in what is summed.
    pub(super) fn share(self) -> f64 {
        f64::from(u8::from(self.takes_part))
    }
}

thread_local! {
    static SHARED: Cell<Shared> = const { Cell::new(Shared { group: Group::ALONE, takes_part: true }) };
}

/// Who shares the batch that this thread is at.
pub(crate) fn current() -> Shared {
    SHARED.get()
}

/// Calls `f`, a forward and a backward pass, whose synchronised norms take the batches of all of `group` as one. A
/// process that has none `takes_part` with no weight: the others wait for it.
pub fn within<T>(group: Group, takes_part: bool, f: impl FnOnce() -> T) -> T {
    /// Sets back what was, also where `f` panics.
    struct Before(Shared);
    impl Drop for Before {
        fn drop(&mut self) {
            SHARED.set(self.0);
        }
    }
    let _before = Before(SHARED.replace(Shared { group, takes_part }));
    f()
}

/// Calls `f`, by which this process takes part in the norms of the others with nothing of its own: `None`, and no call,
/// where there are no others.
pub fn beside<T>(f: impl FnOnce() -> T) -> Option<T> {
    let group = current().group;
    (group.share().count > 1).then(|| within(group, false, f))
}

#[cfg(test)]
mod tests {
    use detect::config::NormMode;
    use tch::nn::VarStore;
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::nn::{BatchNorm, Mode, NormSettings};
    use crate::ranks::threads::Threads;

    const CHANNELS: i64 = 3;

    /// What a norm makes of `xs`, and the gradients of the sum of that times `by`: of `xs`, of scale and offset; and
    /// the running statistics.
    fn normalised(xs: &Tensor, by: &Tensor, mode: NormMode, again: bool) -> Vec<Tensor> {
        let store = VarStore::new(Device::Cpu);
        let names = ["w", "b", "m", "v"].map(str::to_owned);
        let settings = NormSettings { eps: 1e-3, momentum: 0.25, mode };
        let norm = BatchNorm::new(&store.root(), &names, CHANNELS as usize, settings);
        let variables = store.variables();
        tch::no_grad(|| {
            variables["w"].shallow_clone().copy_(&Tensor::from_slice(&[1_f32, -2., 0.5]));
            variables["b"].shallow_clone().copy_(&Tensor::from_slice(&[0_f32, 3., -1.]));
        });
        let xs = xs.detach().set_requires_grad(true);
        let train = Mode::Train { progress: 0. };
        let ys = norm.forward(&xs, if again { train.again() } else { train });
        (&ys * by).sum(None::<Kind>).backward();
        let gradients = [xs.grad(), variables["w"].grad(), variables["b"].grad()];
        let statistics = [variables["m"].detach(), variables["v"].detach()];
        [ys.detach()].into_iter().chain(gradients).chain(statistics).collect()
    }

    #[test]
    fn processes_of_unlike_batches_have_the_norm_of_one() {
        let _alone = crate::nn::alone();
        tch::manual_seed(4);
        let draw = || Tensor::randn([5, CHANNELS, 4, 3], (Kind::Float, Device::Cpu));
        // Far from 0: what is subtracted matters.
        let (xs, by) = (draw() * 2. + 7., draw() * draw());
        for again in [false, true] {
            // libtorch's own.
            let whole = normalised(&xs, &by, NormMode::Live, again);
            // Of 1, of 4 and of 0 images, and one that only takes part.
            let parts = [(0, 1, true), (1, 4, true), (0, 0, true), (2, 2, false)];
            let group = Threads::group(parts.len());
            let part = |&(from, images, has): &(i64, i64, bool)| {
                let by = by.narrow(0, from, images) * f64::from(u8::from(has));
                (xs.narrow(0, from, images), by, has)
            };
            let given: Vec<_> = parts.iter().map(part).collect();
            let ranks = group.ranks;
            let found = group.each(given, |_, (xs, by, has)| {
                let mode = NormMode::Synchronised;
                within(ranks, has, || normalised(&xs, &by, mode, again))
            });
            let close = |name: &str, expected: &Tensor, found: &Tensor| {
                let most = expected.abs().max().double_value(&[]);
                let far = (expected - found).abs().max().double_value(&[]);
                assert!(far <= 1e-5 * most, "{name}, again {again}: {far} of {most}");
            };
            for (i, name) in ["output", "gradient"].iter().enumerate() {
                let all: Vec<_> = found[..3].iter().map(|of| &of[i]).collect();
                close(name, &whole[i], &Tensor::cat(&all, 0));
            }
            for (i, name) in [(2, "scale"), (3, "offset")] {
                let all: Vec<_> = found.iter().map(|of| &of[i]).collect();
                close(
                    name,
                    &whole[i],
                    &Tensor::stack(&all, 0).sum_dim_intlist([0_i64].as_slice(), false, None),
                );
            }
            for (i, name) in [(4, "running mean"), (5, "running variance")] {
                for of in &found {
                    close(name, &whole[i], &of[i]);
                }
                assert!(found.iter().all(|of| of[i].equal(&found[0][i])), "alike to the bit");
            }
        }
    }

    #[test]
    fn one_process_has_a_live_norm() {
        let _alone = crate::nn::alone();
        tch::manual_seed(4);
        let xs = Tensor::randn([2, CHANNELS, 4, 3], (Kind::Float, Device::Cpu));
        let live = normalised(&xs, &(&xs * &xs), NormMode::Live, false);
        let one = normalised(&xs, &(&xs * &xs), NormMode::Synchronised, false);
        for (a, b) in live.iter().zip(&one) {
            let most = a.abs().max().double_value(&[]);
            assert!((a - b).abs().max().double_value(&[]) < 1e-5 * most, "{a:?} {b:?}");
        }
    }
}
