//! `detect features`: every named intermediate of a featurizer, raw (before ReLU).

use std::collections::BTreeMap;
use std::path::Path;

use detect::cli::FeaturesArgs;
use detect::config::{self, Head, Resize};
use detect::data::{image, loader};
use detect::fail;
use detect::failure::{Exit, OrExit as _};
use detect::weights::timm::BareNetwork;
use detect::weights::{Contents, ModelInfo, model};
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::backbone::{Classifier, NasNet};
use crate::nn::Mode;
use crate::{device, predict, weights};

/// A featurizer, with its classifier where the file has one.
enum Network {
    Whole(Classifier),
    OfDetector(NasNet),
}

/// The network and how its images are made.
struct Loaded {
    network: Network,
    input: Option<config::Input>,
    /// Keeps the variables.
    store: VarStore,
}

pub(super) fn run(args: &FeaturesArgs) -> anyhow::Result<Exit> {
    let device = device::choose(&args.run_on)?;
    let path = model::resolve(Some(&args.weights)).or_exit(Exit::Weights)?;
    let contents = Contents::read(&path).or_exit(Exit::Weights)?;
    let loaded = if contents.metadata.contains_key("model") {
        of_model(args, &contents, &path, device)?
    } else {
        bare(args, &contents, &path, device)?
    };
    let images = images(&args.input, loaded.input.as_ref())?.to_device(loaded.store.device());
    let maps = tch::no_grad(|| match &loaded.network {
        Network::Whole(classifier) => classifier.forward(&images, Mode::Eval),
        Network::OfDetector(features) => features.features(&images, Mode::Eval),
    });
    let tensors: BTreeMap<_, _> =
        maps.iter().map(|(name, map)| (name.clone(), weights::to_stored(map))).collect();
    let count = tensors.len();
    Contents { tensors, ..Contents::default() }.write(&args.out).or_exit(Exit::Output)?;
    tracing::info!("{count} tensors in {}", args.out.display());
    Ok(Exit::Done)
}

/// The featurizer of a model file, up to where its detector needs it.
fn of_model(
    args: &FeaturesArgs,
    contents: &Contents,
    path: &Path,
    device: Device,
) -> anyhow::Result<Loaded> {
    if args.wiring.is_some() || args.pooling.is_some() {
        return fail!(
            Exit::Usage,
            "--wiring and --pooling are for bare state dicts; {} says both itself",
            path.display()
        );
    }
    let info = ModelInfo::read_from(contents, path).or_exit(Exit::Weights)?;
    let store = VarStore::new(device);
    let with_tail = info.config.detector.head == Head::Tail;
    let network =
        NasNet::new(&store.root(), &info.config.backbone, info.config.detector.cut, with_tail);
    let mut featurizer = contents.clone();
    featurizer.tensors.retain(|name, _| name.starts_with("backbone."));
    weights::load(&store, &featurizer, "backbone.", path).or_exit(Exit::Weights)?;
    Ok(Loaded { network: Network::OfDetector(network), input: Some(info.config.input), store })
}

/// A state dict in timm's names.
fn bare(
    args: &FeaturesArgs,
    contents: &Contents,
    path: &Path,
    device: Device,
) -> anyhow::Result<Loaded> {
    let found = BareNetwork::read_from(contents, path).or_exit(Exit::Weights)?;
    let section = found.section(args.wiring, args.pooling);
    tracing::info!(
        "{}, {} classes, {:?} wiring, {:?} pooling",
        section.name,
        found.classes,
        section.wiring,
        section.pooling
    );
    let store = VarStore::new(device);
    let network = Classifier::new(&store.root(), &section, found.classes);
    weights::load(&store, contents, "", path).or_exit(Exit::Weights)?;
    Ok(Loaded { network: Network::Whole(network), input: None, store })
}

/// `[N, 3, H, W]`, normalised, on the CPU: from a `.safetensors` as it is, from an image as the model's
/// configuration says, or at its own size with mean and deviation 0.5.
fn images(path: &Path, input: Option<&config::Input>) -> anyhow::Result<Tensor> {
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
    let own = config::Input {
        resize: Resize::ShortSide {
            short_side: size.height.min(size.width),
            long_side: size.height.max(size.width),
        },
        mean: [0.5; 3],
        std: [0.5; 3],
    };
    let batch = loader::prepare(&[&decoded.image], input.unwrap_or(&own));
    Ok(predict::images(&batch, Device::Cpu).pixels)
}
