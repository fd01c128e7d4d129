//! timm's NASNet at its real size, Cadene's two networks, and small ones through the programs.

use std::fs;
use std::path::Path;

use detect::config::Pooling;
use detect::data::classify::{CropRule, Interpolation, Preprocessing};
use detect::geometry::Size;
use detect::nasnet::{BackboneName, Wiring};
use detect::weights::import::wanted::{self, Rows};
use detect::weights::import::{About, Imported, Settings, timm};
use detect::weights::{ClassifierInfo, Contents, WeightsError};
use detect_torch::backbone::Classifier;
use detect_torch::nn::Mode;
use detect_torch::weights;
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::common::{Golden, assert_close, difference, oracle};
use crate::program::{expect_code, run};
use crate::{import, originals, stdout_json, text};

/// Of a map's largest value, at the real size of the large network: what float32 leaves after 20 cells.
const LIMIT_LARGE: f64 = 5e-4;
/// The same for smaller networks.
const LIMIT: f64 = 2e-4;
/// Of probabilities.
const LIMIT_PROBABILITY: f64 = 1e-4;
/// Layers of a NASNet 6@N: a stem, two stem cells, 18 and two cells, a classifier.
const MAPS_OF_LARGE: usize = 24;

fn info(imported: &Imported) -> &ClassifierInfo {
    let About::Classifier(info) = &imported.about else { panic!("it is a classifier") };
    info
}

/// Every map and the logits.
fn maps(info: &ClassifierInfo, contents: &Contents, input: &Tensor) -> Vec<(String, Tensor)> {
    let store = VarStore::new(Device::Cpu);
    let network = Classifier::new(&store.root(), &info.backbone, info.classes.len());
    weights::load(&store, contents, "backbone.", Path::new("imported")).unwrap();
    tch::no_grad(|| network.forward(input, Mode::Eval))
}

fn logits(info: &ClassifierInfo, contents: &Contents, input: &Tensor) -> Tensor {
    maps(info, contents, input).pop().unwrap().1
}

/// Compares all maps and the logits; `theirs` is their name of a map of ours, `first` their first logit
/// that we have.
fn compare(
    what: &str,
    golden: &Golden,
    found: &[(String, Tensor)],
    theirs: impl Fn(&str) -> String,
    first: i64,
    limit: f64,
) {
    let mut worst = (0., String::new());
    for (name, map) in found {
        let expected = golden.get(&theirs(name));
        let rows = if name == "logits" { map.size()[1] } else { expected.size()[1] };
        let skipped = if name == "logits" { first } else { 0 };
        let expected = expected.narrow(1, skipped, rows);
        let here = difference(&expected, map);
        if here > worst.0 {
            worst = (here, name.clone());
        }
        assert_close(&format!("{what} {name}"), &expected, map, limit);
    }
    let goldens = golden.iter().filter(|(name, _)| *name != "input").count();
    assert_eq!(found.len(), goldens, "{what}: every map is compared");
    eprintln!("{what}: at most {:.1e}, in {}", worst.0, worst.1);
}

fn same(name: &str) -> String {
    name.to_owned()
}

fn assert_same_tensors(what: &str, a: &Imported, b: &Imported) {
    let names = |i: &Imported| i.contents.tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b), "{what}");
    for (name, tensor) in &a.contents.tensors {
        assert!(*tensor == b.contents.tensors[name], "{what}: {name} differs");
    }
    assert_eq!(info(a), info(b), "{what}");
}

#[test]
fn the_large_network_of_real_size_is_timm_s_and_cadene_s() {
    let Some(dir) = originals("large") else { return };
    let file = |name: &str| dir.path().join(name);
    let golden = Golden::read(&file("timm_outputs.safetensors"));
    let imported = import(&file("timm.safetensors"), &Settings::default()).unwrap();
    let about = info(&imported);
    assert_eq!(about.backbone.name, BackboneName::LARGE);
    assert_eq!((about.backbone.wiring, about.backbone.pooling), (Wiring::Large, Pooling::Timm));
    assert_eq!((about.backbone.stem_filters, about.classes.len()), (96, 1000));
    assert_eq!(about.preprocessing, Preprocessing::timm_large());
    for name in ["timm.pth", "timm_legacy.pth"] {
        let other = import(&file(name), &Settings::default()).unwrap();
        assert_same_tensors(name, &imported, &other);
    }
    let found = maps(about, &imported.contents, golden.get("input"));
    assert_eq!(found.len(), MAPS_OF_LARGE);
    compare("6@4032 of timm", &golden, &found, same, 0, LIMIT_LARGE);
    let tf = ClassifierInfo {
        backbone: detect::config::Backbone { pooling: Pooling::Tf, ..about.backbone.clone() },
        ..about.clone()
    };
    let wrong = logits(&tf, &imported.contents, golden.get("input"));
    let far = difference(golden.get("logits"), &wrong);
    assert!(far > 10. * LIMIT_LARGE, "the other pooling is seen: {far:.1e}");
    drop(imported);

    classify_pictures(dir.path(), "timm.pth");

    // Cadene's: a background class first, TensorFlow's pooling, no counters of batches.
    let golden = Golden::read(&file("cadene_outputs.safetensors"));
    let path = file("cadene.pth");
    let imported = import(&path, &Settings::default()).unwrap();
    let about = info(&imported);
    assert_eq!((about.backbone.pooling, about.classes.len()), (Pooling::Tf, 1000));
    assert_eq!(about.preprocessing, Preprocessing::cadene_large());
    let found = maps(about, &imported.contents, golden.get("input"));
    compare("6@4032 of Cadene", &golden, &found, same, 1, LIMIT_LARGE);
    // The background's row kept, and the last class dropped.
    let last_map = &found[found.len() - 2].1;
    let rows = Rows { of: 1001, picked: (0..1000).collect() };
    let kept = taken(&path, about, None, Some(&rows)).unwrap();
    let [weight, bias] = ["weight", "bias"].map(|leaf| {
        let name = format!("backbone.last_linear.{leaf}");
        weights::from_stored(&kept.tensors[&name])
    });
    let pooled = last_map.relu().mean_dim([2, 3].as_slice(), false, None::<tch::Kind>);
    let wrong = pooled.linear(&weight, Some(&bias));
    let far = difference(&golden.get("logits").narrow(1, 1, 1000), &wrong);
    assert!(far > 10. * LIMIT_LARGE, "a kept background is seen: {far:.1e}");
}

/// The tensors of a file with cells numbered as `numbers` say, and with these rows of the classifier: what
/// a wrong importer would take.
fn taken(
    path: &Path,
    about: &ClassifierInfo,
    numbers: Option<&[usize]>,
    rows: Option<&Rows>,
) -> Result<Contents, WeightsError> {
    let mut source = detect::weights::import::open(path).unwrap();
    let mut found = timm::Found::read(source.tensors(), "", path).unwrap();
    if let Some(numbers) = numbers {
        assert_ne!(found.numbers, numbers);
        found.numbers = numbers.to_vec();
    }
    let mut list = timm::wanted(&found, &about.backbone, Some(about.classes.len()));
    for wanted in &mut list {
        if let (Some(ours), Some(wrong)) = (&mut wanted.rows, rows) {
            assert_ne!(ours, wrong);
            ours.clone_from(wrong);
        }
    }
    wanted::take(source.as_mut(), &list, timm::is_counter, path)
}

#[test]
fn the_mobile_network_of_real_size_is_cadene_s() {
    let Some(dir) = originals("mobile") else { return };
    let path = dir.path().join("cadene.pth");
    let golden = Golden::read(&dir.path().join("outputs.safetensors"));
    let imported = import(&path, &Settings::default()).unwrap();
    let about = info(&imported);
    assert_eq!(about.backbone.name, BackboneName::MOBILE);
    assert_eq!((about.backbone.wiring, about.backbone.pooling), (Wiring::Mobile, Pooling::Tf));
    assert_eq!((about.backbone.stem_filters, about.classes.len()), (32, 1000));
    assert_eq!(about.preprocessing, Preprocessing::cadene_mobile());
    let found = maps(about, &imported.contents, golden.get("input"));
    // Four cells a stage, and two numbers left out behind them.
    let theirs = |name: &str| {
        let number = name.strip_prefix("cell_").and_then(|n| n.parse::<usize>().ok());
        number.map_or_else(|| name.to_owned(), |n| format!("cell_{}", n + 2 * (n / 4)))
    };
    compare("4@1056 of Cadene", &golden, &found, theirs, 0, LIMIT);

    // Numbers read without their gaps, or shifted by a stage, do not fit.
    for (what, numbers) in [
        ("missing: cell_4.", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("misshapen: cell_6.", [6, 7, 8, 9, 12, 13, 14, 15, 0, 1, 2, 3]),
    ] {
        let message = taken(&path, about, Some(&numbers), None).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    }
    // Two cells of one stage that change places fit, and are seen.
    let swapped = [0, 1, 3, 2, 6, 7, 8, 9, 12, 13, 14, 15];
    let contents = taken(&path, about, Some(&swapped), None).unwrap();
    let wrong = logits(about, &contents, golden.get("input"));
    let far = difference(golden.get("logits"), &wrong);
    assert!(far > 10. * LIMIT, "swapped cells are seen: {far:.1e}");
}

#[test]
fn a_bare_state_dict_of_the_oracle_is_imported() {
    let Some(folder) = oracle("nasnet") else { return };
    let case = folder.join("small_timm_96");
    let path = case.join("weights.safetensors");
    let settings = Settings { pooling: Some(Pooling::Timm), ..Settings::default() };
    let imported = import(&path, &settings).unwrap();
    let about = info(&imported);
    assert_eq!(about.backbone.name.to_string(), "nasnet-a-6@96");
    assert_eq!((about.backbone.stem_filters, about.classes.len()), (6, 7));
    for i in 0..3 {
        let golden = Golden::read(&case.join(format!("features_{i}.safetensors")));
        let found = maps(about, &imported.contents, golden.get("input"));
        let found: Vec<_> = (found.into_iter())
            .filter(|(name, _)| golden.has(name))
            // timm's last ReLU works in place: its last cell was recorded after it.
            .map(|(name, map)| if name == "cell_17" { (name, map.relu()) } else { (name, map) })
            .collect();
        compare(&format!("small_timm_96/{i}"), &golden, &found, same, 0, LIMIT);
    }
    let plain = import(&path, &Settings::default()).unwrap();
    assert_eq!(info(&plain).backbone.pooling, Pooling::Tf, "only the published file is timm's");
}

/// `detect import` of `source`, and `detect classify` of the three pictures beside it.
fn classify_pictures(dir: &Path, source: &str) {
    let file = |name: &str| dir.join(name);
    let model = file("model.safetensors");
    let source = file(source);
    expect_code(&run(&["import", text(&source), "--out", text(&model)]), 0);
    compare_probabilities(dir, &model);
}

fn compare_probabilities(dir: &Path, model: &Path) {
    let golden = Golden::read(&dir.join("pictures.safetensors"));
    let golden = Vec::<Vec<f64>>::try_from(golden.get("probabilities")).unwrap();
    let pictures = [0, 1, 2].map(|i| dir.join(format!("picture_{i}.png")));
    let [a, b, c] = pictures.each_ref().map(|path| text(path));
    let classes = golden[0].len();
    let top = classes.to_string();
    let output = run(&["classify", a, b, c, "--weights", text(model), "--top", &top, "--json"]);
    expect_code(&output, 0);
    let found = stdout_json(&output);
    assert_eq!(found.as_array().unwrap().len(), 3);
    let mut worst: f64 = 0.;
    for (entry, golden) in found.as_array().unwrap().iter().zip(&golden) {
        let list = entry["classes"].as_array().unwrap();
        assert_eq!(list.len(), classes);
        for class in list {
            let expected = golden[class["index"].as_u64().unwrap() as usize];
            worst = worst.max((class["probability"].as_f64().unwrap() - expected).abs());
        }
    }
    eprintln!("{}: probabilities differ by at most {worst:.1e}", model.display());
    assert!(worst <= LIMIT_PROBABILITY, "probabilities differ by {worst:.1e}");
}

#[test]
fn small_classifiers_go_through_all_verbs() {
    let Some(dir) = originals("small") else { return };
    let file = |name: &str| dir.path().join(name);
    let (source, bare_out) = (file("timm.safetensors"), file("bare_out.safetensors"));

    // Of a bare state dict, on a tensor: every cell of timm's.
    let golden_path = file("outputs.safetensors");
    let features = ["features", "--weights", text(&source), "--input", text(&golden_path)];
    let timm_pools = ["--pooling", "timm"];
    expect_code(&run(&[&features[..], &["--out", text(&bare_out)], &timm_pools].concat()), 0);
    let read = |path: &Path| -> Vec<(String, Tensor)> {
        Golden::read(path).iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect()
    };
    let golden = Golden::read(&golden_path);
    assert_eq!(read(&bare_out).len(), MAPS_OF_LARGE);
    compare("features of 6@96", &golden, &read(&bare_out), same, 0, LIMIT);
    expect_code(&run(&[&features[..], &["--out", text(&bare_out)]].concat()), 0);
    let far = difference(golden.get("logits"), Golden::read(&bare_out).get("logits"));
    assert!(far > 10. * LIMIT, "the other pooling is seen: {far:.1e}");

    // Imported, with the preprocessing that timm was given.
    let model = file("model.safetensors");
    let import = ["import", text(&source), "--out", text(&model)];
    expect_code(&run(&[&import[..], &timm_pools].concat()), 0);
    let mut contents = Contents::read(&model).unwrap();
    let mut about = ClassifierInfo::read_from(&contents, &model).unwrap();
    assert_eq!(about.backbone.pooling, Pooling::Timm);
    about.preprocessing = Preprocessing {
        image_size: Size::new(95, 95),
        crop: CropRule::ShortSide(104), // 95 / 0.911, rounded down
        interpolation: Interpolation::PilBicubic,
        ..about.preprocessing
    };
    about.write_to(&mut contents);
    contents.write(&model).unwrap();
    compare_probabilities(dir.path(), &model);

    // Features of a picture begin with its preparation.
    let golden = Golden::read(&file("pictures.safetensors"));
    let out = file("out.safetensors");
    for i in 0..3 {
        let picture = file(&format!("picture_{i}.png"));
        let arguments = ["--input", text(&picture), "--out", text(&out)];
        expect_code(&run(&[&["features", "--weights", text(&model)], &arguments[..]].concat()), 0);
        let expected = golden.get("logits").narrow(0, i, 1);
        let what = format!("logits of picture {i}");
        assert_close(&what, &expected, Golden::read(&out).get("logits"), LIMIT);
    }

    accuracy(dir.path(), &model, golden.get("logits"));
}

/// `detect eval --task classification` on a tree in which the first picture lies under its first class, the
/// second under its second and the third under its last.
fn accuracy(dir: &Path, model: &Path, logits: &Tensor) {
    let order = Vec::<Vec<i64>>::try_from(logits.argsort(1, true)).unwrap();
    let places = [0, 1, order[0].len() - 1];
    let data = dir.join("data");
    for (i, place) in places.into_iter().enumerate() {
        let folder = data.join(order[i][place].to_string());
        fs::create_dir_all(&folder).unwrap();
        let name = format!("picture_{i}.png");
        fs::copy(dir.join(&name), folder.join(&name)).unwrap();
    }
    let common = ["eval", "--task", "classification", "--data", text(&data), "--json"];
    let output = run(&[&common[..], &["--weights", text(model), "--batch", "2"]].concat());
    expect_code(&output, 0);
    let scored = stdout_json(&output);
    assert_eq!((&scored["images"], &scored["failed_images"]), (&3.into(), &0.into()));
    assert_eq!((&scored["top1"], &scored["top5"]), (&(1. / 3.).into(), &(2. / 3.).into()));
}
