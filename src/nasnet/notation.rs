//! Cells as text: `sep5(h) + sep3(p)` is a row, `p` or `s0` a state.
//!
//! With it a cell that somebody searched, or a published one whose figure somebody has, is written down
//! in a TOML file; a configuration and a model file hold the same text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::genotype::{Cells, Combine, Genotype, Op, OpKind, Row, State};

/// Every operation by its name in text.
const OPERATIONS: [(&str, OpKind); 13] = [
    ("id", OpKind::Identity),
    ("sep3", OpKind::Separable { kernel: 3 }),
    ("sep5", OpKind::Separable { kernel: 5 }),
    ("sep7", OpKind::Separable { kernel: 7 }),
    ("avg3", OpKind::Average),
    ("max3", OpKind::Max { kernel: 3 }),
    ("max5", OpKind::Max { kernel: 5 }),
    ("max7", OpKind::Max { kernel: 7 }),
    ("conv1", OpKind::Convolution { kernel: 1, dilation: 1 }),
    ("conv3", OpKind::Convolution { kernel: 3, dilation: 1 }),
    ("dil3", OpKind::Convolution { kernel: 3, dilation: 2 }),
    ("split3", OpKind::Split { kernel: 3 }),
    ("split7", OpKind::Split { kernel: 7 }),
];

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::H => f.write_str("h"),
            Self::P => f.write_str("p"),
            Self::S(n) => write!(f, "s{n}"),
        }
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match (text, text.strip_prefix('s').and_then(|n| n.parse().ok())) {
            ("h", _) => Ok(Self::H),
            ("p", _) => Ok(Self::P),
            (_, Some(n)) => Ok(Self::S(n)),
            _ => Err(format!("'{text}' is no state; states are h, p and s0, s1, ...")),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = OPERATIONS.iter().find(|(_, kind)| *kind == self.kind);
        write!(f, "{}({})", named.map_or("?", |(name, _)| name), self.input)
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (name, input) = text
            .strip_suffix(')')
            .and_then(|rest| rest.split_once('('))
            .ok_or_else(|| format!("'{text}' is no operation; one looks like sep5(h)"))?;
        let found = OPERATIONS.iter().find(|(known, _)| *known == name.trim());
        let (_, kind) = found.ok_or_else(|| {
            let names: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
            format!("'{}' is no operation; the operations are {}", name.trim(), names.join(", "))
        })?;
        Ok(Self { kind: *kind, input: input.parse()? })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.combine {
            Combine::Add => "+",
            Combine::Concat => "++",
            Combine::AddLayerNorm => "+ln",
            Combine::AddInstanceNorm => "+in",
        };
        write!(f, "{} {sign} {}", self.ops[0], self.ops[1])
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (left, rest) = text.split_once('+').ok_or_else(|| {
            format!("'{text}' is no row; one looks like sep5(h) + sep3(p), or with ++ to join instead of add")
        })?;
        // No operation is called as the signs end.
        let (right, combine) = [
            ("+", Combine::Concat),
            ("ln ", Combine::AddLayerNorm),
            ("in ", Combine::AddInstanceNorm),
            ("", Combine::Add),
        ]
        .into_iter()
        .find_map(|(sign, combine)| Some((rest.strip_prefix(sign)?, combine)))
        .expect("every text begins with nothing");
        Ok(Self { ops: [left.parse()?, right.parse()?], combine })
    }
}

/// A cell as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellText<T = String> {
    /// Rows, in the order of computation.
    pub rows: Vec<T>,
    /// States that are joined, in channel order; without it, those that no row reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concat: Option<Vec<T>>,
}

/// What is wrong with a cell, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellFault {
    /// Which row or, with `in_concat`, which of the joined states, from 0; `None` is the cell as a whole.
    pub at: Option<usize>,
    /// Whether `at` counts the joined states.
    pub in_concat: bool,
    /// What is wrong.
    pub reason: String,
}

impl<T: AsRef<str>> CellText<T> {
    /// The cell that the text describes.
    pub fn genotype(&self) -> Result<Genotype, CellFault> {
        let fault = |at, in_concat, reason| CellFault { at, in_concat, reason };
        let mut rows: Vec<Row> = Vec::new();
        for (i, text) in self.rows.iter().enumerate() {
            let row: Row = text.as_ref().parse().map_err(|e| fault(Some(i), false, e))?;
            for op in row.ops {
                if let State::S(n) = op.input
                    && n >= i
                {
                    let reason = format!(
                        "row {i} reads s{n}, which is made later; it may read h, p and the rows before it"
                    );
                    return Err(fault(Some(i), false, reason));
                }
            }
            rows.push(row);
        }
        if rows.is_empty() || rows.len() > 32 {
            return Err(fault(None, false, "a cell has 1 to 32 rows".into()));
        }
        let concat = match &self.concat {
            None => unread(&rows),
            Some(texts) => {
                let mut states: Vec<State> = Vec::new();
                for (i, text) in texts.iter().enumerate() {
                    let state = text.as_ref().parse().map_err(|e| fault(Some(i), true, e))?;
                    if matches!(state, State::S(n) if n >= rows.len()) {
                        let reason = format!("there is no row for {state}");
                        return Err(fault(Some(i), true, reason));
                    }
                    if states.contains(&state) {
                        return Err(fault(Some(i), true, format!("{state} is joined twice")));
                    }
                    states.push(state);
                }
                states
            }
        };
        if concat.is_empty() {
            return Err(fault(None, true, "a cell joins at least one state".into()));
        }
        Ok(Genotype { rows: rows.into(), concat: concat.into() })
    }
}

/// The states that no row reads: what the paper joins.
fn unread(rows: &[Row]) -> Vec<State> {
    let all = [State::H, State::P].into_iter().chain((0..rows.len()).map(State::S));
    all.filter(|state| !rows.iter().any(|row| row.ops.iter().any(|op| op.input == *state)))
        .collect()
}

impl From<&Genotype> for CellText {
    fn from(genotype: &Genotype) -> Self {
        Self {
            rows: genotype.rows.iter().map(ToString::to_string).collect(),
            concat: Some(genotype.concat.iter().map(ToString::to_string).collect()),
        }
    }
}

/// The two cells of a network, as they stand in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CellsText", into = "CellsText")]
pub struct OwnCells(pub Cells);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CellsText {
    normal: CellText,
    reduction: CellText,
}

impl TryFrom<CellsText> for OwnCells {
    type Error = String;

    fn try_from(text: CellsText) -> Result<Self, Self::Error> {
        let cell = |which: &str, text: &CellText| {
            text.genotype().map_err(|fault| format!("{which} cell: {}", fault.reason))
        };
        Ok(Self(Cells {
            normal: cell("normal", &text.normal)?,
            reduction: cell("reduction", &text.reduction)?,
        }))
    }
}

impl From<OwnCells> for CellsText {
    fn from(cells: OwnCells) -> Self {
        Self { normal: (&cells.0.normal).into(), reduction: (&cells.0.reduction).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nasnet::genotype::{NORMAL, REDUCTION};

    #[test]
    fn what_is_printed_is_read() {
        for genotype in [&NORMAL, &REDUCTION] {
            assert_eq!(&CellText::from(genotype).genotype().unwrap(), genotype);
        }
        let own = OwnCells(Cells::A);
        let json = serde_json::to_string(&own).unwrap();
        assert_eq!(serde_json::from_str::<OwnCells>(&json).unwrap(), own);
        for (name, kind) in OPERATIONS {
            let op: Op = format!("{name}(s3)").parse().unwrap();
            assert_eq!(op, Op { kind, input: State::S(3) });
        }
    }

    #[test]
    fn what_no_row_reads_is_joined() {
        let rows = ["max3(h) ++ id(p)", "conv1(s0) + split7(h)"].map(String::from).to_vec();
        let cell = CellText { rows, concat: None }.genotype().unwrap();
        assert_eq!(cell.concat.as_ref(), [State::S(1)]);
        assert_eq!(cell.rows[0].combine, Combine::Concat);
        for (text, combine) in [
            ("id(h) + id(p)", Combine::Add),
            ("id(h) ++ id(p)", Combine::Concat),
            ("id(h) +ln id(p)", Combine::AddLayerNorm),
            ("id(h) +in id(p)", Combine::AddInstanceNorm),
        ] {
            let row: Row = text.parse().unwrap();
            assert_eq!((row.combine, row.to_string().as_str()), (combine, text));
        }
    }

    #[test]
    fn faults_say_where_they_are() {
        let fault = |rows: &[&str], concat: Option<&[&str]>| {
            CellText { rows: rows.to_vec(), concat: concat.map(<[&str]>::to_vec) }
                .genotype()
                .unwrap_err()
        };
        let at = |f: &CellFault| (f.at, f.in_concat);
        let f = fault(&["id(h) + id(p)", "sep4(h) + id(p)"], None);
        assert!(at(&f) == (Some(1), false) && f.reason.contains("sep3, sep5, sep7"), "{f:?}");
        let f = fault(&["id(h) + id(s0)"], None);
        assert!(at(&f) == (Some(0), false) && f.reason.contains("made later"), "{f:?}");
        let f = fault(&["id(h) + id(p)"], Some(&["s0", "s1"]));
        assert!(at(&f) == (Some(1), true) && f.reason.contains("no row"), "{f:?}");
        assert!(fault(&["id(h) + id(p)"], Some(&["p", "p"])).reason.contains("twice"));
        assert!(fault(&["id(h) id(p)"], None).reason.contains("no row"));
        assert!(fault(&["id h + id(p)"], None).reason.contains("no operation"));
        assert!(fault(&["id(q) + id(p)"], None).reason.contains("no state"));
        assert!(fault(&[], None).reason.contains("1 to 32"));
    }
}
