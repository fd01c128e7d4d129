//! A trained detector or classifier, ready for images.

use std::path::Path;

use detect::data::loader::Batch;
use detect::geometry::{Detection, Size};
use detect::rules;
use detect::weights::{ClassifierInfo, Contents, ModelInfo, WeightsError};
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::backbone::{Classifier, NasNet};
use crate::detector::{FasterRcnn, Images, boxes};
use crate::nn::Mode;
use crate::weights;

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
        let store = VarStore::new(device);
        let network = Classifier::new(&store.root(), &info.backbone, info.classes.len());
        weights::load(&store, &contents, "backbone.", path)?;
        Ok(Self { info, network, store })
    }

    /// A logit of each class for each of `images` prepared images.
    ///
    /// # Shapes
    /// `pixels` are `[N, H, W, 3]` as the preprocessing gives them; the result is N lists of K.
    pub fn logits(&self, pixels: &[f32], images: usize) -> Vec<Vec<f32>> {
        if images == 0 {
            return Vec::new();
        }
        let pixels = prepared(pixels, images, self.info.preprocessing.image_size);
        let mut maps = tch::no_grad(|| {
            self.network.forward(&pixels.to_device(self.store.device()), Mode::Eval)
        });
        let (_, logits) = maps.pop().expect("the logits come last"); // [N, K]
        Vec::try_from(logits.to_device(Device::Cpu)).expect("logits are floats, [N, K]")
    }
}

/// Prepared images of one `size` as a tensor on the CPU.
///
/// # Shapes
/// `pixels` are `[N, H, W, 3]`, to `[N, 3, H, W]` with channels innermost in memory.
pub fn prepared(pixels: &[f32], images: usize, size: Size) -> Tensor {
    let shape = [images as i64, size.height as i64, size.width as i64, 3];
    Tensor::from_slice(pixels).reshape(shape).permute([0, 3, 1, 2])
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
