//! Files that hold any network: what `info` describes, and `--weights` of `features` and `bench`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::Pooling;
use crate::failure::{Exit, OrExit as _};
use crate::nasnet::Wiring;
use crate::weights::import::{self, About, Layout, Settings};
use crate::weights::{
    ClassifierInfo, Contents, ModelInfo, PipelineConfig, SafetensorsFile, classifier, model,
    tf_bundle,
};

/// The file that `weights` means: a path, which may be that of a TensorFlow checkpoint, or the name of a
/// shipped model, also where a folder is called like it.
pub(super) fn resolve(weights: &str) -> anyhow::Result<PathBuf> {
    let given = Path::new(weights);
    if given.is_file() || !tf_bundle::files(given).is_empty() {
        return Ok(given.to_owned());
    }
    match model::resolve(Some(weights)) {
        // Who opens it says which checkpoint is not in it.
        Err(_) if given.is_dir() && !model::has_best(given) => Ok(given.to_owned()),
        found => found.or_exit(Exit::Weights),
    }
}

/// What the file says of itself, where it is a model file of ours.
pub(super) fn description(path: &Path) -> Option<BTreeMap<String, String>> {
    let file = SafetensorsFile::open(path).ok()?;
    let format = file.metadata().get("format")?;
    format.starts_with("detect-").then(|| file.metadata().clone())
}

/// What a model file that holds `contents` is, by its metadata.
pub(super) fn about(contents: &Contents, path: &Path) -> anyhow::Result<About> {
    Ok(if classifier::is_classifier(&contents.metadata) {
        let info = ClassifierInfo::read_from(contents, path).or_exit(Exit::Weights)?;
        About::Classifier(Box::new(info))
    } else {
        let info = ModelInfo::read_from(contents, path).or_exit(Exit::Weights)?;
        About::Detector(Box::new(info))
    })
}

/// The settings in the `pipeline.config` beside `source`, where it is a detector of TensorFlow's.
pub(super) fn pipeline(
    layout: Option<Layout>,
    source: &Path,
) -> anyhow::Result<Option<PipelineConfig>> {
    let folder = if source.is_dir() { Some(source) } else { source.parent() };
    let path = folder.map(|folder| folder.join("pipeline.config"));
    let path = path.filter(|path| layout == Some(Layout::TfDetector) && path.is_file());
    path.as_deref().map(PipelineConfig::read).transpose().or_exit(Exit::Weights)
}

/// The file's tensors in our names and what it is: a model file of ours, or any that `detect import`
/// takes, of which `wiring` and `pooling` say what it can't.
pub(super) fn read(
    path: &Path,
    wiring: Option<Wiring>,
    pooling: Option<Pooling>,
) -> anyhow::Result<(Contents, About)> {
    if description(path).is_some() {
        if wiring.is_some() || pooling.is_some() {
            return crate::fail!(
                Exit::Usage,
                "--wiring and --pooling are for files without a description; {} says both itself",
                path.display()
            );
        }
        let contents = Contents::read(path).or_exit(Exit::Weights)?;
        let about = about(&contents, path)?;
        return Ok((contents, about));
    }
    let mut source = import::open(path).or_exit(Exit::Weights)?;
    let pipeline = pipeline(Layout::recognise(source.as_ref()), path)?;
    let settings = Settings { wiring, pooling, pipeline, ..Settings::default() };
    let imported = import::import(source.as_mut(), None, &settings, path).or_exit(Exit::Weights)?;
    for note in &imported.notes {
        tracing::warn!("{note}");
    }
    let backbone = imported.about.backbone();
    tracing::info!(
        "{}: {}, {:?} wiring, {:?} pooling",
        imported.layout.title(),
        backbone.name,
        backbone.wiring,
        backbone.pooling
    );
    Ok((imported.contents, imported.about))
}
