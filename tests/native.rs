//! The program without libtorch, on the samples and the scenes that are shipped: `detect-torch` is never there.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use detect::config::Pooling;
use detect::data::classify::{ClassNames, Preprocessing};
use detect::data::image::decode;
use detect::data::loader::prepare;
use detect::engine::{Cpu, Detector};
use detect::geometry::Size;
use detect::network::DetectorModel as _;
use detect::weights::import::{self, Settings};
use detect::weights::{ClassifierInfo, Contents, random};
use rayon::prelude::*;
use serde_json::{Value, json};

/// A folder in which the program is alone.
struct Alone {
    folder: tempfile::TempDir,
}

impl Alone {
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::hard_link(env!("CARGO_BIN_EXE_detect"), folder.path().join("detect")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs it on a CPU; gives what it printed on stdout.
    fn run(&self, args: &[&str]) -> String {
        self.run_with(args, &[])
    }

    /// The same with variables of the environment.
    fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> String {
        let mut command = Command::new(self.path("detect"));
        command.args(args).args(["--device", "cpu"]).envs(variables.iter().copied());
        let output = command.output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {:?}\n{talk}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[args, &["--json"]].concat())).unwrap()
    }
}

fn shipped(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path).display().to_string()
}

#[test]
fn it_finds_in_the_samples_what_they_show() {
    let program = Alone::new();
    let scenes = shipped("models/scenes.safetensors");
    let images = ["samples/sample_0001.jpg", "samples/sample_0004.jpg"].map(shipped);
    let args = [&images[0], &images[1], "--weights", &scenes];
    let one = program.json(&args);
    assert_eq!(one.as_array().unwrap().len(), 2);
    for image in one.as_array().unwrap() {
        let found = image["detections"].as_array().unwrap();
        assert!(!found.is_empty() && found.iter().all(|d| d["score"].as_f64().unwrap() >= 0.3));
    }
    // Neither threads nor the width of vectors make a difference that can be seen.
    let scores = |value: &Value| -> Vec<f64> {
        let images = value.as_array().unwrap().iter();
        let all = images.flat_map(|image| image["detections"].as_array().unwrap().clone());
        all.map(|d| d["score"].as_f64().unwrap()).collect()
    };
    let other = program.json(&[&args[..], &["--threads", "1"]].concat());
    assert_eq!(scores(&one).len(), scores(&other).len());
    for (a, b) in scores(&one).iter().zip(scores(&other)) {
        assert!((a - b).abs() < 1e-4, "{a} and {b}");
    }
}

#[test]
fn pictures_are_named_in_json_and_are_no_inputs_of_the_next_call() {
    let (program, folder) = (Alone::new(), tempfile::tempdir().unwrap());
    fs::copy(shipped("samples/sample_0001.jpg"), folder.path().join("a.jpg")).unwrap();
    let path = folder.path().to_str().unwrap();
    let args = [path, "--weights", &shipped("models/scenes.safetensors")];
    assert!(program.json(&args)[0].get("picture").is_none());
    for _ in 0..2 {
        let found = program.json(&[&args[..], &["--out", path]].concat());
        assert_eq!(found.as_array().unwrap().len(), 1);
        let picture = found[0]["picture"].as_str().unwrap();
        assert_eq!(Path::new(picture), folder.path().join("a.detections.jpg"));
        assert!(Path::new(picture).is_file());
    }
    // Named by itself it is an input like any other, and stays what it is.
    let [image, earlier] = ["a.jpg", "a.detections.jpg"].map(|name| folder.path().join(name));
    let before = fs::read(&earlier).unwrap();
    let both = [image.to_str().unwrap(), earlier.to_str().unwrap()];
    let found = program.json(&[&both[..], &args[1..], &["--out", path]].concat());
    assert_eq!(
        Path::new(found[0]["picture"].as_str().unwrap()),
        folder.path().join("a-2.detections.jpg")
    );
    assert_eq!(fs::read(&earlier).unwrap(), before);
}

/// A PNG of 10,000 x 8,000 pixels of 16 bit, up to where its pixels would begin: to decode it takes 480 MB.
#[cfg(target_os = "linux")]
fn large_png() -> Vec<u8> {
    let sum = |bytes: &[u8]| {
        let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
    };
    let header =
        [&10_000_u32.to_be_bytes()[..], &8_000_u32.to_be_bytes(), &[16, 2, 0, 0, 0]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", &[0x78, 1])] {
        let chunk = [&kind[..], data].concat();
        file.extend((data.len() as u32).to_be_bytes());
        file.extend_from_slice(&chunk);
        file.extend(sum(&chunk).to_be_bytes());
    }
    file
}

/// Linux counts a process's addresses.
#[cfg(target_os = "linux")]
#[test]
fn images_that_memory_does_not_hold_are_no_images_without_detections() {
    let (program, folder) = (Alone::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let annotations = shipped("scenes/annotations/val.json");
    let mut set: Value = serde_json::from_slice(&fs::read(annotations).unwrap()).unwrap();
    let image = set["annotations"][0]["image_id"].clone();
    set["images"] =
        json!([{ "id": image, "file_name": "a.png", "width": 10_000, "height": 8_000 }]);
    set["annotations"].as_array_mut().unwrap().retain(|a| a["image_id"] == image);
    for sub in ["annotations", "images"] {
        fs::create_dir(path(sub)).unwrap();
    }
    fs::write(path("annotations/val.json"), set.to_string()).unwrap();
    fs::write(path("images/a.png"), large_png()).unwrap();
    let with = |threads: &str, limit: &str, args: &[&str], code: i32| {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("ulimit -v {limit}; exec \"$@\""), "sh"])
            .arg(program.path("detect"));
        shell.args(args).args(["--device", "cpu", "--threads", threads, "--weights"]);
        // One arena: else each thread's takes addresses of its own.
        shell.arg(shipped("models/scenes.safetensors")).env("MALLOC_ARENA_MAX", "1");
        let output = shell.output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {talk}");
        talk
    };
    let said = |limit: &str, args: &[&str], code: i32| with("1", limit, args, code);
    let (data, large) = (path(""), path("images/a.png"));
    let eval = ["eval", "--data", &data, "--split", "val"];
    let sample = shipped("samples/sample_0001.jpg");
    said("450000", &[&sample], 0);
    assert!(with("1000", "450000", &[&sample], 7).contains("1000 threads can't be started"));
    assert!(said("450000", &[&large], 1).contains("not enough memory to decode its 10000 x 8000"));
    assert!(said("450000", &eval, 7).contains("not enough memory to decode its 10000 x 8000"));
    // With enough of it, the file is what is wrong.
    assert!(said("unlimited", &eval, 1).contains("damaged"));
}

#[test]
fn what_is_left_out_of_a_folder_is_told() {
    let (program, folder) = (Alone::new(), tempfile::tempdir().unwrap());
    let talk = || {
        let mut command = Command::new(program.path("detect"));
        command.arg(folder.path()).args(["--device", "cpu", "--weights"]);
        let output = command.arg(shipped("models/scenes.safetensors")).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    fs::copy(shipped("samples/sample_0001.jpg"), folder.path().join("a.jpg")).unwrap();
    fs::write(folder.path().join(".hidden"), "").unwrap();
    assert!(!talk().contains("left out"), "{}", talk());
    for name in ["a.avif", "b.heic", "none", "a.detections.jpg"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    fs::create_dir(folder.path().join("sub")).unwrap();
    let words = "left out: 1 pictures *.detections.jpg, 3 files with other endings, 1 folders";
    assert!(talk().contains(words), "{}", talk());
}

#[test]
fn more_than_a_model_gives_is_told_to_be_more() {
    let (program, image) = (Alone::new(), shipped("samples/sample_0001.jpg"));
    let talk = |more: &[&str]| {
        let mut command = Command::new(program.path("detect"));
        command.args([&image, "--device", "cpu", "--weights"]);
        command.arg(shipped("models/scenes.safetensors")).args(more);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let words = "at most 100 detections an image, and none with a score under 0.01";
    assert!(!talk(&["--max-detections", "100", "--score", "0.01"]).contains(words));
    for more in [["--max-detections", "101"], ["--score", "0"]] {
        assert!(talk(&more).contains(words), "{more:?}: {}", talk(&more));
    }
}

#[test]
fn callers_can_share_a_detector() {
    let path = shipped("models/scenes.safetensors");
    let model = Arc::new(Detector::read(path.as_ref(), Cpu::float32(2)).unwrap());
    let image = decode(shipped("samples/sample_0001.jpg").as_ref()).unwrap().image;
    let batch = Arc::new(prepare(&[&image], &model.info().config.input));
    let expected = model.detect(&batch);
    let (done, all) = mpsc::channel();
    for _ in 0..3 {
        let (model, batch, done) = (model.clone(), batch.clone(), done.clone());
        thread::spawn(move || {
            let found: Vec<_> = (0..5).map(|_| model.detect(&batch)).collect();
            done.send(found).unwrap();
        });
    }
    for _ in 0..3 {
        // Callers that wait for each other would do so for ever.
        let found = all.recv_timeout(Duration::from_mins(2)).unwrap();
        assert!(found.iter().all(|found| *found == expected));
    }
}

#[test]
fn threads_of_another_pool_can_share_a_detector() {
    let path = shipped("models/scenes.safetensors");
    let model = Detector::read(path.as_ref(), Cpu::float32(2)).unwrap();
    let image = decode(shipped("samples/sample_0001.jpg").as_ref()).unwrap().image;
    let batch = prepare(&[&image], &model.info().config.input);
    let expected = model.detect(&batch);
    let (done, found) = mpsc::channel();
    thread::spawn(move || {
        // More than there are threads: one that waits would take up the next.
        let found: Vec<_> = (0..16).into_par_iter().map(|_| model.detect(&batch)).collect();
        done.send(found).unwrap();
    });
    let found = found.recv_timeout(Duration::from_mins(2)).expect("none waits for itself");
    assert!(found.iter().all(|found| *found == expected));
}

#[test]
fn bfloat16_finds_nearly_the_same_where_it_is_asked_for() {
    let program = Alone::new();
    let (scenes, image) =
        (shipped("models/scenes.safetensors"), shipped("samples/sample_0001.jpg"));
    let args = [&image, "--weights", &scenes, "--json"];
    let found = |more: &[&str]| -> Vec<(f64, Vec<f64>)> {
        let text =
            program.run_with(&[&args, more].concat(), &[("DETECT_INSTRUCTIONS", "portable")]);
        let value: Value = serde_json::from_str(&text).unwrap();
        let of = |d: &Value| -> (f64, Vec<f64>) {
            let sides = d["bbox"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap());
            (d["score"].as_f64().unwrap(), sides.collect())
        };
        value[0]["detections"].as_array().unwrap().iter().map(of).collect()
    };
    let (plain, rounded) = (found(&[]), found(&["--precision", "bf16"]));
    assert_eq!(plain, found(&["--precision", "float32"]));
    assert_ne!(plain, rounded, "nothing was rounded");
    let sure = plain.iter().filter(|(score, _)| *score > 0.5);
    assert!(sure.clone().count() > 0);
    for (score, sides) in sure {
        let near = |(other, other_sides): &&(f64, Vec<f64>)| {
            (score - other).abs() < 0.05
                && sides.iter().zip(other_sides).all(|(a, b)| (a - b).abs() < 3.)
        };
        assert!(rounded.iter().any(|one| near(&one)), "{score} {sides:?} in {rounded:?}");
    }
    // Without plain loops it is for processors that have it.
    let mut command = Command::new(program.path("detect"));
    command.args(args).args(["--precision", "bf16", "--device", "cpu"]);
    let output = command.env_remove("DETECT_INSTRUCTIONS").output().unwrap();
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(if has { 0 } else { 2 }), "{talk}");
    assert!(has || talk.contains("AVX512-BF16"), "{talk}");
}

#[test]
fn sets_without_bfloat16_are_no_sets_for_it() {
    let program = Alone::new();
    let mut command = Command::new(program.path("detect"));
    command.args([&shipped("samples/sample_0001.jpg"), "--precision", "bf16", "--device", "cpu"]);
    command.env("DETECT_INSTRUCTIONS", "avx2");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        let talk = String::from_utf8(output.stderr).unwrap();
        assert!(talk.contains("DETECT_INSTRUCTIONS=avx2 leaves no instructions"), "{talk}");
    }
}

#[test]
fn beside_a_gpu_it_says_how_to_do_without_libtorch() {
    let program = Alone::new();
    fs::write(program.path("nvidia-smi"), "").unwrap();
    let image = shipped("samples/sample_0001.jpg");
    let run = |args: &[&str]| {
        let mut command = Command::new(program.path("detect"));
        command.arg(&image).args(args).env("PATH", program.folder.path());
        command.output().unwrap()
    };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(talk.contains("detect-torch") && talk.contains("--engine native"), "{talk}");
    let output = run(&["--engine", "native"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn instructions_that_are_not_there_are_told() {
    let program = Alone::new();
    let talk = |asked: &str| {
        let mut command = Command::new(program.path("detect"));
        command.args(["bench", "--backbone", "nasnet-a-1@96", "--image-size", "32"]);
        command.args(["--runs", "1", "--device", "cpu"]);
        let output = command.env("DETECT_INSTRUCTIONS", asked).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let told = talk("sse9");
    assert!(told.contains("DETECT_INSTRUCTIONS=sse9 is not there") && told.contains("portable"));
    assert!(!talk("portable").contains("is not there"));
    let doctor = |asked: &str| {
        let mut command = Command::new(program.path("detect"));
        let output = command.arg("doctor").env("DETECT_INSTRUCTIONS", asked).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let told = doctor("sse9");
    assert!(told.contains("DETECT_INSTRUCTIONS=sse9 is not there"), "{told}");
    assert!(told.contains("unset it, or ask for one of portable"), "{told}");
    assert!(!doctor("portable").contains("is not there"));
}

#[test]
fn the_scenes_score_what_their_card_says() {
    let program = Alone::new();
    let scenes = shipped("models/scenes.safetensors");
    let out = program.path("scored").display().to_string();
    let args = [
        "eval",
        "--data",
        &shipped("scenes"),
        "--split",
        "val",
        "--weights",
        &scenes,
        "--out",
        &out,
    ];
    let report = program.json(&args);
    // As libtorch scored it when the model was made: data/models/scenes.md.
    let [ap, ap50] = ["AP", "AP50"].map(|key| report[key].as_f64().unwrap());
    assert!((ap - 0.390).abs() < 1e-3 && (ap50 - 0.599).abs() < 1e-3, "{ap} {ap50}");
}

#[test]
fn a_classifier_says_the_same_as_its_last_map() {
    let program = Alone::new();
    let backbone =
        import::section("nasnet-a-2@192".parse().unwrap(), 32, &Settings::default(), false);
    assert_eq!(backbone.pooling, Pooling::Tf);
    let info = ClassifierInfo {
        backbone,
        preprocessing: Preprocessing::plain(Size::new(64, 64)),
        classes: ClassNames {
            names: (0..5).map(|c| format!("class {c}")).collect(),
            wnids: Vec::new(),
        },
        origin: "random".into(),
    };
    let mut contents = random::classifier(&info, 3);
    info.write_to(&mut contents);
    let weights = program.path("c.safetensors");
    contents.write(&weights).unwrap();
    let weights = weights.display().to_string();
    let image = shipped("samples/sample_0001.jpg");
    let said = program.json(&["classify", &image, "--weights", &weights, "--top", "5"]);
    let scores: Vec<f64> = said[0]["classes"]
        .as_array()
        .unwrap_or_else(|| panic!("{said:#}"))
        .iter()
        .map(|class| class["probability"].as_f64().or(class["score"].as_f64()).unwrap())
        .collect();
    assert_eq!(scores.len(), 5);
    let maps = program.path("maps.safetensors").display().to_string();
    program.run(&["features", "--weights", &weights, "--input", &image, "--out", &maps]);
    let logits = Contents::read(Path::new(&maps)).unwrap().tensors["logits"].to_f32().unwrap();
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - largest).exp()).sum();
    assert!((1. / sum - scores[0]).abs() < 1e-4, "{logits:?} {scores:?}");
}

#[test]
fn annotations_without_area_and_iscrowd_are_scored_as_they_are_trained_on() {
    let program = Alone::new();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("annotations")).unwrap();
    fs::create_dir(folder.path().join("images")).unwrap();
    let mut truth: Value =
        serde_json::from_slice(&fs::read(shipped("scenes/annotations/val.json")).unwrap()).unwrap();
    truth["images"].as_array_mut().unwrap().truncate(3);
    let images = truth["images"].clone();
    let ids: Vec<&Value> = images.as_array().unwrap().iter().map(|image| &image["id"]).collect();
    for image in images.as_array().unwrap() {
        let name = image["file_name"].as_str().unwrap();
        let from = shipped(&format!("scenes/images/{name}"));
        fs::copy(from, folder.path().join("images").join(name)).unwrap();
    }
    let all = truth["annotations"].as_array_mut().unwrap();
    all.retain(|annotation| ids.contains(&&annotation["image_id"]));
    for annotation in all.iter_mut() {
        let side = |i: usize| annotation["bbox"][i].as_f64().unwrap();
        (annotation["area"], annotation["iscrowd"]) = ((side(2) * side(3)).into(), 0.into());
    }
    let file = folder.path().join("annotations/val.json");
    let root = folder.path().to_str().unwrap();
    let args = ["eval", "--data", root, "--split", "val", "--weights", "scenes"];
    fs::write(&file, truth.to_string()).unwrap();
    let whole = program.json(&args);
    assert!(whole["stats"][0].as_f64().unwrap() > 0.1, "{whole}");
    for annotation in truth["annotations"].as_array_mut().unwrap() {
        annotation.as_object_mut().unwrap().retain(|key, _| key != "area" && key != "iscrowd");
    }
    // With the mark that some editors put before a text.
    fs::write(&file, format!("\u{feff}{truth}")).unwrap();
    assert_eq!(program.json(&args)["stats"], whole["stats"]);
}

#[test]
fn it_times_itself() {
    let program = Alone::new();
    let args = ["bench", "--backbone", "nasnet-a-2@192", "--image-size", "64", "--runs", "3"];
    let report = program.json(&args);
    assert_eq!(report["runs"], 3);
    let [min, median, max] = ["min_ms", "median_ms", "max_ms"].map(|k| report[k].as_f64().unwrap());
    assert!(0. < min && min <= median && median <= max, "{report}");
}
