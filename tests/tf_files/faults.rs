//! Damaged files, and files that were made to do harm.

use std::fs;
use std::path::Path;

use detect::weights::{Source, StoredTensor, TfBundle, TfGraph, WeightsError, pipeline};
use tempfile::TempDir;

use crate::bundle::{self, Form, block, bytes, footer, header, number, raw, table, varint};
use crate::{counting, damage, golden, message};

/// What a reader may hold beside twice the file.
const MEMORY: usize = 64 << 20;

/// What `work` returns; it fails if memory gets out of proportion to a file of `length` bytes.
fn bounded<T>(length: usize, work: impl FnOnce() -> T) -> T {
    let (done, peak) = counting::peak(work);
    assert!(peak <= 2 * length + MEMORY, "{peak} bytes were held for a file of {length}");
    done
}

fn read_all(source: &mut dyn Source) -> Result<Vec<(String, StoredTensor)>, WeightsError> {
    let names: Vec<_> = source.tensors().keys().cloned().collect();
    names.into_iter().map(|name| source.read(&name).map(|tensor| (name, tensor))).collect()
}

/// A small checkpoint in two data files.
fn small(folder: &Path, form: &Form) {
    let names: Vec<_> = (0..24).map(|i| format!("cell_{i}/conv/weights")).collect();
    let values = |i: usize| (0..20).map(|x| (i * 20 + x) as f32 / 7.).collect();
    let tensors: Vec<_> = names.iter().enumerate().map(|(i, n)| (n.as_str(), values(i))).collect();
    let (first, second) = tensors.split_at(9);
    bundle::write(folder, &[first, second], form);
}

/// Damages one file of a checkpoint.
fn hurt(form: &Form, file: &str, covered: impl Fn(usize, usize) -> bool) -> damage::Survivors {
    let dir = TempDir::new().unwrap();
    small(dir.path(), form);
    let path = dir.path().join(file);
    let good = fs::read(&path).unwrap();
    let whole: u64 =
        fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    damage::flips_and_cuts(
        &good,
        |at| covered(at, good.len()),
        |damaged| {
            damage::write_anew(&path, &fs::read(damaged).unwrap());
            bounded(whole as usize, || read_all(&mut TfBundle::open(dir.path())?))
        },
    )
}

#[test]
fn damage_to_an_index_is_reported() {
    for form in [Form { per_block: 99, snappy: false }, Form { per_block: 7, snappy: true }] {
        // All but the footer has checksums; half of the footer is padding.
        let survivors = hurt(&form, "model.ckpt.index", |at, length| at < length - 48);
        assert!(survivors.changed.is_empty() && survivors.misnamed.is_empty(), "{survivors:?}");
        assert!(survivors.refused > damage::CASES * 9 / 10, "{survivors:?}");
    }
}

#[test]
fn damage_to_variables_is_reported() {
    let form = Form { per_block: 99, snappy: false };
    for file in ["model.ckpt.data-00000-of-00002", "model.ckpt.data-00001-of-00002"] {
        let survivors = hurt(&form, file, |_, _| true);
        assert_eq!(survivors.refused, damage::CASES);
    }
}

/// A graph has no checksums. Names and shapes are those of a network, or the importer says so; under them
/// a flip may change the value that it hit, but nothing else.
#[test]
fn damage_to_a_graph_changes_no_more_than_it_must() {
    let path = golden("graph.pb");
    let good = fs::read(&path).unwrap();
    let network = TfGraph::open(&path).unwrap().tensors().clone();
    let survivors = damage::flips_and_cuts(
        &good,
        |_| false,
        |damaged| {
            bounded(good.len(), || {
                let mut graph = TfGraph::open(damaged)?;
                if *graph.tensors() != network {
                    let list = "names and shapes".into();
                    return Err(WeightsError::Mismatch { path: damaged.into(), list });
                }
                read_all(&mut graph)
            })
        },
    );
    assert!(survivors.misnamed.is_empty(), "{survivors:?}");
    assert!(survivors.refused > damage::CASES / 4, "{survivors:?}");
    assert!(survivors.changed.len() > damage::CASES / 10, "{survivors:?}");
    // A value that stands for all that follow it is one value.
    assert!(survivors.changed.iter().all(|(_, values)| *values <= 6), "{survivors:?}");
}

#[test]
fn checkpoints_that_would_fill_the_memory_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("m.index");
    fs::write(dir.path().join("m.data-00000-of-00001"), []).unwrap();
    let refused = |file: Vec<u8>| {
        fs::write(&path, &file).unwrap();
        bounded(file.len(), || message(TfBundle::open(&path)))
    };
    // A packed block that says that it has 4 GB.
    let mut file = Vec::new();
    let index = raw(&mut file, varint(0xffff_ffff), 1);
    file.extend(footer(&index, &index));
    assert!(refused(file).contains("unpacks to 4294967295 bytes"));

    // A block that is named again and again.
    let mut file = Vec::new();
    let meta = block(&mut file, &[], false);
    let empty = raw(&mut file, vec![0; 4], 0);
    let handles: Vec<_> = (0..9_u8).map(|i| (vec![i], empty.clone())).collect();
    let index = block(&mut file, &handles, false);
    file.extend(footer(&meta, &index));
    assert!(refused(file).contains("its blocks lie over each other"));

    // Names that share their beginnings take no room in the file.
    let form = Form { per_block: 1 << 20, snappy: true };
    let entry = bundle::entry(bundle::FLOAT, &[0], 0, 0, &[]);
    let long = |i: usize| (format!("{}{i:05}", "x".repeat(16_000)).into_bytes(), entry.clone());
    let start = [(Vec::new(), header(1, &[]))];
    let entries: Vec<_> = start.clone().into_iter().chain((0..2000).map(long)).collect();
    assert!(refused(table(&entries, &PLAIN)).contains("more variables than any network"));

    // Many variables of nothing.
    let short = |i: usize| (format!("{i:06}").into_bytes(), entry.clone());
    let entries: Vec<_> = start.clone().into_iter().chain((0..110_000).map(short)).collect();
    assert!(refused(table(&entries, &form)).contains("more variables than any network"));
    let entries: Vec<_> = start.into_iter().chain((0..100_000).map(short)).collect();
    let file = table(&entries, &form);
    fs::write(&path, &file).unwrap();
    assert_eq!(bounded(file.len(), || TfBundle::open(&path)).unwrap().tensors().len(), 100_000);
}

const PLAIN: Form = Form { per_block: usize::MAX, snappy: false };

#[test]
fn graphs_that_would_fill_the_memory_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("g.pb");
    let node = |name: &str, tensor: &[u8]| {
        let attribute = [bytes(1, b"value"), bytes(2, &bytes(8, tensor))].concat();
        bytes(1, &[bytes(1, name.as_bytes()), bytes(2, b"Const"), bytes(5, &attribute)].concat())
    };
    let open = |graph: &[u8]| {
        fs::write(&path, graph).unwrap();
        bounded(graph.len(), || TfGraph::open(&path))
    };
    let many = |count: usize| -> Vec<u8> {
        let side = bytes(2, &bytes(2, &number(1, 1)));
        let tensor = [number(1, 1), side].concat();
        (0..count).flat_map(|i| node(&format!("{i}"), &tensor)).collect()
    };
    assert!(message(open(&many(110_000))).contains("more constants than any network"));
    assert_eq!(open(&many(100_000)).unwrap().tensors().len(), 100_000);

    // 2.5 million bytes that become 8 bytes each; and a fill up to what is allowed.
    let sides = |side: u64| bytes(2, &bytes(2, &number(1, side)));
    let tensor = [number(1, 9), sides(2_500_000), bytes(10, &vec![1; 2_500_000])].concat();
    let graph = node("w", &tensor);
    let mut source = open(&graph).unwrap();
    let read = bounded(graph.len(), || source.read("w")).unwrap();
    assert!(
        read.bytes.chunks(8).all(|x| x == 1_i64.to_le_bytes()) && read.bytes.len() == 20_000_000
    );
    let tensor = [number(1, 1), sides(8 << 20), bytes(5, &1_f32.to_le_bytes())].concat();
    let graph = node("w", &tensor);
    let mut source = open(&graph).unwrap();
    let read = bounded(graph.len(), || source.read("w")).unwrap();
    assert!(read.bytes.chunks(4).all(|x| x == 1_f32.to_le_bytes()) && read.bytes.len() == 32 << 20);
}

#[test]
fn settings_that_would_fill_the_memory_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("pipeline.config");
    let name = "x".repeat(300_000);
    for text in [
        format!("{name}: [{}]", "1,".repeat(370_000) + "1"),
        format!("a: [{}]", "1,".repeat(520_000) + "1"),
        "a{}".repeat(349_000),
        "a{".repeat(500_000),
        "'".repeat(1 << 20),
    ] {
        fs::write(&path, &text).unwrap();
        let read = bounded(text.len(), || pipeline::PipelineConfig::read(&path));
        assert!(message(read).contains("line 1"));
    }
}

#[test]
fn damaged_settings_are_read_or_refused_with_a_line() {
    let good = "model: < faster_rcnn { num_classes: 0x5A # 90\n image_resizer { fixed_shape_resizer { height: 64, width: 64; } }\n\
        feature_extractor { type: 'faster_rcnn_' \"nas\" } first_stage_anchor_generator { grid_anchor_generator {\n\
        scales: [.5, 1e0, 2.0f] aspect_ratios: 1 } } initial_crop_size: 017 maxpool_kernel_size: 1 maxpool_stride: 1\n\
        second_stage_post_processing { score_converter: SOFTMAX } } >\n[a.b/c]: '\\x41\\101\\u00e9\\n' d: -inf";
    let config = pipeline::PipelineConfig::parse(good).unwrap();
    assert_eq!((config.num_classes, config.initial_crop_size), (90, 15));
    let lines = good.lines().count();
    let (mut read, mut refused) = (0, 0);
    let mut check = |text: &str| match pipeline::PipelineConfig::parse(text) {
        Ok(_) => read += 1,
        Err((line, reason)) => {
            assert!((1..=lines + 1).contains(&line) && !reason.is_empty(), "{line}: {reason}");
            refused += 1;
        }
    };
    // Every cut, and every byte changed in every bit; texts that are not UTF-8 do not get that far.
    for length in 0..good.len() {
        check(&good[..length]);
    }
    for at in 0..good.len() {
        for bit in 0..7 {
            let mut bytes = good.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            check(std::str::from_utf8(&bytes).unwrap());
        }
    }
    assert!(read > 100 && refused > 1000, "{read} read, {refused} refused");
}
