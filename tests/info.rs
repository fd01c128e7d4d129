//! `detect info`: networks by their names, and files of weights.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use detect::data::classify::{ClassNames, Preprocessing};
use detect::geometry::Size;
use detect::weights::import::{self, Settings};
use detect::weights::{ClassifierInfo, Contents, random};
use serde_json::{Value, json};

fn info(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_detect")).arg("info").args(args).output().unwrap()
}

/// What it prints of something that it knows.
fn printed(args: &[&str]) -> String {
    let output = info(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.is_empty(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn object(what: &str) -> Value {
    serde_json::from_str(&printed(&[what, "--json"])).unwrap()
}

/// What it says of something that it refuses.
fn refused(args: &[&str], code: i32) -> String {
    let output = info(args);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models").join(name)
}

/// Parameters and multiply-adds are the published networks' own; 88.9 M / 23.8 B and 5.3 M / 564 M in
/// the paper.
#[test]
fn info_counts_the_published_networks() {
    for (name, size, parameters, multiply_adds) in [
        ("nasnet-a-6@4032", 331, 88_753_150_u64, 23_783_414_658_u64),
        ("nasnet-a-4@1056", 224, 5_289_978, 563_638_816),
    ] {
        let json = object(name);
        assert_eq!(json["backbone"], name);
        assert_eq!(json["image_size"], json!([size, size]));
        assert_eq!(json["classes"], 1000);
        assert_eq!(json["parameters"], parameters);
        assert_eq!(json["multiply_adds"], multiply_adds);
        assert!(!json["cells"].as_array().unwrap().is_empty());

        let said = printed(&[name]);
        for number in [parameters, multiply_adds] {
            let digits = said.replace(',', "");
            assert!(digits.contains(&number.to_string()), "{name}: {number}\n{said}");
        }
    }
}

/// The cards of the shipped models say the same.
#[test]
fn a_detector_s_file_is_described() {
    let json = object("bccd");
    assert_eq!(json["kind"], "detector");
    assert_eq!(json["config"]["backbone"]["name"], "nasnet-a-4@480");
    let names = ["RBC", "WBC", "Platelets"].map(|name| json!(name));
    assert!(json["categories"].as_array().unwrap().iter().map(|c| &c["name"]).eq(&names));
    assert_eq!(
        (&json["trained"]["steps"], &json["trained"]["images"]),
        (&json!(2080), &json!(205))
    );
    let millions = format!("{:.1} M parameters", json["parameters"].as_f64().unwrap() / 1e6);
    let card = fs::read_to_string(shipped("bccd.md")).unwrap();
    for words in ["NASNet-A 4@480, stem 24", &millions, "205 images", "2,080 of 4 images"] {
        assert!(card.contains(words), "no '{words}' in the card");
    }
    // The card's AP, 0.534, is that of the file, in half precision; this one of the weights before.
    assert!((json["trained"]["ap"].as_f64().unwrap() - 0.534).abs() < 2e-3);
    // The header and the tensors are all that the file is.
    let path = shipped("bccd.safetensors");
    let file = fs::metadata(&path).unwrap().len();
    let bytes = json["bytes"].as_u64().unwrap();
    assert!(bytes < file && file - bytes < 200_000, "{bytes} of {file}");

    let said = printed(&[path.to_str().unwrap()]);
    for words in [
        "nasnet-a-4@480, stem of 24 filters",
        "2,080 steps on 205 images, AP 0.53",
        "recipe 'bccd'",
        "3: 1 RBC, 2 WBC, 3 Platelets",
        "float16 and float32",
    ] {
        assert!(said.contains(words), "no '{words}' in\n{said}");
    }
}

/// The published network's numbers, as those of its name.
#[test]
fn a_classifier_s_file_is_counted_as_its_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mobile.safetensors");
    let backbone =
        import::section("nasnet-a-4@1056".parse().unwrap(), 32, &Settings::default(), false);
    let about = ClassifierInfo {
        backbone,
        preprocessing: Preprocessing::plain(Size::new(224, 224)),
        classes: ClassNames {
            names: (0..1000).map(|class| format!("class {class}")).collect(),
            wnids: Vec::new(),
        },
        origin: "nowhere".into(),
    };
    random::classifier(&about, 1).write(&path).unwrap();
    let path = path.to_str().unwrap();
    let json = object(path);
    assert_eq!((&json["kind"], &json["parameters"]), (&json!("classifier"), &json!(5_289_978)));
    let network = object("nasnet-a-4@1056");
    let with_statistics = "parameters_with_batch_norm_statistics";
    assert_eq!(json[with_statistics], network[with_statistics]);
    let said = printed(&[path]);
    for words in [
        "5,289,978",
        "1000: class 0, ",
        "class 4, ...",
        "224x224, whatever the proportions",
        "nowhere",
    ] {
        assert!(said.contains(words), "no '{words}' in\n{said}");
    }
}

/// In a folder that holds the data set of that name, too.
#[test]
fn a_shipped_model_s_name_is_not_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bccd")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
    let output = command.args(["info", "bccd"]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn texts_of_a_file_can_not_move_the_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.safetensors");
    let mut contents = Contents::read(&shipped("bccd.safetensors")).unwrap();
    let text = contents.metadata.get_mut("model").unwrap();
    let mut model: Value = serde_json::from_str(text).unwrap();
    model["categories"][0]["name"] = json!("a\u{1b}[2J\nparameters 3");
    model["trained"]["ap"] = json!(-1.0);
    *text = model.to_string();
    contents.write(&path).unwrap();
    let said = printed(&[path.to_str().unwrap()]);
    assert!(!said.contains('\u{1b}') && !said.contains("AP"), "{said}");
    assert_eq!(said.lines().count(), printed(&["bccd"]).lines().count());
}

#[test]
fn what_is_no_model_is_refused_by_its_reason() {
    let said = refused(&["bccd", "--image-size", "300"], 2);
    assert!(said.contains("bccd.safetensors has its own"), "{said}");
    let said = refused(&["no/such.safetensors"], 4);
    assert!(said.contains("does not exist"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = Contents::default();
    checkpoint.metadata.insert("format".into(), "detect-checkpoint".into());
    for (name, bytes) in [("last", None), ("broken", Some("no weights"))] {
        let path = folder.path().join(name).with_extension("safetensors");
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => checkpoint.write(&path).unwrap(),
        }
        let said = refused(&[path.to_str().unwrap()], 4);
        let words =
            if name == "last" { "its model is best.safetensors" } else { "broken.safetensors" };
        assert!(said.contains(words), "{said}");
    }
    // A run folder.
    let best = folder.path().join("best.safetensors");
    fs::write(&best, "").unwrap();
    let said = refused(&[folder.path().to_str().unwrap()], 4);
    assert!(said.contains(&format!("is a folder; its model is {}", best.display())), "{said}");
}
