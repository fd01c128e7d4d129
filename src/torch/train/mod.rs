//! Training: batches in, weights out.
//!
//! A run folder is the only state: `config.json`, `metrics.jsonl`, `last` and `prev` checkpoints and
//! the `best` model; beside them lies what the last evaluation found. Everything random follows from
//! (seed, step), so that a run which is killed and resumed gives the weights of one that was not, bit for
//! bit on a CPU.

mod begin;
pub mod checkpoint;
mod evaluation;
pub mod freeze;
mod guard;
pub mod init;
pub mod log;
pub mod optim;
mod profiler;
pub mod scale;
mod seal;
mod step;
pub mod stop;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use detect::config::Config;
use detect::data::Dataset;
use detect::data::loader::{Batch, TrainLoader};
use detect::data::sampling::Epochs;
use detect::eval::Evaluation;
use detect::failure::{Exit, OrExit as _};
use detect::watch::machine;
use serde_json::json;
use tch::Device;
use tch::nn::VarStore;

use crate::backbone::NasNet;
use crate::detector::ahead::Pace;
use crate::detector::{FasterRcnn, Losses};
use crate::nn::Mode;
use crate::precision::Precision;
use crate::profile::{self, Part};
use crate::ranks::Group;
use checkpoint::State;
use guard::Latest;
use log::Metrics;
use optim::{Optimizer, average};
use profiler::Profiler;
use scale::{LossScale, Verdict};
use step::Forecast;
use stop::Stop;
use tch::Tensor;

/// The resolved recipe in a run folder.
pub const CONFIG: &str = "config.json";

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
    /// Who shares it.
    pub ranks: Group,
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
        let root = store.root();
        let detector = FasterRcnn::new(&root, config, classes).learning(&root, config, classes);
        Self { store, detector }
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// After its last step, with the last evaluation where there is a split for it.
    Done(Option<Box<Evaluation>>),
    /// It was told to stop, and saved what it had.
    Stopped(Exit),
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
    /// Of the steps of all processes.
    pace: Pace,
    /// What the next step takes for granted.
    forecast: Forecast,
    /// Of the process that writes.
    metrics: Option<Metrics>,
    latest: Latest,
    /// Whether `config.json` is to be written after the next checkpoint.
    config_due: bool,
    /// What a step computes in.
    precision: Precision,
    profiler: Profiler,
}

impl Trainer {
    /// Runs to the end, or until it is told to stop.
    pub fn run(mut self, stop: &Stop) -> anyhow::Result<Ended> {
        let train = self.setup.config.train.clone();
        let images = self.epochs.len();
        let per_epoch = train.steps_per_epoch(images);
        let share = self.setup.ranks.share();
        let mut loader = TrainLoader::shared(
            self.epochs.clone(),
            self.setup.train.clone(),
            &train,
            &self.setup.config.input,
            self.state.step..self.state.total,
            share,
        );
        self.tell_memory();
        let bar = if self.leads() {
            log::bar(self.state.total, self.state.step, "steps")
        } else {
            log::Progress::hidden()
        };
        let mut evaluation = None;
        if self.state.evaluation_due {
            evaluation = self.evaluate(&bar, stop)?;
            if let Some(exit) = self.told(stop) {
                return self.stopped(exit);
            }
            self.save()?;
        }
        let mut waiting = Instant::now();
        while !self.is_done() {
            self.profiler.begin(self.setup.device);
            let batches = train.batches_before(self.state.step + 1, images)
                - train.batches_before(self.state.step, images);
            let batches =
                loader.by_ref().take(share.of(batches)).collect::<Result<Vec<Batch>, _>>();
            if self.setup.ranks.any(batches.is_err()) {
                return Err(self.unreadable(batches.err()));
            }
            let batches = batches.unwrap_or_default();
            let waited = waiting.elapsed().as_secs_f64();
            profile::lap(Part::Data);
            let started = Instant::now();
            let begun = self.state.step % per_epoch * train.batch * train.accumulate;
            let (losses, norm, lr) = self.step(&batches)?;
            let worked = started.elapsed().as_secs_f64();
            self.state.step += 1;
            self.state.seconds += waited + worked;
            let (step, total) = (self.state.step, self.state.total);
            let shown = (images - begun).min(train.batch * train.accumulate);
            let rate = shown as f64 / (waited + worked);
            if step.is_multiple_of(train.log_every) || step == total {
                let auxiliary = train.loss_weights.auxiliary > 0.;
                let loss: f64 = Losses::weighted(losses, &train.loss_weights).iter().sum();
                let mut line = json!({ "kind": "step", "step": step, "epoch": (step - 1) / per_epoch, "loss": loss });
                let named = Losses::ALL.iter().zip(losses);
                for (name, value) in named.take(if auxiliary { 5 } else { 4 }) {
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
            if let Some(line) = self.profiler.end(step, step == total) {
                bar.suspend(|| tracing::info!("{}", profiler::table(&line)));
                self.record(&line)?;
            }
            let epoch_ends = step.is_multiple_of(per_epoch);
            let due = train.eval_every > 0
                && epoch_ends
                && (step / per_epoch).is_multiple_of(train.eval_every);
            if due || step == total {
                evaluation = self.evaluate(&bar, stop)?;
            }
            let whole = step == total && !self.state.evaluation_due;
            if let Some(exit) = self.told(stop).filter(|_| !whole) {
                return self.stopped(exit);
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
        Ok(Ended::Done(evaluation.map(Box::new)))
    }

    /// Whether all steps are made, or no better model is to be waited for.
    fn is_done(&self) -> bool {
        let patience = self.setup.config.train.patience;
        self.state.step >= self.state.total || patience > 0 && self.state.stale >= patience
    }

    /// One step: forward, backward, weights. Gives the losses, the gradients' norm and the rate.
    fn step(&mut self, batches: &[Batch]) -> anyhow::Result<([f64; 5], f64, f64)> {
        let train = &self.setup.config.train;
        let (step, total) = (self.state.step, self.state.total);
        let (images, per_epoch) = (self.epochs.len(), train.steps_per_epoch(self.epochs.len()));
        // An image's draws hang on how many were shown before it, not on how they are batched.
        let shown = step / per_epoch * images + step % per_epoch * train.batch * train.accumulate;
        let scale = self.state.loss_scale.map_or(1., |scale| scale.factor);
        let settings = step::Settings {
            mode: Mode::Train { progress: train.drop_path_progress(step, total) },
            loss_weights: &train.loss_weights,
            device: self.setup.device,
            precision: self.precision,
            scale,
            seed: &|image| seed_of(train.seed, shown + image),
            ranks: self.setup.ranks,
            synchronised: self.setup.config.backbone.synchronised(),
            batch: train.batch,
            pace: self.pace,
        };
        self.check_truths(batches)?;
        let statistics = self.statistics();
        let lr = train.lr_at(step, total, per_epoch);
        let made = step::gradients(
            &self.model.detector,
            &mut self.optimizer,
            &mut self.forecast,
            batches,
            &settings,
        );
        let values = match made {
            Ok(values) => values,
            Err(step::NotFinite { losses, image_ids }) => {
                self.latest = Latest { losses, lr, image_ids };
                self.not_finite("the loss", statistics.as_ref())?;
                return Ok((losses, f64::NAN, lr));
            }
        };
        self.latest = Latest::of(values, lr, batches);
        self.optimizer.divide_gradients(scale);
        // The same number for all, since it decides what becomes of the step.
        let norm = self.setup.ranks.lead_number(self.optimizer.complete());
        let scale: Option<&mut LossScale> = self.state.loss_scale.as_mut();
        let verdict = scale.map_or(Verdict::Made, |scale| scale.learn(norm.is_finite()));
        if verdict == Verdict::LeftOut {
            self.state.left_out += 1;
            tracing::debug!("step {}: float16 overflows; it is left out", step + 1);
            return Ok((values, norm, lr));
        }
        if !norm.is_finite() {
            // It is the sum over all: any process's image may be why.
            let image_ids = std::mem::take(&mut self.latest.image_ids);
            self.latest.image_ids = self.setup.ranks.gathered(image_ids);
            self.not_finite("the gradient", statistics.as_ref())?;
            return Ok((values, norm, lr));
        }
        self.state.skipped = 0;
        let made = step - self.state.left_out;
        self.optimizer.step(lr, norm, made);
        if let Some((_, average)) = &mut self.average {
            average::update(average, self.optimizer.weights(), train.ema.decay, made);
        }
        profile::lap(Part::Optimizer);
        Ok((values, norm, lr))
    }

    /// Whether this process writes and talks.
    fn leads(&self) -> bool {
        self.setup.ranks.leads()
    }

    /// How the run has to end, where any of its processes was told to.
    fn told(&self, stop: &Stop) -> Option<Exit> {
        stop.agreed(&*self.setup.ranks)
    }

    fn record(&mut self, line: &serde_json::Value) -> anyhow::Result<()> {
        let written = self.metrics.as_mut().map(|metrics| metrics.write(line));
        written
            .unwrap_or(Ok(()))
            .with_context(|| {
                format!("cannot write {}", self.setup.run.join("metrics.jsonl").display())
            })
            .or_exit(Exit::Output)
    }

    fn written(&self, result: std::io::Result<()>) -> anyhow::Result<()> {
        let failed = || format!("cannot write into {}", self.setup.run.display());
        result.with_context(failed).or_exit(Exit::Output)
    }
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
