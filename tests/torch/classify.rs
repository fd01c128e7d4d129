//! `detect classify` and `detect eval --task classification` on small classifiers made here.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

#[path = "common/program.rs"]
mod program;

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use detect::config::{Backbone, Config, Pooling};
use detect::data::classify::{ClassNames, Preprocessing};
use detect::data::image;
use detect::geometry::Size;
use detect::nasnet::Wiring;
use detect::network::{FeatureModel as _, Images};
use detect::weights::import::About;
use detect::weights::{ClassifierInfo, Contents, Element, StoredTensor, random};
use detect_torch::backbone::Classifier;
use detect_torch::predict::Features;
use detect_torch::weights;
use program::{expect_code, run, tree};
use serde_json::{Value, json};
use tch::nn::VarStore;
use tch::{Device, Tensor};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout_json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON value and nothing else")
}

fn sample(n: u32) -> PathBuf {
    tree().join(format!("data/samples/sample_{n:04}.jpg"))
}

fn section() -> Backbone {
    let section = Config::recipe("tiny", &[]).unwrap().backbone;
    Backbone {
        name: "nasnet-a-1@96".parse().unwrap(),
        wiring: Wiring::Mobile,
        pooling: Pooling::Tf,
        stem_filters: 8,
        norm_eps: 1e-3,
        ..section
    }
}

fn info() -> ClassifierInfo {
    let classes = ClassNames {
        names: ["cat", "dog", "bird"].map(str::to_owned).into(),
        wnids: ["n02121808", "n02084071", "n01503061"].map(str::to_owned).into(),
    };
    // Not square, so that swapped sides are seen.
    let preprocessing = Preprocessing::plain(Size::new(40, 33));
    ClassifierInfo { backbone: section(), preprocessing, classes, origin: "a test".into() }
}

/// A random classifier; with `logits`, one that says these whatever it sees.
fn classifier(logits: Option<[f32; 3]>) -> VarStore {
    let _alone = common::alone(); // the generator
    tch::manual_seed(7);
    let store = VarStore::new(Device::Cpu);
    let _network = Classifier::new(&store.root(), &section(), 3);
    if let Some(logits) = logits {
        tch::no_grad(|| {
            let mut variables = store.variables();
            let _ = variables.get_mut("last_linear.weight").unwrap().zero_();
            let bias = variables.get_mut("last_linear.bias").unwrap();
            bias.copy_(&Tensor::from_slice(&logits));
        });
    } else {
        // A network that has learned nothing hardly tells images apart.
        tch::no_grad(|| {
            let mut variables = store.variables();
            let _ = variables.get_mut("last_linear.weight").unwrap().g_mul_scalar_(1e3);
        });
    }
    store
}

fn write(store: &VarStore, path: &Path) {
    let mut contents =
        Contents { tensors: weights::collect(store, "backbone."), ..Contents::default() };
    info().write_to(&mut contents);
    contents.write(path).unwrap();
}

/// Softmax of these is 1/8, 2/8, 5/8.
fn eighths() -> [f32; 3] {
    [1_f32, 2., 5.].map(f32::ln)
}

#[test]
fn images_give_their_classes_as_json_and_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.safetensors");
    write(&classifier(Some(eighths())), &file);
    let missing = dir.path().join("missing.jpg");
    let image = sample(1);
    let common = ["classify", text(&image), text(&missing), "--weights", text(&file)];
    let output = run(&[&common[..], &["--top", "2", "--json"]].concat());
    assert!(expect_code(&output, 1).contains("missing.jpg"));
    let found = stdout_json(&output);
    assert_eq!(found.as_array().unwrap().len(), 1);
    let size = image::header(&image).unwrap().upright_size();
    assert_eq!(found[0]["file"], text(&image));
    assert_eq!([&found[0]["width"], &found[0]["height"]], [size.width, size.height]);
    let classes = found[0]["classes"].as_array().unwrap();
    for (class, (index, wnid, name, probability)) in
        classes.iter().zip([(2, "n01503061", "bird", 0.625), (1, "n02084071", "dog", 0.25)])
    {
        assert_eq!((&class["index"], &class["wnid"]), (&json!(index), &json!(wnid)));
        assert_eq!(class["name"], name);
        assert!((class["probability"].as_f64().unwrap() - probability).abs() < 1e-6, "{class}");
    }
    assert_eq!(classes.len(), 2);
    let output = run(&["classify", text(&image), "--weights", text(&file)]);
    expect_code(&output, 0);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), 4, "three classes are all there are: {said}");
    assert!(said.contains("\n   62.50 %     2  n01503061  bird\n"), "{said}");
}

/// The verb prepares pixels, moves them into tensors and reads logits; `features` is held against other
/// programs, and gets the prepared pixels in the order of its own.
#[test]
fn the_network_sees_the_prepared_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let store = classifier(None);
    write(&store, &path("w.safetensors"));
    let bare = Contents { tensors: weights::collect(&store, ""), ..Contents::default() };
    bare.write(&path("bare.safetensors")).unwrap();

    let images = [sample(1), sample(2)];
    let Size { height, width } = info().preprocessing.image_size;
    let mut bytes = Vec::new();
    for image in &images {
        let pixels = info().preprocessing.apply(&[&image::decode(image).unwrap().image]);
        for c in 0..3 {
            bytes.extend(pixels.iter().skip(c).step_by(3).flat_map(|v| v.to_le_bytes()));
        }
    }
    let input = StoredTensor { element: Element::F32, shape: vec![2, 3, height, width], bytes };
    let tensors = BTreeMap::from([("input".to_owned(), input)]);
    Contents { tensors, ..Contents::default() }.write(&path("input.safetensors")).unwrap();
    let [bare, input, out] = ["bare", "input", "out"].map(|n| path(&format!("{n}.safetensors")));
    let common = ["features", "--weights", text(&bare), "--input", text(&input)];
    expect_code(&run(&[&common[..], &["--out", text(&out)]].concat()), 0);
    let logits = weights::from_stored(&Contents::read(&out).unwrap().tensors["logits"]);
    let want = Vec::<Vec<f32>>::try_from(logits.softmax(1, tch::Kind::Float)).unwrap();
    assert!((want[0][0] - want[1][0]).abs() > 1e-4, "the images differ: {want:?}");

    let file = path("w.safetensors");
    let common =
        ["classify", text(&images[0]), text(&images[1]), "--json", "--weights", text(&file)];
    for batch in ["1", "2"] {
        let output = run(&[&common[..], &["--batch", batch]].concat());
        expect_code(&output, 0);
        let found = stdout_json(&output);
        for (entry, want) in found.as_array().unwrap().iter().zip(&want) {
            let classes = entry["classes"].as_array().unwrap();
            assert_eq!(classes.len(), 3);
            for class in classes {
                let index = class["index"].as_u64().unwrap() as usize;
                let difference = class["probability"].as_f64().unwrap() - f64::from(want[index]);
                assert!(difference.abs() < 1e-5, "{entry} {want:?}");
            }
        }
    }
}

/// What `detect bench` times: numbers that vanish or overflow take another time.
#[test]
fn maps_of_random_weights_have_ordinary_sizes() {
    for name in ["nasnet-a-6@4032", "nasnet-a-4@1056", "nasnet-a-6@768-cifar"] {
        // As deep, and narrower.
        let name = name.replace("4032", "192").replace("1056", "192").replace("768", "96");
        let backbone = Backbone { name: name.parse().unwrap(), ..section() };
        let info = ClassifierInfo { backbone, ..info() };
        let contents = random::classifier(&info, 1);
        let about = About::Classifier(Box::new(info));
        let model = Features::new(&about, contents, Path::new("random"), Device::Cpu).unwrap();
        let size = Size::new(64, 64);
        let pixels: Vec<f32> =
            (0..3 * 64 * 64_u32).map(|i| (i * 7919 % 255) as f32 / 127.5 - 1.).collect();
        let maps = model.maps(Images { pixels: &pixels, count: 1, size });
        for (map, values) in &maps {
            let values = values.to_f32().unwrap();
            let square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
            assert!((1e-3..1e9).contains(&square), "{name}: {map} has a mean square of {square}");
        }
        let (_, logits) = maps.last().unwrap();
        assert_eq!(&model.last(Images { pixels: &pixels, count: 1, size }), logits);
    }
}

#[test]
fn accuracy_is_counted_over_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.safetensors");
    write(&classifier(Some(eighths())), &file);
    let data = dir.path().join("data");
    for (name, n) in [("n01503061/a.jpg", 1), ("n01503061/b.jpg", 2), ("n02084071/c.jpg", 3)] {
        let path = data.join("val").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(sample(n), path).unwrap();
    }
    let common =
        ["eval", "--task", "classification", "--data", text(&data), "--weights", text(&file)];
    let output = run(&[&common[..], &["--json", "--batch", "2"]].concat());
    expect_code(&output, 0);
    let scored = stdout_json(&output);
    // It always says bird, then dog, then cat.
    assert_eq!((&scored["images"], &scored["failed_images"]), (&json!(3), &json!(0)));
    assert_eq!((&scored["top1"], &scored["top5"]), (&json!(2. / 3.), &json!(1.)));
    assert_eq!(scored["per_class"].as_array().unwrap().len(), 2);

    fs::write(data.join("val/n02084071/broken.jpg"), "no image").unwrap();
    let output = run(&common);
    let said = expect_code(&output, 1);
    assert!(said.contains("broken.jpg"), "{said}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("top-1   50.00 %  (2 of 4 images)\n"), "{table}");
    assert!(table.contains("top-5   75.00 %  (3 of 4 images)\n"), "{table}");

    fs::create_dir(data.join("val/unicorn")).unwrap();
    assert!(expect_code(&run(&common), 3).contains("'unicorn'"), "it holds no images");
    fs::copy(sample(4), data.join("val/unicorn/d.jpg")).unwrap();
    let said = expect_code(&run(&common), 2);
    assert!(said.contains("'unicorn'") && said.contains("n02121808, 'cat' or 0"), "{said}");
}

#[test]
fn a_detector_is_no_classifier_and_a_classifier_no_detector() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.safetensors");
    write(&classifier(None), &file);
    let image = sample(1);
    let said = expect_code(&run(&[text(&image), "--weights", text(&file)]), 4);
    assert!(said.contains("holds a classifier") && said.contains("detect classify"), "{said}");
    let said = expect_code(&run(&["classify", text(&image), "--weights", "scenes"]), 4);
    assert!(said.contains("holds a detector") && said.contains("detect IMAGE"), "{said}");
}
