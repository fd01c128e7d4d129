//! What a matrix product reads: weights in the order of reading, and the parts of a row.

use std::ops::Range;

use half::bf16;

use crate::aligned::Aligned;

/// How weights are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// Floats of a vector.
    pub lanes: usize,
    /// Vectors of a panel.
    pub columns: usize,
    /// Vectors of a panel where one more than a whole one is left.
    pub last: usize,
    /// Inputs of a word, which has the size of a float: 1, a float, or 2 in bfloat16.
    pub inputs: usize,
}

impl Packing {
    /// Vectors of the next panel, where `left` of them are left. A narrow one comes before the last whole one, whose last
    /// vector may be half padding: that saves more beside whole vectors.
    fn panel(self, left: usize) -> usize {
        match left.saturating_sub(self.columns) {
            0 => left,
            1 => self.last,
            beside if beside < self.columns => beside,
            _ => self.columns,
        }
    }
}

/// Some vectors of outputs side by side, whose sums registers hold.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    /// Its first output.
    pub(crate) first: usize,
    /// How many.
    pub(crate) vectors: usize,
    /// The words from the first to the last whose weights are not all zero: half of them for most outputs of a factorized
    /// reduction.
    pub(crate) used: Range<usize>,
    /// Where the weights of these words begin.
    pub(crate) start: usize,
    /// Whether the upper half of its last vector is padding.
    pub(crate) lower: bool,
}

/// Weights of a product in the order of reading, and what is added.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Panel after panel; in each, for every word that it uses, the weights of its outputs.
    pub(crate) data: Aligned,
    /// One an output, and zeros up to whole vectors.
    pub(crate) bias: Aligned,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    packing: Packing,
    pub(crate) panels: Vec<Panel>,
    /// All words of a row, where they lie side by side.
    pub(crate) all: Reading,
}

/// Floats of weights that the innermost cache keeps.
const NEAR: usize = 1 << 13;
/// Floats of weights that the others keep from one tile to the next.
const FEW: usize = 1 << 18;

impl Packed {
    /// Packs `weight(output, input)`. Words whose weights are zero for all outputs of a panel are left out at either end:
    /// what is read there adds nothing, whether it is a number or not.
    pub fn new(
        [outputs, inputs]: [usize; 2],
        packing: Packing,
        weight: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
    ) -> Self {
        let Packing { lanes, inputs: per_word, .. } = packing;
        let (padded, words) = (outputs.next_multiple_of(lanes), inputs.div_ceil(per_word));
        let one = |output, input| {
            if output < outputs && input < inputs { weight(output, input) } else { 0. }
        };
        let word = |output, number: usize| {
            if per_word == 1 {
                return one(output, number);
            }
            let [first, second] = [0, 1].map(|i| bf16::from_f32(one(output, 2 * number + i)));
            f32::from_bits(u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16)
        };
        let (mut panels, mut first, mut start) = (Vec::new(), 0, 0);
        while first < padded {
            let vectors = packing.panel((padded - first) / lanes);
            let end = first + vectors * lanes;
            let some = |&number: &usize| (first..end).any(|output| word(output, number) != 0.);
            let begin = (0..words).find(some).unwrap_or(words);
            let used = begin..(begin..words).rfind(some).map_or(begin, |last| last + 1);
            let length = used.len() * (end - first);
            let lower = outputs + lanes / 2 <= end;
            panels.push(Panel { first, vectors, used, start, lower });
            (first, start) = (end, start + length);
        }
        let mut data = Aligned::zeros(start).expect("std::bad_alloc: memory for weights");
        let mut place = data.iter_mut();
        for panel in &panels {
            for number in panel.used.clone() {
                for output in panel.first..panel.first + panel.vectors * lanes {
                    *place.next().expect("a place for each word") = word(output, number);
                }
            }
        }
        let bias = (0..padded).map(|o| if o < outputs { bias(o) } else { 0. }).collect();
        let all = Reading::new(&[Segment { offset: 0, length: words }]);
        Self { data, bias, inputs, outputs, packing, panels, all }
    }

    /// Floats of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Floats of an output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// How they are packed.
    pub(crate) fn packing(&self) -> Packing {
        self.packing
    }

    /// Words of an input row.
    pub(crate) fn words(&self) -> usize {
        self.all.length
    }

    /// Whether they come from afar, so that they should be asked for before they are read.
    pub(crate) fn far(&self) -> bool {
        self.padded() * self.inputs > NEAR
    }

    /// Whether they are too many for the caches to keep from one tile to the next.
    pub(crate) fn many(&self) -> bool {
        self.padded() * self.inputs > FEW
    }

    /// Floats that are written for an output row: whole vectors, the rest zeros.
    pub fn padded(&self) -> usize {
        self.bias.len()
    }
}

/// Some floats of a row that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Where, from the row's beginning.
    pub offset: usize,
    /// How many.
    pub length: usize,
}

/// Those of the words that `segments` read, one after the other, which are in `range`.
pub(crate) fn cut(segments: &[Segment], range: &Range<usize>) -> Vec<Segment> {
    let mut begin = 0;
    let one = |segment: &Segment| {
        let clamp = |at: usize| at.clamp(begin, begin + segment.length) - begin;
        let (first, end) = (clamp(range.start), clamp(range.end));
        begin += segment.length;
        Segment { offset: segment.offset + first, length: end.saturating_sub(first) }
    };
    segments.iter().map(one).filter(|s| s.length > 0).collect()
}

/// Words that take part together: a part of a panel of weights and of some rows that stays in the caches.
const PART: usize = 512;

/// What a product reads of each row, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub(crate) parts: Vec<Vec<Segment>>,
    length: usize,
    reach: usize,
}

impl Reading {
    /// Reads `segments` one after the other.
    pub fn new(segments: &[Segment]) -> Self {
        let length = segments.iter().map(|s| s.length).sum();
        let mut parts = vec![Vec::new()];
        // Of about the same length.
        let whole = usize::div_ceil(length, length.div_ceil(PART).max(1));
        let mut room = whole;
        for segment in segments {
            let Segment { mut offset, length: mut left } = *segment;
            while left > 0 {
                if room == 0 {
                    parts.push(Vec::new());
                    room = whole;
                }
                let some = left.min(room);
                parts.last_mut().expect("there is one").push(Segment { offset, length: some });
                (offset, left, room) = (offset + some, left - some, room - some);
            }
        }
        Self {
            parts,
            length,
            reach: segments.iter().map(|s| s.offset + s.length).max().unwrap_or(0),
        }
    }

    /// Floats that are read of a row.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How far they reach from a row's beginning.
    pub fn reach(&self) -> usize {
        self.reach
    }

    /// Floats of room that a product needs for `rows` rows of `weights`: for words that have to be made, and for sums of
    /// parts.
    pub(crate) fn room(&self, rows: usize, weights: &Packed) -> usize {
        let words = if weights.packing.inputs > 1 { weights.words() } else { 0 };
        let sums = if self.parts.len() > 1 { weights.padded() } else { 0 };
        rows * (words + sums)
    }
}
