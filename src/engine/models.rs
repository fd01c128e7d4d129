//! Detectors, classifiers and featurizers, ready for images.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use detect_kernel::Instructions;
use rayon::ThreadPool;

use super::dense::Dense;
use super::detector::FasterRcnn;
use super::map::{Map, zeros};
use super::network::{Network, Request, Start};
use super::workers::Workers;
use super::{CutSpec, Featurizer};
use crate::config::{self, Cut};
use crate::data::loader::Batch;
use crate::geometry::{Detection, Size};
use crate::nasnet::names;
use crate::nasnet::plan::Plan;
use crate::network::{ClassifierModel, DetectorModel, FeatureModel, Images};
use crate::weights::import::{About, heads};
use crate::weights::strict::{fit, usable};
use crate::weights::{ClassifierInfo, Contents, Element, ModelInfo, StoredTensor, WeightsError};

/// What names of a featurizer's tensors begin with.
const BACKBONE: &str = "backbone.";

/// How a network runs on a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    threads: usize,
    /// Of the featurizer. Heads and the last layer of a classifier are a small part of the work, and decide: they are
    /// always in float32.
    instructions: Instructions,
}

impl Cpu {
    /// All in float32, on `threads` threads.
    pub fn float32(threads: usize) -> Self {
        Self { threads, instructions: Instructions::best() }
    }

    /// Inputs and weights of the featurizer's products in bfloat16, sums and all else in float32; `None` where the
    /// processor has no instructions for it.
    pub fn bf16(threads: usize) -> Option<Self> {
        Instructions::best_bf16().map(|instructions| Self { threads, instructions })
    }

    /// How many threads.
    pub fn threads(self) -> usize {
        self.threads
    }

    /// The instructions that its kernels use, for people.
    pub fn title(self) -> &'static str {
        self.instructions.title()
    }
}

/// Names and shapes of the tensors of the stem and of the first `cells` cells.
fn expected(plan: &Plan, cells: usize) -> BTreeMap<String, Vec<usize>> {
    let made = |number: usize| number < cells;
    let tensors = plan.tensors().filter(|t| t.site.is_none_or(|site| made(site.number)));
    tensors.map(|tensor| (tensor.name(), tensor.shape)).collect()
}

/// A featurizer of `contents`, strictly; what else begins with `backbone.` must be in `also`.
fn network(
    contents: &Contents,
    section: &config::Backbone,
    cells: usize,
    also: BTreeMap<String, Vec<usize>>,
    path: &Path,
    (instructions, pool): (Instructions, Arc<ThreadPool>),
) -> Result<Network, WeightsError> {
    usable(contents, path)?;
    let mut wanted = expected(&section.plan(), cells);
    wanted.extend(also);
    let found = fit(&wanted, contents, |name| name.strip_prefix(BACKBONE), path)?;
    let other = found.iter().find(|(_, tensor)| !tensor.element.is_float());
    if let Some((name, tensor)) = other {
        return Err(WeightsError::Element {
            path: path.into(),
            tensor: (*name).into(),
            dtype: format!("{:?}", tensor.element),
        });
    }
    let tensors = |name: &str| found[name].to_f32().expect("all of them are floats");
    Ok(Network::new(section, cells, &tensors, instructions, pool))
}

/// The featurizer of a detector: the trunk, and the tail where the heads want it.
#[derive(Debug)]
struct NasNet {
    network: Network,
    cut: Cut,
}

impl Featurizer for NasNet {
    fn spec(&self) -> CutSpec {
        let plan = self.network.plan();
        let channels = heads::map_channels(plan, self.cut);
        CutSpec { channels, stride: 16, tail_channels: plan.name.channels }
    }

    fn trunk(&self, pixels: &[f32], images: usize, size: Size) -> Map {
        let cut = self.network.plan().stride_16();
        let [first, last] = cut.expect("configurations of detectors are checked for it");
        let maps = match self.cut {
            Cut::Pair => vec![(first.0, false), (last.0, false)],
            Cut::Last => vec![(last.0, true)],
        };
        let size = [size.height, size.width];
        let request = Request { images, size, start: Start::Images, maps };
        self.network.run_joined(&request, pixels)
    }

    fn tail(&self, crops: &Map) -> Vec<f32> {
        let request = Request {
            images: crops.images,
            size: [crops.height, crops.width],
            start: Start::Cut,
            maps: vec![(self.network.cells(), true)],
        };
        self.network.run_to_mean(&request, &crops.data).1
    }
}

/// A detector.
pub struct Detector {
    info: ModelInfo,
    network: FasterRcnn<NasNet>,
    workers: Workers,
}

impl Detector {
    /// Reads a model file.
    ///
    /// # Errors
    /// The file can't be read, is no detector, or has other tensors than its network.
    pub fn read(path: &Path, cpu: Cpu) -> Result<Self, WeightsError> {
        let contents = Contents::read(path)?;
        let info = ModelInfo::read_from(&contents, path)?;
        let workers = Workers::start(cpu.threads);
        let config = &info.config;
        let cells = heads::cells(config);
        let none = BTreeMap::new();
        let on = (cpu.instructions, workers.pool());
        let network = network(&contents, &config.backbone, cells, none, path, on)?;
        let featurizer = NasNet { network, cut: config.detector.cut };
        let classes = info.categories.len();
        let network = FasterRcnn::new(featurizer, &contents, config, classes, path)?;
        Ok(Self { info, network, workers })
    }
}

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detector").field("info", &self.info).finish_non_exhaustive()
    }
}

impl DetectorModel for Detector {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn detect(&self, batch: &Batch) -> Vec<Vec<Detection>> {
        self.workers.run(|| self.network.predict(batch))
    }
}

/// A classifier.
pub struct Classifier {
    info: ClassifierInfo,
    features: Features,
}

impl Classifier {
    /// Reads a model file.
    ///
    /// # Errors
    /// The file can't be read, is no classifier, or has other tensors than its network.
    pub fn read(path: &Path, cpu: Cpu) -> Result<Self, WeightsError> {
        let contents = Contents::read(path)?;
        let info = ClassifierInfo::read_from(&contents, path)?;
        Self::new(info, contents, path, cpu)
    }

    /// The classifier `info` with the tensors `backbone.*` of `contents`, which came from `path`.
    ///
    /// # Errors
    /// There are other tensors than the network's.
    pub fn new(
        info: ClassifierInfo,
        contents: Contents,
        path: &Path,
        cpu: Cpu,
    ) -> Result<Self, WeightsError> {
        let (section, classes) = (&info.backbone, Some(info.classes.len()));
        let cells = section.plan().cells.len();
        let features = Features::of(contents, section, cells, classes, path, cpu)?;
        Ok(Self { info, features })
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classifier").field("info", &self.info).finish_non_exhaustive()
    }
}

impl ClassifierModel for Classifier {
    fn info(&self) -> &ClassifierInfo {
        &self.info
    }

    fn logits(&self, images: Images<'_>) -> Vec<Vec<f32>> {
        if images.count == 0 {
            return Vec::new();
        }
        let dense = self.features.classifier.as_ref().expect("classifiers have one");
        let (_, logits) = self.features.to_logits(dense, images, Vec::new());
        logits.chunks_exact(self.info.classes.len()).map(<[f32]>::to_vec).collect()
    }
}

/// The featurizer of a model, or of a file without a description.
pub struct Features {
    network: Network,
    classifier: Option<Dense>,
    workers: Workers,
}

impl Features {
    /// The featurizer of what `about` describes, with the tensors `backbone.*` of `contents`, which came
    /// from `path`: a classifier whole, a detector up to where its cut needs it.
    ///
    /// # Errors
    /// There are other tensors than the network's.
    pub fn new(
        about: About,
        contents: Contents,
        path: &Path,
        cpu: Cpu,
    ) -> Result<Self, WeightsError> {
        let whole = |section: &config::Backbone| section.plan().cells.len();
        let (section, cells, classes) = match about {
            About::Classifier(info) => {
                let cells = whole(&info.backbone);
                (info.backbone, cells, Some(info.classes.len()))
            }
            About::Detector(info) => {
                let cells = heads::cells(&info.config);
                (info.config.backbone, cells, None)
            }
            About::Featurizer(section) => {
                let cells = whole(&section);
                (*section, cells, None)
            }
        };
        Self::of(contents, &section, cells, classes, path, cpu)
    }

    fn of(
        contents: Contents,
        section: &config::Backbone,
        cells: usize,
        classes: Option<usize>,
        path: &Path,
        cpu: Cpu,
    ) -> Result<Self, WeightsError> {
        let workers = Workers::start(cpu.threads);
        let [weight, bias] = ["weight", "bias"].map(|t| format!("{}.{t}", names::CLASSIFIER));
        let inputs = section.name.channels;
        let also = classes.map(|classes| {
            [(weight.clone(), vec![classes, inputs]), (bias.clone(), vec![classes])]
        });
        let also: BTreeMap<_, _> = also.into_iter().flatten().collect();
        let on = (cpu.instructions, workers.pool());
        let network = network(&contents, section, cells, also, path, on)?;
        let floats = |name: &str| {
            contents.tensors[&format!("{BACKBONE}{name}")].to_f32().expect("it was checked")
        };
        let classifier =
            classes.map(|classes| Dense::new(&floats(&weight), &floats(&bias), classes, inputs));
        drop(contents);
        Ok(Self { network, classifier, workers })
    }

    fn request(images: Images<'_>, maps: Vec<(usize, bool)>) -> Request {
        let size = [images.size.height, images.size.width];
        Request { images: images.count, size, start: Start::Images, maps }
    }

    /// The `wanted` maps, and a logit of each class for each image, `[N, classes]`, by `dense`.
    fn to_logits(
        &self,
        dense: &Dense,
        images: Images<'_>,
        mut wanted: Vec<(usize, bool)>,
    ) -> (Vec<Map>, Vec<f32>) {
        wanted.push((self.network.cells(), true));
        let request = Self::request(images, wanted);
        let mut logits = vec![0.; images.count * dense.outputs()];
        // All in one: each change to the threads of the pool costs as much as some cells.
        let maps = self.workers.run(|| {
            let (maps, means) = self.network.run_to_mean(&request, images.pixels);
            dense.run(&means, &mut logits);
            maps
        });
        (maps, logits)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Features").field("plan", self.network.plan()).finish_non_exhaustive()
    }
}

impl FeatureModel for Features {
    fn maps(&self, images: Images<'_>) -> Vec<(String, StoredTensor)> {
        let cells = self.network.cells();
        let wanted = (0..=cells).map(|map| (map, false)).collect();
        let (found, logits) = if let Some(dense) = &self.classifier {
            let (found, logits) = self.to_logits(dense, images, wanted);
            (found, Some(stored(&[images.count, dense.outputs()], logits)))
        } else {
            let request = Self::request(images, wanted);
            (self.workers.run(|| self.network.run(&request, images.pixels)), None)
        };
        let plan = self.network.plan();
        let name = |map| plan.map_name(crate::nasnet::plan::Map(map)).to_owned();
        let maps = found.iter().enumerate().map(|(i, map)| (name(i), channels_first(map)));
        maps.chain(logits.map(|logits| ("logits".into(), logits))).collect()
    }

    fn last(&self, images: Images<'_>) -> StoredTensor {
        if let Some(dense) = &self.classifier {
            let (_, logits) = self.to_logits(dense, images, Vec::new());
            return stored(&[images.count, dense.outputs()], logits);
        }
        let request = Self::request(images, vec![(self.network.cells(), false)]);
        channels_first(&self.workers.run(|| self.network.run_joined(&request, images.pixels)))
    }
}

/// `[N, H, W, C]` to `[N, C, H, W]`.
fn channels_first(map: &Map) -> StoredTensor {
    let Map { images, height, width, channels, data } = map;
    let pixels = height * width;
    let mut bytes = zeros(data.len() * size_of::<f32>());
    let mut places = bytes.chunks_exact_mut(size_of::<f32>());
    for image in data.chunks_exact((pixels * channels).max(1)) {
        for channel in 0..*channels {
            let values = (0..pixels).map(|pixel| image[pixel * channels + channel]);
            for (value, place) in values.zip(places.by_ref()) {
                place.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    let shape = vec![*images, *channels, *height, *width];
    StoredTensor { element: Element::F32, shape, bytes }
}

fn stored(shape: &[usize], values: Vec<f32>) -> StoredTensor {
    let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
    StoredTensor { element: Element::F32, shape: shape.to_vec(), bytes }
}
