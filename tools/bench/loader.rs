//! `cargo bench --bench loader -- DATA`: images/s and memory of the loader that feeds a training.
//!
//! DATA is a data set in COCO's form. Epochs run one after the other as in a training; the consumer counts
//! images and drops them. One line of JSON comes out: the first epoch apart, the median of the others, and the
//! resident set after each epoch. tools/bench/loader.py measures it beside `PyTorch`'s usual pipeline.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program of its own")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use detect::config::{Config, Resize};
use detect::data::Dataset;
use detect::data::loader::TrainLoader;
use detect::watch::machine::resident_mib;

#[derive(Parser)]
struct Args {
    /// Folder of a data set; without it nothing is measured.
    data: Option<PathBuf>,
    #[arg(long, default_value = "train")]
    split: String,
    /// Short side of the resized images.
    #[arg(long, default_value_t = 800)]
    size: usize,
    /// Limit of the long side.
    #[arg(long, default_value_t = 1333)]
    max_size: usize,
    #[arg(long, default_value_t = 4)]
    batch: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 4)]
    prefetch: usize,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Only read the annotations, and say how long it took.
    #[arg(long)]
    open: bool,
    /// Cargo's own.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(folder) = &args.data else {
        eprintln!("nothing to measure: no data set is named");
        return ExitCode::SUCCESS;
    };
    match measure(folder, &args) {
        Ok(line) => println!("{line}"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(
    folder: &std::path::Path,
    args: &Args,
) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let data = Arc::new(Dataset::open(folder, &args.split)?);
    if args.open {
        return Ok(serde_json::json!({
            "open_s": start.elapsed().as_secs_f64(), "resident_mib": resident_mib(), "images": data.images.len(),
            "annotations": data.images.iter().map(|i| i.annotations.len()).sum::<usize>(),
        }));
    }
    let mut config = Config::recipe("peer_c4", &[])?;
    config.input.resize = Resize::ShortSide { short_side: args.size, long_side: args.max_size };
    config.train.batch = args.batch;
    config.train.loader.threads = args.threads;
    config.train.loader.prefetch = args.prefetch;
    let steps = data.images.len().div_ceil(args.batch);
    let total = args.epochs * steps;
    let mut loader = TrainLoader::start(Arc::clone(&data), &config.train, &config.input, 0, total);
    let (mut rates, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..args.epochs {
        let (start, mut images) = (Instant::now(), 0);
        for batch in loader.by_ref().take(steps) {
            images += batch?.samples.len();
        }
        rates.push(images as f64 / start.elapsed().as_secs_f64());
        resident.push(resident_mib());
    }
    let mut rest = rates.split_off(1.min(rates.len()));
    rest.sort_by(f64::total_cmp);
    Ok(serde_json::json!({
        "images": data.images.len(), "threads": args.threads, "batch": args.batch, "size": args.size,
        "first_epoch": rates.first(), "images_per_s": rest.get(rest.len() / 2), "resident_mib": resident,
    }))
}
