//! The stages of TensorFlow's detector, each from the golden input of that stage, and the whole from the image.

use std::path::Path;

use detect::config::Rules;
use detect::data::coco::Category;
use detect::data::image::Rgb;
use detect::data::loader;
use detect::engine::detector::crop::Region;
use detect::engine::detector::roi::RoiOutput;
use detect::engine::detector::rpn::RpnOutput;
use detect::engine::detector::{Heads, tf};
use detect::engine::map::Map;
use detect::engine::{Cpu, CutSpec, Detector};
use detect::geometry::{Box2, Detection, Size};
use detect::network::DetectorModel as _;
use detect::weights::model::Trained;
use detect::weights::{Contents, ModelInfo};

use crate::common::{Described, oracle, tf_detector, tf_weights};
use crate::golden::{Golden, as_boxes, as_numbers, compare};

/// Of floats, as a share of a tensor's largest value; decisions are exact.
const LIMIT: f64 = 2e-4;

struct Case {
    name: String,
    golden: Golden,
    described: Described,
    weights: Contents,
}

/// Every case on disk.
fn cases() -> Vec<Case> {
    let Some(folder) = oracle("tf_detector") else { return Vec::new() };
    let mut names: Vec<String> = (std::fs::read_dir(&folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 2);
    let case = |name: String| Case {
        golden: Golden::read(&folder.join(&name).join("oracle.safetensors")),
        described: tf_detector(&folder.join(&name)),
        weights: tf_weights(&name).unwrap().0,
        name,
    };
    names.into_iter().map(case).collect()
}

/// TensorFlow's `y` first as our `x` first, of boxes and of deltas: `[.., 4]`.
fn turned(numbers: &[f32]) -> Vec<f32> {
    numbers.as_chunks::<4>().0.iter().flat_map(|&[y1, x1, y2, x2]| [x1, y1, x2, y2]).collect()
}

/// Boxes as shares of the input's sides, in pixels.
fn in_pixels(boxes: &[f32], size: Size) -> Vec<f32> {
    let sides = [size.width as f32, size.height as f32].repeat(2);
    boxes.iter().zip(sides.iter().cycle()).map(|(x, side)| x * side).collect()
}

/// The means over the places of each image: `[R, C]`.
fn means(map: &Map) -> Vec<f32> {
    let places = map.height * map.width;
    let one = |image: usize| {
        let rows = &map.data[image * places * map.channels..][..places * map.channels];
        (0..map.channels).map(move |channel| {
            let column = rows[channel..].iter().step_by(map.channels);
            (column.map(|&x| f64::from(x)).sum::<f64>() / places as f64) as f32
        })
    };
    (0..map.images).flat_map(one).collect()
}

impl Case {
    fn spec(&self) -> CutSpec {
        let channels = self.golden.shape("rpn_features_to_crop")[3];
        let tail_channels = self.golden.shape("second_stage_features")[3];
        CutSpec { channels, stride: 16, tail_channels }
    }

    fn heads(&self) -> Heads {
        let Described { config, classes, .. } = &self.described;
        assert_eq!(config.detector.rules, Rules::Tf);
        let path = Path::new(&self.name);
        Heads::new(&self.weights, config, self.spec(), *classes, path).unwrap()
    }

    /// Of the image inside the network's input.
    fn size(&self) -> Size {
        let shape = self.golden.shape("image_uint8");
        self.described.config.input.resized(Size::new(shape[0], shape[1]))
    }

    /// The first `count` rows of the only image of a padded golden `[1, M, ..]`.
    fn rows(&self, name: &str, count: usize) -> Vec<f32> {
        let array = self.golden.get(name);
        array.data[..array.shape[2..].iter().product::<usize>() * count].to_vec()
    }

    fn check(&self, what: &str, golden: &[f32], found: &[f32], limit: f64) {
        compare(&format!("{} {what}", self.name), golden, found, limit);
    }

    fn check_detections(&self, found: &[Detection], what: &str, limit: f64) {
        let number = self.golden.get("num_detections").data[0] as usize;
        assert_eq!(found.len(), number, "{} {what}: number of detections", self.name);
        let labels: Vec<f32> = found.iter().map(|d| d.label.0 as f32).collect();
        assert_eq!(self.rows("detection_classes", number), labels, "{} {what}", self.name);
        let scores: Vec<f32> = found.iter().map(|d| d.score).collect();
        let golden = self.rows("detection_scores", number);
        self.check(&format!("{what}: scores"), &golden, &scores, limit);
        let boxes: Vec<Box2> = found.iter().map(|d| d.bbox).collect();
        let golden = in_pixels(&turned(&self.rows("detection_boxes", number)), self.size());
        self.check(&format!("{what}: boxes"), &golden, &as_numbers(&boxes), limit);
    }

    /// All regions, those that fill up the list included.
    fn regions(&self) -> Vec<Region> {
        let boxes = turned(&self.golden.get("proposal_boxes_absolute").data);
        as_boxes(&boxes).into_iter().map(|bbox| Region { image: 0, bbox }).collect()
    }

    /// The class logits and deltas of the first `count` regions.
    fn head_output(&self, count: usize) -> RoiOutput {
        let rows = |name: &str| {
            let array = self.golden.get(name);
            let each = array.data.len() / array.shape[0];
            array.data[..each * count].to_vec()
        };
        RoiOutput {
            class_logits: rows("class_predictions_with_background"),
            box_regression: turned(&rows("refined_box_encodings")),
        }
    }
}

#[test]
fn the_first_stage_is_tensorflow_s() {
    for case in cases() {
        let (heads, golden, padded) = (case.heads(), &case.golden, case.described.padded);
        let map = golden.channels_last("rpn_features_to_crop");
        let mut hidden = Vec::new();
        heads.rpn().hidden(&map, 0..map.pixels(), &mut hidden);
        let expected = golden.get("rpn_box_predictor_features").data;
        assert!(expected.contains(&6.) || case.name != "small", "the limit of ReLU is reached");
        case.check("rpn conv and relu6", &expected, &hidden, LIMIT);
        let anchors = heads.anchors(Size::new(map.height, map.width), padded);
        let clipped: Vec<Box2> =
            (0..anchors.len()).map(|i| anchors.at(i).clipped(padded)).collect();
        let expected = turned(&golden.get("anchors").data);
        case.check("anchors, clipped", &expected, &as_numbers(&clipped), 0.);
        let found = heads.rpn().predict(&map);
        let output = RpnOutput {
            objectness: golden.get("rpn_class_logits").data,
            deltas: turned(&golden.get("rpn_box_encodings").data),
        };
        case.check("objectness", &output.objectness, &found.objectness, LIMIT);
        case.check("rpn deltas", &output.deltas, &found.deltas, LIMIT);

        let decoded = tf::decode(&anchors, &output.deltas, padded);
        let expected = turned(&golden.get("rpn_decoded_boxes_normalized_unclipped").data);
        let expected = in_pixels(&expected, padded);
        case.check("rpn decoded", &expected, &as_numbers(&decoded), LIMIT);
        let found = &heads.proposals(&output, &anchors, &[case.size()], padded)[0];
        let (boxes, scores): (Vec<Box2>, Vec<f32>) = found.iter().copied().unzip();
        // Box by box in order: that all are close means that the same anchors were picked in the same order.
        let picked = golden.integers("num_proposals")[0];
        let expected = turned(&case.rows("proposal_boxes_absolute", picked));
        case.check("proposals", &expected, &as_numbers(&boxes), 1e-5);
        case.check("proposal scores", &case.rows("proposal_scores", picked), &scores, 1e-5);
    }
}

#[test]
fn the_second_stage_is_tensorflow_s() {
    for case in cases() {
        let (heads, golden, padded) = (case.heads(), &case.golden, case.described.padded);
        let map = golden.channels_last("rpn_features_to_crop");
        let (regions, mut found) = (case.regions(), Map::default());
        heads.roi().cropper().crops(&map, &regions, padded, &mut found);
        let crops = golden.channels_last("cropped_features");
        case.check("crops", &crops.data, &found.data, LIMIT);
        // A sample beyond the last row by one bit is 0, and must be here too.
        let outside = |map: &Map| {
            let pixels = map.data.chunks_exact(map.channels);
            pixels.map(|pixel| pixel.iter().all(|&x| x == 0.)).collect::<Vec<_>>()
        };
        assert_eq!(outside(&crops), outside(&found), "{}: samples outside", case.name);
        let vectors = means(&golden.channels_last("second_stage_features"));
        let mut output = RoiOutput::default();
        heads.roi().classify(&vectors, &mut output);
        let expected = case.head_output(crops.images);
        case.check("class logits", &expected.class_logits, &output.class_logits, LIMIT);
        case.check("box deltas", &expected.box_regression, &output.box_regression, LIMIT);
        // Rows beyond the number of proposals are filled up, and take no part.
        let number = golden.integers("num_proposals")[0];
        let found = heads.select(&case.head_output(number), &regions[..number], &[case.size()]);
        case.check_detections(&found[0], "selection", 1e-5);
    }
}

#[test]
fn from_the_image_to_the_detections_it_is_tensorflow_s() {
    for case in cases() {
        let Described { config, classes, padded } = &case.described;
        let mut contents = case.weights.clone();
        let category = |id| Category { id, name: format!("class {id}") };
        let categories = (1..=*classes as i64).map(category).collect();
        let info = ModelInfo { config: config.clone(), categories, trained: Trained::default() };
        info.write_to(&mut contents);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        contents.write(&path).unwrap();
        let sides = case.golden.shape("image_uint8");
        let pixels = case.golden.integers("image_uint8").iter().map(|&x| x as u8).collect();
        let original = Rgb { size: Size::new(sides[0], sides[1]), pixels };
        let batch = loader::prepare(&[&original], &config.input);
        assert_eq!(batch.padded, *padded);
        // From the original's pixels back to the input's, each axis by its own factor.
        let by_x = case.size().width as f32 / original.size.width as f32;
        let by_y = case.size().height as f32 / original.size.height as f32;
        for threads in [1, 3] {
            let mut found = Detector::read(&path, Cpu::float32(threads)).unwrap().detect(&batch);
            assert_eq!(found.len(), 1);
            for detection in &mut found[0] {
                let Box2 { x1, y1, x2, y2 } = detection.bbox;
                detection.bbox = Box2::new(x1 * by_x, y1 * by_y, x2 * by_x, y2 * by_y);
            }
            case.check_detections(&found[0], "end to end", LIMIT);
        }
    }
}
