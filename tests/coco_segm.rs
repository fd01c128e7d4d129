//! The evaluator on masks against pycocotools' numbers.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::path::{Path, PathBuf};

use detect::eval::analysis::{Options, analyse};
use detect::eval::{
    EvalError, Evaluation, GroundTruth, IouType, Results, Settings, evaluate, evaluate_with,
};
use serde_json::{Value, json};

fn bits(x: &[f64]) -> Vec<u64> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn of_masks() -> Settings {
    Settings { iou_type: IouType::Segm, ..Settings::default() }
}

fn read(gt: &Path, dt: &Path) -> Result<(GroundTruth, Results), EvalError> {
    Ok((GroundTruth::with_masks(gt)?, Results::with_masks(dt)?))
}

fn by_masks(gt: &Path, dt: &Path) -> Result<Evaluation, EvalError> {
    let (gt, results) = read(gt, dt)?;
    evaluate_with(&gt, &results, &of_masks())
}

fn by_boxes(gt: &Path, dt: &Path) -> Result<Evaluation, EvalError> {
    evaluate(&GroundTruth::from_file(gt)?, &Results::from_file(dt)?)
}

/// Both files of a case, for as long as the folder lives.
fn files(folder: &Path, gt: &Value, dt: &Value) -> (PathBuf, PathBuf) {
    let write = |name: &str, value: &Value| {
        let path = folder.join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path
    };
    (write("gt.json", gt), write("dt.json", dt))
}

/// `tools/golden_coco_segm.py` made these with pycocotools.
#[test]
fn golden_cases_agree_to_the_last_bit() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/coco_segm.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut answered, mut refused) = (0, 0);
    for (number, case) in cases.iter().enumerate() {
        let (gt, dt) = files(folder.path(), &case["annotations"], &case["results"]);
        for (kind, got) in [("segm", by_masks(&gt, &dt)), ("bbox", by_boxes(&gt, &dt))] {
            match (&case[kind], got) {
                (Value::Null, Err(_)) => refused += 1,
                (Value::Null, Ok(_)) => panic!("case {number}: pycocotools refuses {kind}"),
                (expected, got) => {
                    let got = got.unwrap_or_else(|e| panic!("case {number}, {kind}: {e}"));
                    assert_eq!(bits(&got.values()), bits(&numbers(expected)), "{number}, {kind}");
                    answered += 1;
                }
            }
        }
    }
    assert!(answered >= 40 && refused >= 8, "{answered} answered, {refused} refused");
}

#[test]
fn the_real_set_agrees_to_the_last_bit() {
    let Some(data) = std::env::var_os("DETECT_TEST_DATA").filter(|d| !d.is_empty()) else {
        eprintln!("skipped: DETECT_TEST_DATA is not set");
        return;
    };
    let kit = PathBuf::from(data).join("data/coco_eval");
    let expected = std::fs::read_to_string(kit.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let runs = expected["runs"].as_array().unwrap();
    let mut count = 0;
    for run in runs.iter().filter(|run| run["iouType"] == "segm") {
        let file = |key: &str| kit.join(run[key].as_str().unwrap());
        let got = by_masks(&file("gt"), &file("dt")).unwrap();
        assert_eq!(bits(&got.values()), bits(&numbers(&run["stats"])), "{run}");
        for category in &got.per_category {
            let id = category.id.as_ref().unwrap().to_string();
            let expected = run["per_category_ap"][&id].as_f64().unwrap();
            assert!((category.ap - expected).abs() <= 1e-12, "{category:?}, {expected}");
        }
        count += 1;
    }
    assert!(count >= 1);
}

/// One image with one truth, a square, and what a test changes in it.
fn square(change: impl FnOnce(&mut Value, &mut Value)) -> (Value, Value) {
    let mut gt = json!({
        "images": [{"id": 1, "height": 10, "width": 10}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [{
            "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 16.0,
            "segmentation": [[1, 1, 1, 5, 5, 5, 5, 1]],
        }],
    });
    let mut dt = json!([{
        "image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 1, 4, 4],
        "segmentation": [[1, 1, 1, 5, 5, 5, 5, 1]],
    }]);
    change(&mut gt, &mut dt);
    (gt, dt)
}

type Change = fn(&mut Value, &mut Value);

#[test]
fn what_is_no_mask_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(Change, &str); 7] = [
        (
            |gt, _| gt["images"][0]["height"] = Value::Null,
            "annotations[0]: its image has no `height`",
        ),
        (
            |gt, _| gt["annotations"][0]["segmentation"] = json!([]),
            "annotations[0]: its `segmentation` can't be used: it holds no polygon",
        ),
        (
            |gt, _| gt["annotations"][0]["segmentation"] = json!({"size": [10, 10]}),
            "annotations[0]: its `segmentation` can't be used: has no `counts`",
        ),
        (
            |_, dt| dt[0]["segmentation"] = json!([[1, 2, 3]]),
            "results[0]: its `segmentation` can't be used: polygon 0 has 3 numbers",
        ),
        (
            |_, dt| drop(dt[0].as_object_mut().unwrap().remove("bbox")),
            "results[0]: its `segmentation` is no compressed mask",
        ),
        (
            |_, dt| {
                let entry = dt[0].as_object_mut().unwrap();
                entry.remove("bbox");
                entry.remove("segmentation");
            },
            "results[0]: has no `bbox`",
        ),
        (
            |_, dt| {
                let mut masked = json!({"image_id": 1, "category_id": 1, "score": 0.5});
                masked["segmentation"] = json!({"size": [10, 10], "counts": "T3"});
                let boxed = dt[0].clone();
                *dt = json!([masked, boxed]);
            },
            "results[1]: its `segmentation` is no compressed mask",
        ),
    ];
    for (change, problem) in cases {
        let (gt, dt) = square(change);
        let (gt, dt) = files(folder.path(), &gt, &dt);
        let error = by_masks(&gt, &dt).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}, expected {problem}");
    }
}

#[test]
fn masks_of_another_size_than_their_image_are_remarked_on() {
    let folder = tempfile::tempdir().unwrap();
    let (gt, dt) = square(|_, dt| {
        dt[0]["segmentation"] = json!({"size": [5, 5], "counts": [0, 25]});
    });
    let (gt, dt) = files(folder.path(), &gt, &dt);
    let evaluation = by_masks(&gt, &dt).unwrap();
    assert_eq!(evaluation.stat("AP"), Some(0.));
    assert!(evaluation.warnings.iter().any(|w| w.contains("another size")), "{evaluation:?}");
}

#[test]
fn boxes_that_are_taken_as_masks_are_remarked_on() {
    let folder = tempfile::tempdir().unwrap();
    let (gt, dt) = square(|gt, _| gt["annotations"][0]["bbox"] = json!([1, 1, 4, 4]));
    let masked = dt[0].clone();
    let mut boxed = masked.clone();
    boxed.as_object_mut().unwrap().remove("segmentation");
    for (found, told) in [
        (json!([boxed]), Some("no detection has a mask")),
        (json!([boxed, masked]), Some("1 of 2 detections lack a mask")),
        (json!([masked]), None),
    ] {
        let (gt, dt) = files(folder.path(), &gt, &found);
        let warnings = by_masks(&gt, &dt).unwrap().warnings;
        assert_eq!(warnings.len(), usize::from(told.is_some()), "{warnings:?}");
        assert!(told.is_none_or(|told| warnings[0].contains(told)), "{warnings:?}");
        assert!(by_boxes(&gt, &dt).unwrap().warnings.is_empty());
    }
}

#[test]
fn files_read_for_their_boxes_are_not_scored_by_masks() {
    let folder = tempfile::tempdir().unwrap();
    let (gt, dt) = square(|gt, _| gt["annotations"][0]["bbox"] = json!([1, 1, 4, 4]));
    let (gt, dt) = files(folder.path(), &gt, &dt);
    let gt = GroundTruth::from_file(&gt).unwrap();
    let results = Results::with_masks(&dt).unwrap();
    let error = evaluate_with(&gt, &results, &of_masks()).unwrap_err();
    assert!(matches!(error, EvalError::Settings { .. }), "{error}");
}

/// The box of the second category's detection hits the truth of the first, its mask does not.
#[test]
fn analyses_compare_masks_too() {
    let folder = tempfile::tempdir().unwrap();
    let (gt, dt) = square(|gt, dt| {
        gt["annotations"][0]["bbox"] = json!([1, 1, 4, 4]);
        let categories = gt["categories"].as_array_mut().unwrap();
        categories.push(json!({"id": 2, "name": "other"}));
        dt[0]["category_id"] = 2.into();
        dt[0]["segmentation"] = json!([[7, 7, 7, 9, 9, 9, 9, 7]]);
    });
    let (gt, dt) = files(folder.path(), &gt, &dt);
    let confused = |gt: &GroundTruth, results: &Results, settings: &Settings| {
        let analysis = analyse(gt, results, settings, Options::default()).unwrap();
        // The kinds Cls and Bkg.
        (analysis.confusion.count(0, 1), analysis.tide.counts[0], analysis.tide.counts[4])
    };
    let (of_gt, of_dt) = read(&gt, &dt).unwrap();
    assert_eq!(confused(&of_gt, &of_dt, &of_masks()), (0, 0, 1));
    let (of_gt, of_dt) = (GroundTruth::from_file(&gt).unwrap(), Results::from_file(&dt).unwrap());
    assert_eq!(confused(&of_gt, &of_dt, &Settings::default()), (1, 1, 0));
}
