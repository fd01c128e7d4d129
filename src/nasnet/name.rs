//! Names of backbones: `nasnet-a-N@F`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A NASNet-A of the ImageNet form: `N` normal cells a stage, `F` channels at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackboneName {
    /// Normal cells in each of the three stages.
    pub cells_per_stage: usize,
    /// Channels of the last cell, 24 times the filters of the first stage.
    pub channels: usize,
}

/// Why a name is no backbone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not of the form at all.
    #[error(
        "'{name}' is not a backbone; names look like nasnet-a-6@4032 (N cells a stage @ F channels at the end)"
    )]
    Form {
        /// What was given.
        name: String,
    },
    /// The stem's width, F / 96, is not whole.
    #[error(
        "'{name}': F must be a multiple of 96 from 96 to 24576, since the first stem cell is F / 96 wide; the nearest are {nearest}"
    )]
    Channels {
        /// What was given.
        name: String,
        /// Names that work.
        nearest: String,
    },
    /// N is out of range.
    #[error("'{name}': N must be 1 to 64 cells a stage")]
    Cells {
        /// What was given.
        name: String,
    },
}

impl BackboneName {
    /// NASNet-A large, 6@4032.
    pub const LARGE: Self = Self { cells_per_stage: 6, channels: 4032 };
    /// NASNet-A mobile, 4@1056.
    pub const MOBILE: Self = Self { cells_per_stage: 4, channels: 1056 };
}

impl fmt::Display for BackboneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nasnet-a-{}@{}", self.cells_per_stage, self.channels)
    }
}

impl From<BackboneName> for String {
    fn from(name: BackboneName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for BackboneName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for BackboneName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_owned();
        let lower = text.trim().to_ascii_lowercase();
        let parts = lower.strip_prefix("nasnet-a-").and_then(|rest| rest.split_once('@'));
        let Some((Ok(cells), Ok(channels))) =
            parts.map(|(n, f)| (n.parse::<usize>(), f.parse::<usize>()))
        else {
            return Err(NameError::Form { name });
        };
        if !(1..=64).contains(&cells) {
            return Err(NameError::Cells { name });
        }
        if channels % 96 != 0 || !(96..=24_576).contains(&channels) {
            let below = (channels / 96 * 96).clamp(96, 24_576);
            let above = (below + 96).min(24_576);
            let with = |channels| Self { cells_per_stage: cells, channels }.to_string();
            let nearest = format!("{} and {}", with(below), with(above));
            return Err(NameError::Channels { name, nearest });
        }
        Ok(Self { cells_per_stage: cells, channels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_printed() {
        assert_eq!("nasnet-a-6@4032".parse(), Ok(BackboneName::LARGE));
        assert_eq!("NASNet-A-4@1056".parse(), Ok(BackboneName::MOBILE));
        assert_eq!(BackboneName::LARGE.to_string(), "nasnet-a-6@4032");
    }

    #[test]
    fn others_are_refused_with_the_nearest_that_work() {
        let message = |t: &str| t.parse::<BackboneName>().unwrap_err().to_string();
        assert!(message("nasnet-a-5@1538").contains("nasnet-a-5@1536 and nasnet-a-5@1632"));
        assert!(message("nasnet-a-6@10").contains("nasnet-a-6@96"));
        assert!(message("nasnet-a-0@96").contains("1 to 64"));
        for bad in ["resnet50", "nasnet-b-4@1152", "nasnet-a-6", "nasnet-a-x@96", ""] {
            assert!(message(bad).contains("not a backbone"), "{bad}");
        }
    }
}
