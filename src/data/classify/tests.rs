//! Against timm's, torchvision's, torch's and TensorFlow's own outputs, made by `tools/golden_classify.py`.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::*;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Debug, Clone, Deserialize)]
struct Case {
    published: Option<String>,
    preprocessing: Preprocessing,
    image: Source,
    sha256: String,
    values: Option<Vec<f32>>,
    samples: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Source {
    height: usize,
    width: usize,
    pattern: String,
    seed: u32,
}

impl Source {
    /// The formula of the script.
    fn image(&self) -> Rgb {
        let mut state = self.seed;
        let mut sample = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut pixel = || match self.pattern.as_str() {
            "noise" => [sample(), sample(), sample()],
            "extreme" => [sample(), sample(), sample()].map(|v| if v >= 128 { 255 } else { 0 }),
            "grey" => [sample(); 3],
            other => panic!("no pattern '{other}'"),
        };
        let pixels = (0..self.height * self.width).flat_map(|_| pixel()).collect();
        Rgb { size: Size::new(self.height, self.width), pixels }
    }
}

fn cases(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let golden: Golden = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    golden.cases
}

fn published(name: &str) -> Preprocessing {
    match name {
        "timm-large" => Preprocessing::timm_large(),
        "tf-slim-large" => Preprocessing::tf_slim(331),
        "tf-slim-mobile" => Preprocessing::tf_slim(224),
        "cadene-large" => Preprocessing::cadene_large(),
        "cadene-mobile" => Preprocessing::cadene_mobile(),
        other => panic!("no published preprocessing '{other}'"),
    }
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Compares bit for bit; the first number that differs is told where numbers were kept.
fn assert_equal(case: &Case) {
    let Case { preprocessing, image, .. } = case;
    assert_eq!(preprocessing.check(), Ok(()));
    if let Some(name) = &case.published {
        assert_eq!(*preprocessing, published(name));
    }
    let out = preprocessing.apply(&[&image.image()]);
    if let Some(values) = &case.values {
        assert_eq!(out.len(), values.len());
        for (i, (got, want)) in out.iter().zip(values).enumerate() {
            assert!(got == want, "number {i} is {got}, not {want}: {preprocessing:?}, {image:?}");
        }
    }
    if let Some(samples) = &case.samples {
        let levels = out.iter().map(|v| ((v * 0.5 + 0.5) * 255.).round() as u8);
        assert_eq!(hex(levels), *samples, "{preprocessing:?}, {image:?}");
    }
    let bytes: Vec<u8> = out.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(hex(Sha256::digest(bytes)), case.sha256, "{preprocessing:?}, {image:?}");
}

#[test]
fn pil_based_preprocessings_give_the_very_numbers_of_timm_and_torchvision() {
    let all = cases("classify_pil.json");
    let (pil, others): (Vec<_>, Vec<_>) = all.iter().partition(|c| c.preprocessing.by_pil());
    assert_eq!((pil.len(), others.len()), (91, 11));
    for case in pil {
        assert_equal(case);
    }
}

/// Normalising and resizing are swapped and rounded elsewhere: a few units in the last place.
#[test]
fn squashing_is_torchs_interpolate() {
    let all = cases("classify_pil.json");
    for case in all.iter().filter(|c| !c.preprocessing.by_pil()) {
        assert_eq!(case.preprocessing, Preprocessing::plain(Size::new(8, 8)));
        let out = case.preprocessing.apply(&[&case.image.image()]);
        let values = case.values.as_ref().unwrap();
        let difference = out.iter().zip(values).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
        assert_eq!(out.len(), values.len());
        assert!(difference <= 5e-7, "{difference}: {:?}", case.image);
    }
}

#[test]
fn tf_slims_preprocessing_gives_the_very_numbers_of_tensorflow() {
    let all = cases("classify_tf.json");
    assert_eq!(all.len(), 47);
    for case in &all {
        assert_equal(case);
    }
}

/// The comparisons above see one changed rule, in every case that has something to resample.
#[test]
fn a_wrong_rule_is_noticed() {
    let differs = |case: &Case, changed: &Preprocessing| {
        let image = case.image.image();
        changed.apply(&[&image]) != case.preprocessing.apply(&[&image])
    };
    let all = [cases("classify_pil.json"), cases("classify_tf.json")].concat();
    let noisy = all.iter().filter(|c| c.image.height > 12 && c.image.width > 12);
    let mut changes = 0;
    for case in noisy {
        let form = &case.preprocessing;
        let with_crop = |crop| Preprocessing { crop, ..form.clone() };
        let with_kernel = |interpolation| Preprocessing { interpolation, ..form.clone() };
        let wrong = match (form.crop, form.interpolation) {
            (CropRule::ShortSide(n), Interpolation::PilBicubic) => {
                vec![with_crop(CropRule::ShortSide(n + 1)), with_kernel(Interpolation::PilBilinear)]
            }
            (CropRule::ShortSide(n), _) => {
                vec![with_crop(CropRule::ShortSide(n - 1)), with_kernel(Interpolation::PilBicubic)]
            }
            (CropRule::Central(_), _) => {
                let kernel = with_kernel(Interpolation::HalfPixelBilinear);
                vec![with_crop(CropRule::Central(0.7)), with_crop(CropRule::Squash), kernel]
            }
            (CropRule::Squash, _) => {
                vec![with_crop(CropRule::Central(0.8)), with_kernel(Interpolation::LegacyBilinear)]
            }
        };
        for changed in &wrong {
            assert!(differs(case, changed), "{changed:?} is as good as {form:?}: {:?}", case.image);
            changes += 1;
        }
    }
    assert!(changes > 150, "{changes}");
}

#[test]
fn images_of_a_batch_lie_one_after_the_other() {
    let source = |seed| Source { height: 9, width: 5, pattern: "noise".into(), seed };
    let (a, b) = (source(1).image(), source(2).image());
    let form = Preprocessing::plain(Size::new(3, 4));
    let both = form.apply(&[&a, &b]);
    assert_eq!(both, [form.apply(&[&a]), form.apply(&[&b])].concat());
    assert_eq!(both.len(), 2 * 36);
    assert!(form.apply(&[]).is_empty());
}

/// Resized whole, its long side would have 36 million pixels, of which the crop shows 331.
#[test]
fn long_strips_take_no_memory_beyond_the_crop() {
    let strip = Rgb { size: Size::new(100_000, 1), pixels: vec![200; 300_000] };
    let out = Preprocessing::timm_large().apply(&[&strip]);
    let want = (200. / 255. - 0.5) / 0.5;
    assert!(out.iter().all(|v| *v == want), "a flat picture stays flat");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let good = Preprocessing::tf_slim(224);
    let refused = |form: Preprocessing, word: &str| {
        let message = form.check().unwrap_err();
        assert!(message.contains(word), "{message}");
    };
    assert_eq!(good.check(), Ok(()));
    refused(Preprocessing::tf_slim(0), "image_size.height is 0");
    refused(Preprocessing::plain(Size::new(8, 1 << 40)), "image_size.width");
    for fraction in [0., 1.5, -1., f64::NAN] {
        refused(
            Preprocessing { crop: CropRule::Central(fraction), ..good.clone() },
            "crop.central",
        );
    }
    refused(Preprocessing { crop: CropRule::ShortSide(0), ..good.clone() }, "crop.short-side is 0");
    refused(Preprocessing { crop: CropRule::ShortSide(9), ..good.clone() }, "does not go with");
    refused(
        Preprocessing { interpolation: Interpolation::PilBicubic, ..good.clone() },
        "does not go with",
    );
    refused(Preprocessing { std: [1., 0., 1.], ..good.clone() }, "std");
    refused(Preprocessing { mean: [f32::INFINITY, 0., 1.], ..good }, "mean");
}

#[test]
fn the_form_in_a_file_is_stable() {
    let json = serde_json::to_string(&Preprocessing::timm_large()).unwrap();
    let expected = r#"{"image_size":{"height":331,"width":331},"crop":{"short-side":363},"interpolation":"pil-bicubic","mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]}"#;
    assert_eq!(json, expected);
    let squash = serde_json::to_value(Preprocessing::plain(Size::new(32, 32))).unwrap();
    assert_eq!(squash["crop"], "squash");
    assert_eq!(
        serde_json::from_str::<Preprocessing>(expected).unwrap(),
        Preprocessing::timm_large()
    );
}
