//! Trained networks of tensors, ready for images: the engine of `detect-torch`.

use std::path::Path;

use detect::cli::engine::{Described, Engine, EngineName, InferOn, Precision};
use detect::config::{Cut, Head};
use detect::data::loader::Batch;
use detect::fail;
use detect::failure::Exit;
use detect::geometry::{Detection, Size};
use detect::weights::import::About;
use detect::weights::{ClassifierInfo, Contents, ModelInfo, StoredTensor, WeightsError, strict};
use detect::{network, rules};
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::backbone::{Classifier, NasNet};
use crate::detector::{FasterRcnn, Images, boxes};
use crate::nn::Mode;
use crate::{device, weights};

/// A detector with its weights and what its file says of it.
#[derive(Debug)]
pub struct Model {
    /// Configuration and categories.
    pub info: ModelInfo,
    network: FasterRcnn<NasNet>,
    store: VarStore,
}

impl Model {
    /// Reads a model file.
    pub fn read(path: &Path, device: Device) -> Result<Self, WeightsError> {
        let contents = Contents::read(path)?;
        let info = ModelInfo::read_from(&contents, path)?;
        let store = VarStore::new(device);
        let network = FasterRcnn::new(&store.root(), &info.config, info.categories.len());
        strict::usable(&contents, path)?;
        weights::load(&store, &contents, "", path)?;
        Ok(Self { info, network, store })
    }

    /// The network.
    pub fn network(&self) -> &FasterRcnn<NasNet> {
        &self.network
    }

    /// The detections of each image in *original* pixels, best score first.
    pub fn detect(&self, batch: &Batch) -> Vec<Vec<Detection>> {
        detect(&self.network, batch, self.store.device())
    }
}

impl network::DetectorModel for Model {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn detect(&self, batch: &Batch) -> Vec<Vec<Detection>> {
        self.detect(batch)
    }
}

/// A classifier with its weights and what its file says of it.
#[derive(Debug)]
pub struct ClassifierModel {
    /// Network, preprocessing and classes.
    pub info: ClassifierInfo,
    network: Classifier,
    store: VarStore,
}

impl ClassifierModel {
    /// Reads a model file.
    pub fn read(path: &Path, device: Device) -> Result<Self, WeightsError> {
        let contents = Contents::read(path)?;
        let info = ClassifierInfo::read_from(&contents, path)?;
        Self::new(info, &contents, path, device)
    }

    /// The classifier `info` with the tensors `backbone.*` of `contents`, which came from `path`.
    pub fn new(
        info: ClassifierInfo,
        contents: &Contents,
        path: &Path,
        device: Device,
    ) -> Result<Self, WeightsError> {
        let store = VarStore::new(device);
        let network = Classifier::new(&store.root(), &info.backbone, info.classes.len());
        strict::usable(contents, path)?;
        weights::load(&store, contents, "backbone.", path)?;
        Ok(Self { info, network, store })
    }
}

impl network::ClassifierModel for ClassifierModel {
    fn info(&self) -> &ClassifierInfo {
        &self.info
    }

    fn logits(&self, images: network::Images<'_>) -> Vec<Vec<f32>> {
        if images.count == 0 {
            return Vec::new();
        }
        let pixels = prepared(images).to_device(self.store.device());
        let logits = tch::no_grad(|| self.network.logits(&pixels, Mode::Eval)); // [N, K]
        Vec::try_from(logits.to_device(Device::Cpu)).expect("logits are floats, [N, K]")
    }
}

/// A featurizer, with its classifier where the file has one.
#[derive(Debug)]
enum Featurizer {
    Whole(Classifier),
    Headless(NasNet),
}

/// A featurizer with its weights.
#[derive(Debug)]
pub struct Features {
    network: Featurizer,
    store: VarStore,
}

impl Features {
    /// The featurizer of what `about` describes, with the tensors `backbone.*` of `contents`, which came
    /// from `path`.
    pub fn new(
        about: &About,
        mut contents: Contents,
        path: &Path,
        device: Device,
    ) -> Result<Self, WeightsError> {
        let store = VarStore::new(device);
        let root = store.root();
        let network = match about {
            About::Classifier(info) => {
                Featurizer::Whole(Classifier::new(&root, &info.backbone, info.classes.len()))
            }
            About::Detector(info) => {
                let detector = &info.config.detector;
                let with_tail = detector.head == Head::Tail;
                let section = &info.config.backbone;
                Featurizer::Headless(NasNet::new(&root, section, detector.cut, with_tail))
            }
            About::Featurizer(section) => {
                Featurizer::Headless(NasNet::new(&root, section, Cut::Last, true))
            }
        };
        contents.tensors.retain(|name, _| name.starts_with("backbone."));
        strict::usable(&contents, path)?;
        weights::load(&store, &contents, "backbone.", path)?;
        Ok(Self { network, store })
    }
}

impl network::FeatureModel for Features {
    fn maps(&self, images: network::Images<'_>) -> Vec<(String, StoredTensor)> {
        let images = prepared(images).to_device(self.store.device());
        let maps = tch::no_grad(|| match &self.network {
            Featurizer::Whole(classifier) => classifier.forward(&images, Mode::Eval),
            Featurizer::Headless(features) => features.features(&images, Mode::Eval),
        });
        maps.into_iter().map(|(name, map)| (name, weights::to_stored(&map))).collect()
    }

    fn last(&self, images: network::Images<'_>) -> StoredTensor {
        let images = prepared(images).to_device(self.store.device());
        let last = tch::no_grad(|| match &self.network {
            Featurizer::Whole(classifier) => classifier.logits(&images, Mode::Eval),
            Featurizer::Headless(features) => features.last(&images, Mode::Eval),
        });
        weights::to_stored(&last)
    }
}

/// libtorch on a device.
#[derive(Debug, Clone, Copy)]
pub struct Torch(Device);

impl Engine for Torch {
    type Detector = Model;
    type Classifier = ClassifierModel;
    type Features = Features;

    fn start(on: &InferOn) -> anyhow::Result<Self> {
        if on.engine == Some(EngineName::Native) {
            return fail!(Exit::Usage, "detect-torch has no engine but torch: call `detect`");
        }
        if on.precision == Precision::Bf16 {
            return fail!(
                Exit::Usage,
                "--precision bf16 is of the native engine, on a CPU: leave it out, or add --device cpu --engine native"
            );
        }
        Ok(Self(device::choose(&on.run_on)?))
    }

    fn describe(&self) -> Described {
        Described {
            name: EngineName::Torch,
            with: format!("libtorch {}", env!("DETECT_LIBTORCH_VERSION")),
            device: device::name(self.0),
            threads: tch::get_num_threads() as usize,
        }
    }

    fn detector(&self, path: &Path) -> Result<Model, WeightsError> {
        Model::read(path, self.0)
    }

    fn classifier(&self, path: &Path) -> Result<ClassifierModel, WeightsError> {
        ClassifierModel::read(path, self.0)
    }

    fn classifier_of(
        &self,
        info: ClassifierInfo,
        contents: Contents,
        path: &Path,
    ) -> Result<ClassifierModel, WeightsError> {
        ClassifierModel::new(info, &contents, path, self.0)
    }

    fn features(
        &self,
        about: About,
        contents: Contents,
        path: &Path,
    ) -> Result<Features, WeightsError> {
        Features::new(&about, contents, path, self.0)
    }
}

/// Prepared images as a tensor on the CPU: `[N, 3, H, W]` with channels innermost in memory.
fn prepared(images: network::Images<'_>) -> Tensor {
    let Size { height, width } = images.size;
    let shape = [images.count as i64, height as i64, width as i64, 3];
    Tensor::from_slice(images.pixels).reshape(shape).permute([0, 3, 1, 2])
}

/// A batch of the loader on `device`.
pub fn images(batch: &Batch, device: Device) -> Images {
    let Size { height, width } = batch.padded;
    let shape = [batch.samples.len() as i64, height as i64, width as i64, 3];
    // The loader's layout is that of channels-last tensors: nothing is moved.
    let pixels = Tensor::from_slice(&batch.pixels).reshape(shape).permute([0, 3, 1, 2]);
    Images {
        pixels: boxes::upload(&pixels, device),
        sizes: batch.samples.iter().map(|sample| sample.resized).collect(),
    }
}

/// What `network` finds in a batch, in original pixels.
pub fn detect(network: &FasterRcnn<NasNet>, batch: &Batch, device: Device) -> Vec<Vec<Detection>> {
    let mut found = network.detect(&images(batch, device));
    for (detections, sample) in found.iter_mut().zip(&batch.samples) {
        rules::to_original(detections, sample.resized, sample.original);
    }
    found
}
