//! `detect train`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use detect::cli::TrainArgs;
use detect::config::{Config, Override, OwnBackbone, Resize, recipe_for, upgrade};
use detect::data::{Category, Dataset, Fingerprint, coco, loader, splits};
use detect::eval::report;
use detect::fail;
use detect::failure::{Exit, OrExit as _, with_exit};
use detect::nasnet::{BackboneName, Wiring, plan};
use detect::weights::{Contents, model};

use super::run_folder::{self, TakenBack};
use super::together;
use crate::shim;
use crate::train::checkpoint::{self, State};
use crate::train::{CONFIG, Ended, Setup, Trainer, stop::Stop};
use crate::{device, ranks};

pub(super) fn run(args: &TrainArgs) -> anyhow::Result<Exit> {
    if args.override_resume && args.resume.is_none() {
        return fail!(
            Exit::Usage,
            "--override-resume is about a run that goes on: --resume RUN names it"
        );
    }
    if args.deterministic {
        shim::set_deterministic();
    }
    let ranks = ranks::join()?;
    // One of several processes talks; errors are told by whoever has them.
    let _quiet = (!ranks.leads())
        .then(|| tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default()));
    let device = device::choose(&args.run_on)?;
    let device = together::device(&*ranks, &args.run_on.device, device)?;
    // Before anything is read that the process which holds it could change.
    let held =
        args.resume.as_deref().filter(|_| ranks.leads()).map(run_folder::hold).transpose()?;
    let resumed = (args.resume.as_deref())
        .map(|run| checkpoint::load(run).map_err(|e| with_exit(e.exit(), e.into())))
        .transpose()?;
    let config = match (&args.resume, &resumed) {
        (Some(run), Some((_, state, _))) => resumed_config(args, &state.config, run)?,
        _ => new_config(args)?,
    };
    let root = match (&args.data, &resumed) {
        (Some(data), _) => data.clone(),
        (None, Some((_, state, _))) => state.data.clone(),
        (None, None) => coco::default_root(),
    };
    // Found out now and not with the first checkpoint, after hours.
    if root.to_str().is_none() {
        return fail!(
            Exit::Usage,
            "the data folder {} is not UTF-8, which a checkpoint cannot keep; rename it",
            root.display()
        );
    }
    let opened = Dataset::open(&root, &config.data.train);
    if let Err(error @ coco::DataError::NoSplit { .. }) = &opened
        && !splits(&root).is_empty()
    {
        return fail!(
            Exit::Data,
            "{error}\nthe recipe '{0}' learns from '{1}': take another with --set data.train=NAME and --set data.val=NAME, \
             or --config default, which learns from 'train' and takes any --backbone",
            config.name,
            config.data.train
        );
    }
    let train = Arc::new(opened.or_exit(Exit::Data)?);
    let val = match Dataset::open(&root, &config.data.val) {
        Ok(val) => Some(Arc::new(val)),
        Err(coco::DataError::NoSplit { .. }) => {
            tracing::warn!(
                "{} has no split '{}': nothing is evaluated during training, and the newest weights are kept",
                root.display(),
                config.data.val
            );
            None
        }
        Err(error) => return Err(error).or_exit(Exit::Data),
    };
    check_images(&train)?;
    if let Some(val) = &val {
        same_categories([&config.data.train, &config.data.val], &train, val)?;
    }
    if let Some((_, state, _)) = &resumed {
        same_data(args, state, &train, val.as_deref())?;
    }
    let standing =
        resumed.as_ref().map_or_else(|| "at its start".into(), |(_, state, _)| state.standing());
    together::check(&*ranks, &config, &train, val.as_deref(), standing)?;
    let run_folder = together::folder(&*ranks, || match (&args.resume, &args.out) {
        (Some(run), _) => Ok(run.clone()),
        (None, Some(out)) => Ok(out.clone()),
        (None, None) => run_folder::next_free(&config.name),
    })?;
    let (lock, _taken_back) = match held {
        Some(lock) => (Some(lock), None),
        None if !ranks.leads() => (None, None),
        None => (Some(run_folder::begin(&run_folder)?), Some(TakenBack(&run_folder))),
    };
    if ranks.leads() {
        checkpoint::sweep(&run_folder);
    }
    let processes = match ranks.share().count {
        1 => String::new(),
        count => format!(" in {count} processes"),
    };
    let leads = ranks.leads();
    let setup = Setup { config, train, val, run: run_folder.clone(), device, ranks };
    let steps = setup.total_steps();
    tracing::info!(
        "{}: {} on {} images, {} classes, {steps} steps of {} images{processes}, on {}, into {}",
        setup.config.name,
        setup.config.backbone.name,
        setup.train.images.len(),
        setup.train.categories.len(),
        setup.config.train.batch * setup.config.train.accumulate,
        device::name(device),
        run_folder.display()
    );
    let stop = Stop::on_signals().context("cannot listen to signals").or_exit(Exit::Usage)?;
    let trainer = if let Some((contents, state, path)) = resumed {
        if state.step < steps {
            tracing::info!("going on after step {} of {steps}", state.step);
        } else {
            tracing::info!(
                "the run has made all of its {steps} steps; --override-resume --steps N makes more"
            );
        }
        Trainer::resume(setup, &contents, state, &path)?
    } else {
        let init = args.init.as_deref().map(read_init).transpose()?;
        Trainer::start(setup, init.as_ref())?
    };
    let ended = match trainer.profiling(args.profile).run(&stop) {
        // What is not finite all processes know of: one tells it.
        Err(error) if !leads && Exit::of(&error) == Exit::NonFinite => {
            return Ok(Exit::NonFinite);
        }
        ended => ended?,
    };
    drop(lock);
    let evaluation = match ended {
        Ended::Done(evaluation) => evaluation,
        Ended::Stopped(exit) => {
            let run = run_folder.display();
            tracing::warn!(
                "stopped by a signal, and saved; go on with: detect train --resume {run}"
            );
            return Ok(exit);
        }
    };
    if let Some(evaluation) = evaluation {
        use std::io::Write as _;
        write!(std::io::stdout().lock(), "{}", report::table(&evaluation))?;
    }
    let best = run_folder.join(checkpoint::BEST);
    tracing::info!("the model is {0}; try: detect IMAGE --weights {0}", best.display());
    Ok(Exit::Done)
}

/// Refuses a training split that there is nothing to learn from, or whose images are not all there: found out now and not
/// in the middle of an epoch.
fn check_images(train: &Dataset) -> anyhow::Result<()> {
    let images = &train.images;
    let annotations = train.annotation_files[0].display();
    if !images.iter().any(loader::shows_objects) {
        let boxes: usize = images.iter().map(|image| image.annotations.len()).sum();
        let found = match boxes {
            0 => "no box".into(),
            _ => format!(
                "{boxes} boxes, of which none can be learned: they are crowds, or under a pixel"
            ),
        };
        return fail!(
            Exit::Data,
            "{annotations} has {} images and {found}: there is nothing to learn from",
            images.len()
        );
    }
    let mut missing = images.iter().filter(|image| !image.file.exists());
    let Some(first) = missing.next() else { return Ok(()) };
    fail!(
        Exit::Data,
        "{} of the {} images of {annotations} are not there, the first is {}; 'detect check {}' lists them",
        missing.count() + 1,
        images.len(),
        first.file.display(),
        train.root.display()
    )
}

/// Refuses to go on with other data than the run began with.
fn same_data(
    args: &TrainArgs,
    state: &State,
    train: &Dataset,
    val: Option<&Dataset>,
) -> anyhow::Result<()> {
    if state.categories != train.categories {
        // The network has an output for each: there is nothing to override.
        let names = |all: &[Category]| {
            let names: Vec<String> = all.iter().map(|c| format!("{} {}", c.id, c.name)).collect();
            names.join(", ")
        };
        return fail!(
            Exit::Data,
            "the categories of {} are not those that the run began with:\n  {} -> {}",
            train.annotation_files[0].display(),
            names(&state.categories),
            names(&train.categories)
        );
    }
    // The validation split decides which model is kept, and so belongs to the run as well.
    if state.val.is_some() && val.is_none() && !args.override_resume {
        return fail!(
            Exit::Data,
            "the run was evaluated on a split that {} no longer has: its best model would give way to the newest weights\n\
             add --override-resume if that is meant",
            train.root.display()
        );
    }
    for (old, new) in [(&state.split, Some(train)), (&state.val, val)] {
        let (Some(old), Some(new)) = (old, new) else { continue };
        let difference = old.difference(&Fingerprint::of(new));
        if let Some(difference) = difference.filter(|_| !args.override_resume) {
            return fail!(
                Exit::Data,
                "{} is not what the run began with:\n  {difference}\nadd --override-resume if that is meant",
                new.annotation_files[0].display()
            );
        }
    }
    Ok(())
}

/// Refuses two splits whose categories are not the same things: every score would be of something else.
fn same_categories(names: [&str; 2], train: &Dataset, val: &Dataset) -> anyhow::Result<()> {
    let known = |id: i64| train.categories.iter().find(|c| c.id == id);
    let mut missing = Vec::new();
    for category in &val.categories {
        match known(category.id) {
            None => missing.push(format!("{} {}", category.id, category.name)),
            Some(other) if other.name != category.name => {
                return fail!(
                    Exit::Data,
                    "category {} is '{}' in the split '{}' and '{}' in '{}': {} and {} have to agree",
                    category.id,
                    other.name,
                    names[0],
                    category.name,
                    names[1],
                    train.annotation_files[0].display(),
                    val.annotation_files[0].display()
                );
            }
            Some(_) => {}
        }
    }
    if missing.len() == val.categories.len() {
        return fail!(Exit::Data, "the splits '{}' and '{}' share no category", names[0], names[1]);
    }
    if !missing.is_empty() {
        tracing::warn!(
            "the split '{}' has categories that '{}' has not, and that count as missed: {}",
            names[1],
            names[0],
            missing.join(", ")
        );
    }
    Ok(())
}

/// What the flags say on top of a recipe that resizes images by `resize`.
fn overrides(args: &TrainArgs, resize: Resize) -> Vec<Override> {
    let mut all = Vec::new();
    let integer = |n: u32| i64::from(n);
    let mut set = |key: &str, value: Option<i64>| {
        all.extend(value.map(|value| Override::new(key, value)));
    };
    set("train.epochs", args.epochs.map(integer));
    if args.epochs.is_some() {
        set("train.steps", Some(integer(0)));
    }
    set("train.steps", args.steps.map(integer));
    set("train.batch", args.batch.map(integer));
    set("train.accumulate", args.accumulate.map(integer));
    set("train.seed", args.seed.map(integer));
    set("train.skip_non_finite", args.on_nan.map(integer));
    if let Some(to) = args.image_size {
        all.push(Override::resize(resize.at(to)));
    }
    all.extend(args.lr.map(|lr| Override::new("train.lr", lr)));
    all.extend(args.recompute.then(|| Override::new("train.recompute", true)));
    all.extend(args.set.iter().cloned());
    all
}

fn new_config(args: &TrainArgs) -> anyhow::Result<Config> {
    let mut changes = Vec::new();
    let mut name = None;
    match args.backbone.as_deref() {
        None => {}
        Some(file) if OwnBackbone::is_file(file) => {
            let own = OwnBackbone::read(Path::new(file)).or_exit(Exit::Usage)?;
            changes.extend(of_backbone(own.name, own.wiring, own.stem_filters));
            changes.push(Override::of("backbone.genotype", &own.cells));
            name = Some(own.name);
        }
        Some(text) => {
            let published: BackboneName = text.parse().or_exit(Exit::Usage)?;
            let stem_filters = plan::published_stem_filters(published);
            changes.extend(of_backbone(published, Wiring::published(published), stem_filters));
            name = Some(published);
        }
    }
    let recipe = |changes: &[Override]| match (&args.config, name) {
        (Some(path), _) => Config::named_or_file(path, changes),
        (None, Some(name)) => Config::recipe(recipe_for(name), changes),
        (None, None) => Config::recipe("default", changes),
    };
    let plain = recipe(&[]).or_exit(Exit::Usage)?;
    changes.extend(overrides(args, plain.input.resize));
    recipe(&changes).or_exit(Exit::Usage)
}

fn of_backbone(name: BackboneName, wiring: Wiring, stem_filters: usize) -> [Override; 3] {
    let wiring = if wiring == Wiring::Large { "large" } else { "mobile" };
    [
        Override::new("backbone.name", name.to_string()),
        Override::new("backbone.wiring", wiring),
        Override::new("backbone.stem_filters", stem_filters as i64),
    ]
}

/// The configuration of a resumed run: its own. Flags and an edited `config.json` that would change it are
/// refused.
fn resumed_config(args: &TrainArgs, own: &Config, run: &Path) -> anyhow::Result<Config> {
    let edited = in_folder(run)?.unwrap_or_else(|| own.clone());
    let changes = overrides(args, edited.input.resize);
    let changed = Config::from_toml(&edited.to_toml(), "the run's configuration", &changes)
        .or_exit(Exit::Usage)?;
    let differences = own.differences(&changed);
    if !differences.is_empty() && !args.override_resume {
        return fail!(
            Exit::Usage,
            "a run goes on with its own configuration, which would change:\n  {}\nadd --override-resume if that is meant",
            differences.join("\n  ")
        );
    }
    Ok(changed)
}

/// The `config.json` of a run folder, where there is one.
fn in_folder(run: &Path) -> anyhow::Result<Option<Config>> {
    let path = run.join(CONFIG);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| path.display().to_string()).or_exit(Exit::Data),
    };
    let read = |json: serde_json::Value| serde_json::from_value::<Config>(json);
    let config = serde_json::from_slice::<serde_json::Value>(&bytes).and_then(|json| {
        // That of a run of the first version lacks what came later.
        read(json.clone()).or_else(|error| {
            let mut json = json;
            upgrade(&mut json);
            read(json).map_err(|_| error)
        })
    });
    let config = config
        .with_context(|| {
            format!(
                "{} is not a configuration; without it, the run goes on with its own",
                path.display()
            )
        })
        .or_exit(Exit::Usage)?;
    Ok(Some(config))
}

fn read_init(weights: &str) -> anyhow::Result<(Contents, PathBuf)> {
    let path = model::resolve(Some(weights)).or_exit(Exit::Weights)?;
    let contents = Contents::read(&path).or_exit(Exit::Weights)?;
    if !checkpoint::is_checkpoint(&contents) {
        return Ok((contents, path));
    }
    match checkpoint::read(&path) {
        Ok((contents, state)) => Ok((checkpoint::model(&contents, &state), path)),
        Err(fault) => fail!(Exit::Weights, "{fault}"),
    }
}
