//! Images of a run's last evaluation: those on which it did best and worst, with every box.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder as _, RgbImage, imageops};

use super::Run;
use crate::data::image::{Rgb, decode};
use crate::data::{Dataset, ImageRecord};
use crate::eval::analysis::curve::Curve;
use crate::eval::analysis::outcomes::Outcomes;
use crate::eval::over_split::with_truth;
use crate::eval::{EvalError, GroundTruth, Id, Results, Settings};
use crate::geometry::Size;
use crate::watch::DETECTIONS;

/// Images of each of the two groups.
const MOST: usize = 4;
/// Pixels of the longer side of a picture on the page.
const SIDE: u32 = 440;
/// JPEG quality of pictures on the page.
const QUALITY: u8 = 80;
/// IoU from which a detection finds a truth.
const IOU: f64 = 0.5;

/// What became of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A detection that finds a truth.
    Right,
    /// A detection that finds none.
    Wrong,
    /// A truth that is found.
    Found,
    /// A truth that no detection finds.
    Missed,
}

/// A box on an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// x, y, width, height in pixels of the picture on the page.
    pub bbox: [f64; 4],
    /// Its category, and the score of a detection.
    pub text: String,
    /// What became of it.
    pub fate: Fate,
}

/// An image on the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// How the annotation file calls it.
    pub file_name: String,
    /// The picture as a data URI, and its size; else why there is none.
    pub picture: Result<(String, Size), String>,
    /// Truths first, then detections from the lowest score on.
    pub boxes: Vec<Drawn>,
    /// Detections that find a truth, that find none, truths that are missed.
    pub counts: [usize; 3],
}

/// The images that a page shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Detections with at least this score are shown: the one with the best F1 over all categories.
    pub score: f64,
    /// Where it did best, the best first.
    pub best: Vec<Sample>,
    /// Where it did worst, the worst first.
    pub worst: Vec<Sample>,
    /// Where the images lie.
    pub data: String,
}

/// The images of a run's last evaluation, or why there are none.
pub(super) fn of(run: &Run, data: Option<&Path>) -> Result<Samples, String> {
    let file = run.folder.join(DETECTIONS);
    if !file.is_file() {
        return Err(if run.evals.is_empty() {
            "the run has not been evaluated yet".to_owned()
        } else {
            format!("the run folder has no {DETECTIONS}")
        });
    }
    let start = run.starts.last();
    let text = |key: &str| start.and_then(|start| start[key].as_str());
    let root = data.or(text("data").map(Path::new));
    let (Some(root), Some(split)) = (root, text("val")) else {
        return Err("the record does not say which images were evaluated".to_owned());
    };
    let dataset = Dataset::open(root, split).map_err(|error| {
        let error = error.to_string().replace('\n', "; ");
        format!("the data set of the run can't be read ({error}); --data says where it lies now")
    })?;
    let results = match Results::from_file(&file) {
        // A network that has learned little yet.
        Err(EvalError::NoDetections { .. }) => Results::from(Vec::new()),
        read => read.map_err(|e| e.to_string())?,
    };
    let settings = Settings { iou_thresholds: vec![IOU], ..Settings::default() };
    let judged = with_truth(&dataset, |truth| {
        Outcomes::new(&truth, &results, &settings, 0).map(|outcomes| (truth, outcomes))
    });
    let (truth, outcomes) = judged.map_err(|e| e.to_string())?;
    Ok(chosen(&dataset, &truth, &results, &outcomes))
}

/// What happened on one image.
#[derive(Debug, Clone, Default)]
struct Tally {
    right: usize,
    wrong: usize,
    missed: usize,
}

impl Tally {
    /// 1 where all is found and nothing else.
    fn f1(&self) -> f64 {
        let all = 2 * self.right + self.wrong + self.missed;
        2. * self.right as f64 / all as f64
    }

    fn is_empty(&self) -> bool {
        self.right + self.wrong + self.missed == 0
    }
}

fn chosen(
    dataset: &Dataset,
    truth: &GroundTruth,
    results: &Results,
    outcomes: &Outcomes,
) -> Samples {
    // Without a detection that finds anything, all of them are shown.
    let score = Curve::overall(outcomes).best().map_or(f64::NEG_INFINITY, |best| best.score);
    let mut tallies: HashMap<usize, Tally> = HashMap::new();
    for category in &outcomes.categories {
        for truth in &category.truths {
            tallies.entry(truth.image as usize).or_default().missed += 1;
        }
        for row in category.rows.iter().filter(|row| row.score >= score) {
            let tally = tallies.entry(row.image as usize).or_default();
            tally.wrong += (row.miss & 1) as usize;
            if row.hit & 1 == 1 {
                tally.right += 1;
                tally.missed -= 1;
            }
        }
    }
    let mut order: Vec<(usize, Tally)> =
        tallies.into_iter().filter(|(_, tally)| !tally.is_empty()).collect();
    // The best first; of equals the one with more that is right, then less that is wrong.
    order.sort_by(|(a, x), (b, y)| {
        let errors = |t: &Tally| t.wrong + t.missed;
        (y.f1().total_cmp(&x.f1()))
            .then(y.right.cmp(&x.right))
            .then(errors(x).cmp(&errors(y)))
            .then(a.cmp(b))
    });
    // No image is among both.
    let worst = order.split_off(order.len() - MOST.min(order.len() / 2));
    let sample = |(image, tally): &(usize, Tally)| {
        let record = record_of(dataset, &truth.image_ids()[*image]);
        let boxes = boxes(*image, score, truth, results, outcomes);
        Sample::new(record, boxes, [tally.right, tally.wrong, tally.missed])
    };
    Samples {
        score,
        best: order.iter().take(MOST).map(sample).collect(),
        worst: worst.iter().rev().map(sample).collect(),
        data: dataset.root.display().to_string(),
    }
}

fn record_of<'a>(dataset: &'a Dataset, id: &Id) -> Option<&'a ImageRecord> {
    let place = dataset.images.binary_search_by(|image| Id::from(image.id).cmp(id)).ok()?;
    Some(&dataset.images[place])
}

/// The boxes of an image in its own pixels.
fn boxes(
    image: usize,
    score: f64,
    truth: &GroundTruth,
    results: &Results,
    outcomes: &Outcomes,
) -> Vec<Drawn> {
    let (mut truths, mut detections) = (Vec::new(), Vec::new());
    for category in &outcomes.categories {
        let mut found = vec![false; category.truths.len()];
        for row in
            category.rows.iter().filter(|row| row.image as usize == image && row.score >= score)
        {
            if let Some(place) = row.found {
                found[place as usize] = true;
            }
            let fate = match (row.hit & 1, row.miss & 1) {
                (1, _) => Fate::Right,
                (_, 1) => Fate::Wrong,
                // On a crowd: neither right nor wrong.
                _ => continue,
            };
            let bbox = results.detections()[row.detection as usize].bbox;
            let text = format!("{} {:.2}", category.name, row.score);
            detections.push((row.score, Drawn { bbox, text, fate }));
        }
        for (place, own) in category.truths.iter().enumerate() {
            if own.image as usize == image {
                let fate = if found[place] { Fate::Found } else { Fate::Missed };
                let bbox = truth.annotations()[own.annotation as usize].bbox;
                truths.push(Drawn { bbox, text: category.name.clone(), fate });
            }
        }
    }
    detections.sort_by(|a, b| a.0.total_cmp(&b.0));
    truths.extend(detections.into_iter().map(|(_, drawn)| drawn));
    truths
}

impl Sample {
    fn new(record: Option<&ImageRecord>, mut boxes: Vec<Drawn>, counts: [usize; 3]) -> Self {
        let Some(record) = record else {
            let picture = Err("the data set has no such image".to_owned());
            return Self { file_name: String::new(), picture, boxes, counts };
        };
        let picture = decode(&record.file).map_err(|error| error.to_string()).and_then(|decoded| {
            let size = decoded.image.size;
            let (uri, small) = data_uri(decoded.image)?;
            let scale =
                [small.width as f64 / size.width as f64, small.height as f64 / size.height as f64];
            for drawn in &mut boxes {
                for (i, value) in drawn.bbox.iter_mut().enumerate() {
                    *value *= scale[i % 2];
                }
            }
            Ok((uri, small))
        });
        Self { file_name: record.file_name.clone(), picture, boxes, counts }
    }
}

/// The picture, made small, as a text that a page can hold.
fn data_uri(image: Rgb) -> Result<(String, Size), String> {
    let (width, height) = (image.size.width as u32, image.size.height as u32);
    let mut small =
        RgbImage::from_raw(width, height, image.pixels).ok_or("the picture has no pixels")?;
    let long = width.max(height);
    if long > SIDE {
        let side = |side: u32| (u64::from(side) * u64::from(SIDE) / u64::from(long)).max(1) as u32;
        small = imageops::thumbnail(&small, side(width), side(height));
    }
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .write_image(small.as_raw(), small.width(), small.height(), ExtendedColorType::Rgb8)
        .map_err(|error| error.to_string())?;
    let text = base64::engine::general_purpose::STANDARD.encode(jpeg);
    let size = Size::new(small.height() as usize, small.width() as usize);
    Ok((format!("data:image/jpeg;base64,{text}"), size))
}
