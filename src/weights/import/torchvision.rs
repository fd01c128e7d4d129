//! Detectors of torchvision (`FasterRCNN`) whose featurizer is a NASNet in timm's names.
//!
//! The featurizer may be whole, or pruned to its map of stride 16 (timm's `prune_intermediate_layers`).
//! A state dict says nothing of anchors, image sizes and thresholds: these come from a recipe.

use std::collections::BTreeMap;
use std::path::Path;

use super::heads::{self, HeadTensor};
use super::wanted::{Sides, Wanted};
use super::{Settings, timm};
use crate::config::{Config, Cut, Head, Rules};
use crate::nasnet::layers::NetworkTensor;
use crate::weights::classifier::MOST_CLASSES;
use crate::weights::{TensorInfo, WeightsError};

/// The recipe of what a state dict does not say: the usual NASNet detector of this form.
const RECIPE: &str = "peer_c4";

/// The RPN's convolution by its name of today.
const RPN_CONV: &str = "rpn.head.conv.0.0";

/// What the names and shapes of a file say of the detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The featurizer.
    pub featurizer: timm::Found,
    /// `backbone.`, or longer where the featurizer is a part of another module.
    prefix: String,
    /// Without background.
    pub classes: usize,
    mlp_width: usize,
    mlp_inputs: usize,
    map_channels: usize,
    rpn_conv: &'static str,
    anchors: usize,
}

/// The RPN's convolution, which had a shorter name before torchvision 0.14.
fn rpn_conv(tensors: &BTreeMap<String, TensorInfo>) -> &'static str {
    if tensors.contains_key("rpn.head.conv.weight") { "rpn.head.conv" } else { RPN_CONV }
}

impl Found {
    /// Reads names and shapes.
    pub fn read(tensors: &BTreeMap<String, TensorInfo>, path: &Path) -> Result<Self, WeightsError> {
        let error = |reason: String| WeightsError::NotAModel {
            path: path.into(),
            reason: format!("is no Faster R-CNN of torchvision on a NASNet: {reason}"),
        };
        let side = |name: &str, side: usize| {
            let shape = tensors.get(name).map(|tensor| tensor.shape.as_slice());
            let found = shape.and_then(|shape| shape.get(side).copied());
            found.ok_or_else(|| error(format!("there is no {name}")))
        };
        let stem = tensors.keys().find_map(|name| name.strip_suffix("conv0.conv.weight"));
        let prefix = stem.filter(|prefix| prefix.starts_with("backbone."));
        let prefix = prefix
            .ok_or_else(|| error("there is no backbone.conv0.conv.weight".into()))?
            .to_owned();
        if tensors.keys().any(|name| name.contains(".fpn.")) {
            return Err(error("it has a feature pyramid, which is not supported".into()));
        }
        let featurizer = timm::Found::read(tensors, &prefix, path)?;
        let outputs = side("roi_heads.box_predictor.cls_score.weight", 0)?;
        let classes = outputs.checked_sub(1).filter(|n| (1..=MOST_CLASSES).contains(n));
        let range =
            || format!("its classifier has {outputs} outputs; expected 2 to {}", MOST_CLASSES + 1);
        Ok(Self {
            featurizer,
            prefix,
            classes: classes.ok_or_else(|| error(range()))?,
            mlp_width: side("roi_heads.box_head.fc6.weight", 0)?,
            mlp_inputs: side("roi_heads.box_head.fc6.weight", 1)?,
            map_channels: side(&format!("{}.weight", rpn_conv(tensors)), 1)?,
            rpn_conv: rpn_conv(tensors),
            anchors: side("rpn.head.cls_logits.weight", 0)?,
        })
    }

    /// The whole configuration: the recipe, with what the file says, then what the user says.
    pub fn config(&self, settings: &Settings, path: &Path) -> Result<Config, WeightsError> {
        let error = |reason: String| WeightsError::NotAModel { path: path.into(), reason };
        let mut config = match &settings.recipe {
            Some(recipe) => recipe.clone(),
            None => Config::recipe(RECIPE, &[]).expect("the shipped recipes are checked"),
        };
        config.name = "imported".into();
        // timm's class has six cells a stage, and its pooling.
        let by_timm = self.featurizer.name.cells_per_stage == 6;
        let section = timm::section(&self.featurizer, settings, by_timm);
        config.backbone.name = section.name;
        config.backbone.wiring = section.wiring;
        config.backbone.stem_filters = section.stem_filters;
        config.backbone.pooling = section.pooling;
        config.backbone.genotype = None;
        let detector = &mut config.detector;
        detector.rules = Rules::Torchvision;
        detector.head = Head::Mlp;
        detector.mlp_width = self.mlp_width;
        let plan = config.backbone.plan();
        let [first, last] = plan
            .stride_16()
            .ok_or_else(|| error(format!("{} has no map of stride 16", section.name)))?;
        let (pair, one) = (plan.channels(first) + plan.channels(last), plan.channels(last));
        detector.cut = match self.map_channels {
            n if n == one => Cut::Last,
            n if n == pair => Cut::Pair,
            n => {
                return Err(error(format!(
                    "has heads on {n} channels; the maps of stride 16 have {one}, or {pair} together"
                )));
            }
        };
        let crop = (self.mlp_inputs / self.map_channels.max(1)).isqrt();
        if crop * crop * self.map_channels != self.mlp_inputs {
            return Err(error(format!(
                "has a box head of {} inputs, which is no square crop of {} channels",
                self.mlp_inputs, self.map_channels
            )));
        }
        detector.crop_size = crop;
        if let Some(to) = settings.image_size {
            config.input.resize = config.input.resize.at(to);
        }
        if let Some(proposals) = settings.proposals {
            config.rpn.post_nms_eval = proposals;
        }
        if let Some(score) = settings.score {
            config.roi.score_floor = score;
        }
        if config.anchors.per_cell() != self.anchors {
            return Err(error(format!(
                "predicts {} anchors at each cell, but the recipe has {}; name one that fits with --config",
                self.anchors,
                config.anchors.per_cell()
            )));
        }
        config.check().map_err(|e| error(format!("can't be run with its settings: {e}")))?;
        Ok(config)
    }

    /// What to take, for a configuration of [`Self::config`].
    pub fn wanted(&self, config: &Config) -> Vec<Wanted> {
        let plan = config.backbone.plan();
        let made = heads::cells(config);
        let named = |tensor: &NetworkTensor<'_>| {
            format!("{}{}", self.prefix, self.featurizer.name_of(tensor))
        };
        let featurizer = (plan.tensors())
            .filter(|tensor| tensor.site.is_none_or(|site| site.number < made))
            .map(|tensor| Wanted {
                name: format!("backbone.{}", tensor.name()),
                from: named(&tensor),
                shape: tensor.shape,
                sides: Sides::Same,
                rows: None,
            });
        let heads = heads::tensors(config, self.classes).into_iter();
        let heads = heads.map(|HeadTensor { name, shape }| Wanted {
            from: name.replace(RPN_CONV, self.rpn_conv),
            name,
            shape,
            sides: Sides::Same,
            rows: None,
        });
        featurizer.chain(heads).collect()
    }

    /// Whether `name` belongs to the cells behind the cut, which such a detector has and does not run.
    pub fn is_behind_the_cut(&self, config: &Config, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(&self.prefix) else { return false };
        let plan = config.backbone.plan();
        let made = heads::cells(config);
        plan.cells[made..].iter().any(|site| {
            let number = site.name.strip_prefix("cell_").and_then(|n| n.parse::<usize>().ok());
            let theirs = number.and_then(|n| self.featurizer.numbers.get(n));
            let cell = theirs.map_or_else(|| site.name.clone(), |n| format!("cell_{n}"));
            rest.strip_prefix(&cell).is_some_and(|rest| rest.starts_with('.'))
        }) || rest.starts_with("last_linear.")
    }
}
