//! Draws, what they give, and intervals.

use super::*;

#[test]
fn quantiles_are_numpys() {
    // numpy.quantile([1, 2, 4, 8, 16], [0, 0.025, 0.3, 0.5, 0.975, 1])
    let sorted = [1., 2., 4., 8., 16.];
    let expected = [(0., 1.), (0.025, 1.1), (0.3, 2.4), (0.5, 4.), (0.975, 15.2), (1., 16.)];
    for (share, value) in expected {
        assert!((quantile(&sorted, share) - value).abs() < 1e-12, "{share}");
    }
    assert_eq!(quantile(&[3.], 0.4), 3.);
}

#[test]
fn a_draw_takes_as_many_images_as_there_are() {
    let images = [0, 2, 3, 7];
    let mut weights = vec![9; 8];
    let mut seen = [0; 8];
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..1000 {
        draw(&images, &mut rng, &mut weights);
        assert_eq!(weights.iter().sum::<u32>(), 4);
        seen.iter_mut().zip(&weights).for_each(|(s, w)| *s += w);
    }
    assert_eq!((seen[1], seen[4], seen[5], seen[6]), (0, 0, 0, 0));
    // 1,000 expected of each, with a standard deviation of 27.
    assert!(images.iter().all(|&i| (860..1140).contains(&seen[i])), "{seen:?}");
}

/// What a made-up set holds (see `tools/golden_tide.py`).
fn small() -> (GroundTruth, [Results; 2], serde_json::Value) {
    let gt = include_str!("../../../tests/golden/analysis/small_gt.json");
    let first = include_str!("../../../tests/golden/analysis/small_first.json");
    let second = include_str!("../../../tests/golden/analysis/small_second.json");
    let expected = include_str!("../../../tests/golden/analysis/expected.json");
    let results = [first, second].map(|text| Results::from_json(text).unwrap());
    (GroundTruth::from_json(gt).unwrap(), results, serde_json::from_str(expected).unwrap())
}

#[test]
fn draws_score_as_files_with_repeated_images() {
    let (gt, results, expected) = small();
    let outcomes = results.map(|r| Outcomes::new(&gt, &r, &Settings::default(), 0).unwrap());
    let sides = [Side::new(&outcomes[0]), Side::new(&outcomes[1])];
    let mut space = Space::default();
    let draws = expected["draws"].as_array().unwrap();
    assert_eq!(draws.len(), 4);
    let close = |ours: Option<f64>, theirs: &serde_json::Value, what: &str| {
        let theirs = theirs.as_f64().unwrap();
        assert!((ours.unwrap_or(-1.) - theirs).abs() < 1e-12, "{what}: {ours:?}, not {theirs}");
    };
    for draw in draws {
        let weights: Vec<u32> = serde_json::from_value(draw["weights"].clone()).unwrap();
        let sample = Sample::new(&sides, &weights, &mut space);
        for (side, name) in ["first", "second"].iter().enumerate() {
            let theirs = &draw[name];
            close(sample.mean(|c| Some(c.ap)).map(|x| x[side]), &theirs["ap"], "AP");
            close(sample.mean(|c| c.ap50).map(|x| x[side]), &theirs["ap50"], "AP50");
            let all = theirs["per_category"].as_array().unwrap();
            assert_eq!(sample.categories.len(), all.len());
            for (category, theirs) in sample.categories.iter().zip(all) {
                close(category.map(|c| c.ap[side]), theirs, "AP of a category");
            }
        }
    }
}

#[test]
fn intervals_are_quantiles_of_the_draws_whatever_the_threads() {
    let (gt, [first, second], _) = small();
    let settings = Settings::default();
    let options = Bootstrap { resamples: 200, seed: 5, confidence: 0.9 };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compare(&gt, &first, &second, &settings, options).unwrap())
    };
    let comparison = run(1);
    assert_eq!(comparison, run(3));
    let ap = comparison.ap.unwrap();
    assert!(ap.low < ap.difference && ap.difference < ap.high, "{ap:?}");
    // The category without a truth has no numbers, the one without a detection has zeros.
    let category =
        |id: i64| comparison.per_category.iter().find(|c| c.id == Some(id.into())).unwrap();
    assert_eq!(category(8).ap, None);
    let nothing = category(9).ap.clone().unwrap();
    assert_eq!((nothing.difference, nothing.low, nothing.high), (0., 0., 0.));
    assert!(!nothing.excludes_zero);

    // The other way round, all differences change their sign.
    let back = compare(&gt, &second, &first, &settings, options).unwrap().ap.unwrap();
    assert!((back.low + ap.high).abs() < 1e-12 && (back.high + ap.low).abs() < 1e-12);
    // A file does not differ from itself; one without its right detections is clearly worse.
    let same = compare(&gt, &first, &first, &settings, options).unwrap().ap.unwrap();
    assert_eq!((same.low, same.high, same.excludes_zero), (0., 0., false));
    let poor = Results::from_json(
        r#"[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]"#,
    );
    let worse = compare(&gt, &first, &poor.unwrap(), &settings, options).unwrap().ap.unwrap();
    assert!(worse.excludes_zero && worse.low > 0., "{worse:?}");
}

#[test]
fn an_interval_of_one_image_is_not_believed() {
    let gt = r#"{"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}]}"#;
    let found = r#"[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]"#;
    let gt = GroundTruth::from_json(gt).unwrap();
    let (found, nothing) = (Results::from_json(found).unwrap(), Results::from(Vec::new()));
    let settings = Settings::default();
    let comparison = compare(&gt, &found, &nothing, &settings, Bootstrap::default()).unwrap();
    // All draws are the same image: the interval has no length.
    let ap = comparison.ap.unwrap();
    assert!((ap.low - 1.).abs() < 1e-12 && ap.low == ap.high, "{ap:?}");
    assert!(ap.images == 1 && !ap.excludes_zero, "{ap:?}");
}

#[test]
fn options_out_of_range_are_refused() {
    let (gt, [first, second], _) = small();
    let standard = Bootstrap::default();
    for wrong in [
        Bootstrap { resamples: 0, ..standard },
        Bootstrap { resamples: 100_001, ..standard },
        Bootstrap { confidence: 1., ..standard },
        Bootstrap { confidence: f64::NAN, ..standard },
    ] {
        let error = compare(&gt, &first, &second, &Settings::default(), wrong).unwrap_err();
        assert!(matches!(error, EvalError::Settings { .. }), "{error}");
    }
}
