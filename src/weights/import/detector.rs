//! Detectors: their configuration and categories.

use std::path::Path;

use super::{About, Settings, tf_detector, tf_slim, timm, torchvision, wanted};
use crate::config::Config;
use crate::data::Category;
use crate::weights::model::Trained;
use crate::weights::{Contents, ModelInfo, Source, WeightsError, label_map};

/// Outputs of a detector of COCO: its largest category id, though ten ids below are not used.
const COCO_OUTPUTS: usize = 90;

/// The categories of a detector of `classes` classes.
fn categories(
    classes: usize,
    settings: &Settings,
    path: &Path,
) -> Result<Vec<Category>, WeightsError> {
    let error = |reason: String| WeightsError::NotAModel { path: path.into(), reason };
    if let Some(given) = &settings.categories {
        // A label map may leave out ids, as COCO's does: outputs are numbered by id.
        let by_id = |id: i64| given.iter().find(|category| category.id == id);
        if given.iter().any(|c| c.id < 1 || c.id > classes as i64) {
            return Err(error(format!("has {classes} classes, but the label map has other ids")));
        }
        return Ok((1..=classes as i64)
            .map(|id| by_id(id).cloned().unwrap_or_else(|| numbered(id)))
            .collect());
    }
    if classes == COCO_OUTPUTS {
        let coco = label_map::coco();
        let by_id = |id: i64| coco.iter().find(|category| category.id == id).cloned();
        return Ok((1..=classes as i64)
            .map(|id| by_id(id).unwrap_or_else(|| numbered(id)))
            .collect());
    }
    Ok((1..=classes as i64).map(numbered).collect())
}

/// A category of which nothing but the id is known.
fn numbered(id: i64) -> Category {
    Category { id, name: format!("class {id}") }
}

fn detector(config: Config, categories: Vec<Category>) -> About {
    About::Detector(Box::new(ModelInfo { config, categories, trained: Trained::default() }))
}

pub(super) fn from_tf(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(Contents, About), WeightsError> {
    let found = tf_detector::Found::read(source.tensors(), path)?;
    let config = found.config(settings, path)?;
    if settings.pipeline.is_none() {
        notes.push("there is no pipeline.config beside it: the settings are those of the published configuration".into());
    }
    if source.tensors().keys().any(|name| name.ends_with(tf_slim::AVERAGE)) {
        notes.push("it has moving averages, which TensorFlow's detectors use only where they are told to: its variables are taken".into());
    }
    let categories = categories(found.classes, settings, path)?;
    let wanted = tf_detector::wanted(&config, found.classes);
    let other_constants = source.has_other_constants();
    let left_over =
        |name: &str| tf_slim::is_ignored(name) || (other_constants && !tf_slim::is_weight(name));
    let contents = wanted::take(source, &wanted, left_over, path)?;
    Ok((contents, detector(config, categories)))
}

pub(super) fn from_torchvision(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(Contents, About), WeightsError> {
    let found = torchvision::Found::read(source.tensors(), path)?;
    let config = found.config(settings, path)?;
    if settings.recipe.is_none() {
        notes.push("a state dict says nothing of anchors, image size and thresholds: they are those of the recipe peer_c4; name another with --config".into());
    }
    let categories = categories(found.classes, settings, path)?;
    let wanted = found.wanted(&config);
    let left_over = |name: &str| timm::is_counter(name) || found.is_behind_the_cut(&config, name);
    let contents = wanted::take(source, &wanted, left_over, path)?;
    Ok((contents, detector(config, categories)))
}
