//! Configurations of earlier versions of the program, as JSON: they travel in model files and checkpoints.
//!
//! Version 2 added keys to version 1; version 3 gathered those of the optimizer and added more.

use serde_json::{Map, Value, json};

/// Keys of version 3, and values that mean what was done without them: section, key, value.
fn added() -> [(&'static str, &'static str, Value); 15] {
    [
        ("rpn", "channels", json!(0)),
        ("roi", "max_per_class", json!(0)),
        ("data", "sampling", json!("uniform")),
        ("data", "rare_under", json!(0.001)),
        (
            "train",
            "loss_weights",
            json!({ "objectness": 1.0, "rpn_box": 1.0, "class": 1.0, "box": 1.0 }),
        ),
        ("train", "drop_path_steps", json!(0)),
        ("train", "accumulate", json!(1)),
        ("train", "recompute", json!(false)),
        ("train", "skip_non_finite", json!(0)),
        ("train", "precision", json!("float32")),
        ("train", "freeze", json!([])),
        ("train", "label_smoothing", json!(0.0)),
        ("train", "best_by", json!("AP")),
        ("train", "patience", json!(0)),
        ("train.augment", "short_sides", json!([])),
    ]
}

/// Whether a configuration is of an earlier version.
pub(super) fn is_old(config: &Value) -> bool {
    let train = config.get("train");
    train.is_some_and(|train| train.get("optimizer").is_none() && train.get("momentum").is_some())
}

/// Makes a configuration of version 1 or 2 one of version 3: keys that were added get the value that means
/// what was done before. What is not as expected stays, for the reader to complain about.
pub fn upgrade(config: &mut Value) {
    let mut section = |name: &str, change: &dyn Fn(&mut Map<String, Value>)| {
        let found = name.split('.').try_fold(&mut *config, |at, part| at.get_mut(part));
        if let Some(Value::Object(section)) = found {
            change(section);
        }
    };
    section("backbone", &|backbone| {
        if let Some(norm) = backbone.get("norm").cloned() {
            backbone.entry("tail_norm").or_insert(norm);
        }
    });
    section("input", &|input| {
        if let (Some(short), Some(long)) = (input.remove("short_side"), input.remove("long_side")) {
            let resize = json!({ "kind": "short_side", "short_side": short, "long_side": long });
            input.insert("resize".into(), resize);
        }
    });
    section("train", &|train| {
        let mut take = |key: &str, default: Value| train.remove(key).unwrap_or(default);
        let (momentum, rate) = (take("momentum", Value::Null), take("weight_decay", Value::Null));
        let (norm, heads) = (take("decay_norm", Value::Null), take("decay_heads", json!(true)));
        let clip = match take("clip_norm", Value::Null) {
            off if off.as_f64() == Some(0.) => json!({ "kind": "none" }),
            norm => json!({ "kind": "global", "norm": norm }),
        };
        let decay = json!({ "rate": rate, "how": "after_clipping", "norm": norm, "heads": heads });
        train.insert("optimizer".into(), json!({ "kind": "sgd", "momentum": momentum }));
        train.insert("weight_decay".into(), decay);
        train.insert("clip".into(), clip);
    });
    for (name, key, value) in added() {
        section(name, &|section| {
            section.entry(key).or_insert_with(|| value.clone());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Clip, Config, Decay, Optimizer, Precision, WeightDecay};

    #[test]
    fn a_recipe_of_the_old_form_means_what_it_did() {
        let new = include_str!("../../configs/peer_c4.toml");
        let mut lines: Vec<&str> = (new.lines())
            .filter(|line| {
                let key = line.split(' ').next().unwrap();
                let added = added();
                !["optimizer", "weight_decay", "clip"].contains(&key)
                    && (key == "channels" || !added.iter().any(|(_, added, _)| *added == key))
            })
            .collect();
        lines.extend(["momentum = 0.8", "weight_decay = 2e-4", "decay_norm = true"]);
        lines.extend(["decay_heads = false", "clip_norm = 0.0"]);
        let old = lines.join("\n").replace(", short_sides = []", "");
        let read = Config::from_toml(&old, "old", &["train.lr=0.5".parse().unwrap()]).unwrap();
        let mut expected = Config::from_toml(new, "new", &[]).unwrap();
        expected.train.lr = 0.5;
        expected.train.precision = Precision::Float32;
        expected.train.optimizer = Optimizer::Sgd { momentum: 0.8 };
        let how = Decay::AfterClipping;
        expected.train.weight_decay = WeightDecay { rate: 2e-4, how, norm: true, heads: false };
        expected.train.clip = Clip::None;
        assert_eq!(read, expected);
        // A mistake in it is still told.
        let wrong = old.replace("momentum = 0.8", "momentum = \"fast\"");
        let error = Config::from_toml(&wrong, "old", &[]).unwrap_err().to_string();
        assert!(error.contains("[train.optimizer]") && error.contains("fast"), "{error}");
    }
}
