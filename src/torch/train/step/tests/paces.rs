//! Steps that go ahead of their device, and those that wait.

use super::*;

/// One square picture with `objects`.
fn square(side: usize, objects: usize) -> Batch {
    let size = Size::new(side, side);
    Batch {
        pixels: noise(side, 9).collect::<Vec<_>>().into(),
        samples: vec![Sample { original: size, resized: size, ..sample(0, objects) }],
        padded: size,
    }
}

/// Losses and gradients of a step of each of `paces`, its running statistics, and how often the trunk was passed: with
/// gradients, and without.
fn of_each_pace(
    config: &Config,
    batches: &[Batch],
    paces: &[Pace],
) -> Vec<([f64; 5], Tensor, Tensor, [usize; 2])> {
    let of = |&pace: &Pace| {
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let network = watched(&store, config);
        let mut optimizer = Optimizer::new(&store, &config.train);
        let mode = Mode::Train { progress: 1. };
        let settings = Settings { mode, pace, ..settings(config) };
        let mut forecast = Forecast::default();
        let losses =
            gradients(&network, &mut optimizer, &mut forecast, batches, &settings).unwrap();
        let passes = *network.backbone().passes.lock().unwrap();
        (losses, optimizer.gradients().copy(), optimizer.fixed().copy(), passes)
    };
    paces.iter().map(of).collect()
}

#[test]
fn a_step_that_goes_ahead_has_the_bits_of_one_that_waits() {
    let _alone = crate::nn::alone();
    let paces = [Pace::Waits, Pace::Ahead];
    for rules in [Rules::Torchvision, Rules::Tf] {
        // As many as each image has, and more than any has, or could have; as one batch, and as two.
        let endless = 1 << 31;
        for (sampled, most, holds) in [(4, 12, true), (10_000, 12, true), (endless, endless, false)]
        {
            for mut batches in [vec![batch(0..2)], vec![batch(0..1), batch(1..2)]] {
                // One image shows nothing.
                let empty = batches.last_mut().unwrap().samples.last_mut().unwrap();
                empty.boxes.clear();
                empty.labels.clear();
                let mut config = config(rules);
                (config.backbone.norm, config.backbone.tail_norm) =
                    (NormMode::Live, NormMode::Live);
                config.backbone.drop_path_keep = 0.7;
                config.train.recompute = sampled != 10_000;
                (config.rpn.post_nms_train, config.roi.sampled) = (most, sampled);
                if !holds {
                    config.rpn.nms_iou = 0.5; // not every anchor becomes a proposal
                }
                let found = of_each_pace(&config, &batches, &paces);
                let [waited, ahead] = &found[..] else { unreachable!("two paces") };
                assert_eq!(waited.0, ahead.0, "{rules:?} {sampled}");
                assert!(waited.0.iter().all(|loss| *loss > 0.), "{:?}", waited.0);
                assert!(waited.1.equal(&ahead.1), "gradients, {rules:?} {sampled}");
                assert!(waited.2.equal(&ahead.2), "running statistics, {rules:?} {sampled}");
                // Made again by passes that wait, for several batches after they were counted.
                let once = batches.len();
                let expected = match (holds, once) {
                    (true, _) => [waited.3[0], 0],
                    (false, 1) => [2, 0],
                    (false, _) => [2 * once, once],
                };
                assert_eq!(ahead.3, expected, "{rules:?} {sampled}");
            }
        }
    }
}

#[test]
fn steps_wait_for_a_while_after_one_that_could_not_go_ahead() {
    let _alone = crate::nn::alone();
    let mut config = config(Rules::Torchvision);
    (config.rpn.post_nms_train, config.roi.sampled) = (12, 8);
    tch::manual_seed(1);
    let store = VarStore::new(Device::Cpu);
    let network = watched(&store, &config);
    let mut optimizer = Optimizer::new(&store, &config.train);
    let mut forecast = Forecast::default();
    let settings = Settings { pace: Pace::Ahead, ..settings(&config) };
    let mut passes = |batch: &Batch| {
        *network.backbone().passes.lock().unwrap() = [0, 0];
        let batches = std::slice::from_ref(batch);
        gradients(&network, &mut optimizer, &mut forecast, batches, &settings).unwrap();
        network.backbone().passes.lock().unwrap()[0]
    };
    // An image of few anchors offers fewer than eight regions.
    let few = square(16, 0);
    let many = batch(0..2);
    assert_eq!(passes(&many), 1, "goes ahead");
    assert_eq!(passes(&few), 2, "is made again");
    assert_eq!(passes(&few), 1, "waits");
    for _ in 0..Doubts::FIRST {
        assert_eq!(passes(&many), 1, "waits");
    }
    assert_eq!(passes(&few), 2, "went ahead again");
    // For longer now, since it was wrong again.
    for _ in 0..2 * Doubts::FIRST {
        assert_eq!(passes(&many), 1, "waits");
    }
    assert_eq!(passes(&few), 2, "and again");
}

#[test]
fn doubts_come_back_for_longer_until_there_was_no_reason() {
    let mut doubts = Doubts::default();
    let steps_until_none = |doubts: &mut Doubts, right: bool| {
        doubts.learn(right);
        let mut steps = 0;
        while doubts.any() && steps <= Doubts::MOST {
            doubts.learn(true);
            steps += 1;
        }
        steps
    };
    assert_eq!([false; 3].map(|right| steps_until_none(&mut doubts, right)), [8, 16, 32]);
    assert_eq!(steps_until_none(&mut doubts, true), 0, "relied on, and right");
    assert_eq!(steps_until_none(&mut doubts, false), 8);
    let last = (0..20).map(|_| steps_until_none(&mut doubts, false)).last();
    assert_eq!(last, Some(Doubts::MOST));
    // What would have been wrong lets them last.
    let mut doubts = Doubts::default();
    doubts.learn(false);
    (0..5).for_each(|_| doubts.learn(true));
    doubts.learn(false);
    assert_eq!(doubts.left, Doubts::FIRST);
}

#[test]
fn what_a_waiting_pass_can_not_see_is_doubted_as_long_as_anything() {
    let _alone = crate::nn::alone();
    // Boxes that share a pixel are too close, so that 11 cannot be found among the 88 best; and two are sampled.
    let mut config = config(Rules::Tf);
    (config.rpn.nms_iou, config.rpn.post_nms_train, config.roi.sampled) = (0., 11, 2);
    config.anchors.sizes = vec![40.];
    let large = square(128, 1);
    tch::manual_seed(1);
    let store = VarStore::new(Device::Cpu);
    let network = watched(&store, &config);
    let mut optimizer = Optimizer::new(&store, &config.train);
    let mut forecast = Forecast::default();
    let settings = Settings { pace: Pace::Ahead, ..settings(&config) };
    gradients(&network, &mut optimizer, &mut forecast, &[large], &settings).unwrap();
    assert_eq!(network.backbone().passes.lock().unwrap()[0], 2, "made again");
    assert_eq!(forecast.ahead.left, Doubts::FIRST, "though the second pass had all its regions");
}

#[test]
fn one_process_that_could_not_go_ahead_has_all_wait() {
    let _alone = crate::nn::alone();
    let mut config = config(Rules::Torchvision);
    // The trunk's map of a small image has but one cell, which has no variance.
    config.backbone.tail_norm = NormMode::Live;
    // All are taken, in whatever order: threads, unlike processes, draw from one generator.
    (config.rpn.sampled, config.rpn.post_nms_train, config.roi.sampled) = (10_000, 12, 10_000);
    let few = square(16, 0);
    // The last process has no batch.
    let shares = [vec![batch(0..2)], vec![few], vec![]];
    let of_pace = |pace: Pace| {
        let group = Threads::group(3);
        let (config, ranks) = (config.clone(), group.ranks);
        let shares = shares.iter().map(|batches| (alike(&config), batches.clone())).collect();
        let each = move |_: usize, ((store, network), batches): (_, Vec<Batch>)| {
            let mut optimizer = Optimizer::new(&store, &config.train);
            let settings = Settings { ranks, batch: 2, pace, ..settings(&config) };
            let mut forecast = Forecast::default();
            let losses =
                gradients(&network, &mut optimizer, &mut forecast, &batches, &settings).unwrap();
            let doubts = [forecast.ahead.left, forecast.counts.left];
            (losses, optimizer.gradients().copy(), optimizer.fixed().copy(), doubts)
        };
        let (done, waits) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(group.each(shares, each)));
        waits.recv_timeout(std::time::Duration::from_mins(2)).expect("none waits for ever")
    };
    let (waited, ahead) = (of_pace(Pace::Waits), of_pace(Pace::Ahead));
    for (waited, ahead) in waited.iter().zip(&ahead) {
        assert_eq!(waited.0, ahead.0);
        assert!(waited.1.equal(&ahead.1), "gradients");
        assert!(waited.2.equal(&ahead.2), "running statistics");
        assert_eq!([waited.3, ahead.3], [[0, 0], [Doubts::FIRST, 0]], "though one could have");
    }
}
