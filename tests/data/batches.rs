//! Batches: order, pixels, truth, and images that can't be used.

use std::collections::BTreeSet;
use std::sync::Arc;

use detect::config::{Augment, Config, EpochSampling, Input, Loader, Resize, Train};
use detect::data::coco::Dataset;
use detect::data::image::decode;
use detect::data::loader::{Batch, EvalLoader, LoadError, TrainLoader, prepare};
use detect::data::sampling::Epochs;
use detect::geometry::{Box2, Label, Size};
use serde_json::json;

use crate::coco::{Set, annotation, annotations, image, test_data};

const NO_CHANGES: Augment =
    Augment { flip: 0., vertical_flip: 0., scale: [1., 1.], short_sides: Vec::new(), color: 0. };

fn input() -> Input {
    let resize = Resize::ShortSide { short_side: 64, long_side: 128 };
    Input { resize, mean: [0.5; 3], std: [0.25; 3] }
}

fn train(batch: usize, threads: usize, augment: Augment) -> Train {
    let recipe = Config::recipe("tiny", &[]).expect("a shipped recipe").train;
    Train { batch, seed: 5, augment, loader: Loader { threads, prefetch: 2 }, ..recipe }
}

/// Twelve images of three sizes, each with a box around its white rectangle.
fn twelve() -> (Set, Arc<Dataset>) {
    let set = Set::new();
    let (mut images, mut boxes) = (Vec::new(), Vec::new());
    for id in 0..12 {
        let (h, w) = [(60, 80), (50, 50), (90, 40)][id as usize % 3];
        let white = [3 + id, 5 + id, 10, 8 + id];
        set.png(&format!("{id}.png"), (h, w), 40 + id as u8, white);
        images.push(image(id.into(), &format!("{id}.png"), (h, w)));
        boxes.push(annotation(id.into(), id.into(), [1, 7][id as usize % 2], white.map(f64::from)));
    }
    set.split("t", &annotations(&images, &boxes));
    let dataset = Dataset::open(set.root(), "t").unwrap();
    (set, Arc::new(dataset))
}

#[test]
fn a_batch_is_padded_with_zeros_at_the_right_and_at_the_bottom() {
    let (_set, data) = twelve();
    let pictures: Vec<_> =
        data.images[..2].iter().map(|i| decode(&i.file).unwrap().image).collect();
    let both = prepare(&[&pictures[0], &pictures[1]], &input());
    // 60 x 80 to a short side of 64: 80 * 64 / 60 = 85.3, and 50 x 50 to 64 x 64.
    let sizes: Vec<_> = both.samples.iter().map(|s| s.resized).collect();
    assert_eq!(sizes, [Size::new(64, 85), Size::new(64, 64)]);
    assert_eq!(both.padded, Size::new(64, 96));
    assert_eq!(both.pixels.len(), 2 * 64 * 96 * 3);
    for (i, picture) in pictures.iter().enumerate() {
        let alone = prepare(&[picture], &input());
        for y in 0..64 {
            let row = |b: &Batch, n: usize| {
                let from = (n * 64 + y) * b.padded.width * 3;
                b.pixels[from..from + b.padded.width * 3].to_vec()
            };
            let width = sizes[i].width * 3;
            assert_eq!(row(&both, i)[..width], row(&alone, 0)[..width]);
            assert!(row(&both, i)[width..].iter().all(|&v| v == 0.));
        }
    }
    // Grey 40 + id, normalised by hand; the corner is far from the white rectangle.
    assert!((both.pixels[0] - (40. / 255. - 0.5) / 0.25).abs() < 1e-5);
    assert_eq!(prepare(&[], &input()).pixels.len(), 0);
}

#[test]
fn truth_is_clipped_filtered_and_scaled() {
    let set = Set::new();
    set.png("a.png", (60, 80), 9, [0; 4]);
    let mut crowd = annotation(6, 1, 1, [0., 0., 40., 40.]);
    crowd["iscrowd"] = json!(1);
    let boxes = [
        annotation(1, 1, 7, [8., 6., 20., 30.]),
        annotation(2, 1, 1, [70., 50., 30., 30.]), // reaches beyond
        annotation(3, 1, 1, [79.5, 10., 30., 5.]), // half a pixel is inside
        annotation(4, 1, 1, [5., 5., 0., 0.]),
        annotation(5, 1, 1, [5., 5., 1., 1.]), // exactly 1 px stays
        crowd,
    ];
    set.split("t", &annotations(&[image(1, "a.png", (60, 80))], &boxes));
    let data = Arc::new(Dataset::open(set.root(), "t").unwrap());
    let batch =
        TrainLoader::start(data, &train(1, 1, NO_CHANGES), &input(), 0, 1).next().unwrap().unwrap();
    let sample = &batch.samples[0];
    assert_eq!((sample.original, sample.resized), (Size::new(60, 80), Size::new(64, 85)));
    assert_eq!(sample.labels, [Label(1), Label(0), Label(0)]);
    let (sy, sx) = (64f32 / 60., 85f32 / 80.);
    let expected = [
        Box2::new(8. * sx, 6. * sy, 28. * sx, 36. * sy),
        Box2::new(70. * sx, 50. * sy, 80. * sx, 60. * sy),
        Box2::new(5. * sx, 5. * sy, 6. * sx, 6. * sy),
    ];
    assert_eq!(sample.boxes, expected);
}

#[test]
fn a_kept_aspect_is_padded_with_black_before_normalisation() {
    let (_set, data) = twelve();
    let picture = decode(&data.images[0].file).unwrap().image;
    let resize = Resize::KeepAspect { min_dimension: 48, max_dimension: 96, pad: true };
    let input = Input { resize, mean: [0.5; 3], std: [0.25; 3] };
    let batch = prepare(&[&picture], &input);
    // 60 x 80 to a short side of 48, in a square of 96.
    assert_eq!(batch.samples[0].resized, Size::new(48, 64));
    assert_eq!(batch.padded, Size::new(96, 96));
    for (i, &value) in batch.pixels.iter().enumerate() {
        let (y, x) = (i / (3 * 96), i / 3 % 96);
        assert_eq!(y >= 48 || x >= 64, value == -2., "at {y}, {x}: {value}");
    }
}

#[test]
fn a_fixed_size_scales_boxes_by_each_axis() {
    let (_set, data) = twelve();
    let resize = Resize::Fixed { height: 30, width: 160 };
    let input = Input { resize, mean: [0.5; 3], std: [0.25; 3] };
    let mut loader = TrainLoader::start(Arc::clone(&data), &train(1, 1, NO_CHANGES), &input, 0, 1);
    let batch = loader.next().unwrap().unwrap();
    let sample = &batch.samples[0];
    assert_eq!((sample.resized, batch.padded), (Size::new(30, 160), Size::new(30, 160)));
    let truth = &data.images[sample.index].annotations[0];
    let (h, w) = (sample.original.height as f32, sample.original.width as f32);
    assert_eq!(sample.boxes[0], truth.bbox.scaled(30. / h, 160. / w));
}

#[test]
fn boxes_stay_on_their_objects_whatever_is_changed() {
    let (_set, data) = twelve();
    for (flip, vertical_flip, scale) in
        [(0., 0., [1., 1.]), (1., 0., [1., 1.]), (0., 1., [1., 1.]), (1., 1., [0.7, 1.5])]
    {
        let augment = Augment { flip, vertical_flip, scale, ..NO_CHANGES };
        let loader = TrainLoader::start(Arc::clone(&data), &train(5, 2, augment), &input(), 0, 3);
        let mut seen = 0;
        for batch in loader {
            let batch = batch.unwrap();
            let per_image = batch.padded.height * batch.padded.width;
            for (n, sample) in batch.samples.iter().enumerate() {
                seen += 1;
                let b = sample.boxes[0];
                // White is (1 - 0.5) / 0.25 = 2, the greys are about -1.3: 0.7 tells them apart.
                let mut edges = [f32::MAX, f32::MAX, f32::MIN, f32::MIN];
                for y in 0..sample.resized.height {
                    for x in 0..sample.resized.width {
                        if batch.pixels[(n * per_image + y * batch.padded.width + x) * 3] > 0.7 {
                            let (x, y) = (x as f32, y as f32);
                            edges = [
                                edges[0].min(x),
                                edges[1].min(y),
                                edges[2].max(x + 1.),
                                edges[3].max(y + 1.),
                            ];
                        }
                    }
                }
                for (edge, truth) in edges.iter().zip([b.x1, b.y1, b.x2, b.y2]) {
                    assert!((edge - truth).abs() <= 1.6, "{edges:?} {b:?} {flip} {vertical_flip}");
                }
            }
        }
        assert_eq!(seen, 12);
    }
}

#[test]
fn batches_follow_from_the_seed_and_the_step_alone() {
    let (_set, data) = twelve();
    let augment = Augment {
        flip: 0.5,
        vertical_flip: 0.5,
        scale: [0.8, 1.2],
        short_sides: vec![],
        color: 0.3,
    };
    let run = |threads, first| -> Vec<Batch> {
        let train = train(5, threads, augment.clone());
        TrainLoader::start(Arc::clone(&data), &train, &input(), first, 9)
            .map(Result::unwrap)
            .collect()
    };
    let straight = run(1, 0);
    assert_eq!(straight.len(), 9);
    assert!(run(3, 0) == straight);
    // From the middle of the second epoch, and on a thread count that deals the steps otherwise.
    assert!(run(2, 4) == straight[4..]);
    // Nothing of a batch that was dropped shows in the one that is made in its memory.
    let reused = TrainLoader::start(
        Arc::clone(&data),
        &train(5, 2, augment.clone()),
        &input(),
        0,
        straight.len(),
    );
    for (batch, kept) in reused.zip(&straight) {
        assert!(batch.unwrap() == *kept);
    }
    let sizes: Vec<_> = straight.iter().map(|b| b.samples.len()).collect();
    assert_eq!(sizes, [5, 5, 2, 5, 5, 2, 5, 5, 2]);
    for epoch in straight.chunks(3) {
        let seen: BTreeSet<_> = epoch.iter().flat_map(|b| &b.samples).map(|s| s.index).collect();
        assert_eq!(seen, (0..12).collect());
    }
    let first =
        |epoch: usize| straight[epoch * 3].samples.iter().map(|s| s.index).collect::<Vec<_>>();
    assert_ne!(first(0), first(1));
    let mut other = train(5, 1, augment.clone());
    other.seed = 6;
    let batch =
        TrainLoader::start(Arc::clone(&data), &other, &input(), 0, 1).next().unwrap().unwrap();
    assert!(batch != straight[0]);
}

#[test]
fn a_bad_image_stops_training_and_is_left_out_of_an_evaluation() {
    let (set, data) = twelve();
    set.file("images/4.png", b"\x89PNG\r\n\x1a\n and no more");
    std::fs::remove_file(set.root().join("images/9.png")).unwrap();
    let loader = TrainLoader::start(Arc::clone(&data), &train(12, 1, NO_CHANGES), &input(), 0, 1);
    let results: Vec<_> = loader.collect();
    assert_eq!(results.len(), 1);
    let message = results[0].as_ref().unwrap_err().to_string();
    assert!(message.contains("4.png") || message.contains("9.png"), "{message}");

    let eval = EvalLoader::start(data, &input(), 5, &Loader { threads: 2, prefetch: 1 });
    let told: Vec<String> = eval
        .map(|item| match item {
            Ok(batch) => {
                assert!(
                    batch
                        .samples
                        .iter()
                        .all(|s| s.boxes.is_empty() && s.image_id == s.index as i64)
                );
                format!("{:?}", batch.samples.iter().map(|s| s.index).collect::<Vec<_>>())
            }
            Err(error) => error.to_string(),
        })
        .collect();
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told[0].contains("4.png"));
    assert_eq!(told[1], "[0, 1, 2, 3]");
    assert!(told[2].contains("9.png"));
    assert_eq!(told[3..], ["[5, 6, 7, 8]", "[10, 11]"]);
}

#[test]
fn tensorflow_s_inputs_without_padding_are_batched_by_size() {
    let (_set, data) = twelve();
    let batches = |pad, batch| -> Vec<(Vec<usize>, Size)> {
        let resize = Resize::KeepAspect { min_dimension: 64, max_dimension: 128, pad };
        let input = Input { resize, ..input() };
        let loader = Loader { threads: 2, prefetch: 1 };
        EvalLoader::start(Arc::clone(&data), &input, batch, &loader)
            .map(|batch| batch.unwrap())
            .map(|batch| (batch.samples.iter().map(|s| s.index).collect(), batch.padded))
            .collect()
    };
    // 60 x 80, 50 x 50 and 90 x 40 in turn: each of its own size, as if it were alone.
    let sizes = [Size::new(64, 85), Size::new(64, 64), Size::new(128, 57)];
    let expected: Vec<_> = (0..12).map(|i| (vec![i], sizes[i % 3])).collect();
    assert_eq!(batches(false, 1), expected);
    assert_eq!(batches(false, 5), expected);
    // All in one square.
    assert_eq!(batches(true, 6)[0], ((0..6).collect(), Size::new(128, 128)));
}

#[test]
fn declared_sizes_are_those_of_the_upright_picture() {
    // Stored 20 x 30 with an orientation that turns it to 30 x 20.
    for (declared, part) in [((30, 20), ""), ((20, 30), "wrong side"), ((21, 30), "made for 21x30")]
    {
        let set = Set::new();
        set.jpeg("a.jpg", (20, 30), 100, 6);
        set.split("t", &annotations(&[image(1, "a.jpg", declared)], &[]));
        let data = Arc::new(Dataset::open(set.root(), "t").unwrap());
        let result = EvalLoader::start(data, &input(), 1, &Loader { threads: 1, prefetch: 1 })
            .next()
            .unwrap();
        match result {
            Ok(batch) => {
                assert_eq!(part, "");
                assert_eq!(batch.samples[0].original, Size::new(30, 20));
            }
            Err(error) => {
                let message = error.to_string();
                assert!(!part.is_empty() && message.contains(part), "{message}");
                assert_eq!(matches!(error, LoadError::Orientation { .. }), declared == (20, 30));
            }
        }
    }
}

#[test]
fn a_loader_that_is_dropped_early_ends() {
    let (_set, data) = twelve();
    let mut loader = TrainLoader::start(data, &train(2, 3, NO_CHANGES), &input(), 0, 100_000);
    assert!(loader.next().unwrap().is_ok());
    drop(loader); // waits for its threads: a hang here is the failure
}

#[test]
fn a_real_set_is_served_whole() {
    let Some(material) = test_data() else { return };
    let data = Arc::new(Dataset::open(&material.join("data/bccd"), "val").unwrap());
    let recipe = Config::recipe("peer_c4", &[]).unwrap();
    let steps = data.images.len().div_ceil(recipe.train.batch);
    let loader = TrainLoader::start(Arc::clone(&data), &recipe.train, &recipe.input, 0, steps);
    let (mut images, mut boxes) = (BTreeSet::new(), 0);
    for batch in loader {
        let batch = batch.unwrap();
        assert_eq!(batch.padded, Size::new(320, 448));
        for sample in batch.samples {
            assert_eq!(sample.resized, Size::new(320, 426));
            images.insert(sample.image_id);
            boxes += sample.boxes.len();
        }
    }
    // The figures are those of the set's own description.
    assert_eq!((images.len(), boxes), (87, 1137));
}

#[test]
fn a_step_of_several_batches_takes_what_one_large_batch_takes() {
    let (_set, data) = twelve();
    let augment = Augment { flip: 0.5, scale: [0.8, 1.2], color: 0.3, ..NO_CHANGES };
    let run = |batch, accumulate, first| {
        let mut train = train(batch, 2, augment.clone());
        train.accumulate = accumulate;
        let loader = TrainLoader::start(Arc::clone(&data), &train, &input(), first, 5);
        let samples = |batch: Result<Batch, LoadError>| batch.unwrap().samples;
        loader.map(samples).collect::<Vec<_>>()
    };
    // 12 images: steps of 8, 4 | 8, 4 | 8.
    let (large, small) = (run(8, 1, 0), run(4, 2, 0));
    let sizes: Vec<usize> = small.iter().map(Vec::len).collect();
    assert_eq!(sizes, [4, 4, 4, 4, 4, 4, 4, 4]);
    assert_eq!(large.concat(), small.concat());
    assert_eq!(run(4, 2, 3), small[5..], "from the middle of the second epoch");
}

#[test]
fn rare_categories_come_more_often_and_each_copy_is_changed_by_itself() {
    let set = Set::new();
    for id in 0..6 {
        set.png(&format!("{id}.png"), (40, 40), 40 + id as u8, [0; 4]);
    }
    let images: Vec<_> = (0..6).map(|id| image(id, &format!("{id}.png"), (40, 40))).collect();
    let boxes: Vec<_> = (0..6)
        .map(|id| annotation(id + 1, id, if id == 5 { 7 } else { 1 }, [8., 6., 20., 30.]))
        .collect();
    set.split("t", &annotations(&images, &boxes));
    let data = Arc::new(Dataset::open(set.root(), "t").unwrap());
    let mut recipe = Config::recipe("tiny", &[]).unwrap().data;
    recipe.sampling = EpochSampling::ClassBalanced;
    recipe.rare_under = 1.;
    // sqrt(1 / (1 / 6)) = 2.45 times, the others sqrt(6 / 5) = 1.095 times: 7.93 in all, rounded up to 8.
    let epochs = Epochs::new(&data, &recipe, 3);
    assert_eq!(epochs.len(), 8);
    let augment = Augment { flip: 0.5, scale: [0.8, 1.2], color: 0.3, ..NO_CHANGES };
    let run = |threads, from| -> Vec<Batch> {
        let train = train(3, threads, augment.clone());
        TrainLoader::by(epochs.clone(), Arc::clone(&data), &train, &input(), from..30)
            .map(Result::unwrap)
            .collect()
    };
    let straight = run(1, 0);
    assert!(run(3, 4) == straight[4..], "by number alone");
    let mut differ = 0;
    for epoch in straight.chunks(3) {
        let samples: Vec<_> = epoch.iter().flat_map(|b| &b.samples).collect();
        assert_eq!(samples.len(), 8);
        let rare: Vec<_> = samples.iter().filter(|s| s.index == 5).collect();
        assert!((2..=3).contains(&rare.len()), "{}", rare.len());
        differ += usize::from(rare[0].boxes != rare[1].boxes);
        let all: BTreeSet<_> = samples.iter().map(|s| s.index).collect();
        assert_eq!(all.len(), 6);
    }
    assert!(differ >= 8, "copies are changed alike in {} of 10 epochs", 10 - differ);
}

#[test]
fn the_short_side_is_one_of_the_list() {
    let (_set, data) = twelve();
    let augment = Augment { short_sides: vec![48, 64, 80], ..NO_CHANGES };
    let loader = TrainLoader::start(Arc::clone(&data), &train(4, 1, augment), &input(), 0, 9);
    let mut seen = BTreeSet::new();
    for sample in loader.flat_map(|batch| batch.unwrap().samples) {
        let (short, long) = (
            sample.resized.height.min(sample.resized.width),
            sample.resized.height.max(sample.resized.width),
        );
        // The limit of the long side stays: 90 x 40 fits 128 pixels with a short side of 57 at most.
        assert!([48, 64, 80].contains(&short) || long == 128, "{}", sample.resized);
        seen.insert(short);
        let truth = data.images[sample.index].annotations[0].bbox;
        let scale = sample.resized.width as f32 / sample.original.width as f32;
        assert!((sample.boxes[0].x1 - truth.x1 * scale).abs() < 1e-3);
    }
    assert!(seen.is_superset(&[48, 64, 80].into()), "{seen:?}");
}
