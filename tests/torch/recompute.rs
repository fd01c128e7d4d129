//! Recomputing cells in the backward pass changes memory and time, and nothing that is learned.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use detect::config::{Config, LossWeights, Override};
use detect::geometry::{Box2, Label, Size};
use detect_torch::backbone::NasNet;
use detect_torch::detector::{FasterRcnn, Images, Truth};
use detect_torch::nn::Mode;
use detect_torch::precision::Precision;
use detect_torch::weights::named_variables;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Held by each test: all threads draw from libtorch's one generator.
static ALONE: Mutex<()> = Mutex::new(());

/// Live statistics, dropped paths, cells on the regions: all that a second pass could get wrong.
const TAIL: [&str; 6] = [
    "detector.head=tail",
    "detector.cut=pair",
    "backbone.norm=live",
    "backbone.tail_norm=live",
    "backbone.drop_path_keep=0.6",
    "backbone.stem_filters=8",
];
/// TensorFlow's rules, which read crops otherwise.
const TF: [&str; 6] = [
    "detector.rules=tf",
    "detector.crop=crop_and_resize",
    "rpn.channels=16",
    "rpn.pre_nms_train=0",
    "rpn.pre_nms_eval=0",
    "roi.max_per_class=20",
];
/// The trunk alone, whose last map several heads read.
const MLP: [&str; 2] = ["detector.head=mlp", "detector.cut=last"];

/// With a head for whole images, which reads the same map as the RPN.
const WEIGHTS: LossWeights = LossWeights { auxiliary: 0.4, ..LossWeights::ONES };

fn detector(changes: &[&str], recompute: bool) -> (VarStore, FasterRcnn<NasNet>) {
    let changes: Vec<Override> = changes.iter().map(|text| text.parse().unwrap()).collect();
    let mut config = Config::recipe("tiny", &changes).unwrap();
    config.train.loss_weights = WEIGHTS;
    tch::manual_seed(3);
    let store = VarStore::new(Device::Cpu);
    let root = store.root();
    let with_tail = config.detector.head == detect::config::Head::Tail;
    let backbone =
        NasNet::new(&(&root / "backbone"), &config.backbone, config.detector.cut, with_tail);
    let backbone = if recompute { backbone.recomputing() } else { backbone };
    let detector = FasterRcnn::on(backbone, &root, &config, 3).learning(&root, &config, 3);
    (store, detector)
}

/// Losses, gradients and all variables after one forward and backward pass. With `twice` a pass that
/// never went back came before.
fn learn(
    changes: &[&str],
    recompute: bool,
    twice: bool,
) -> ([f64; 5], BTreeMap<String, Tensor>, BTreeMap<String, Tensor>) {
    let (mut store, detector) = detector(changes, recompute);
    // Maps gather their gradients in another order: in single precision the last bits differ.
    store.double();
    tch::manual_seed(4);
    let pixels = Tensor::randn([1, 3, 64, 96], (Kind::Double, Device::Cpu));
    let images = Images { pixels, sizes: vec![Size::new(60, 91)] };
    let truths = [Truth {
        boxes: vec![Box2::new(5., 10., 45., 50.), Box2::new(60., 20., 85., 55.)],
        labels: vec![Label(0), Label(2)],
    }];
    let mode = Mode::Train { progress: 1. };
    let saved: Vec<(String, Tensor)> =
        named_variables(&store).into_iter().map(|(name, t)| (name, t.detach().copy())).collect();
    if twice {
        let _lost = detector.losses(&images, &truths, mode);
        tch::no_grad(|| {
            let mut variables = named_variables(&store);
            for (name, before) in &saved {
                variables.get_mut(name).unwrap().copy_(before);
            }
        });
    }
    tch::manual_seed(5);
    let losses = detector.losses(&images, &truths, mode);
    detector.backward(&losses.total(&WEIGHTS));
    let variables: BTreeMap<String, Tensor> = named_variables(&store).into_iter().collect();
    let gradients = variables.iter().filter(|(_, v)| v.requires_grad() && v.grad().defined());
    let gradients = gradients.map(|(name, v)| (name.clone(), v.grad().copy())).collect();
    let variables = variables.iter().map(|(name, v)| (name.clone(), v.detach().copy())).collect();
    (losses.values(), gradients, variables)
}

#[test]
fn what_is_learned_does_not_depend_on_what_is_kept() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let tf = [&TAIL[..], &TF[..]].concat();
    for changes in [&TAIL[..], &tf, &MLP] {
        let (losses, gradients, variables) = learn(changes, false, false);
        // Once after a pass that never went back.
        for twice in if changes == MLP { vec![false, true] } else { vec![false] } {
            let again = learn(changes, true, twice);
            assert_eq!(losses.map(f64::to_bits), again.0.map(f64::to_bits), "{changes:?}");
            assert!(again.1.keys().eq(gradients.keys()), "{changes:?}");
            let backbone = gradients.keys().filter(|name| name.starts_with("backbone.")).count();
            assert!(backbone > 50, "{backbone} of {}", gradients.len());
            for (name, gradient) in &gradients {
                let largest = gradient.abs().max().double_value(&[]);
                let off = (gradient - &again.1[name]).abs().max().double_value(&[]);
                assert!(off <= 1e-11 * largest + 1e-18, "{name}: {off} of {largest}, {changes:?}");
            }
            for (name, variable) in &variables {
                assert!(variable.equal(&again.2[name]), "{name} moved otherwise, {changes:?}");
            }
        }
    }
}

/// Autocast casts weights at each use. A cast that the pass without gradients has made must not serve the second one:
/// nothing would reach the weights.
#[test]
fn what_is_computed_again_is_computed_in_the_same_precision() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pass = |recompute: bool| {
        let (store, detector) = detector(&TAIL[..5], recompute);
        tch::manual_seed(4);
        let pixels = Tensor::randn([1, 3, 64, 96], (Kind::Float, Device::Cpu));
        let images = Images { pixels, sizes: vec![Size::new(60, 91)] };
        let truths = [Truth { boxes: vec![Box2::new(5., 10., 45., 50.)], labels: vec![Label(0)] }];
        tch::manual_seed(5);
        let losses = Precision::Bf16.within(Device::Cpu, || {
            detector.losses(&images, &truths, Mode::Train { progress: 1. })
        });
        detector.backward(&losses.total(&WEIGHTS));
        let learns = named_variables(&store).into_iter().filter(|(_, v)| v.requires_grad());
        let gradients: Vec<(String, Tensor)> = learns
            .filter(|(_, v)| v.grad().defined())
            .map(|(name, v)| (name, v.grad().to_kind(Kind::Double).flatten(0, -1)))
            .collect();
        (losses.values(), gradients)
    };
    let ((losses, kept), (again_losses, again)) = (pass(false), pass(true));
    assert_eq!(losses.map(f64::to_bits), again_losses.map(f64::to_bits));
    assert!(kept.iter().map(|g| &g.0).eq(again.iter().map(|g| &g.0)), "the same weights learn");
    let all = |gradients: &[(String, Tensor)]| {
        Tensor::cat(&gradients.iter().map(|(_, g)| g).collect::<Vec<_>>(), 0)
    };
    let (kept, again) = (all(&kept), all(&again));
    // Sums of bfloat16 gradients are rounded in another order.
    let far = (&kept - again).norm().double_value(&[]) / kept.norm().double_value(&[]);
    assert!(far < 0.02, "{far}");
}
