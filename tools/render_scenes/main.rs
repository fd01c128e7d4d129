//! Renders the `scenes` data set: simple things on textured grounds, with boxes in COCO form.
//!
//! ```text
//! cargo run --release --example render_scenes -- --out data/scenes --samples data/samples
//! ```
//!
//! Each image follows from (seed, split, index) alone: the same bytes on every run. Nothing is
//! overwritten without `--force`. `--sheet FILE.png` draws the boxes of one split into a contact sheet.

mod backdrop;
mod canvas;
mod scene;
mod set;
mod stamp;
mod stream;
#[cfg(test)]
mod tests;
mod things;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;

use set::{Split, write_sheet};

/// Render the `scenes` data set.
#[derive(Debug, Parser)]
struct Args {
    /// Folder for annotations/ and images/
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder for a few larger images without annotations
    #[arg(long, value_name = "DIR")]
    samples: Option<PathBuf>,
    /// A contact sheet of --split, with the boxes drawn
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Which images the sheet shows
    #[arg(long, default_value = "val", value_parser = ["train", "val", "sample"])]
    split: String,
    /// The first image of the sheet and the number of its images
    #[arg(long, num_args = 2, default_values_t = [0, 12], value_names = ["FIRST", "COUNT"])]
    range: Vec<u32>,
    /// Everything random follows from it
    #[arg(long, default_value_t = set::SEED, value_name = "N")]
    seed: u64,
    /// Training images
    #[arg(long, default_value_t = 400, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99_999))]
    train: u32,
    /// Validation images
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99_999))]
    val: u32,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

#[expect(clippy::print_stderr, reason = "a tool of its own, which talks to the person who runs it")]
fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    if args.out.is_none() && args.samples.is_none() && args.sheet.is_none() {
        bail!("nothing to do: give --out, --samples or --sheet");
    }
    if let Some(out) = &args.out {
        let splits =
            [Split::TRAIN.render(args.seed, args.train), Split::VAL.render(args.seed, args.val)];
        replace(out, &["annotations", "images"], args.force, |folder| {
            splits.iter().try_for_each(|split| split.write(folder))
        })?;
    }
    if let Some(samples) = &args.samples {
        let rendered = Split::SAMPLE.render(args.seed, set::SAMPLES);
        let names = rendered.file_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        replace(samples, &names, args.force, |folder| rendered.write_images(folder))?;
    }
    if let Some(sheet) = &args.sheet {
        let split =
            [Split::TRAIN, Split::VAL, Split::SAMPLE].into_iter().find(|s| s.name == args.split);
        let split = split.expect("clap let no other name through");
        let (first, count) = (args.range[0], args.range[1]);
        let Some(end) = first.checked_add(count).filter(|_| (1..=100).contains(&count)) else {
            bail!("--range {first} {count}: a sheet holds 1 to 100 images");
        };
        write_sheet(sheet, &split, args.seed, first..end)?;
    }
    Ok(())
}

/// Lets `write` fill a folder beside its place, then moves `names` from there into `folder`, so that
/// nothing is left half-written.
fn replace(
    folder: &Path,
    names: &[&str],
    force: bool,
    write: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let there = names.iter().map(|n| folder.join(n)).find(|p| p.exists());
    if let (Some(path), false) = (there, force) {
        bail!("{} exists: remove it, or give --force to replace it", path.display());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let fresh = tempfile::tempdir_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    write(fresh.path())?;
    for name in names {
        let (from, to) = (fresh.path().join(name), folder.join(name));
        if to.is_dir() {
            std::fs::remove_dir_all(&to)
                .with_context(|| format!("cannot replace {}", to.display()))?;
        }
        std::fs::rename(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}
