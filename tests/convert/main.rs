//! `detect convert`, `detect check --fix` and `detect draw`: sets written by hand, and what they become.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

mod coco;
#[path = "../common/coco.rs"]
mod common;
mod draw;
mod fix;
mod real;
mod table;
mod voc;
mod yolo;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::Set;

/// A source under construction.
pub(crate) struct Source(pub(crate) Set);

impl Source {
    pub(crate) fn new() -> Self {
        let set = Set::new();
        // Other forms have other folders.
        std::fs::remove_dir(set.root().join("annotations")).unwrap();
        std::fs::remove_dir(set.root().join("images")).unwrap();
        Self(set)
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.root()
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        self.0.file(path, text);
    }

    /// A picture of 30 x 40 (height x width) at `path`.
    pub(crate) fn picture(&self, path: &str) {
        self.png(path, (30, 40));
    }

    pub(crate) fn png(&self, path: &str, size: (u32, u32)) {
        self.0.png("new.png", size, 10, [0; 4]);
        self.moved(path);
    }

    pub(crate) fn jpeg(&self, path: &str, size: (u32, u32), orientation: u8) {
        self.0.jpeg("new.png", size, 10, orientation);
        self.moved(path);
    }

    fn moved(&self, path: &str) {
        self.0.file(path, "");
        let images = self.root().join("images");
        std::fs::rename(images.join("new.png"), self.root().join(path)).unwrap();
        // Stays where the source has one itself.
        let _ = std::fs::remove_dir(images);
    }
}

/// What the program made and said.
pub(crate) struct Made {
    _dir: TempDir,
    pub(crate) out: PathBuf,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn detect(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_detect"))
        .args(args)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// `detect convert SOURCE --out ... --json MORE`
pub(crate) fn convert(source: &Path, more: &[&str]) -> Made {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let args = ["convert", source.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    let (code, stdout, stderr) = detect(&[&args, more].concat());
    assert!(!stderr.contains("panicked"), "{stderr}");
    // Whole or not at all, and nothing beside it.
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), usize::from(code < 2), "{left:?} {stderr}");
    Made { _dir: dir, out, code, stdout, stderr }
}

impl Made {
    pub(crate) fn split(&self, name: &str) -> Value {
        let path = self.out.join(format!("annotations/{name}.json"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{e}: {}", self.stderr));
        serde_json::from_str(&text).unwrap()
    }

    /// `[file, category, box, crowd]` of each annotation.
    pub(crate) fn boxes(&self, split: &str) -> Value {
        let all = self.split(split);
        let find = |list: &str, id: &Value, key: &str| {
            all[list].as_array().unwrap().iter().find(|e| e["id"] == *id).unwrap()[key].clone()
        };
        let entry = |a: &Value| {
            json!([
                find("images", &a["image_id"], "file_name"),
                find("categories", &a["category_id"], "name"),
                a["bbox"],
                a["iscrowd"]
            ])
        };
        all["annotations"].as_array().unwrap().iter().map(entry).collect()
    }

    /// `[file, width, height]` of each image; every one is there.
    pub(crate) fn images(&self, split: &str) -> Value {
        let all = self.split(split);
        let entry = |i: &Value| {
            assert!(self.out.join("images").join(i["file_name"].as_str().unwrap()).is_file());
            json!([i["file_name"], i["width"], i["height"]])
        };
        all["images"].as_array().unwrap().iter().map(entry).collect()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stderr))
    }

    /// `[kind, split, count]` of everything that happened.
    pub(crate) fn log(&self) -> Value {
        let all = self.json();
        let entries = all["log"].as_array().unwrap();
        for entry in entries {
            let meaning = format!("{} ", entry["count"]);
            assert!(self.stderr.contains(&meaning), "told on stderr, too: {}", self.stderr);
            assert!(!entry["examples"].as_array().unwrap().is_empty());
        }
        entries.iter().map(|e| json!([e["kind"], e["split"], e["count"]])).collect()
    }

    /// Ends with `code` and says all of `words`.
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert_eq!(self.stdout, "");
        for word in words {
            assert!(self.stderr.contains(word), "no '{word}' in {}", self.stderr);
        }
    }
}

/// `detect check` finds no errors.
pub(crate) fn assert_sound(root: &Path) {
    let (code, stdout, stderr) = detect(&["check", root.to_str().unwrap()]);
    assert_eq!(code, 0, "{stdout}{stderr}");
}

#[test]
fn what_is_no_data_set_or_could_be_two_is_refused() {
    let source = Source::new();
    source.picture("a.png");
    convert(source.root(), &[]).refused(3, &["no data set in a form that is known", "data.yaml"]);
    source.file("a.xml", "<annotation></annotation>");
    source.file("data.yaml", "names: [cat]\n");
    convert(source.root(), &[]).refused(2, &["voc (a.xml) or yolo (data.yaml)", "--from"]);
    assert_eq!(convert(source.root(), &["--from", "voc"]).code, 0);
    convert(source.root(), &["--from", "coco"]).refused(3, &["nothing in the form 'coco'"]);
    convert(&source.root().join("none"), &[]).refused(3, &["cannot read", "none"]);
    convert(source.root(), &["--from", "pickle"]).refused(2, &["voc, yolo, csv, coco"]);
}

#[test]
fn a_folder_in_use_is_refused_and_an_empty_one_taken() {
    let source = Source::new();
    source.picture("a.png");
    source.file("a.xml", "<annotation></annotation>");
    let out = TempDir::new().unwrap();
    let args = |out: &Path| {
        let args = ["convert", source.root().to_str().unwrap(), "--out", out.to_str().unwrap()];
        detect(&args)
    };
    let (code, stdout, _) = args(out.path());
    assert_eq!(code, 0);
    assert!(stdout.contains("train           1           0          0"), "{stdout}");
    let before = std::fs::read(out.path().join("annotations/train.json")).unwrap();
    let (code, stdout, stderr) = args(out.path());
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("is not an empty folder"), "{stderr}");
    assert_eq!(std::fs::read(out.path().join("annotations/train.json")).unwrap(), before);
    let file = out.path().join("annotations/train.json");
    assert_eq!(args(&file).0, 2);
    // Below a file no folder can be made.
    assert_eq!(args(&file.join("x")).0, 2);
}

#[cfg(unix)]
#[test]
fn images_are_copied_or_linked() {
    use std::os::unix::fs::MetadataExt as _;
    let source = Source::new();
    source.picture("a.png");
    source.file("a.xml", "<annotation></annotation>");
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let own = inode(&source.root().join("a.png"));
    let copy = convert(source.root(), &[]);
    assert_ne!(inode(&copy.out.join("images/a.png")), own);
    // A link is made of the file, not of the link to it.
    std::fs::rename(source.root().join("a.png"), source.root().join("b.bin")).unwrap();
    std::os::unix::fs::symlink("b.bin", source.root().join("a.png")).unwrap();
    let link = convert(source.root(), &["--link"]);
    assert_eq!(inode(&link.out.join("images/a.png")), own);
    let file = std::fs::symlink_metadata(link.out.join("images/a.png")).unwrap();
    assert!(file.is_file());
}

#[test]
fn a_part_of_the_only_split_becomes_val() {
    let source = Source::new();
    for i in 0..20 {
        source.picture(&format!("{i}.png"));
        source.file(&format!("{i}.xml"), "<annotation></annotation>");
    }
    let names = |made: &Made, split: &str| -> Vec<String> {
        let images = made.images(split);
        images.as_array().unwrap().iter().map(|i| i[0].as_str().unwrap().to_owned()).collect()
    };
    let first = convert(source.root(), &["--val", "0.25"]);
    let (train, val) = (names(&first, "train"), names(&first, "val"));
    assert_eq!((train.len(), val.len()), (15, 5));
    assert!(val.iter().all(|name| !train.contains(name)));
    assert_eq!(names(&convert(source.root(), &["--val", "0.25"]), "val"), val);
    let other = convert(source.root(), &["--val", "0.25", "--seed", "2", "--split", "mine"]);
    assert_ne!(names(&other, "val"), val);
    assert_eq!(names(&other, "mine").len(), 15);
    // Ids are unique over both.
    let ids = |made: &Made, split| {
        let all = made.split(split);
        let images = all["images"].as_array().unwrap().clone();
        images.iter().map(|i| i["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let mut all = [ids(&first, "train"), ids(&first, "val")].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=20).collect::<Vec<i64>>());
    convert(source.root(), &["--val", "0"]).refused(2, &["without images"]);
    convert(source.root(), &["--val", "1"]).refused(2, &["without images"]);
    convert(source.root(), &["--val", "0.5", "--split", "val"]).refused(2, &["not called val"]);
    convert(source.root(), &["--split", "a/b"]).refused(3, &["the split 'a/b'"]);
    // As it was written.
    convert(source.root(), &["--val", "0.01"]).refused(2, &["--val 0.01 leaves"]);
}

#[test]
fn a_split_that_no_command_could_open_is_not_made() {
    let source = Source::new();
    source.picture("a.png");
    source.file("boxes.csv", "a.png,1,1,20,20,cat\n");
    for name in ["minival", "trainval-minus-minival", "test-dev", "test-dev2017"] {
        let words = [&format!("the split '{name}'"), "of COCO", "choose another name"];
        convert(source.root(), &["--split", name]).refused(3, &words);
    }
    let made = convert(source.root(), &["--split", "my-minival"]);
    let data = detect::data::Dataset::open(&made.out, "my-minival").unwrap();
    assert_eq!(data.images.len(), 1);
}

#[test]
fn a_named_file_that_describes_nothing_is_refused() {
    let source = Source::new();
    source.picture("a.png");
    source.file("a.xml", "<annotation></annotation>");
    source.file("notes.txt", "to do: more images\n");
    source.file("README.md", "# Mine\n");
    source.file("other.xml", "<html></html>");
    source.file("other.json", "{}");
    for name in ["a.png", "notes.txt", "README.md", "other.xml", "other.json"] {
        let file = source.root().join(name);
        convert(&file, &[])
            .refused(3, &[&format!("{name} is no data set in a form that is known")]);
    }
    for form in ["voc", "yolo", "csv", "coco"] {
        convert(&source.root().join("notes.txt"), &["--from", form]).refused(3, &["notes.txt"]);
    }
    assert_eq!(convert(&source.root().join("a.xml"), &[]).images("train")[0][0], "a.png");
    // The file says what the set is where the folder could be two.
    source.file("classes.txt", "cat\n");
    source.file("data.yaml", "names: [dog]\n");
    for (name, category) in [("classes.txt", "cat"), ("data.yaml", "dog")] {
        let made = convert(&source.root().join(name), &[]);
        assert_eq!(made.split("train")["categories"][0]["name"], category);
    }
}

#[test]
fn what_was_looked_at_is_told_with_what_it_lacks() {
    let source = Source::new();
    source.picture("a.png");
    let utf16 = |text: &str| -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let json = "{\"images\": [], \"annotations\": [],\n \"categories\": [";
    for (name, bytes, words) in [
        ("val.json", json.into(), "val.json, line 2: not valid JSON: EOF"),
        ("val.json", utf16("{}"), "val.json, line 1: this is not text in UTF-8"),
        (
            "val.json",
            b"{\"images\": []}".to_vec(),
            "val.json: not in COCO's form: missing field `categories`",
        ),
        ("a.xml", utf16("<annotation></annotation>"), "a.xml, line 1: this is not text in UTF-8"),
        ("a.xml", b"<html></html>".to_vec(), "a.xml: no <annotation> in it"),
        ("a.csv", utf16("a.png,1,1,2,2,x"), "a.csv, line 1: this is not text in UTF-8"),
        (
            "a.csv",
            b"a.png,1,1,2,2,x\na.png,1,1,2,2,\xe4\n".to_vec(),
            "a.csv, line 2: this is not text in UTF-8",
        ),
        ("data.yaml", b"names: [a\n".to_vec(), "data.yaml, line 2: not valid YAML"),
        ("data.yaml", b"path: x\n".to_vec(), "data.yaml: no `names` in it"),
    ] {
        let file = source.root().join(name);
        std::fs::write(&file, bytes).unwrap();
        for from in [source.root(), &file] {
            convert(from, &[]).refused(3, &["no data set in a form that is known", words]);
        }
        std::fs::remove_file(file).unwrap();
    }
    // Nothing of a set is passed over because it is cut off.
    source.file("train.json", &common::annotations(&[], &[]).to_string());
    source.file("val.json", json);
    convert(source.root(), &[]).refused(3, &["val.json, line 2: not valid JSON"]);
}

#[test]
fn the_new_folder_is_not_made_in_the_source() {
    let source = Source::new();
    source.picture("a.png");
    source.file("a.xml", "<annotation></annotation>");
    std::fs::create_dir(source.root().join("empty")).unwrap();
    let beside = TempDir::new().unwrap();
    let link = beside.path().join("link");
    #[cfg(unix)]
    std::os::unix::fs::symlink(source.root(), &link).unwrap();
    #[cfg(not(unix))]
    std::fs::create_dir(&link).unwrap();
    let refused = |from: &Path, out: &Path| {
        let args = ["convert", from.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let (code, stdout, stderr) = detect(&args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{}: {stderr}", out.display());
        assert!(stderr.contains("lies in the source folder"), "{stderr}");
    };
    let root = source.root();
    for out in ["out", "empty", "new/out", "empty/new/out", "./empty/../out"] {
        refused(root, &root.join(out));
    }
    refused(&root.join("a.xml"), &root.join("out"));
    if cfg!(unix) {
        refused(root, &link.join("out"));
        refused(&link, &root.join("out"));
    }
    let mut names: Vec<_> =
        std::fs::read_dir(root).unwrap().flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.png", "a.xml", "empty"]);
    // A name that only begins like the source's lies beside it.
    let sibling = format!("{}-coco", root.display());
    assert_eq!(detect(&["convert", root.to_str().unwrap(), "--out", &sibling]).0, 0);
    std::fs::remove_dir_all(sibling).unwrap();
}

/// Elsewhere file names are text.
#[cfg(target_os = "linux")]
#[test]
fn folders_whose_names_are_not_utf8_are_reported() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = TempDir::new().unwrap();
    let [source, out] =
        [&b"in\xff"[..], b"out\xff"].map(|name| dir.path().join(std::ffi::OsStr::from_bytes(name)));
    let own = Source::new();
    own.picture("a.png");
    std::fs::create_dir(&source).unwrap();
    std::fs::copy(own.root().join("a.png"), source.join("a.png")).unwrap();
    std::fs::write(source.join("a.xml"), "<annotation></annotation>").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
    let output = command.arg("convert").arg(&source).arg("--out").arg(&out).arg("--json").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(outcome["source"].as_str().unwrap().ends_with("/in\u{fffd}"), "{outcome}");
    assert!(outcome["out"].as_str().unwrap().ends_with("/out\u{fffd}"), "{outcome}");
}
