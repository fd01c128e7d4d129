//! Classifiers whose weights and outputs are of the original programs: TF-slim's own NASNet in every form,
//! from its checkpoint through the importer to each cell and the logits.

mod common;

use std::path::{Path, PathBuf};

use common::{Golden, assert_close, difference};
use detect::config::{Backbone, Pooling};
use detect::nasnet::Wiring;
use detect::weights::import::{self, About, Imported, Settings};
use detect_torch::backbone::Classifier;
use detect_torch::nn::Mode;
use detect_torch::weights;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// Of the golden's largest magnitude. Goldens are float32 of other kernels.
const LIMIT: f64 = 2e-4;

fn golden_folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tf_slim").join(case)
}

fn imported(case: &str, settings: &Settings) -> Imported {
    let path = golden_folder(case).join("model.ckpt");
    let mut source = import::open(&path).unwrap();
    import::import(source.as_mut(), None, settings, &path).unwrap()
}

/// Every map and the logits for the image of `golden`, in TensorFlow's layout.
fn outputs(imported: &Imported, backbone: &Backbone, golden: &Golden) -> Vec<(String, Tensor)> {
    let About::Classifier(info) = &imported.about else { panic!("it is a classifier") };
    let store = VarStore::new(Device::Cpu);
    let network = Classifier::new(&store.root(), backbone, info.classes.len());
    weights::load(&store, &imported.contents, "backbone.", Path::new("golden")).unwrap();
    let image = golden.get("image").permute([0, 3, 1, 2]);
    let maps = tch::no_grad(|| network.forward(&image, Mode::Eval));
    let last = |map: &Tensor| if map.dim() == 4 { map.permute([0, 2, 3, 1]) } else { map.copy() };
    maps.iter().map(|(name, map)| (name.clone(), last(map))).collect()
}

fn large() -> Settings {
    Settings { wiring: Some(Wiring::Large), ..Settings::default() }
}

#[test]
fn every_form_of_tf_slim_gives_its_cells_and_logits() {
    let cases = [
        ("cifar", "golden", Settings::default(), "nasnet-a-2@48-cifar"),
        ("cifar", "golden_13x10", Settings::default(), "nasnet-a-2@48-cifar"),
        ("mobile", "golden", Settings::default(), "nasnet-a-1@96"),
        ("large", "golden", large(), "nasnet-a-1@96"),
        ("strided", "golden", Settings::default(), "nasnet-a-1@192-strided"),
    ];
    for (case, file, settings, name) in cases {
        let golden = Golden::read(&golden_folder(case).join(format!("{file}.safetensors")));
        let imported = imported(case, &settings);
        let backbone = imported.about.backbone();
        assert_eq!(backbone.name.to_string(), name);
        let outputs = outputs(&imported, backbone, &golden);
        let mut compared = 0;
        for (name, map) in &outputs {
            if golden.has(name) {
                assert_close(&format!("{case}/{file} {name}"), golden.get(name), map, LIMIT);
                compared += 1;
            }
        }
        // All but the image and the pooled vector.
        assert_eq!(
            compared,
            golden.iter().count() - 2 - usize::from(golden.has("logits_raw")),
            "{case}"
        );
    }
}

#[test]
fn averages_are_taken_unless_the_variables_are_asked_for() {
    let golden = Golden::read(&golden_folder("mobile").join("golden.safetensors"));
    for (raw, expected, other) in [(false, "logits", "logits_raw"), (true, "logits_raw", "logits")]
    {
        let imported = imported("mobile", &Settings { raw, ..Settings::default() });
        let outputs = outputs(&imported, imported.about.backbone(), &golden);
        let (_, logits) = outputs.last().unwrap();
        assert_close(expected, golden.get(expected), logits, LIMIT);
        assert!(difference(golden.get(other), logits) > 10. * LIMIT, "the two differ");
    }
}

#[test]
fn a_changed_rule_is_seen() {
    // Rule by rule, what a careless port gets wrong.
    type Change = (&'static str, &'static str, fn(&mut Backbone));
    let changes: [Change; 5] = [
        ("cifar", "epsilon", |b| b.norm_eps = 1e-3),
        ("cifar", "second input after a reduction", |b| b.wiring = Wiring::Large),
        ("mobile", "pool divisor", |b| b.pooling = Pooling::Timm),
        ("large", "pool divisor", |b| b.pooling = Pooling::Timm),
        ("strided", "epsilon", |b| b.norm_eps = 1e-2),
    ];
    for (case, what, change) in changes {
        let settings = if case == "large" { large() } else { Settings::default() };
        let golden = Golden::read(&golden_folder(case).join("golden.safetensors"));
        let imported = imported(case, &settings);
        let mut backbone = imported.about.backbone().clone();
        change(&mut backbone);
        let outputs = outputs(&imported, &backbone, &golden);
        let (_, logits) = outputs.last().unwrap();
        let found = difference(golden.get("logits"), logits);
        assert!(found > LIMIT, "{case}: a changed {what} moves the logits by {found:.1e} only");
    }
}
