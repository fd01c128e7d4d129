//! `detect convert` and `detect check --fix`: folders in COCO's form, and what became of every entry.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::CheckArgs;
use crate::data::convert::{
    ConvertError, Difficult, Entry, Fate, Format, Options, Outcome, convert, fix,
};
use crate::failure::{Exit, OrExit as _};
use crate::page::printable;
use crate::watch::progress::Reported;

/// Examples of each kind on stderr; JSON has more.
const SHOWN: usize = 3;

/// `detect convert`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "VOC: the XML file's name finds the image; ImageSets/Main/*.txt give the splits where they are. \
        YOLO: data.yaml, obj.data, obj.names or classes.txt name the classes; polygons become masks and boxes. \
        CSV: columns are found by their names (filename, xmin ymin xmax ymax or x y w h, class, split); \
        without a header they are path,x1,y1,x2,y2,class. COCO: any layout of folders, Roboflow's too.\n\
        The source is only read. Exit code 1: some images or entries could not be used; each is counted."
)]
pub struct ConvertArgs {
    /// Data set: its folder, or the file that describes it
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// Folder to make: annotations/SPLIT.json and images/; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The form of the source [default: recognised]
    #[arg(long, value_enum, value_name = "FORM", hide_possible_values = false)]
    pub from: Option<Format>,
    /// Name of the split, where the source has none [default: train]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Make this part of the images the split val, where the source has one split
    #[arg(long, value_name = "FRACTION", value_parser = part)]
    pub val: Option<f64>,
    /// Which images --val takes
    #[arg(long, value_name = "N", default_value_t = 1, requires = "val")]
    pub seed: u64,
    /// Number of the first pixel in corners of VOC and CSV [default: VOC 1, as its own tools have it, or 0 where a corner is 0; CSV 0]
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub origin: Option<u8>,
    /// What becomes of VOC's difficult objects: crowds are neither trained on nor counted in evaluation
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Difficult::Crowd)]
    pub difficult: Difficult,
    /// Hard links in place of copies of the images: no space, but a change to one changes both
    #[arg(long)]
    pub link: bool,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &ConvertArgs) -> anyhow::Result<Exit> {
    let options = Options {
        from: args.from,
        split: args.split.clone(),
        val: args.val,
        seed: args.seed,
        origin: args.origin,
        difficult: args.difficult,
        link: args.link,
    };
    let outcome = made(|progress| convert(&args.source, &args.out, &options, progress))?;
    if let Some(origin) = outcome.origin.filter(|_| outcome.format == Format::Voc) {
        let how = match origin {
            1 => "from 1, right and lower corners inside, as VOC's own tools",
            _ => "from 0, right and lower corners outside",
        };
        tracing::info!("pixels of corners are counted {how}; --origin says otherwise");
    }
    print(&outcome, args.json)?;
    Ok(if outcome.log.has(Fate::Failed) { Exit::SomeInputsFailed } else { Exit::Done })
}

/// A fraction in f64: from f32 it would come with other digits than the user wrote, and be told so.
fn part(text: &str) -> Result<f64, String> {
    super::fraction(text)?;
    text.parse().map_err(|_| format!("'{text}' is not a number"))
}

/// `detect check DIR --fix OUT`
pub(super) fn run_fix(args: &CheckArgs, out: &Path) -> anyhow::Result<Exit> {
    let outcome = made(|progress| fix(&args.data, out, args.link, progress))?;
    print(&outcome, args.json)?;
    if outcome.log.has(Fate::Wrong) {
        tracing::warn!("not all could be repaired: see `detect check {}`", out.display());
        return Ok(Exit::Data);
    }
    Ok(Exit::Done)
}

fn made(
    body: impl FnOnce(&(dyn Fn(usize, usize) + Sync)) -> Result<Outcome, ConvertError>,
) -> anyhow::Result<Outcome> {
    let bar = Reported::start("images");
    let outcome = body(&|done, all| bar.set(done, all));
    bar.finish_and_clear();
    outcome.map_err(|error| (error.exit(), error)).or_else(|(exit, error)| Err(error).or_exit(exit))
}

/// The splits on stdout, what became of entries on stderr; or both as JSON.
fn print(outcome: &Outcome, json: bool) -> anyhow::Result<()> {
    let entries = outcome.log.entries();
    for entry in &entries {
        let text = told(entry);
        match entry.fate {
            Fate::Kept => tracing::info!("{text}"),
            Fate::Failed | Fate::Dropped | Fate::Changed | Fate::Wrong => tracing::warn!("{text}"),
        }
    }
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{:#}", serde_json::to_value(outcome)?)?;
        return Ok(());
    }
    let width = outcome.splits.iter().map(|s| s.name.len()).max().unwrap_or(0).max(7);
    writeln!(
        out,
        "{:<width$} {:>9} {:>11} {:>10}",
        "split", "images", "annotations", "categories"
    )?;
    for s in &outcome.splits {
        writeln!(
            out,
            "{:<width$} {:>9} {:>11} {:>10}",
            s.name, s.images, s.annotations, s.categories
        )?;
    }
    writeln!(out, "{} from {}", outcome.out.display(), outcome.format.name())?;
    Ok(())
}

/// One kind of entry with its first examples, a line each.
fn told(entry: &Entry) -> String {
    let split = entry.split.as_ref().map_or(String::new(), |split| format!("{split}: "));
    let mut text = format!("{split}{} {}", entry.count, entry.kind.meaning());
    for example in entry.examples.iter().take(SHOWN) {
        text.push_str("\n    ");
        // Names come from strangers; a line is a line.
        text.push_str(&printable(example));
    }
    if entry.count > SHOWN {
        text.push_str("\n    ...");
    }
    text
}
