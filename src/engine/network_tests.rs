//! The network against golden tensors, with each instruction set and any number of threads.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::NormMode;
use crate::engine::workers::Workers;
use crate::nasnet::{BackboneName, Form, Wiring};
use crate::weights::Contents;

/// Float32 goldens move by up to 7e-5 of their largest value with threads and layouts; a wrong rule
/// moves them by 5e-3 at least.
const LIMIT: f32 = 2e-4;
/// Where products read bfloat16, up to the first reduction, by when all kinds of layers were there: rounding takes these random
/// networks 0.06 away, and grows from cell to cell. Words in wrong places take them as far as they are large. That products
/// are right to the bit is for the tests of the kernels.
const LIMIT_BF16: f32 = 0.1;

/// How far numbers are from what they should be.
type Measure = fn(&[f32], &[f32]) -> f32;

/// The largest difference, as a share of the largest number.
fn largest(expected: &[f32], found: &[f32]) -> f32 {
    let most = |m: f32, d: f32| if d > m || d.is_nan() { d } else { m };
    let off = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0., most);
    off / expected.iter().map(|v| v.abs()).fold(0., most)
}

/// The root of the mean square of the differences, as a share of that of the numbers.
fn mean_square(expected: &[f32], found: &[f32]) -> f32 {
    let off: f32 = expected.iter().zip(found).map(|(a, b)| (a - b).powi(2)).sum();
    (off / expected.iter().map(|v| v.powi(2)).sum::<f32>()).sqrt()
}

/// The folders of golden networks, made with timm's cells.
fn cases() -> Vec<PathBuf> {
    let Some(data) = std::env::var_os("DETECT_TEST_DATA") else {
        eprintln!("skipped: DETECT_TEST_DATA is not set");
        return Vec::new();
    };
    let folder = Path::new(&data).join("oracle/nasnet");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 3, "the goldens are incomplete");
    cases
}

fn section(case: &Path) -> Backbone {
    let meta = std::fs::read_to_string(case.join("meta.json")).unwrap();
    let config = &serde_json::from_str::<serde_json::Value>(&meta).unwrap()["config"];
    let number = |key: &str| config[key].as_u64().unwrap() as usize;
    let same = config["kind"] == "same";
    // timm's class has six cells a stage and the large wiring.
    let large = !same || config["skip_reduction_input"].as_bool().unwrap();
    let cells = if same { number("cells_per_stage") } else { 6 };
    Backbone {
        name: BackboneName::a(cells, number("num_features"), Form::ImageNet),
        wiring: if large { Wiring::Large } else { Wiring::Mobile },
        stem_filters: number("stem_size"),
        pooling: if same { Pooling::Tf } else { Pooling::Timm },
        norm_eps: 1e-3,
        norm_momentum: 0.1,
        norm: NormMode::Live,
        tail_norm: NormMode::Live,
        drop_path_keep: 1.,
        genotype: None,
    }
}

/// `[N, C, H, W]` to `[N, H, W, C]`.
fn channels_last(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let [_, channels, height, width] = shape.try_into().unwrap();
    let image = |i: &[f32]| -> Vec<f32> {
        (0..height * width)
            .flat_map(|p| (0..channels).map(move |c| i[c * height * width + p]))
            .collect()
    };
    values.chunks_exact(channels * height * width).flat_map(image).collect()
}

#[test]
fn every_cell_is_the_golden_one_with_each_instruction_set() {
    for case in cases() {
        let section = section(&case);
        let weights = Contents::read(&case.join("weights.safetensors")).unwrap();
        let tensors = |name: &str| weights.tensors[name].to_f32().unwrap();
        let cells = section.plan().cells.len();
        let float32 = Instructions::available().into_iter().zip([1, 2, 3]);
        let bf16 = Instructions::available_bf16().into_iter().zip([3, 2]);
        let bf16 = bf16.map(|set| (set, mean_square as Measure, LIMIT_BF16, "reduction_cell_0"));
        let float32 = float32.map(|set| (set, largest as Measure, LIMIT, "the last cell"));
        for ((instructions, threads), measure, limit, end) in float32.chain(bf16) {
            let network = Network::new(
                &section,
                cells,
                &tensors,
                instructions,
                Workers::start(threads).pool(),
            );
            for i in 0..3 {
                let golden =
                    Contents::read(&case.join(format!("features_{i}.safetensors"))).unwrap();
                let image = &golden.tensors["input"];
                let given = channels_last(&image.shape, &image.to_f32().unwrap());
                // timm's last ReLU works in place: its last cell was recorded after it.
                let relu = |map| section.pooling == Pooling::Timm && map == cells;
                let request = Request {
                    images: image.shape[0],
                    size: [image.shape[2], image.shape[3]],
                    start: Start::Images,
                    maps: (0..=cells).map(|map| (map, relu(map))).collect(),
                };
                let found = network.run(&request, &given);
                let mut compared = 0;
                for (map, found) in found.iter().enumerate() {
                    let name = network.plan().map_name(plan::Map(map));
                    let Some(golden) = golden.tensors.get(name) else { continue };
                    let Map { images, height, width, channels, .. } = *found;
                    assert_eq!(golden.shape, [images, channels, height, width], "{name}");
                    let expected = channels_last(&golden.shape, &golden.to_f32().unwrap());
                    let off = measure(&expected, &found.data);
                    assert!(
                        off <= limit,
                        "{} {i} {name} ({}): {off}",
                        case.display(),
                        instructions.name()
                    );
                    compared += 1;
                    if name == end {
                        break;
                    }
                }
                // All but the input and the logits.
                let all = golden.tensors.len() - 2;
                assert!(if limit == LIMIT { compared == all } else { compared >= 3 }, "{compared}");
            }
        }
    }
}
