//! What must hold for every box, anchor and image of the detector.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use detect::config::{Anchors, Config, LossWeights};
use detect::geometry::{Box2, Label, Size};
use detect_torch::detector::assign::{Thresholds, match_regions};
use detect_torch::detector::coder::Coder;
use detect_torch::detector::torchvision::{anchors, rpn::rescue_best};
use detect_torch::detector::{FasterRcnn, Images, Truth, boxes, tf};
use detect_torch::nn::Mode;
use proptest::prelude::*;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A box whose sides are `smallest` to 300 pixels long.
fn a_box(smallest: f32) -> impl Strategy<Value = Box2> {
    (0_f32..500., 0_f32..500., smallest..300., smallest..300.)
        .prop_map(|(x, y, w, h)| Box2::new(x, y, x + w, y + h))
}

proptest! {
    // The file of failures would land in a folder of its own under src/torch.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    // The decoder lets no side grow by more than 1000 / 16 times, as torchvision's: references of 5 pixels
    // reach all targets.
    fn decoding_what_was_encoded_gives_the_box(pairs in prop::collection::vec((a_box(2.), a_box(5.)), 1..20)) {
        let (targets, references): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let reference = boxes::to_tensor(&references);
        for coder in [Coder::TORCHVISION_RPN, Coder::TORCHVISION_ROI, Coder::TF] {
            let deltas = coder.encode(&boxes::to_tensor(&targets), &reference);
            let back = coder.decode(&deltas, &reference).squeeze_dim(1);
            for (a, b) in boxes::from_tensor(&back).iter().zip(&targets) {
                for (x, y) in [(a.x1, b.x1), (a.y1, b.y1), (a.x2, b.x2), (a.y2, b.y2)] {
                    prop_assert!((x - y).abs() <= 1e-2, "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn every_truth_gets_an_anchor(truth in prop::collection::vec(a_box(2.), 1..6)) {
        let section = Anchors { sizes: vec![32., 96., 256.], ratios: vec![0.5, 1., 2.] };
        let grid = anchors::of_map(&section, [50, 50], [800, 800], Device::Cpu);
        prop_assert_eq!(grid.size(), [50 * 50 * 9, 4]);
        let iou = boxes::iou(&boxes::to_tensor(&truth), &grid);
        let matches = match_regions(&iou, Thresholds { positive: 0.7, negative: 0.3 });
        for matches in [rescue_best(&iou, &matches), tf::rpn::force_best(&iou, &matches)] {
            // Its best anchor is positive, although perhaps for another truth.
            for best in Vec::<i64>::try_from(iou.argmax(1, false)).unwrap() {
                prop_assert!(matches.int64_value(&[best]) >= 0);
            }
        }
    }
}

fn tiny() -> (VarStore, FasterRcnn<detect_torch::backbone::NasNet>) {
    tch::manual_seed(3);
    let store = VarStore::new(Device::Cpu);
    let config = Config::recipe("tiny", &[]).unwrap();
    let detector = FasterRcnn::new(&store.root(), &config, 3);
    (store, detector)
}

fn grey(images: i64) -> Images {
    let pixels = Tensor::zeros([images, 3, 96, 128], (Kind::Float, Device::Cpu));
    Images { pixels, sizes: vec![Size::new(90, 121); images as usize] }
}

#[test]
fn a_batch_of_two_is_two_batches_of_one() {
    let (_store, detector) = tiny();
    let mut both = grey(2);
    both.pixels = Tensor::randn([2, 3, 96, 128], (Kind::Float, Device::Cpu));
    let together = detector.detect(&both);
    for (i, expected) in together.iter().enumerate() {
        let alone =
            Images { pixels: both.pixels.narrow(0, i as i64, 1), sizes: vec![both.sizes[i]] };
        let found = detector.detect(&alone).remove(0);
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a.score - b.score).abs() < 1e-4 && a.label == b.label);
        }
    }
}

#[test]
fn an_image_without_truth_and_a_tiny_truth_give_finite_losses_and_gradients() {
    let (store, detector) = tiny();
    let one_pixel = Truth { boxes: vec![Box2::new(5., 5., 6., 6.)], labels: vec![Label(2)] };
    for truths in [vec![Truth::default(), Truth::default()], vec![Truth::default(), one_pixel]] {
        let losses = detector.losses(&grey(2), &truths, Mode::Train { progress: 0.5 });
        assert!(losses.values().iter().all(|v| v.is_finite()), "{losses:?}");
        losses.total(&LossWeights::ONES).backward();
        for variable in store.trainable_variables() {
            let gradient = variable.grad();
            assert!(!gradient.defined() || bool::try_from(gradient.isfinite().all()).unwrap());
        }
    }
}
