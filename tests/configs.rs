//! Every recipe in configs/ works, and is compiled in; overrides and mistakes are told clearly.

use std::fs;
use std::path::Path;

use detect::config::{Config, ConfigError, Override, RECIPES, recipe_for};
use detect::nasnet::BackboneName;

fn set(text: &str) -> Result<Config, ConfigError> {
    Config::recipe("tiny", &[text.parse::<Override>()?])
}

#[test]
fn every_recipe_is_whole_compiled_in_and_called_like_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // configs/cells has no recipes; tests/cells.rs reads it.
        if path.is_dir() {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let config = Config::from_file(&path, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(config.name, name);
        assert_eq!(Config::recipe(&name, &[]).unwrap(), config, "compiled in");
        let again = Config::from_toml(&config.to_toml(), "text", &[]).unwrap();
        assert_eq!(again, config, "written and read again");
        let header = fs::read_to_string(&path).unwrap();
        assert!(header.contains("detect train"), "{name} names its command");
        files += 1;
    }
    assert_eq!(files, RECIPES.len());
}

#[test]
fn published_backbones_have_recipes_of_their_own() {
    for (name, recipe) in [
        (BackboneName::LARGE, "nasnet_large_coco"),
        (BackboneName::MOBILE, "nasnet_mobile_coco"),
        ("nasnet-a-2@192".parse().unwrap(), "default"),
    ] {
        assert_eq!(recipe_for(name), recipe);
    }
    let large = Config::recipe("nasnet_large_coco", &[]).unwrap();
    assert_eq!(large.backbone.name, BackboneName::LARGE);
}

#[test]
fn keys_can_be_changed_by_name() {
    assert_eq!(set("train.lr=0.5").unwrap().train.lr, 0.5);
    assert_eq!(set("backbone.name=nasnet-a-2@192").unwrap().backbone.name.channels, 192);
    assert_eq!(set("anchors.sizes=[8.0, 16.0]").unwrap().anchors.sizes, [8., 16.]);
    assert_eq!(set("train.augment.flip=0").unwrap().train.augment.flip, 0.);
}

#[test]
fn mistakes_name_the_key() {
    let message = |text: &str| {
        let error = set(text).map(|_| ()).expect_err(text);
        format!("{:#}", anyhow::Error::new(error))
    };
    for (text, part) in [
        ("train.lr", "expected KEY=VALUE"),
        ("train.lr=fast", "train.lr"),
        ("train.rate=1", "unknown field `rate`"),
        ("trains.lr=1", "no section 'trains'"),
        ("train.lr=-1", "train.lr: must be positive"),
        ("train.batch=0", "train.batch: must be 1 to 65536"),
        (
            "train.batch=abc",
            "--set train.batch=\"abc\": invalid type: string \"abc\", expected a whole number",
        ),
        ("train=1", "--set train=1: invalid type: integer `1`, expected the section Train"),
        ("=1", "expected KEY=VALUE"),
        ("train.accumulate=4611686018427387904", "train.accumulate: must be 1 to 65536"),
        ("train.loader.prefetch=9223372036854775807", "train.loader.prefetch: must be 1 to 4096"),
        ("train.loader.threads=100000", "train.loader.threads: must be 1 to 1024"),
        ("train.epochs=9223372036854775807", "train.epochs: must be at most 4294967295"),
        ("backbone.name=resnet50", "not a backbone"),
        ("backbone.name=nasnet-a-5@1538", "nasnet-a-5@1536"),
        ("detector.cut=last", "'tail' needs detector.cut = 'pair'"),
        ("detector.rules=tf", "must be 0 with the rules 'tf'"),
        ("roi.max_per_class=5", "which limit no class"),
        ("anchors.sizes=[]", "anchors"),
        ("rpn.nms_iou=1.5", "rpn.nms_iou: must be between 0 and 1"),
        ("input.resize.short_side=7", "input.resize.short_side"),
        ("input.resize.long_side=95", "must not be below short_side"),
        ("input.resize={kind=\"fixed\", height=64, width=64}", "must be 'short_side'"),
        ("train.loss_weights.box=-1", "train.loss_weights"),
        ("train.optimizer={kind=\"sgd\", momentum=1.0}", "train.optimizer.momentum"),
        ("train.optimizer={kind=\"rmsprop\", rho=0.9, momentum=0.9, eps=0.0}", "optimizer.eps"),
        ("train.optimizer={kind=\"adamw\", betas=[0.9, 1.0], eps=1e-8}", "optimizer.betas"),
        ("train.optimizer.kind=lion", "unknown variant `lion`"),
        ("train.clip.norm=0.0", "train.clip.norm: must be positive"),
        ("train.weight_decay.rate=-1.0", "train.weight_decay.rate"),
        ("train.accumulate=0", "train.accumulate: must be 1 to 65536"),
        ("train.label_smoothing=1.0", "train.label_smoothing"),
        (
            "train.schedule={kind=\"exponential\", factor=2.0, epochs=1.0, staircase=true}",
            "train.schedule",
        ),
        ("train.schedule={kind=\"step\", milestones=[16, 22], factor=0.1}", "shares of all steps"),
        ("train.schedule={kind=\"step\", milestones=[0.9, 0.1], factor=0.1}", "rising milestones"),
        ("train.schedule={kind=\"step\", milestones=[nan], factor=0.1}", "train.schedule"),
        ("train.schedule={kind=\"step\", milestones=[0.5], factor=-0.1}", "train.schedule"),
        ("train.schedule={kind=\"step\", milestones=[0.5], factor=nan}", "train.schedule"),
        ("input.mean=[nan, 0.0, 0.0]", "input.mean: must be finite"),
        ("train.augment.short_sides=[96]", "train.augment.scale: must be [1.0, 1.0]"),
        ("train.precision=half", "unknown variant `half`"),
        ("train.best_by=AP5", "unknown variant `AP5`"),
        ("data.rare_under=2.0", "data.rare_under"),
        ("name=a/b", "name"),
    ] {
        let found = message(text);
        assert!(found.contains(part), "{text}: {found}");
    }
    let unknown = Config::recipe("no-such", &[]).unwrap_err().to_string();
    assert!(unknown.contains("no recipe 'no-such'") && unknown.contains("bccd"), "{unknown}");
}

#[test]
fn a_mistake_in_a_file_is_shown_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.toml");
    let text = RECIPES[0].1.replace("[rpn]", "[rpn]\nsampeld = 3");
    fs::write(&path, text).unwrap();
    let error = Config::from_file(&path, &[]).unwrap_err().to_string();
    assert!(
        error.contains("bad.toml") && error.contains("sampeld") && error.contains('^'),
        "{error}"
    );
    let missing = Config::from_file(&dir.path().join("none.toml"), &[]).unwrap_err().to_string();
    assert!(missing.contains("none.toml"), "{missing}");
}
