//! Precision and recall of one category over all images (`COCOeval.accumulate`).
//!
//! Precision can only be highest where a detection has just found something, so that only these
//! places are kept; between them the curve is flat. Detections that find nothing at any threshold,
//! which are most, are counted once for all thresholds.

use rayon::prelude::*;

use super::cells::{CellRange, Cells, score_key};
use super::error::EvalError;
use super::matching::{Cell, Matcher};
use super::read::GroundTruth;
use super::results::{Detection, Results};
use super::settings::Settings;

/// Recall points at which precision is sampled.
pub(super) const RECALLS: usize = 101;
/// Detections that one task matches at least.
const TASK: u32 = 2048;

/// The curves of one category.
pub(super) struct Curves {
    /// `[A, M, T, R]`, of the largest M alone where the full arrays are not asked for.
    pub(super) precision: Vec<f64>,
    /// The same for scores; empty where they are not asked for.
    pub(super) scores: Vec<f64>,
    /// `[A, M, T]`
    pub(super) recall: Vec<f64>,
    /// True boxes that count, by area range.
    pub(super) ground_truths: Vec<usize>,
    /// Detections, those that do not count included.
    pub(super) detections: usize,
}

/// How one detection fared. In order of these, detections are best first, and equal scores in the
/// order of image ids and then in file order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    /// Ascends as scores descend.
    key: u64,
    /// Its number among the rows as they were made.
    number: u32,
    /// With [`FOUND`], the place of what it found. Else bit a says that its area lies outside range a.
    fate: u32,
}

/// The detection found something, at one threshold at least.
const FOUND: u32 = 1 << 31;

/// Where a row comes from.
#[derive(Clone, Copy)]
struct Origin {
    /// Place in the list of detections.
    det: u32,
    /// Place among the detections of its image and category, best first.
    place: u32,
}

/// What a detection counts as in one area range. Bit t of each speaks of threshold t; it counts
/// neither way where both are 0.
#[derive(Clone, Copy)]
struct Fate {
    hit: u64,
    miss: u64,
}

/// The rows of some cells, images ascending.
#[derive(Default)]
struct Rows {
    list: Vec<Row>,
    origins: Vec<Origin>,
    fates: Vec<Fate>,   // [found, A]
    truths: Vec<usize>, // [A]
    /// The first annotation whose id pycocotools can't keep when it is found.
    unusable_id: Option<u32>,
}

/// What is evaluated.
#[derive(Clone, Copy)]
pub(super) struct Problem<'a> {
    pub(super) gt: &'a GroundTruth,
    pub(super) results: &'a Results,
    pub(super) settings: &'a Settings,
    pub(super) cells: &'a Cells<'a>,
}

impl Curves {
    /// Of a category by its cells.
    pub(super) fn new(problem: Problem<'_>, cells: &[CellRange]) -> Result<Self, EvalError> {
        let mut rows = problem.rows(cells);
        if let Some(index) = rows.unusable_id {
            let text = "its `id` is a text that is no number, which can't be matched";
            return Err(problem.gt.entry_error(index, text.to_owned()));
        }
        rows.list.sort_unstable();

        let Settings { iou_thresholds, area_ranges, max_detections, arrays, .. } = problem.settings;
        let tops: Vec<Tops> = (0..max_detections.len())
            .map(|m| Tops::new(&rows, area_ranges.len(), problem.settings, m))
            .collect();
        let areas: Vec<Area> =
            (0..area_ranges.len()).into_par_iter().map(|a| problem.area(&rows, &tops, a)).collect();
        let kept = if *arrays { max_detections.len() } else { 1 };
        let size = iou_thresholds.len() * RECALLS * kept;
        let joined = |part: fn(&Area) -> &Vec<f64>, size: usize| {
            let mut all = Vec::with_capacity(size * areas.len());
            for area in &areas {
                all.extend(part(area));
            }
            all
        };
        Ok(Self {
            precision: joined(|a| &a.precision, size),
            scores: joined(|a| &a.scores, if *arrays { size } else { 0 }),
            recall: joined(|a| &a.recall, iou_thresholds.len() * max_detections.len()),
            ground_truths: rows.truths,
            detections: cells.iter().map(|c| c.detections.len()).sum(),
        })
    }
}

/// The curves of one category in one area range.
struct Area {
    precision: Vec<f64>, // [M, T, R]
    scores: Vec<f64>,    // [M, T, R]
    recall: Vec<f64>,    // [M, T]
}

impl Problem<'_> {
    /// Matches the cells, many at once.
    fn rows(&self, cells: &[CellRange]) -> Rows {
        let mut tasks = Vec::new();
        let (mut first, mut size) = (0, 0);
        for (i, cell) in cells.iter().enumerate() {
            size += cell.detections.len() as u32 + cell.truths.len() as u32;
            if size >= TASK || i + 1 == cells.len() {
                tasks.push(&cells[first..=i]);
                (first, size) = (i + 1, 0);
            }
        }
        let parts: Vec<Rows> = tasks.into_par_iter().map(|cells| self.match_cells(cells)).collect();
        let mut all = Rows { truths: vec![0; self.settings.area_ranges.len()], ..Rows::default() };
        all.list.reserve_exact(parts.iter().map(|p| p.list.len()).sum());
        all.fates.reserve_exact(parts.iter().map(|p| p.fates.len()).sum());
        all.origins.reserve_exact(parts.iter().map(|p| p.list.len()).sum());
        for part in parts {
            let found_before = (all.fates.len() / self.settings.area_ranges.len()) as u32;
            let rows_before = all.list.len() as u32;
            all.list.extend(part.list.into_iter().map(|row| Row {
                key: row.key,
                number: row.number + rows_before,
                fate: row.fate + if row.fate & FOUND == 0 { 0 } else { found_before },
            }));
            all.origins.extend(part.origins);
            all.fates.extend(part.fates);
            all.truths.iter_mut().zip(part.truths).for_each(|(all, part)| *all += part);
            all.unusable_id = all.unusable_id.into_iter().chain(part.unusable_id).min();
        }
        all
    }

    fn match_cells(&self, cells: &[CellRange]) -> Rows {
        let Settings { area_ranges: areas, iou_thresholds: thresholds, .. } = self.settings;
        let all_bits = self.all_bits();
        let mut out = Rows { truths: vec![0; areas.len()], ..Rows::default() };
        let count = cells.iter().map(|c| c.detections.len()).sum();
        out.list.reserve_exact(count);
        out.origins.reserve_exact(count);
        let mut matcher = Matcher::default();
        let (mut sorted, mut dets, mut gts) = (Vec::new(), Vec::new(), Vec::new());
        // They are scattered over memory: fetched together, they wait for each other less.
        let entries = self.cells.detections(cells);
        let detections: Vec<Detection> =
            entries.iter().map(|&d| self.results.detections[d as usize].clone()).collect();
        let mut rest = 0..0;
        for cell in cells {
            rest = rest.end..rest.end + cell.detections.len();
            sorted.clear();
            sorted.extend(rest.clone().map(|i| (score_key(detections[i].score), i)));
            sorted.sort_unstable();
            sorted.truncate(self.settings.most());
            let truths = self.cells.truths(cell);
            gts.clear();
            gts.extend(truths.iter().map(|&g| &self.gt.annotations[g as usize]));
            for (count, range) in out.truths.iter_mut().zip(areas) {
                *count += gts.iter().filter(|g| !g.ignore && !range.excludes(g.area)).count();
            }
            dets.clear();
            let first_row = out.list.len();
            for (&(key, i), place) in sorted.iter().zip(0..) {
                let (detection, det) = (&detections[i], entries[i]);
                dets.push(detection);
                let size = self.results.area(det as usize, detection);
                let outside = areas.iter().enumerate();
                let outside =
                    outside.fold(0, |bits, (a, r)| bits | u32::from(r.excludes(size)) << a);
                out.list.push(Row { key, number: out.list.len() as u32, fate: outside });
                out.origins.push(Origin { det, place });
            }
            if gts.is_empty() || dets.is_empty() {
                continue;
            }
            let places = sorted.iter().map(|&(_, i)| entries[i] as usize);
            let given =
                self.cells.overlaps.of_cell(places, &truths.iter().map(|&g| g as usize), &gts);
            let cell = Cell { dets: &dets, gts: &gts, overlaps: given.as_deref() };
            let Rows { list: rows, fates, unusable_id, .. } = &mut out;
            matcher.run(&cell, thresholds, areas, |pair| {
                let row = &mut rows[first_row + pair.det];
                if row.fate & FOUND == 0 {
                    let found = (fates.len() / areas.len()) as u32;
                    fates.extend((0..areas.len()).map(|a| {
                        // What a detection that finds nothing counts as.
                        let miss = if row.fate >> a & 1 == 1 { 0 } else { all_bits };
                        Fate { hit: 0, miss }
                    }));
                    row.fate = FOUND | found;
                }
                let found = (row.fate & !FOUND) as usize;
                let fate = &mut fates[found * areas.len() + pair.area];
                let bit = 1 << pair.threshold;
                let entry = truths[pair.gt];
                let is_zero = self.gt.is_zero(entry).unwrap_or_else(|| {
                    let first = unusable_id.map_or(entry, |first| first.min(entry));
                    *unusable_id = Some(first);
                    false
                });
                // pycocotools keeps the id of the truth and takes 0 for "none": the truth is used
                // up, and yet the detection counts as having found nothing.
                if is_zero && !self.settings.fix_id_zero && !pair.ignored {
                    return;
                }
                fate.miss &= !bit;
                if !pair.ignored {
                    fate.hit |= bit;
                }
            });
        }
        out
    }

    fn all_bits(&self) -> u64 {
        u64::MAX >> (64 - self.settings.iou_thresholds.len())
    }

    /// The curves of rows in order of score, in one area range.
    fn area(&self, rows: &Rows, tops: &[Tops], area: usize) -> Area {
        let Settings { iou_thresholds, max_detections, arrays, .. } = self.settings;
        let (t_count, m_count) = (iou_thresholds.len(), max_detections.len());
        let truths = rows.truths[area];
        let size = tops.iter().filter(|top| top.kept).count() * t_count * RECALLS;
        // -1 is left out of every mean.
        let empty = if truths == 0 { -1. } else { 0. };
        let mut out = Area {
            precision: vec![empty; size],
            scores: vec![empty; if *arrays { size } else { 0 }],
            recall: vec![empty; m_count * t_count],
        };
        if truths == 0 {
            return out;
        }
        let mut events = vec![Vec::new(); t_count];
        let mut start = 0;
        for (m, top) in tops.iter().enumerate() {
            if !top.kept {
                let hits = top.hits(rows, area, self.settings);
                let recalls = hits.iter().map(|&hits| hits as f64 / truths as f64);
                out.recall.splice(m * t_count..(m + 1) * t_count, recalls);
                continue;
            }
            top.events(rows, area, self.settings, &mut events);
            for (t, events) in events.iter_mut().enumerate() {
                out.recall[m * t_count + t] = events.len() as f64 / truths as f64;
                let sampled = sample(events, truths, &mut out.precision[start..][..RECALLS]);
                if *arrays {
                    let scores = &mut out.scores[start..][..RECALLS];
                    for (score, &number) in scores.iter_mut().zip(&sampled) {
                        *score = self.score(rows, number);
                    }
                    // Recall 0 is reached by the best detection, whatever it counts as.
                    if let Some(first) = top.first {
                        scores[0] = self.score(rows, first);
                    }
                }
                start += RECALLS;
            }
        }
        out
    }

    fn score(&self, rows: &Rows, number: u32) -> f64 {
        self.results.detections[rows.origins[number as usize].det as usize].score
    }
}

/// The detections that found something, best first, of the first so many of each image.
struct Tops {
    rows: Vec<Row>,
    /// How many that found nothing stand before each of them, in each area range: `[row, A]`.
    misses: Vec<u32>,
    /// The best detection, whatever it found.
    first: Option<u32>,
    /// Precision is asked for, and not recall alone.
    kept: bool,
}

impl Tops {
    fn new(rows: &Rows, areas: usize, settings: &Settings, m: usize) -> Self {
        let most = settings.max_detections[m];
        let is_last = m + 1 == settings.max_detections.len();
        let kept = settings.arrays || is_last;
        let mut top = Self { rows: Vec::new(), misses: Vec::new(), first: None, kept };
        let mut misses = vec![0; areas];
        for row in &rows.list {
            let is_found = row.fate & FOUND != 0;
            // The last of the numbers keeps all; recall needs nothing of what found nothing.
            let counts = is_last
                || (kept || is_found) && (rows.origins[row.number as usize].place as usize) < most;
            if !counts {
                continue;
            }
            top.first = top.first.or(Some(row.number));
            if is_found {
                top.rows.push(*row);
                top.misses.extend_from_slice(&misses);
            } else {
                for (area, misses) in misses.iter_mut().enumerate() {
                    *misses += 1 - (row.fate >> area & 1);
                }
            }
        }
        top
    }

    fn fates<'a>(
        &'a self,
        rows: &'a Rows,
        area: usize,
        areas: usize,
    ) -> impl Iterator<Item = Fate> {
        let place = move |row: &Row| (row.fate & !FOUND) as usize * areas + area;
        self.rows.iter().map(move |row| rows.fates[place(row)])
    }

    /// For each threshold how many find a truth.
    fn hits(&self, rows: &Rows, area: usize, settings: &Settings) -> Vec<usize> {
        let mut hits = vec![0; settings.iou_thresholds.len()];
        for fate in self.fates(rows, area, settings.area_ranges.len()) {
            for t in bits(fate.hit) {
                hits[t] += 1;
            }
        }
        hits
    }

    /// For each threshold the detections that find a truth, best first.
    fn events(&self, rows: &Rows, area: usize, settings: &Settings, events: &mut [Vec<Event>]) {
        let areas = settings.area_ranges.len();
        events.iter_mut().for_each(Vec::clear);
        let mut own = vec![0_u32; events.len()];
        let fates = self.fates(rows, area, areas);
        let before = self.misses.chunks_exact(areas).map(|misses| misses[area]);
        for ((row, fate), before) in self.rows.iter().zip(fates).zip(before) {
            for t in bits(fate.hit) {
                let hits = (events[t].len() + 1) as f64;
                let misses = f64::from(own[t]) + f64::from(before);
                // The epsilon guards 0 / 0, and makes a single hit 0.9999999999999998.
                let precision = hits / ((misses + hits) + f64::EPSILON);
                events[t].push(Event { precision, row: row.number });
            }
            for t in bits(fate.miss) {
                own[t] += 1;
            }
        }
    }
}

/// A detection that finds something.
#[derive(Clone, Copy)]
struct Event {
    precision: f64,
    /// Number of its row.
    row: u32,
}

fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}

/// Precision at the recall points; returns the rows at which those are reached that are.
fn sample(events: &mut [Event], truths: usize, precision: &mut [f64]) -> Vec<u32> {
    // The highest precision at this recall or a higher one.
    let mut highest = 0.;
    for event in events.iter_mut().rev() {
        highest = if event.precision > highest { event.precision } else { highest };
        event.precision = highest;
    }
    let mut rows = Vec::with_capacity(RECALLS);
    let recall = |hits: usize| hits as f64 / truths as f64;
    for (r, out) in precision.iter_mut().enumerate() {
        let point = recall_point(r);
        // The first hit that reaches the point; rounding may move it by one.
        let mut hits = ((point * truths as f64) as usize).max(1);
        while hits > 1 && recall(hits - 1) >= point {
            hits -= 1;
        }
        while recall(hits) < point {
            hits += 1;
        }
        let Some(event) = events.get(hits - 1) else { break };
        *out = event.precision;
        rows.push(event.row);
    }
    rows
}

/// `numpy.linspace(0, 1, 101)`: multiples of 0.01 as a product of doubles, which is not k / 100.
fn recall_point(k: usize) -> f64 {
    if k == 100 { 1. } else { k as f64 * 0.01 }
}
