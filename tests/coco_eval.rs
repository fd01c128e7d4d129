//! The evaluator against pycocotools' numbers and against a plain transcription of its rules.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod coco_reference;

use std::path::PathBuf;

use coco_reference::{Det, Truth, reference};
use detect::eval::{
    EvalError, Evaluation, GroundTruth, Id, ResultEntry, Results, Settings, evaluate,
    evaluate_with, report,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn bits(x: &[f64]) -> Vec<u64> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// `tools/golden_coco_eval.py` made these with pycocotools.
#[test]
fn golden_cases_agree_to_the_last_bit() {
    let golden = include_str!("golden/coco_eval.json");
    let golden: Value = serde_json::from_str(golden).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let name = &case["name"];
        let gt = GroundTruth::from_json(case["annotations"].as_str().unwrap()).unwrap();
        let results = Results::from_json(case["results"].as_str().unwrap()).unwrap();
        let got = evaluate(&gt, &results).unwrap();
        assert_eq!(bits(&got.values()), bits(&numbers(&case["stats"])), "{name}");
        for (category, expected) in got.per_category.iter().zip(numbers(&case["ap_by_category"])) {
            // Python's plain mean rounds differently from numpy's pairwise one.
            assert!((category.ap - expected).abs() < 1e-12, "{name}: {category:?}, {expected}");
        }
    }
}

/// Every run on boxes of the larger kit.
#[test]
fn real_sets_agree_to_the_last_bit() {
    let Some(data) = std::env::var_os("DETECT_TEST_DATA").filter(|d| !d.is_empty()) else {
        eprintln!("skipped: DETECT_TEST_DATA is not set");
        return;
    };
    let kit = PathBuf::from(data).join("data/coco_eval");
    let expected = std::fs::read_to_string(kit.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let runs = expected["runs"].as_array().unwrap();
    let mut count = 0;
    for run in runs.iter().filter(|run| run["iouType"] == "bbox") {
        let file = |key: &str| kit.join(run[key].as_str().unwrap());
        let gt = GroundTruth::from_file(&file("gt")).unwrap();
        let results = Results::from_file(&file("dt")).unwrap();
        let got = evaluate_with(&gt, &results, &settings_of(&run["params"])).unwrap();
        if !run["stats"].is_null() {
            assert_eq!(bits(&got.values()), bits(&numbers(&run["stats"])), "{run}");
        }
        let ap = run["ap_all_area_maxdet_last"].as_f64().unwrap();
        assert_eq!(got.stat("AP").unwrap().to_bits(), ap.to_bits(), "{run}");
        let by_category = run["per_category_ap"].as_object().unwrap();
        if run["params"]["useCats"] == 0 {
            assert_eq!(got.per_category.len(), 1);
            continue;
        }
        assert_eq!(got.per_category.len(), by_category.len());
        for category in &got.per_category {
            let expected =
                by_category[&category.id.as_ref().unwrap().to_string()].as_f64().unwrap();
            assert!((category.ap - expected).abs() <= 1e-12, "{category:?}, {expected}");
        }
        count += 1;
    }
    assert!(count >= 8, "only {count} runs");
}

/// pycocotools' `Params`.
fn settings_of(params: &Value) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in params.as_object().unwrap() {
        let ids = || Some(numbers(value).iter().map(|&id| Id::Int(id as i128)).collect());
        match &**name {
            "useCats" => settings.class_agnostic = value == 0,
            "imgIds" => settings.images = ids(),
            "catIds" => settings.categories = ids(),
            "maxDets" => {
                settings.max_detections = numbers(value).iter().map(|&m| m as usize).collect();
            }
            "iouThrs" => settings.iou_thresholds = numbers(value),
            _ => panic!("{name}"),
        }
    }
    settings
}

fn annotations(images: &[i64], categories: &[i64], truths: &[Truth]) -> String {
    let truths: Vec<Value> = truths
        .iter()
        .map(|t| {
            json!({
                "id": t.id, "image_id": t.image, "category_id": t.category, "bbox": t.bbox,
                "area": t.area, "iscrowd": i64::from(t.crowd),
            })
        })
        .collect();
    let ids = |ids: &[i64]| ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>();
    json!({"images": ids(images), "categories": ids(categories), "annotations": truths}).to_string()
}

fn results(dets: &[Det]) -> Results {
    dets.iter()
        .map(|d| ResultEntry {
            image_id: d.image,
            category_id: d.category,
            bbox: d.bbox,
            score: d.score,
        })
        .collect::<Vec<_>>()
        .into()
}

fn score(images: &[i64], categories: &[i64], truths: &[Truth], dets: &[Det]) -> Evaluation {
    let gt = GroundTruth::from_json(&annotations(images, categories, truths)).unwrap();
    let settings = Settings { arrays: true, ..Settings::default() };
    evaluate_with(&gt, &results(dets), &settings).unwrap()
}

const IMAGES: [i64; 3] = [-4, 7, 30];
const CATEGORIES: [i64; 2] = [3, 18];

/// Boxes on a coarse grid, so that overlaps tie, thresholds are met exactly and areas fall on the
/// edges of the ranges (32 x 32 and 96 x 96); some are empty, some inside out.
fn bbox() -> impl Strategy<Value = [f64; 4]> {
    let place = (0..6_i32).prop_map(|x| f64::from(x) * 16.);
    let side = prop_oneof![
        8 => (1..7_i32).prop_map(|x| f64::from(x) * 16.),
        1 => Just(95.5),
        1 => Just(0.),
        1 => Just(-16.),
    ];
    (place.clone(), place, side.clone(), side).prop_map(|(x, y, w, h)| [x, y, w, h])
}

fn truth() -> impl Strategy<Value = Truth> {
    let area = prop_oneof![
        4 => Just(None),
        1 => Just(Some(1024.)),
        1 => Just(Some(9216.)),
        1 => Just(Some(1023.999)),
        1 => Just(Some(2e10)),
    ];
    (prop::sample::select(&IMAGES[..]), prop::sample::select(&CATEGORIES[..]), bbox(), area, 0..8)
        .prop_map(|(image, category, bbox, area, crowd)| Truth {
            id: 0, // numbered later
            image,
            category,
            bbox,
            area: area.unwrap_or(bbox[2] * bbox[3]),
            crowd: crowd == 0,
        })
}

/// Truths with ids of their own, sometimes counted from 0.
fn truths() -> impl Strategy<Value = Vec<Truth>> {
    (prop::collection::vec(truth(), 0..14), 0..2_i64).prop_map(|(mut truths, first)| {
        for (id, truth) in (first..).zip(&mut truths) {
            truth.id = id;
        }
        truths
    })
}

/// Few distinct scores, so that they tie.
fn det_score() -> impl Strategy<Value = f64> {
    (0..6_i32).prop_map(|s| f64::from(s) / 4.)
}

/// A detection anywhere; category 99 is unknown.
fn any_det() -> impl Strategy<Value = Det> {
    let category = prop::sample::select(vec![3_i64, 3, 18, 18, 99]);
    (prop::sample::select(&IMAGES[..]), category, bbox(), det_score())
        .prop_map(|(image, category, bbox, score)| Det { image, category, bbox, score })
}

/// A set of truths and of detections, most of which are a truth or lie a little beside one.
fn problem() -> impl Strategy<Value = (Vec<Truth>, Vec<Det>)> {
    truths().prop_flat_map(|truths| {
        let mut dets = vec![(1, any_det().boxed())];
        if !truths.is_empty() {
            let shift = prop::sample::select(vec![0., 0., 0., 0., 4., -4., 8., 16.]);
            let near = (prop::sample::select(truths.clone()), [shift.clone(), shift], det_score());
            let near = near.prop_map(|(truth, [dx, dw], score)| {
                let [x, y, w, h] = truth.bbox;
                let bbox = [x + dx, y, w + dw, h];
                Det { image: truth.image, category: truth.category, bbox, score }
            });
            dets.push((3, near.boxed()));
        }
        let dets = prop::collection::vec(prop::strategy::Union::new_weighted(dets), 0..40);
        (Just(truths), dets)
    })
}

proptest! {
    #[test]
    fn agrees_with_the_rules_read_literally((truths, dets) in problem()) {
        let got = score(&IMAGES, &CATEGORIES, &truths, &dets);
        let want = reference(&IMAGES, &CATEGORIES, &truths, &dets);
        let arrays = got.arrays.as_ref().unwrap();
        prop_assert_eq!(bits(arrays.precision.as_slice().unwrap()), bits(&want.precision));
        prop_assert_eq!(bits(arrays.scores.as_slice().unwrap()), bits(&want.scores));
        prop_assert_eq!(bits(arrays.recall.as_slice().unwrap()), bits(&want.recall));
        // Without the arrays the numbers are the same.
        let gt = GroundTruth::from_json(&annotations(&IMAGES, &CATEGORIES, &truths)).unwrap();
        prop_assert_eq!(report::json(&evaluate(&gt, &results(&dets)).unwrap()), report::json(&got));
        for (got, want) in got.values().iter().zip(want.stats) {
            // The reference sums in a plain loop.
            prop_assert!((got - want).abs() < 1e-12, "{} {}", got, want);
        }
    }

    #[test]
    fn order_of_images_and_categories_in_the_file_does_not_matter(
        (truths, dets) in problem(),
        images in Just(IMAGES.to_vec()).prop_shuffle(),
    ) {
        let one = score(&IMAGES, &CATEGORIES, &truths, &dets);
        let reversed: Vec<i64> = CATEGORIES.iter().rev().copied().collect();
        let other = score(&images, &reversed, &truths, &dets);
        prop_assert_eq!(report::json(&one), report::json(&other));
        prop_assert_eq!(one.arrays.unwrap().precision, other.arrays.unwrap().precision);
    }

    #[test]
    fn one_thread_and_four_give_the_same((truths, dets) in problem()) {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| score(&IMAGES, &CATEGORIES, &truths, &dets))
        };
        let (one, four) = (with(1), with(4));
        prop_assert_eq!(bits(&one.values()), bits(&four.values()));
        let (one, four) = (one.arrays.unwrap(), four.arrays.unwrap());
        prop_assert_eq!(one.precision, four.precision);
        prop_assert_eq!(one.scores, four.scores);
        prop_assert_eq!(one.recall, four.recall);
    }
}

/// Truths that do not overlap: a row of squares of 10, 40 and 100 pixels on each image.
fn row_of_squares() -> Vec<Truth> {
    let mut truths = Vec::new();
    for image in IMAGES {
        for (i, side) in [10., 40., 100., 10.].into_iter().enumerate() {
            let bbox = [200. * i as f64, 5., side, side];
            let category = CATEGORIES[i % 2];
            let id = truths.len() as i64 + 1;
            truths.push(Truth { id, image, category, bbox, area: side * side, crowd: false });
        }
    }
    truths
}

#[test]
fn perfect_detections_score_1() {
    let truths = row_of_squares();
    let dets: Vec<Det> = truths
        .iter()
        .map(|t| Det { image: t.image, category: t.category, bbox: t.bbox, score: 0.5 })
        .collect();
    let got = score(&IMAGES, &CATEGORIES, &truths, &dets);
    for (name, stat) in detect::eval::STAT_NAMES.iter().zip(got.values()) {
        // Two squares of category 18 and 3 lie on each image: one detection finds half of them.
        let expected = if *name == "AR1" { 0.5 } else { 1. };
        assert!((stat - expected).abs() < 1e-12, "{name} {stat}");
    }
    assert!(got.warnings.is_empty(), "{:?}", got.warnings);
}

#[test]
fn a_model_that_finds_nothing_scores_0() {
    let got = score(&IMAGES, &CATEGORIES, &row_of_squares(), &[]);
    assert_eq!(got.values(), [0.; 12]);
    assert_eq!((got.images, got.detections), (3, 0));
    assert!(got.per_category.iter().all(|c| c.ap == 0. && c.ground_truths == 6));
}

#[test]
fn without_truth_every_number_is_minus_1() {
    let dets = [Det { image: 7, category: 3, bbox: [1., 1., 9., 9.], score: 0.5 }];
    assert_eq!(score(&IMAGES, &CATEGORIES, &[], &dets).values(), [-1.; 12]);
    // A list of truths may be missing altogether, as for test-dev.
    let gt = GroundTruth::from_json(r#"{"images": [{"id": 7}], "categories": []}"#).unwrap();
    assert_eq!(evaluate(&gt, &results(&dets)).unwrap().values(), [-1.; 12]);
}

#[test]
fn odd_but_legal_files_are_read() {
    // Repeated keys (the last counts), ids as fractions, escapes, unknown keys, NaN.
    let gt = GroundTruth::from_json(
        r#"{"annotations": 5, "info": {"annotations": [{}]},
            "images": [{"id": 8, "id": 1.0, "file_name": "\u00e9\ud83d\ude00"}],
            "categories": [{"name": "caf\u00e9", "id": true}],
            "annotations": [{"bbox": "x", "id": 7, "image_id": 1, "category_id": 1.0, "area": NaN,
                             "iscrowd": false, "bbox": [0, 0, 10, 10], "segmentation": [[1, 2]]}]}"#,
    )
    .unwrap();
    let dets = Results::from_json(
        r#" [{"score": 1, "bbox": [0, 0, 1e1, 10.0], "image_id": 1, "category_id": 1, "x": null}]"#,
    )
    .unwrap();
    let got = evaluate(&gt, &dets).unwrap();
    assert_eq!(got.per_category[0].name, "café");
    // An area that is no number is in every range.
    assert!(got.values().iter().all(|x| (x - 1.).abs() < 1e-12), "{:?}", got.stats);
}

#[test]
fn warnings_name_what_distorts_the_numbers() {
    let mut truths = row_of_squares();
    truths[0].id = 0;
    truths[1].id = truths[2].id;
    let dets = [Det { image: 7, category: 5, bbox: [1., 1., 9., 9.], score: 0.5 }];
    let warnings = score(&IMAGES, &CATEGORIES, &truths, &dets).warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("an id that a later one has too: 1."), "{warnings:?}");
    assert!(warnings[1].contains("the id 0: 1."), "{warnings:?}");
    assert!(warnings[2].contains("1 of 1 detections"), "{warnings:?}");
    assert!(warnings[2].contains("the same category ids?"), "{warnings:?}");
}

/// Annotations with one square, and one detection of it.
const GT: &str = r#"{"images": [{"id": 1}], "categories": [{"id": 1}], "annotations":
    [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}]}"#;
const DT: &str = r#"[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]"#;

fn outcome(gt: &str, dt: &str) -> Result<Evaluation, EvalError> {
    evaluate(&GroundTruth::from_json(gt)?, &Results::from_json(dt)?)
}

#[test]
fn what_can_not_be_used_is_named() {
    assert!(outcome(GT, DT).is_ok());
    // (in the annotations, from, to, the message)
    let broken = [
        (true, r#", "area": 81"#, "", "annotations: annotations[0]: has no `area`; `detect check"),
        (true, r#", "iscrowd": 0"#, "", "annotations[0]: has no `iscrowd`; `detect check DIR"),
        (true, r#""area": 81"#, r#""area": null"#, "`area` is null, not a number; `detect"),
        (true, r#""area": 81"#, r#""area": """#, "`area` is a text, not a number"),
        (true, r#""iscrowd": 0"#, r#""iscrowd": 256"#, "`iscrowd` is 256, not 0 or 1"),
        (true, "[0, 0, 9, 9]", "[0, 0, 9]", "`bbox` has 3 numbers, not four"),
        (true, "[0, 0, 9, 9]", "null", "`bbox` is null, not a list"),
        (true, r#"{"id": 1, "image_id""#, r#"{"image_id""#, "annotations[0]: has no `id`"),
        (true, r#"[{"id": 1}], "cat"#, r#"[{"id": null}], "cat"#, "images[0]: `id` is null"),
        (
            true,
            r#"[{"id": 1}], "cat"#,
            r#"[{"id": 1}, {"id": "a"}], "cat"#,
            "partly numbers (1), partly",
        ),
        (true, r#"[{"id": 1}], "cat"#, r#"[{"id": 1}, 2], "cat"#, "images[1]: is a number, not an"),
        (
            true,
            r#"[{"id": 1}], "ann"#,
            r#"{"id": 1}, "ann"#,
            "`categories` is an object, not a list",
        ),
        (true, "images", "pictures", "there is no list `images`"),
        (true, "81", "81.", "not valid JSON: expected ',' or '}' at byte 146 (line 2)"),
        (false, r#", "score": 0.5"#, "", "results: results[0]: has no `score`"),
        (false, "0.5", r#""0.5""#, "`score` is a text, not a number"),
        (false, "[0, 0, 9, 9]", "[]", "`bbox` has 0 numbers, not four"),
        (false, "[0, 0, 9, 9]", "[0, 0, 9, 9, 9]", "`bbox` has 5 numbers, not four"),
        (false, "[0, 0, 9, 9]", r#"[0, 0, "9", 9]"#, "`bbox` holds a text, not four numbers"),
        (false, r#""bbox": [0, 0, 9, 9]"#, r#""segmentation": []"#, "no compressed mask"),
        (false, r#""image_id": 1, "#, "", "results[0]: has no `image_id`"),
        (false, r#""image_id": 1"#, r#""image_id": 1.5"#, "does not list: 1.5"),
        (false, r#""image_id": 1"#, r#""image_id": "1""#, "does not list: \"1\""),
        (
            false,
            r#""image_id": 1"#,
            r#""image_id": 9223372036854775808"#,
            "list: 9223372036854775808",
        ),
        (false, "0.5}]", "0.5}", "the file ends too early at byte"),
        (false, "[{", "[[{", "results[0]: is a list, not an object"),
    ];
    for (in_gt, from, to, message) in broken {
        let source = if in_gt { GT } else { DT };
        assert!(source.contains(from), "{from}");
        let mut text = source.replacen(from, to, 1);
        if to == "[[{" {
            text.push(']');
        }
        let outcome = if in_gt { outcome(&text, DT) } else { outcome(GT, &text) };
        let error = outcome.expect_err(message).to_string();
        assert!(error.contains(message), "{error}\n{message}");
    }
    for (dt, message) in [
        ("[]", "results holds no detection at all"),
        (r#"{"annotations": []}"#, "expected a list of detections, found an object"),
        ("", "the file ends too early at byte 0"),
    ] {
        assert!(outcome(GT, dt).unwrap_err().to_string().contains(message));
    }
    assert!(
        outcome("[]", DT).unwrap_err().to_string().contains("expected an object with `images`")
    );
    // What lies on an image or in a category that is not listed is never looked at.
    let elsewhere = GT.replace(r#""image_id": 1"#, r#""image_id": 2"#).replace("[0, 0, 9, 9]", "7");
    assert!(outcome(&elsewhere, DT).is_ok());
    let other = DT.replace(r#""category_id": 1"#, r#""category_id": 2"#).replace("score", "x");
    assert!(outcome(GT, &other).is_ok());
}

#[test]
fn detections_on_unlisted_images_are_named() {
    let entry = |image: i64| Det { image, category: 1, bbox: [0., 0., 9., 9.], score: 0.5 };
    let gt = GroundTruth::from_json(GT).unwrap();
    let some: Vec<Det> = [1, 12, 11, 12].map(entry).into();
    let error = evaluate(&gt, &results(&some)).unwrap_err().to_string();
    assert!(error.contains("3 of 4 detections"), "{error}");
    assert!(error.contains("does not list: 12, 11; take these"), "{error}");
    let all: Vec<Det> = (100..112).map(entry).collect();
    let error = evaluate(&gt, &results(&all)).unwrap_err().to_string();
    assert!(
        error.contains("100, 101, 102, 103, 104, 105, 106, 107, 108, 109 and 2 more"),
        "{error}"
    );
    assert!(error.contains("another split"), "{error}");
}

#[test]
fn the_report_holds_every_number() {
    let got = outcome(GT, DT).unwrap();
    let json = report::json(&got);
    assert_eq!(json["stats"].as_array().unwrap().len(), 12);
    assert_eq!(json["AP"].as_f64(), got.stat("AP"));
    assert_eq!(json["ARl"].as_f64(), Some(-1.));
    assert_eq!(json["per_category"][0]["category_id"], 1);
    assert_eq!((&json["images"], &json["detections"]), (&json!(1), &json!(1)));
    let table = report::table(&got);
    assert_eq!(table.lines().count(), 15, "{table}");
    assert!(table.ends_with("1         1.000  1.000  1.000        1           1\n"), "{table}");
}
