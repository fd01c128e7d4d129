//! `detect train`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use detect::cli::TrainArgs;
use detect::config::{Config, Override, OwnBackbone, Resize, recipe_for};
use detect::data::{Dataset, coco};
use detect::eval::report;
use detect::fail;
use detect::failure::{Exit, OrExit as _};
use detect::nasnet::{BackboneName, Wiring, plan};
use detect::weights::{Contents, model};

use crate::device;
use crate::train::{Setup, Trainer, checkpoint};

pub(super) fn run(args: &TrainArgs) -> anyhow::Result<Exit> {
    let device = device::choose(&args.run_on)?;
    let resumed = args.resume.as_deref().map(checkpoint::load).transpose().or_exit(Exit::Data)?;
    let config = match &resumed {
        Some((_, state, _)) => resumed_config(args, &state.config)?,
        None => new_config(args)?,
    };
    let root = match (&args.data, &resumed) {
        (Some(data), _) => data.clone(),
        (None, Some((_, state, _))) => state.data.clone(),
        (None, None) => coco::default_root(),
    };
    let train = Arc::new(Dataset::open(&root, &config.data.train).or_exit(Exit::Data)?);
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
    if let Some(val) = &val
        && !val.categories.iter().any(|c| train.categories.iter().any(|t| t.id == c.id))
    {
        return fail!(
            Exit::Data,
            "the splits '{}' and '{}' share no category",
            config.data.train,
            config.data.val
        );
    }
    let run_folder = match (&args.resume, &args.out) {
        (Some(run), _) => run.clone(),
        (None, Some(out)) => new_folder(out)?,
        (None, None) => next_free(&config.name)?,
    };
    let lock = lock(&run_folder)?;
    let setup = Setup { config, train, val, run: run_folder.clone(), device };
    let steps = setup.total_steps();
    tracing::info!(
        "{}: {} on {} images, {} classes, {steps} steps of {} images, {device:?}, into {}",
        setup.config.name,
        setup.config.backbone.name,
        setup.train.images.len(),
        setup.train.categories.len(),
        setup.config.train.batch * setup.config.train.accumulate,
        run_folder.display()
    );
    let trainer = if let Some((contents, state, path)) = resumed {
        tracing::info!("going on after step {} of {}", state.step, state.total);
        Trainer::resume(setup, &contents, state, &path)?
    } else {
        let init = args.init.as_deref().map(read_init).transpose()?;
        Trainer::start(setup, init.as_ref())?
    };
    let evaluation = trainer.run()?;
    drop(lock);
    if let Some(evaluation) = evaluation {
        use std::io::Write as _;
        write!(std::io::stdout().lock(), "{}", report::table(&evaluation))?;
    }
    let best = run_folder.join(checkpoint::BEST);
    tracing::info!("the model is {0}; try: detect IMAGE --weights {0}", best.display());
    Ok(Exit::Done)
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
    if let Some(size) = args.image_size {
        all.push(Override::resize(resize.at(size)));
    }
    all.extend(args.lr.map(|lr| Override::new("train.lr", lr)));
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

/// The configuration of a resumed run: its own. Flags that would change it are refused.
fn resumed_config(args: &TrainArgs, own: &Config) -> anyhow::Result<Config> {
    let changes = overrides(args, own.input.resize);
    if changes.is_empty() {
        return Ok(own.clone());
    }
    let changed = Config::from_toml(&own.to_toml(), "the run's configuration", &changes)
        .or_exit(Exit::Usage)?;
    if changed != *own && !args.override_resume {
        let keys: Vec<String> = changes.iter().map(ToString::to_string).collect();
        return fail!(
            Exit::Usage,
            "a run goes on with its own configuration, but {} would change it; add --override-resume if that is meant",
            keys.join(", ")
        );
    }
    Ok(changed)
}

fn read_init(weights: &str) -> anyhow::Result<(Contents, PathBuf)> {
    let path = model::resolve(Some(weights)).or_exit(Exit::Weights)?;
    Ok((Contents::read(&path).or_exit(Exit::Weights)?, path))
}

/// `--out`: made here; a folder that holds a run is not touched.
fn new_folder(out: &Path) -> anyhow::Result<PathBuf> {
    if out.join(checkpoint::LAST).exists() || out.join("config.json").exists() {
        return fail!(
            Exit::Usage,
            "{0} holds a run already; continue it with --resume {0}, or choose another folder",
            out.display()
        );
    }
    fs::create_dir_all(out)
        .with_context(|| format!("cannot make the run folder {}", out.display()))
        .or_exit(Exit::Output)?;
    Ok(out.into())
}

/// The next free `runs/NAME-n`.
fn next_free(name: &str) -> anyhow::Result<PathBuf> {
    let failed = |path: &Path| format!("cannot make the run folder {}", path.display());
    let runs = Path::new("runs");
    fs::create_dir_all(runs).with_context(|| failed(runs)).or_exit(Exit::Output)?;
    for n in 1_u32.. {
        let path = runs.join(format!("{name}-{n}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| failed(&path)).or_exit(Exit::Output),
        }
    }
    unreachable!("some number is free")
}

/// Holds the run folder for this process; the system lets go when it ends, however it ends.
fn lock(run: &Path) -> anyhow::Result<fs::File> {
    let path = run.join(".lock");
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
        .or_exit(Exit::Output)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            fail!(Exit::Busy, "the run folder {} is in use by another process", run.display())
        }
        Err(fs::TryLockError::Error(e)) => {
            Err(e).with_context(|| format!("cannot lock {}", path.display())).or_exit(Exit::Output)
        }
    }
}
