//! What keeps a run from harm: checkpoints with room to lie in, truths that kernels can take, and steps
//! that are not finite.

use std::fmt;
use std::io::Write as _;

use anyhow::Context as _;
use detect::config::NormMode;
use detect::data::loader::{Batch, LoadError};
use detect::fail;
use detect::failure::{Exit, OrExit as _, with_exit};
use detect::geometry::Size;
use detect::watch::machine;
use detect::weights::Contents;
use detect::whole;
use tch::Tensor;
use tch::nn::VarStore;

use super::{CONFIG, Ended, Trainer, checkpoint};
use crate::detector::{Losses, Truth};
use crate::precision::Precision;
use crate::weights;

/// What the last step was about, to find out why it failed.
#[derive(Debug, Default)]
pub(super) struct Latest {
    /// In the order of [`Losses::ALL`]; 0 for what the detector does not learn.
    pub(super) losses: [f64; 5],
    pub(super) lr: f64,
    pub(super) image_ids: Vec<i64>,
}

impl Latest {
    pub(super) fn of(losses: [f64; 5], lr: f64, batches: &[Batch]) -> Self {
        let samples = batches.iter().flat_map(|batch| &batch.samples);
        let image_ids = samples.map(|sample| sample.image_id).collect();
        Self { losses, lr, image_ids }
    }
}

impl fmt::Display for Latest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lr {}", self.lr)?;
        for (name, value) in Losses::ALL.iter().zip(&self.losses) {
            if *value != 0. || Losses::NAMES.contains(name) {
                write!(f, ", {name} {value}")?;
            }
        }
        let ids: Vec<String> = self.image_ids.iter().map(ToString::to_string).collect();
        write!(f, "; image ids {}", ids.join(", "))
    }
}

impl Trainer {
    fn write_config(&self) -> anyhow::Result<()> {
        let json =
            serde_json::to_string_pretty(&self.setup.config).expect("plain structs become JSON");
        let path = self.setup.run.join(CONFIG);
        whole::write(&path, |file| writeln!(file, "{json}"))
            .with_context(|| format!("cannot write {}", path.display()))
            .or_exit(Exit::Output)
    }

    /// Refuses to begin where the files of the run would have no room: two checkpoints, beside which the next is written,
    /// and the model. Those of the names `replaced` give way, where they are there.
    pub(super) fn room_for_checkpoints(&self, replaced: &[&str]) -> anyhow::Result<()> {
        if !self.leads() {
            return Ok(());
        }
        let bytes = |store: &VarStore| {
            let sizes = store.variables().into_values();
            sizes.map(|t| (t.numel() * t.kind().elt_size_in_bytes()) as u64).sum::<u64>()
        };
        let average = self.average.as_ref().map_or(0, |(average, _)| bytes(&average.store));
        let state = self.optimizer.state().map(|(_, state)| 4 * state.numel() as u64).sum::<u64>();
        let model = bytes(&self.model.store);
        let there = replaced.iter().filter(|name| self.setup.run.join(name).exists());
        let more = 3 - there.count() as u64;
        let needed = more * (model + average + state) + model;
        let run = self.setup.run.display();
        match whole::free_space(&self.setup.run) {
            Ok(Some(free)) if free < needed => fail!(
                Exit::Output,
                "{run} has room for {free} bytes, and {more} checkpoints and the model need {needed}: make room or choose \
                 another folder"
            ),
            Ok(_) => Ok(()),
            Err(e) => Err(e)
                .with_context(|| format!("cannot tell how much room {run} has"))
                .or_exit(Exit::Output),
        }
    }

    /// Says what the run will take, and warns where that is more than there is.
    pub(super) fn tell_memory(&self) {
        let config = &self.setup.config;
        let ratio = |size: Size| {
            let (height, width) = (size.height as f64, size.width as f64);
            (height / width).max(width / height)
        };
        let images = self.setup.train.images.iter();
        let aspect = images.filter_map(|image| image.size).map(ratio).fold(1., f64::max);
        let size = config.largest_input(aspect);
        let [parameters, learned] = [self.optimizer.weights(), self.optimizer.gradients()]
            .map(|tensor| tensor.numel() as u64);
        let Some(memory) = config.training_memory(size, parameters, learned) else { return };
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let [total, weights, maps, batches, program] = [
            memory.total(),
            memory.weights,
            memory.maps,
            memory.batches,
            memory.total() - memory.weights - memory.maps - memory.batches,
        ]
        .map(|bytes| match gib(bytes) {
            gib if gib >= 1. => format!("{gib:.1} GiB"),
            gib => format!("{:.0} MiB", 1024. * gib),
        });
        let each = if self.setup.ranks.share().count > 1 { " in each process" } else { "" };
        // Nobody has measured by how much.
        let less =
            if self.precision == Precision::Float32 { "" } else { " (less in half precision)" };
        tracing::info!(
            "a step needs about {total}{each} at its largest input, {size}: weights {weights}, maps {maps}{less}, batches \
             read ahead {batches}, the program {program}"
        );
        let there = machine::available_mib().map(|mib| mib / 1024.);
        if let Some(there) = there.filter(|&there| there < gib(memory.total()))
            && !self.setup.device.is_cuda()
        {
            tracing::warn!(
                "this machine has {there:.1} GiB to give: a smaller --batch with --accumulate, --recompute or a smaller --image-size takes less"
            );
        }
    }

    /// Writes a checkpoint, and then the configuration that it goes on with: never before, since a folder that holds
    /// one is a run's, and one that differs from its checkpoint is refused.
    pub(super) fn save(&mut self) -> anyhow::Result<()> {
        let Some(metrics) = &self.metrics else { return Ok(()) };
        let mut tensors = weights::collect(&self.model.store, "model.");
        if let Some((average, _)) = &self.average {
            tensors.extend(weights::collect(&average.store, "ema."));
        }
        for (name, state) in self.optimizer.state() {
            tensors.insert(format!("optim.{name}"), weights::to_stored(&state));
        }
        let contents = Contents { tensors, ..Contents::default() };
        // The record holds the steps that the checkpoint has done.
        let flushed = metrics.flush().context("cannot write metrics.jsonl");
        flushed.or_exit(Exit::Output)?;
        self.check_finite(&contents)?;
        checkpoint::save(&self.setup.run, contents, &self.state)
            .map_err(|error| with_exit(error.exit(), error.into()))?;
        if std::mem::take(&mut self.config_due) {
            self.write_config()?;
        }
        Ok(())
    }

    /// Refuses to write what nobody could go on from.
    pub(super) fn check_finite(&self, contents: &Contents) -> anyhow::Result<()> {
        let Some(tensor) = contents.non_finite() else { return Ok(()) };
        fail!(
            Exit::NonFinite,
            "{tensor} is not finite after step {} ({}). Nothing was saved; {} holds the last good weights",
            self.state.step,
            self.latest,
            self.setup.run.join(checkpoint::LAST).display()
        )
    }

    /// Saves what there is and ends the run.
    pub(super) fn stopped(&mut self, exit: Exit) -> anyhow::Result<Ended> {
        self.save()?;
        Ok(Ended::Stopped(exit))
    }

    /// Ends the run because of images that this process, or another one, can't read, and keeps what was learned before
    /// them. All processes call it; the one that saves tells it.
    pub(super) fn unreadable(&mut self, own: Option<LoadError>) -> anyhow::Error {
        let saved = match self.save() {
            Ok(()) => format!("what was learned before it is saved; {}", self.go_on()),
            Err(failed) => format!("{failed:#}"),
        };
        let ranks = self.setup.ranks;
        // The exit code, and the message.
        let own = own.map(|error| [&[error.exit() as u8], error.to_string().as_bytes()].concat());
        let first = ranks.first(&own.unwrap_or_default());
        let (code, message) = first.split_first().expect("a process could not read an image");
        let message = String::from_utf8_lossy(message);
        if !ranks.leads() {
            // Process 0 ends all, once it has told why.
            ranks.any(false);
        }
        if *code == Exit::Memory as u8 {
            return with_exit(Exit::Memory, anyhow::anyhow!("{message}; {saved}"));
        }
        let root = self.setup.train.root.display();
        let all = format!("'detect check {root}' names every such image");
        with_exit(Exit::Data, anyhow::anyhow!("{message}; {all}; {saved}"))
    }

    /// How this run is gone on with.
    fn go_on(&self) -> String {
        format!("go on with: detect train --resume {}", self.setup.run.display())
    }

    /// Refuses truths that would make a kernel read past its table: on a GPU that ends the process, and
    /// says nothing of the reason.
    pub(super) fn check_truths(&self, batches: &[Batch]) -> anyhow::Result<()> {
        let classes = self.state.categories.len();
        for sample in batches.iter().flat_map(|batch| &batch.samples) {
            if let Some(fault) = Truth::of(sample).fault(classes) {
                let file = self.setup.train.images[sample.index].file.display();
                return fail!(Exit::Data, "{file} (image {}): {fault}", sample.image_id);
            }
        }
        Ok(())
    }

    /// A copy of what a forward pass changes by itself, where a step may be passed over.
    pub(super) fn statistics(&self) -> Option<Tensor> {
        (self.setup.config.train.skip_non_finite > 0).then(|| self.optimizer.fixed().copy())
    }

    /// Passes the step over where the recipe allows it, as if it had not been; else stops the run, with
    /// all that helps to find out why.
    pub(super) fn not_finite(
        &mut self,
        what: &str,
        statistics: Option<&Tensor>,
    ) -> anyhow::Result<()> {
        let (step, skip) = (self.state.step + 1, self.setup.config.train.skip_non_finite);
        let told = format!("{what} is not finite at step {step} ({})", self.latest);
        if self.state.skipped < skip {
            self.state.skipped += 1;
            self.state.left_out += 1;
            if let Some(before) = statistics {
                tch::no_grad(|| self.optimizer.fixed().copy_(before));
            }
            tracing::warn!("{told}; passed over, {} of {skip} in a row", self.state.skipped);
            return Ok(());
        }
        let frozen = self.setup.config.backbone.norm == NormMode::Frozen;
        let advice =
            if frozen { "a lower train.lr" } else { "a lower train.lr or a longer warm-up" };
        let last = self.setup.run.join(checkpoint::LAST);
        fail!(
            Exit::NonFinite,
            "{told}. Nothing of this step was saved; {} holds the last good weights. Try {advice}",
            last.display()
        )
    }
}
