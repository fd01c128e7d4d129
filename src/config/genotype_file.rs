//! A user's own cells from a TOML file, for `--backbone FILE.toml`.
//!
//! It holds a name such as `nasnet-own-4@768` and two cells, `[normal]` and `[reduction]`, in the notation
//! of [`crate::nasnet::notation`]. Every error names the line.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use crate::nasnet::notation::{CellText, OwnCells};
use crate::nasnet::plan::published_stem_filters;
use crate::nasnet::{BackboneName, Cells, Family, Plan, Wiring};

/// Why a genotype file is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GenotypeError {
    /// It can't be read.
    #[error("cannot read the cells {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No TOML, or keys that do not belong there: the inner error quotes the line.
    #[error("{path} does not describe cells:\n{}", toml.to_string().trim_end())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why. No `source`: it is shown already, and a chain of errors would show it again.
        toml: Box<toml::de::Error>,
    },
    /// A row or a state makes no sense.
    #[error("{path}, line {line}: {reason}\n    {text}")]
    Cell {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What stands there.
        text: String,
        /// Why it can't be.
        reason: String,
    },
}

/// A backbone with cells of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnBackbone {
    /// `nasnet-own-N@F`.
    pub name: BackboneName,
    /// The cells.
    pub cells: OwnCells,
    /// Filters of the stem convolution.
    pub stem_filters: usize,
    /// Which second input follows a reduction.
    pub wiring: Wiring,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    stem_filters: Option<Spanned<usize>>,
    wiring: Option<Wiring>,
    normal: Spanned<Cell>,
    reduction: Spanned<Cell>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cell {
    rows: Vec<Spanned<String>>,
    concat: Option<Vec<Spanned<String>>>,
}

impl OwnBackbone {
    /// Whether `--backbone` names such a file rather than a published network.
    pub fn is_file(text: &str) -> bool {
        Path::new(text).extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"))
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, GenotypeError> {
        let text = fs::read_to_string(path)
            .map_err(|source| GenotypeError::Read { path: path.into(), source })?;
        Self::from_toml(&text, path)
    }

    /// The stack of cells.
    ///
    /// # Panics
    /// Never: what [`Self::read`] gives was stacked there.
    pub fn plan(&self) -> Plan {
        Plan::new(self.name, self.wiring, self.stem_filters, &self.cells.0)
            .expect("it was stacked when it was read")
    }

    fn from_toml(text: &str, path: &Path) -> Result<Self, GenotypeError> {
        let fault = |at: usize, reason: String| {
            let line = text[..at].lines().count().max(1) + usize::from(text[..at].ends_with('\n'));
            let quoted = text.lines().nth(line - 1).unwrap_or_default().trim().to_owned();
            GenotypeError::Cell { path: path.into(), line, text: quoted, reason }
        };
        let file: File = toml::from_str(text)
            .map_err(|e| GenotypeError::Parse { path: path.into(), toml: Box::new(e) })?;
        let at = file.name.span().start;
        let name: BackboneName =
            file.name.get_ref().parse().map_err(|e| fault(at, format!("{e}")))?;
        if name.family != Family::Own {
            let reason = "cells of one's own are called nasnet-own-N@F".to_owned();
            return Err(fault(at, reason));
        }
        let cell = |cell: &Spanned<Cell>| {
            let start = cell.span().start;
            let cell = cell.get_ref();
            let plain = |texts: &[Spanned<String>]| {
                texts.iter().map(|t| t.get_ref().clone()).collect::<Vec<String>>()
            };
            let text =
                CellText { rows: plain(&cell.rows), concat: cell.concat.as_deref().map(plain) };
            text.genotype().map_err(|f| {
                let list = match (f.in_concat, &cell.concat) {
                    (true, Some(concat)) => &concat[..],
                    _ => &cell.rows[..],
                };
                let place = f.at.and_then(|i| list.get(i)).map_or(start, |t| t.span().start);
                fault(place, f.reason)
            })
        };
        let cells = Cells { normal: cell(&file.normal)?, reduction: cell(&file.reduction)? };
        let wiring = file.wiring.unwrap_or(Wiring::Mobile);
        let (stem_at, stem_filters) = match &file.stem_filters {
            Some(n) => (n.span().start, *n.get_ref()),
            None => (at, published_stem_filters(name)),
        };
        if !(1..=1024).contains(&stem_filters) {
            let reason = format!("stem_filters must be 1 to 1024, not {stem_filters}");
            return Err(fault(stem_at, reason));
        }
        Plan::new(name, wiring, stem_filters, &cells).map_err(|e| fault(at, e.to_string()))?;
        Ok(Self { name, cells: OwnCells(cells), stem_filters, wiring })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "nasnet-own-2@96"

[normal]
rows = [
    "sep5(h) + sep3(p)",
    "conv1(s0) ++ max5(h)",
]
concat = ["s0", "s1"]

[reduction]
rows = ["sep3(h) + max3(p)", "id(s0) + split7(h)"]
"#;

    fn message(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from));
        OwnBackbone::from_toml(&GOOD.replace(from, to), Path::new("c.toml"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_file_becomes_a_plan() {
        let own = OwnBackbone::from_toml(GOOD, Path::new("c.toml")).unwrap();
        let plan = own.plan();
        assert_eq!(own.stem_filters, 32);
        // F = 96 of two joined states: 12 filters at first.
        assert_eq!(plan.cells[2].width, 12);
        assert_eq!(plan.cells.last().unwrap().out_channels(), 96);
        // The second row is twice as wide, and is brought back before it is joined.
        assert!(plan.cells[2].layers().iter().any(|l| l.inputs == 24 && l.outputs == 12));
    }

    #[test]
    fn faults_name_their_line() {
        assert!(message("conv1(s0)", "conv2(s0)").contains("line 7: 'conv2' is no operation"));
        assert!(message("\"s1\"]", "\"s7\"]").contains("line 9: there is no row for s7"));
        assert!(
            message("sep3(h) + max3(p)", "sep3(h) + max3(s0)").contains("line 12: row 0 reads")
        );
        assert!(message("2@96", "2@100").contains("line 2: nasnet-own-2@100: F must be"));
        assert!(message("own", "a").contains("line 2:"));
        assert!(message("rows = [\"sep3", "row = [\"sep3").contains("12 |"));
    }
}
