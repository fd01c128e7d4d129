//! Classifiers: preprocessing and class names as their weights were published with.

use std::path::Path;

use super::{About, Settings, keras, section, tf_slim, timm, wanted};
use crate::config::Backbone;
use crate::data::classify::{ClassNames, Preprocessing};
use crate::geometry::Size;
use crate::nasnet::plan::published_size;
use crate::nasnet::{BackboneName, Form};
use crate::weights::{ClassifierInfo, Contents, Source, WeightsError};

/// Outputs without the background class that ImageNet's published networks have before the 1000.
fn without_background(outputs: usize) -> usize {
    if outputs == 1001 { 1000 } else { outputs }
}

fn class_names(classes: usize, form: Form) -> ClassNames {
    match (classes, form) {
        (1000, _) => ClassNames::imagenet(),
        (10, Form::Cifar) => ClassNames::cifar10(),
        _ => ClassNames::numbered(classes),
    }
}

fn classifier(
    backbone: Backbone,
    classes: usize,
    published: Preprocessing,
    settings: &Settings,
    origin: &str,
    path: &Path,
) -> Result<About, WeightsError> {
    let preprocessing = match settings.image_size {
        Some(to) => published.at(to.size()),
        None => published,
    };
    let classes = class_names(classes, backbone.name.form);
    let info = ClassifierInfo { backbone, preprocessing, classes, origin: origin.into() };
    // What the model file says must be what its readers take.
    info.check().map_err(|reason| WeightsError::NotAModel {
        path: path.into(),
        reason: format!("would make a classifier that nothing can run: {reason}"),
    })?;
    Ok(About::Classifier(Box::new(info)))
}

pub(super) fn from_timm(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(Contents, About), WeightsError> {
    let found = timm::Found::read(source.tensors(), "", path)?;
    let Some(outputs) = found.classes else {
        let backbone = timm::section(&found, settings, false);
        let wanted = timm::wanted(&found, &backbone, None);
        let contents = wanted::take(source, &wanted, timm::is_counter, path)?;
        return Ok((contents, About::Featurizer(Box::new(backbone))));
    };
    let classes = without_background(outputs);
    // timm's only NASNet; Cadene's large network has the same names and 1001 outputs.
    let by_timm = found.name == BackboneName::LARGE && outputs == 1000;
    let backbone = timm::section(&found, settings, by_timm);
    if settings.pooling.is_none() && found.name == BackboneName::LARGE && outputs != 1001 {
        notes.push(if by_timm {
            "it has 1000 classes, so it is taken for timm's own; Cadene's network without its background class needs --pooling tf".into()
        } else {
            format!("a network of {outputs} classes that was trained in timm needs --pooling timm")
        });
    }
    let wanted = timm::wanted(&found, &backbone, Some(classes));
    let contents = wanted::take(source, &wanted, timm::is_counter, path)?;
    let preprocessing = match found.name {
        BackboneName::LARGE if by_timm => Preprocessing::timm_large(),
        BackboneName::LARGE => Preprocessing::cadene_large(),
        BackboneName::MOBILE => Preprocessing::cadene_mobile(),
        name => Preprocessing::plain(Size::new(published_size(name), published_size(name))),
    };
    let origin = if by_timm { "timm" } else { "PyTorch state dict" };
    Ok((contents, classifier(backbone, classes, preprocessing, settings, origin, path)?))
}

pub(super) fn from_tf_slim(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
) -> Result<(Contents, About), WeightsError> {
    let found = tf_slim::Found::read(source.tensors(), path)?;
    let classes = without_background(found.classes);
    let backbone = section(found.name, found.stem_filters, settings, false);
    let wanted = tf_slim::wanted(&found, &backbone, classes, source.tensors(), settings.raw);
    let known: Vec<String> =
        wanted.iter().map(|w| tf_slim::without_slot(&w.from).to_owned()).collect();
    let left_over = |name: &str| {
        // With averages taken, the variables themselves are left over.
        tf_slim::is_ignored(name) || known.iter().any(|variable| variable == name)
    };
    let contents = wanted::take(source, &wanted, left_over, path)?;
    let side = published_size(found.name);
    let preprocessing = match found.name.form {
        Form::Cifar => Preprocessing::plain(Size::new(side, side)),
        Form::ImageNet | Form::Strided => Preprocessing::tf_slim(side),
    };
    Ok((
        contents,
        classifier(backbone, classes, preprocessing, settings, "TF-slim checkpoint", path)?,
    ))
}

pub(super) fn from_keras(
    source: &mut dyn Source,
    settings: &Settings,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(Contents, About), WeightsError> {
    let found = keras::Found::read(source.tensors(), path)?;
    let backbone = section(found.name, found.stem_filters, settings, false);
    let contents =
        wanted::take(source, &keras::wanted(&found, &backbone), keras::is_ignored, path)?;
    notes.push(keras::NOTE.into());
    let side = published_size(found.name);
    let preprocessing = Preprocessing::plain(Size::new(side, side));
    Ok((
        contents,
        classifier(backbone, found.classes, preprocessing, settings, "Keras weight file", path)?,
    ))
}
