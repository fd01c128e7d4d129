//! What is measured: thresholds, area ranges, how many detections, which images and categories.

use clap::ValueEnum;

use super::error::EvalError;
use super::id::Id;

/// At most so many IoU thresholds: one bit each of a word.
pub(super) const MOST_THRESHOLDS: usize = 64;
/// At most so many area ranges: one bit each of a word that has another use for one.
pub(super) const MOST_AREAS: usize = 31;

/// A range of areas in square pixels, both ends inside.
#[derive(Debug, Clone, PartialEq)]
pub struct AreaRange {
    /// `all`, `small`, ...
    pub name: String,
    /// The smallest area inside.
    pub low: f64,
    /// The largest area inside.
    pub high: f64,
}

impl AreaRange {
    fn new(name: &str, low: f64, high: f64) -> Self {
        Self { name: name.to_owned(), low, high }
    }

    /// Whether an area lies outside. One that is no number lies in every range.
    #[inline]
    pub(super) fn excludes(&self, area: f64) -> bool {
        area < self.low || area > self.high
    }
}

/// What detections and truths are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum IouType {
    /// Their boxes.
    #[default]
    Bbox,
    /// Their masks.
    Segm,
}

/// Settings of an evaluation. The default is pycocotools'.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether boxes or masks are compared; masks have to be read with the files.
    pub iou_type: IouType,
    /// IoU thresholds, 1 to 64 of them, in any order.
    pub iou_thresholds: Vec<f64>,
    /// Area ranges, 1 to 31 of them; the first one is what AP and AR speak of.
    pub area_ranges: Vec<AreaRange>,
    /// Detections of an image and category that count, best first; ascending.
    pub max_detections: Vec<usize>,
    /// Only these images; each must be in the annotations.
    pub images: Option<Vec<Id>>,
    /// Only these categories; each must be in the annotations.
    pub categories: Option<Vec<Id>>,
    /// A detection may find a true box of any category; the category counts for nothing.
    pub class_agnostic: bool,
    /// Count an annotation with the id 0 as found, which pycocotools does not.
    pub fix_id_zero: bool,
    /// Keep the full arrays.
    pub arrays: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            iou_type: IouType::Bbox,
            iou_thresholds: default_thresholds(),
            area_ranges: vec![
                AreaRange::new("all", 0., 1e10),
                AreaRange::new("small", 0., 1024.),
                AreaRange::new("medium", 1024., 9216.),
                AreaRange::new("large", 9216., 1e10),
            ],
            max_detections: vec![1, 10, 100],
            images: None,
            categories: None,
            class_agnostic: false,
            fix_id_zero: false,
            arrays: false,
        }
    }
}

/// The thresholds as `numpy.linspace(0.5, 0.95, 10)` gives them: 0.9 is one unit in the last place
/// short of the decimal.
fn default_thresholds() -> Vec<f64> {
    let step = (0.95 - 0.5) / 9.;
    (0..10).map(|k| if k == 9 { 0.95 } else { k as f64 * step + 0.5 }).collect()
}

impl Settings {
    /// The most detections of an image and category that count.
    pub(super) fn most(&self) -> usize {
        self.max_detections.last().copied().unwrap_or(0)
    }

    /// Whether the settings can be evaluated.
    ///
    /// # Errors
    /// [`EvalError::Settings`], with what is wrong.
    pub fn check(&self) -> Result<(), EvalError> {
        let wrong = |problem: String| Err(EvalError::Settings { problem });
        let count = self.iou_thresholds.len();
        if count == 0 || count > MOST_THRESHOLDS {
            return wrong(format!(
                "{count} IoU thresholds; 1 to {MOST_THRESHOLDS} can be measured"
            ));
        }
        if let Some(t) = self.iou_thresholds.iter().find(|t| !(0. ..=1.).contains(*t)) {
            return wrong(format!("an IoU threshold lies between 0 and 1, not at {t}"));
        }
        let count = self.area_ranges.len();
        if count == 0 || count > MOST_AREAS {
            return wrong(format!("{count} area ranges; 1 to {MOST_AREAS} can be measured"));
        }
        for (i, range) in self.area_ranges.iter().enumerate() {
            // Also for what is no number.
            if range.low > range.high || range.low.is_nan() || range.high.is_nan() {
                return wrong(format!(
                    "the area range {} goes from {} to {}, which holds no area",
                    range.name, range.low, range.high
                ));
            }
            if self.area_ranges[..i].iter().any(|other| other.name == range.name) {
                return wrong(format!("two area ranges are called {}", range.name));
            }
        }
        if self.max_detections.is_empty() || self.max_detections[0] == 0 {
            return wrong("the number of detections that count must be 1 at least".to_owned());
        }
        if self.max_detections.iter().any(|&m| m > u32::MAX as usize) {
            return wrong("the number of detections that count is too large".to_owned());
        }
        if !self.max_detections.is_sorted_by(|a, b| a < b) {
            return wrong("the numbers of detections that count must ascend".to_owned());
        }
        Ok(())
    }

    /// Takes IoU thresholds from a list such as `0.5,0.75`, or `0.5:0.95:0.05` (from, to, step).
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn set_iou_thresholds(&mut self, text: &str) -> Result<(), String> {
        let parse = |t: &str| t.trim().parse::<f64>().map_err(|_| format!("`{t}` is no number"));
        let mut thresholds = Vec::new();
        for part in parts(text) {
            let steps: Vec<f64> = part.split(':').map(parse).collect::<Result<_, _>>()?;
            match steps[..] {
                [one] => thresholds.push(one),
                [from, to, step] if step > 0. && from <= to => {
                    let count = ((to - from) / step).round();
                    if count >= MOST_THRESHOLDS as f64 {
                        return Err(format!("`{part}` is more than {MOST_THRESHOLDS} thresholds"));
                    }
                    if (count * step - (to - from)).abs() > 1e-6 {
                        return Err(format!(
                            "`{part}`: no number of steps leads from one to the other"
                        ));
                    }
                    // As numpy.linspace: both ends are exact.
                    let step = (to - from) / count;
                    thresholds.extend((0..count as usize).map(|k| k as f64 * step + from));
                    thresholds.push(to);
                }
                [_, _, step] if step.is_nan() || step <= 0. => {
                    return Err(format!("`{part}`: the step must be above 0"));
                }
                [from, to, _] if from > to => {
                    return Err(format!("`{part}` falls; write the lower end first"));
                }
                _ => return Err(format!("`{part}` is no threshold and no from:to:step")),
            }
        }
        self.iou_thresholds = thresholds;
        Ok(())
    }

    /// Takes area ranges from a list such as `small:0:1024,large:1024:1e10`. Where none is called
    /// `all`, one over all areas comes first, for AP and AR.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn set_area_ranges(&mut self, text: &str) -> Result<(), String> {
        let mut ranges = Vec::new();
        for part in parts(text) {
            let wrong = || format!("`{part}` is no name:from:to, such as small:0:1024");
            let fields: Vec<&str> = part.split(':').map(str::trim).collect();
            let [name, low, high] = fields[..] else { return Err(wrong()) };
            let number = |t: &str| t.parse::<f64>().map_err(|_| wrong());
            if name.is_empty() {
                return Err(wrong());
            }
            ranges.push(AreaRange::new(name, number(low)?, number(high)?));
        }
        match ranges.iter().position(|r| r.name == "all") {
            // The order of the others stays.
            Some(all) => ranges[..=all].rotate_right(1),
            None => ranges.insert(0, AreaRange::new("all", 0., 1e10)),
        }
        self.area_ranges = ranges;
        Ok(())
    }

    /// Takes the numbers of detections that count from a list such as `1,10,100`, in any order.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn set_max_detections(&mut self, text: &str) -> Result<(), String> {
        let mut numbers: Vec<usize> = parts(text)
            .map(|t| t.parse().map_err(|_| format!("`{t}` is no number of detections")))
            .collect::<Result<_, _>>()?;
        numbers.sort_unstable();
        numbers.dedup();
        self.max_detections = numbers;
        Ok(())
    }
}

/// Ids as a list gives them: separated by commas or white space, or as a JSON list. One that is no
/// whole number is a text; one in double quotes is a text too.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_ids(text: &str) -> Result<Vec<Id>, String> {
    let inner = text.trim();
    let inner = inner.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(inner);
    let ids: Vec<Id> = inner
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|t| !t.is_empty())
        .map(|t| match t.parse() {
            Ok(id) => Id::Int(id),
            Err(_) => Id::Text(t.trim_matches('"').to_owned()),
        })
        .collect();
    if ids.is_empty() { Err("the list of ids is empty".to_owned()) } else { Ok(ids) }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thresholds_are_numpys() {
        let decimal = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.899_999_999_999_999_9, 0.95];
        let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let mut settings = Settings::default();
        assert_eq!(bits(&settings.iou_thresholds), bits(&decimal));
        settings.set_iou_thresholds("0.5:0.95:0.05").unwrap();
        assert_eq!(bits(&settings.iou_thresholds), bits(&decimal));
        for off in ["0.5:0.95:0.1", "0.5:0.6:0.5"] {
            let problem = settings.set_iou_thresholds(off).unwrap_err();
            assert!(problem.contains("no number of steps"), "{off}: {problem}");
        }
        settings.set_iou_thresholds("0.5:0.5:0.1").unwrap();
        assert_eq!(settings.iou_thresholds, [0.5]);
        settings.set_iou_thresholds("0.75, 0.5").unwrap();
        assert_eq!(settings.iou_thresholds, [0.75, 0.5]);
        for wrong in ["", "a", "0.5:0.9", "0.5:0.9:0", "0:1:0.001", "0.5,,0.6"] {
            assert!(settings.set_iou_thresholds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn area_ranges_have_all_in_front() {
        let mut settings = Settings::default();
        let names = |s: &Settings| s.area_ranges.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
        settings.set_area_ranges("tiny:0:256, big:256:1e5").unwrap();
        assert_eq!(names(&settings), ["all", "tiny", "big"]);
        assert_eq!(settings.area_ranges[2], AreaRange::new("big", 256., 1e5));
        settings.set_area_ranges("tiny:0:256,big:256:1e5,all:0:1e5").unwrap();
        assert_eq!(names(&settings), ["all", "tiny", "big"]);
        for wrong in ["", "tiny:0", "0:1:2:3", ":0:1", "a:b:c"] {
            assert!(settings.set_area_ranges(wrong).is_err(), "{wrong}");
        }
        for wrong in ["a:1:0", "a:0:nan", "a:0:1,a:0:2"] {
            settings.set_area_ranges(wrong).unwrap();
            assert!(settings.check().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_are_numbers_or_texts() {
        let text = |t: &str| Id::Text(t.to_owned());
        assert_eq!(parse_ids("1, -2\n30").unwrap(), [1, -2, 30].map(Id::from));
        assert_eq!(parse_ids("[\"a\", \"7x\", 7]").unwrap(), [text("a"), text("7x"), 7.into()]);
        assert!(parse_ids(" , ").is_err());
    }
}
