//! The command line: what can be typed, and every verb but `train`.
//!
//! Both programs parse with these types and run these verbs, each with its own [`Engine`].
//! `detect` hands what its engine does not do to `detect-torch`, which lies beside it (see [`handover`]).

#![expect(clippy::doc_markdown, reason = "these docs are the help texts")]
#![allow(rustdoc::broken_intra_doc_links, reason = "help texts have defaults in brackets")]

mod bench;
mod check;
mod classify;
mod convert;
mod doctor;
mod draw;
pub mod engine;
mod eval;
mod features;
pub mod handover;
mod images;
mod import;
mod info;
mod inputs;
mod network_file;
mod output;
mod process;
mod report;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::bench::BenchArgs;
pub use self::check::CheckArgs;
pub use self::classify::ClassifyArgs;
pub use self::convert::ConvertArgs;
pub use self::draw::DrawArgs;
pub use self::engine::RunOn;
use self::engine::{Engine, EngineName, InferOn, Native};
pub use self::features::FeaturesArgs;
pub use self::images::DetectArgs;
pub use self::process::{end, finish};
pub use self::report::ReportArgs;
use crate::config::{Override, Pooling};
use crate::eval::IouType;
use crate::failure::Exit;
use crate::geometry::ImageSize;
use crate::nasnet::Wiring;
use crate::weights::import::Layout;

/// NASNet + Faster R-CNN object detection: train, evaluate, detect.
#[derive(Debug, Parser)]
#[command(
    name = "detect",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    override_usage = "detect [OPTIONS] <IMAGE|DIR>...\n       detect <COMMAND> [OPTIONS]",
    after_help = "An image that is called like a command is written ./train.\n\
        Exit codes: 0 done; 1 done, but some inputs failed; 2 usage or configuration; 3 bad data; \
        4 bad weights; 5 disk or output; 6 run folder in use; 7 out of memory; 8 non-finite loss; \
        9 internal error; 130/143 stopped by a signal after saving."
)]
pub struct Cli {
    /// A verb; without one, objects are detected in images.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Detection in images.
    #[command(flatten)]
    pub detect: DetectArgs,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a detector on a COCO-form data set
    Train(TrainArgs),
    /// Score a model on a split, or a results file against its annotations
    Eval(EvalArgs),
    /// Say what images show, with a classifier
    Classify(ClassifyArgs),
    /// Show a network's cells, parameters and multiply-adds, or what a file of weights holds
    Info(InfoArgs),
    /// Turn published weights into a model file
    Import(ImportArgs),
    /// Write every named intermediate of a featurizer
    Features(FeaturesArgs),
    /// Time a network
    Bench(BenchArgs),
    /// Look for mistakes in a COCO-form data set, and repair them in a copy
    Check(CheckArgs),
    /// Turn a VOC, YOLO, CSV or COCO data set into a COCO-form one
    Convert(ConvertArgs),
    /// Draw the annotations of a data set on its images
    Draw(DrawArgs),
    /// Show what training runs have done, as a page
    Report(ReportArgs),
    /// Show what this installation has and what is missing
    Doctor(DoctorArgs),
}

/// `detect train`
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// Data set folder [default: $DETECT_DATA, else data/coco]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Backbone, such as nasnet-a-6@4032, or a TOML file of cells. Those of the paper's COCO detectors,
    /// nasnet-a-6@4032 and nasnet-a-4@1056, bring its recipe where --config names no other
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub backbone: Option<String>,
    /// Recipe: a TOML file, or the name of a shipped recipe [default: default]
    #[arg(long, value_name = "FILE|NAME")]
    pub config: Option<PathBuf>,
    /// Change one key of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = |t: &str| t.parse::<Override>())]
    pub set: Vec<Override>,
    /// Run folder [default: the next free runs/NAME-n]
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    pub out: Option<PathBuf>,
    /// Continue the run in this folder, exactly
    #[arg(long, value_name = "RUN", conflicts_with_all = ["backbone", "config", "init"])]
    pub resume: Option<PathBuf>,
    /// Continue although the configuration differs
    #[arg(long, requires = "resume")]
    pub override_resume: bool,
    /// Start from the weights of this detector, whose classes may be others, or from the featurizer
    /// of this classifier
    #[arg(long, value_name = "FILE|NAME")]
    pub init: Option<String>,
    /// Passes over the training split
    #[arg(long, value_name = "N", conflicts_with = "steps")]
    pub epochs: Option<u32>,
    /// Steps in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: Option<u32>,
    /// Images that go through the network together
    #[arg(long, value_name = "N")]
    pub batch: Option<u32>,
    /// Batches a step
    #[arg(long, value_name = "N")]
    pub accumulate: Option<u32>,
    /// Compute cells again in the backward pass: much less memory, a third more time
    #[arg(long)]
    pub recompute: bool,
    /// Learning rate after warm-up
    #[arg(long, value_name = "X")]
    pub lr: Option<f64>,
    /// Everything random follows from it
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,
    /// Size of the network's input in pixels: its short side, or height and width
    #[arg(long, value_name = "S|HxW")]
    pub image_size: Option<ImageSize>,
    /// What to do where a loss or gradient is not finite: stop, or skip=K, which stops after K in a row
    #[arg(long, value_name = "stop|skip=K", value_parser = on_nan)]
    pub on_nan: Option<u32>,
    /// Say where the time of N steps goes
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub profile: usize,
    /// Only kernels that give the same bits each time: on a GPU slower, on a CPU always so
    #[arg(long)]
    pub deterministic: bool,
    /// Where it runs.
    #[command(flatten)]
    pub run_on: RunOn,
}

/// What a model is scored for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Boxes on a split in COCO form: average precision and recall.
    Detection,
    /// Classes of the images in `DIR/CLASS/` or `DIR/val/CLASS/`: top-1 and top-5 accuracy.
    Classification,
}

/// `detect eval`
#[derive(Debug, Clone, Args)]
pub struct EvalArgs {
    /// detection, or classification, which needs --data and --weights and no --split
    #[arg(long, value_enum, default_value_t = Task::Detection, hide_possible_values = true)]
    pub task: Task,
    /// Data set folder [default for detection: $DETECT_DATA, else data/coco]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Split to score a model on
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// A model file, or the name of a shipped model [default: scenes]
    #[arg(long, value_name = "FILE|NAME")]
    pub weights: Option<String>,
    /// Write detections.json here (a model run)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Ground truth in COCO form, for scoring a results file
    #[arg(long, value_name = "GT.json", requires = "predictions", conflicts_with_all = ["data", "split", "weights", "out", "batch", "device", "engine", "precision"])]
    pub annotations: Option<PathBuf>,
    /// Detections as a COCO results list
    #[arg(long, value_name = "DT.json", requires = "annotations", conflicts_with_all = ["data", "split", "weights", "out"])]
    pub predictions: Option<PathBuf>,
    /// How detections are scored.
    #[command(flatten)]
    pub scoring: ScoringArgs,
    /// Images that go through the network together; a detector's AP depends on it where they are padded to one size
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: u16,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
    /// Where it runs.
    #[command(flatten)]
    pub on: InferOn,
}

/// Heading of the arguments that say how detections are scored.
const SCORING: &str = "Scoring";

/// How `detect eval` scores detections. Without any of these, as pycocotools does.
#[derive(Debug, Clone, Args)]
pub struct ScoringArgs {
    /// What is compared, boxes or, of results files, masks: bbox or segm [default: bbox]
    #[arg(long, help_heading = SCORING, value_enum, value_name = "TYPE", hide_possible_values = true)]
    pub iou_type: Option<IouType>,
    /// Only these images: ids, or @FILE with ids
    #[arg(long, help_heading = SCORING, value_name = "IDS", allow_hyphen_values = true)]
    pub images: Option<String>,
    /// Only these categories: ids, or @FILE with ids
    #[arg(long, help_heading = SCORING, value_name = "IDS", allow_hyphen_values = true)]
    pub categories: Option<String>,
    /// A detection may find a true box of any category
    #[arg(long, help_heading = SCORING)]
    pub class_agnostic: bool,
    /// Such as 0.5,0.75 or 0.5:0.95:0.05
    #[arg(long, help_heading = SCORING, value_name = "L")]
    pub iou_thresholds: Option<String>,
    /// Such as small:0:1024,large:1024:1e10, in square pixels
    #[arg(long, help_heading = SCORING, value_name = "L")]
    pub area_ranges: Option<String>,
    /// Detections of an image and category that count; AP is that of the most [default: 1,10,100]
    #[arg(long, help_heading = SCORING, value_name = "L")]
    pub max_detections: Option<String>,
    /// Count an annotation with the id 0 as found, which pycocotools does not
    #[arg(long, help_heading = SCORING)]
    pub fix_id_zero: bool,
    /// Write precision, recall and scores here, for numpy.load
    #[arg(long, help_heading = SCORING, value_name = "FILE.npz")]
    pub arrays: Option<PathBuf>,
    /// Compare a results file with this other one, with bootstrap intervals
    #[arg(long, help_heading = SCORING, value_name = "DT2.json")]
    pub compare: Option<PathBuf>,
    /// Add curves, confusions and the kinds of errors to what is printed, and write all as a page here
    #[arg(long, help_heading = SCORING, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `detect info`
#[derive(Debug, Clone, Args)]
pub struct InfoArgs {
    /// Backbone, such as nasnet-a-6@4032, a TOML file of cells, or a file of weights or a shipped model's name [default: the
    /// paper's tables]
    #[arg(value_name = "BACKBONE|FILE")]
    pub backbone: Option<String>,
    /// Input size, S or HxW [default: as published, such as 331 for nasnet-a-6@4032]
    #[arg(long, value_name = "S|HxW", requires = "backbone")]
    pub image_size: Option<ImageSize>,
    /// Outputs of the classifier [default: 10 in the CIFAR form, else 1000]
    #[arg(long, value_name = "K", requires = "backbone")]
    pub classes: Option<usize>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

/// `detect import`
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// A .safetensors, PyTorch file, TensorFlow checkpoint or frozen graph; its format is recognised
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// The model file to write
    #[arg(long, value_name = "W.safetensors")]
    pub out: PathBuf,
    /// Whose names the tensors have [default: recognised]
    #[arg(long = "as", value_enum, value_name = "FORMAT")]
    pub layout: Option<Layout>,
    /// Which map the first cell after a reduction reads [default: large when N = 6, else mobile]
    #[arg(long, value_enum, value_name = "WIRING")]
    pub wiring: Option<Wiring>,
    /// How average pools treat padding [default: timm for timm's own network, else tf]
    #[arg(long, value_enum, value_name = "POOLING")]
    pub pooling: Option<Pooling>,
    /// Take a classifier's variables, not their moving averages (TF-slim)
    #[arg(long)]
    pub raw: bool,
    /// Size of the network's input [default: as published]
    #[arg(long, value_name = "S|HxW")]
    pub image_size: Option<ImageSize>,
    /// Proposals an image, of a detector [default: as published]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub proposals: Option<u32>,
    /// Drop scores up to this, in a detector [default: as published]
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub score: Option<f32>,
    /// Names of a detector's classes, as a .pbtxt [default: COCO's for 90 classes]
    #[arg(long, value_name = "FILE")]
    pub label_map: Option<PathBuf>,
    /// Recipe of what a torchvision file does not say [default: peer_c4]
    #[arg(long, value_name = "FILE|NAME")]
    pub config: Option<PathBuf>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

/// `detect doctor`
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

/// How many steps in a row may be passed over.
fn on_nan(text: &str) -> Result<u32, String> {
    let skip = text.strip_prefix("skip=").and_then(|k| k.parse().ok());
    let parsed = if text == "stop" { Some(0) } else { skip.filter(|k| *k > 0) };
    parsed.ok_or_else(|| format!("'{text}' is neither 'stop' nor 'skip=K', K from 1 on"))
}

fn fraction(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(x) if (0. ..=1.).contains(&x) => Ok(x),
        _ => Err(format!("'{text}' is not a number between 0 and 1")),
    }
}

/// One of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `detect`.
    Detect,
    /// `detect-torch`.
    DetectTorch,
}

impl Cli {
    /// The program that does this.
    ///
    /// # Errors
    /// Wrong usage: an engine that can't do it.
    pub fn program(&self) -> anyhow::Result<Program> {
        let on = match &self.command {
            None => &self.detect.on,
            Some(Command::Train(_)) => return Ok(Program::DetectTorch),
            Some(Command::Features(args)) => &args.on,
            Some(Command::Classify(args)) => &args.on,
            Some(Command::Bench(args)) => &args.on,
            // Wrong usage is told without it.
            Some(Command::Eval(args)) if args.annotations.is_none() && args.check().is_ok() => {
                &args.on
            }
            Some(
                Command::Eval(_)
                | Command::Import(_)
                | Command::Info(_)
                | Command::Check(_)
                | Command::Convert(_)
                | Command::Draw(_)
                | Command::Report(_)
                | Command::Doctor(_),
            ) => return Ok(Program::Detect),
        };
        Ok(match on.engine()? {
            EngineName::Native => Program::Detect,
            EngineName::Torch => Program::DetectTorch,
        })
    }
}

/// Runs the program `detect`: does what it can do itself, and hands the rest to `detect-torch`.
pub fn detect(cli: &Cli) -> anyhow::Result<Exit> {
    match cli.program()? {
        Program::Detect => run::<Native>(cli),
        Program::DetectTorch => handover::to_torch(),
    }
}

/// Runs any verb but `train`; networks run on the engine `E`.
///
/// # Panics
/// Where asked to train.
pub fn run<E: Engine>(cli: &Cli) -> anyhow::Result<Exit> {
    match &cli.command {
        None => images::run::<E>(&cli.detect),
        Some(Command::Eval(args)) => eval::run::<E>(args),
        Some(Command::Classify(args)) => classify::run::<E>(args),
        Some(Command::Features(args)) => features::run::<E>(args),
        Some(Command::Bench(args)) => bench::run::<E>(args),
        Some(Command::Import(args)) => import::run(args),
        Some(Command::Info(args)) => info::run(args),
        Some(Command::Check(args)) => match &args.fix {
            Some(out) => convert::run_fix(args, out),
            None => check::run(args),
        },
        Some(Command::Convert(args)) => convert::run(args),
        Some(Command::Draw(args)) => draw::run(args),
        Some(Command::Report(args)) => report::run(args),
        Some(Command::Doctor(args)) => doctor::run(args),
        Some(Command::Train(_)) => unreachable!("detect-torch trains"),
    }
}
