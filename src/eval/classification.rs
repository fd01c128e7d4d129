//! Classification: from logits to ranked classes, and top-1 and top-5 accuracy. Nothing is printed here.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::report::printable;
use crate::data::classify::ClassNames;
use crate::geometry::Size;

/// The text report lists at most this many classes, those with the lowest accuracy.
const LISTED: usize = 20;
/// An answer among this many counts as right for the second figure.
const FEW: usize = 5;

/// A class that an image may show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The class's index.
    pub index: usize,
    /// Softmax over all classes; they sum to 1.
    pub probability: f64,
}

/// The `count` most probable classes, best first; of equals the lower index comes first.
///
/// Softmax is computed in 64 bits. Where a logit is not a number, no probability is one.
pub fn ranked(logits: &[f32], count: usize) -> Vec<Ranked> {
    // A NaN is in no order: it comes last.
    let value = |k: usize| if logits[k].is_nan() { f32::NEG_INFINITY } else { logits[k] };
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // The sort is stable, so equals stay in the order of their indices. -0 and 0 are equal.
    order.sort_by(|&a, &b| value(b).partial_cmp(&value(a)).expect("no NaN is left"));
    let largest = order.first().map_or(0., |&k| f64::from(value(k)));
    let exponential = |k: usize| (f64::from(logits[k]) - largest).exp();
    let sum: f64 = (0..logits.len()).map(exponential).sum();
    order.truncate(count);
    order.into_iter().map(|index| Ranked { index, probability: exponential(index) / sum }).collect()
}

/// One image's classes as JSON: `{"file", "width", "height", "classes": [...]}`. `wnid` is null where
/// the model knows none.
pub fn image_json(file: &Path, size: Size, found: &[Ranked], names: &ClassNames) -> Value {
    let class = |r: &Ranked| {
        json!({
            "index": r.index,
            "wnid": names.wnid(r.index),
            "name": names.names.get(r.index),
            "probability": r.probability,
        })
    };
    json!({
        "file": file.to_string_lossy(),
        "width": size.width,
        "height": size.height,
        "classes": found.iter().map(class).collect::<Vec<_>>(),
    })
}

/// One image's classes as text: a line of the file, and one a class below it.
pub fn image_text(file: &Path, size: Size, found: &[Ranked], names: &ClassNames) -> String {
    let mut text = format!("{} ({} x {})\n", file.display(), size.width, size.height);
    for r in found {
        let name = names.names.get(r.index).map_or_else(String::new, |name| printable(name));
        let wnid = names.wnid(r.index).map(|wnid| format!("  {}", printable(wnid)));
        let percent = 100. * r.probability;
        let wnid = wnid.unwrap_or_default();
        writeln!(text, "  {percent:6.2} %  {:>4}{wnid}  {name}", r.index)
            .expect("a String takes everything");
    }
    text
}

/// Right answers so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// Images.
    pub images: usize,
    /// Images whose first class was right.
    pub top1: usize,
    /// Images with the right class among the first five.
    pub top5: usize,
}

/// Counts answers, class by class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    classes: Vec<Hits>,
    failed: usize,
}

impl Tally {
    /// Of a model with this many classes.
    pub fn new(classes: usize) -> Self {
        Self { classes: vec![Hits::default(); classes], failed: 0 }
    }

    /// Counts an image of class `label`, for which the model said `ranked`, best first.
    ///
    /// # Panics
    /// If there is no class `label`.
    pub fn add(&mut self, label: usize, ranked: &[usize]) {
        let place = ranked.iter().take(FEW).position(|&class| class == label);
        let hits = &mut self.classes[label];
        hits.images += 1;
        hits.top1 += usize::from(place == Some(0));
        hits.top5 += usize::from(place.is_some());
    }

    /// Counts an image of class `label` that can't be read. It counts as answered wrongly: leaving it out
    /// would make the figure better than it is.
    ///
    /// # Panics
    /// If there is no class `label`.
    pub fn add_failed(&mut self, label: usize) {
        self.add(label, &[]);
        self.failed += 1;
    }

    /// All classes together.
    pub fn total(&self) -> Hits {
        self.classes.iter().fold(Hits::default(), |sum, hits| Hits {
            images: sum.images + hits.images,
            top1: sum.top1 + hits.top1,
            top5: sum.top5 + hits.top5,
        })
    }

    /// `{"top1", "top5", "images", "failed_images", "per_class": [...]}`: fractions, null where there are
    /// no images. Classes without images are left out.
    pub fn json(&self, names: &ClassNames) -> Value {
        let total = self.total();
        let class = |(index, hits): (usize, &Hits)| {
            json!({
                "index": index,
                "wnid": names.wnid(index),
                "name": names.names.get(index),
                "images": hits.images,
                "top1": fraction(hits.top1, hits.images),
                "top5": fraction(hits.top5, hits.images),
            })
        };
        json!({
            "top1": fraction(total.top1, total.images),
            "top5": fraction(total.top5, total.images),
            "images": total.images,
            "failed_images": self.failed,
            "per_class": self.seen().map(class).collect::<Vec<_>>(),
        })
    }

    /// The two figures, and below them the classes that did worst.
    pub fn table(&self, names: &ClassNames) -> String {
        let total = self.total();
        let percent = |hits: usize, images: usize| match fraction(hits, images) {
            Some(x) => format!("{:.2} %", 100. * x),
            None => "-".to_owned(),
        };
        let mut text = String::new();
        for (title, hits) in [("top-1", total.top1), ("top-5", total.top5)] {
            let percent = percent(hits, total.images);
            writeln!(text, "{title}  {percent:>8}  ({hits} of {} images)", total.images)
                .expect("a String takes everything");
        }
        let mut classes: Vec<(usize, &Hits)> = self.seen().collect();
        if classes.is_empty() {
            return text;
        }
        // Products instead of quotients; the sort is stable.
        classes.sort_by(|(_, a), (_, b)| {
            let share = |x: &Hits, y: &Hits, hits: fn(&Hits) -> usize| hits(x) * y.images;
            let by = |hits: fn(&Hits) -> usize| share(a, b, hits).cmp(&share(b, a, hits));
            by(|h| h.top1).then(by(|h| h.top5))
        });
        let all = classes.len();
        classes.truncate(LISTED);
        let shown = if all > LISTED {
            format!("the {LISTED} of {all} classes with the lowest top-1")
        } else {
            "by class, the lowest top-1 first".to_owned()
        };
        let heading =
            format!("\n{shown}\n{:>5} {:>8} {:>9} {:>9}", "index", "images", "top-1", "top-5");
        writeln!(text, "{heading}  class").expect("a String takes everything");
        for (index, hits) in classes {
            let [top1, top5] = [hits.top1, hits.top5].map(|n| percent(n, hits.images));
            let name = names.names.get(index).map_or_else(String::new, |name| printable(name));
            writeln!(text, "{index:>5} {:>8} {top1:>9} {top5:>9}  {name}", hits.images)
                .expect("a String takes everything");
        }
        text
    }

    fn seen(&self) -> impl Iterator<Item = (usize, &Hits)> {
        self.classes.iter().enumerate().filter(|(_, hits)| hits.images > 0)
    }
}

fn fraction(hits: usize, images: usize) -> Option<f64> {
    (images > 0).then(|| hits as f64 / images as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> ClassNames {
        ClassNames {
            names: ["cat", "dog", "bird"].map(str::to_owned).into(),
            wnids: ["n02121808", "n02084071", "n01503061"].map(str::to_owned).into(),
        }
    }

    /// By hand: logits ln 1, ln 2, ln 5 have the probabilities 1/8, 2/8, 5/8, wherever they are shifted to.
    #[test]
    fn probabilities_are_softmax() {
        for shift in [0., 80., -200.] {
            let logits = [1_f32, 2., 5.].map(|x| x.ln() + shift);
            let found = ranked(&logits, 3);
            let indices: Vec<usize> = found.iter().map(|r| r.index).collect();
            assert_eq!(indices, [2, 1, 0]);
            // A shifted f32 has fewer digits left.
            for (r, want) in found.iter().zip([0.625, 0.25, 0.125]) {
                assert!((r.probability - want).abs() < 1e-5, "{found:?}");
            }
        }
        let extreme = ranked(&[f32::MAX, -f32::MAX], 2);
        assert_eq!(extreme[0], Ranked { index: 0, probability: 1. });
        assert_eq!(extreme[1].probability, 0.);
    }

    #[test]
    fn equals_come_by_index_and_the_count_is_kept() {
        let order =
            |logits: &[f32], n| ranked(logits, n).iter().map(|r| r.index).collect::<Vec<_>>();
        assert_eq!(order(&[1., 3., 3., 1., 3.], 4), [1, 2, 4, 0]);
        assert_eq!(order(&[-0., 0.], 2), [0, 1]);
        assert_eq!(order(&[1., 2.], 5), [1, 0], "there are only two");
        assert_eq!(order(&[], 5), [0; 0]);
        // Broken weights: the numbers that are there still come first, but none is a probability.
        assert_eq!(order(&[f32::NAN, 1., 2.], 3), [2, 1, 0]);
        assert!(ranked(&[f32::NAN, 1.], 1)[0].probability.is_nan());
    }

    #[test]
    fn accuracy_is_counted_by_place() {
        let mut tally = Tally::new(3);
        tally.add(0, &[0, 1, 2]);
        tally.add(0, &[1, 2, 0]);
        tally.add(2, &[1, 0, 9, 9, 9, 2]);
        tally.add_failed(2);
        assert_eq!(tally.total(), Hits { images: 4, top1: 1, top5: 2 });
        let json = tally.json(&names());
        let expected = json!({
            "top1": 0.25, "top5": 0.5, "images": 4, "failed_images": 1,
            "per_class": [
                {"index": 0, "wnid": "n02121808", "name": "cat", "images": 2, "top1": 0.5, "top5": 1.0},
                {"index": 2, "wnid": "n01503061", "name": "bird", "images": 2, "top1": 0.0, "top5": 0.0},
            ],
        });
        assert_eq!(json, expected);
        let table = "top-1   25.00 %  (1 of 4 images)
top-5   50.00 %  (2 of 4 images)

by class, the lowest top-1 first
index   images     top-1     top-5  class
    2        2    0.00 %    0.00 %  bird
    0        2   50.00 %  100.00 %  cat
";
        assert_eq!(tally.table(&names()), table);
    }

    #[test]
    fn no_images_are_no_figure() {
        let tally = Tally::new(3);
        let expected =
            json!({"top1": null, "top5": null, "images": 0, "failed_images": 0, "per_class": []});
        assert_eq!(tally.json(&names()), expected);
        assert_eq!(
            tally.table(&names()),
            "top-1         -  (0 of 0 images)\ntop-5         -  (0 of 0 images)\n"
        );
    }

    #[test]
    fn of_many_classes_the_worst_are_listed() {
        let mut tally = Tally::new(30);
        for label in 0..30 {
            tally.add(label, &[if label == 7 { 0 } else { label }]);
        }
        let table = tally.table(&ClassNames::numbered(30));
        assert!(table.contains("the 20 of 30 classes with the lowest top-1"), "{table}");
        assert_eq!(table.lines().count(), 2 + 3 + 20);
        let first = table.lines().nth(5).unwrap();
        assert!(first.ends_with("0.00 %    0.00 %  class 7"), "{first}");
    }

    #[test]
    fn an_image_has_its_classes_in_json_and_text() {
        let found = ranked(&[1_f32, 2., 5.].map(f32::ln), 2);
        let (file, size) = (Path::new("a/b.jpg"), Size::new(30, 40));
        let json = image_json(file, size, &found, &names());
        assert_eq!(json["file"], "a/b.jpg");
        assert_eq!((&json["width"], &json["height"]), (&json!(40), &json!(30)));
        let classes = json["classes"].as_array().unwrap();
        assert_eq!(classes.len(), 2);
        let first = classes[0].as_object().unwrap();
        let keys: Vec<&str> = first.keys().map(String::as_str).collect();
        assert_eq!(keys, ["index", "wnid", "name", "probability"]);
        assert_eq!((&first["index"], &first["name"]), (&json!(2), &json!("bird")));
        let text = "a/b.jpg (40 x 30)\n   62.50 %     2  n01503061  bird\n   25.00 %     1  n02084071  dog\n";
        assert_eq!(image_text(file, size, &found, &names()), text);
        let nameless = image_json(file, size, &found, &ClassNames::numbered(3));
        assert_eq!(nameless["classes"][0]["wnid"], Value::Null);
    }
}
