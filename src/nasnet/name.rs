//! Names of backbones: `nasnet-a-N@F`, with a suffix for the other forms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Whose cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// NASNet-A's.
    A,
    /// A user's own, from a genotype file: `nasnet-own-N@F`.
    Own,
}

/// How the cells are stacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A stem of stride 8 in all, three stages, a reduction cell between them.
    ImageNet,
    /// For images of 32 pixels: no stem cells, no stride before the first reduction (`-cifar`).
    Cifar,
    /// As for ImageNet, with normal cells of stride 2 in the place of stem and reduction cells (`-strided`).
    Strided,
}

impl Form {
    const ALL: [(Self, &'static str); 3] =
        [(Self::ImageNet, ""), (Self::Cifar, "-cifar"), (Self::Strided, "-strided")];

    fn suffix(self) -> &'static str {
        Self::ALL.iter().find(|(form, _)| *form == self).map_or("", |(_, suffix)| suffix)
    }

    /// `F` of NASNet-A is a multiple of this, so that all widths are whole, and even where a map is
    /// halved in two paths.
    fn unit(self) -> usize {
        match self {
            Self::ImageNet => 96,
            Self::Cifar => 24,
            Self::Strided => 192,
        }
    }
}

/// A NASNet: `N` normal cells a stage, `F` channels at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackboneName {
    /// Whose cells.
    pub family: Family,
    /// Normal cells in each of the three stages.
    pub cells_per_stage: usize,
    /// Channels of the last cell; with NASNet-A's cells, 24 times the filters of the first stage.
    pub channels: usize,
    /// How the cells are stacked.
    pub form: Form,
}

/// Why a name is no backbone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not of the form at all.
    #[error(
        "'{name}' is not a backbone; names look like nasnet-a-6@4032 (N cells a stage @ F channels at the end), nasnet-a-6@768-cifar or nasnet-a-5@1536-strided"
    )]
    Form {
        /// What was given.
        name: String,
    },
    /// Some cell's width is not whole.
    #[error(
        "'{name}': F must be a multiple of {unit} from {unit} to {LARGEST}, so that every cell's width is whole; the nearest {nearest}"
    )]
    Channels {
        /// What was given.
        name: String,
        /// What F must be a multiple of.
        unit: usize,
        /// The names that work: `is ...` or `are ... and ...`.
        nearest: String,
    },
    /// N is out of range.
    #[error("'{name}': N must be 1 to 64 cells a stage")]
    Cells {
        /// What was given.
        name: String,
    },
}

/// Largest number of channels.
const LARGEST: usize = 24_576;

impl BackboneName {
    /// NASNet-A large, 6@4032.
    pub const LARGE: Self = Self::a(6, 4032, Form::ImageNet);
    /// NASNet-A mobile, 4@1056.
    pub const MOBILE: Self = Self::a(4, 1056, Form::ImageNet);

    /// A NASNet-A of any form. The name is not checked; [`str::parse`] does.
    pub const fn a(cells_per_stage: usize, channels: usize, form: Form) -> Self {
        Self { family: Family::A, cells_per_stage, channels, form }
    }

    fn check(self, name: &str) -> Result<Self, NameError> {
        let name = name.to_owned();
        if !(1..=64).contains(&self.cells_per_stage) {
            return Err(NameError::Cells { name });
        }
        let (channels, unit) = match self.family {
            Family::A => (self.channels, self.form.unit()),
            // How much a cell joins is in the genotype; the plan checks it.
            Family::Own => (self.channels, 1),
        };
        if channels.is_multiple_of(unit) && (unit..=LARGEST).contains(&channels) {
            return Ok(self);
        }
        let below = (channels / unit * unit).clamp(unit, LARGEST / unit * unit);
        let above = (below + unit).min(LARGEST / unit * unit);
        let with = |channels| Self { channels, ..self }.to_string();
        // The paper's Table 2 has one row that no width gives; see `published`.
        let nearest = if (self.cells_per_stage, channels) == (5, 1538) {
            format!("is {} (the paper's 5@1538)", Self::a(5, 1536, Form::Strided))
        } else if below == above {
            format!("is {}", with(below))
        } else {
            format!("are {} and {}", with(below), with(above))
        };
        Err(NameError::Channels { name, unit, nearest })
    }
}

impl fmt::Display for BackboneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::A => "a",
            Family::Own => "own",
        };
        let Self { cells_per_stage, channels, form, .. } = self;
        write!(f, "nasnet-{family}-{cells_per_stage}@{channels}{}", form.suffix())
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
        let lower = text.trim().to_ascii_lowercase();
        let refused = || NameError::Form { name: text.to_owned() };
        let (family, rest) = [(Family::A, "nasnet-a-"), (Family::Own, "nasnet-own-")]
            .into_iter()
            .find_map(|(family, prefix)| Some((family, lower.strip_prefix(prefix)?)))
            .ok_or_else(refused)?;
        let (form, rest) = (Form::ALL.into_iter().rev())
            .find_map(|(form, suffix)| Some((form, rest.strip_suffix(suffix)?)))
            .ok_or_else(refused)?;
        let numbers = rest.split_once('@').map(|(n, f)| (n.parse::<usize>(), f.parse::<usize>()));
        let Some((Ok(cells_per_stage), Ok(channels))) = numbers else { return Err(refused()) };
        Self { family, cells_per_stage, channels, form }.check(text)
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
        for name in ["nasnet-a-6@768-cifar", "nasnet-a-5@1536-strided", "nasnet-own-3@100"] {
            assert_eq!(name.parse::<BackboneName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn others_are_refused_with_the_nearest_that_work() {
        let message = |t: &str| t.parse::<BackboneName>().unwrap_err().to_string();
        assert!(message("nasnet-a-5@1538").contains("nasnet-a-5@1536-strided"));
        assert!(message("nasnet-a-5@1550").contains("nasnet-a-5@1536 and nasnet-a-5@1632"));
        assert!(message("nasnet-a-6@10").contains("nasnet-a-6@96"));
        assert!(message("nasnet-a-4@1056-strided").contains("4@960-strided and nasnet-a-4@1152"));
        assert!(message("nasnet-a-6@770-cifar").contains("nasnet-a-6@768-cifar"));
        let largest = message("nasnet-a-1@99999999999");
        assert!(largest.ends_with("the nearest is nasnet-a-1@24576"), "{largest}");
        assert!(message("nasnet-a-0@96").contains("1 to 64"));
        for bad in
            ["resnet50", "nasnet-b-4@1152", "nasnet-a-6", "nasnet-a-x@96", "", "nasnet-a-4@96-x"]
        {
            assert!(message(bad).contains("not a backbone"), "{bad}");
        }
    }
}
