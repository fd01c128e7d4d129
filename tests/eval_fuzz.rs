//! The readers of annotations and results on damaged files: no panic, no hang, and a syntax error
//! exactly where another JSON parser sees one.
//!
//! `DETECT_FUZZ_SECONDS=3600 cargo test --release --test eval_fuzz` goes on for an hour.

use std::fs;
use std::time::{Duration, Instant};

use detect::eval::{EvalError, GroundTruth, IouType, Results, Settings, evaluate_with};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::de::IgnoredAny;

/// Files where `DETECT_FUZZ_SECONDS` does not say how long to go on.
const CASES: usize = 2000;
/// A small file that takes this long hangs.
const HANG: Duration = Duration::from_secs(10);

const GT: &str = r#"{"info": {"x": [null, true, {}]}, "images": [{"id": 1, "height": 20, "width": 30},
 {"id": 2, "file_name": "a\u00e9\"\\.jpg", "height": 9.0, "width": 12}], "categories": [{"id": 1,
 "name": "caf\u00e9"}, {"id": 7}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox":
 [1.5, 2, 3e0, 4.25], "area": 12.75, "iscrowd": 0, "segmentation": [[1.5, 2, 4.5, 2, 4.5, 6.25]]},
 {"segmentation": {"size": [9, 12], "counts": [3, 20, 85]}, "iscrowd": 1, "area": 20, "bbox": [0, 0,
 9, 9], "category_id": 7, "image_id": 2, "id": -9007199254740993}, {"id": "b", "image_id": 2,
 "category_id": 1, "bbox": [0, 0, 1e-3, NaN], "area": Infinity, "iscrowd": 0,
 "segmentation": {"counts": "T13", "size": [9, 12]}}]}"#;
const DT: &str = r#"[{"image_id":1,"category_id":1,"bbox":[1.25,2.0,3.5,4.125],"score":0.875},
{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1e-1, "segmentation": {"size": [20, 30],
"counts": "bm0"}},{"image_id": 2, "category_id": 7, "bbox": [0.0, -1.5, 9, 9.123456789012345], "score": -Infinity},
{"score": 0.5, "bbox": [0, 0, 1, 1], "category_id": 1.0, "image_id": 2, "more": ["},{", {"a": [[]]}]}]"#;
const MASKS: &str = r#"[{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": {"size": [20, 30],
"counts": "bm0"}}, {"segmentation": {"counts": "T13", "size": [9, 12]}, "score": 0.25, "image_id": 2, "category_id": 7}]"#;

#[test]
fn damaged_files_are_refused_as_another_parser_refuses_them() {
    let seconds = std::env::var("DETECT_FUZZ_SECONDS").ok().map(|s| s.parse().unwrap());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let folder = tempfile::tempdir().unwrap();
    let (gt_path, dt_path) = (folder.path().join("gt.json"), folder.path().join("dt.json"));
    // Another stream each time, where time is given.
    let seed = until.map_or(7, |_| std::process::id().into());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut cases, mut refused) = (0, 0);
    while until.map_or(cases < CASES, |until| Instant::now() < until) {
        cases += 1;
        let in_gt = rng.random::<bool>();
        let good_dt = if rng.random::<bool>() { DT } else { MASKS };
        let good = if in_gt { GT } else { good_dt };
        let damaged = damage(good.as_bytes(), &mut rng);
        fs::write(&gt_path, if in_gt { &damaged } else { GT.as_bytes() }).unwrap();
        fs::write(&dt_path, if in_gt { good_dt.as_bytes() } else { &damaged }).unwrap();
        let start = Instant::now();
        for iou_type in [IouType::Bbox, IouType::Segm] {
            let (gt, results) = match iou_type {
                IouType::Bbox => (GroundTruth::from_file(&gt_path), Results::from_file(&dt_path)),
                IouType::Segm => (GroundTruth::with_masks(&gt_path), Results::with_masks(&dt_path)),
            };
            let said = if in_gt { gt.as_ref().err() } else { results.as_ref().err() };
            let no_json = matches!(said, Some(EvalError::Syntax { .. }));
            if let Some(expected) = other_parser(&damaged) {
                let text = String::from_utf8_lossy(&damaged);
                assert_eq!(no_json, expected, "seed {seed}, case {cases}: {said:?}\n{text}");
            }
            refused += usize::from(no_json);
            if let (Ok(gt), Ok(results)) = (gt, results) {
                let settings = Settings { iou_type, arrays: true, ..Settings::default() };
                // Whatever it says, it says it without a panic.
                let _ = evaluate_with(&gt, &results, &settings);
            }
        }
        assert!(start.elapsed() < HANG, "seed {seed}, case {cases} takes {:?}", start.elapsed());
    }
    println!("{cases} damaged files, {refused} refusals as no JSON");
    assert!(refused > cases / 4, "{refused} of {cases}");
}

/// One to four changes of what a file consists of.
fn damage(good: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    const PIECES: [&[u8]; 26] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u12",
        b"\\ud800",
        b"-",
        b".",
        b"e",
        b"0",
        b"1e999",
        b"123456789012345678901234567890",
        b"NaN",
        b"-Infinity",
        b"null",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\n",
        b"[[[[",
        b"\"id\": 1,",
        b"\"counts\": [1, 2],",
    ];
    let mut bytes = good.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..=bytes.len());
        let to = (at + rng.random_range(0..12)).min(bytes.len());
        match rng.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let copy = bytes[at..to].to_vec();
                let place = rng.random_range(0..=bytes.len());
                bytes.splice(place..place, copy);
            }
            3 if at < bytes.len() => bytes[at] = rng.random(),
            4 if at < bytes.len() && bytes[at].is_ascii_digit() => {
                bytes[at] = b'0' + rng.random_range(0..10);
            }
            _ => {
                let piece = PIECES[rng.random_range(0..PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

/// Whether `serde_json` takes it for no JSON; none where the two differ on purpose. Python's `NaN` and
/// `Infinity` are handed to it as numbers.
fn other_parser(bytes: &[u8]) -> Option<bool> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Some(true) };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut plain, mut rest) = (String::new(), text);
    let (mut depth, mut deepest) = (0_i32, 0);
    while let Some(next) = rest.chars().next() {
        let length = if next == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let length = end.map_or(rest.len(), |end| end + 2);
            plain.push_str(&rest[..length]);
            length
        } else if let Some(name) =
            ["NaN", "-Infinity", "Infinity"].iter().find(|name| rest.starts_with(**name))
        {
            // Not a digit that would go on with a number ahead of it.
            plain.push_str("null");
            name.len()
        } else {
            depth += i32::from(matches!(next, '{' | '[')) - i32::from(matches!(next, '}' | ']'));
            deepest = deepest.max(depth);
            plain.push(next);
            next.len_utf8()
        };
        rest = &rest[length..];
    }
    // `serde_json` gives up at 128.
    (deepest < 100).then(|| serde_json::from_str::<IgnoredAny>(&plain).is_err())
}
