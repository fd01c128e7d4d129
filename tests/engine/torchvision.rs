//! The stages of torchvision's detector: evaluation of the two cases on one map.

use std::path::Path;

use detect::config::Config;
use detect::engine::detector::crop::Region;
use detect::engine::detector::roi::RoiOutput;
use detect::engine::detector::rpn::RpnOutput;
use detect::engine::detector::{FasterRcnn, Heads};
use detect::engine::map::Map;
use detect::engine::{CutSpec, Featurizer};
use detect::geometry::{Detection, Size};
use detect::nms;
use detect::rules::{Coder, to_original};
use detect::weights::Contents;

use crate::common::{json, oracle, torchvision_detector};
use crate::golden::{Golden, as_numbers, compare};

/// Of floats, as a share of a tensor's largest value; indices are exact.
const LIMIT: f64 = 1e-4;

/// The goldens' featurizer: four 3x3 convolutions of stride 2 with ReLU, written as the sums that they are.
struct C4 {
    /// `[out, in, 3, 3]` and `[out]` of each.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Featurizer for C4 {
    fn spec(&self) -> CutSpec {
        CutSpec { channels: self.layers[0].1.len(), stride: 16, tail_channels: 0 }
    }

    fn trunk(&self, pixels: &[f32], images: usize, size: Size) -> Map {
        let input = Map::new([images, size.height, size.width, 3], pixels.to_vec());
        self.layers.iter().fold(input, |map, (weight, bias)| convolved(&map, weight, bias))
    }

    fn tail(&self, _: &Map) -> Vec<f32> {
        unreachable!("the goldens have a two-layer head")
    }
}

/// A 3x3 convolution of stride 2, padded by 1, and ReLU.
fn convolved(map: &Map, weight: &[f32], bias: &[f32]) -> Map {
    let (height, width) = (map.height.div_ceil(2), map.width.div_ceil(2));
    let mut data = Vec::new();
    for image in 0..map.images {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            for (output, &bias) in bias.iter().enumerate() {
                let mut sum = f64::from(bias);
                for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
                    let (row, column) = (2 * y + dy, 2 * x + dx);
                    if row == 0 || column == 0 || row > map.height || column > map.width {
                        continue;
                    }
                    let cell = map.run(image, row - 1, column - 1, 1);
                    for (input, &value) in cell.iter().enumerate() {
                        let weight = weight[(output * map.channels + input) * 9 + dy * 3 + dx];
                        sum += f64::from(weight) * f64::from(value);
                    }
                }
                data.push(sum.max(0.) as f32);
            }
        }
    }
    Map::new([map.images, height, width, bias.len()], data)
}

/// A golden case and the network that it describes.
struct Case {
    name: String,
    golden: Golden,
    config: Config,
    classes: usize,
    weights: Contents,
}

fn cases() -> Vec<Case> {
    let Some(folder) = oracle("fasterrcnn") else { return Vec::new() };
    let case = |name: &str| {
        let folder = folder.join(name);
        let (config, classes) = torchvision_detector(&json(&folder.join("meta.json")));
        let golden = Golden::read(&folder.join("eval.safetensors"));
        let weights = Contents::read(&folder.join("weights.safetensors")).unwrap();
        Case { name: name.into(), golden, config, classes, weights }
    };
    ["c4_fixed", "c4_empty_target"].map(case).into()
}

impl Case {
    fn featurizer(&self) -> C4 {
        let get = |i: usize, part: &str| {
            self.weights.tensors[&format!("backbone.{}.{part}", 2 * i)].to_f32().unwrap()
        };
        C4 { layers: (0..4).map(|i| (get(i, "weight"), get(i, "bias"))).collect() }
    }

    fn heads(&self) -> Heads {
        let spec = self.featurizer().spec();
        Heads::new(&self.weights, &self.config, spec, self.classes, Path::new(&self.name)).unwrap()
    }

    fn sizes(&self) -> Vec<Size> {
        let sides = self.golden.integers("image_sizes_hw");
        sides.chunks_exact(2).map(|s| Size::new(s[0], s[1])).collect()
    }

    fn padded(&self) -> Size {
        let shape = self.golden.shape("batch");
        Size::new(shape[2], shape[3])
    }

    fn check(&self, what: &str, golden: &[f32], found: &[f32], limit: f64) {
        compare(&format!("{} {what}", self.name), golden, found, limit);
    }

    fn regions(&self) -> Vec<Region> {
        let of_image = |image: usize| {
            let boxes = self.golden.boxes(&format!("roi.boxes.{image}"));
            boxes.into_iter().map(move |bbox| Region { image, bbox })
        };
        (0..self.sizes().len()).flat_map(of_image).collect()
    }

    fn rpn_output(&self) -> RpnOutput {
        RpnOutput {
            objectness: self.golden.get("rpn.objectness_flat").data,
            deltas: self.golden.map("rpn.deltas_nchw.0").data,
        }
    }

    fn check_detections(&self, found: &[Vec<Detection>], boxes: &str) {
        for (i, found) in found.iter().enumerate() {
            let name = |part: &str| format!("{part}.{i}");
            let labels: Vec<usize> = found.iter().map(|d| d.label.0 + 1).collect();
            assert_eq!(self.golden.integers(&name("det.labels")), labels, "{}", self.name);
            let scores: Vec<f32> = found.iter().map(|d| d.score).collect();
            let golden = self.golden.get(&name("det.scores")).data;
            self.check(&format!("{boxes}, scores"), &golden, &scores, LIMIT);
            let found: Vec<_> = found.iter().map(|d| d.bbox).collect();
            let golden = self.golden.get(&name(boxes)).data;
            self.check(boxes, &golden, &as_numbers(&found), LIMIT);
        }
    }
}

#[test]
fn every_stage_of_the_rpn_is_torchvision_s() {
    for case in cases() {
        let (heads, golden, padded) = (case.heads(), &case.golden, case.padded());
        let map = golden.map("feature.0");
        let found = heads.rpn().predict(&map);
        let objectness = golden.map("rpn.objectness_nchw.0").data;
        case.check("objectness", &objectness, &found.objectness, LIMIT);
        case.check("deltas", &golden.map("rpn.deltas_nchw.0").data, &found.deltas, LIMIT);
        let anchors = heads.anchors(Size::new(map.height, map.width), padded);
        let all: Vec<_> = (0..anchors.len()).map(|i| anchors.at(i)).collect();
        case.check("anchors", &golden.get("rpn.anchors").data, &as_numbers(&all), 0.);

        let output = case.rpn_output();
        let decoded =
            output.deltas.chunks_exact(4).enumerate().map(|(i, deltas)| {
                Coder::TORCHVISION_RPN.apply(deltas, anchors.at(i % anchors.len()))
            });
        let decoded: Vec<_> = decoded.collect();
        case.check("decoded", &golden.get("rpn.decoded").data, &as_numbers(&decoded), LIMIT);
        let sizes = case.sizes();
        let top = |image: usize| {
            let (logits, _) = output.of_image(image, sizes.len());
            nms::best(logits, case.config.rpn.pre_nms_eval)
        };
        let top: Vec<usize> = (0..sizes.len()).flat_map(top).collect();
        assert_eq!(golden.integers("rpn.pre_nms_index"), top, "{}", case.name);
        let proposals = heads.proposals(&output, &anchors, &sizes, padded);
        for (i, found) in proposals.iter().enumerate() {
            let get = |name: &str| golden.get(&format!("rpn.{name}.{i}")).data;
            let (boxes, scores): (Vec<_>, Vec<_>) = found.iter().copied().unzip();
            case.check("proposals", &get("proposals"), &as_numbers(&boxes), LIMIT);
            case.check("proposal scores", &get("proposal_scores"), &scores, LIMIT);
        }
    }
}

#[test]
fn every_stage_of_the_region_heads_is_torchvision_s() {
    for case in cases() {
        let (heads, golden, padded) = (case.heads(), &case.golden, case.padded());
        let featurizer = case.featurizer();
        let regions = case.regions();
        let mut crops = Map::default();
        heads.roi().cropper().crops(&golden.map("feature.0"), &regions, padded, &mut crops);
        let pooled = golden.map("roi.pooled");
        case.check("crops", &pooled.data, &crops.data, LIMIT);
        let vectors = heads.roi().vectors(&featurizer, &pooled);
        let golden_vectors = golden.get("roi.box_head").data;
        case.check("head", &golden_vectors, &vectors, LIMIT);
        let mut output = RoiOutput::default();
        heads.roi().classify(&golden_vectors, &mut output);
        let expected = RoiOutput {
            class_logits: golden.get("roi.class_logits").data,
            box_regression: golden.get("roi.box_regression").data,
        };
        case.check("class", &expected.class_logits, &output.class_logits, LIMIT);
        case.check("box", &expected.box_regression, &output.box_regression, LIMIT);
        let found = heads.select(&expected, &regions, &case.sizes());
        case.check_detections(&found, "det_resized.boxes");
    }
}

#[test]
fn from_pixels_to_detections_it_is_torchvision_s() {
    for case in cases() {
        let (golden, padded) = (&case.golden, case.padded());
        let (featurizer, batch) = (case.featurizer(), golden.map("batch"));
        let map = featurizer.trunk(&batch.data, batch.images, padded);
        case.check("trunk", &golden.map("feature.0").data, &map.data, LIMIT);
        let path = Path::new(&case.name);
        let detector =
            FasterRcnn::new(featurizer, &case.weights, &case.config, case.classes, path).unwrap();
        let sizes = case.sizes();
        let mut found = detector.detect(&batch.data, &sizes, padded);
        for (i, detections) in found.iter_mut().enumerate() {
            let image = golden.shape(&format!("image.{i}"));
            to_original(detections, sizes[i], Size::new(image[1], image[2]));
        }
        case.check_detections(&found, "det.boxes");
        // Without images there is nothing to find.
        assert_eq!(detector.detect(&[], &[], padded), Vec::<Vec<Detection>>::new());
    }
}

#[test]
fn what_does_not_fit_is_refused_with_a_list() {
    for case in cases() {
        let spec = case.featurizer().spec();
        let new = |weights: &Contents, classes: usize| {
            Heads::new(weights, &case.config, spec, classes, Path::new("file"))
        };
        let error = new(&case.weights, case.classes + 1).unwrap_err().to_string();
        assert!(error.contains("misshapen: roi_heads.box_predictor.cls_score.bias"), "{error}");
        assert_eq!(error.lines().count(), 5, "{error}");
        let mut weights = case.weights.clone();
        let bias = weights.tensors.remove("rpn.head.conv.0.0.bias").unwrap();
        weights.tensors.insert("rpn.head.conv.0.bias".into(), bias);
        let error = new(&weights, case.classes).unwrap_err().to_string();
        assert!(error.contains("missing: rpn.head.conv.0.0.bias"), "{error}");
        assert!(error.contains("unexpected: rpn.head.conv.0.bias"), "{error}");
    }
}
