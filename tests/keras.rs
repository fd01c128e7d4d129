//! Weight files of Keras: what Keras wrote is read value by value, what does not fit is listed, and damage
//! ends in an error or in one changed value.

#![cfg(feature = "keras")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "pickle/counting.rs"]
mod counting;
#[path = "damage/mod.rs"]
mod damage;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use detect::config::Pooling;
use detect::geometry::Size;
use detect::nasnet::layers::NetworkTensor;
use detect::nasnet::{Form, Wiring};
use detect::weights::import::{self, About, Layout, Settings, tf_slim};
use detect::weights::{
    ClassifierInfo, Contents, Element, KerasFile, Source, StoredTensor, TensorInfo, WeightsError,
};

/// What a reader may hold beside twice the file.
const MEMORY: usize = 64 << 20;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keras").join(name)
}

/// An error with all its causes.
fn message(result: Result<impl Sized, WeightsError>) -> String {
    let error = result.err().expect("an error was expected");
    format!("{:#}", anyhow::Error::from(error))
}

fn read_all(source: &mut dyn Source) -> Result<Vec<(String, StoredTensor)>, WeightsError> {
    let names: Vec<_> = source.tensors().keys().cloned().collect();
    names.into_iter().map(|name| source.read(&name).map(|tensor| (name, tensor))).collect()
}

/// What `work` returns; it fails if memory gets out of proportion to a file of `length` bytes.
fn bounded<T>(length: usize, work: impl FnOnce() -> T) -> T {
    let (done, peak) = counting::peak(work);
    assert!(peak <= 2 * length + MEMORY, "{peak} bytes were held for a file of {length}");
    done
}

fn imported(source: &mut dyn Source) -> Result<(Contents, Box<ClassifierInfo>), WeightsError> {
    let done = import::import(source, None, &Settings::default(), Path::new("x.h5"))?;
    assert_eq!(done.layout, Layout::Keras);
    assert!(done.notes[0].contains("Keras pads its pools with zeros"), "{:?}", done.notes);
    match done.about {
        About::Classifier(info) => Ok((done.contents, info)),
        About::Detector(_) | About::Featurizer(_) => unreachable!("a classifier is no detector"),
    }
}

/// The import of the golden file after `edit`.
fn edited(
    edit: impl FnOnce(&mut Vec<u8>),
) -> Result<(Contents, Box<ClassifierInfo>), WeightsError> {
    let mut bytes = fs::read(golden("mobile.h5")).unwrap();
    edit(&mut bytes);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edited.h5");
    fs::write(&path, bytes).unwrap();
    imported(&mut KerasFile::open(&path)?)
}

/// Puts `new` in the place of every `old`, which is as long; how many there were.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) -> usize {
    assert_eq!(old.len(), new.len());
    let places: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(old)).collect();
    for &at in &places {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
    places.len()
}

#[test]
fn every_weight_is_read_as_keras_holds_it() {
    let mut expected = Contents::read(&golden("mobile.safetensors")).unwrap().tensors;
    for other in ["image", "logits"] {
        expected.remove(other).unwrap();
    }
    let mut file = KerasFile::open(&golden("mobile.h5")).unwrap();
    let found: BTreeMap<_, _> = read_all(&mut file).unwrap().into_iter().collect();
    assert_eq!(found.len(), 491);
    assert_eq!(found, expected);
    assert!(message(file.read("none/kernel")).contains("has no weight 'none/kernel'"));
}

/// What h5py wrote in the forms of other versions: the values are 0, 1, 2 ...
#[test]
fn older_and_newer_forms_are_read() {
    for (form, length) in [("form_old.h5", 4), ("form_new.h5", 4)] {
        let mut file = KerasFile::open(&golden(form)).unwrap();
        let found: BTreeMap<_, _> = read_all(&mut file).unwrap().into_iter().collect();
        assert_eq!(found.len(), length, "{form}");
        let floats = |n: usize| (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect::<Vec<_>>();
        let kernel = &found["dense/kernel"];
        assert_eq!((kernel.element, &kernel.shape[..]), (Element::F32, &[2, 3][..]), "{form}");
        assert_eq!(kernel.bytes, floats(6), "{form}");
        assert_eq!(found["dense/bias"].bytes, floats(3), "{form}");
        let gamma = &found["half/gamma"];
        assert_eq!((gamma.element, &gamma.shape[..]), (Element::F16, &[4][..]), "{form}");
        assert_eq!(gamma.bytes, [0, 0, 0, 0x3c, 0, 0x40, 0, 0x42], "{form}");
        let beta = (0..4).flat_map(|i| f64::from(i).to_le_bytes()).collect::<Vec<_>>();
        assert_eq!((found["half/beta"].element, &found["half/beta"].bytes), (Element::F64, &beta));
    }
}

#[test]
fn what_keras_2_never_writes_is_refused_with_advice() {
    for (case, expected) in [
        ("chunked", "the weight 'dense/kernel': it is not stored in one piece"),
        ("big_endian", "the weight 'dense/kernel': it holds f32, or numbers in another order"),
        ("integers", "the weight 'dense/kernel': it holds i64"),
        ("unwritten", "the weight 'dense/kernel': it was never written"),
        ("keras_3", "without the attribute layer_names that Keras 2 writes"),
        ("nested", "two weights are called 'inner/kernel'"),
    ] {
        let found = message(KerasFile::open(&golden(&format!("refused_{case}.h5"))));
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
    let none = message(KerasFile::open(Path::new("no/such.h5")));
    assert!(none.contains("cannot read the weights no/such.h5"), "{none}");
}

/// TF-slim's name of a weight of Keras, after Keras's code, where the layers have their names.
fn slim_name(keras: &str, n: usize, factorized: impl Fn(&str) -> bool) -> String {
    let (layer, weight) = keras.split_once('/').unwrap();
    let leaf = match weight {
        "kernel" => "weights",
        "bias" => "biases",
        "depthwise_kernel" => "depthwise_weights",
        "pointwise_kernel" => "pointwise_weights",
        norm => norm,
    };
    match layer {
        "stem_conv1" => return format!("conv0/{leaf}"),
        "stem_bn1" => return format!("conv0_bn/{leaf}"),
        "predictions" => return format!("final_layer/FC/{leaf}"),
        _ => {}
    }
    let (rest, number) = layer.rsplit_once('_').unwrap();
    let number: usize = number.parse().unwrap();
    let (rest, cell, id) = if let Some(rest) = rest.strip_suffix("_stem") {
        (rest, format!("cell_stem_{}", number - 1), format!("stem_{number}"))
    } else if let Some(rest) = rest.strip_suffix("_reduce") {
        (rest, format!("reduction_cell_{}", number / n - 1), format!("reduce_{number}"))
    } else {
        let before = usize::from(number > n);
        (rest, format!("cell_{}", number - before), number.to_string())
    };
    let scope = match rest {
        "normal_conv_1" | "reduction_conv_1" => "1x1".to_owned(),
        "normal_bn_1" | "reduction_bn_1" => "beginning_bn".to_owned(),
        "adjust_conv_1" => "path1_conv".to_owned(),
        "adjust_conv_2" => "path2_conv".to_owned(),
        "adjust_conv_projection" => "prev_1x1".to_owned(),
        "adjust_bn" if factorized(&id) => "final_path_bn".to_owned(),
        "adjust_bn" => "prev_bn".to_owned(),
        _ => {
            let rest = rest.strip_prefix("separable_conv_").unwrap();
            let (step, rest) = rest.split_once('_').unwrap();
            let (norm, rest) = match rest.strip_prefix("bn_") {
                Some(rest) => (true, rest),
                None => (false, rest),
            };
            // Block, side and kernel, as the calls in Keras's two cells have them.
            let (block, side, k) = match rest {
                "normal_left1" | "reduction_left1" => (0, "left", 5),
                "normal_right1" => (0, "right", 3),
                "normal_left2" => (1, "left", 5),
                "normal_right2" => (1, "right", 3),
                "normal_left5" | "reduction_left4" => (4, "left", 3),
                "reduction_right1" => (0, "right", 7),
                "reduction_right2" => (1, "right", 7),
                "reduction_right3" => (2, "right", 5),
                _ => panic!("{keras}"),
            };
            let kind = if norm { "bn_sep" } else { "separable" };
            format!("comb_iter_{block}/{side}/{kind}_{k}x{k}_{step}")
        }
    };
    format!("{cell}/{scope}/{leaf}")
}

/// Element `i` of a tensor of floats.
fn at(tensor: &StoredTensor, indices: &[usize]) -> f32 {
    let i = indices.iter().zip(&tensor.shape).fold(0, |i, (index, side)| i * side + index);
    f32::from_le_bytes(*tensor.bytes[4 * i..].first_chunk().unwrap())
}

/// By another route than the importer's: from Keras's names to TF-slim's, whose places in our network are
/// held against TF-slim itself.
#[test]
fn every_weight_comes_to_its_place() {
    let weights = Contents::read(&golden("mobile.safetensors")).unwrap().tensors;
    let factorized = |id: &str| weights.contains_key(&format!("adjust_conv_1_{id}/kernel"));
    let keras: HashMap<String, &String> = (weights.keys())
        .filter(|name| name.contains('/'))
        .map(|name| (slim_name(name, 1, factorized), name))
        .collect();
    assert_eq!(keras.len(), 491);
    let (contents, info) = imported(&mut KerasFile::open(&golden("mobile.h5")).unwrap()).unwrap();
    let backbone = &info.backbone;
    assert_eq!(backbone.name.to_string(), "nasnet-a-1@96");
    assert_eq!((backbone.wiring, backbone.pooling), (Wiring::Mobile, Pooling::Tf));
    assert_eq!((backbone.stem_filters, info.classes.len()), (8, 7));
    assert_eq!((backbone.norm_eps, info.preprocessing.image_size), (1e-3, Size::new(224, 224)));
    let plan = backbone.plan();
    let layer = plan.classifier(7);
    let head = layer.tensors().into_iter();
    let head = head.map(|(leaf, shape)| NetworkTensor { site: None, layer, leaf, shape });
    let mut compared = 0;
    for tensor in plan.tensors().chain(head) {
        let name = keras[&tf_slim::name_of(&tensor, Form::ImageNet)];
        let (theirs, ours) =
            (&weights[name], &contents.tensors[&format!("backbone.{}", tensor.name())]);
        assert_eq!(ours.shape, tensor.shape, "{name}");
        let (depthwise, shape) = (name.ends_with("depthwise_kernel"), &ours.shape);
        for i in 0..shape.iter().product() {
            // Where element `i` of ours is.
            let mut rest = i;
            let mut index = vec![0; shape.len()];
            for side in (0..shape.len()).rev() {
                (index[side], rest) = (rest % shape[side], rest / shape[side]);
            }
            let there = match index[..] {
                [channel, _, y, x] if depthwise => vec![y, x, channel, 0],
                [output, input, y, x] => vec![y, x, input, output],
                [output, input] => vec![input, output],
                _ => index.clone(),
            };
            assert_eq!(at(ours, &index), at(theirs, &there), "{name} {index:?}");
        }
        compared += 1;
    }
    assert_eq!((compared, contents.tensors.len()), (491, 491));
}

#[test]
fn missing_unexpected_and_misshapen_weights_are_listed() {
    let found = message(edited(|bytes| {
        let layer = b"separable_conv_2_normal_left5_3";
        assert!(replace(bytes, layer, b"separable_conv_2_normal_left9_3") > 3);
        // 1x1x8x4 becomes 1x1x4x8; the limits of the sides follow them.
        let sides = |sides: [u64; 8]| sides.map(u64::to_le_bytes).concat();
        let (old, new) = (sides([1, 1, 8, 4, 1, 1, 8, 4]), sides([1, 1, 4, 8, 1, 1, 4, 8]));
        let first = bytes.windows(64).position(|window| window == old).unwrap();
        bytes[first..first + 64].copy_from_slice(&new);
    }));
    let count = |word: &str| found.lines().filter(|line| line.starts_with(word)).count();
    assert!(found.starts_with("x.h5 does not fit the network"), "{found}");
    assert!(
        found.contains("missing: separable_conv_2_normal_left5_3/depthwise_kernel [3, 3, 16, 1]"),
        "{found}"
    );
    assert!(
        found.contains(
            "unexpected: separable_conv_2_normal_left9_3/pointwise_kernel [1, 1, 16, 16]"
        ),
        "{found}"
    );
    assert!(found.contains(" is [1, 1, 4, 8], expected [1, 1, 8, 4]"), "{found}");
    assert_eq!([count("  missing"), count("  unexpected"), count("  misshapen")], [2, 2, 1]);
}

#[test]
fn a_file_without_a_classifier_is_refused_with_advice() {
    let found = message(edited(|bytes| {
        assert!(replace(bytes, b"predictions", b"prediction_") > 3);
    }));
    assert!(found.contains("files called no-top hold no classifier"), "{found}");
    let found = message(edited(|bytes| {
        assert!(replace(bytes, b"normal_conv_1_3", b"normal_conv_1_4") > 3);
    }));
    assert!(found.contains("its last normal cell is 4"), "{found}");
}

/// A file with one weight more.
#[derive(Debug)]
struct WithAuxiliary(KerasFile, BTreeMap<String, TensorInfo>);

impl Source for WithAuxiliary {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.1
    }
    fn read(&mut self, name: &str) -> Result<StoredTensor, WeightsError> {
        self.0.read(name)
    }
}

#[test]
fn the_auxiliary_head_is_left_out() {
    let file = KerasFile::open(&golden("mobile.h5")).unwrap();
    let mut tensors = file.tensors().clone();
    let info = TensorInfo { element: Element::F32, shape: vec![1, 1, 96, 128] };
    tensors.insert("aux_conv_projection/kernel".into(), info.clone());
    let mut with = WithAuxiliary(file, tensors);
    assert_eq!(imported(&mut with).unwrap().0.tensors.len(), 491);
    with.1.insert("auxiliary/kernel".into(), info);
    assert!(message(imported(&mut with)).contains("unexpected: auxiliary/kernel"));
}

/// All 363 names of layers are one text of a megabyte, which lies in the file once.
#[test]
fn texts_that_share_their_bytes_take_no_memory_for_each() {
    let mut bytes = fs::read(golden("mobile.h5")).unwrap();
    let text = 1_u64 << 20;
    let heap = bytes.len().next_multiple_of(8) as u64;
    bytes.resize(heap as usize, 0);
    let field = u64::to_le_bytes;
    // A global heap: its size with its head, then object 1 of one use.
    let head = [&b"GCOL\x01\0\0\0"[..], &field(text + 32), b"\x01\0\x01\0\0\0\0\0", &field(text)];
    bytes.extend(head.concat());
    bytes.resize(bytes.len() + text as usize, b'a');
    // The end of the file, in the superblock.
    let end = field(bytes.len() as u64);
    bytes[40..48].copy_from_slice(&end);
    // Length, heap and number in the heap of each text.
    let heaps: Vec<u64> = (0..heap as usize)
        .filter(|&at| bytes[at..].starts_with(b"GCOL"))
        .map(|at| at as u64)
        .collect();
    let refers = |at: usize| {
        let address = u64::from_le_bytes(*bytes[at + 4..].first_chunk().unwrap());
        heaps.contains(&address)
    };
    let name = bytes.windows(11).position(|window| window == b"layer_names").unwrap();
    let first = (name..name + 100).find(|&at| (0..363).all(|k| refers(at + 16 * k))).unwrap();
    let reference = [&1_048_576_u32.to_le_bytes()[..], &field(heap), &1_u32.to_le_bytes()].concat();
    bytes[first..first + 16 * 363].copy_from_slice(&reference.repeat(363));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shared.h5");
    fs::write(&path, &bytes).unwrap();
    let found = bounded(bytes.len(), || message(KerasFile::open(&path)));
    assert!(found.contains("layer_names of / can't be read"), "{found}");
    // With one such text alone the file is read, up to the layer of that name.
    bytes[first + 16..first + 16 * 363].copy_from_slice(&[0; 16 * 362]);
    fs::write(&path, &bytes).unwrap();
    let found = bounded(bytes.len(), || message(KerasFile::open(&path)));
    assert!(found.contains("there is no group for the layer 'aaaa"), "{}", &found[..200]);
}

/// The file has no checksums. Names and shapes are those of a network, or the importer says so; under them
/// a flip may change the value that it hit. Where it hits the place of a weight, that weight is read from
/// elsewhere: places are 8 bytes of 1,800 in this file, and nothing says so.
#[test]
fn damage_changes_no_more_than_it_must() {
    let good = fs::read(golden("mobile.h5")).unwrap();
    let network = KerasFile::open(&golden("mobile.h5")).unwrap().tensors().clone();
    let survivors = damage::flips_and_cuts(
        &good,
        |_| false,
        |damaged| {
            bounded(good.len(), || {
                let mut file = KerasFile::open(damaged)?;
                if *file.tensors() != network {
                    let list = "names and shapes".into();
                    return Err(WeightsError::Mismatch { path: damaged.into(), list });
                }
                read_all(&mut file)
            })
        },
    );
    assert!(survivors.misnamed.is_empty(), "{survivors:?}");
    let more = survivors.changed.iter().filter(|(_, values)| *values > 1).count();
    assert!(more <= damage::CASES / 200, "{survivors:?}");
    assert!(survivors.refused > 0 && survivors.same > 0, "{survivors:?}");
}
