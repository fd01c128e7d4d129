//! Decisions of a training step that are made on its device, without the program knowing what came out.
//!
//! A pass that reads from a GPU lets it stand idle until the program has caught up. So that nothing has to be read,
//! every list has a fixed length, that of the usual case, and whether the case was the usual one is a number on the device
//! among others, which is read with the losses at the end of the step. Where it was not, the step is made again by a
//! pass that waits ([`Pace::Waits`]); where it was, both passes give the same bits.

use tch::{Device, Kind, Tensor};

use super::boxes;

/// Whether a pass in training may read from its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It reads how many regions there are.
    Waits,
    /// It takes for granted that NMS settles within [`ROUNDS`], and that each image offers as many regions as are to be
    /// sampled, or as there can be if these are fewer.
    Ahead,
}

impl Pace {
    /// The faster one on `device`: a CPU has nothing to wait for.
    pub fn of(device: Device) -> Self {
        if device.is_cuda() { Self::Ahead } else { Self::Waits }
    }
}

/// Whether what [`Pace::Ahead`] takes for granted is so.
#[derive(Debug)]
pub enum Held {
    /// A pass that waited is right in any case, and knows whether it is so, as far as the number of regions goes.
    Known(bool),
    /// A pass that went ahead is right if it is so, and has left that on the device: a bool, without dimensions.
    Told(Tensor),
}

impl Held {
    /// Whether all of `parts`, which are of one pass, held.
    ///
    /// # Panics
    /// If some of a pass waited, and some went ahead.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let both = |all, part| match (all, part) {
            (Self::Known(a), Self::Known(b)) => Self::Known(a && b),
            (Self::Told(a), Self::Told(b)) => Self::Told(a.logical_and(&b)),
            _ => unreachable!("a pass has one pace"),
        };
        parts.into_iter().reduce(both).unwrap_or(Self::Known(true))
    }
}

/// Boxes among which [`suppress`] is to choose at most: it takes 16 bytes for each pair of them.
pub const MOST: i64 = 8192;

/// Rounds of [`suppress`]. Chains of boxes of which each decides on the next are short.
pub const ROUNDS: usize = 32;

/// The places of the first `count` that are true, rising; where there are fewer, the last place stands for those
/// that are missing.
///
/// # Shapes
/// `[M]` bool, `M > 0`, to `[count]` int64.
pub fn first(mask: &Tensor, count: i64) -> Tensor {
    let number = mask.cumsum(0, Kind::Int64); // counted from 1
    let wanted = Tensor::arange_start(1, count + 1, (Kind::Int64, mask.device()));
    wanted.searchsorted(&number, false, false, "left", None::<Tensor>).clamp_max(mask.size()[0] - 1)
}

/// Greedy NMS of boxes, best first: which of those that take `part` survive, and whether that is certain.
///
/// What greedy NMS keeps is the only set for which a box is kept if no better one that is kept overlaps it by more than
/// `limit`. Starting from all, each round decides at least those boxes for certain whose better ones were decided; so
/// that the set stays as it is from as many rounds on as the longest chain of such decisions has boxes.
///
/// # Shapes
/// `boxes` `[M, 4]` and `part` `[M]` bool to `[M]` bool and a bool without dimensions.
pub fn suppress(boxes: &Tensor, part: &Tensor, limit: f32) -> (Tensor, Tensor) {
    // Row i: the better boxes that would beat box i. A NaN, of two boxes without area, beats nothing.
    let beats = boxes::iou(boxes, boxes).gt(f64::from(limit)).tril(-1); // [M, M]
    let next = |kept: &Tensor| {
        let beaten = beats.logical_and(kept).any_dim(1, false);
        part.logical_and(&beaten.logical_not())
    };
    let mut kept = part.shallow_clone();
    for _ in 0..ROUNDS {
        kept = next(&kept);
    }
    let settled = next(&kept).eq_tensor(&kept).all();
    (kept, settled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use detect::geometry::Box2;
    use detect::nms::{largest_f32_at_most, nms};

    fn places(mask: &Tensor) -> Vec<i64> {
        Vec::try_from(mask.nonzero().squeeze_dim(1)).unwrap()
    }

    #[test]
    fn the_first_are_listed_and_the_last_place_stands_for_what_is_missing() {
        let mask = Tensor::from_slice(&[false, true, false, true, true, false]);
        let listed = |count| Vec::<i64>::try_from(first(&mask, count)).unwrap();
        assert_eq!(listed(2), [1, 3]);
        assert_eq!(listed(3), [1, 3, 4]);
        assert_eq!(listed(5), [1, 3, 4, 5, 5]);
    }

    #[test]
    fn what_survives_is_what_greedy_nms_keeps() {
        let _alone = crate::nn::alone(); // the generator
        for seed in 0..40 {
            tch::manual_seed(seed);
            let corners = Tensor::rand([150, 2], (Kind::Float, Device::Cpu)) * 60.;
            let sides = Tensor::rand([150, 2], (Kind::Float, Device::Cpu)) * 40. - 2.;
            let sides = sides.clamp_min(0.); // some have no area
            let boxes = Tensor::cat(&[&corners, &(&corners + sides)], 1);
            let part = Tensor::rand([150], (Kind::Float, Device::Cpu)).gt(0.1);
            for iou in [0., 0.3, 0.5, 0.7, 1.] {
                let (kept, settled) = suppress(&boxes, &part, largest_f32_at_most(iou));
                assert!(bool::try_from(settled).unwrap());
                // By the program's own pass over plain numbers, which torchvision's goldens hold.
                let taking = places(&part);
                let given: Vec<Box2> = boxes::from_tensor(&boxes);
                let given: Vec<Box2> = taking.iter().map(|&i| given[i as usize]).collect();
                let falling: Vec<f32> = (0..given.len()).map(|i| -(i as f32)).collect();
                let expected: Vec<i64> =
                    nms(&given, &falling, iou).into_iter().map(|i| taking[i]).collect();
                assert_eq!(places(&kept), expected, "seed {seed}, iou {iou}");
            }
        }
    }

    #[test]
    fn a_chain_that_is_too_long_is_not_settled() {
        // Each overlaps its neighbours alone, so that every second one stays, one round after the other.
        let chain = |count: usize| {
            let boxes = (0..count).map(|i| Box2::new(6. * i as f32, 0., 6. * i as f32 + 10., 10.));
            let part = Tensor::ones([count as i64], (Kind::Bool, Device::Cpu));
            suppress(&boxes::to_tensor(&boxes.collect::<Vec<_>>()), &part, 0.2)
        };
        let (kept, settled) = chain(ROUNDS + 1);
        assert!(bool::try_from(settled).unwrap());
        assert_eq!(places(&kept), (0..=ROUNDS as i64).step_by(2).collect::<Vec<_>>());
        let (_, settled) = chain(ROUNDS + 2);
        assert!(!bool::try_from(settled).unwrap());
    }

    #[test]
    fn all_parts_of_a_pass_have_to_hold() {
        let told = |held: bool| Held::Told(Tensor::from(held));
        let known = Held::Known;
        let holds = |parts| match Held::all(parts) {
            Held::Known(held) => held,
            Held::Told(held) => bool::try_from(held).unwrap(),
        };
        assert!(holds(vec![]));
        assert!(holds(vec![known(true), known(true)]));
        assert!(!holds(vec![known(true), known(false), known(true)]));
        assert!(holds(vec![told(true), told(true)]));
        assert!(!holds(vec![told(true), told(false)]));
    }
}
