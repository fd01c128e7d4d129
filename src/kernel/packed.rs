//! What a matrix product reads: weights in the order of reading, and the parts of a row.

use crate::aligned::Aligned;

/// Weights of a product in the order of reading, and what is added.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Panels of at most `Vector::COLUMNS` vectors; in each, for every input, the weights of its outputs.
    pub(crate) data: Aligned,
    /// One an output, and zeros up to whole vectors.
    pub(crate) bias: Aligned,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    lanes: usize,
    columns: usize,
}

impl Packed {
    /// Packs `weight(output, input)` for vectors of `lanes` floats, `columns` of them in a panel.
    pub fn new(
        [outputs, inputs]: [usize; 2],
        [lanes, columns]: [usize; 2],
        weight: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
    ) -> Self {
        let padded = outputs.next_multiple_of(lanes);
        let mut data = Aligned::zeros(padded * inputs).expect("std::bad_alloc: memory for weights");
        let mut place = data.iter_mut();
        for first in (0..padded).step_by(columns * lanes) {
            let width = (columns * lanes).min(padded - first);
            for input in 0..inputs {
                let one = |output| if output < outputs { weight(output, input) } else { 0. };
                for output in first..first + width {
                    *place.next().expect("a place for each weight") = one(output);
                }
            }
        }
        let bias = (0..padded).map(|o| if o < outputs { bias(o) } else { 0. }).collect();
        Self { data, bias, inputs, outputs, lanes, columns }
    }

    /// Floats of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Floats of an output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Floats of a vector and vectors of a panel.
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.lanes, self.columns]
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

/// Inputs that take part together: a part of a panel of weights and of some rows that stays in the caches.
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
        let mut parts = vec![Vec::new()];
        let mut room = PART;
        for segment in segments {
            let Segment { mut offset, mut length } = *segment;
            while length > 0 {
                if room == 0 {
                    parts.push(Vec::new());
                    room = PART;
                }
                let some = length.min(room);
                parts.last_mut().expect("there is one").push(Segment { offset, length: some });
                (offset, length, room) = (offset + some, length - some, room - some);
            }
        }
        Self {
            parts,
            length: segments.iter().map(|s| s.length).sum(),
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

    /// Floats of room that a product needs for `rows` rows of `weights`.
    pub(crate) fn room(&self, rows: usize, weights: &Packed) -> usize {
        if self.parts.len() > 1 { rows * weights.padded() } else { 0 }
    }
}
