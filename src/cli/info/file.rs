//! What a file of weights holds.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{thousands, wiring};
use crate::cli::network_file;
use crate::config::{Config, Cut, Head, Resize, Rules};
use crate::data::classify::CropRule;
use crate::failure::{Exit, OrExit as _};
use crate::page::printable;
use crate::weights::import::About;
use crate::weights::{
    Contents, Element, ModelInfo, SafetensorsFile, Source as _, StoredTensor, TensorInfo,
};

/// Classes of a classifier that are named; `--json` names all.
const SHOWN_CLASSES: usize = 5;

/// A model file, or any other that `detect import` takes.
pub(super) struct Held {
    path: PathBuf,
    about: About,
    tensors: Vec<(String, TensorInfo)>,
}

impl Held {
    /// Reads the header of a model file, and all of any other.
    pub(super) fn read(path: PathBuf) -> anyhow::Result<Self> {
        let Some(metadata) = network_file::description(&path) else {
            let (contents, about) = network_file::read(&path, None, None)?;
            let info =
                |(name, StoredTensor { element, shape, .. })| (name, TensorInfo { element, shape });
            let tensors = contents.tensors.into_iter().map(info).collect();
            return Ok(Self { path, about, tensors });
        };
        let file = SafetensorsFile::open(&path).or_exit(Exit::Weights)?;
        let tensors = file.tensors().clone().into_iter().collect();
        let about = network_file::about(&Contents { metadata, ..Contents::default() }, &path)?;
        Ok(Self { path, about, tensors })
    }

    fn numbers(&self, counts: impl Fn(&str, Element) -> bool) -> usize {
        let counted = self.tensors.iter().filter(|(name, info)| counts(name, info.element));
        counted.map(|(_, info)| info.shape.iter().product::<usize>()).sum()
    }

    /// Numbers that are learned.
    fn parameters(&self) -> usize {
        self.numbers(|name, element| element.is_float() && !name.contains(".running_"))
    }

    /// The same with batch norm's running means and variances.
    fn with_statistics(&self) -> usize {
        self.numbers(|_, element| element.is_float())
    }

    fn bytes(&self) -> usize {
        let bytes = |info: &TensorInfo| info.shape.iter().product::<usize>() * info.element.bytes();
        self.tensors.iter().map(|(_, info)| bytes(info)).sum()
    }

    /// Kinds of floats that its tensors have, the narrowest first.
    fn floats(&self) -> Vec<&'static str> {
        let kinds = [
            (Element::F16, "float16"),
            (Element::BF16, "bfloat16"),
            (Element::F32, "float32"),
            (Element::F64, "float64"),
        ];
        let has = |kind| self.tensors.iter().any(|(_, info)| info.element == kind);
        kinds.into_iter().filter(|(kind, _)| has(*kind)).map(|(_, name)| name).collect()
    }

    pub(super) fn json(&self) -> Value {
        let mut value = json!({
            "file": self.path.display().to_string(),
            "parameters": self.parameters(),
            "parameters_with_batch_norm_statistics": self.with_statistics(),
            "bytes": self.bytes(),
            "floats": self.floats(),
        });
        let (kind, about) = match &self.about {
            About::Detector(info) => ("detector", json!(info)),
            About::Classifier(info) => ("classifier", json!(info)),
            About::Featurizer(backbone) => ("featurizer", json!({ "backbone": backbone })),
        };
        value["kind"] = json!(kind);
        let (all, about) = (value.as_object_mut(), about.as_object());
        all.into_iter().zip(about).for_each(|(all, about)| all.extend(about.clone()));
        value
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.path.display())?;
        let backbone = self.about.backbone();
        let plan = backbone.plan();
        let stem = format!("stem of {} filters{}", backbone.stem_filters, wiring(&plan));
        row(out, "network", &format!("{}, {stem}", backbone.name))?;
        match &self.about {
            About::Detector(info) => detector(out, info)?,
            About::Classifier(info) => {
                let size = info.preprocessing.image_size;
                let seen = match info.preprocessing.crop {
                    CropRule::ShortSide(side) => {
                        format!("the middle {size} of a short side of {side}")
                    }
                    CropRule::Central(share) => format!("{size}, the middle {share} of each side"),
                    CropRule::Squash => format!("{size}, whatever the proportions"),
                };
                row(out, "input", &seen)?;
                row(out, "from", &info.origin)?;
                let names = &info.classes.names;
                let shown = names[..names.len().min(SHOWN_CLASSES)].join(", ");
                let more = if names.len() > SHOWN_CLASSES { ", ..." } else { "" };
                row(out, "classes", &format!("{}: {shown}{more}", names.len()))?;
            }
            About::Featurizer(_) => row(out, "heads", "none")?,
        }
        let (parameters, all) = (self.parameters() as u64, self.with_statistics() as u64);
        let statistics = format!("{} with batch norm statistics", thousands(all));
        row(out, "parameters", &format!("{}, {statistics}", thousands(parameters)))?;
        let megabytes = self.bytes() as f64 / 1e6;
        row(out, "stored", &format!("{megabytes:.1} MB, {}", self.floats().join(" and ")))
    }
}

fn detector(out: &mut dyn Write, info: &ModelInfo) -> io::Result<()> {
    let Config { name, detector, anchors, input, .. } = &info.config;
    let cut = match detector.cut {
        Cut::Last => "the last map of stride 16",
        Cut::Pair => "the last two maps of stride 16",
    };
    let head = match detector.head {
        Head::Tail => "the rest of the network".to_owned(),
        Head::Mlp => format!("two layers of {}", detector.mlp_width),
    };
    let rules = match detector.rules {
        Rules::Torchvision => "torchvision's rules",
        Rules::Tf => "TensorFlow's rules",
    };
    row(out, "detector", &format!("Faster R-CNN on {cut}; {head} on each region; {rules}"))?;
    let sizes: Vec<String> = anchors.sizes.iter().map(ToString::to_string).collect();
    row(out, "anchors", &format!("{} pixels of the input", sizes.join(", ")))?;
    let resize = match input.resize {
        Resize::ShortSide { short_side, long_side } => {
            format!("short side {short_side}, long side at most {long_side}")
        }
        Resize::Fixed { height, width } => format!("{height}x{width}, whatever the proportions"),
        Resize::KeepAspect { min_dimension, max_dimension, pad } => {
            let padded = if pad { ", filled up to a square" } else { "" };
            format!("short side {min_dimension}, long side at most {max_dimension}{padded}")
        }
    };
    row(out, "input", &resize)?;
    if info.trained.steps > 0 {
        let (steps, images) = (info.trained.steps as u64, info.trained.images as u64);
        let trained = format!("{} steps on {} images", thousands(steps), thousands(images));
        // Below 0 where the split had nothing to measure.
        let ap = info.trained.ap.filter(|&ap| ap >= 0.);
        let ap = ap.map_or(String::new(), |ap| format!(", AP {ap:.3} in validation"));
        row(out, "trained", &format!("{trained}{ap}, recipe '{name}'"))?;
    }
    let names: Vec<String> = info
        .categories
        .iter()
        .map(|category| format!("{} {}", category.id, category.name))
        .collect();
    row(out, "categories", &format!("{}: {}", names.len(), names.join(", ")))
}

fn row(out: &mut dyn Write, what: &str, text: &str) -> io::Result<()> {
    // The texts are whoever's who made the file.
    writeln!(out, "{what:<12}{}", printable(text))
}
