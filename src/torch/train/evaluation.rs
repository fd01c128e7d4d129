//! Scoring the network during a run, and keeping the best one as the run's model file.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Instant;

use detect::data::Dataset;
use detect::eval::{Evaluation, ResultEntry};
use detect::failure::{Exit, OrExit as _, with_exit};
use detect::weights::{Contents, ModelInfo, model::Trained};
use serde_json::json;

use super::stop::Stop;
use super::{Network, Trainer, checkpoint, log};
use crate::detector::image_head;
use crate::{evaluate, weights};

impl Trainer {
    /// The network whose weights are judged and kept.
    fn judged(&self) -> &Network {
        self.average.as_ref().map_or(&self.model, |(network, _)| network)
    }

    /// Scores the network on the validation split and keeps it if it is the best so far. Without such
    /// a split the newest weights are kept. Told to stop, it leaves the evaluation to the resumed run.
    pub(super) fn evaluate(
        &mut self,
        bar: &log::Progress,
        stop: &Stop,
    ) -> anyhow::Result<Option<Evaluation>> {
        self.state.evaluation_due = true;
        let Some(val) = self.setup.val.clone() else {
            self.keep(None)?;
            self.state.evaluation_due = false;
            return Ok(None);
        };
        // What may take long can fail in many ways, a kill among them; and several processes share a signal only when each
        // has made its part.
        self.save()?;
        let train = &self.setup.config.train;
        let started = Instant::now();
        let reading = evaluate::Reading {
            input: &self.setup.config.input,
            batch: train.batch,
            loader: &train.loader,
            share: self.setup.ranks.share(),
        };
        let mut done = 0;
        let images = val.images.len();
        let mut run = evaluate::run(
            &self.judged().detector,
            &self.state.categories,
            &val,
            reading,
            self.setup.device,
            |n| {
                // The others are about as far.
                done = images.min(done + n * reading.share.count);
                bar.set_message(format!("evaluating {done}/{images}"));
                match stop.requested() {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            },
        )
        .map_err(|e| with_exit(e.exit(), e.into()))?;
        let ranks = self.setup.ranks;
        if ranks.any(run.left) {
            return Ok(None);
        }
        let failed: Vec<String> = run.failed.iter().map(ToString::to_string).collect();
        let failed = ranks.gathered(failed);
        for error in &failed {
            tracing::warn!("{error}; it counts as an image without detections");
        }
        run.results = in_order(ranks.gathered(run.results), &val);
        if !ranks.leads() {
            let score = ranks.broadcast(Vec::new());
            let score = score.try_into().map_or(f64::NAN, f64::from_le_bytes);
            self.judge(score);
            self.state.evaluation_due = false;
            return Ok(None);
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
            "stats": stats, "detections": detections, "failed": failed.len(), "seconds": seconds,
            "images_per_s": images as f64 / seconds, "train_seconds": self.state.seconds,
        });
        self.record(&line)?;
        // Written first, noted after: a kill between the two costs an evaluation, not the model.
        let best_by = self.setup.config.train.best_by;
        let score = best_by.of(&stats);
        if score < 0. {
            tracing::warn!(
                "train.best_by = {best_by:?} can't be measured on this split: the newest weights are kept"
            );
        }
        if score < 0. || self.is_best(score) {
            self.keep(Some(ap).filter(|&ap| ap >= 0.))?;
        }
        ranks.broadcast(score.to_le_bytes().to_vec());
        self.judge(score);
        self.state.evaluation_due = false;
        Ok(Some(evaluation))
    }

    fn is_best(&self, score: f64) -> bool {
        self.state.best.is_none_or(|(best, _)| score > best)
    }

    /// Notes whether `score` is the best so far; one that could not be measured is below 0, and says nothing.
    fn judge(&mut self, score: f64) {
        if score < 0. {
            return;
        }
        if self.is_best(score) {
            self.state.best = Some((score, self.state.step));
            self.state.stale = 0;
        } else {
            self.state.stale += 1;
        }
    }

    /// Writes the network as the run's model file.
    fn keep(&self, ap: Option<f64>) -> anyhow::Result<()> {
        if !self.leads() {
            return Ok(());
        }
        let config = &self.setup.config;
        let mut tensors = weights::collect(&self.judged().store, "");
        tensors.retain(|name, _| !image_head::is_of(name)); // of training alone
        let mut contents = Contents { tensors, ..Contents::default() };
        if config.train.half_precision_model {
            weights::halve(&mut contents);
        }
        let info = ModelInfo {
            config: config.clone(),
            categories: self.state.categories.clone(),
            trained: Trained { steps: self.state.step, images: self.setup.train.images.len(), ap },
        };
        info.write_to(&mut contents);
        self.check_finite(&contents)?;
        contents.write(&self.setup.run.join(checkpoint::BEST)).or_exit(Exit::Output)
    }
}

/// Results image by image as `val` has them: as one process gives them.
fn in_order(mut all: Vec<ResultEntry>, val: &Dataset) -> Vec<ResultEntry> {
    let images = val.images.iter().enumerate();
    let places: HashMap<i64, usize> = images.map(|(place, image)| (image.id, place)).collect();
    // Stable: an image's detections keep their order.
    all.sort_by_key(|entry| places.get(&entry.image_id));
    all
}
