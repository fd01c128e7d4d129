//! Parts that do not learn, by name.

use glob::{MatchOptions, Pattern};
use tch::nn::VarStore;
use thiserror::Error;

use crate::weights::named_variables;

/// Why `train.freeze` can't be followed.
#[derive(Debug, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum FreezeError {
    #[error("train.freeze: '{pattern}' is not a pattern: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("train.freeze: '{pattern}' matches nothing; the parts are {parts}")]
    Nothing { pattern: String, parts: String },
    #[error("train.freeze: nothing is left that learns")]
    All,
}

/// Takes the gradient from every variable whose name, or a part of it up to a dot, matches one of `patterns`.
/// Batch norms without a gradient use their running statistics.
pub fn freeze(store: &VarStore, patterns: &[String]) -> Result<(), FreezeError> {
    let variables = named_variables(store);
    for text in patterns {
        let pattern = Pattern::new(text).map_err(|error| FreezeError::Pattern {
            pattern: text.clone(),
            reason: error.to_string(),
        })?;
        let matches = |part: &str| pattern.matches_with(part, MatchOptions::new());
        let mut found = false;
        for (name, variable) in &variables {
            let mut ends = name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
            if ends.any(|end| matches(&name[..end])) {
                let _ = variable.set_requires_grad(false);
                found = true;
            }
        }
        if !found {
            let mut parts: Vec<String> = (variables.keys())
                .map(|name| name.split('.').take(2).collect::<Vec<_>>().join("."))
                .collect();
            parts.dedup();
            return Err(FreezeError::Nothing { pattern: text.clone(), parts: parts.join(", ") });
        }
    }
    if !variables.values().any(tch::Tensor::requires_grad) {
        return Err(FreezeError::All);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use detect::config::Config;
    use tch::{Device, Kind, Tensor};

    use crate::detector::{FasterRcnn, Images, Truth};
    use crate::nn::Mode;

    #[test]
    fn what_is_frozen_stays_and_its_batch_norm_too() {
        let _alone = crate::nn::alone();
        let config = Config::recipe("tiny", &[]).unwrap();
        let store = VarStore::new(Device::Cpu);
        let detector = FasterRcnn::new(&store.root(), &config, 2);
        let patterns = ["backbone.conv0", "backbone.cell_stem_*"].map(String::from);
        freeze(&store, &patterns).unwrap();
        let before: Vec<(String, Tensor)> =
            named_variables(&store).into_iter().map(|(n, v)| (n, v.copy())).collect();
        let pixels = Tensor::rand([1, 3, 96, 96], (Kind::Float, Device::Cpu));
        let images = Images { pixels, sizes: vec![detect::geometry::Size::new(96, 96)] };
        let losses = detector.losses(&images, &[Truth::default()], Mode::Train { progress: 0. });
        losses.total(&config.train.loss_weights).backward();
        let now = named_variables(&store);
        let (mut frozen, mut moved) = (0, 0);
        for (name, before) in before {
            let stem = name.starts_with("backbone.conv0") || name.starts_with("backbone.cell_stem");
            if stem {
                assert!(!now[&name].requires_grad() && !now[&name].grad().defined(), "{name}");
                assert!(now[&name].equal(&before), "{name} moved");
                frozen += 1;
            } else if name.contains("running_mean") && name.starts_with("backbone.cell_0") {
                assert!(!now[&name].equal(&before), "{name} stayed");
                moved += 1;
            }
        }
        assert!(frozen > 30 && moved > 3, "{frozen} frozen, {moved} moved");
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_named() {
        let store = VarStore::new(Device::Cpu);
        for (module, leaf) in [("backbone", "conv0"), ("rpn", "conv")] {
            let _weight = (store.root() / module / leaf).ones("weight", &[1]);
        }
        let told = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            freeze(&store, &patterns).map_err(|e| e.to_string())
        };
        // A name is matched whole or up to a dot, not in the middle of a word.
        let error = told(&["backbone.conv"]).unwrap_err();
        assert!(error.contains("'backbone.conv' matches nothing"), "{error}");
        assert!(error.contains("backbone.conv0, rpn.conv"), "{error}");
        assert!(told(&["back[bone"]).unwrap_err().contains("is not a pattern"));
        assert_eq!(told(&["backbone.conv?"]), Ok(()));
        assert_eq!(told(&["*.weight"]).unwrap_err(), "train.freeze: nothing is left that learns");
    }
}
