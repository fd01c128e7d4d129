//! Published weights into our own model files.
//!
//! Two things are recognised, each by its content: the *container* (`.safetensors`, PyTorch's pickles,
//! TensorFlow's checkpoints and graphs, HDF5) and the *layout*, which is whose names the tensors have.
//! A layout reads from names and shapes which network it is, and says from where each of our tensors is
//! taken. Nothing is guessed: what is missing, left over or misshapen is an error that lists it all.

mod classifier;
mod detector;
pub mod heads;
pub mod keras;
pub mod tf_detector;
pub mod tf_slim;
pub mod timm;
pub mod torchvision;
pub mod wanted;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use clap::ValueEnum;

use super::pickle::PickleFile;
use super::pipeline::PipelineConfig;
use super::{
    ClassifierInfo, Contents, ModelInfo, SafetensorsFile, Source, TfBundle, TfGraph, WeightsError,
};
use crate::config::{Backbone, Config, NormMode, Pooling};
use crate::data::Category;
use crate::geometry::ImageSize;
use crate::nasnet::{BackboneName, Form, Wiring};

/// Whose names the tensors of a file have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(clippy::doc_markdown, reason = "these docs are help texts")]
pub enum Layout {
    /// A classifier of timm, or of Cadene's pretrained-models
    Timm,
    /// A classifier of TF-slim
    TfSlim,
    /// A classifier of Keras
    Keras,
    /// The detector faster_rcnn_nas of TensorFlow's Object Detection API
    TfDetector,
    /// A Faster R-CNN of torchvision on a NASNet in timm's names
    Torchvision,
}

impl Layout {
    /// By names that no other layout has.
    pub fn recognise(source: &dyn Source) -> Option<Self> {
        let names = source.tensors();
        let has = |name: &str| names.contains_key(name);
        if names.keys().any(|name| name.starts_with(tf_detector::FIRST_STAGE)) {
            Some(Self::TfDetector)
        } else if has("rpn.head.cls_logits.weight") {
            Some(Self::Torchvision)
        } else if has("conv0/weights") || has("l1_stem_3x3/weights") {
            Some(Self::TfSlim)
        } else if has(keras::STEM) {
            Some(Self::Keras)
        } else if has("conv0.conv.weight") {
            Some(Self::Timm)
        } else {
            None
        }
    }

    /// As people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Timm => "NASNet in timm's names",
            Self::TfSlim => "NASNet of TF-slim",
            Self::Keras => "NASNet of Keras",
            Self::TfDetector => "faster_rcnn_nas of TensorFlow",
            Self::Torchvision => "Faster R-CNN of torchvision",
        }
    }
}

/// What the file can't say, or what shall be otherwise.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Which second input follows a reduction; by default large where N = 6.
    pub wiring: Option<Wiring>,
    /// How stride-2 average pools treat padding; by default that of the program that the weights are from.
    pub pooling: Option<Pooling>,
    /// Whether to take variables rather than their moving averages (a classifier of TF-slim).
    pub raw: bool,
    /// Size of the network's input.
    pub image_size: Option<ImageSize>,
    /// Proposals for each image (a detector).
    pub proposals: Option<usize>,
    /// Scores up to this are dropped (a detector).
    pub score: Option<f64>,
    /// Categories in the order of the detector's outputs; by default COCO's, or numbers.
    pub categories: Option<Vec<Category>>,
    /// The settings beside a TensorFlow detector.
    pub pipeline: Option<PipelineConfig>,
    /// What a torchvision state dict does not say.
    pub recipe: Option<Config>,
}

/// What a file became.
#[derive(Debug)]
pub struct Imported {
    /// Tensors in our names and the description: what is written.
    pub contents: Contents,
    /// What it is.
    pub about: About,
    /// Whose names it had.
    pub layout: Layout,
    /// What else a user should know, one sentence each.
    pub notes: Vec<String>,
}

/// The description of what was imported.
#[derive(Debug)]
pub enum About {
    /// An image classifier.
    Classifier(Box<ClassifierInfo>),
    /// A detector.
    Detector(Box<ModelInfo>),
    /// A network without a head, which has intermediates, but is no model.
    Featurizer(Box<Backbone>),
}

impl About {
    /// The featurizer's section.
    pub fn backbone(&self) -> &Backbone {
        match self {
            Self::Classifier(info) => &info.backbone,
            Self::Detector(info) => &info.config.backbone,
            Self::Featurizer(backbone) => backbone,
        }
    }
}

/// Opens a file in whichever container it is.
pub fn open(path: &Path) -> Result<Box<dyn Source>, WeightsError> {
    // Checkpoints of TensorFlow are named by what their files begin with, or by their folder.
    if !path.is_file() {
        return Ok(Box::new(TfBundle::open(path)?));
    }
    let error = |source: io::Error| WeightsError::Read { path: path.into(), source };
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(16).read_to_end(&mut start)).map_err(error)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = |ends: &[&str]| {
        Path::new(name)
            .extension()
            .is_some_and(|e| ends.iter().any(|end| e.eq_ignore_ascii_case(end)))
    };
    if start.starts_with(b"\x89HDF\r\n\x1a\n") {
        return hdf5(path);
    }
    // A zip archive, or a pickle of protocol 2 or later.
    if start.starts_with(b"PK") || (start.first() == Some(&0x80) && start.get(1) <= Some(&5)) {
        return Ok(Box::new(PickleFile::open(path)?));
    }
    // A header's length in 8 bytes, and JSON.
    if start.get(8) == Some(&b'{') {
        let file = SafetensorsFile::open(path)?;
        if file.metadata().get("format").is_some_and(|format| format.starts_with("detect-")) {
            let reason = "is a model file of detect already: there is nothing to import".into();
            return Err(WeightsError::NotAModel { path: path.into(), reason });
        }
        return Ok(Box::new(file));
    }
    if named(&["index", "ckpt"]) || name.contains(".data-") {
        return Ok(Box::new(TfBundle::open(path)?));
    }
    // Field 1 of a GraphDef, its nodes.
    if start.first() == Some(&0x0a) || named(&["pb"]) {
        return Ok(Box::new(TfGraph::open(path)?));
    }
    Err(WeightsError::NotAModel {
        path: path.into(),
        reason: "is in no format that is read: .safetensors, PyTorch (.pth, .pt, .bin), TensorFlow checkpoint (.index and .data) or frozen graph (.pb), Keras (.h5)".into(),
    })
}

#[cfg(feature = "keras")]
fn hdf5(path: &Path) -> Result<Box<dyn Source>, WeightsError> {
    Ok(Box::new(super::KerasFile::open(path)?))
}

#[cfg(not(feature = "keras"))]
fn hdf5(path: &Path) -> Result<Box<dyn Source>, WeightsError> {
    Err(WeightsError::NotAModel {
        path: path.into(),
        reason: "is an HDF5 file, as Keras writes them, which this build does not read; build detect with `--features keras`".into(),
    })
}

/// Reads `source`, which came from `path`, as `layout` or as what it is recognised as.
pub fn import(
    source: &mut dyn Source,
    layout: Option<Layout>,
    settings: &Settings,
    path: &Path,
) -> Result<Imported, WeightsError> {
    let layout = layout.or_else(|| Layout::recognise(source)).ok_or_else(|| {
        let some: Vec<&str> = source.tensors().keys().take(3).map(String::as_str).collect();
        WeightsError::NotAModel {
            path: path.into(),
            reason: format!(
                "holds {} tensors ({} ...), but in the names of no known NASNet",
                source.tensors().len(),
                some.join(", ")
            ),
        }
    })?;
    let mut notes = Vec::new();
    let (mut contents, about) = match layout {
        Layout::Timm => classifier::from_timm(source, settings, path, &mut notes)?,
        Layout::TfSlim => classifier::from_tf_slim(source, settings, path)?,
        Layout::Keras => classifier::from_keras(source, settings, path, &mut notes)?,
        Layout::TfDetector => detector::from_tf(source, settings, path, &mut notes)?,
        Layout::Torchvision => detector::from_torchvision(source, settings, path, &mut notes)?,
    };
    match &about {
        About::Classifier(info) => info.write_to(&mut contents),
        About::Detector(info) => info.write_to(&mut contents),
        About::Featurizer(_) => {}
    }
    Ok(Imported { contents, about, layout, notes })
}

/// The section of a network, with what the file can't say from `settings` or from what is published.
pub fn section(
    name: BackboneName,
    stem_filters: usize,
    settings: &Settings,
    timm_pooling: bool,
) -> Backbone {
    let large = name.cells_per_stage == 6 && name.form == Form::ImageNet;
    let cifar = name.form == Form::Cifar;
    let pooling = if timm_pooling { Pooling::Timm } else { Pooling::Tf };
    Backbone {
        name,
        wiring: settings.wiring.unwrap_or(if large { Wiring::Large } else { Wiring::Mobile }),
        stem_filters,
        pooling: settings.pooling.unwrap_or(pooling),
        // slim's argument scopes: `cifar_config` and the two ImageNet ones.
        norm_eps: if cifar { 1e-5 } else { 1e-3 },
        norm_momentum: if cifar { 0.1 } else { 3e-4 },
        norm: NormMode::Frozen,
        tail_norm: NormMode::Frozen,
        drop_path_keep: 1.,
        genotype: None,
    }
}
