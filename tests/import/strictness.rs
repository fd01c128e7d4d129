//! What is refused, and that nothing is written then.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use detect::weights::import::Settings;
use detect::weights::{Contents, Element, StoredTensor, WeightsError};

use crate::damage::flips_and_cuts;
use crate::{as_state_dict, counting, imported, slim};

fn detect(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_detect")).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A state dict in timm's names in a folder of its own.
fn state_dict() -> (tempfile::TempDir, Contents) {
    let imported = imported(&slim("cifar"), &Settings::default()).unwrap();
    (tempfile::tempdir().unwrap(), as_state_dict(&imported))
}

#[test]
fn the_same_network_from_two_formats_is_the_same_model() {
    let (dir, contents) = state_dict();
    let path = dir.path().join("weights.safetensors");
    contents.write(&path).unwrap();
    let again = imported(&path, &Settings::default()).unwrap();
    let first = imported(&slim("cifar"), &Settings::default()).unwrap();
    assert_eq!(again.contents.tensors, first.contents.tensors);
    assert_eq!(again.about.backbone(), first.about.backbone());
}

#[test]
fn what_another_kind_of_file_would_take_is_refused() {
    let (dir, contents) = state_dict();
    let weights = dir.path().join("weights.safetensors");
    contents.write(&weights).unwrap();
    let out = dir.path().join("model.safetensors");
    let args = ["import", text(&weights), "--out", text(&out)];
    for more in [["--proposals", "5"], ["--score", "0.1"], ["--config", "tiny"]] {
        let output = detect(&[&args[..], &more].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("{} does not go with", more[0])), "{told}");
        assert!(!out.exists());
    }
    let labels = dir.path().join("labels.pbtxt");
    fs::write(&labels, "item { id: 1 name: 'cat' }").unwrap();
    for (file, code, words) in [
        (text(&labels), 2, "--label-map does not go with"),
        ("no/such.pbtxt", 4, "cannot read the label map no/such.pbtxt"),
    ] {
        let output = detect(&[&args[..], &["--label-map", file]].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(words) && !out.exists(), "{told}");
    }
    let output = detect(&[&args[..], &["--raw"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("--raw does not go with") && !out.exists(), "{told}");
    // A size that no network can be fed with.
    let output = detect(&[&args[..], &["--image-size", "2"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("at least 3 pixels") && !out.exists(), "{told}");
    // What lies in the same folder and belongs to another network.
    fs::write(dir.path().join("pipeline.config"), "model { ssd { } }").unwrap();
    assert_eq!(detect(&args).status.code(), Some(0));
    let output = detect(&["import", text(&out), "--out", text(&out)]);
    assert_eq!(output.status.code(), Some(2), "its own source");
}

#[test]
fn all_that_does_not_fit_is_listed_and_nothing_is_written() {
    let (dir, mut contents) = state_dict();
    let weights = dir.path().join("weights.safetensors");
    let out = dir.path().join("model.safetensors");
    fs::write(&out, "what was there").unwrap();
    let tensor = |shape: Vec<usize>| {
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        StoredTensor { element: Element::F32, shape, bytes }
    };
    contents.tensors.remove("cell_3.conv_1x1.bn.weight").unwrap();
    contents.tensors.remove("cell_1.comb_iter_0_left.bn_sep_2.running_var").unwrap();
    contents.tensors.insert("cell_0.surplus".into(), tensor(vec![3]));
    contents.tensors.insert("conv0.bn.bias".into(), tensor(vec![5]));
    contents.tensors.insert(
        "conv0.bn.weight".into(),
        StoredTensor { element: Element::I32, ..tensor(vec![6]) },
    );
    // What PyTorch counts, and nobody reads.
    contents.tensors.insert(
        "conv0.bn.num_batches_tracked".into(),
        StoredTensor { element: Element::I64, shape: vec![], bytes: vec![0; 8] },
    );
    contents.write(&weights).unwrap();
    let said = detect(&["import", text(&weights), "--out", text(&out)]);
    assert_eq!(said.status.code(), Some(4));
    let error = String::from_utf8(said.stderr).unwrap();
    for line in [
        "missing: cell_3.conv_1x1.bn.weight [4]",
        "missing: cell_1.comb_iter_0_left.bn_sep_2.running_var [2]",
        "unexpected: cell_0.surplus [3]",
        "misshapen: conv0.bn.bias is [5], expected [6]",
        "conv0.bn.weight holds I32, expected floats",
    ] {
        assert!(error.contains(line), "no '{line}' in {error}");
    }
    assert!(!error.contains("num_batches_tracked"), "{error}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "what was there");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "no temporary file is left");
}

#[test]
fn weights_that_nothing_can_be_computed_with_are_refused() {
    let (dir, mut contents) = state_dict();
    let mut spoil = |name: &str, value: f32| {
        let bytes = &mut contents.tensors.get_mut(name).unwrap().bytes;
        bytes[..4].copy_from_slice(&value.to_le_bytes());
    };
    spoil("conv0.conv.weight", f32::NAN);
    spoil("conv0.bn.running_var", -1.);
    let (weights, out) = (dir.path().join("w.safetensors"), dir.path().join("model.safetensors"));
    contents.write(&weights).unwrap();
    let said = detect(&["import", text(&weights), "--out", text(&out)]);
    let error = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(4), "{error}");
    assert!(error.contains("(from conv0.conv.weight)") && error.contains("not finite"), "{error}");
    assert!(error.contains("negative variances (from conv0.bn.running_var)"), "{error}");
    assert!(!out.exists());
}

#[test]
fn a_model_with_numbers_that_are_not_finite_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let mut contents = Contents::read(&root.join("models/scenes.safetensors")).unwrap();
    let name = "roi_heads.box_predictor.cls_score.bias";
    let spoiled = contents.tensors.get_mut(name).unwrap();
    *spoiled = StoredTensor::from_f32(spoiled.shape.clone(), &vec![f32::NAN; spoiled.shape[0]]);
    let path = dir.path().join("m.safetensors");
    contents.write(&path).unwrap();
    let image = root.join("samples/sample_0001.jpg");
    let said = detect(&[text(&image), "--weights", text(&path), "--device", "cpu"]);
    let error = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(4), "{error}");
    assert!(error.contains(&format!("{name} holds numbers that are not finite")), "{error}");
}

#[test]
fn a_safetensors_file_may_say_who_wrote_it() {
    let (dir, mut contents) = state_dict();
    contents.metadata.insert("format".into(), "pt".into());
    let (weights, maps) = (dir.path().join("w.safetensors"), dir.path().join("m.safetensors"));
    contents.write(&weights).unwrap();
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/samples/sample_0001.jpg");
    let args = ["features", "--weights", text(&weights), "--input", text(&image), "--out"];
    let said = detect(&[&args[..], &[text(&maps), "--device", "cpu"]].concat());
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(Contents::read(&maps).unwrap().tensors.contains_key("cell_0"));
}

#[test]
fn a_shape_without_numbers_does_not_say_how_many_classes_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut contents = Contents::default();
    let first = "FirstStageFeatureExtractor/";
    for (name, shape) in [
        (format!("{first}conv0/weights"), vec![3, 3, 3, 0]),
        (format!("{first}cell_0/a"), vec![0]),
        (format!("{first}cell_1/a"), vec![0]),
        ("Conv/weights".into(), vec![3, 3, 96, 0]),
        ("FirstStageBoxPredictor/ClassPredictor/weights".into(), vec![1, 0, 32, 24]),
        ("SecondStageBoxPredictor/ClassPredictor/weights".into(), vec![96, 3_000_000_000, 0]),
    ] {
        let tensor = StoredTensor { element: Element::F32, shape, bytes: Vec::new() };
        contents.tensors.insert(name, tensor);
    }
    let weights = dir.path().join("w.safetensors");
    contents.write(&weights).unwrap();
    let (read, peak) = counting::peak(|| imported(&weights, &Settings::default()));
    let error = read.unwrap_err().to_string();
    assert!(error.contains("its classifier has 3000000000 outputs"), "{error}");
    assert!(peak < 1 << 20, "{peak} bytes");
}

#[test]
fn a_network_without_a_classifier_is_no_model() {
    let (dir, mut contents) = state_dict();
    contents.tensors.retain(|name, _| !name.starts_with("last_linear."));
    let path = dir.path().join("w.safetensors");
    let out = dir.path().join("model.safetensors");
    contents.write(&path).unwrap();
    let said = detect(&["import", text(&path), "--out", text(&out)]);
    let error = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(4), "{error}");
    assert!(error.contains("`detect features` takes it"), "{error}");
    assert!(!out.exists());
    // Half a classifier is a fault like any other.
    let bias = state_dict().1.tensors["last_linear.bias"].clone();
    contents.tensors.insert("last_linear.bias".into(), bias);
    contents.write(&path).unwrap();
    let said = detect(&["import", text(&path), "--out", text(&out)]);
    let error = String::from_utf8(said.stderr).unwrap();
    assert!(error.contains("unexpected: last_linear.bias [10]"), "{error}");
}

#[test]
fn what_is_no_weight_file_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.safetensors");
    let refused = |name: &str, bytes: &[u8], code: i32, words: &str| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let said = detect(&["import", text(&path), "--out", text(&out)]);
        let error = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(code), "{name}: {error}");
        assert!(error.contains(words), "{name}: no '{words}' in {error}");
        assert!(!out.exists());
    };
    refused("a.bin", b"", 4, "is in no format that is read");
    refused("a.jpg", b"\xff\xd8\xff\xe0 a picture of something", 4, "is in no format that is read");
    refused("a.pth", b"PK\x03\x04 no archive", 4, "PyTorch");
    refused("a.pb", b"\x0a\xff\xff\xff\xff\x0f no graph", 4, "graph");
    let missing = dir.path().join("none");
    let said = detect(&["import", text(&missing), "--out", text(&out)]);
    assert_eq!(said.status.code(), Some(4));
    let (_, contents) = state_dict();
    let path = dir.path().join("w.safetensors");
    contents.write(&path).unwrap();
    // Where it can't be written is said before anything is read.
    for (target, code, words) in [
        ("model.pth", 2, "end in .safetensors"),
        ("no/folder/model.safetensors", 5, "there is no folder"),
    ] {
        let target = dir.path().join(target);
        let said = detect(&["import", text(&path), "--out", text(&target)]);
        let error = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(code), "{error}");
        assert!(error.contains(words), "{error}");
    }
    let said = detect(&["import", text(&path), "--out", text(&out), "--as", "tf-detector"]);
    let error = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(4), "{error}");
    assert!(error.contains("is no faster_rcnn_nas detector"), "{error}");
}

#[test]
fn an_imported_file_describes_itself() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.safetensors");
    let said = detect(&["import", text(&slim("mobile")), "--out", text(&out), "--json"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let json: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(json["kind"], "classifier");
    assert_eq!(json["backbone"], "nasnet-a-1@96");
    assert_eq!(json["wiring"], "mobile");
    assert_eq!(json["classes"], 13);
    // Importing what was imported is refused with what to do.
    let again = detect(&["import", text(&out), "--out", text(&dir.path().join("b.safetensors"))]);
    let error = String::from_utf8(again.stderr).unwrap();
    assert_eq!(again.status.code(), Some(4), "{error}");
    assert!(error.contains("is a model file of detect already"), "{error}");
}

#[test]
fn damaged_safetensors_are_refused_or_differ_in_one_value() {
    let (dir, contents) = state_dict();
    let path = dir.path().join("w.safetensors");
    contents.write(&path).unwrap();
    let good = fs::read(&path).unwrap();
    let limit = 2 * good.len() + (64 << 20);
    // Through the whole importer, which compares names and shapes with the network.
    let read_all = |path: &Path| -> Result<Vec<(String, StoredTensor)>, WeightsError> {
        let (read, peak) = counting::peak(|| imported(path, &Settings::default()));
        assert!(peak <= limit, "{peak} bytes for a file of {}", good.len());
        Ok(read?.contents.tensors.into_iter().collect())
    };
    // The format has no checksums.
    let survivors = flips_and_cuts(&good, |_| false, read_all);
    assert!(survivors.refused > 0 && !survivors.changed.is_empty(), "{survivors:?}");
    assert!(survivors.changed.iter().all(|(_, values)| *values == 1), "{survivors:?}");
    assert!(survivors.misnamed.is_empty(), "names and shapes are right, or it is an error");
}
