//! Whether a configuration makes sense.

use super::{Config, ConfigError, Cut, Head, LossWeights, Resize, Rules, Schedule};

/// More is a mistake; two of them multiplied still are a number.
const MANY: usize = u32::MAX as usize;

fn refuse(key: &'static str, reason: &str) -> Result<(), ConfigError> {
    Err(ConfigError::Value { key, reason: reason.to_owned() })
}

impl Config {
    /// Refuses values that can't work, by key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fraction = |key: &'static str, x: f64| {
            if (0. ..=1.).contains(&x) { Ok(()) } else { refuse(key, "must be between 0 and 1") }
        };
        if self.name.is_empty()
            || self.name.contains(['/', '\\', '\0'])
            || self.name.starts_with('.')
        {
            return refuse("name", "must be a plain word: run folders are named after it");
        }
        if self.backbone.stem_filters == 0 || self.backbone.stem_filters > 1024 {
            return refuse("backbone.stem_filters", "must be 1 to 1024");
        }
        match self.backbone.check() {
            Err(e) => return refuse("backbone.name", &e.to_string()),
            Ok(plan) if plan.stride_16().is_none() => {
                let reason = "has no two maps of stride 16, where a detector is cut; it is a classifier only";
                return refuse("backbone.name", reason);
            }
            Ok(_) => {}
        }
        if self.backbone.norm_eps.is_nan() || self.backbone.norm_eps <= 0. {
            return refuse("backbone.norm_eps", "must be positive");
        }
        fraction("backbone.norm_momentum", self.backbone.norm_momentum)?;
        if !(self.backbone.drop_path_keep > 0. && self.backbone.drop_path_keep <= 1.) {
            return refuse("backbone.drop_path_keep", "must be above 0 and at most 1 (1 is off)");
        }
        let detector = &self.detector;
        if detector.head == Head::Tail && detector.cut != Cut::Pair {
            return refuse(
                "detector.head",
                "'tail' needs detector.cut = 'pair': the next cell reads both maps",
            );
        }
        if !(1..=64).contains(&detector.crop_size) {
            return refuse("detector.crop_size", "must be 1 to 64");
        }
        if detector.head == Head::Mlp && detector.mlp_width == 0 {
            return refuse("detector.mlp_width", "must be positive");
        }
        if self.anchors.per_cell() == 0
            || !self
                .anchors
                .sizes
                .iter()
                .chain(&self.anchors.ratios)
                .all(|x| x.is_finite() && *x > 0.)
        {
            return refuse("anchors", "needs at least one size and one ratio, all positive");
        }
        for (key, x) in [
            ("rpn.positive_iou", self.rpn.positive_iou),
            ("rpn.negative_iou", self.rpn.negative_iou),
            ("rpn.positive_fraction", self.rpn.positive_fraction),
            ("rpn.nms_iou", self.rpn.nms_iou),
            ("roi.positive_iou", self.roi.positive_iou),
            ("roi.positive_fraction", self.roi.positive_fraction),
            ("roi.score_floor", self.roi.score_floor),
            ("roi.nms_iou", self.roi.nms_iou),
            ("train.augment.flip", self.train.augment.flip),
            ("train.augment.vertical_flip", self.train.augment.vertical_flip),
            ("train.augment.color", self.train.augment.color),
            ("data.rare_under", self.data.rare_under),
        ] {
            fraction(key, x)?;
        }
        if self.rpn.negative_iou > self.rpn.positive_iou {
            return refuse("rpn.negative_iou", "must not be above rpn.positive_iou");
        }
        for (key, n, most) in [
            ("rpn.sampled", self.rpn.sampled, MANY),
            ("rpn.post_nms_train", self.rpn.post_nms_train, MANY),
            ("rpn.post_nms_eval", self.rpn.post_nms_eval, MANY),
            ("roi.sampled", self.roi.sampled, MANY),
            ("roi.max_detections", self.roi.max_detections, MANY),
            ("train.batch", self.train.batch, 1 << 16),
            ("train.accumulate", self.train.accumulate, 1 << 16),
            ("train.log_every", self.train.log_every, MANY),
            ("train.checkpoint_every", self.train.checkpoint_every, MANY),
            ("train.loader.threads", self.train.loader.threads, 1 << 10),
            ("train.loader.prefetch", self.train.loader.prefetch, 1 << 12),
        ] {
            if !(1..=most).contains(&n) {
                return refuse(key, &format!("must be 1 to {most}"));
            }
        }
        self.check_input()?;
        self.check_rules()?;
        let train = &self.train;
        if train.steps == 0 && train.epochs == 0 {
            return refuse("train.epochs", "either epochs or steps must be positive");
        }
        for (key, n) in [("train.epochs", train.epochs), ("train.steps", train.steps)] {
            if n > MANY {
                return refuse(key, &format!("must be at most {MANY}"));
            }
        }
        if !(train.lr > 0. && train.lr.is_finite()) {
            return refuse("train.lr", "must be positive");
        }
        train.optimizer.check().or_else(|(key, reason)| refuse(key, reason))?;
        if !(train.weight_decay.rate >= 0. && train.weight_decay.rate.is_finite()) {
            return refuse("train.weight_decay.rate", "must not be negative (0 is off)");
        }
        if train.clip.norm().is_some_and(|norm| !(norm > 0. && norm.is_finite())) {
            return refuse(
                "train.clip.norm",
                "must be positive; train.clip = { kind = \"none\" } is off",
            );
        }
        let LossWeights { objectness, rpn_box, class, box_, auxiliary } = train.loss_weights;
        if ![objectness, rpn_box, class, box_, auxiliary].iter().all(|w| w.is_finite() && *w >= 0.)
        {
            return refuse("train.loss_weights", "must not be negative");
        }
        if !(0. ..1.).contains(&train.ema.decay) {
            return refuse("train.ema.decay", "must be at least 0 (off) and under 1");
        }
        self.check_recipe()
    }

    /// Augmentation and what else came with recipes.
    fn check_recipe(&self) -> Result<(), ConfigError> {
        let train = &self.train;
        let [low, high] = train.augment.scale;
        let sides = &train.augment.short_sides;
        let varies = matches!(self.input.resize, Resize::ShortSide { .. });
        if [low, high] != [1., 1.] && !(varies && sides.is_empty()) {
            return refuse(
                "train.augment.scale",
                "must be [1.0, 1.0]: only input.resize of kind 'short_side' varies in size, by this or by train.augment.short_sides",
            );
        }
        if !(0.1 <= low && low <= high && high <= 4.) {
            return refuse("train.augment.scale", "must be [low, high] within 0.1 to 4");
        }
        if let Resize::ShortSide { long_side, .. } = self.input.resize {
            if !sides.iter().all(|side| (32..=4096.min(long_side)).contains(side)) {
                return refuse(
                    "train.augment.short_sides",
                    "must be 32 to 4096 and not above input.resize.long_side",
                );
            }
        } else if !sides.is_empty() {
            return refuse(
                "train.augment.short_sides",
                "must be [] where input.resize is not of kind 'short_side'",
            );
        }
        if !(0. ..1.).contains(&train.label_smoothing) {
            return refuse("train.label_smoothing", "must be at least 0 (off) and under 1");
        }
        let falls = |factor: f64| factor > 0. && factor <= 1.;
        match &train.schedule {
            Schedule::Constant | Schedule::Cosine => {}
            Schedule::Step { milestones, factor } => {
                let shares = milestones.iter().all(|at| (0. ..=1.).contains(at));
                if !(falls(*factor) && shares && milestones.is_sorted()) {
                    return refuse(
                        "train.schedule",
                        "needs a factor above 0 and at most 1, and rising milestones that are shares of all steps, \
                         0 to 1: of 24 epochs, the ends of the 16th and 22nd are [0.667, 0.917]",
                    );
                }
            }
            Schedule::Exponential { factor, epochs, .. } => {
                if !(falls(*factor) && *epochs > 0. && epochs.is_finite()) {
                    return refuse(
                        "train.schedule",
                        "needs a factor above 0 and at most 1, and a positive number of epochs",
                    );
                }
            }
        }
        Ok(())
    }

    fn check_input(&self) -> Result<(), ConfigError> {
        const SIDE: &str = "sides must be 32 to 4096, the limit of the long one up to 8192";
        let side = |n: usize| (32..=4096).contains(&n);
        let limit = |n: usize| (32..=8192).contains(&n);
        match self.input.resize {
            Resize::ShortSide { short_side, long_side } => {
                if !side(short_side) || !limit(long_side) {
                    return refuse("input.resize.short_side", SIDE);
                }
                if long_side < short_side {
                    return refuse("input.resize.long_side", "must not be below short_side");
                }
            }
            Resize::Fixed { height, width } => {
                if !side(height) || !side(width) {
                    return refuse("input.resize.height", SIDE);
                }
            }
            Resize::KeepAspect { min_dimension, max_dimension, pad } => {
                if !side(min_dimension) || !limit(max_dimension) {
                    return refuse("input.resize.min_dimension", SIDE);
                }
                if max_dimension < min_dimension {
                    return refuse("input.resize.max_dimension", "must not be below min_dimension");
                }
                if !pad && self.train.batch > 1 {
                    return refuse(
                        "input.resize.pad",
                        "must be true where train.batch is above 1: images of one batch differ in size",
                    );
                }
            }
        }
        if !self.input.mean.iter().all(|x| x.is_finite()) {
            return refuse("input.mean", "must be finite");
        }
        if !self.input.std.iter().all(|x| x.is_finite() && *x > 0.) {
            return refuse("input.std", "must be positive");
        }
        Ok(())
    }

    /// What the families of rules leave no choice about.
    fn check_rules(&self) -> Result<(), ConfigError> {
        match self.detector.rules {
            Rules::Torchvision => {
                if !matches!(self.input.resize, Resize::ShortSide { .. }) {
                    return refuse(
                        "input.resize.kind",
                        "must be 'short_side' with the rules 'torchvision', whose anchors need inputs padded to multiples of 32",
                    );
                }
                if self.roi.max_per_class != 0 {
                    return refuse(
                        "roi.max_per_class",
                        "must be 0 with the rules 'torchvision', which limit no class",
                    );
                }
            }
            Rules::Tf => {
                if self.rpn.pre_nms_train != 0 || self.rpn.pre_nms_eval != 0 {
                    return refuse(
                        "rpn.pre_nms_train",
                        "must be 0 with the rules 'tf', which suppress over all anchors, and so must rpn.pre_nms_eval",
                    );
                }
            }
        }
        Ok(())
    }
}
