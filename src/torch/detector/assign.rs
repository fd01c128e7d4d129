//! What both families share in deciding which region learns what: thresholds, and balanced sampling.

use tch::{Device, Kind, Tensor};

use super::ahead::{self, Held};
use super::boxes::upload;
use super::rpn::Unread;

/// A region under the lower threshold.
pub const BELOW: i64 = -1;
/// A region between the two thresholds: it is not used.
pub const BETWEEN: i64 = -2;

/// Which IoU makes a region positive or negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// IoU from which a region is positive.
    pub positive: f64,
    /// IoU under which it is negative.
    pub negative: f64,
}

/// For each region the ground truth it overlaps most, or [`BELOW`] or [`BETWEEN`].
///
/// # Shapes
/// IoU `[G, A]`, `G > 0`, to `[A]` int64.
pub fn match_regions(iou: &Tensor, thresholds: Thresholds) -> Tensor {
    let Thresholds { positive, negative } = thresholds;
    let (best, ground_truth) = iou.max_dim(0, false); // [A]
    ground_truth
        .masked_fill(&best.lt(negative), BELOW)
        .masked_fill(&best.ge(negative).logical_and(&best.lt(positive)), BETWEEN)
}

/// What `matches` `[A]` of anchors mean: labels `[A]` f32 (1 object, 0 background, -1 unused) and the
/// index of the ground truth `[A]`, 0 where there is none.
pub fn objectness(matches: &Tensor) -> (Tensor, Tensor) {
    let labels = matches
        .ge(0)
        .to_kind(Kind::Float)
        .masked_fill(&matches.eq(BELOW), 0.)
        .masked_fill(&matches.eq(BETWEEN), -1.);
    (labels, matches.clamp_min(0))
}

/// What a region `[R]` is: the class (0 background) of the ground truth that it overlaps most, if by
/// `threshold` or more, and the index of that truth.
///
/// # Shapes
/// IoU `[G, R]` and `gt_labels` `[G]`, `G > 0`, to `[R]` twice.
pub fn classes(iou: &Tensor, gt_labels: &Tensor, threshold: f64) -> (Tensor, Tensor) {
    let thresholds = Thresholds { positive: threshold, negative: threshold };
    let matches = match_regions(iou, thresholds);
    let ground_truth = matches.clamp_min(0);
    let labels = gt_labels.index_select(0, &ground_truth).masked_fill(&matches.eq(BELOW), 0);
    (labels, ground_truth)
}

/// How many are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// At most, of an image; negatives fill what positives leave.
    pub count: i64,
    /// Positives among them, at most.
    pub positives: i64,
}

impl Quota {
    /// `count` regions, of which the share `fraction` may be positive.
    pub fn new(count: usize, fraction: f64) -> Self {
        Self { count: count as i64, positives: (count as f64 * fraction) as i64 }
    }
}

/// Where the draws of a batch come from.
#[derive(Debug, Clone, Copy)]
pub enum Draws<'a> {
    /// libtorch's generator goes on, as torchvision draws: two permutations, first of the positives. How many there
    /// are decides what is drawn.
    GoOn,
    /// A random order of all that there could be, of a seed for each image: the first of them are taken. An image's
    /// draws hang neither on the batch it is in nor on how many are positive, so that nobody has to know that.
    Seeds(&'a [i64]),
}

/// What is drawn.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Anchors,
    Regions,
}

/// Regions among which an image's samples are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Proposals that an image can have.
    pub most: i64,
    /// Those that it has.
    pub proposals: i64,
    /// Ground truths, which come after them.
    pub truths: i64,
}

impl Draws<'_> {
    /// Draws anchors of `image`: the positives and the negatives, each rising.
    ///
    /// # Shapes
    /// `labels` `[A]` on the CPU: positive from 1 on, 0 negative, below 0 unused.
    pub fn anchors(self, image: usize, labels: &Tensor, quota: Quota) -> (Tensor, Tensor) {
        let Self::Seeds(seeds) = self else { return sample(labels, quota) };
        let order = shuffled(seeds[image], Stage::Anchors, labels.size()[0]);
        let picked = picked(&order, labels, quota, |taken| taken.nonzero().squeeze_dim(1));
        let positive = labels.index_select(0, &picked).ge(1);
        (picked.masked_select(&positive), picked.masked_select(&positive.logical_not()))
    }

    /// Draws regions of `image`: their indices, rising.
    ///
    /// Where proposals are [`Unread`], so is what is drawn: as many rows as there are if everything is as it mostly is,
    /// and whether it was. Else their device is waited for.
    ///
    /// # Shapes
    /// `labels` `[R]` as for [`Self::anchors`], of the proposals and then the truths of `places`.
    ///
    /// # Panics
    /// If proposals are unread, and libtorch's generator goes on: what it draws hangs on what is read.
    pub fn regions(
        self,
        image: usize,
        labels: &Tensor,
        quota: Quota,
        places: Places,
        unread: Option<&Unread>,
    ) -> (Tensor, Held) {
        let all = quota.count.min(places.most + places.truths);
        let as_many = |picked: Tensor| {
            let held = Held::Known(picked.size()[0] == all);
            (picked, held)
        };
        let Self::Seeds(seeds) = self else {
            assert!(unread.is_none(), "torchvision's draws hang on what is read");
            let (positive, negative) = sample(labels, quota);
            return as_many(Tensor::cat(&[positive, negative], 0).sort(0, false).0);
        };
        let order = order_of(seeds[image], places, labels.device());
        let Some(Unread { real, settled }) = unread else {
            return as_many(picked(&order, labels, quota, |taken| taken.nonzero().squeeze_dim(1)));
        };
        let proposals = labels.narrow(0, 0, places.proposals).masked_fill(&real.logical_not(), -1);
        let truths = labels.narrow(0, places.proposals, places.truths);
        let labels = Tensor::cat(&[proposals, truths], 0);
        let mut held = settled.shallow_clone();
        let picked = picked(&order, &labels, quota, |taken| {
            held = held.logical_and(&taken.sum(Kind::Int64).eq(all));
            ahead::first(taken, all)
        });
        (picked, Held::Told(held))
    }
}

/// A random order of `count`: a permutation `[count]` on the CPU.
fn shuffled(seed: i64, stage: Stage, count: i64) -> Tensor {
    // Neighbours in seeds and stages have nothing in common: libtorch mixes seeds itself.
    tch::manual_seed(seed.wrapping_mul(2).wrapping_add(stage as i64));
    Tensor::randperm(count, (Kind::Int64, Device::Cpu))
}

/// A random order of the regions that there are, which is the one of all that there could be without the others.
fn order_of(seed: i64, places: Places, device: Device) -> Tensor {
    let Places { most, proposals, truths } = places;
    let most = most.max(proposals);
    let all = shuffled(seed, Stage::Regions, most + truths);
    let missing = most - proposals;
    if missing == 0 {
        return upload(&all, device);
    }
    let there = all.masked_select(&all.lt(proposals).logical_or(&all.ge(most)));
    upload(&there.where_self(&there.lt(most), &(&there - missing)), device)
}

/// The indices that are drawn from `labels` in `order`, rising; `listed` gives the places of what is true.
fn picked(
    order: &Tensor,
    labels: &Tensor,
    quota: Quota,
    listed: impl FnOnce(&Tensor) -> Tensor,
) -> Tensor {
    let taken = taken(&labels.index_select(0, order), quota);
    order.index_select(0, &listed(&taken)).sort(0, false).0
}

/// Which of `labels` `[A]` are taken: the first positives, and then the first negatives. `[A]` bool.
fn taken(labels: &Tensor, quota: Quota) -> Tensor {
    let number = |of: &Tensor| of.cumsum(0, Kind::Int64); // counted from 1
    let (positive, negative) = (labels.ge(1), labels.eq(0));
    let positive = number(&positive).le(quota.positives).logical_and(&positive);
    let room: Tensor = quota.count - positive.sum(Kind::Int64);
    let negative = number(&negative).le_tensor(&room).logical_and(&negative);
    positive.logical_or(&negative)
}

/// Draws at most `count` regions as torchvision does; negatives fill what positives leave.
///
/// Two permutations are drawn from libtorch's generator, first of the positives. Gives the indices of
/// the positives and of the negatives, each rising, on the device of `labels`, which is waited for.
///
/// # Shapes
/// `labels` `[A]`: positive from 1 on, 0 negative, below 0 unused.
pub fn sample(labels: &Tensor, quota: Quota) -> (Tensor, Tensor) {
    let device = labels.device();
    let labels = labels.to_device(Device::Cpu);
    let indices = |mask: Tensor| mask.nonzero().squeeze_dim(1);
    let (positive, negative) = (indices(labels.ge(1)), indices(labels.eq(0)));
    let (of_positive, of_negative) = (positive.size()[0], negative.size()[0]);
    let positives = of_positive.min(quota.positives);
    let negatives = of_negative.min(quota.count - positives);
    let draw = |from: &Tensor, of: i64, n: i64| {
        let picked = Tensor::randperm(of, (Kind::Int64, Device::Cpu)).narrow(0, 0, n);
        upload(&from.index_select(0, &picked).sort(0, false).0, device)
    };
    (draw(&positive, of_positive, positives), draw(&negative, of_negative, negatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { count: 12, positives: 5 };

    fn numbers(xs: &Tensor) -> Vec<i64> {
        Vec::try_from(xs).unwrap()
    }

    /// Of 40: which are positive, negative, unused.
    fn labels(positive: usize, negative: usize) -> Tensor {
        let label = |i: usize| match (i * 7) % 40 {
            k if k < positive => 3_i64,
            k if k < positive + negative => 0,
            _ => -1,
        };
        Tensor::from_slice(&(0..40).map(label).collect::<Vec<_>>())
    }

    #[test]
    fn draws_obey_the_quota_and_an_image_s_hang_on_its_seed_alone() {
        let _alone = crate::nn::alone(); // the generator
        for (positive, negative) in [(20, 15), (3, 30), (0, 40), (40, 0), (2, 4), (0, 0)] {
            let labels = labels(positive, negative);
            let expected = positive.min(5);
            let (of_positive, of_negative) = Draws::Seeds(&[1, 9]).anchors(1, &labels, QUOTA);
            assert_eq!(of_positive.size()[0] as usize, expected);
            assert_eq!(of_negative.size()[0] as usize, negative.min(12 - expected));
            assert!(numbers(&labels.index_select(0, &of_positive)).iter().all(|l| *l == 3));
            assert!(numbers(&labels.index_select(0, &of_negative)).iter().all(|l| *l == 0));
            let (again, _) = Draws::Seeds(&[9]).anchors(0, &labels, QUOTA);
            assert_eq!(numbers(&again), numbers(&of_positive));
        }
    }

    #[test]
    fn each_is_drawn_as_often_as_any_other() {
        let _alone = crate::nn::alone(); // the generator
        let labels = labels(20, 15);
        let mut times = vec![0_i32; 40];
        let draws = 2000;
        for seed in 0..draws {
            let (positive, negative) = Draws::Seeds(&[seed]).anchors(0, &labels, QUOTA);
            for i in numbers(&positive).into_iter().chain(numbers(&negative)) {
                times[i as usize] += 1;
            }
        }
        for (label, times) in numbers(&labels).into_iter().zip(times) {
            // Five of twenty, seven of fifteen; within five standard deviations of a binomial.
            let share = match label {
                3 => 5. / 20.,
                0 => 7. / 15.,
                _ => 0.,
            };
            let far = (f64::from(times) - share * draws as f64).abs();
            assert!(far <= 5. * (draws as f64 * share * (1. - share)).sqrt(), "{label}: {times}");
        }
    }

    #[test]
    fn regions_that_are_not_read_are_drawn_as_those_that_are() {
        let _alone = crate::nn::alone(); // the generator
        let places = |proposals| Places { most: 30, proposals, truths: 4 };
        for (there, holds) in [(30, true), (18, true), (9, true), (7, false)] {
            // The proposals that are there, then the truths.
            let of_all = labels(14, 26).narrow(0, 0, 34);
            let of_truths = of_all.narrow(0, 30, 4);
            let of_there = Tensor::cat(&[&of_all.narrow(0, 0, there), &of_truths], 0);
            let draws = Draws::Seeds(&[77]);
            let (expected, known) = draws.regions(0, &of_there, QUOTA, places(there), None);
            assert!(matches!(known, Held::Known(held) if held == holds));
            let real = Tensor::arange(30, (Kind::Int64, Device::Cpu)).lt(there);
            for settled in [true, false] {
                let unread = Unread { real: real.shallow_clone(), settled: Tensor::from(settled) };
                let (found, held) = draws.regions(0, &of_all, QUOTA, places(30), Some(&unread));
                assert_eq!(found.size(), [12], "however many there are");
                let Held::Told(held) = held else { panic!("nothing was read") };
                assert_eq!(bool::try_from(held).unwrap(), holds && settled);
                // Truths have moved up.
                let moved = |i: i64| if i >= 30 { i - 30 + there } else { i };
                let found: Vec<i64> = numbers(&found).into_iter().map(moved).collect();
                assert_eq!(found == numbers(&expected), holds);
            }
        }
    }
}
