//! What must hold for every box, anchor and image of the detector.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use detect::config::{Anchors, Config, LossWeights, Override};
use detect::geometry::{Box2, Label, Size};
use detect_torch::backbone::NasNet;
use detect_torch::detector::assign::{Thresholds, match_regions};
use detect_torch::detector::coder::{Coder, Coding as _};
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
        let grid = anchors::of_map(&section, [50, 50], [800, 800]);
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

/// The smallest recipe, and the same with TensorFlow's rules.
fn tiny() -> [(VarStore, FasterRcnn<NasNet>); 2] {
    let tf = [
        "detector.rules=tf",
        "detector.crop=crop_and_resize",
        "backbone.tail_norm=affine",
        "rpn.channels=16",
        "rpn.pre_nms_train=0",
        "rpn.pre_nms_eval=0",
        "roi.max_per_class=20",
    ]
    .map(|text| text.parse::<Override>().unwrap());
    [&[] as &[Override], &tf].map(|changes| {
        tch::manual_seed(3);
        let store = VarStore::new(Device::Cpu);
        let config = Config::recipe("tiny", changes).unwrap();
        let detector = FasterRcnn::new(&store.root(), &config, 3);
        (store, detector)
    })
}

fn grey(images: i64) -> Images {
    let pixels = Tensor::zeros([images, 3, 96, 128], (Kind::Float, Device::Cpu));
    Images { pixels, sizes: vec![Size::new(90, 121); images as usize] }
}

#[test]
fn a_batch_of_two_is_two_batches_of_one() {
    for (_store, detector) in tiny() {
        let mut both = grey(2);
        both.pixels = Tensor::randn([2, 3, 96, 128], (Kind::Float, Device::Cpu));
        let together = detector.detect(&both);
        assert!(!together[0].is_empty());
        for (i, expected) in together.iter().enumerate() {
            let alone =
                Images { pixels: both.pixels.narrow(0, i as i64, 1), sizes: vec![both.sizes[i]] };
            let found = detector.detect(&alone).remove(0);
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                assert!((a.score - b.score).abs() < 1e-4 && a.label == b.label);
                assert!(a.bbox.x2 <= 121. && a.bbox.y2 <= 90., "clipped to the image, {a:?}");
            }
        }
    }
}

#[test]
fn an_image_without_truth_and_a_tiny_truth_give_finite_losses_and_gradients() {
    let one_pixel = Truth { boxes: vec![Box2::new(5., 5., 6., 6.)], labels: vec![Label(2)] };
    for (store, detector) in tiny() {
        for truths in
            [vec![Truth::default(), Truth::default()], vec![Truth::default(), one_pixel.clone()]]
        {
            let losses = detector.losses(&grey(2), &truths, Mode::Train { progress: 0.5 });
            assert!(losses.values().iter().all(|v| v.is_finite()), "{losses:?}");
            losses.total(&LossWeights::ONES).backward();
            for variable in store.trainable_variables() {
                let gradient = variable.grad();
                assert!(!gradient.defined() || bool::try_from(gradient.isfinite().all()).unwrap());
            }
        }
    }
}

#[test]
fn of_two_truths_that_want_one_anchor_the_first_gets_it() {
    // By hand: both truths overlap the second anchor most; the third anchor is nobody's best.
    let iou = Tensor::from_slice2(&[[0.1_f32, 0.2, 0.0], [0.0, 0.6, 0.5]]);
    let matches = match_regions(&iou, Thresholds { positive: 0.55, negative: 0.3 });
    assert_eq!(Vec::<i64>::try_from(&matches).unwrap(), [-1, 1, -2]);
    let forced = tf::rpn::force_best(&iou, &matches);
    assert_eq!(Vec::<i64>::try_from(forced).unwrap(), [-1, 0, -2]);
    // Where nothing overlaps a truth, it still gets the first anchor, and no other.
    let none = Tensor::zeros([1, 3], (Kind::Float, Device::Cpu));
    let matches = match_regions(&none, Thresholds { positive: 0.7, negative: 0.3 });
    let forced = tf::rpn::force_best(&none, &matches);
    assert_eq!(Vec::<i64>::try_from(forced).unwrap(), [0, -1, -1]);
}
