//! torchvision's Faster R-CNN on timm's NASNet, cut at stride 16, from a state dict to its detections.
//!
//! The seeds are such that no decision of torchvision's (cuts, floors, overlaps) is within 2e-5 of another
//! outcome, or 2e-4 where the image is resized.

use std::fs;
use std::path::{Path, PathBuf};

use detect::config::{Cut, Pooling};
use detect::nasnet::Wiring;
use detect::weights::{Contents, ModelInfo};

use crate::common::{Golden, assert_close};
use crate::program::{expect_code, run, tree};
use crate::{originals, stdout_json, text};

/// Of the largest coordinate and of the largest score.
const LIMIT: f64 = 1e-4;
/// The same where the image is resized: float32 leaves 2e-5 of the resized pixels open, and torchvision's
/// own features then differ by 3e-4 from those of its double precision.
const LIMIT_RESIZED: f64 = 5e-4;

/// A detection: label, score, corners.
#[derive(Debug, Clone, Copy)]
struct Found {
    label: i64,
    score: f64,
    corners: [f64; 4],
}

fn golden(dir: &Path) -> Vec<Found> {
    let golden = Golden::read(&dir.join("detections.safetensors"));
    let scores = Vec::<f64>::try_from(golden.get("scores")).unwrap();
    let labels = Vec::<i64>::try_from(golden.get("labels")).unwrap();
    let boxes = Vec::<Vec<f64>>::try_from(golden.get("boxes")).unwrap();
    let one = |i: usize| Found {
        label: labels[i],
        score: scores[i],
        corners: boxes[i].as_slice().try_into().unwrap(),
    };
    (0..scores.len()).map(one).collect()
}

/// What `detect IMAGE` says of the picture in `dir`.
fn detected(dir: &Path, model: &Path, [height, width]: [usize; 2]) -> Vec<Found> {
    let picture = dir.join("picture_0.png");
    let output = run(&[text(&picture), "--weights", text(model), "--score", "0", "--json"]);
    expect_code(&output, 0);
    let found = stdout_json(&output);
    assert_eq!((&found[0]["width"], &found[0]["height"]), (&width.into(), &height.into()));
    let one = |d: &serde_json::Value| {
        let b: Vec<f64> =
            d["bbox"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        Found {
            label: d["category_id"].as_i64().unwrap(),
            score: d["score"].as_f64().unwrap(),
            corners: [b[0], b[1], b[0] + b[2], b[1] + b[3]],
        }
    };
    found[0]["detections"].as_array().unwrap().iter().map(one).collect()
}

/// The largest difference of pairs, each of a golden detection and the nearest of ours with its label that
/// no other has taken; infinite where there are not as many of each label.
fn apart(golden: &[Found], found: &[Found]) -> f64 {
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0., f64::max);
    let score = largest(&mut golden.iter().map(|f| f.score));
    let corner = largest(&mut golden.iter().flat_map(|f| f.corners));
    let between = |a: &Found, b: &Found| {
        let corners = a.corners.iter().zip(b.corners).map(|(x, y)| (x - y).abs() / corner);
        corners.fold((a.score - b.score).abs() / score, f64::max)
    };
    if golden.len() != found.len() {
        return f64::INFINITY;
    }
    let mut left = found.to_vec();
    let mut worst: f64 = 0.;
    for g in golden {
        let same = left.iter().enumerate().filter(|(_, f)| f.label == g.label);
        let near = same.map(|(i, f)| (i, between(g, f))).min_by(|a, b| a.1.total_cmp(&b.1));
        let Some((i, distance)) = near else { return f64::INFINITY };
        left.remove(i);
        worst = worst.max(distance);
    }
    worst
}

fn import(dir: &Path, more: &[&str]) -> PathBuf {
    let (source, model) = (dir.join("detector.pth"), dir.join("model.safetensors"));
    let arguments = [&["import", text(&source), "--out", text(&model)], more].concat();
    expect_code(&run(&arguments), 0);
    model
}

/// Fails unless all cells up to the cut are there, and the goldens'.
fn compare_cells(what: &str, golden: &Golden, found: &Golden) {
    // A stem, two stem cells, a reduction, twelve cells.
    assert_eq!(found.iter().count(), 16, "{what}");
    assert_eq!(golden.iter().count(), 17, "{what}: and the input");
    for (name, map) in found.iter() {
        assert_close(&format!("{what} {name}"), golden.get(name), map, LIMIT);
    }
}

fn read(model: &Path) -> ModelInfo {
    ModelInfo::read_from(&Contents::read(model).unwrap(), model).unwrap()
}

#[test]
fn a_whole_body_gives_torchvision_s_detections() {
    const SIZE: [usize; 2] = [320, 505];
    let Some(dir) = originals("detector") else { return };
    let dir = dir.path();
    let golden = golden(dir);
    let model = import(dir, &[]);
    let info = read(&model);
    let backbone = &info.config.backbone;
    assert_eq!((backbone.name.to_string().as_str(), backbone.stem_filters), ("nasnet-a-6@96", 8));
    assert_eq!((backbone.wiring, backbone.pooling), (Wiring::Large, Pooling::Timm));
    let detector = &info.config.detector;
    assert_eq!((detector.cut, detector.mlp_width, detector.crop_size), (Cut::Last, 32, 7));
    assert_eq!(info.categories.len(), 3);
    let contents = Contents::read(&model).unwrap();
    let behind = ["reduction_cell_1", "cell_12", "cell_17", "last_linear"];
    for cell in behind {
        let kept = contents.tensors.keys().any(|name| name.contains(&format!("{cell}.")));
        assert!(!kept, "{cell} is not run");
    }
    let distance = apart(&golden, &detected(dir, &model, SIZE));
    eprintln!("whole body: {} detections within {distance:.1e}", golden.len());
    assert!(distance <= LIMIT, "detections differ by {distance:.1e}");
    // Its featurizer alone, of the model file and of the state dict, which is imported on the way.
    let cells = Golden::read(&dir.join("cells.safetensors"));
    let out = dir.join("out.safetensors");
    for weights in [&model, &dir.join("detector.pth")] {
        let picture = dir.join("picture_0.png");
        let arguments = ["--input", text(&picture), "--out", text(&out)];
        expect_code(&run(&[&["features", "--weights", text(weights)], &arguments[..]].concat()), 0);
        compare_cells(text(weights), &cells, &Golden::read(&out));
    }
    let wrong = import(dir, &["--pooling", "tf"]);
    let distance = apart(&golden, &detected(dir, &wrong, SIZE));
    assert!(distance > 10. * LIMIT, "the other pooling is seen: {distance:.1e}");
}

#[test]
fn a_body_cut_by_timm_and_other_settings_give_torchvision_s_detections() {
    const SIZE: [usize; 2] = [211, 333];
    let Some(dir) = originals("peer") else { return };
    let dir = dir.path();
    let golden = golden(dir);

    // Without the anchors' settings it can't be right, and the error says what to do.
    let (source, model) = (dir.join("detector.pth"), dir.join("model.safetensors"));
    let said = expect_code(&run(&["import", text(&source), "--out", text(&model)]), 4);
    assert!(said.contains("4 anchors") && said.contains("--config"), "{said}");
    assert!(!model.exists());

    let recipe = fs::read_to_string(tree().join("configs/peer_c4.toml")).unwrap();
    let changed = |changes: &[(&str, &str)]| {
        let path = dir.join("recipe.toml");
        let text = changes.iter().fold(recipe.clone(), |text, (from, to)| {
            assert!(text.contains(from), "the recipe has {from}");
            text.replace(from, to)
        });
        fs::write(&path, text).unwrap();
        path
    };
    let sizes = ("short_side = 320, long_side = 640", "short_side = 256, long_side = 448");
    let ratios = ("ratios = [0.5, 1.0, 2.0]", "ratios = [0.5, 2.0]");
    let anchors = ("sizes = [32.0, 64.0, 128.0, 256.0]", "sizes = [24.0, 96.0]");
    let config = changed(&[sizes, ratios, anchors]);
    let model = import(dir, &["--config", text(&config)]);
    let info = read(&model);
    let backbone = &info.config.backbone;
    assert_eq!((backbone.name.to_string().as_str(), backbone.stem_filters), ("nasnet-a-6@192", 10));
    assert_eq!((backbone.wiring, backbone.pooling), (Wiring::Large, Pooling::Timm));
    let detector = &info.config.detector;
    assert_eq!((detector.cut, detector.mlp_width, detector.crop_size), (Cut::Last, 24, 5));
    let distance = apart(&golden, &detected(dir, &model, SIZE));
    eprintln!("cut body: {} detections within {distance:.1e}", golden.len());
    assert!(distance <= LIMIT_RESIZED, "detections differ by {distance:.1e}");

    // As many anchors of other sizes are seen.
    let other = ("sizes = [32.0, 64.0, 128.0, 256.0]", "sizes = [24.0, 97.0]");
    let wrong = import(dir, &["--config", text(&changed(&[sizes, ratios, other]))]);
    let distance = apart(&golden, &detected(dir, &wrong, SIZE));
    assert!(distance > 10. * LIMIT_RESIZED, "other anchors are seen: {distance:.1e}");
}

#[test]
fn everything_that_does_not_fit_is_listed_at_once_and_nothing_is_written() {
    let Some(dir) = originals("detector") else { return };
    let (source, model) = (dir.path().join("wrong.pth"), dir.path().join("model.safetensors"));
    let said = expect_code(&run(&["import", text(&source), "--out", text(&model)]), 4);
    for fault in [
        "missing: rpn.head.bbox_pred.bias [48]",
        "misshapen: backbone.body.cell_3.conv_1x1.bn.weight is [3], expected [4]",
        "unexpected: roi_heads.mask_head.weight [2, 2]",
    ] {
        assert!(said.contains(fault), "{fault}: {said}");
    }
    let faults = ["missing:", "misshapen:", "unexpected:"].map(|kind| said.matches(kind).count());
    assert_eq!(faults, [1; 3], "and nothing else: {said}");
    assert!(!model.exists());
    let left = fs::read_dir(dir.path()).unwrap().count();
    // Two .pth, picture_0.png, detections.safetensors and cells.safetensors.
    assert_eq!(left, 5, "no temporary file is left");
    fs::write(&model, "what was there before").unwrap();
    expect_code(&run(&["import", text(&source), "--out", text(&model)]), 4);
    assert_eq!(fs::read_to_string(&model).unwrap(), "what was there before");
}
