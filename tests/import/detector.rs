//! TensorFlow's detector: which settings an imported model has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use detect::config::{Resize, Rules};
use detect::weights::{Contents, ModelInfo};

fn oracle() -> Option<PathBuf> {
    let Some(root) = std::env::var_os("DETECT_TEST_DATA") else {
        eprintln!("skipped: oracle/tf_detector: DETECT_TEST_DATA is not set");
        return None;
    };
    Some(Path::new(&root).join("oracle/tf_detector/small"))
}

fn model(source: &Path, flags: &[&str]) -> (ModelInfo, String) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.safetensors");
    let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
    command.arg("import").arg(source).arg("--out").arg(&out).args(["--wiring", "large"]);
    let said = command.args(flags).output().unwrap();
    let talk = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(0), "{talk}");
    (ModelInfo::read_from(&Contents::read(&out).unwrap(), &out).unwrap(), talk)
}

#[test]
fn settings_are_the_user_s_then_the_file_s_then_the_published() {
    let Some(folder) = oracle() else { return };
    // Beside its pipeline.config, by any of the names that a checkpoint goes by.
    for name in ["", "model.ckpt", "model.ckpt.index"] {
        let (info, talk) = model(&folder.join(name), &[]);
        let config = &info.config;
        assert_eq!(config.detector.rules, Rules::Tf);
        assert_eq!(config.input.resize, Resize::Fixed { height: 256, width: 256 });
        assert_eq!((config.rpn.post_nms_eval, config.roi.sampled), (32, 32));
        assert_eq!((config.rpn.channels, config.detector.crop_size), (32, 17));
        assert_eq!(config.anchors.sizes, [64., 128., 256., 512.]);
        // TensorFlow's aspects are width over height.
        assert_eq!(config.anchors.ratios, [2., 1., 0.5]);
        assert_eq!((config.train.loss_weights.rpn_box, config.train.loss_weights.class), (2., 1.));
        assert!(!talk.contains("pipeline.config"), "{talk}");
    }
    // Flags win.
    let dir = tempfile::tempdir().unwrap();
    let labels = dir.path().join("labels.pbtxt");
    let items = ["cat", "dog", "cow", "pig", "hen"].iter().enumerate();
    let items = items.map(|(i, name)| format!("item {{ id: {} name: '{name}' }}\n", i + 1));
    fs::write(&labels, items.collect::<String>()).unwrap();
    let flags = [
        "--image-size",
        "320x200",
        "--proposals",
        "7",
        "--score",
        "0.25",
        "--pooling",
        "timm",
        "--label-map",
        labels.to_str().unwrap(),
    ];
    let (info, _) = model(&folder, &flags);
    assert_eq!(info.config.input.resize, Resize::Fixed { height: 320, width: 200 });
    assert_eq!((info.config.rpn.post_nms_eval, info.config.roi.score_floor), (7, 0.25));
    let names: Vec<&str> = info.categories.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["cat", "dog", "cow", "pig", "hen"]);
    // Elsewhere the published settings hold, and that is said.
    for file in ["model.ckpt.index", "model.ckpt.data-00000-of-00001", "frozen_inference_graph.pb"]
    {
        fs::copy(folder.join(file), dir.path().join(file)).unwrap();
    }
    for name in ["model.ckpt", "frozen_inference_graph.pb"] {
        let (info, talk) = model(&dir.path().join(name), &[]);
        assert_eq!(info.config.input.resize, Resize::Fixed { height: 1200, width: 1200 });
        assert_eq!(info.config.rpn.post_nms_eval, 500);
        assert!(talk.contains("there is no pipeline.config beside it"), "{talk}");
    }
}

#[test]
fn features_are_made_with_the_settings_beside_a_checkpoint() {
    let Some(folder) = oracle() else { return };
    let dir = tempfile::tempdir().unwrap();
    // Named as a trainer names its checkpoints.
    for end in ["index", "data-00000-of-00001"] {
        let name = dir.path().join(format!("model.ckpt-123.{end}"));
        fs::copy(folder.join(format!("model.ckpt.{end}")), name).unwrap();
    }
    fs::copy(folder.join("pipeline.config"), dir.path().join("pipeline.config")).unwrap();
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/samples/sample_0001.jpg");
    let maps = dir.path().join("maps.safetensors");
    let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
    command.args(["features", "--wiring", "large", "--device", "cpu", "--weights"]);
    command.arg(dir.path().join("model.ckpt-123")).arg("--input").arg(image);
    let said = command.arg("--out").arg(&maps).output().unwrap();
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    // An eighth of 256 pixels.
    assert_eq!(Contents::read(&maps).unwrap().tensors["cell_0"].shape[2..], [32, 32]);
}

#[test]
fn checkpoint_and_frozen_graph_are_the_same_model() {
    let Some(folder) = oracle() else { return };
    let read = |name: &str| {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model.safetensors");
        let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
        command.arg("import").arg(folder.join(name)).arg("--out").arg(&out);
        let said = command.args(["--wiring", "large"]).output().unwrap();
        assert_eq!(said.status.code(), Some(0), "{said:?}");
        Contents::read(&out).unwrap()
    };
    assert_eq!(read("model.ckpt"), read("frozen_inference_graph.pb"));
}
