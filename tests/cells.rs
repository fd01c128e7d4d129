//! Counts of each cell, the paper's tables, and files of a user's own cells, as `detect info` shows them.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use detect::config::OwnBackbone;
use detect::geometry::Size;
use detect::nasnet::plan::{published_classes, published_size};
use detect::nasnet::{BackboneName, Family, Form, NetworkCount, Plan};
use serde_json::Value;

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn detect(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_detect"));
    command.current_dir(folder).env_remove("COLUMNS").env_remove("RUST_LOG");
    command.args(args).output().unwrap()
}

/// What `detect info` says on stdout, run in the repository.
fn info(args: &[&str]) -> String {
    let output = detect(&root(), &[&["info"], args].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn info_json(args: &[&str]) -> Value {
    serde_json::from_str(&info(&[args, &["--json"]].concat())).unwrap()
}

fn cell_files() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("configs/cells")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A cell's row in tests/golden/nasnet, all as text: name, inputs, channels, side, parameters, multiply-adds.
fn rows(plan: &Plan) -> Vec<String> {
    let side = published_size(plan.name);
    let classes = published_classes(plan.name);
    let count = NetworkCount::new(plan, Size::new(side, side), classes).unwrap();
    let mut rows = vec!["module\tinput_from(cur,prev)\tout_ch\tout_size\tparams\tmacs".to_owned()];
    for (i, cell) in count.cells.iter().enumerate() {
        assert_eq!(cell.size.height, cell.size.width, "{}", cell.name);
        let (inputs, products) = match i.checked_sub(1).map(|i| &plan.cells[i]) {
            // The counts of the stem convolution are without multiply-adds.
            None => ("-".to_owned(), "-".to_owned()),
            Some(site) => {
                let current = plan.map_name(site.current);
                let same = site.current == site.previous;
                let previous = if same { "(same)" } else { plan.map_name(site.previous) };
                (format!("{current},{previous}"), cell.multiply_adds.to_string())
            }
        };
        let (name, channels, side) = (&cell.name, cell.channels, cell.size.height);
        rows.push(format!("{name}\t{inputs}\t{channels}\t{side}\t{}\t{products}", cell.parameters));
    }
    let linear = plan.classifier(classes);
    let products = linear.multiply_adds();
    rows.push(format!("fc\t-\t-\t-\t{}\t{products}", products + linear.outputs));
    rows
}

#[test]
fn every_cell_counts_as_an_independent_program_counts_it() {
    for (file, name) in [
        ("large", BackboneName::LARGE),
        ("mobile", BackboneName::MOBILE),
        ("cifar", BackboneName::a(6, 768, Form::Cifar)),
    ] {
        let golden = root().join(format!("tests/golden/nasnet/breakdown_{file}.tsv"));
        let golden = fs::read_to_string(golden).unwrap();
        let golden: Vec<&str> = golden.lines().collect();
        assert!(golden.len() > 18, "{file} has the cells");
        assert_eq!(rows(&Plan::published(name)), golden, "{file}");
    }
}

#[test]
fn without_a_name_the_paper_s_tables_are_shown() {
    let text = info(&[]);
    let widest = text.lines().map(|l| l.chars().count()).max();
    assert!(widest.is_some_and(|n| n <= 100), "{widest:?} columns");
    insta::assert_snapshot!("info_tables", text);
}

/// What the paper prints, typed a second time, from another list than the program's.
#[test]
fn the_tables_as_json_have_what_is_printed_and_what_is_counted() {
    let json = info_json(&[]);
    let rows = json["rows"].as_array().unwrap();
    let printed: Vec<(&str, f64, f64)> = rows
        .iter()
        .map(|row| {
            let number = |n: &Value| n.as_f64().unwrap_or(0.) / 1e6;
            let printed = &row["printed"];
            let name = row["network"].as_str().unwrap();
            (name, number(&printed["parameters"]), number(&printed["multiply_adds"]))
        })
        .collect();
    assert_eq!(
        printed,
        [
            ("NASNet-A 6@768", 3.3, 0.),
            ("NASNet-A 6@768 + cutout", 3.3, 0.),
            ("NASNet-A 7@2304", 27.6, 0.),
            ("NASNet-A 7@2304 + cutout", 27.6, 0.),
            ("NASNet-B 4@1152", 2.6, 0.),
            ("NASNet-C 4@640", 3.1, 0.),
            ("NASNet-A 5@1538", 10.9, 2350.),
            ("NASNet-A 7@1920", 22.6, 4930.),
            ("NASNet-A 6@4032", 88.9, 23800.),
            ("NASNet-A 4@1056", 5.3, 564.),
            ("NASNet-B 4@1536", 5.3, 488.),
            ("NASNet-C 3@960", 4.9, 558.),
        ]
    );
    // With statistics, multiply-adds: counted by an independent program.
    for (row, [parameters, products]) in [
        (0, [3_383_786_u64, 544_333_312_u64]),
        (2, [32_718_826, 5_151_250_944]),
        (6, [10_956_888, 2_351_618_608]),
        (7, [22_630_628, 4_929_313_484]),
        (8, [88_949_818, 23_783_414_658]),
        (9, [5_326_716, 563_638_816]),
    ] {
        let counted = &rows[row]["counted"];
        assert_eq!(counted["parameters_with_batch_norm_statistics"], parameters, "{row}");
        assert_eq!(counted["multiply_adds"], products, "{row}");
        assert_eq!(rows[row]["agrees"], row != 2);
    }
    for row in [4, 5, 10, 11] {
        assert!(rows[row]["counted"].is_null() && rows[row]["agrees"].is_null(), "{row}");
        assert!(rows[row]["note"].as_str().unwrap().contains("drawing"), "{row}");
    }
    assert_eq!((&rows[1]["error_percent"], &rows[8]["top5_percent"]), (&2.65.into(), &96.2.into()));
}

#[test]
fn names_are_counted_at_the_size_that_they_were_published_for() {
    // Parameters and those of the auxiliary head: counted by an independent program.
    for (name, side, classes, parameters, auxiliary) in [
        ("nasnet-a-6@4032", 331, 1000, 88_753_150, Some(4_567_784)),
        ("nasnet-a-4@1056", 224, 1000, 5_289_978, Some(2_411_240)),
        ("nasnet-a-6@768-cifar", 32, 10, 3_346_538, Some(1_631_498)),
        ("nasnet-a-5@1536-strided", 299, 1000, 10_899_288, None),
        ("nasnet-a-7@1920-strided", 299, 1000, 22_531_764, None),
    ] {
        let json = info_json(&[name]);
        assert_eq!(json["image_size"], serde_json::json!([side, side]), "{name}");
        assert_eq!(json["classes"], classes, "{name}");
        assert_eq!(json["parameters"], parameters, "{name}");
        if let Some(auxiliary) = auxiliary {
            assert_eq!(json["auxiliary"]["parameters"], auxiliary, "{name}");
        }
        assert!(json["genotype"].is_null());
    }
    let text = info(&["nasnet-a-6@4032"]);
    assert!(text.contains("auxiliary head, in training only        4,567,784\n"), "{text}");
    // Its pool has nothing to stand on.
    assert!(info_json(&["nasnet-a-4@1056", "--image-size", "64"])["auxiliary"].is_null());
    assert!(!info(&["nasnet-a-4@1056", "--image-size", "64"]).contains("auxiliary"));
}

#[test]
fn every_shipped_file_of_cells_can_be_read_and_shown() {
    let files = cell_files();
    assert_eq!(files.len(), 2);
    for file in files {
        let own = OwnBackbone::read(&file).unwrap();
        let path = format!("configs/cells/{}", file.file_name().unwrap().to_str().unwrap());
        let name = file.file_stem().unwrap().to_str().unwrap();
        insta::assert_snapshot!(format!("info_cells_{name}"), info(&[&path]));
        let json = info_json(&[&path]);
        assert_eq!(json["backbone"], own.name.to_string());
        let cells = serde_json::from_value(json["genotype"].clone());
        assert_eq!(own.cells, cells.unwrap(), "the cells can be read again");
    }
}

#[test]
fn nasnet_a_s_cells_written_down_are_nasnet_a() {
    let own = OwnBackbone::read(&root().join("configs/cells/nasnet_a.toml")).unwrap();
    let published = Plan::published(BackboneName { family: Family::A, ..own.name });
    let mut plan = own.plan();
    assert_eq!(plan.cells.len(), published.cells.len());
    assert_eq!(plan.stem(), published.stem());
    for (own, published) in plan.cells.iter().zip(&published.cells) {
        assert_eq!(own.layers(), published.layers(), "{}", own.name);
    }
    // All else: widths, strides, inputs, how they are fitted, the order in which states are joined.
    plan.name = published.name;
    assert_eq!(plan, published);
}

/// The guide says how NASNet-A large is written.
#[test]
fn nasnet_a_large_can_be_written_down() {
    let text = fs::read_to_string(root().join("configs/cells/nasnet_a.toml")).unwrap();
    let text = text.replace("nasnet-own-4@1056", "nasnet-own-6@4032");
    let text = text.replace("stem_filters = 32", "stem_filters = 96");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.toml");
    fs::write(&file, text.replace("\"mobile\"", "\"large\"")).unwrap();
    let mut plan = OwnBackbone::read(&file).unwrap().plan();
    plan.name = BackboneName::LARGE;
    assert_eq!(plan, Plan::published(BackboneName::LARGE));
}

/// Two of the example's cells, layer by layer by hand.
#[test]
fn the_example_is_counted_by_hand() {
    let json = info_json(&["configs/cells/example.toml"]);
    let cell = |name: &str| {
        let cells = json["cells"].as_array().unwrap();
        let cell = cells.iter().find(|c| c["name"] == name).unwrap();
        [&cell["parameters"], &cell["multiply_adds"]].map(|n| n.as_u64().unwrap())
    };
    // 8 filters at 28 x 28. h has 8 channels, p 4 at 56 x 56, halved in two paths of 4. s1 has 16.
    let weights = [
        8 * 8,           // h
        2 * 4 * 4,       // p
        8 * 8,           // conv1(h)
        8 * 8 * 9,       // dil3(p)
        2 * 8 * 8 * 3,   // split3(h)
        16 * 9 + 16 * 8, // sep3(s1), the first half
        8 * 9 + 8 * 8,   // and the second
        8 * 8 * 9,       // conv3(s0)
    ];
    let weights_in_all: u64 = weights.iter().sum();
    // A batch norm a line, two parameters a filter.
    let norms = weights.len() as u64 * 2 * 8;
    assert_eq!(cell("cell_0"), [weights_in_all + norms, weights_in_all * 28 * 28]);

    // 16 filters, from 28 x 28 to 14 x 14. h has 16 channels, p 8; s2 has 32 and comes back to 16.
    let before = [16 * 16, 8 * 16];
    let after = [
        16 * 9 + 16 * 16, // sep3(p), the first half
        16 * 9 + 16 * 16, // and the second
        2 * 16 * 16 * 7,  // split7(h)
        32 * 16,          // s2
    ];
    let (at_28, at_14): (u64, u64) = (before.iter().sum(), after.iter().sum());
    let norms = (before.len() + after.len()) as u64 * 2 * 16;
    let products = at_28 * 28 * 28 + at_14 * 14 * 14;
    assert_eq!(cell("reduction_cell_0"), [at_28 + at_14 + norms, products]);
}

#[test]
fn the_guide_shows_what_there_is() {
    let both = cell_files().iter().map(|f| fs::read_to_string(f).unwrap()).collect::<String>();
    let guide = fs::read_to_string(root().join("docs/cells.md")).unwrap();
    for operation in [
        "id", "sep3", "sep5", "sep7", "avg3", "max3", "max5", "max7", "conv1", "conv3", "dil3",
        "split3", "split7",
    ] {
        assert!(both.contains(&format!("{operation}(")), "{operation} is in no example");
        assert!(guide.contains(&format!("| `{operation}` |")), "{operation} is not explained");
    }
    for file in cell_files() {
        let text = fs::read_to_string(file).unwrap();
        assert!(guide.contains(&text), "the guide shows the files as they are");
    }
    assert!(guide.contains(&info(&["configs/cells/example.toml"])), "and what is said of them");
    let totals =
        |argument: &str| info(&[argument]).split_once("\nparameters").unwrap().1.to_owned();
    let published = totals("nasnet-a-4@1056");
    assert_eq!(totals("configs/cells/nasnet_a.toml"), published);
    assert!(guide.contains(&published));
}

/// Each mistake in configs/cells/example.toml ends with 2 and quotes its line.
#[test]
fn mistakes_in_cells_name_their_line() {
    let good = fs::read_to_string(root().join("configs/cells/example.toml")).unwrap();
    let line_of = |part: &str| good.lines().position(|l| l.contains(part)).unwrap() + 1;
    let folder = tempfile::tempdir().unwrap();
    let refused = |text: &str| {
        fs::write(folder.path().join("cells.toml"), text).unwrap();
        let output = detect(folder.path(), &["info", "cells.toml"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    };
    let mut all = String::new();
    for (from, to, reason) in [
        ("conv1(h)", "conv2(h)", "'conv2' is no operation; the operations are id, sep3, sep5"),
        ("conv1(h)", "conv1(x)", "'x' is no state; states are h, p and s0"),
        ("sep3(s1) + id(s0)", "sep3(s1), id(s0)", "is no row; one looks like sep5(h) + sep3(p)"),
        ("conv3(s0)", "conv3(s9)", "row 3 reads s9, which is made later"),
        ("id(s0) ++ id(s1)", "id(s0) ++ id(s2)", "row 2 reads s2, which is made later"),
        ("\"s2\", \"s0\"", "\"s2\", \"s3\"", "there is no row for s3"),
        ("\"s2\", \"s0\"", "\"s2\", \"s2\"", "s2 is joined twice"),
        ("own-1@64", "own-1@65", "F must be a multiple of 32"),
        ("own-1@64", "a-1@96", "cells of one's own are called nasnet-own-N@F"),
        ("own-1@64", "own-0@64", "N must be 1 to 64"),
        ("stem_filters = 8", "stem_filters = 0", "stem_filters must be 1 to 1024, not 0"),
    ] {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        let said = refused(&good.replace(from, to));
        let place = format!("error: cells.toml, line {}: ", line_of(from));
        assert!(said.starts_with(&place), "{to}: {said}");
        assert!(said.contains(reason) && said.contains(to), "{to}: {said}");
        all += &said;
    }
    for (from, to) in [
        ("[reduction]\n", "[reductions]\n"),
        ("concat = [\"s2\"", "join = [\"s2\""),
        ("stem_filters = 8", "stem_filters = -8"),
        ("stem_filters = 8", "wiring = \"huge\""),
        ("max7(h) + sep3(p)\"", "max7(h) + sep3(p)"),
    ] {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        let said = refused(&good.replace(from, to));
        assert!(said.starts_with("error: cells.toml does not describe cells:"), "{said}");
        // The line, with a mark under the fault.
        assert_eq!(said.matches("TOML parse error at line ").count(), 1, "{to}: {said}");
        assert!(said.contains('^'), "{to}: {said}");
        all += &said;
    }
    let guide = fs::read_to_string(root().join("docs/cells.md")).unwrap();
    let quoted: Vec<&str> = guide.split("```").filter(|t| t.starts_with("\nerror: ")).collect();
    assert_eq!(quoted.len(), 4);
    for quoted in quoted {
        assert!(all.contains(quoted.trim_start()), "the guide has what no mistake says: {quoted}");
    }
    insta::assert_snapshot!("cells_mistakes", all);
}

#[test]
fn names_without_their_cells_and_files_that_are_not_there_are_refused() {
    for (argument, words) in [
        ("nasnet-own-4@768", "'nasnet-own-4@768' has cells of its own: give the file"),
        ("none.toml", "cannot read the cells none.toml: No such file"),
    ] {
        let output = detect(&root(), &["info", argument]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
    for flag in [["--classes", "10"], ["--image-size", "32"]] {
        let output = detect(&root(), &["info", flag[0], flag[1]]);
        assert_eq!(output.status.code(), Some(2), "{flag:?} says nothing about the tables");
    }
    let output = detect(&root(), &["info", "nasnet-a-4@1056", "--classes", "18446744073709551615"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("at most 1000000"), "{stderr}");
    // 64 cells a stage, 32 rows of wide convolutions: more products than 64 bits hold.
    let folder = tempfile::tempdir().unwrap();
    let rows = vec!["\"conv3(h) ++ split7(h)\""; 32].join(", ");
    let text = format!(
        "name = 'nasnet-own-64@24576-cifar'\nstem_filters = 8\n[normal]\nrows = [{rows}]\nconcat = ['s0']\n\
         [reduction]\nrows = ['id(h) + id(p)']\n"
    );
    fs::write(folder.path().join("wide.toml"), text).unwrap();
    assert_eq!(detect(folder.path(), &["info", "wide.toml"]).status.code(), Some(0));
    let output = detect(folder.path(), &["info", "wide.toml", "--image-size", "16384"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--image-size is too large"), "{stderr}");
}
