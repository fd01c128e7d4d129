//! Published weights into our own model files.
//!
//! Two things are recognised, each by its content: the *container* (`.safetensors`, PyTorch's pickles,
//! TensorFlow's checkpoints and graphs, HDF5) and the *layout*, which is whose names the tensors have.
//! A layout reads from names and shapes which network it is, and says from where each of our tensors is
//! taken. Nothing is guessed: what is missing, left over or misshapen is an error that lists it all.

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
    label_map,
};
use crate::config::{Backbone, Config, NormMode, Pooling};
use crate::data::Category;
use crate::data::classify::{ClassNames, Preprocessing};
use crate::geometry::Size;
use crate::nasnet::plan::published_size;
use crate::nasnet::{BackboneName, Form, Wiring};
use crate::weights::model::Trained;

/// Outputs of a detector of COCO: its largest category id, though ten ids below are not used.
const COCO_OUTPUTS: usize = 90;

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
    fn recognise(source: &dyn Source) -> Option<Self> {
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
    /// Whether to take variables rather than their moving averages.
    pub raw: bool,
    /// Size of the network's input.
    pub image_size: Option<Size>,
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
}

impl About {
    /// The featurizer's section.
    pub fn backbone(&self) -> &Backbone {
        match self {
            Self::Classifier(info) => &info.backbone,
            Self::Detector(info) => &info.config.backbone,
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
        Layout::Timm => from_timm(source, settings, path)?,
        Layout::TfSlim => from_tf_slim(source, settings, path)?,
        Layout::Keras => from_keras(source, settings, path, &mut notes)?,
        Layout::TfDetector => from_tf_detector(source, settings, path, &mut notes)?,
        Layout::Torchvision => from_torchvision(source, settings, path, &mut notes)?,
    };
    match &about {
        About::Classifier(info) => info.write_to(&mut contents),
        About::Detector(info) => info.write_to(&mut contents),
    }
    Ok(Imported { contents, about, layout, notes })
}

/// Outputs without the background class that ImageNet's published networks have before the 1000.
fn without_background(outputs: usize) -> usize {
    if outputs == 1001 { 1000 } else { outputs }
}

/// The rows that are left without it.
fn background_dropped(classes: usize) -> Vec<usize> {
    (1..=classes).collect()
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

fn class_names(classes: usize, form: Form) -> ClassNames {
    match (classes, form) {
        (1000, _) => ClassNames::imagenet(),
        (10, Form::Cifar) => ClassNames::cifar10(),
        _ => ClassNames::numbered(classes),
    }
}

fn classifier(
    backbone: Backbone,
    classes: usize,
    published: Preprocessing,
    settings: &Settings,
    origin: &str,
) -> About {
    let preprocessing = match settings.image_size {
        Some(size) => Preprocessing { image_size: size, ..published },
        None => published,
    };
    let classes = class_names(classes, backbone.name.form);
    About::Classifier(Box::new(ClassifierInfo {
        backbone,
        preprocessing,
        classes,
        origin: origin.into(),
    }))
}

fn from_timm(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
) -> Result<(Contents, About), WeightsError> {
    let found = timm::Found::read(source.tensors(), "", path)?;
    let outputs = found.classes.ok_or_else(|| WeightsError::NotAModel {
        path: path.into(),
        reason: "has no classifier (last_linear)".into(),
    })?;
    let classes = without_background(outputs);
    // timm's only NASNet; Cadene's large network has the same names and 1001 outputs.
    let by_timm = found.name == BackboneName::LARGE && outputs == 1000;
    let backbone = timm::section(&found, settings, by_timm);
    let wanted = timm::wanted(&found, &backbone, classes);
    let contents = wanted::take(source, &wanted, timm::is_counter, path)?;
    let preprocessing = match found.name {
        BackboneName::LARGE if by_timm => Preprocessing::timm_large(),
        BackboneName::LARGE => Preprocessing::cadene_large(),
        BackboneName::MOBILE => Preprocessing::cadene_mobile(),
        name => Preprocessing::plain(Size::new(published_size(name), published_size(name))),
    };
    let origin = if by_timm { "timm" } else { "PyTorch state dict" };
    Ok((contents, classifier(backbone, classes, preprocessing, settings, origin)))
}

fn from_tf_slim(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
) -> Result<(Contents, About), WeightsError> {
    let found = tf_slim::Found::read(source.tensors(), path)?;
    let classes = without_background(found.classes);
    let backbone = section(found.name, found.stem_filters, settings, false);
    let wanted = tf_slim::wanted(&found, &backbone, classes, source.tensors(), settings.raw);
    let known: Vec<String> =
        wanted.iter().map(|w| tf_slim::without_slot(&w.from).to_owned()).collect();
    let left_over = |name: &str| {
        // With averages taken, the variables themselves are left over.
        tf_slim::is_ignored(name) || known.iter().any(|variable| variable == name)
    };
    let contents = wanted::take(source, &wanted, left_over, path)?;
    let side = published_size(found.name);
    let preprocessing = match found.name.form {
        Form::Cifar => Preprocessing::plain(Size::new(side, side)),
        Form::ImageNet | Form::Strided => Preprocessing::tf_slim(side),
    };
    Ok((contents, classifier(backbone, classes, preprocessing, settings, "TF-slim checkpoint")))
}

fn from_keras(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(Contents, About), WeightsError> {
    let found = keras::Found::read(source.tensors(), path)?;
    let backbone = section(found.name, found.stem_filters, settings, false);
    let contents =
        wanted::take(source, &keras::wanted(&found, &backbone), keras::is_ignored, path)?;
    notes.push(keras::NOTE.into());
    let side = published_size(found.name);
    let preprocessing = Preprocessing::plain(Size::new(side, side));
    Ok((
        contents,
        classifier(backbone, found.classes, preprocessing, settings, "Keras weight file"),
    ))
}

/// The categories of a detector of `classes` classes.
fn categories(
    classes: usize,
    settings: &Settings,
    path: &Path,
) -> Result<Vec<Category>, WeightsError> {
    let error = |reason: String| WeightsError::NotAModel { path: path.into(), reason };
    if let Some(given) = &settings.categories {
        // A label map may leave out ids, as COCO's does: outputs are numbered by id.
        let by_id = |id: i64| given.iter().find(|category| category.id == id);
        if given.iter().any(|c| c.id < 1 || c.id > classes as i64) {
            return Err(error(format!("has {classes} classes, but the label map has other ids")));
        }
        return Ok((1..=classes as i64)
            .map(|id| by_id(id).cloned().unwrap_or_else(|| numbered(id)))
            .collect());
    }
    if classes == COCO_OUTPUTS {
        let coco = label_map::coco();
        let by_id = |id: i64| coco.iter().find(|category| category.id == id).cloned();
        return Ok((1..=classes as i64)
            .map(|id| by_id(id).unwrap_or_else(|| numbered(id)))
            .collect());
    }
    Ok((1..=classes as i64).map(numbered).collect())
}

/// A category of which nothing but the id is known.
fn numbered(id: i64) -> Category {
    Category { id, name: format!("class {id}") }
}

fn detector(config: Config, categories: Vec<Category>) -> About {
    About::Detector(Box::new(ModelInfo { config, categories, trained: Trained::default() }))
}

fn from_tf_detector(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(Contents, About), WeightsError> {
    let found = tf_detector::Found::read(source.tensors(), path)?;
    let config = found.config(settings, path)?;
    if settings.pipeline.is_none() {
        notes.push("there is no pipeline.config beside it: the settings are those of the published configuration".into());
    }
    let categories = categories(found.classes, settings, path)?;
    let wanted = tf_detector::wanted(&config, found.classes);
    let other_constants = source.has_other_constants();
    let left_over =
        |name: &str| tf_slim::is_ignored(name) || (other_constants && !tf_slim::is_weight(name));
    let contents = wanted::take(source, &wanted, left_over, path)?;
    Ok((contents, detector(config, categories)))
}

fn from_torchvision(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(Contents, About), WeightsError> {
    let found = torchvision::Found::read(source.tensors(), path)?;
    let config = found.config(settings, path)?;
    if settings.recipe.is_none() {
        notes.push("a state dict says nothing of anchors, image size and thresholds: they are those of the recipe peer_c4; name another with --config".into());
    }
    let categories = categories(found.classes, settings, path)?;
    let wanted = found.wanted(&config);
    let left_over = |name: &str| timm::is_counter(name) || found.is_behind_the_cut(&config, name);
    let contents = wanted::take(source, &wanted, left_over, path)?;
    Ok((contents, detector(config, categories)))
}
