//! Training: batches in, weights out.
//!
//! A run folder is the only state: `config.json`, `metrics.jsonl`, `last` and `prev` checkpoints and
//! the `best` model; beside them lies what the last evaluation found. Everything random follows from
//! (seed, step), so that a run which is killed and resumed gives the weights of one that was not, bit for
//! bit on a CPU.

pub mod checkpoint;
pub mod freeze;
pub mod init;
pub mod log;
pub mod optim;
mod step;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use detect::config::{Config, NormMode};
use detect::data::Dataset;
use detect::data::loader::{Batch, TrainLoader};
use detect::data::sampling::Epochs;
use detect::eval::Evaluation;
use detect::fail;
use detect::failure::{Exit, OrExit as _};
use detect::watch::machine;
use detect::weights::{Contents, ModelInfo, model::Trained};
use serde_json::json;
use tch::Device;
use tch::nn::VarStore;

use crate::backbone::NasNet;
use crate::detector::{FasterRcnn, Losses};
use crate::nn::Mode;
use crate::{evaluate, weights};
use checkpoint::State;
use log::Metrics;
use optim::{Optimizer, average};
use tch::Tensor;

/// What a run needs.
#[derive(Debug)]
pub struct Setup {
    /// The recipe.
    pub config: Config,
    /// Learned from.
    pub train: Arc<Dataset>,
    /// Evaluated on, where the data set has it.
    pub val: Option<Arc<Dataset>>,
    /// The run folder, which exists.
    pub run: PathBuf,
    /// Where it runs.
    pub device: Device,
}

impl Setup {
    /// What the epochs show.
    pub fn epochs(&self) -> Epochs {
        Epochs::new(&self.train, &self.config.data, self.config.train.seed)
    }

    /// Steps in all.
    pub fn total_steps(&self) -> usize {
        self.config.train.total_steps(self.epochs().len())
    }
}

/// A network and its variables.
struct Network {
    store: VarStore,
    detector: FasterRcnn<NasNet>,
}

impl Network {
    fn new(config: &Config, classes: usize, device: Device) -> Self {
        let store = VarStore::new(device);
        let detector = FasterRcnn::new(&store.root(), config, classes);
        Self { store, detector }
    }
}

/// A run that goes on.
pub struct Trainer {
    setup: Setup,
    state: State,
    epochs: Epochs,
    model: Network,
    /// The moving average, where the recipe has one, and its variables as one tensor.
    average: Option<(Network, Tensor)>,
    optimizer: Optimizer,
    metrics: Metrics,
}

impl Trainer {
    /// Starts a run, from `init`'s weights where there are any.
    pub fn start(setup: Setup, init: Option<&(Contents, PathBuf)>) -> anyhow::Result<Self> {
        let config = &setup.config;
        let state = State {
            step: 0,
            total: setup.total_steps(),
            best: None,
            stale: 0,
            seconds: 0.,
            config: config.clone(),
            categories: setup.train.categories.clone(),
            data: setup.train.root.clone(),
        };
        let mut trainer = Self::build(setup, state)?;
        if let Some((contents, path)) = init {
            let categories = &trainer.state.categories;
            let report = init::begin_with(&trainer.model.store, categories, contents, path)
                .or_exit(Exit::Weights)?;
            tracing::info!("from {}: {report}", path.display());
        }
        if let Some((_, average)) = &mut trainer.average {
            average::update(average, trainer.optimizer.weights(), 0., 0);
        }
        // Last: a folder that holds it is a run's.
        let json =
            serde_json::to_string_pretty(&trainer.setup.config).expect("plain structs become JSON");
        std::fs::write(trainer.setup.run.join("config.json"), json + "\n")
            .with_context(|| format!("cannot write into {}", trainer.setup.run.display()))
            .or_exit(Exit::Output)?;
        Ok(trainer)
    }

    /// Continues the run whose checkpoint was read from `path`.
    pub fn resume(
        setup: Setup,
        contents: &Contents,
        state: State,
        path: &Path,
    ) -> anyhow::Result<Self> {
        let trainer = Self::build(setup, state)?;
        weights::load(&trainer.model.store, &only(contents, "model."), "", path)
            .or_exit(Exit::Weights)?;
        if let Some((average, _)) = &trainer.average {
            weights::load(&average.store, &only(contents, "ema."), "", path)
                .or_exit(Exit::Weights)?;
        }
        trainer.optimizer.load(&only(contents, "optim."), path).or_exit(Exit::Weights)?;
        Ok(trainer)
    }

    fn build(setup: Setup, state: State) -> anyhow::Result<Self> {
        let classes = state.categories.len();
        tch::manual_seed(seed_of(setup.config.train.seed, usize::MAX));
        let model = Network::new(&setup.config, classes, setup.device);
        freeze::freeze(&model.store, &setup.config.train.freeze).or_exit(Exit::Usage)?;
        let optimizer = Optimizer::new(&model.store, &setup.config.train);
        let average = (setup.config.train.ema.decay > 0.).then(|| {
            let network = Network::new(&setup.config, classes, setup.device);
            let flat = optimizer.layout().gather(&network.store);
            (network, flat)
        });
        let metrics = Metrics::open(&setup.run.join("metrics.jsonl"), state.step)
            .and_then(|mut metrics| {
                metrics.write(&log::start_line(&setup, &state))?;
                Ok(metrics)
            })
            .with_context(|| format!("cannot write into {}", setup.run.display()))
            .or_exit(Exit::Output)?;
        let epochs = setup.epochs();
        Ok(Self { setup, state, epochs, model, average, optimizer, metrics })
    }

    /// Runs to the end and gives the last evaluation, where there is a split for it.
    pub fn run(mut self) -> anyhow::Result<Option<Evaluation>> {
        let train = self.setup.config.train.clone();
        let images = self.epochs.len();
        let per_epoch = train.steps_per_epoch(images);
        let mut loader = TrainLoader::by(
            self.epochs.clone(),
            self.setup.train.clone(),
            &train,
            &self.setup.config.input,
            self.state.step..self.state.total,
        );
        let bar = log::bar(self.state.total, self.state.step, "steps");
        let mut evaluation = None;
        let mut waiting = Instant::now();
        while !self.is_done() {
            let batches = train.batches_before(self.state.step + 1, images)
                - train.batches_before(self.state.step, images);
            let batches: Vec<Batch> =
                loader.by_ref().take(batches).collect::<Result<_, _>>().or_exit(Exit::Data)?;
            let waited = waiting.elapsed().as_secs_f64();
            let started = Instant::now();
            let (losses, norm, lr) = self.step(&batches)?;
            let worked = started.elapsed().as_secs_f64();
            self.state.step += 1;
            self.state.seconds += waited + worked;
            let (step, total) = (self.state.step, self.state.total);
            let shown: usize = batches.iter().map(|batch| batch.samples.len()).sum();
            let rate = shown as f64 / (waited + worked);
            if step.is_multiple_of(train.log_every) || step == total {
                let loss: f64 = Losses::weighted(losses, &train.loss_weights).iter().sum();
                let mut line = json!({ "kind": "step", "step": step, "epoch": (step - 1) / per_epoch, "loss": loss });
                for (name, value) in Losses::NAMES.iter().zip(losses) {
                    line[*name] = json!(value);
                }
                line["grad_norm"] = json!(norm);
                line["lr"] = json!(lr);
                line["data_s"] = json!(waited);
                line["step_s"] = json!(worked);
                line["images_per_s"] = json!(rate);
                if let Some(memory) = machine::resident_mib() {
                    line["memory_mib"] = json!(memory);
                }
                self.record(&line)?;
                bar.set_message(log::words(&line));
            }
            bar.inc(1);
            let epoch_ends = step.is_multiple_of(per_epoch);
            let due = train.eval_every > 0
                && epoch_ends
                && (step / per_epoch).is_multiple_of(train.eval_every);
            if due || step == total {
                evaluation = self.evaluate(&bar)?;
            }
            if step.is_multiple_of(train.checkpoint_every) || self.is_done() {
                self.save()?;
            }
            waiting = Instant::now();
        }
        bar.finish_and_clear();
        if self.state.step < self.state.total {
            tracing::info!(
                "ended after step {} of {}: {} evaluations without a better one",
                self.state.step,
                self.state.total,
                self.state.stale
            );
        }
        Ok(evaluation)
    }

    /// Whether all steps are made, or no better model is to be waited for.
    fn is_done(&self) -> bool {
        let patience = self.setup.config.train.patience;
        self.state.step >= self.state.total || patience > 0 && self.state.stale >= patience
    }

    /// One step: forward, backward, weights. Gives the four losses, the gradients' norm and the rate.
    fn step(&mut self, batches: &[Batch]) -> anyhow::Result<([f64; 4], f64, f64)> {
        let train = &self.setup.config.train;
        let (step, total) = (self.state.step, self.state.total);
        let (images, per_epoch) = (self.epochs.len(), train.steps_per_epoch(self.epochs.len()));
        // An image's draws hang on how many were shown before it, not on how they are batched.
        let shown = step / per_epoch * images + step % per_epoch * train.batch * train.accumulate;
        let settings = step::Settings {
            mode: Mode::Train { progress: train.drop_path_progress(step, total) },
            loss_weights: &train.loss_weights,
            device: self.setup.device,
            seed: &|image| seed_of(train.seed, shown + image),
        };
        let lr = train.lr_at(step, total, per_epoch);
        let made = step::gradients(&self.model.detector, &mut self.optimizer, batches, &settings);
        let values = match made {
            Ok(values) => values,
            Err(step::NotFinite { losses, batch }) => {
                return self.diverged("the loss", &losses, lr, &batches[batch..=batch]);
            }
        };
        let norm = self.optimizer.complete();
        if !norm.is_finite() {
            return self.diverged("the gradient", &values, lr, batches);
        }
        self.optimizer.step(lr, norm, step);
        if let Some((_, average)) = &mut self.average {
            average::update(average, self.optimizer.weights(), train.ema.decay, step);
        }
        Ok((values, norm, lr))
    }

    /// Stops the run: what is not finite, with all that helps to find out why.
    fn diverged<T>(
        &self,
        what: &str,
        losses: &[f64; 4],
        lr: f64,
        batches: &[Batch],
    ) -> anyhow::Result<T> {
        let parts: Vec<String> = Losses::NAMES
            .iter()
            .zip(losses)
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let ids: Vec<String> =
            batches.iter().flat_map(|b| &b.samples).map(|s| s.image_id.to_string()).collect();
        let frozen = self.setup.config.backbone.norm == NormMode::Frozen;
        let advice =
            if frozen { "a lower train.lr" } else { "a lower train.lr or a longer warm-up" };
        fail!(
            Exit::NonFinite,
            "{what} is not finite at step {} (lr {lr}): {}; image ids {}. Nothing of this step was saved; {} holds the last good weights. Try {advice}",
            self.state.step + 1,
            parts.join(", "),
            ids.join(", "),
            self.setup.run.join(checkpoint::LAST).display()
        )
    }

    fn record(&mut self, line: &serde_json::Value) -> anyhow::Result<()> {
        let written = self.metrics.write(line);
        written
            .with_context(|| {
                format!("cannot write {}", self.setup.run.join("metrics.jsonl").display())
            })
            .or_exit(Exit::Output)
    }

    fn written(&self, result: std::io::Result<()>) -> anyhow::Result<()> {
        let failed = || format!("cannot write into {}", self.setup.run.display());
        result.with_context(failed).or_exit(Exit::Output)
    }

    /// The network whose weights are judged and kept.
    fn judged(&self) -> &Network {
        self.average.as_ref().map_or(&self.model, |(network, _)| network)
    }

    /// Scores the network on the validation split and keeps it if it is the best so far. Without such
    /// a split the newest weights are kept.
    fn evaluate(&mut self, bar: &log::Progress) -> anyhow::Result<Option<Evaluation>> {
        let Some(val) = self.setup.val.clone() else {
            self.keep(None)?;
            return Ok(None);
        };
        let train = &self.setup.config.train;
        let started = Instant::now();
        let reading = evaluate::Reading {
            input: &self.setup.config.input,
            batch: train.batch,
            loader: &train.loader,
        };
        let mut done = 0;
        let images = val.images.len();
        let run = evaluate::run(
            &self.judged().detector,
            &self.state.categories,
            &val,
            reading,
            self.setup.device,
            |n| {
                done += n;
                bar.set_message(format!("evaluating {done}/{images}"));
            },
        );
        for error in &run.failed {
            tracing::warn!("{error}; it counts as an image without detections");
        }
        let detections = run.results.len();
        self.written(log::keep_detections(&self.setup.run, &run.results))?;
        let evaluation = evaluate::score(&val, run.results)?;
        let seconds = started.elapsed().as_secs_f64();
        let stats = evaluation.values();
        let [ap, ap50, ap75] = [0, 1, 2].map(|i| stats[i]);
        let step = self.state.step;
        self.written(log::keep_evaluation(&self.setup.run, step, &evaluation))?;
        bar.suspend(|| tracing::info!("step {step}: AP {ap:.4}  AP50 {ap50:.4}  AP75 {ap75:.4}"));
        let line = json!({
            "kind": "eval", "step": step, "AP": ap, "AP50": ap50, "AP75": ap75,
            "stats": stats, "detections": detections, "seconds": seconds,
            "images_per_s": images as f64 / seconds, "train_seconds": self.state.seconds,
        });
        self.record(&line)?;
        // Written first, noted after: a kill between the two costs an evaluation, not the model.
        let best_by = self.setup.config.train.best_by;
        let score = best_by.of(&stats);
        if score < 0. {
            tracing::warn!("train.best_by = {best_by:?} can't be measured on this split");
        }
        if self.state.best.is_none_or(|(best, _)| score > best) {
            self.keep(Some(ap))?;
            self.state.best = Some((score, step));
            self.state.stale = 0;
        } else {
            self.state.stale += 1;
        }
        Ok(Some(evaluation))
    }

    /// Writes the network as the run's model file.
    fn keep(&self, ap: Option<f64>) -> anyhow::Result<()> {
        let config = &self.setup.config;
        let mut contents =
            Contents { tensors: weights::collect(&self.judged().store, ""), ..Contents::default() };
        if config.train.half_precision_model {
            weights::halve(&mut contents);
        }
        let info = ModelInfo {
            config: config.clone(),
            categories: self.state.categories.clone(),
            trained: Trained { steps: self.state.step, images: self.setup.train.images.len(), ap },
        };
        info.write_to(&mut contents);
        contents.write(&self.setup.run.join(checkpoint::BEST)).or_exit(Exit::Output)
    }

    fn save(&self) -> anyhow::Result<()> {
        let mut tensors = weights::collect(&self.model.store, "model.");
        if let Some((average, _)) = &self.average {
            tensors.extend(weights::collect(&average.store, "ema."));
        }
        for (name, state) in self.optimizer.state() {
            tensors.insert(format!("optim.{name}"), weights::to_stored(&state));
        }
        let contents = Contents { tensors, ..Contents::default() };
        checkpoint::save(&self.setup.run, contents, &self.state).or_exit(Exit::Output)
    }
}

/// The tensors of a checkpoint under `prefix`, without it.
fn only(contents: &Contents, prefix: &str) -> Contents {
    let tensors = contents.tensors.iter();
    let tensors = tensors
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
        .collect();
    Contents { tensors, ..Contents::default() }
}

/// The seed of libtorch's generator for a step: well mixed, so that neighbours have nothing in common
/// (the finaliser of SplitMix64).
fn seed_of(seed: u64, step: usize) -> i64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (step as u64).wrapping_add(0x1234_5678_9abc_def1);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 1) as i64
}
