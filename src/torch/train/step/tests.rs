//! Batches that count as one, here and in other processes.

use super::*;
use crate::ranks::threads::Threads;
use detect::config::{Config, NormMode, Rules};
use detect::data::loader::Sample;
use detect::geometry::{Box2, Label};
use tch::nn::VarStore;

const SIDE: usize = 64;

/// A picture of noise with `objects` squares.
fn sample(index: usize, objects: usize) -> Sample {
    let boxes = (0..objects).map(|i| {
        let at = (3 + 5 * index + 9 * i) as f32;
        Box2::new(at, at, at + 24., at + 30.)
    });
    Sample {
        index,
        image_id: index as i64,
        original: Size::new(SIDE, SIDE),
        resized: Size::new(SIDE, SIDE),
        boxes: boxes.collect(),
        labels: (0..objects).map(|i| Label(i % 2)).collect(),
    }
}

/// The pixels of picture `index`, a square of `side`.
fn noise(side: usize, index: usize) -> impl Iterator<Item = f32> {
    (0..side * side * 3).map(move |i| ((i * (index * 31 + 17)) % 251) as f32 / 125. - 1.)
}

fn batch(samples: std::ops::Range<usize>) -> Batch {
    let size = Size::new(SIDE, SIDE);
    Batch {
        pixels: samples.clone().flat_map(|index| noise(SIDE, index)).collect::<Vec<_>>().into(),
        samples: samples.map(|i| sample(i, 1 + i % 3)).collect(),
        padded: size,
    }
}

fn config(rules: Rules) -> Config {
    let mut config = Config::recipe("tiny", &[]).unwrap();
    config.backbone.norm = NormMode::Frozen;
    config.backbone.tail_norm = NormMode::Frozen;
    config.backbone.drop_path_keep = 1.;
    config.rpn.post_nms_train = 6;
    config.detector.rules = rules;
    config.train.loss_weights.auxiliary = 0.4;
    if rules == Rules::Tf {
        (config.rpn.pre_nms_train, config.rpn.pre_nms_eval) = (0, 0);
    }
    config
}

/// The detector of two classes that `config` describes.
fn detector(store: &VarStore, config: &Config) -> FasterRcnn<crate::backbone::NasNet> {
    let root = store.root();
    FasterRcnn::new(&root, config, 2).learning(&root, config, 2)
}

/// That detector and its weights, which are the same each time. To be made before threads that stand for processes draw
/// from the one generator that is there for all.
fn alike(config: &Config) -> (VarStore, FasterRcnn<crate::backbone::NasNet>) {
    tch::manual_seed(1);
    let store = VarStore::new(Device::Cpu);
    let network = detector(&store, config);
    (store, network)
}

/// Of one process on a CPU.
fn settings(config: &Config) -> Settings<'_> {
    Settings {
        mode: Mode::Train { progress: 0. },
        loss_weights: &config.train.loss_weights,
        device: Device::Cpu,
        precision: Precision::Float32,
        scale: 1.,
        seed: &|image| image as i64 * 77 + 5,
        ranks: Group::ALONE,
        synchronised: false,
        batch: 4,
        pace: Pace::Waits,
    }
}

/// Gradients and losses of the batches.
fn gradients_of(config: &Config, batches: &[Batch]) -> (Tensor, [f64; 5]) {
    tch::manual_seed(1);
    let store = VarStore::new(Device::Cpu);
    let network = detector(&store, config);
    let mut optimizer = Optimizer::new(&store, &config.train);
    let losses =
        gradients(&network, &mut optimizer, &mut Forecast::default(), batches, &settings(config))
            .unwrap();
    (optimizer.gradients().copy(), losses)
}

#[test]
fn several_batches_count_as_one() {
    let _alone = crate::nn::alone();
    for rules in [Rules::Torchvision, Rules::Tf] {
        for sampled in [8, 10_000] {
            // With 10,000 every image gives all it has, which differs from image to image.
            let mut config = config(rules);
            (config.rpn.sampled, config.roi.sampled) = (sampled, sampled);
            let (whole, losses) = gradients_of(&config, &[batch(0..4)]);
            for parts in [vec![0..2, 2..4], vec![0..1, 1..2, 2..4]] {
                let parts: Vec<Batch> = parts.into_iter().map(batch).collect();
                let (summed, summed_losses) = gradients_of(&config, &parts);
                let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
                let far = norm(&(&whole - &summed)) / norm(&whole);
                assert!(far < 1e-6, "{rules:?} {sampled} in {}: {far}", parts.len());
                for (a, b) in losses.iter().zip(summed_losses) {
                    assert!((a - b).abs() <= 1e-6 * a.abs(), "{losses:?} {summed_losses:?}");
                }
            }
        }
    }
}

#[test]
fn a_step_that_is_made_again_moves_running_statistics_once() {
    let _alone = crate::nn::alone();
    let mut config = config(Rules::Torchvision);
    config.backbone.norm = NormMode::Live;
    (config.rpn.sampled, config.roi.sampled) = (10_000, 10_000);
    let moved = |batches: &[Batch]| {
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let network = detector(&store, &config);
        let mut optimizer = Optimizer::new(&store, &config.train);
        let settings = settings(&config);
        let mut forecast = Forecast::default();
        for step in batches.chunks(2) {
            gradients(&network, &mut optimizer, &mut forecast, step, &settings).unwrap();
        }
        optimizer.fixed().copy()
    };
    // The same two batches as one step that is made twice, and as a plain walk through both.
    let batches = [batch(0..2), batch(2..4)];
    let together = moved(&batches);
    let alone = {
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let network = detector(&store, &config);
        let optimizer = Optimizer::new(&store, &config.train);
        let mode = Mode::Train { progress: 0. };
        for batch in &batches {
            let truths = vec![Truth::default(); 2];
            network.losses(&predict::images(batch, Device::Cpu), &truths, mode);
        }
        optimizer.fixed().copy()
    };
    assert!(together.equal(&alone));
}

/// A featurizer that counts the passes through its trunk: with gradients, and without.
#[derive(Debug)]
struct Watched {
    inner: crate::backbone::NasNet,
    passes: std::sync::Mutex<[usize; 2]>,
    /// Each pass makes another map of the same images.
    unlike: std::sync::atomic::AtomicBool,
}

impl Backbone for Watched {
    fn spec(&self) -> crate::backbone::CutSpec {
        self.inner.spec()
    }

    fn trunk(&self, images: &Tensor, mode: Mode) -> Tensor {
        let map = self.inner.trunk(images, mode);
        let mut passes = self.passes.lock().unwrap();
        passes[usize::from(!map.requires_grad())] += 1;
        if self.unlike.load(std::sync::atomic::Ordering::Relaxed) {
            map * 2_f64.powi(passes[0] as i32)
        } else {
            map
        }
    }

    fn tail(&self, crops: &Tensor, mode: Mode) -> Tensor {
        self.inner.tail(crops, mode)
    }

    fn backward(&self) {
        self.inner.backward();
    }
}

/// The detector of `config` on such a featurizer.
fn watched(store: &VarStore, config: &Config) -> FasterRcnn<Watched> {
    let path = store.root();
    let backbone = &path / "backbone";
    let inner =
        crate::backbone::NasNet::new(&backbone, &config.backbone, config.detector.cut, true);
    let inner = if config.train.recompute { inner.recomputing() } else { inner };
    let watched = Watched { inner, passes: [0, 0].into(), unlike: false.into() };
    FasterRcnn::on(watched, &path, config, 2).learning(&path, config, 2)
}

#[test]
fn after_a_surprise_samples_are_counted_and_no_step_is_made_twice() {
    let _alone = crate::nn::alone();
    for norm in [NormMode::Frozen, NormMode::Live] {
        let mut config = config(Rules::Torchvision);
        (config.backbone.norm, config.backbone.drop_path_keep) = (norm, 0.7);
        (config.rpn.sampled, config.roi.sampled) = (10_000, 10_000);
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let network = watched(&store, &config);
        let mut optimizer = Optimizer::new(&store, &config.train);
        let before = optimizer.fixed().copy();
        let mut forecast = Forecast::default();
        // All images draw alike.
        let mode = Mode::Train { progress: 1. };
        let settings = Settings { mode, seed: &|_| 5, ..settings(&config) };
        let mut step = |batches: &[Batch]| {
            *network.backbone().passes.lock().unwrap() = [0, 0];
            tch::no_grad(|| optimizer.fixed().copy_(&before));
            let losses =
                gradients(&network, &mut optimizer, &mut forecast, batches, &settings).unwrap();
            let passes = *network.backbone().passes.lock().unwrap();
            (passes, losses, optimizer.gradients().copy(), optimizer.fixed().copy())
        };
        // Objects are boxes of their own among the regions: these batches have unlike numbers.
        let unlike = [batch(0..1), batch(1..3)];
        let (passes, losses, gradients, statistics) = step(&unlike);
        assert_eq!(passes, [4, 0], "made twice");
        for _ in 0..3 {
            let (passes, same_losses, same, same_statistics) = step(&unlike);
            assert_eq!(passes, [2, 2], "counted");
            assert_eq!(same_losses, losses);
            assert!(same.equal(&gradients) && same_statistics.equal(&statistics));
        }
        // The same image twice offers what can be concluded from the first.
        let alike = [batch(0..1), batch(0..1)];
        for _ in 0..Doubts::FIRST {
            assert_eq!(step(&alike).0, [2, 2]);
        }
        assert_eq!(step(&alike).0, [2, 0], "relied on again");
    }
}

#[test]
fn a_step_ends_though_no_pass_is_like_another() {
    let _alone = crate::nn::alone();
    let mut config = config(Rules::Torchvision);
    // All that are offered are taken, and other maps offer others.
    (config.rpn.post_nms_train, config.rpn.nms_iou, config.roi.sampled) = (2000, 0.5, 10_000);
    tch::manual_seed(1);
    let store = VarStore::new(Device::Cpu);
    let network = watched(&store, &config);
    network.backbone().unlike.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut optimizer = Optimizer::new(&store, &config.train);
    let mut forecast = Forecast::default();
    let batches = [batch(0..1), batch(1..3)];
    let losses =
        gradients(&network, &mut optimizer, &mut forecast, &batches, &settings(&config)).unwrap();
    assert!(losses.iter().all(|loss| loss.is_finite()));
    assert_eq!(*network.backbone().passes.lock().unwrap(), [2 * ATTEMPTS, 0]);
}

#[test]
fn a_loss_that_is_scaled_by_a_power_of_two_gives_the_same_gradients() {
    let _alone = crate::nn::alone();
    let config = config(Rules::Torchvision);
    let gradients_at = |scale: f64| {
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let network = detector(&store, &config);
        let mut optimizer = Optimizer::new(&store, &config.train);
        let settings = Settings { scale, ..settings(&config) };
        let mut forecast = Forecast::default();
        let losses =
            gradients(&network, &mut optimizer, &mut forecast, &[batch(0..2)], &settings).unwrap();
        optimizer.divide_gradients(scale);
        (losses, optimizer.gradients().copy())
    };
    let (plain, scaled) = (gradients_at(1.), gradients_at(1024.));
    assert_eq!(plain.0, scaled.0, "losses are told without it");
    assert!(plain.1.equal(&scaled.1));
}

#[test]
fn weights_whose_order_in_memory_a_convolution_would_change_are_few() {
    let _alone = crate::nn::alone(); // making a network draws its first weights
    // What `optim::flat` says of channels-last maps.
    let store = VarStore::new(Device::Cpu);
    let config = Config::recipe("default", &[]).unwrap();
    let network = FasterRcnn::new(&store.root(), &config, 2);
    let reordered = |weight: &Tensor| {
        let size = weight.size();
        // Both orders are the same where either the channels or the pixels of a kernel are one.
        size.len() == 4 && size[1] > 1 && size[2] * size[3] > 1
    };
    let variables = crate::weights::named_variables(&store);
    let found: Vec<&str> =
        variables.iter().filter(|(_, w)| reordered(w)).map(|(n, _)| n.as_str()).collect();
    assert_eq!(found, ["backbone.conv0.conv.weight", "rpn.head.conv.0.0.weight"]);
    // Maps stay channels-last through the whole trunk.
    let pixels = Tensor::zeros([1, 3, 64, 96], (Kind::Float, Device::Cpu));
    let map = tch::no_grad(|| network.backbone().trunk(&pixels, Mode::Eval));
    assert_eq!(map.stride()[1], 1);
}

#[test]
fn a_fault_of_one_process_is_told_to_all() {
    let group = Threads::group(3);
    let found = group.each(vec![(); 3], |rank, ()| {
        let found = match rank {
            1 => Err(Fault { losses: [1., f64::NAN, 3., 4., 5.], batch: 1 }),
            _ => Ok([rank as f64; 5]),
        };
        agreed(found, &[batch(0..1), batch(2..4)], &*group.ranks)
    });
    for told in found {
        let told = told.unwrap_err();
        assert_eq!(told.image_ids, [2, 3]);
        assert!(told.losses[1].is_nan() && told.losses[3] == 4.);
    }
    let found = group
        .each(vec![(); 3], |rank, ()| agreed(Ok([rank as f64; 5]), &[], &*group.ranks).unwrap());
    assert_eq!(found, [[3.; 5]; 3], "the sum");
}

#[test]
fn a_process_without_regions_does_not_let_the_others_wait() {
    let _alone = crate::nn::alone();
    let mut config = config(Rules::Tf);
    (config.backbone.norm, config.backbone.tail_norm) = (NormMode::Live, NormMode::Synchronised);
    // Nothing is drawn: threads, unlike processes, would draw from one generator.
    (config.rpn.sampled, config.roi.sampled) = (10_000, 10_000);
    // No anchor lies inside of an image of 32 pixels: it offers no region.
    config.anchors.sizes = vec![40.];
    let gradients = [false, true].map(|recompute| {
        config.train.recompute = recompute;
        gradients_beside_nothing(&config)
    });
    let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
    let far = norm(&(&gradients[0] - &gradients[1])) / norm(&gradients[0]);
    assert!(far < 1e-6, "cells that are computed again take the same part in the norms: {far}");
}

/// The gradients that two processes leave, of which one has no region.
fn gradients_beside_nothing(config: &Config) -> Tensor {
    let small = Size::new(32, 32);
    let nothing = Batch {
        pixels: noise(32, 9).collect::<Vec<_>>().into(),
        samples: vec![Sample { original: small, resized: small, ..sample(9, 0) }],
        padded: small,
    };
    let group = Threads::group(2);
    let (config, made) = (config.clone(), config.clone());
    let each = move |rank: usize, ((store, network), batch): (_, Batch)| {
        let mut optimizer = Optimizer::new(&store, &config.train);
        let before = optimizer.fixed().copy();
        let settings =
            Settings { ranks: group.ranks, synchronised: true, batch: 2, ..settings(&config) };
        let mut forecast = Forecast::default();
        let losses =
            gradients(&network, &mut optimizer, &mut forecast, &[batch], &settings).unwrap();
        let finite = optimizer.fixed().isfinite().all().int64_value(&[]) == 1;
        assert!(finite && !optimizer.fixed().equal(&before), "statistics of process {rank}");
        (losses, optimizer.gradients().copy())
    };
    let batches = [batch(0..2), nothing].map(|batch| (alike(&made), batch)).into();
    let (done, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(group.each(batches, each)));
    let found = waits.recv_timeout(std::time::Duration::from_mins(2)).expect("none waits for ever");
    let [(losses, gradients), (other, others)] = found.try_into().expect("two processes");
    assert_eq!(losses, other, "losses are those of all");
    assert!(losses[0] > 0., "process 0 has regions");
    assert!(gradients.equal(&others), "so are gradients");
    gradients
}

mod paces;
