//! The command line as a user meets it: texts, exit codes, what goes to stdout and what to stderr.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What the program said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// The program without anything of this terminal, which would change the width of help texts.
fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.stdin(Stdio::null()).env_remove("COLUMNS").env_remove("RUST_LOG");
    command
}

fn detect(args: &[&str]) -> Said {
    command(env!("CARGO_BIN_EXE_detect")).args(args).output().unwrap().into()
}

/// Ends with `code`, says nothing on stdout, and all of `words` on stderr.
fn assert_refused(args: &[&str], code: i32, words: &[&str]) {
    let said = detect(args);
    assert_eq!(said.code, Some(code), "{args:?}: {said:?}");
    assert_eq!(said.stdout, "", "{args:?}");
    for word in words {
        assert!(said.stderr.contains(word), "{args:?}: no '{word}' in {}", said.stderr);
    }
    assert!(!said.stderr.contains("panicked"), "{args:?}: {}", said.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout_or_stderr_is_no_bug() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(env!("CARGO_BIN_EXE_detect"));
    let said: Said =
        command.args(["info", "nasnet-a-6@4032"]).stdout(full()).output().unwrap().into();
    assert_eq!(said.code, Some(5), "{said:?}");
    assert!(said.stderr.contains("cannot write to standard output: No space left"), "{said:?}");
    // Nothing can be said, and the code is what it would have been.
    for (args, code) in [(&["info", "resnet50"][..], 2), (&["no-such.jpg"], 1)] {
        let output = self::command(env!("CARGO_BIN_EXE_detect")).args(args).stderr(full()).output();
        let said = Said::from(output.unwrap());
        let plain = detect(args).code;
        assert_eq!((said.code, plain), (Some(code), Some(code)), "{args:?}");
    }
}

#[test]
fn a_model_and_a_results_file_are_not_scored_at_once() {
    let model = ["eval", "--data", "d", "--split", "val"];
    let file = ["--predictions", "dt.json", "--html", "page.html"];
    assert_refused(&[&model[..], &file].concat(), 2, &["'--predictions", "cannot be used with"]);
    for network in [["--batch", "2"], ["--device", "cpu"], ["--engine", "native"]] {
        let args = [&["eval", "--annotations", "gt.json"], &file[..2], &network].concat();
        assert_refused(&args, 2, &[network[0], "cannot be used with"]);
    }
    assert_refused(&["train", "--steps", "0"], 2, &["'0'", "--steps"]);
}

#[test]
fn help_texts() {
    let verbs = [
        "", "train", "eval", "classify", "info", "import", "features", "bench", "check", "convert",
        "draw", "report", "doctor",
    ];
    for verb in verbs {
        let args: Vec<&str> = [verb, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        let said = detect(&args);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{verb}");
        let name = if verb.is_empty() { "help".to_owned() } else { format!("help_{verb}") };
        insta::assert_snapshot!(name, said.stdout);
    }
    // A verb that is missing above is missing in the snapshots.
    let all = detect(&["--help"]).stdout;
    let (_, list) = all.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let listed = list.lines().filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    let listed: Vec<&str> = listed.filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(listed[..listed.len() - 1], verbs[1..], "the last one is help");
}

#[test]
fn version() {
    let said = detect(&["--version"]);
    assert_eq!(said.stdout, format!("detect {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what() {
    assert_refused(&[], 2, &["Usage: detect [OPTIONS] <IMAGE|DIR>...", "Commands:"]);
    assert_refused(&["--nope"], 2, &["unexpected argument '--nope'", "--help"]);
    assert_refused(&["x.jpg", "--score", "2"], 2, &["'2' is not a number between 0 and 1"]);
    assert_refused(&["x.jpg", "--batch", "0"], 2, &["--batch"]);
    assert_refused(&["eval"], 2, &["--split val", "--predictions DT.json"]);
    assert_refused(&["eval", "--annotations", "a"], 2, &["--predictions <DT.json>"]);
    assert_refused(&["eval", "--predictions", "a"], 2, &["--annotations <GT.json>"]);
    let both = ["eval", "--split", "val", "--annotations", "a", "--predictions", "b"];
    assert_refused(&both, 2, &["cannot be used with"]);
    assert_refused(&["eval", "--task", "detection"], 2, &["--split val"]);
    assert_refused(&["eval", "--task", "naming"], 2, &["'naming'", "classification"]);
    assert_refused(&["classify", "x.jpg"], 2, &["--weights <FILE>"]);
    assert_refused(&["classify", "--weights", "w"], 2, &["<IMAGE|DIR>"]);
    for top in ["0", "1001", "few"] {
        assert_refused(&["classify", "x.jpg", "--weights", "w", "--top", top], 2, &["--top", top]);
    }
    assert_refused(&["train", "--set", "nonsense"], 2, &["nonsense"]);
    assert_refused(&["check"], 2, &["<DIR>"]);
    assert_refused(&["report"], 2, &["<RUN>..."]);
    assert_refused(&["features"], 2, &["--weights", "--input", "--out"]);
    assert_refused(&["info", "nasnet-a-6@4032", "--classes", "0"], 2, &["at least 1"]);
    assert_refused(&["info", "nasnet-a-6@4032", "--image-size", "2"], 2, &["at least 3 pixels"]);
    assert_refused(&["info", "nasnet-a-6@4032", "--image-size", "huge"], 2, &["huge"]);
}

#[test]
fn the_native_engine_is_for_cpus() {
    let verbs: [&[&str]; 5] = [&["photo.jpg"], CLASSIFY, SCORE, &["bench"], FEATURES];
    for verb in verbs {
        let gpu = [verb, &["--engine", "native", "--device", "cuda:1"]].concat();
        assert_refused(&gpu, 2, &["--engine native is for CPUs", "--device cuda:1"]);
        let neither = [verb, &["--engine", "abacus"]].concat();
        assert_refused(&neither, 2, &["'abacus'", "native, torch"]);
        assert_refused(&[verb, &["--device", "gpu"]].concat(), 2, &["--device gpu: expected auto"]);
    }
    assert_refused(&["train", "--engine", "native"], 2, &["unexpected argument '--engine'"]);
}

#[test]
fn wrong_usage_of_bench_is_told() {
    let native = |args: &[&'static str]| [&["bench", "--engine", "native"], args].concat();
    let both = ["--weights", "w", "--backbone", "nasnet-a-4@1056"];
    assert_refused(&native(&both), 2, &["cannot be used with"]);
    assert_refused(&native(&["--runs", "0"]), 2, &["--runs"]);
    assert_refused(&native(&["--batch", "0"]), 2, &["--batch"]);
    assert_refused(&native(&["--image-size", "2"]), 2, &["at least 3 pixels"]);
    assert_refused(&native(&["--backbone", "resnet50"]), 2, &["'resnet50' is not a backbone"]);
    assert_refused(&native(&["--backbone", "nasnet-own-4@96"]), 2, &["the file that holds them"]);
    assert_refused(&native(&["--weights", "w"]), 4, &["shipped"]);
}

#[test]
fn classification_is_scored_with_data_and_weights_and_without_a_split() {
    let task = ["eval", "--task", "classification"];
    let whole = ["--data", "d", "--weights", "w"];
    let refused = |more: &[&str], words: &[&str]| assert_refused(&[&task, more].concat(), 2, words);
    refused(&[], &["needs --data DIR"]);
    refused(&["--data", "d"], &["needs --weights FILE"]);
    refused(&["--weights", "w"], &["needs --data DIR"]);
    for (flag, value) in [("--split", "val"), ("--out", "o")] {
        let words = [flag, "does not go with --task classification", "DIR/val/CLASS/"];
        refused(&[&whole, &[flag, value][..]].concat(), &words);
    }
    refused(&["--annotations", "a", "--predictions", "b"], &["--annotations does not go with"]);
}

#[test]
fn names_of_backbones_that_do_not_exist_are_refused_with_advice() {
    assert_refused(&["info", "resnet50"], 2, &["'resnet50' is not a backbone", "nasnet-a-6@4032"]);
    assert_refused(&["info", "nasnet-a-6"], 2, &["nasnet-a-6@4032"]);
    assert_refused(&["info", "nasnet-a-5@1538"], 2, &["multiple of 96", "nasnet-a-5@1536"]);
    assert_refused(&["info", "nasnet-a-0@96"], 2, &["'nasnet-a-0@96'"]);
    assert_refused(&["info", "nasnet-a-6@99999999999999999999"], 2, &["nasnet-a-6@9999"]);
}

const GT: &str = r#"{"images": [{"id": 1}], "categories": [{"id": 1, "name": "cell"}], "annotations":
    [{"id": 0, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0},
     {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 0, 9, 9], "area": 81, "iscrowd": 0}]}"#;
const DT: &str = r#"[{"image_id": 1, "category_id": 1, "bbox": [20, 0, 9, 9], "score": 0.5}]"#;

/// A folder with `gt.json` and `dt.json`, and the command that scores them.
fn eval_files(gt: &str, dt: &str) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gt.json"), gt).unwrap();
    fs::write(folder.path().join("dt.json"), dt).unwrap();
    let mut command = command(env!("CARGO_BIN_EXE_detect"));
    command.current_dir(folder.path());
    command.args(["eval", "--annotations", "gt.json", "--predictions", "dt.json"]);
    (folder, command)
}

#[test]
fn eval_prints_the_table_or_one_json_value_and_warns_on_stderr() {
    let (_folder, mut command) = eval_files(GT, DT);
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, Some(0), "{said:?}");
    // One of two boxes is found: 51 of 101 recall points have precision 1.
    let first = " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.505\n";
    assert!(said.stdout.starts_with(first), "{}", said.stdout);
    assert_eq!(said.stdout.lines().filter(|l| l.contains(" | maxDets=")).count(), 12);
    assert!(said.stdout.contains("\ncell "), "{}", said.stdout);
    assert!(said.stderr.contains("annotations with the id 0: 1."), "{}", said.stderr);

    let said = Said::from(command.arg("--json").output().unwrap());
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["stats"].as_array().unwrap().len(), 12);
    assert_eq!(json["AP50"], json["stats"][1]);
    assert_eq!(json["AR1"], 0.5);
    assert!(said.stderr.contains("the id 0"), "{}", said.stderr);
}

#[test]
fn the_page_and_the_comparison_come_with_their_tables() {
    let truth = r#"{"images": [{"id": 1}, {"id": 2}], "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "platelet"}],
    "annotations": [
     {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1600, "iscrowd": 0},
     {"id": 2, "image_id": 1, "category_id": 2, "bbox": [50, 0, 9, 9], "area": 81, "iscrowd": 0},
     {"id": 3, "image_id": 2, "category_id": 1, "bbox": [20, 0, 40, 40], "area": 1600, "iscrowd": 0}]}"#;
    let found = r#"[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "score": 0.9},
     {"image_id": 1, "category_id": 1, "bbox": [50, 0, 9, 9], "score": 0.6},
     {"image_id": 2, "category_id": 1, "bbox": [20, 0, 40, 40], "score": 0.7},
     {"image_id": 2, "category_id": 2, "bbox": [80, 80, 9, 9], "score": 0.8}]"#;
    let (folder, mut command) = eval_files(truth, found);
    fs::write(folder.path().join("other.json"), DT).unwrap();
    command.args(["--html", "page.html", "--compare", "other.json"]);
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, Some(0), "{said:?}");
    insta::assert_snapshot!("eval_analysis", said.stdout);
    let page = fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("platelet") && page.contains("</html>"), "{page}");

    let said = Said::from(command.arg("--json").output().unwrap());
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    // From the best threshold on, which leaves the mistaken platelet out.
    let rows = &json["analysis"]["confusion"]["rows_are_truths"];
    assert_eq!(*rows, serde_json::json!([[2, 0, 0], [0, 0, 1], [0, 1, 0]]));
    assert_eq!(json["comparison"]["resamples"], 1000);
}

#[test]
fn what_is_read_is_not_written_over() {
    let (folder, _) = eval_files("{}", "[]");
    let files: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let before: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    std::os::unix::fs::symlink(&files[0], folder.path().join("link")).unwrap();
    let (gt, dt) = (files[0].to_str().unwrap(), files[1].to_str().unwrap());
    let link = folder.path().join("link");
    let scored = ["eval", "--annotations", gt, "--predictions", dt];
    for (flag, path) in [("--html", gt), ("--arrays", dt), ("--html", link.to_str().unwrap())] {
        assert_refused(&[&scored[..], &[flag, path]].concat(), 2, &[flag, "which is read"]);
    }
    let nowhere = folder.path().join("none/page.html");
    let nowhere = nowhere.to_str().unwrap();
    assert_refused(&[&scored[..], &["--html", nowhere]].concat(), 5, &[nowhere, "no folder"]);
    // Nor is one output written over another, or a device by a file.
    let free = folder.path().join("free");
    let free = free.to_str().unwrap();
    let both = [&scored[..], &["--html", free, "--arrays", free]].concat();
    assert_refused(&both, 2, &["--arrays and --html"]);
    assert_refused(&[&scored[..], &["--arrays", "/dev/full"]].concat(), 5, &["no regular file"]);
    // Lists of ids are read as well.
    let list = folder.path().join("ids.txt");
    fs::write(&list, "1\n").unwrap();
    let (list, ids) = (list.to_str().unwrap(), format!("@{}", list.display()));
    for flag in ["--images", "--categories"] {
        let args = [&scored[..], &[flag, &ids, "--html", list]].concat();
        assert_refused(&args, 2, &["--html", "which is read"]);
    }
    assert_eq!(fs::read_to_string(list).unwrap(), "1\n");
    // A checkpoint of TensorFlow is named by what its files begin with.
    let checkpoint = folder.path().join("model.ckpt");
    let parts = ["index", "data-00000-of-00001"]
        .map(|end| checkpoint.with_extension(format!("ckpt.{end}")));
    for part in &parts {
        fs::write(part, "as it was").unwrap();
    }
    for name in [&checkpoint, &parts[0]] {
        for part in &parts {
            let [name, part] = [name, part].map(|path| path.to_str().unwrap());
            let args = ["features", "--weights", name, "--input", dt, "--out", part];
            assert_refused(&args, 2, &["--out", part, "which is read"]);
            assert_eq!(fs::read_to_string(part).unwrap(), "as it was");
        }
    }
    let features = ["features", "--weights", gt, "--input", dt, "--out"];
    for path in [gt, dt] {
        assert_refused(&[&features[..], &[path]].concat(), 2, &["--out", "which is read"]);
    }
    assert_refused(&["import", "a.safetensors", "--out", "a.txt"], 2, &["model files end in"]);
    for (file, before) in files.iter().zip(before) {
        assert_eq!(fs::read(file).unwrap(), before, "{}", file.display());
    }
}

#[test]
fn masks_are_scored_where_they_are_asked_for() {
    let truth = r#"{"images": [{"id": 1, "height": 20, "width": 20}], "categories": [{"id": 1}], "annotations": [
     {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8], "area": 64, "iscrowd": 0,
      "segmentation": [[0, 0, 8, 0, 8, 8, 0, 8]]}]}"#;
    // The right box around the wrong half of it.
    let found = r#"[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8], "score": 0.9,
      "segmentation": [[0, 0, 3, 0, 3, 8, 0, 8]]}]"#;
    for (iou_type, ap) in [("bbox", 1.), ("segm", 0.)] {
        let (_folder, mut command) = eval_files(truth, found);
        command.args(["--json", "--iou-type", iou_type]);
        let said = Said::from(command.output().unwrap());
        let json: Value = serde_json::from_str(&said.stdout).unwrap();
        assert!((json["AP"].as_f64().unwrap() - ap).abs() < 1e-9, "{iou_type}: {json}");
    }
}

#[test]
fn eval_of_bad_files_ends_with_3_and_names_the_place() {
    let elsewhere = DT.replace(r#""image_id": 1"#, r#""image_id": 77"#);
    for (gt, dt, words) in [
        (GT, "[]", "dt.json holds no detection"),
        (GT, "[1]", "dt.json: results[0]: is a number, not an object"),
        (
            GT,
            &DT[..40],
            "dt.json is not valid JSON: the file ends inside a text at byte 40 (line 1)",
        ),
        (GT, elsewhere.as_str(), "another split"),
        ("{}", DT, "gt.json: there is no list `images`"),
        ("", DT, "gt.json is not valid JSON"),
    ] {
        let (_folder, mut command) = eval_files(gt, dt);
        let said = Said::from(command.output().unwrap());
        assert_eq!((said.code, said.stdout.as_str()), (Some(3), ""), "{said:?}");
        assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
    }
    let (folder, mut command) = eval_files(GT, DT);
    fs::write(folder.path().join("dt.json"), b"[\"\xff\"]").unwrap();
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("not UTF-8 at byte 2"), "{}", said.stderr);
    fs::remove_file(folder.path().join("dt.json")).unwrap();
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("error: cannot read dt.json: No such file"), "{}", said.stderr);
    fs::create_dir(folder.path().join("dt.json")).unwrap();
    assert_eq!(Said::from(command.output().unwrap()).code, Some(3));
}

/// `detect ... | head -1`: the reader is gone before the first byte.
#[test]
fn a_closed_pipe_is_no_failure() {
    let (_folder, eval) = eval_files(GT, DT);
    let mut info = command(env!("CARGO_BIN_EXE_detect"));
    info.args(["info", "nasnet-a-6@4032"]);
    let mut help = command(env!("CARGO_BIN_EXE_detect"));
    help.arg("--help");
    for mut command in [info, eval, help] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let said = Said::from(command.stdout(writer).output().unwrap());
        assert_eq!(said.code, Some(0), "{command:?}: {said:?}");
        assert!(!said.stderr.contains("error"), "{command:?}: {}", said.stderr);
        assert!(!said.stderr.contains("panicked"), "{command:?}: {}", said.stderr);
    }
}

const CLASSIFY: &[&str] = &["classify", "x.jpg", "--weights", "w"];
const SCORE: &[&str] = &["eval", "--task", "classification", "--data", "d", "--weights", "w"];

const FEATURES: &[&str] = &["features", "--weights", "w", "--input", "x.jpg", "--out", "y"];

#[test]
fn without_its_other_program_it_says_what_is_missing() {
    // A link, not a copy: a file that was just written may be open still in a process that another
    // test starts, and then it can't run ("text file busy").
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let alone = folder.path().join("detect");
    fs::hard_link(env!("CARGO_BIN_EXE_detect"), &alone).unwrap();
    let eval = &["eval", "--split", "val"][..];
    let named = [&["photo.jpg"][..], eval, CLASSIFY, SCORE, FEATURES, &["bench"]]
        .map(|args| [args, &["--engine", "torch"]].concat());
    for args in
        named.iter().map(Vec::as_slice).chain([&["train"][..], &["bench", "--device", "cuda"]])
    {
        let said = Said::from(command(&alone).args(args).output().unwrap());
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{args:?}: {said:?}");
        assert!(said.stderr.contains("detect-torch, which is not there"), "{}", said.stderr);
    }
}

/// Loading libtorch costs 0.4 s and 110 MiB, which `detect info` and `detect eval` shall not pay.
#[cfg(target_os = "linux")]
#[test]
fn detect_does_not_need_libtorch() {
    // `readelf` comes with the linker; without it the test fails rather than passes.
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide", env!("CARGO_BIN_EXE_detect")])
        .env("LC_ALL", "C")
        .output()
        .expect("readelf (package binutils) lists what the program needs");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = text.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(needed.iter().any(|line| line.contains("libc.so")), "cannot be right:\n{text}");
    for line in needed {
        for library in ["torch", "c10", "cuda", "libstdc++"] {
            assert!(!line.contains(library), "detect needs {line}");
        }
    }
}

#[test]
fn a_bad_picture_on_standard_input_is_called_by_that_name() {
    // The command's standard input is empty.
    let said = detect(&["-"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("standard input is empty (0 bytes)"), "{}", said.stderr);
    // Not by that of a copy in some folder.
    let line = said.stderr.lines().find(|line| line.contains("standard input")).unwrap();
    assert!(!line.contains('/'), "{line}");
}
