//! `detect import SOURCE --out W.safetensors`: published weights into a model file.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::{ImportArgs, network_file, output};
use crate::config::Config;
use crate::failure::{Exit, OrExit as _};
use crate::weights::import::{self, About, Imported, Layout, Settings};
use crate::weights::{Source, label_map};

pub(super) fn run(args: &ImportArgs) -> anyhow::Result<Exit> {
    // What can't be written is said before minutes of reading.
    check_out(&args.out, &args.source)?;
    let mut source = import::open(&args.source).or_exit(Exit::Weights)?;
    let settings = settings(args, source.as_ref())?;
    tracing::info!("reading {}: {} tensors", args.source.display(), source.tensors().len());
    let imported = import::import(source.as_mut(), args.layout, &settings, &args.source)
        .or_exit(Exit::Weights)?;
    if matches!(imported.about, About::Featurizer(_)) {
        return crate::fail!(
            Exit::Weights,
            "{} holds a NASNet without a classifier (last_linear): as a model it can do nothing; `detect features` takes it as it is",
            args.source.display()
        );
    }
    if let Some(flag) = without_effect(args, &imported) {
        return crate::fail!(
            Exit::Usage,
            "{flag} does not go with {}, which is {}: leave it out",
            args.source.display(),
            imported.layout.title()
        );
    }
    imported.contents.write(&args.out).or_exit(Exit::Output)?;
    for note in &imported.notes {
        tracing::warn!("{note}");
    }
    report(args, &imported)?;
    Ok(Exit::Done)
}

/// The first argument that says something of another kind of file.
fn without_effect(args: &ImportArgs, imported: &Imported) -> Option<&'static str> {
    let detector = matches!(imported.about, About::Detector(_));
    let recipe = imported.layout == Layout::Torchvision;
    let arguments = [
        ("--proposals", args.proposals.is_some() && !detector),
        ("--score", args.score.is_some() && !detector),
        ("--label-map", args.label_map.is_some() && !detector),
        ("--config", args.config.is_some() && !recipe),
        ("--raw", args.raw && imported.layout != Layout::TfSlim),
    ];
    arguments.into_iter().find_map(|(flag, idle)| idle.then_some(flag))
}

fn check_out(out: &Path, source: &Path) -> anyhow::Result<()> {
    if out.extension().is_none_or(|e| e != "safetensors") {
        return crate::fail!(
            Exit::Usage,
            "--out {}: model files end in .safetensors",
            out.display()
        );
    }
    output::check("--out", out, &[source])
}

fn settings(args: &ImportArgs, source: &dyn Source) -> anyhow::Result<Settings> {
    let categories = args.label_map.as_deref().map(label_map::read).transpose();
    let categories = categories.context("--label-map").or_exit(Exit::Weights)?;
    let layout = args.layout.or_else(|| Layout::recognise(source));
    let pipeline = network_file::pipeline(layout, &args.source)?;
    Ok(Settings {
        wiring: args.wiring,
        pooling: args.pooling,
        raw: args.raw,
        image_size: args.image_size,
        proposals: args.proposals.map(|n| n as usize),
        score: args.score.map(f64::from),
        categories,
        pipeline,
        recipe: args
            .config
            .as_deref()
            .map(|path| Config::named_or_file(path, &[]))
            .transpose()
            .or_exit(Exit::Usage)?,
    })
}

fn report(args: &ImportArgs, imported: &Imported) -> anyhow::Result<()> {
    let backbone = imported.about.backbone();
    let parameters: usize =
        imported.contents.tensors.values().map(|t| t.shape.iter().product::<usize>()).sum();
    let mut out = std::io::stdout().lock();
    let (kind, outputs, next) = match &imported.about {
        About::Classifier(info) => ("classifier", info.classes.len(), "detect classify IMAGE"),
        About::Detector(info) => ("detector", info.categories.len(), "detect IMAGE"),
        About::Featurizer(_) => unreachable!("it was refused above"),
    };
    if args.json {
        let value = json!({
            "source": args.source.display().to_string(),
            "out": args.out.display().to_string(),
            "layout": imported.layout.title(),
            "kind": kind,
            "backbone": backbone.name.to_string(),
            "wiring": backbone.wiring,
            "pooling": backbone.pooling,
            "stem_filters": backbone.stem_filters,
            "classes": outputs,
            "tensors": imported.contents.tensors.len(),
            "parameters": parameters,
            "sha256": imported.contents.sha256(),
            "notes": imported.notes,
        });
        writeln!(out, "{value:#}")?;
        return Ok(());
    }
    writeln!(out, "{}: {}", args.source.display(), imported.layout.title())?;
    writeln!(
        out,
        "{kind} {} with {outputs} classes, {:?} wiring, {:?} pooling, {} stem filters",
        backbone.name, backbone.wiring, backbone.pooling, backbone.stem_filters
    )?;
    writeln!(
        out,
        "{} tensors, {parameters} numbers, written to {}",
        imported.contents.tensors.len(),
        args.out.display()
    )?;
    tracing::info!("try: {next} --weights {}", args.out.display());
    Ok(())
}
