//! What must hold for every box, map and batch.

use std::path::Path;

use detect::config::{Config, Override};
use detect::engine::detector::crop::{Cropper, Kind, Region};
use detect::engine::detector::{FasterRcnn, expected};
use detect::engine::map::Map;
use detect::engine::{CutSpec, Featurizer};
use detect::geometry::{Box2, Detection, Size};
use detect::rules::Coder;
use detect::weights::{Contents, Element, StoredTensor};
use proptest::prelude::*;

/// A box whose sides are `smallest` to 300 pixels long.
fn a_box(smallest: f32) -> impl Strategy<Value = Box2> {
    (0_f32..500., 0_f32..500., smallest..300., smallest..300.)
        .prop_map(|(x, y, w, h)| Box2::new(x, y, x + w, y + h))
}

/// Deltas by the definition, in double precision.
fn encoded(coder: &Coder, bbox: Box2, reference: Box2) -> [f32; 4] {
    let centre = |from: f32, to: f32| f64::midpoint(f64::from(from), f64::from(to));
    let side = |from: f32, to: f32| f64::from(to) - f64::from(from);
    let (b, r) = (bbox, reference);
    let deltas = [
        (centre(b.x1, b.x2) - centre(r.x1, r.x2)) / side(r.x1, r.x2),
        (centre(b.y1, b.y2) - centre(r.y1, r.y2)) / side(r.y1, r.y2),
        (side(b.x1, b.x2) / side(r.x1, r.x2)).ln(),
        (side(b.y1, b.y2) / side(r.y1, r.y2)).ln(),
    ];
    std::array::from_fn(|i| (deltas[i] * coder.weights[i]) as f32)
}

proptest! {
    #[test]
    // torchvision's decoder lets no side grow by more than 1000 / 16 times: references of 5 pixels reach all targets.
    fn decoding_what_was_encoded_gives_the_box(target in a_box(2.), reference in a_box(5.)) {
        for coder in [Coder::TORCHVISION_RPN, Coder::TORCHVISION_ROI, Coder::TF] {
            let found = coder.apply(&encoded(&coder, target, reference), reference);
            let pairs = [(found.x1, target.x1), (found.y1, target.y1), (found.x2, target.x2), (found.y2, target.y2)];
            for (x, y) in pairs {
                prop_assert!((x - y).abs() <= 1e-2, "{found:?} {target:?}");
            }
        }
    }

    #[test]
    fn a_crop_of_a_constant_map_is_constant(
        (height, width, channels) in (2..20_usize, 2..20_usize, 1..9_usize),
        corners in prop::array::uniform4(0_f32..=1.),
        (bins, sampling_ratio) in (1..9_usize, 0..4_usize),
        value in -9_f32..9.,
    ) {
        let map = Map::new([1, height, width, channels], vec![value; height * width * channels]);
        // An input of 8 pixels a cell.
        let padded = Size::new(8 * height, 8 * width);
        let [x1, y1, x2, y2] = corners;
        let (w, h) = (padded.width as f32, padded.height as f32);
        let bbox = Box2::new(x1.min(x2) * w, y1.min(y2) * h, x1.max(x2) * w, y1.max(y2) * h);
        for kind in [Kind::RoiAlign { scale: 1. / 8., sampling_ratio }, Kind::CropAndResize] {
            let cropper = Cropper { bins: [bins, bins + 1], kind };
            let mut crops = Map::default();
            cropper.crops(&map, &[Region { image: 0, bbox }], padded, &mut crops);
            prop_assert_eq!(crops.data.len(), bins * (bins + 1) * channels);
            // TensorFlow's last samples may fall outside by a rounding, as its own do; a region of torchvision's
            // that grew to a cell may reach beyond the border.
            let beyond = match kind {
                Kind::RoiAlign { .. } => w - bbox.x1 < 8. || h - bbox.y1 < 8.,
                Kind::CropAndResize => bbox.x2 > 0.999 * w || bbox.y2 > 0.999 * h,
            };
            for found in crops.data {
                prop_assert!((found - value).abs() < 1e-4 || beyond, "{found} {kind:?}");
            }
        }
    }
}

/// Means over squares of 16 pixels, and of a crop.
struct Means(CutSpec);

impl Featurizer for Means {
    fn spec(&self) -> CutSpec {
        self.0
    }

    fn trunk(&self, pixels: &[f32], images: usize, size: Size) -> Map {
        let input = Map::new([images, size.height, size.width, 3], pixels.to_vec());
        let (height, width) = (size.height / 16, size.width / 16);
        let mut data = vec![0.; images * height * width * self.0.channels];
        for (i, cell) in data.chunks_exact_mut(self.0.channels).enumerate() {
            let (image, y, x) = (i / (height * width), i / width % height, i % width);
            for (j, out) in cell.iter_mut().enumerate() {
                // Another row of the square for each channel.
                let row = input.run(image, 16 * y + j % 16, 16 * x, 16);
                *out = row.iter().skip(j % 3).step_by(3).sum::<f32>() / 16.;
            }
        }
        Map::new([images, height, width, self.0.channels], data)
    }

    fn tail(&self, crops: &Map) -> Vec<f32> {
        let places = crops.height * crops.width;
        let one = |crop: &[f32]| {
            let sums = (0..crops.channels)
                .map(|c| crop[c..].iter().step_by(crops.channels).sum::<f32>() / places as f32);
            sums.cycle().take(self.0.tail_channels).collect::<Vec<_>>()
        };
        crops.data.chunks_exact(places * crops.channels).flat_map(one).collect()
    }
}

/// Weights and pixels that follow from `seed`.
fn numbers(count: usize, seed: u32, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * scale
    };
    (0..count).map(next).collect()
}

/// A detector of three classes with weights of no meaning, of each family.
fn detectors(changes: &[&str]) -> [FasterRcnn<Means>; 2] {
    let tf = [
        "detector.rules=tf",
        "detector.crop=crop_and_resize",
        "backbone.tail_norm=affine",
        "rpn.channels=16",
        "rpn.pre_nms_train=0",
        "rpn.pre_nms_eval=0",
        "roi.max_per_class=20",
    ];
    [&[] as &[&str], &tf].map(|family| {
        let all = family.iter().chain(changes);
        let changes: Vec<Override> = all.map(|text| text.parse().unwrap()).collect();
        let config = Config::recipe("tiny", &changes).unwrap();
        let featurizer = Means(CutSpec { channels: 12, stride: 16, tail_channels: 20 });
        let mut contents = Contents::default();
        for (i, (name, shape)) in expected(&config, featurizer.spec(), 3).into_iter().enumerate() {
            let scale = if name.contains("box_predictor") { 4. } else { 0.4 };
            let floats = numbers(shape.iter().product(), i as u32, scale);
            let bytes = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
            contents.tensors.insert(name, StoredTensor { element: Element::F32, shape, bytes });
        }
        FasterRcnn::new(featurizer, &contents, &config, 3, Path::new("none")).unwrap()
    })
}

#[test]
fn a_batch_of_two_is_two_batches_of_one() {
    let padded = Size::new(96, 128);
    let sizes = [padded, Size::new(80, 101)];
    let each = padded.height * padded.width * 3;
    let pixels = numbers(2 * each, 7, 4.);
    for detector in detectors(&[]) {
        let both = detector.detect(&pixels, &sizes, padded);
        let alone = |i: usize| {
            let mut found = detector.detect(&pixels[i * each..][..each], &sizes[i..=i], padded);
            found.remove(0)
        };
        assert_eq!(both, [alone(0), alone(1)]);
        for (found, size) in both.iter().zip(sizes) {
            assert!(found.len() > 1, "there is something to compare: {found:?}");
            assert!(found.iter().all(|d| d.bbox == d.bbox.clipped(size) && d.bbox.area() > 0.));
            assert!(found.iter().all(|d| d.label.0 < 3 && (0. ..=1.).contains(&d.score)));
            assert!(found.is_sorted_by(|a, b| a.score >= b.score), "best first");
        }
    }
}

#[test]
fn parts_of_any_size_give_the_same() {
    let padded = Size::new(96, 128);
    let pixels = numbers(2 * padded.height * padded.width * 3, 3, 4.);
    let box_at = |i: usize| {
        let (x, y) = (7. * i as f32, 5. * i as f32);
        Box2::new(x, y, x + 30., y + 40.)
    };
    let regions: Vec<Region> = (0..11).map(|i| Region { image: i / 6, bbox: box_at(i) }).collect();
    for detector in detectors(&[]) {
        let (featurizer, heads) = (detector.featurizer(), detector.heads());
        let map = featurizer.trunk(&pixels, 2, padded);
        let whole = heads.rpn().predict(&map);
        let crops = heads.roi().predict(featurizer, &map, &regions, padded);
        assert_eq!(crops.class_logits.len(), 11 * 4);
        for part in [1, 3, 7, 48, 95] {
            assert_eq!(heads.rpn().predict_in_bands(&map, part), whole, "{part}");
            let found = heads.roi().predict_in_parts(featurizer, &map, &regions, padded, part);
            assert_eq!(found, crops, "{part}");
        }
    }
}

#[test]
fn nothing_is_found_where_there_is_nothing() {
    let padded = Size::new(64, 64);
    let (pixels, sizes) = (numbers(2 * 64 * 64 * 3, 1, 4.), [padded, padded]);
    let nothing = vec![Vec::<Detection>::new(); 2];
    // No score is above this.
    for detector in detectors(&["roi.score_floor=0.9999999"]) {
        assert_eq!(detector.detect(&pixels, &sizes, padded), nothing);
    }
    // Of an image of no pixels no proposal is left.
    for detector in detectors(&[]) {
        let sizes = [Size::new(0, 0); 2];
        assert_eq!(detector.detect(&pixels, &sizes, padded), nothing);
        assert_eq!(detector.detect(&[], &[], padded), Vec::<Vec<Detection>>::new());
    }
}
