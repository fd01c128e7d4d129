//! Where a run begins: the weights of a classifier, of a detector with the same classes, or of one with
//! others.
//!
//! A detector with other classes gives everything but the rows of its two predictors; of these it gives the
//! background's and those of the classes that have the same name. All else has to fit, and all that does not
//! is listed. The head of the auxiliary loss, which no model keeps, always begins anew.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use detect::config::Config;
use detect::data::Category;
use detect::weights::classifier::{self, ClassifierInfo};
use detect::weights::{Contents, ModelInfo, StoredTensor, WeightsError};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::detector::image_head;
use crate::weights::{from_stored, load_into, named_variables, to_stored};

/// The two layers whose rows are classes.
const PREDICTORS: [&str; 2] =
    ["roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"];

/// What became of the weights that a run begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Tensors that were taken whole.
    pub taken: usize,
    /// Tensors that keep what they were drawn as, but for the rows of `kept`.
    pub made: Vec<String>,
    /// Tensors of the file that were not used.
    pub left: Vec<String>,
    /// Classes whose rows were taken; empty where all classes are the same.
    pub kept: Vec<String>,
    /// Classes that start from nothing.
    pub new: Vec<String>,
    /// Classes of the file that were not used.
    pub dropped: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More names than this are counted.
        const MOST: usize = 12;
        let list = |names: &[String]| match names.len() {
            0 => "none".to_owned(),
            n if n > MOST => format!("{}, ... ({n})", names[..MOST].join(", ")),
            _ => names.join(", "),
        };
        write!(f, "{} tensors taken", self.taken)?;
        if !self.made.is_empty() {
            write!(f, "; made new: {}", list(&self.made))?;
        }
        if !self.left.is_empty() {
            write!(f, "; left over: {}", list(&self.left))?;
        }
        if !(self.kept.is_empty() && self.new.is_empty() && self.dropped.is_empty()) {
            let [kept, new, dropped] = [&self.kept, &self.new, &self.dropped].map(|n| list(n));
            write!(f, "; classes taken over: {kept}; new: {new}; not used: {dropped}")?;
        }
        Ok(())
    }
}

/// Fills `store`, whose detector learns `categories`, from `contents`, which was read from `path`.
pub fn begin_with(
    store: &VarStore,
    categories: &[Category],
    contents: &Contents,
    path: &Path,
) -> Result<Report, WeightsError> {
    if classifier::is_classifier(&contents.metadata) {
        return from_classifier(store, contents, path);
    }
    let theirs = if contents.metadata.contains_key("model") {
        ModelInfo::read_from(contents, path)?.categories
    } else {
        categories.to_vec() // tensors without a description are taken for what the run learns
    };
    let names = |categories: &[Category]| -> Vec<String> {
        categories.iter().map(|c| c.name.clone()).collect()
    };
    let (own, theirs) = (names(categories), names(&theirs));
    let of_head = |name: &String| image_head::is_of(name);
    let (new, variables): (Vec<_>, Vec<_>) =
        named_variables(store).into_iter().partition(|(name, _)| of_head(name));
    let variables: BTreeMap<_, _> = variables.into_iter().collect();
    let mut contents = contents.clone();
    let left: Vec<String> = contents.tensors.keys().filter(|name| of_head(name)).cloned().collect();
    contents.tensors.retain(|name, _| !of_head(name));
    let mut report = if own == theirs {
        let taken = variables.len();
        load_into(variables, &contents, "", path)?;
        Report { taken, ..Report::default() }
    } else {
        from_other_classes(variables, [&own, &theirs], &contents, path)?
    };
    report.made.extend(new.into_iter().map(|(name, _)| name));
    report.left.extend(left);
    Ok(report)
}

/// What the network of the file computes otherwise than `config` does, although its tensors fit: one line a key,
/// from the file's value to the recipe's.
pub fn unlike(
    config: &Config,
    contents: &Contents,
    path: &Path,
) -> Result<Vec<String>, WeightsError> {
    let mut theirs = config.clone();
    let backbone = if classifier::is_classifier(&contents.metadata) {
        let info = ClassifierInfo::read_from(contents, path)?;
        (theirs.input.mean, theirs.input.std) = (info.preprocessing.mean, info.preprocessing.std);
        info.backbone
    } else if contents.metadata.contains_key("model") {
        let info = ModelInfo::read_from(contents, path)?;
        (theirs.input.mean, theirs.input.std) = (info.config.input.mean, info.config.input.std);
        (theirs.detector, theirs.anchors) = (info.config.detector, info.config.anchors);
        info.config.backbone
    } else {
        return Ok(Vec::new());
    };
    theirs.backbone.wiring = backbone.wiring;
    theirs.backbone.pooling = backbone.pooling;
    theirs.backbone.norm_eps = backbone.norm_eps;
    theirs.backbone.genotype = backbone.genotype;
    Ok(theirs.differences(config))
}

/// The featurizer of a classifier: the heads keep what they were drawn as, and what lies behind the cut is
/// left over.
fn from_classifier(
    store: &VarStore,
    contents: &Contents,
    path: &Path,
) -> Result<Report, WeightsError> {
    let (featurizer, heads): (BTreeMap<_, _>, Vec<_>) = {
        let (featurizer, heads): (Vec<_>, Vec<_>) =
            named_variables(store).into_iter().partition(|(name, _)| name.starts_with("backbone."));
        (featurizer.into_iter().collect(), heads)
    };
    let mut used = contents.clone();
    used.tensors.retain(|name, _| featurizer.contains_key(name));
    let report = Report {
        taken: featurizer.len(),
        made: heads.into_iter().map(|(name, _)| name).collect(),
        left: contents.tensors.keys().filter(|n| !featurizer.contains_key(*n)).cloned().collect(),
        ..Report::default()
    };
    load_into(featurizer, &used, "", path)?;
    Ok(report)
}

/// The rows of one class in a tensor of `rows` rows for `classes` classes: 1 or 4 rows a class, where class 0
/// is the background, which has none where `rows` is short of one class. `None` where `rows` fits neither.
fn rows_of(rows: i64, classes: usize, each: i64, class: usize) -> Option<i64> {
    let background = match rows - each * classes as i64 {
        0 => 0,
        extra if extra == each => 1,
        _ => return None,
    };
    (class as i64 - 1 + background).checked_mul(each).filter(|&row| row >= 0 && row < rows)
}

/// From a detector of other classes; `names` are those of the run and those of the file.
fn from_other_classes(
    variables: BTreeMap<String, Tensor>,
    names: [&[String]; 2],
    contents: &Contents,
    path: &Path,
) -> Result<Report, WeightsError> {
    let [own, theirs] = names;
    // Of the background, and of each class with the name of one of theirs: its number here and there.
    let place = |name: &String| theirs.iter().position(|n| n == name);
    let pairs: Vec<[usize; 2]> = [[0, 0]]
        .into_iter()
        .chain(own.iter().enumerate().filter_map(|(i, name)| Some([i + 1, place(name)? + 1])))
        .collect();
    let mut patched = contents.clone();
    let mut made = Vec::new();
    for (predictor, each) in PREDICTORS.into_iter().zip([1, 4]) {
        for name in ["weight", "bias"].map(|leaf| format!("{predictor}.{leaf}")) {
            let (Some(variable), Some(stored)) =
                (variables.get(&name), patched.tensors.get_mut(&name))
            else {
                continue; // the strict load tells
            };
            if let Some(mixed) = mix(variable, stored, each, [own.len(), theirs.len()], &pairs) {
                *stored = to_stored(&mixed);
                made.push(name);
            }
        }
    }
    let taken = variables.len() - made.len();
    load_into(variables, &patched, "", path)?;
    let of = |names: &[String], keep: &dyn Fn(&String) -> bool| -> Vec<String> {
        names.iter().filter(|name| keep(name)).cloned().collect()
    };
    Ok(Report {
        taken,
        made,
        left: Vec::new(),
        kept: of(own, &|name| theirs.contains(name)),
        new: of(own, &|name| !theirs.contains(name)),
        dropped: of(theirs, &|name| !own.contains(name)),
    })
}

/// `variable` with the rows of the classes `pairs` from `stored`, `each` of a class: `None` where the two do
/// not agree in all but the number of `classes`.
fn mix(
    variable: &Tensor,
    stored: &StoredTensor,
    each: i64,
    classes: [usize; 2],
    pairs: &[[usize; 2]],
) -> Option<Tensor> {
    let source = from_stored(stored).to_kind(Kind::Float);
    let mixed = variable.detach().to_device(tch::Device::Cpu).copy();
    let [shape, found] = [mixed.size(), source.size()];
    let extra = |rows: i64, classes: usize| rows - each * classes as i64;
    let rows = [*shape.first()?, *found.first()?];
    if shape[1..] != found[1..] || extra(rows[0], classes[0]) != extra(rows[1], classes[1]) {
        return None;
    }
    for &[here, there] in pairs {
        let [to, from] = [0, 1].map(|i| rows_of(rows[i], classes[i], each, [here, there][i]));
        if let (Some(to), Some(from)) = (to, from) {
            mixed.narrow(0, to, each).copy_(&source.narrow(0, from, each));
        }
    }
    Some(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use detect::config::{Pooling, Rules};
    use detect::weights::model::Trained;
    use tch::Device;

    use crate::detector::FasterRcnn;
    use crate::weights::collect;

    fn categories(names: &[&str]) -> Vec<Category> {
        names.iter().zip(1..).map(|(name, id)| Category { id, name: name.to_string() }).collect()
    }

    fn network(config: &Config, classes: usize) -> VarStore {
        let _alone = crate::nn::alone();
        let store = VarStore::new(Device::Cpu);
        let _detector = FasterRcnn::new(&store.root(), config, classes);
        store
    }

    fn model(config: &Config, names: &[&str]) -> (VarStore, Contents) {
        let store = network(config, names.len());
        let tensors = collect(&store, "");
        let mut contents = Contents { tensors, ..Contents::default() };
        let categories = categories(names);
        ModelInfo { config: config.clone(), categories, trained: Trained::default() }
            .write_to(&mut contents);
        (store, contents)
    }

    /// Both families: the background has a box in one and none in the other.
    fn configs() -> [Config; 2] {
        let torchvision = Config::recipe("tiny", &[]).unwrap();
        let mut tf = torchvision.clone();
        tf.detector.rules = Rules::Tf;
        (tf.rpn.pre_nms_train, tf.rpn.pre_nms_eval) = (0, 0);
        [torchvision, tf]
    }

    #[test]
    fn rows_of_classes_with_the_same_name_are_taken() {
        for (config, box_of_background) in configs().iter().zip([1, 0]) {
            let (source, contents) = model(config, &["cup", "fork", "plate"]);
            let store = network(config, 2);
            let drawn = collect(&store, "");
            let own = categories(&["plate", "bowl"]);
            let report = begin_with(&store, &own, &contents, Path::new("old")).unwrap();
            assert_eq!([&report.kept, &report.new], [&["plate"], &["bowl"]]);
            assert_eq!(report.dropped, ["cup", "fork"]);
            assert_eq!(report.made.len(), 4);
            assert!(report.to_string().contains("new: bowl; not used: cup, fork"), "{report}");
            let (now, before) = (named_variables(&store), named_variables(&source));
            let row = |tensors: &Tensor, from, each| tensors.narrow(0, from, each).copy();
            for leaf in ["weight", "bias"] {
                let (name, boxes) =
                    (format!("{}.{leaf}", PREDICTORS[0]), format!("{}.{leaf}", PREDICTORS[1]));
                // Background, plate, and bowl, which stays as it was drawn.
                let drawn_of = |name: &str| from_stored(&drawn[name]);
                assert!(row(&now[&name], 0, 1).equal(&row(&before[&name], 0, 1)));
                assert!(row(&now[&name], 1, 1).equal(&row(&before[&name], 3, 1)));
                assert!(row(&now[&name], 2, 1).equal(&row(&drawn_of(&name), 2, 1)));
                let b = 4 * box_of_background;
                assert!(row(&now[&boxes], 0, b).equal(&row(&before[&boxes], 0, b)));
                assert!(row(&now[&boxes], b, 4).equal(&row(&before[&boxes], b + 8, 4)));
                assert!(row(&now[&boxes], b + 4, 4).equal(&row(&drawn_of(&boxes), b + 4, 4)));
            }
            for (name, tensor) in &now {
                if !PREDICTORS.iter().any(|p| name.starts_with(p)) {
                    assert!(tensor.equal(&before[name]), "{name}");
                }
            }
        }
    }

    #[test]
    fn the_same_classes_are_taken_whole_in_any_order() {
        let config = &configs()[0];
        let (source, contents) = model(config, &["cup", "fork"]);
        let store = network(config, 2);
        let report =
            begin_with(&store, &categories(&["cup", "fork"]), &contents, Path::new("m")).unwrap();
        assert!(report.made.is_empty() && report.kept.is_empty());
        let before = named_variables(&source);
        assert!(named_variables(&store).iter().all(|(name, v)| v.equal(&before[name])));
        // As many classes in another order: rows change places.
        let turned =
            begin_with(&store, &categories(&["fork", "cup"]), &contents, Path::new("m")).unwrap();
        assert_eq!(turned.kept, ["fork", "cup"]);
        let name = format!("{}.bias", PREDICTORS[0]);
        let [now, then] = [&named_variables(&store)[&name], &before[&name]];
        assert_eq!(now.double_value(&[1]), then.double_value(&[2]));
        assert_eq!(now.double_value(&[2]), then.double_value(&[1]));
    }

    #[test]
    fn a_network_that_fits_and_computes_something_else_is_told() {
        let [config, _] = configs();
        let (_source, contents) = model(&config, &["cup"]);
        assert_eq!(unlike(&config, &contents, Path::new("m")).unwrap(), [""; 0]);
        let mut other = config.clone();
        other.backbone.pooling = Pooling::Timm;
        other.backbone.drop_path_keep = 0.5; // of training, not of the network
        let [told] = &unlike(&other, &contents, Path::new("m")).unwrap()[..] else {
            panic!("one difference")
        };
        assert_eq!(told, "backbone.pooling: \"tf\" -> \"timm\"");
        let mut other = config;
        other.anchors.sizes[0] += 1.;
        other.detector.sampling_ratio += 1;
        let told = unlike(&other, &contents, Path::new("m")).unwrap().join("\n");
        assert!(told.contains("anchors") && told.contains("detector.sampling_ratio"), "{told}");
    }

    #[test]
    fn all_but_the_predictors_has_to_fit() {
        let [torchvision, tf] = configs();
        let (_source, mut contents) = model(&torchvision, &["cup", "fork", "plate"]);
        contents.tensors.remove("rpn.head.conv.0.0.bias");
        contents.tensors.insert(
            "rpn.head.extra".into(),
            contents.tensors[&format!("{}.bias", PREDICTORS[0])].clone(),
        );
        let own = categories(&["plate"]);
        let store = network(&torchvision, 1);
        let before = collect(&store, "");
        let error = begin_with(&store, &own, &contents, Path::new("m")).unwrap_err().to_string();
        for part in ["missing: rpn.head.conv.0.0.bias", "unexpected: rpn.head.extra"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(collect(&store, ""), before, "nothing was copied");
        // The other family has other predictors.
        let error =
            begin_with(&network(&tf, 1), &own, &model(&torchvision, &["cup"]).1, Path::new("m"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("misshapen: roi_heads.box_predictor.bbox_pred"), "{error}");
    }
}
