//! Classifiers whose weights and outputs are of the original programs: TF-slim's own NASNet in every form,
//! from its checkpoint through the importer to each cell and the logits; and its auxiliary head.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic, and say what is skipped"
)]

mod common;

use std::path::{Path, PathBuf};

use common::{Golden, assert_close, difference, json};
use detect::config::{Backbone, Cut, NormMode, Pooling};
use detect::geometry::Size;
use detect::nasnet::{BackboneName, Form, Wiring};
use detect::weights::Contents;
use detect::weights::import::{self, About, Imported, Settings};
use detect_torch::backbone::{Auxiliary, Classifier, NasNet};
use detect_torch::nn::Mode;
use detect_torch::weights;
use serde_json::Value;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

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
fn a_network_without_a_classifier_has_its_features() {
    let whole = imported("cifar", &Settings::default());
    let golden = Golden::read(&golden_folder("cifar").join("golden.safetensors"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let mut contents = Contents::default();
    for (name, tensor) in &whole.contents.tensors {
        let bare = name.strip_prefix("backbone.").unwrap();
        if !bare.starts_with("last_linear.") {
            contents.tensors.insert(bare.into(), tensor.clone());
        }
    }
    contents.write(&path).unwrap();
    let mut source = import::open(&path).unwrap();
    let found = import::import(source.as_mut(), None, &Settings::default(), &path).unwrap();
    let About::Featurizer(backbone) = &found.about else { panic!("it has no classifier") };
    let store = VarStore::new(Device::Cpu);
    let network = NasNet::new(&store.root(), backbone, Cut::Last, true);
    weights::load(&store, &found.contents, "backbone.", &path).unwrap();
    let image = golden.get("image").permute([0, 3, 1, 2]);
    for (name, map) in tch::no_grad(|| network.features(&image, Mode::Eval)) {
        if golden.has(&name) {
            assert_close(&name, golden.get(&name), &map.permute([0, 2, 3, 1]), LIMIT);
        }
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

fn count(of: &Value) -> i64 {
    of.as_i64().unwrap()
}

/// A tensor of `aux.json`, by the formula in the head of `tools/golden_tf_slim.py`.
fn formula(tensor: &Value) -> Tensor {
    let shape: Vec<i64> = tensor["shape"].as_array().unwrap().iter().map(count).collect();
    let [offset, scale] = ["offset", "scale"].map(|key| tensor[key].as_f64().unwrap());
    let start = tensor["number"].as_u64().unwrap() << 22;
    let value = |i: i64| {
        let mut h = (i as u64 + start) as u32;
        h = h.wrapping_mul(2_654_435_761);
        h ^= h >> 15;
        h = h.wrapping_mul(2_246_822_519);
        h ^= h >> 13;
        (offset + scale * (f64::from(h >> 8) / f64::from(1 << 23) - 1.)) as f32
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_slice(&values).view(shape.as_slice())
}

/// The auxiliary head of a case of `aux.json`, and the map that it reads.
struct AuxiliaryCase {
    section: Backbone,
    head: Auxiliary,
    store: VarStore,
    /// `[N, C, H, W]`, raw.
    map: Tensor,
    /// `[N, classes]`.
    golden: Tensor,
}

impl AuxiliaryCase {
    fn all() -> Vec<Self> {
        let golden = json(&golden_folder("aux.json"));
        golden["cases"].as_array().unwrap().iter().map(|case| Self::new(case, |_| {})).collect()
    }

    /// The case number `index` after a change of its section.
    fn changed(index: usize, change: impl FnOnce(&mut Backbone)) -> Self {
        Self::new(&json(&golden_folder("aux.json"))["cases"][index], change)
    }

    fn new(case: &Value, change: impl FnOnce(&mut Backbone)) -> Self {
        let [cells, filters, classes, image] =
            ["num_cells", "num_conv_filters", "classes", "image"].map(|key| count(&case[key]));
        let cifar = case["form"] == "cifar";
        let form = if cifar { Form::Cifar } else { Form::ImageNet };
        let mut section = Backbone {
            name: BackboneName::a(cells as usize / 3, 24 * filters as usize, form),
            wiring: Wiring::Mobile,
            stem_filters: 32,
            pooling: Pooling::Tf,
            norm_eps: if cifar { 1e-5 } else { 1e-3 },
            norm_momentum: 0.1,
            norm: NormMode::Live,
            tail_norm: NormMode::Live,
            drop_path_keep: 1.,
            genotype: None,
        };
        change(&mut section);
        let store = VarStore::new(Device::Cpu);
        let size = Size::new(image as usize, image as usize);
        let head = Auxiliary::new(&store.root(), &section, classes as usize, size).unwrap();
        let tensors = store.variables();
        let given = case["variables"].as_array().unwrap();
        assert_eq!(given.len(), tensors.len(), "{:?}", tensors.keys());
        for variable in given {
            let (layer, leaf) = variable["name"].as_str().unwrap().split_once('/').unwrap();
            let name = match (layer, leaf) {
                ("proj", "weights") => "aux.proj.conv.weight",
                ("Conv", "weights") => "aux.conv.conv.weight",
                ("FC", "weights") => "aux.linear.weight",
                ("FC", "biases") => "aux.linear.bias",
                ("aux_bn0", leaf) => &format!("aux.proj.bn.{}", norm_leaf(leaf)),
                ("aux_bn1", leaf) => &format!("aux.conv.bn.{}", norm_leaf(leaf)),
                _ => panic!("{variable} is not known"),
            };
            let value = formula(variable);
            let value = match value.dim() {
                4 => value.permute([3, 2, 0, 1]),
                2 => value.tr(),
                _ => value,
            };
            let mut place = tensors[name].shallow_clone();
            assert_eq!(place.size(), value.size(), "{name}");
            tch::no_grad(|| place.copy_(&value));
        }
        let rows: Vec<Vec<f64>> = serde_json::from_value(case["logits"].clone()).unwrap();
        Self {
            section,
            head,
            store,
            map: formula(&case["map"]).permute([0, 3, 1, 2]),
            golden: Tensor::from_slice2(&rows).to_kind(Kind::Float),
        }
    }

    /// What the head makes of `map` where it should find it; all other maps are empty.
    fn logits(&self, map: &Tensor) -> Tensor {
        let plan = self.section.plan();
        let read = format!("cell_{}", 2 * plan.name.cells_per_stage - 1);
        let empty = || Tensor::zeros([0], (Kind::Float, Device::Cpu));
        let stem = std::iter::once(("conv0".to_owned(), empty()));
        let cells = plan.cells.iter().map(|site| {
            let found = if site.name == read { map.shallow_clone() } else { empty() };
            (site.name.clone(), found)
        });
        let maps: Vec<_> = stem.chain(cells).collect();
        tch::no_grad(|| self.head.forward(&maps, Mode::Eval))
    }

    fn get(&self, name: &str) -> Tensor {
        self.store.variables()[name].shallow_clone()
    }

    fn found(&self) -> f64 {
        difference(&self.golden, &self.logits(&self.map))
    }
}

fn norm_leaf(leaf: &str) -> &'static str {
    match leaf {
        "gamma" => "weight",
        "beta" => "bias",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        _ => panic!("{leaf} is not known"),
    }
}

/// A map of 8x8 whose four pooled values are those of `map` with a 5x5 pool of `stride` after ReLU:
/// each corner lies in one window alone.
fn corners(map: &Tensor, stride: i64) -> Tensor {
    let pooled = map.relu().avg_pool2d([5, 5], [stride, stride], [0, 0], false, true, None::<i64>);
    assert_eq!(pooled.size()[2..], [2, 2]);
    let made = map.zeros_like();
    for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let value = pooled.select(2, y).select(2, x) * 25.;
        made.select(2, 7 * y).select(2, 7 * x).copy_(&value);
    }
    made
}

#[test]
fn the_auxiliary_head_is_tf_slims() {
    let cases = AuxiliaryCase::all();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let what = format!("{} on {:?}", case.section.name, case.map.size());
        assert_close(&what, &case.golden, &case.logits(&case.map), LIMIT);
    }
}

#[test]
fn a_changed_auxiliary_head_is_seen() {
    let seen = |what: &str, found: f64| {
        assert!(found > 10. * LIMIT, "{what} moves the logits by {found:.1e} only");
    };
    for (index, eps) in [(0, 1e-3), (2, 1e-5)] {
        seen("a changed epsilon", AuxiliaryCase::changed(index, |b| b.norm_eps = eps).found());
    }
    for case in AuxiliaryCase::all() {
        seen("a map of the other sign", difference(&case.golden, &case.logits(&case.map.neg())));
        seen("a map without signs", difference(&case.golden, &case.logits(&case.map.abs())));
        assert_close("ReLU twice", &case.golden, &case.logits(&case.map.relu()), LIMIT);
        // Each change is undone before the next.
        let changed = |what: &str, name: &str, change: &dyn Fn(&Tensor) -> Tensor| {
            let mut place = case.get(name);
            let kept = place.copy();
            tch::no_grad(|| place.copy_(&change(&kept)));
            seen(&format!("{what} of {name}"), case.found());
            tch::no_grad(|| place.copy_(&kept));
        };
        for layer in ["proj", "conv"] {
            let leaf = |leaf: &str| format!("aux.{layer}.bn.{leaf}");
            let [mut mean, mut variance] =
                ["running_mean", "running_var"].map(|l| case.get(&leaf(l)));
            let kept = [mean.copy(), variance.copy()];
            mean.copy_(&kept[1]);
            variance.copy_(&kept[0]);
            seen("mean and variance swapped", case.found());
            mean.copy_(&kept[0]);
            variance.copy_(&kept[1]);
            changed("no scale", &leaf("weight"), &Tensor::ones_like);
            changed("no shift", &leaf("bias"), &Tensor::zeros_like);
        }
        changed("height for width", "aux.conv.conv.weight", &|w| w.transpose(2, 3));
        changed("no shift", "aux.linear.bias", &Tensor::zeros_like);
        assert!(case.found() <= LIMIT, "all is as before");
        if case.map.size()[2] == 8 {
            assert_close("stride 3", &case.golden, &case.logits(&corners(&case.map, 3)), LIMIT);
            seen("stride 2", difference(&case.golden, &case.logits(&corners(&case.map, 2))));
        }
    }
}
