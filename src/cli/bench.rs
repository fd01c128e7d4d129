//! `detect bench`: what a network takes in a loaded process.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum as _};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::engine::{Described, Engine, InferOn};
use super::features::Preparation;
use super::network_file;
use crate::config::{self, OwnBackbone};
use crate::data::classify::{ClassNames, Preprocessing};
use crate::data::image::{self, Rgb};
use crate::data::loader;
use crate::failure::{Exit, OrExit as _};
use crate::geometry::{ImageSize, Size};
use crate::nasnet::plan::{published_classes, published_size, published_stem_filters};
use crate::nasnet::{BackboneName, Family};
use crate::network::{ClassifierModel as _, DetectorModel as _, FeatureModel as _, Images};
use crate::watch::machine;
use crate::weights::import::{self, About, Settings};
use crate::weights::{ClassifierInfo, classifier, random};

/// The network that is timed where none is named.
const DEFAULT_BACKBONE: &str = "nasnet-a-4@1056";
/// Runs before those that count: memory is taken, caches and predictors are filled.
const WARM_UP: u32 = 3;
/// The image of a detector where none is given: a photograph's proportions.
const PHOTOGRAPH: Size = Size { height: 480, width: 640 };

/// `detect bench`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "A detector is timed from the prepared batch to boxes, a classifier to logits; with --image also from the \
        file. Without it the image is noise. Three runs go before those that count."
)]
pub struct BenchArgs {
    /// A model file, a shipped model's name, or a state dict in timm's names
    #[arg(long, value_name = "FILE|NAME", conflicts_with = "backbone")]
    pub weights: Option<String>,
    /// A classifier with random weights, or a TOML file of cells [default: nasnet-a-4@1056]
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub backbone: Option<String>,
    /// An image for the batch; the time from this file on is measured, too
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Size of the network's input, S or HxW [default: the model's, or as published]
    #[arg(long, value_name = "S|HxW")]
    pub image_size: Option<ImageSize>,
    /// Images that go through the network together
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: u16,
    /// Runs that count
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
    /// Where it runs.
    #[command(flatten)]
    pub on: InferOn,
}

/// A network that is ready.
enum Network<E: Engine> {
    Detector(E::Detector),
    Classifier(E::Classifier),
    Features(E::Features),
}

impl<E: Engine> Network<E> {
    /// What it is, and what it gives.
    fn words(&self) -> [&'static str; 2] {
        match self {
            Self::Detector(_) => ["detector", "boxes"],
            Self::Classifier(_) => ["classifier", "logits"],
            Self::Features(_) => ["featurizer", "last map"],
        }
    }
}

/// What is timed.
struct Subject<E: Engine> {
    name: String,
    network: Network<E>,
    preparation: Preparation,
    /// From the beginning of reading, or of making, to a network that is ready.
    load_ms: f64,
}

pub(super) fn run<E: Engine>(args: &BenchArgs) -> anyhow::Result<Exit> {
    let few = |to: &ImageSize| to.size().height.min(to.size().width) < 3;
    if let Some(to) = args.image_size.filter(few) {
        return crate::fail!(
            Exit::Usage,
            "--image-size {to}: a network needs at least 3 pixels a side"
        );
    }
    let engine = E::start(&args.on)?;
    let subject = match &args.weights {
        Some(weights) => of_file(&engine, weights)?,
        None => of_backbone(&engine, args.backbone.as_deref().unwrap_or(DEFAULT_BACKBONE))?,
    };
    let image = match &args.image {
        Some(file) => decoded(file)?,
        None => noise(args.image_size.map_or(PHOTOGRAPH, ImageSize::size)),
    };
    tracing::info!("{WARM_UP} runs to warm up, then {} that count", args.runs);
    let measured = measure(args, &subject, &image)?;
    let report = report(args, &subject, &engine.describe(), &measured);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{report:#}")?;
    } else {
        write!(out, "{}", table(&report))?;
    }
    Ok(Exit::Done)
}

/// The model, or bare network, of a file.
fn of_file<E: Engine>(engine: &E, weights: &str) -> anyhow::Result<Subject<E>> {
    let path = network_file::resolve(weights)?;
    let start = Instant::now();
    let (network, preparation) = match network_file::description(&path) {
        Some(metadata) if classifier::is_classifier(&metadata) => {
            let model = engine.classifier(&path).or_exit(Exit::Weights)?;
            let preprocessing = model.info().preprocessing.clone();
            (Network::Classifier(model), Preparation::Classifier(preprocessing))
        }
        Some(_) => {
            let model = engine.detector(&path).or_exit(Exit::Weights)?;
            let input = model.info().config.input.clone();
            (Network::Detector(model), Preparation::Detector(input))
        }
        None => {
            let (contents, about) = network_file::read(&path, None, None)?;
            let preparation = Preparation::of(&about);
            let network = match about {
                About::Classifier(info) => Network::Classifier(
                    engine.classifier_of(*info, contents, &path).or_exit(Exit::Weights)?,
                ),
                About::Featurizer(_) => Network::Features(
                    engine.features(about, contents, &path).or_exit(Exit::Weights)?,
                ),
                About::Detector(_) => {
                    return crate::fail!(
                        Exit::Usage,
                        "{} is a detector of another program: make a model file of it first, with detect import",
                        path.display()
                    );
                }
            };
            (network, preparation)
        }
    };
    let load_ms = milliseconds(start);
    Ok(Subject { name: path.display().to_string(), network, preparation, load_ms })
}

/// A classifier with random weights.
fn of_backbone<E: Engine>(engine: &E, text: &str) -> anyhow::Result<Subject<E>> {
    let section = section(text)?;
    let side = published_size(section.name);
    let names = (0..published_classes(section.name)).map(|class| format!("class {class}"));
    let info = ClassifierInfo {
        preprocessing: Preprocessing::plain(Size::new(side, side)),
        classes: ClassNames { names: names.collect(), wnids: Vec::new() },
        origin: "random".into(),
        backbone: section,
    };
    let preparation = Preparation::Classifier(info.preprocessing.clone());
    let contents = random::classifier(&info, 1);
    let start = Instant::now();
    let model = engine.classifier_of(info, contents, Path::new(text)).or_exit(Exit::Weights)?;
    let load_ms = milliseconds(start);
    let name = format!("{text}, random weights");
    Ok(Subject { name, network: Network::Classifier(model), preparation, load_ms })
}

fn section(text: &str) -> anyhow::Result<config::Backbone> {
    if OwnBackbone::is_file(text) {
        let own = OwnBackbone::read(Path::new(text)).or_exit(Exit::Usage)?;
        let settings = Settings { wiring: Some(own.wiring), ..Settings::default() };
        let section = import::section(own.name, own.stem_filters, &settings, false);
        return Ok(config::Backbone { genotype: Some(own.cells), ..section });
    }
    let name: BackboneName = text.parse().or_exit(Exit::Usage)?;
    if name.family == Family::Own {
        return crate::fail!(
            Exit::Usage,
            "'{name}' has cells of its own: give the file that holds them, such as cells.toml"
        );
    }
    Ok(import::section(name, published_stem_filters(name), &Settings::default(), false))
}

fn decoded(file: &Path) -> anyhow::Result<Rgb> {
    let decoded = image::decode(file).or_exit(Exit::Data)?;
    let size = decoded.image.size;
    if size.height < 3 || size.width < 3 {
        return crate::fail!(
            Exit::Data,
            "{} is {size}; the network needs at least 3 pixels a side",
            file.display()
        );
    }
    Ok(decoded.image)
}

/// The same in every run.
fn noise(size: Size) -> Rgb {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let pixels = (0..3 * size.height * size.width).map(|_| random.random()).collect();
    Rgb { size, pixels }
}

/// Times of the runs, in milliseconds.
struct Measured {
    /// Of the network's input.
    size: Size,
    /// From the prepared batch.
    batch: Vec<f64>,
    /// From the file.
    file: Option<Vec<f64>>,
}

fn measure<E: Engine>(
    args: &BenchArgs,
    subject: &Subject<E>,
    image: &Rgb,
) -> anyhow::Result<Measured> {
    let count = usize::from(args.batch);
    let images = vec![image; count];
    // A decoded image a place of the batch, as when the files were different ones.
    let files = || -> anyhow::Result<Vec<Rgb>> {
        let file = args.image.as_ref().expect("called where there is a file");
        (0..count).map(|_| decoded(file)).collect()
    };
    match (&subject.network, &subject.preparation) {
        (Network::Detector(model), Preparation::Detector(input)) => {
            let mut input = input.clone();
            if let Some(to) = args.image_size {
                input.resize = input.resize.at(to);
            }
            let batch = loader::prepare(&images, &input);
            let from_batch = timed(args, || Ok(model.detect(&batch)))?;
            let from_file = || {
                let files = files()?;
                let pictures: Vec<&Rgb> = files.iter().collect();
                Ok(model.detect(&loader::prepare(&pictures, &input)))
            };
            let file = args.image.as_ref().map(|_| timed(args, from_file)).transpose()?;
            Ok(Measured { size: batch.padded, batch: from_batch, file })
        }
        (network, Preparation::Classifier(preprocessing)) => {
            let size = args.image_size.map_or(preprocessing.image_size, ImageSize::size);
            let preprocessing = preprocessing.clone().at(size);
            preprocessing.check().map_err(|why| anyhow::anyhow!(why)).or_exit(Exit::Usage)?;
            let forward = |pixels: &[f32]| {
                let images = Images { pixels, count, size };
                match network {
                    Network::Classifier(model) => drop(model.logits(images)),
                    Network::Features(model) => drop(model.last(images)),
                    Network::Detector(_) => unreachable!("detectors have another preparation"),
                }
                Ok(())
            };
            let pixels = preprocessing.apply(&images);
            let from_batch = timed(args, || forward(&pixels))?;
            let from_file = || {
                let files = files()?;
                let pictures: Vec<&Rgb> = files.iter().collect();
                forward(&preprocessing.apply(&pictures))
            };
            let file = args.image.as_ref().map(|_| timed(args, from_file)).transpose()?;
            Ok(Measured { size, batch: from_batch, file })
        }
        (_, Preparation::Detector(_)) => unreachable!("only detectors have it"),
    }
}

/// Times of the runs that count, sorted.
fn timed<T>(args: &BenchArgs, body: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for run in 0..WARM_UP + u32::from(args.runs) {
        let start = Instant::now();
        let result = body()?;
        if run >= WARM_UP {
            times.push(milliseconds(start));
        }
        drop(result);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Median, least and most of sorted times.
fn summary(times: &[f64]) -> Value {
    let middle = times.len() / 2;
    let median = if times.len().is_multiple_of(2) {
        f64::midpoint(times[middle - 1], times[middle])
    } else {
        times[middle]
    };
    json!({ "median_ms": median, "min_ms": times[0], "max_ms": times[times.len() - 1] })
}

fn report<E: Engine>(
    args: &BenchArgs,
    subject: &Subject<E>,
    engine: &Described,
    measured: &Measured,
) -> Value {
    let [kind, gives] = subject.network.words();
    let name = engine.name.to_possible_value().expect("no engine is hidden");
    let mut value = json!({
        "network": subject.name,
        "kind": kind,
        "gives": gives,
        "image_size": [measured.size.height, measured.size.width],
        "batch": args.batch,
        "engine": name.get_name(),
        "engine_with": engine.with,
        "device": engine.device,
        "threads": engine.threads,
        "runs": args.runs,
        "warm_up_runs": WARM_UP,
    });
    let times = summary(&measured.batch);
    for key in ["median_ms", "min_ms", "max_ms"] {
        value[key] = times[key].clone();
    }
    if let (Some(file), Some(times)) = (&args.image, &measured.file) {
        value["from_file"] = summary(times);
        value["from_file"]["file"] = json!(file.display().to_string());
    }
    value["load_ms"] = json!(subject.load_ms);
    // Last: it covers all that was done.
    value["peak_rss_mib"] = json!(machine::peak_mib());
    value
}

/// The report for people.
fn table(report: &Value) -> String {
    let text = |key: &str| report[key].as_str().unwrap_or_default();
    let number = |key: &str| report[key].as_u64().unwrap_or_default();
    let mut out = format!(
        "{} {}, input {}x{}, batch of {}\n{} engine ({}) on {}, {} threads; {} runs after {} to warm up\n\n",
        text("kind"),
        text("network"),
        report["image_size"][0],
        report["image_size"][1],
        number("batch"),
        text("engine"),
        text("engine_with"),
        text("device"),
        number("threads"),
        number("runs"),
        number("warm_up_runs"),
    );
    let _ = writeln!(out, "{:<22} {:>10} {:>10} {:>10}", "milliseconds", "median", "least", "most");
    let mut row = |what: String, times: &Value| {
        let [median, least, most] =
            ["median_ms", "min_ms", "max_ms"].map(|key| times[key].as_f64().unwrap_or(f64::NAN));
        let _ = writeln!(out, "{what:<22} {median:>10.2} {least:>10.2} {most:>10.2}");
    };
    row(format!("batch to {}", text("gives")), report);
    if report["from_file"].is_object() {
        row(format!("file to {}", text("gives")), &report["from_file"]);
    }
    let _ = writeln!(out, "\nloaded in {:.0} ms", report["load_ms"].as_f64().unwrap_or(f64::NAN));
    if let Some(peak) = report["peak_rss_mib"].as_f64() {
        let _ = writeln!(out, "most memory {peak:.0} MiB");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let of = |times: &[f64]| summary(times)["median_ms"].as_f64().unwrap();
        assert_eq!(of(&[1., 2., 4., 9.]), 3.);
        assert_eq!(of(&[1., 2., 9.]), 2.);
        assert_eq!(of(&[7.]), 7.);
    }
}
