//! TensorFlow's files: what TensorFlow wrote is read as TensorFlow reads it, what can't be used is refused
//! with the reason, and damage is found.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

mod bundle;
#[path = "../pickle/counting.rs"]
mod counting;
#[path = "../damage/mod.rs"]
mod damage;
mod faults;
mod settings;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use detect::weights::{Element, Source, TfBundle, TfGraph, WeightsError};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::bundle::{Form, bytes, entry, header, number, table};

const PLAIN: Form = Form { per_block: usize::MAX, snappy: false };

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tf").join(name)
}

/// Material that is too large to lie here.
fn test_data() -> Option<PathBuf> {
    let Some(root) = std::env::var_os("DETECT_TEST_DATA").filter(|root| !root.is_empty()) else {
        eprintln!("skipped: DETECT_TEST_DATA is not set");
        return None;
    };
    Some(root.into())
}

/// The folder of an original detector.
fn oracle(name: &str) -> Option<PathBuf> {
    Some(test_data()?.join("oracle/tf_detector").join(name))
}

/// An error with all its causes.
fn message(result: Result<impl Sized, WeightsError>) -> String {
    let error = result.err().expect("an error was expected");
    format!("{:#}", anyhow::Error::from(error))
}

/// numpy's name of an element.
fn numpy(element: Element) -> &'static str {
    match element {
        Element::F32 => "float32",
        Element::F64 => "float64",
        Element::F16 => "float16",
        Element::BF16 => "bfloat16",
        Element::I64 => "int64",
        Element::I32 => "int32",
        Element::I16 => "int16",
        Element::I8 => "int8",
        Element::U8 => "uint8",
        Element::Bool => "bool",
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Every tensor as `expected.json` has it; what that has more than the source is returned by type.
fn assert_as_tensorflow(source: &mut dyn Source, part: &str) -> BTreeMap<String, String> {
    let json = fs::read_to_string(golden("expected.json")).unwrap();
    let mut expected: BTreeMap<String, (String, Vec<usize>, String)> =
        serde_json::from_value(serde_json::from_str::<Value>(&json).unwrap()[part].take()).unwrap();
    for (name, info) in source.tensors().clone() {
        let (kind, shape, sha256) = expected.remove(&name).unwrap_or_else(|| panic!("{name}"));
        let tensor = source.read(&name).unwrap();
        assert_eq!((numpy(info.element), &info.shape), (kind.as_str(), &shape), "{name}");
        assert_eq!((tensor.element, &tensor.shape), (info.element, &info.shape), "{name}");
        assert_eq!(hex(Sha256::new_with_prefix(&tensor.bytes)), sha256, "{name}");
    }
    expected.into_iter().map(|(name, (kind, ..))| (name, kind)).collect()
}

#[test]
fn a_checkpoint_in_three_files_is_read_as_tensorflow_reads_it() {
    let mut bundle = TfBundle::open(&golden("parts")).unwrap();
    let rest = assert_as_tensorflow(&mut bundle, "parts");
    assert_eq!(bundle.tensors().len(), 14);
    let left_out: BTreeMap<_, _> =
        bundle.left_out().iter().map(|(name, kind)| (name.clone(), (*kind).to_owned())).collect();
    assert_eq!(rest, left_out);
    assert_eq!(rest.keys().collect::<Vec<_>>(), ["complex", "text", "unsigned"]);
    assert!(message(bundle.read("text")).contains("the tensor 'text' holds string"));
    assert!(message(bundle.read("no such")).contains("it has no 'no such'"));
}

/// The expected digests are over what a reader in Python found: name, 0, sides joined by `x`, 0, bytes, for
/// each variable in the order of the names.
#[test]
fn original_checkpoints_are_read_byte_for_byte() {
    for (name, count, expected) in [
        ("small", 714, "938d9471aacbeef0f0da7aa9ee1ea8127dbfa7640fd28cf3a4f8bd10d450febc"),
        ("thin", 1554, "aed7c8514b2034677a4ccd708d69c941d400fb56672aeabfcb19642bb86ced47"),
    ] {
        let Some(folder) = oracle(name) else { return };
        let mut bundle = TfBundle::open(&folder).unwrap();
        let listed = fs::read_to_string(folder.join(format!("variables_{name}.tsv"))).unwrap();
        let listed: BTreeMap<_, _> = listed
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>())
            .map(|line| (line[0].to_owned(), (line[1].to_owned(), line[2].to_owned())))
            .collect();
        let sides =
            |shape: &[usize]| shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        let found: BTreeMap<_, _> = bundle
            .tensors()
            .iter()
            .map(|(name, info)| {
                (name.clone(), (numpy(info.element).to_owned(), sides(&info.shape)))
            })
            .collect();
        assert_eq!(found.len(), count);
        assert_eq!(found, listed, "{name}");
        let mut hash = Sha256::new();
        for (name, (_, sides)) in &found {
            hash.update([name.as_bytes(), b"\0", sides.as_bytes(), b"\0"].concat());
            hash.update(bundle.read(name).unwrap().bytes);
        }
        assert_eq!(hex(hash), expected, "{name}");
    }
}

#[test]
fn a_checkpoint_is_found_by_any_of_its_names() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    bundle::write(dir.path(), &[&[("a", vec![1.])]], &PLAIN);
    let names = ["model.ckpt", "model.ckpt.index", "model.ckpt.data-00000-of-00001", "."];
    for name in names {
        assert_eq!(TfBundle::open(&path(name)).unwrap().tensors().len(), 1, "{name}");
    }
    for ending in ["index", "data-00000-of-00001"] {
        let copy = path(&format!("model.ckpt-7.{ending}"));
        fs::copy(path(&format!("model.ckpt.{ending}")), copy).unwrap();
    }
    let several = message(TfBundle::open(dir.path()));
    assert!(several.contains("holds 2 checkpoints; name one of"), "{several}");
    assert!(several.contains("model.ckpt-7.index"), "{several}");
    // A path of another machine: the name counts.
    fs::write(path("checkpoint"), "model_checkpoint_path: \"/gone/model.ckpt-7\"\n").unwrap();
    assert!(TfBundle::open(dir.path()).is_ok());
    fs::write(path("checkpoint"), "model_checkpoint_path: \"model.ckpt\"\n").unwrap();
    fs::remove_file(path("model.ckpt-7.data-00000-of-00001")).unwrap();
    assert!(TfBundle::open(dir.path()).is_ok());

    let missing = message(TfBundle::open(&path("model.ckpt-7")));
    assert!(missing.contains("model.ckpt-7.data-00000-of-00001: No such file"), "{missing}");
    assert!(message(TfBundle::open(&path("none"))).contains("No such file"));
    assert!(message(TfBundle::open(&path("checkpoint"))).contains("no .index beside it"));
    let empty = TempDir::new().unwrap();
    assert!(message(TfBundle::open(empty.path())).contains("holds no TensorFlow checkpoint"));
}

#[test]
fn packed_and_divided_tables_are_read() {
    // Long names that share their beginnings, over many blocks and restarts.
    let names: Vec<_> =
        (0..200).map(|i| format!("{}/variable_{i:03}", "scope/".repeat(5))).collect();
    let tensors: Vec<_> =
        names.iter().zip(0_u8..).map(|(n, i)| (n.as_str(), vec![f32::from(i); 3])).collect();
    let (first, second) = tensors.split_at(77);
    for form in [
        PLAIN,
        Form { per_block: 40, snappy: false },
        Form { per_block: 1, snappy: true },
        Form { per_block: 33, snappy: true },
    ] {
        let dir = TempDir::new().unwrap();
        bundle::write(dir.path(), &[first, second], &form);
        let mut bundle = TfBundle::open(dir.path()).unwrap();
        assert_eq!(bundle.tensors().len(), 200);
        // From the last to the first: the order of the file does not matter.
        for (name, values) in tensors.iter().rev() {
            let expected: Vec<_> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!(bundle.read(name).unwrap().bytes, expected);
        }
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_advice() {
    let first = message(TfBundle::open(&golden("first.ckpt")));
    assert!(first.contains("first form (V1)") && first.contains("write_version"), "{first}");
    let parts = message(TfBundle::open(&golden("partitioned")));
    assert!(parts.contains("stores table in parts"), "{parts}");

    let dir = TempDir::new().unwrap();
    let index = dir.path().join("m.index");
    fs::copy(golden("first.ckpt"), &index).unwrap();
    assert!(message(TfBundle::open(&index)).contains("first form (V1)"));
    fs::write(dir.path().join("m.data-00000-of-00001"), [0; 8]).unwrap();
    let refused = |entries: &[(&[u8], Vec<u8>)]| {
        let entries: Vec<_> = entries.iter().map(|(k, v)| (k.to_vec(), v.clone())).collect();
        fs::write(&index, table(&entries, &PLAIN)).unwrap();
        message(TfBundle::open(&index))
    };
    let plain = || (&b""[..], header(1, &[]));
    let zeros = |shape: &[u64], shard, at| entry(bundle::FLOAT, shape, shard, at, &[0; 8]);
    for (found, expected) in [
        (refused(&[(b"", header(1, &number(2, 1)))]), "written on a big-endian machine"),
        (refused(&[(b"", header(1, &bytes(3, &number(2, 9))))]), "needs a reader of version 9"),
        (refused(&[(b"", header(0, &[]))]), "names no data files"),
        (refused(&[(b"a", header(1, &[]))]), "it has no header"),
        (
            refused(&[plain(), (b"a", zeros(&[3], 0, 0))]),
            "'a': 8 bytes were written for a shape of [3]",
        ),
        (refused(&[plain(), (b"a", zeros(&[2], 0, 1))]), "'a' lies at 1 with 8 bytes"),
        (refused(&[plain(), (b"a", zeros(&[2], 0, u64::MAX))]), "'a' lies at 18446744073709551615"),
        (refused(&[plain(), (b"a", zeros(&[2], 1, 0))]), "it lies in data file 1 of 1"),
        (refused(&[plain(), (b"a", zeros(&[u64::MAX], 0, 0))]), "a side of its shape is negative"),
        (refused(&[plain(), (b"a", zeros(&[1 << 62, 4], 0, 0))]), "larger than any memory"),
        (refused(&[plain(), (b"\xff", zeros(&[2], 0, 0))]), "is no text"),
        (refused(&[plain(), (b"b", zeros(&[2], 0, 0)), (b"a", zeros(&[2], 0, 0))]), "out of order"),
        (refused(&[plain(), (b"a", vec![0x0b])]), "wire type 3"),
    ] {
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
    fs::write(&index, b"too short").unwrap();
    assert!(message(TfBundle::open(&index)).contains("too few for a table"));

    let bools = entry(10, &[2], 0, 0, &[1, 2]);
    let entries = [(Vec::new(), header(1, &[])), (b"a".to_vec(), bools)];
    fs::write(&index, table(&entries, &PLAIN)).unwrap();
    fs::write(dir.path().join("m.data-00000-of-00001"), [1, 2]).unwrap();
    let found = message(TfBundle::open(&index).unwrap().read("a"));
    assert!(found.contains("holds 2 where only 0 and 1"), "{found}");
}

#[test]
fn constants_in_every_form_are_read_as_tensorflow_reads_them() {
    let mut graph = TfGraph::open(&golden("graph.pb")).unwrap();
    let rest = assert_as_tensorflow(&mut graph, "graph");
    let kinds: Vec<_> = rest.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    let left_out: Vec<_> = graph.left_out().iter().map(|(n, k)| (n.as_str(), *k)).collect();
    assert_eq!(kinds, left_out);
    let names = ["content/complex", "content/text", "content/unsigned", "text"];
    assert_eq!(rest.keys().collect::<Vec<_>>(), names);
    assert_eq!(graph.tensors().len(), 25);
    assert!(message(graph.read("text")).contains("the tensor 'text' holds string"));
    assert!(message(graph.read("sum")).contains("it has no constant 'sum'"));
}

#[test]
fn the_frozen_detector_holds_its_checkpoint() {
    let Some(folder) = oracle("small") else { return };
    let mut bundle = TfBundle::open(&folder).unwrap();
    let mut graph = TfGraph::open(&folder.join("frozen_inference_graph.pb")).unwrap();
    assert_eq!((graph.tensors().len(), graph.left_out().len()), (1541, 4));
    for name in bundle.tensors().keys().cloned().collect::<Vec<_>>() {
        assert_eq!(graph.read(&name).unwrap(), bundle.read(&name).unwrap(), "{name}");
    }
}

#[test]
fn what_is_no_frozen_graph_is_refused_with_advice() {
    let saved = message(TfGraph::open(&golden("saved_model.pb")));
    assert!(saved.contains("is a SavedModel") && saved.contains("'variables'"), "{saved}");

    let dir = TempDir::new().unwrap();
    let path = dir.path().join("g.pb");
    let refused = |graph: &[u8]| {
        fs::write(&path, graph).unwrap();
        message(TfGraph::open(&path))
    };
    // A node of op `op` with the attribute `value`, a tensor of these fields.
    let node = |op: &[u8], tensor: &[u8]| {
        let attribute = [bytes(1, b"value"), bytes(2, &bytes(8, tensor))].concat();
        bytes(1, &[bytes(1, b"w"), bytes(2, op), bytes(5, &attribute)].concat())
    };
    let shape = |sides: &[u64]| {
        bytes(2, &sides.iter().flat_map(|&side| bytes(2, &number(1, side))).collect::<Vec<_>>())
    };
    let floats = |sides: &[u64], more: Vec<u8>| [number(1, 1), shape(sides), more].concat();
    let good = node(b"Const", &floats(&[2], vec![]));
    let twice = [good.clone(), good.clone()].concat();
    let no_value = bytes(1, &[bytes(1, b"w"), bytes(2, b"Const")].concat());
    for (graph, expected) in [
        (vec![], "holds no constants"),
        (node(b"Add", &floats(&[2], vec![])), "holds no constants"),
        (twice, "two nodes 'w'"),
        (no_value, "'w': it is a constant without a value"),
        (node(b"Const", &floats(&[1 << 62, 4], vec![])), "'w': its shape"),
        (node(b"Const", &floats(&[u64::MAX], vec![])), "a side of its shape is negative"),
        (
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(),
            "where 0 are left; the file is cut short",
        ),
        (b"PK\x03\x04 and more".to_vec(), "is not a valid frozen TensorFlow graph"),
    ] {
        let found = refused(&graph);
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
    let unread = |graph: &[u8]| {
        fs::write(&path, graph).unwrap();
        message(TfGraph::open(&path).unwrap().read("w"))
    };
    for (tensor, expected) in [
        (floats(&[1 << 40], vec![]), "out of proportion to the file"),
        (floats(&[2], bytes(4, &[0; 9])), "9 bytes stand for a shape of [2]"),
        (floats(&[2], bytes(5, &[0; 12])), "more values than its shape"),
        (floats(&[2], bytes(5, &[0; 6])), "its values are cut short"),
        (floats(&[2], number(5, 1)), "its values are no floats"),
        ([number(1, 4), shape(&[2]), number(7, 256)].concat(), "256 is no U8"),
        ([number(1, 10), shape(&[2]), bytes(4, &[1, 2])].concat(), "holds 2 where only 0 and 1"),
    ] {
        let found = unread(&node(b"Const", &tensor));
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
}
