//! How a run begins, and how it goes on after a break.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use detect::config::{Decay, Optimizer as Rule, Train};
use detect::data::Fingerprint;
use detect::failure::{Exit, OrExit as _};
use detect::watch::record::RECORD;
use detect::weights::Contents;

use super::checkpoint::{self, Computing, State, only};
use super::guard::Latest;
use super::log::{self, Metrics};
use super::optim::{Optimizer, average};
use super::profiler::Profiler;
use super::step::Forecast;
use super::{Network, Setup, Trainer, freeze, init, seed_of};
use crate::detector::ahead::Pace;
use crate::precision::Precision;
use crate::{shim, weights};

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
            evaluation_due: false,
            config: config.clone(),
            categories: setup.train.categories.clone(),
            data: setup.train.root.clone(),
            split: Some(Fingerprint::of(&setup.train)),
            val: setup.val.as_deref().map(Fingerprint::of),
            skipped: 0,
            left_out: 0,
            loss_scale: None,
            computing: None,
        };
        let mut trainer = Self::build(setup, state)?;
        if let Some((contents, path)) = init {
            let categories = &trainer.state.categories;
            let report = init::begin_with(&trainer.model.store, categories, contents, path)
                .or_exit(Exit::Weights)?;
            tracing::info!("from {}: {report}", path.display());
            for difference in
                init::unlike(&trainer.state.config, contents, path).or_exit(Exit::Weights)?
            {
                tracing::warn!("{} learned with {difference} in the recipe", path.display());
            }
        }
        if let Some((_, average)) = &mut trainer.average {
            average::update(average, trainer.optimizer.weights(), 0., 0);
        }
        let Train { optimizer, weight_decay, .. } = &trainer.setup.config.train;
        if matches!(optimizer, Rule::AdamW { .. })
            && weight_decay.rate > 0.
            && weight_decay.how != Decay::Decoupled
        {
            tracing::warn!(
                "train.weight_decay.how puts the decay into the gradient, which makes train.optimizer Adam with L2: \
                 AdamW's is 'decoupled'"
            );
        }
        trainer.follow_lead();
        trainer.room_for_checkpoints(&[checkpoint::LAST, checkpoint::PREVIOUS])?;
        trainer.open_record()?;
        // From here on there is something to go on from, whatever happens.
        trainer.save()?;
        Ok(trainer)
    }

    /// Continues the run whose checkpoint was read from `path`. What `setup` has otherwise than `state`
    /// counts from now on.
    pub fn resume(
        setup: Setup,
        contents: &Contents,
        mut state: State,
        path: &Path,
    ) -> anyhow::Result<Self> {
        let [split, val] =
            [Some(&setup.train), setup.val.as_ref()].map(|data| data.map(|d| Fingerprint::of(d)));
        let run = setup.run.clone();
        state.total = setup.total_steps();
        let best = run.join(checkpoint::BEST);
        let unkept = setup.ranks.leads() && !best.exists();
        if setup.ranks.any(unkept) {
            if state.best.is_some() {
                tracing::warn!(
                    "{} is gone: the next evaluation makes another one, whatever its score",
                    best.display()
                );
            }
            (state.best, state.stale) = (None, 0);
            // A run that goes on to no more steps than it has made has an end like any other.
            state.evaluation_due |= state.step >= state.total;
        }
        let other_measure = state.config.train.best_by != setup.config.train.best_by;
        let other_val =
            |old: &Fingerprint| val.as_ref().is_none_or(|new| old.difference(new).is_some());
        if other_measure || state.val.as_ref().is_some_and(other_val) {
            // The best score says nothing about those to come.
            (state.best, state.stale) = (None, 0);
        }
        state.config = setup.config.clone();
        state.data.clone_from(&setup.train.root);
        (state.split, state.val) = (split, val);
        let before = state.computing.take();
        let mut trainer = Self::build(setup, state)?;
        if let (Some(before), Some(now)) = (before, &trainer.state.computing) {
            let differences = before.differences(now);
            if !differences.is_empty() {
                tracing::warn!(
                    "goes on with {}: the last bits will not be those of a run without a break",
                    differences.join(", ")
                );
            }
        }
        weights::load(&trainer.model.store, &only(contents, "model."), "", path)
            .or_exit(Exit::Weights)?;
        if let Some((average, _)) = &trainer.average {
            weights::load(&average.store, &only(contents, "ema."), "", path)
                .or_exit(Exit::Weights)?;
        }
        trainer.optimizer.load(&only(contents, "optim."), path).or_exit(Exit::Weights)?;
        trainer.follow_lead();
        // A damaged one is moved aside, and stays.
        let damaged = path == run.join(checkpoint::PREVIOUS);
        let both = [checkpoint::PREVIOUS, checkpoint::LAST];
        trainer.room_for_checkpoints(if damaged { &both[..1] } else { &both })?;
        if trainer.leads() && damaged {
            checkpoint::set_aside(&run).or_exit(Exit::Output)?;
        }
        trainer.open_record()?;
        Ok(trainer)
    }

    /// Opens the record and says there what begins: after all that may refuse the run, which is then what it was.
    fn open_record(&mut self) -> anyhow::Result<()> {
        if !self.leads() {
            return Ok(());
        }
        let open = || {
            let record = self.setup.run.join(RECORD);
            let mut metrics = Metrics::open(&record, self.state.step, !self.state.evaluation_due)?;
            metrics.write(&log::start_line(&self.setup, &self.state))?;
            Ok::<_, std::io::Error>(metrics)
        };
        let metrics = open()
            .with_context(|| format!("cannot write into {}", self.setup.run.display()))
            .or_exit(Exit::Output)?;
        self.metrics = Some(metrics);
        Ok(())
    }

    /// Takes over the weights and the optimizer's state of process 0: with others, each process would train a network of
    /// its own, and nothing would tell.
    fn follow_lead(&self) {
        let average = self.average.iter().map(|(_, flat)| flat);
        for flat in self.optimizer.flats().chain(average) {
            self.setup.ranks.lead_tensor(flat);
        }
    }

    /// The run is to say where the time of `steps` of its first steps goes.
    #[must_use]
    pub fn profiling(self, steps: usize) -> Self {
        Self { profiler: Profiler::of(steps), ..self }
    }

    fn build(setup: Setup, mut state: State) -> anyhow::Result<Self> {
        let precision = Precision::on(setup.config.train.precision, setup.device);
        // Kept by a run that goes on, unless it goes on in other numbers.
        let scaled = precision == Precision::Fp16;
        state.loss_scale = scaled.then(|| state.loss_scale.unwrap_or_default());
        let gpu = setup.device.is_cuda();
        state.computing = Some(Computing {
            device: if gpu { "cuda" } else { "cpu" }.into(),
            precision: precision.name().into(),
            threads: if gpu { 0 } else { tch::get_num_threads() as usize },
            processes: setup.ranks.share().count,
            libtorch: env!("DETECT_LIBTORCH_VERSION").into(),
            deterministic: gpu && shim::is_deterministic(),
        });
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
        // One pace for all, which decides what they tell each other, even if they have unlike devices.
        let waits = setup.ranks.any(Pace::of(setup.device) == Pace::Waits);
        let pace = if waits { Pace::Waits } else { Pace::Ahead };
        let (epochs, latest, profiler) = (setup.epochs(), Latest::default(), Profiler::of(0));
        Ok(Self {
            setup,
            state,
            epochs,
            model,
            average,
            optimizer,
            pace,
            forecast: Forecast::default(),
            metrics: None,
            latest,
            config_due: true,
            precision,
            profiler,
        })
    }
}
