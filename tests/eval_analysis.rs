//! Analyses of results files against programs that nobody here wrote: tidecv, and a recount from the
//! matches of pycocotools. `tools/golden_tide.py` made the numbers.

#![expect(clippy::unwrap_used, reason = "a test; clippy allows it only inside #[test] functions")]

use std::path::{Path, PathBuf};

use detect::eval::analysis::breakdown::{CROWDS, SIDES, by_crowd, by_size};
use detect::eval::analysis::compare::{Bootstrap, compare};
use detect::eval::analysis::confusion::Confusion;
use detect::eval::analysis::curve::{Curve, Point};
use detect::eval::analysis::outcomes::Outcomes;
use detect::eval::analysis::tide::{KINDS, tide};
use detect::eval::analysis::{Analysis, Options, analyse};
use detect::eval::{GroundTruth, Results, Settings, evaluate, evaluate_with};
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/analysis")
}

/// The small set, and the larger ones where they can be reached.
#[expect(clippy::print_stderr, reason = "says what the test leaves out")]
fn sets() -> Vec<(String, GroundTruth, Results, Value)> {
    let expected = std::fs::read_to_string(golden().join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let mut paths =
        vec![("small", golden().join("small_gt.json"), golden().join("small_first.json"))];
    match std::env::var_os("DETECT_TEST_DATA").filter(|d| !d.is_empty()) {
        None => eprintln!("skipped: DETECT_TEST_DATA is not set"),
        Some(data) => {
            let kit = PathBuf::from(data).join("data/coco_eval");
            let fake = kit.join("instances_val2014_fakebbox100_results.json");
            paths.push(("val2014_100", kit.join("instances_val2014_100.json"), fake));
            paths.push(("mAP85", kit.join("mAP85_gt.json"), kit.join("mAP85_dets.json")));
        }
    }
    paths
        .into_iter()
        .map(|(name, gt, results)| {
            let gt = GroundTruth::from_file(&gt).unwrap();
            let results = Results::from_file(&results).unwrap();
            (name.to_owned(), gt, results, expected["sets"][name].clone())
        })
        .collect()
}

fn analysed(gt: &GroundTruth, results: &Results) -> Analysis {
    analyse(gt, results, &Settings::default(), Options::default()).unwrap()
}

fn as_json(point: Option<Point>) -> Value {
    point.map_or(Value::Null, |p| {
        json!({
            "score": p.score,
            "tp": p.true_positives,
            "fp": p.false_positives,
            "fn": p.false_negatives,
        })
    })
}

fn sparse(confusion: &Confusion) -> Value {
    let side = confusion.names.len() + 1;
    let cells = confusion.counts.iter().enumerate().filter(|(_, count)| **count > 0);
    cells.map(|(at, count)| json!([at / side, at % side, count])).collect()
}

#[test]
fn errors_cost_what_tidecv_says() {
    for (name, gt, results, expected) in sets() {
        let ours = tide(&gt, &results, &Settings::default(), 0.5, 0.1).unwrap();
        let theirs = &expected["tide"];
        let close = |ours: f64, theirs: &Value, what: &str| {
            let theirs = theirs.as_f64().unwrap() / 100.;
            assert!((ours - theirs).abs() < 1e-12, "{name}: {what} {ours}, not {theirs}");
        };
        close(ours.ap, &theirs["ap"], "AP");
        for ((kind, gain), count) in KINDS.iter().zip(ours.gains).zip(ours.counts) {
            assert_eq!(json!(count), theirs["counts"][kind], "{name}: {kind}");
            close(gain, &theirs["gains"][kind], kind);
        }
        close(ours.false_positives, &theirs["special"]["FalsePos"], "FalsePos");
        close(ours.false_negatives, &theirs["special"]["FalseNeg"], "FalseNeg");
    }
}

#[test]
fn best_thresholds_are_those_of_a_recount() {
    for (name, gt, results, expected) in sets() {
        let analysis = analysed(&gt, &results);
        assert_eq!(as_json(analysis.best), expected["overall"], "{name}");
        let ours: Value = analysis.per_category.iter().map(|c| as_json(c.best)).collect();
        assert_eq!(ours, expected["per_category"], "{name}");
    }
}

#[test]
fn confusions_and_bins_are_those_of_a_recount() {
    for (name, gt, results, expected) in sets() {
        let analysis = analysed(&gt, &results);
        assert_eq!(sparse(&analysis.confusion), expected["confusion"], "{name}");
        let bins = analysis.sizes.iter();
        let ours: Value =
            bins.map(|b| json!([b.truths, b.found, b.detections, b.true_positives])).collect();
        assert_eq!(ours, expected["sizes"], "{name}");
        let bins = analysis.crowds.iter();
        let ours: Value = bins
            .map(|b| json!([b.images, b.truths, b.true_positives, b.false_positives]))
            .collect();
        assert_eq!(ours, expected["crowds"], "{name}");

        let settings = Settings { iou_thresholds: vec![0.5], ..Settings::default() };
        let outcomes = Outcomes::new(&gt, &results, &settings, 0).unwrap();
        let all = Confusion::new(&gt, &results, &outcomes, 0.);
        assert_eq!(sparse(&all), expected["confusion_all"], "{name}");
    }
}

#[test]
fn totals_of_all_analyses_agree_at_any_threshold() {
    for (name, gt, results, _) in sets() {
        let settings = Settings { iou_thresholds: vec![0.75, 0.3], ..Settings::default() };
        for at in [0, 1] {
            let outcomes = Outcomes::new(&gt, &results, &settings, at).unwrap();
            let curve = Curve::overall(&outcomes);
            for point in curve.points.iter().step_by(curve.points.len() / 5 + 1) {
                let confusion = Confusion::new(&gt, &results, &outcomes, point.score);
                let count = confusion.names.len();
                for (k, category) in outcomes.categories.iter().enumerate() {
                    let own = Curve::of_category(&outcomes, category).at(point.score);
                    let row: usize = (0..=count).map(|c| confusion.count(k, c)).sum();
                    let column: usize = (0..=count).map(|r| confusion.count(r, k)).sum();
                    assert_eq!(confusion.count(k, k), own.true_positives, "{name}");
                    assert_eq!(row, category.truths.len(), "{name}");
                    assert_eq!(column, own.true_positives + own.false_positives, "{name}");
                }
                let sizes = by_size(&gt, &results, &outcomes, point.score, &SIDES);
                let found: usize = sizes.iter().map(|b| b.found).sum();
                assert_eq!(found, point.true_positives, "{name}");
                let crowds = by_crowd(&outcomes, point.score, &CROWDS);
                let total = |of: fn(&_) -> usize| crowds.iter().map(of).sum::<usize>();
                assert_eq!(total(|b| b.images), gt.image_ids().len(), "{name}");
                assert_eq!(total(|b| b.truths), curve.truths, "{name}");
                assert_eq!(total(|b| b.true_positives), point.true_positives, "{name}");
                assert_eq!(total(|b| b.false_positives), point.false_positives, "{name}");
            }
        }
    }
}

/// The highest recall of the metric's own arrays, which are pycocotools' to the last bit.
#[test]
fn hits_add_up_to_the_recall_of_the_metric() {
    for (name, gt, results, _) in sets() {
        let settings = Settings { arrays: true, ..Settings::default() };
        let evaluation = evaluate_with(&gt, &results, &settings).unwrap();
        let recall = evaluation.arrays.unwrap().recall;
        let outcomes = Outcomes::new(&gt, &results, &settings, 0).unwrap();
        for (k, category) in outcomes.categories.iter().enumerate() {
            assert_eq!(category.id, evaluation.per_category[k].id);
            for t in 0..settings.iou_thresholds.len() {
                let hits = category.rows.iter().filter(|row| row.hit >> t & 1 == 1).count();
                let ours = match category.truths.len() {
                    0 => -1.,
                    truths => hits as f64 / truths as f64,
                };
                assert_eq!(ours, recall[[t, k, 0, 2]], "{name}: category {k}, threshold {t}");
            }
        }
    }
}

#[test]
fn a_comparison_starts_from_the_numbers_of_the_metric() {
    let second = Results::from_file(&golden().join("small_second.json")).unwrap();
    let options = Bootstrap { resamples: 10, ..Bootstrap::default() };
    for (name, gt, first, _) in sets() {
        let second = if name == "small" { &second } else { &first };
        let comparison = compare(&gt, &first, second, &Settings::default(), options).unwrap();
        let one = evaluate(&gt, &first).unwrap();
        let two = evaluate(&gt, second).unwrap();
        for (which, ours) in [("AP", comparison.ap), ("AP50", comparison.ap50)] {
            let ours = ours.unwrap();
            assert!((ours.first - one.stat(which).unwrap()).abs() < 1e-12, "{name}: {which}");
            assert!((ours.second - two.stat(which).unwrap()).abs() < 1e-12, "{name}: {which}");
            assert_eq!(ours.difference, ours.first - ours.second);
        }
    }
}

#[test]
fn subsets_and_pooled_categories_are_analysed_too() {
    let gt = GroundTruth::from_file(&golden().join("small_gt.json")).unwrap();
    let results = Results::from_file(&golden().join("small_first.json")).unwrap();
    let ids: Vec<_> = gt.image_ids()[3..20].to_vec();
    let only = Settings {
        images: Some(ids),
        categories: Some(vec![2.into(), 5.into()]),
        ..Settings::default()
    };
    let pooled = Settings { class_agnostic: true, ..Settings::default() };
    for settings in [only, pooled] {
        let evaluation = evaluate_with(&gt, &results, &settings).unwrap();
        let analysis = analyse(&gt, &results, &settings, Options::default()).unwrap();
        let truths: Vec<_> = analysis.per_category.iter().map(|c| c.curve.truths).collect();
        let theirs: Vec<_> = evaluation.per_category.iter().map(|c| c.ground_truths).collect();
        assert_eq!(truths, theirs);
        assert_eq!(analysis.crowds.iter().map(|b| b.images).sum::<usize>(), evaluation.images);
        assert_eq!(analysis.confusion.names.len(), theirs.len());
    }
}

/// pycocotools takes an annotation with the id 0 for one that nothing found.
#[test]
fn an_annotation_with_the_id_zero_counts_as_the_settings_say() {
    let gt = r#"{"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": [
        {"id": 0, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}]}"#;
    let gt = GroundTruth::from_json(gt).unwrap();
    let results = r#"[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]"#;
    let results = Results::from_json(results).unwrap();
    for (fix_id_zero, best) in [(false, None), (true, Some(1.))] {
        let settings = Settings { fix_id_zero, ..Settings::default() };
        let analysis = analyse(&gt, &results, &settings, Options::default()).unwrap();
        assert_eq!(analysis.best.map(|b| b.f1()), best);
        // Nothing is lost from the matrix either way.
        let expected = if fix_id_zero { [1, 0, 0, 0] } else { [0, 1, 1, 0] };
        assert_eq!(analysis.confusion.counts, expected);
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let gt = GroundTruth::from_file(&golden().join("small_gt.json")).unwrap();
    let results = Results::from_file(&golden().join("small_first.json")).unwrap();
    for (iou, background) in [(0., 0.1), (1.5, 0.1), (f64::NAN, 0.1), (0.5, -0.1), (0.5, f64::NAN)]
    {
        let options = Options { iou, background, ..Options::default() };
        let error = analyse(&gt, &results, &Settings::default(), options).unwrap_err();
        assert!(error.to_string().contains("at an IoU above 0"), "{error}");
    }
}
