//! `detect features`: every named intermediate of a featurizer, raw (before ReLU).

use std::path::{Path, PathBuf};

use clap::Args;

use super::engine::{Engine, InferOn};
use super::{network_file, output};
use crate::config::{self, Pooling};
use crate::data::classify::Preprocessing;
use crate::data::{image, loader};
use crate::failure::{Exit, OrExit as _};
use crate::geometry::Size;
use crate::nasnet::Wiring;
use crate::nasnet::plan::published_size;
use crate::network::{FeatureModel as _, Images};
use crate::weights::import::About;
use crate::weights::{Contents, tf_bundle};

/// `detect features`
#[derive(Debug, Clone, Args)]
pub struct FeaturesArgs {
    /// A model file, a shipped model's name, or a state dict in timm's names
    #[arg(long, value_name = "FILE|NAME")]
    pub weights: String,
    /// A .safetensors with `image` or `input` [N, 3, H, W], normalised; or an image
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The .safetensors to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Wiring of a bare state dict [default: large when N = 6]
    #[arg(long, value_enum, value_name = "WIRING")]
    pub wiring: Option<Wiring>,
    /// Pooling of a bare state dict [default: timm for 6@4032 with 1000 classes, else tf]
    #[arg(long, value_enum, value_name = "POOLING")]
    pub pooling: Option<Pooling>,
    /// Where it runs.
    #[command(flatten)]
    pub on: InferOn,
}

/// How an image becomes the network's input.
pub(super) enum Preparation {
    Detector(config::Input),
    Classifier(Preprocessing),
}

impl Preparation {
    /// How the images of a network are made.
    pub(super) fn of(about: &About) -> Self {
        match about {
            About::Classifier(info) => Self::Classifier(info.preprocessing.clone()),
            About::Detector(info) => Self::Detector(info.config.input.clone()),
            About::Featurizer(backbone) => {
                let side = published_size(backbone.name);
                Self::Classifier(Preprocessing::plain(Size::new(side, side)))
            }
        }
    }
}

/// The network's input.
struct Input {
    /// `[N, H, W, 3]`
    pixels: Vec<f32>,
    count: usize,
    size: Size,
}

pub(super) fn run<E: Engine>(args: &FeaturesArgs) -> anyhow::Result<Exit> {
    let path = network_file::resolve(&args.weights)?;
    let checkpoint = tf_bundle::files(&path);
    let mut inputs = vec![path.as_path(), args.input.as_path()];
    inputs.extend(checkpoint.iter().map(PathBuf::as_path));
    output::check("--out", &args.out, &inputs)?;
    let engine = E::start(&args.on)?;
    let (contents, about) = network_file::read(&path, args.wiring, args.pooling)?;
    let preparation = Preparation::of(&about);
    let model = engine.features(about, contents, &path).or_exit(Exit::Weights)?;
    let Input { pixels, count, size } = input(&args.input, &preparation)?;
    let maps = model.maps(Images { pixels: &pixels, count, size });
    let count = maps.len();
    let contents = Contents { tensors: maps.into_iter().collect(), ..Contents::default() };
    contents.write(&args.out).or_exit(Exit::Output)?;
    tracing::info!("{count} tensors in {}", args.out.display());
    Ok(Exit::Done)
}

/// From a `.safetensors` as it is, from an image as the model wants it.
fn input(path: &Path, preparation: &Preparation) -> anyhow::Result<Input> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
        return stored(path);
    }
    let decoded = image::decode(path).or_exit(Exit::Data)?;
    if let Some(warning) = &decoded.warning {
        tracing::warn!("{}: {warning}", path.display());
    }
    let size = decoded.image.size;
    if size.height < 3 || size.width < 3 {
        return crate::fail!(
            Exit::Data,
            "{} is {size}; the network needs at least 3 pixels a side",
            path.display()
        );
    }
    Ok(match preparation {
        Preparation::Detector(input) => {
            let batch = loader::prepare(&[&decoded.image], input);
            Input { pixels: batch.pixels.to_vec(), count: 1, size: batch.padded }
        }
        Preparation::Classifier(preprocessing) => {
            let pixels = preprocessing.apply(&[&decoded.image]);
            Input { pixels, count: 1, size: preprocessing.image_size }
        }
    })
}

fn stored(path: &Path) -> anyhow::Result<Input> {
    let contents = Contents::read(path).or_exit(Exit::Data)?;
    let stored = ["image", "input"].iter().find_map(|name| contents.tensors.get(*name));
    let Some(stored) = stored else {
        return crate::fail!(
            Exit::Data,
            "{} has neither a tensor 'image' nor 'input'",
            path.display()
        );
    };
    let [count, 3, height, width] = stored.shape[..] else {
        return refused(path, &stored.shape);
    };
    if count == 0 || height < 3 || width < 3 {
        return refused(path, &stored.shape);
    }
    let Some(planes) = stored.to_f32() else {
        return crate::fail!(
            Exit::Data,
            "{}: expected floats, normalised, found {:?}",
            path.display(),
            stored.element
        );
    };
    // [N, 3, H, W]
    let area = height * width;
    let mut pixels = Vec::with_capacity(planes.len()); // [N, H, W, 3]
    for image in planes.chunks_exact(3 * area) {
        pixels.extend((0..area).flat_map(|at| [image[at], image[area + at], image[2 * area + at]]));
    }
    Ok(Input { pixels, count, size: Size::new(height, width) })
}

fn refused<T>(path: &Path, shape: &[usize]) -> anyhow::Result<T> {
    crate::fail!(
        Exit::Data,
        "{}: expected [N, 3, H, W] of at least 3 pixels a side, found {shape:?}",
        path.display()
    )
}
