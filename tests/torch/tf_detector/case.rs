//! A golden case and the network that it describes; TensorFlow's layouts turned into ours.

use std::path::PathBuf;

use detect::config::Config;
use detect::data::image::Rgb;
use detect::geometry::Size;
use detect_torch::backbone::{Backbone, NasNet};
use detect_torch::detector::FasterRcnn;
use detect_torch::detector::family::Layers;
use detect_torch::detector::roi::{RoiHead, RoiOutput};
use detect_torch::detector::rpn::{Rpn, RpnOutput};
use detect_torch::detector::tf::{self, anchors};
use detect_torch::nn::nchw;
use detect_torch::weights;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::common::{Described, Golden, difference, oracle, tf_detector, tf_weights};

/// Of floats, as a share of a tensor's largest value; decisions are exact.
pub(crate) const LIMIT: f64 = 2e-4;

pub(crate) struct Case {
    pub(crate) name: String,
    folder: PathBuf,
    pub(crate) config: Config,
    classes: usize,
    /// Of the network's input.
    pub(crate) padded: Size,
    /// Of the image inside it.
    pub(crate) size: Size,
}

/// The parts of a detector, for stages by themselves.
pub(crate) struct Parts {
    pub(crate) store: VarStore,
    pub(crate) backbone: NasNet,
    pub(crate) rpn: Rpn,
    pub(crate) roi: RoiHead,
}

/// Every case on disk.
pub(crate) fn cases() -> Vec<Case> {
    let Some(folder) = oracle("tf_detector") else { return Vec::new() };
    let mut names: Vec<String> = (std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 2);
    names.iter().filter_map(|name| Case::new(name)).collect()
}

impl Case {
    /// `None` without the test material.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let folder = oracle("tf_detector")?.join(name);
        tf_weights(name)?;
        let Described { config, classes, padded } = tf_detector(&folder);
        let size =
            config.input.resized(image(&Golden::read(&folder.join("oracle.safetensors"))).size);
        Some(Self { name: name.into(), folder, config, classes, padded, size })
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        self.folder.join(format!("{file}.safetensors")).is_file()
    }

    pub(crate) fn golden(&self, file: &str) -> Golden {
        Golden::read(&self.folder.join(format!("{file}.safetensors")))
    }

    pub(crate) fn detector(&self) -> (VarStore, FasterRcnn<NasNet>) {
        let store = VarStore::new(Device::Cpu);
        let detector = FasterRcnn::new(&store.root(), &self.config, self.classes);
        self.load(&store);
        (store, detector)
    }

    pub(crate) fn parts(&self) -> Parts {
        self.parts_with(&self.config, tf::LAYERS)
    }

    pub(crate) fn parts_with(&self, config: &Config, layers: Layers) -> Parts {
        let store = VarStore::new(Device::Cpu);
        let root = store.root();
        let backbone =
            NasNet::new(&(&root / "backbone"), &config.backbone, config.detector.cut, true);
        let (spec, anchors) = (backbone.spec(), config.anchors.per_cell());
        let rpn = Rpn::new(&(&root / "rpn"), &config.rpn, anchors, spec, layers);
        let path = &root / "roi_heads";
        let roi = RoiHead::new(&path, &config.detector, spec, self.classes, layers);
        self.load(&store);
        Parts { store, backbone, rpn, roi }
    }

    fn load(&self, store: &VarStore) {
        let (contents, path) = tf_weights(&self.name).unwrap();
        weights::load(store, &contents, "", &path).unwrap();
    }

    /// Every anchor of a map, before anything becomes of those at the border.
    pub(crate) fn anchors(&self, map: &Tensor) -> Tensor {
        let [_, _, height, width] = nchw(map);
        anchors::of_map(&self.config.anchors, [height, width], 16)
    }
}

/// The golden RPN outputs as ours.
pub(crate) fn rpn_output(golden: &Golden) -> RpnOutput {
    RpnOutput {
        objectness: golden.get("rpn_class_logits").shallow_clone(),
        deltas: turned(golden.get("rpn_box_encodings")),
        anchors: turned(golden.get("anchors")),
    }
}

/// TensorFlow's `y` first as our `x` first, of boxes and of deltas: `[.., 4]`.
pub(crate) fn turned(boxes: &Tensor) -> Tensor {
    boxes.index_select(-1, &Tensor::from_slice(&[1_i64, 0, 3, 2]))
}

/// `[N, H, W, C]` to `[N, C, H, W]`.
pub(crate) fn channels_first(map: &Tensor) -> Tensor {
    map.permute([0, 3, 1, 2])
}

/// Boxes as shares of the input's sides, in pixels.
pub(crate) fn in_pixels(boxes: &Tensor, size: Size) -> Tensor {
    let (w, h) = (size.width as f32, size.height as f32);
    boxes * Tensor::from_slice(&[w, h, w, h])
}

pub(crate) fn image(golden: &Golden) -> Rgb {
    let pixels = golden.get("image_uint8");
    let size = Size::new(pixels.size()[0] as usize, pixels.size()[1] as usize);
    Rgb { size, pixels: Vec::<u8>::try_from(pixels.reshape([-1])).unwrap() }
}

/// The class logits and deltas of regions as ours: `[R, K + 1]` and `[R, 4 K]`.
pub(crate) fn head_output(golden: &Golden) -> RoiOutput {
    RoiOutput {
        class_logits: golden.get("class_predictions_with_background").shallow_clone(),
        box_regression: turned(golden.get("refined_box_encodings")).flatten(1, 2),
    }
}

/// Fails unless `found` is `golden` to within `limit` of its largest value; prints how far it is.
#[track_caller]
pub(crate) fn compare(case: &Case, what: &str, golden: &Tensor, found: &Tensor, limit: f64) {
    assert_eq!(golden.size(), found.size(), "{} {what}: shapes differ", case.name);
    let far = difference(golden, found);
    eprintln!("{:5} {what:36} {far:.2e}  (limit {limit:.0e})", case.name);
    assert!(far <= limit, "{} {what}: differs by {far:.2e} (limit {limit:.0e})", case.name);
}

/// Fails unless `found` is so far from `golden` that [`compare`] would fail by a wide margin.
#[track_caller]
pub(crate) fn compare_fails(case: &Case, what: &str, golden: &Tensor, found: &Tensor) {
    let far = if golden.size() == found.size() { difference(golden, found) } else { f64::INFINITY };
    eprintln!("{:5} mutant {what:44} {far:.2e}", case.name);
    assert!(far > 10. * LIMIT, "{}: {what} is not seen: {far:.2e}", case.name);
}

/// The first `count` rows of the only image of a padded golden `[1, M, ..]`.
pub(crate) fn rows(golden: &Golden, name: &str, count: i64) -> Tensor {
    golden.get(name).select(0, 0).narrow(0, 0, count)
}

pub(crate) fn count(golden: &Golden, name: &str) -> i64 {
    golden.get(name).to_kind(Kind::Int64).int64_value(&[0])
}
