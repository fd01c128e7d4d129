//! `detect features`: every named intermediate of a featurizer, raw (before ReLU).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use detect::cli::FeaturesArgs;
use detect::config::{self, Cut, Head};
use detect::data::classify::Preprocessing;
use detect::data::{image, loader};
use detect::fail;
use detect::failure::{Exit, OrExit as _};
use detect::geometry::Size;
use detect::nasnet::plan::published_size;
use detect::weights::import::{self, About, Settings};
use detect::weights::{ClassifierInfo, Contents, ModelInfo, SafetensorsFile, classifier, model};
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::backbone::{Classifier, NasNet};
use crate::nn::Mode;
use crate::{device, predict, weights};

/// A featurizer, with its classifier where the file has one.
enum Network {
    Whole(Classifier),
    Headless(NasNet),
}

/// How an image becomes the network's input.
enum Preparation {
    Detector(config::Input),
    Classifier(Preprocessing),
}

/// The network and how its images are made.
struct Loaded {
    network: Network,
    preparation: Preparation,
    /// Keeps the variables.
    store: VarStore,
}

pub(super) fn run(args: &FeaturesArgs) -> anyhow::Result<Exit> {
    let device = device::choose(&args.run_on)?;
    let (path, contents, about) = read(args)?;
    let loaded = load(&contents, about, &path, device)?;
    let images = images(&args.input, &loaded.preparation)?.to_device(loaded.store.device());
    let maps = tch::no_grad(|| match &loaded.network {
        Network::Whole(classifier) => classifier.forward(&images, Mode::Eval),
        Network::Headless(features) => features.features(&images, Mode::Eval),
    });
    let tensors: BTreeMap<_, _> =
        maps.iter().map(|(name, map)| (name.clone(), weights::to_stored(map))).collect();
    let count = tensors.len();
    Contents { tensors, ..Contents::default() }.write(&args.out).or_exit(Exit::Output)?;
    tracing::info!("{count} tensors in {}", args.out.display());
    Ok(Exit::Done)
}

/// The file's tensors in our names and what it is: a model file of ours, or any that `detect import`
/// takes.
fn read(args: &FeaturesArgs) -> anyhow::Result<(PathBuf, Contents, About)> {
    let given = Path::new(&args.weights);
    let path = if given.exists() || given.with_extension("ckpt.index").exists() {
        given.to_owned()
    } else {
        model::resolve(Some(&args.weights)).or_exit(Exit::Weights)?
    };
    let described =
        SafetensorsFile::open(&path).ok().filter(|f| f.metadata().contains_key("format"));
    if let Some(file) = described {
        if args.wiring.is_some() || args.pooling.is_some() {
            return fail!(
                Exit::Usage,
                "--wiring and --pooling are for files without a description; {} says both itself",
                path.display()
            );
        }
        let contents = Contents::read(&path).or_exit(Exit::Weights)?;
        let about = if classifier::is_classifier(file.metadata()) {
            let info = ClassifierInfo::read_from(&contents, &path).or_exit(Exit::Weights)?;
            About::Classifier(Box::new(info))
        } else {
            let info = ModelInfo::read_from(&contents, &path).or_exit(Exit::Weights)?;
            About::Detector(Box::new(info))
        };
        return Ok((path, contents, about));
    }
    let mut source = import::open(&path).or_exit(Exit::Weights)?;
    let settings = Settings { wiring: args.wiring, pooling: args.pooling, ..Settings::default() };
    let imported =
        import::import(source.as_mut(), None, &settings, &path).or_exit(Exit::Weights)?;
    let backbone = imported.about.backbone();
    tracing::info!(
        "{}: {}, {:?} wiring, {:?} pooling",
        imported.layout.title(),
        backbone.name,
        backbone.wiring,
        backbone.pooling
    );
    Ok((path, imported.contents, imported.about))
}

/// The network with its weights; of a detector, its featurizer up to where the detector needs it.
fn load(contents: &Contents, about: About, path: &Path, device: Device) -> anyhow::Result<Loaded> {
    let store = VarStore::new(device);
    let (network, preparation) = match about {
        About::Classifier(info) => {
            let network = Classifier::new(&store.root(), &info.backbone, info.classes.len());
            (Network::Whole(network), Preparation::Classifier(info.preprocessing))
        }
        About::Detector(info) => {
            let detector = &info.config.detector;
            let with_tail = detector.head == Head::Tail;
            let root = store.root();
            let network = NasNet::new(&root, &info.config.backbone, detector.cut, with_tail);
            (Network::Headless(network), Preparation::Detector(info.config.input))
        }
        About::Featurizer(backbone) => {
            let network = NasNet::new(&store.root(), &backbone, Cut::Last, true);
            let side = published_size(backbone.name);
            let preprocessing = Preprocessing::plain(Size::new(side, side));
            (Network::Headless(network), Preparation::Classifier(preprocessing))
        }
    };
    let mut featurizer = contents.clone();
    featurizer.tensors.retain(|name, _| name.starts_with("backbone."));
    weights::load(&store, &featurizer, "backbone.", path).or_exit(Exit::Weights)?;
    Ok(Loaded { network, preparation, store })
}

/// `[N, 3, H, W]`, normalised, on the CPU: from a `.safetensors` as it is, from an image as the model
/// wants it.
fn images(path: &Path, preparation: &Preparation) -> anyhow::Result<Tensor> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
        let contents = Contents::read(path).or_exit(Exit::Data)?;
        let stored = ["image", "input"].iter().find_map(|name| contents.tensors.get(*name));
        let Some(stored) = stored else {
            return fail!(
                Exit::Data,
                "{} has neither a tensor 'image' nor 'input'",
                path.display()
            );
        };
        let fits = matches!(stored.shape.as_slice(), [n, 3, h, w] if *n > 0 && *h > 2 && *w > 2);
        if !fits {
            return fail!(
                Exit::Data,
                "{}: expected [N, 3, H, W] of at least 3 pixels a side, found {:?}",
                path.display(),
                stored.shape
            );
        }
        return Ok(weights::from_stored(stored).to_kind(tch::Kind::Float));
    }
    let decoded = image::decode(path).or_exit(Exit::Data)?;
    if let Some(warning) = &decoded.warning {
        tracing::warn!("{}: {warning}", path.display());
    }
    let size = decoded.image.size;
    if size.height < 3 || size.width < 3 {
        return fail!(
            Exit::Data,
            "{} is {size}; the network needs at least 3 pixels a side",
            path.display()
        );
    }
    Ok(match preparation {
        Preparation::Detector(input) => {
            let batch = loader::prepare(&[&decoded.image], input);
            predict::images(&batch, Device::Cpu).pixels
        }
        Preparation::Classifier(preprocessing) => {
            let pixels = preprocessing.apply(&[&decoded.image]);
            predict::prepared(&pixels, 1, preprocessing.image_size)
        }
    })
}
