//! The NASNet rows of the paper's Tables 1 to 3, beside what is counted here.
//!
//! Source: Zoph, Vasudevan, Shlens and Le, *Learning Transferable Architectures for Scalable Image
//! Recognition*, CVPR 2018 (arXiv 1707.07012v4). Rows of other networks are left out. What is counted is
//! computed from a [`Plan`] each time; only what the paper prints stands here.
//!
//! One convention fits every row that can be counted: parameters are the trained ones and batch norm's
//! running statistics, cut (not rounded) after the printed digit; multiply-adds are rounded. The paper
//! does not state it.

use std::fmt;

use super::count::NetworkCount;
use super::name::{BackboneName, Form};
use super::plan::{Plan, published_classes};
use crate::geometry::Size;

/// A table of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Table 1.
    Cifar10,
    /// Table 2.
    ImageNet,
    /// Table 3: ImageNet with few multiply-adds.
    Mobile,
}

impl Table {
    /// In the paper's order.
    pub const ALL: [Self; 3] = [Self::Cifar10, Self::ImageNet, Self::Mobile];

    /// The paper's number.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// What the networks were trained and tested on.
    pub fn dataset(self) -> &'static str {
        match self {
            Self::Cifar10 => "CIFAR-10",
            Self::ImageNet | Self::Mobile => "ImageNet",
        }
    }
}

/// How well a network did, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quality {
    /// Test error.
    Error(f64),
    /// Accuracy of the first, and of the first five guesses, on one crop.
    Accuracy {
        /// The first is right.
        top1: f64,
        /// One of the first five is right.
        top5: f64,
    },
}

/// A number as the paper prints it: to a power of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    digits: u64,
    unit: u64,
}

impl Figure {
    /// `digits` x 10^`power`, with `power` from 5 to 8.
    const fn new(digits: u64, power: u32) -> Self {
        Self { digits, unit: 10_u64.pow(power) }
    }

    /// `n` to millions, or from a billion on to ten millions: the precision of the paper's multiply-adds.
    pub fn of_multiply_adds(n: u64) -> Self {
        Self::new(0, if n < 1_000_000_000 { 6 } else { 7 }).rounded(n)
    }

    /// The number.
    pub fn value(self) -> u64 {
        self.digits * self.unit
    }

    /// `n` in the precision of this figure, without what follows.
    fn cut(self, n: u64) -> Self {
        Self { digits: n / self.unit, ..self }
    }

    /// `n` in the precision of this figure, rounded.
    fn rounded(self, n: u64) -> Self {
        let up = u64::from(n % self.unit >= self.unit / 2);
        Self { digits: n / self.unit + up, ..self }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tens and hundreds of millions are decimals of a billion.
        let (letter, whole) =
            if self.unit > 1_000_000 { ('B', 1_000_000_000) } else { ('M', 1_000_000) };
        let parts = whole / self.unit;
        let decimals = parts.ilog10() as usize;
        if decimals == 0 {
            return write!(f, "{}{letter}", self.digits);
        }
        write!(f, "{}.{:0decimals$}{letter}", self.digits / parts, self.digits % parts)
    }
}

/// Whether a row can be counted, and what has to be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    /// Nothing.
    None,
    /// No form of the network has the printed number.
    Unexplained,
    /// The printed numbers are those of the strided form.
    Strided,
    /// The cells of NASNet-B: published as a drawing, with four inputs and four outputs.
    FourInputs,
    /// The cells of NASNet-C: published as a drawing.
    DrawingOnly,
}

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub table: Table,
    /// What the paper calls it, less "NASNet-".
    pub network: &'static str,
    /// Side of the images.
    pub side: usize,
    /// Error or accuracy.
    pub quality: Quality,
    /// Printed parameters.
    pub parameters: Figure,
    /// Printed multiply-adds; Table 1 has none.
    pub multiply_adds: Option<Figure>,
    /// What it is called here, where it can be built.
    pub name: Option<BackboneName>,
    /// What has to be said of it.
    pub remark: Remark,
}

/// The rows, in the paper's order.
pub const ROWS: [Row; 12] = {
    const SIX: Option<BackboneName> = Some(BackboneName::a(6, 768, Form::Cifar));
    const SEVEN: Option<BackboneName> = Some(BackboneName::a(7, 2304, Form::Cifar));
    const FIVE: Option<BackboneName> = Some(BackboneName::a(5, 1536, Form::Strided));
    const WIDE: Option<BackboneName> = Some(BackboneName::a(7, 1920, Form::Strided));
    const LARGE: Option<BackboneName> = Some(BackboneName::LARGE);
    const MOBILE: Option<BackboneName> = Some(BackboneName::MOBILE);
    use Remark::{DrawingOnly, FourInputs, None as Nothing, Strided, Unexplained};
    [
        cifar10("A 6@768", 3.41, 33, (SIX, Nothing)),
        cifar10("A 6@768 + cutout", 2.65, 33, (SIX, Nothing)),
        cifar10("A 7@2304", 2.97, 276, (SEVEN, Unexplained)),
        cifar10("A 7@2304 + cutout", 2.40, 276, (SEVEN, Unexplained)),
        cifar10("B 4@1152", 3.73, 26, (None, FourInputs)),
        cifar10("C 4@640", 3.59, 31, (None, DrawingOnly)),
        large("A 5@1538", 299, (78.6, 94.2), 109, Figure::new(235, 7), (FIVE, Strided)),
        large("A 7@1920", 299, (80.8, 95.3), 226, Figure::new(493, 7), (WIDE, Strided)),
        large("A 6@4032", 331, (82.7, 96.2), 889, Figure::new(238, 8), (LARGE, Nothing)),
        mobile("A 4@1056", (74.0, 91.6), 53, 564, (MOBILE, Nothing)),
        mobile("B 4@1536", (72.8, 91.3), 53, 488, (None, FourInputs)),
        mobile("C 3@960", (72.5, 91.0), 49, 558, (None, DrawingOnly)),
    ]
};

/// A row of Table 1; parameters in tenths of a million.
const fn cifar10(
    network: &'static str,
    error: f64,
    parameters: u64,
    (name, remark): (Option<BackboneName>, Remark),
) -> Row {
    Row {
        table: Table::Cifar10,
        network,
        side: 32,
        quality: Quality::Error(error),
        parameters: Figure::new(parameters, 5),
        multiply_adds: None,
        name,
        remark,
    }
}

/// A row of Table 2; parameters in tenths of a million.
const fn large(
    network: &'static str,
    side: usize,
    (top1, top5): (f64, f64),
    parameters: u64,
    multiply_adds: Figure,
    (name, remark): (Option<BackboneName>, Remark),
) -> Row {
    Row {
        table: Table::ImageNet,
        network,
        side,
        quality: Quality::Accuracy { top1, top5 },
        parameters: Figure::new(parameters, 5),
        multiply_adds: Some(multiply_adds),
        name,
        remark,
    }
}

/// A row of Table 3; parameters in tenths of a million, multiply-adds in millions.
const fn mobile(
    network: &'static str,
    accuracy: (f64, f64),
    parameters: u64,
    multiply_adds: u64,
    here: (Option<BackboneName>, Remark),
) -> Row {
    let multiply_adds = Figure::new(multiply_adds, 6);
    let row = large(network, 224, accuracy, parameters, multiply_adds, here);
    Row { table: Table::Mobile, ..row }
}

/// What is counted of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The network's name.
    pub name: BackboneName,
    /// Outputs of the classifier.
    pub classes: usize,
    /// The whole count.
    pub count: NetworkCount,
    /// Parameters with batch norm's statistics, as the paper prints them.
    pub parameters: Figure,
    /// Multiply-adds, as the paper prints them.
    pub multiply_adds: Figure,
}

impl Row {
    /// Counts the network; `None` where it can't be built.
    pub fn counted(&self) -> Option<Counted> {
        self.name.map(|name| self.count(name))
    }

    /// Whether the counts are the printed ones; `None` where there are none.
    pub fn agrees(&self) -> Option<bool> {
        let counted = self.counted()?;
        let multiply_adds = self.multiply_adds.is_none_or(|m| m == counted.multiply_adds);
        Some(multiply_adds && counted.parameters == self.parameters)
    }

    /// What has to be said of it, in a sentence or two.
    pub fn note(&self) -> Option<String> {
        match (self.remark, self.name) {
            (Remark::None, _) | (Remark::Unexplained | Remark::Strided, None) => None,
            (Remark::Unexplained, Some(name)) => Some(format!(
                "The released code gives {}. No form of the network and no width of its stem that was tried gives the printed {}; what the paper counted is not known.",
                self.count(name).parameters,
                self.parameters
            )),
            (Remark::Strided, Some(name)) => {
                let BackboneName { cells_per_stage, channels, .. } = name;
                let released = BackboneName::a(cells_per_stage, channels, Form::ImageNet);
                let printed = format!("{cells_per_stage}@{channels}");
                let read = if self.network.ends_with(&printed) {
                    String::new()
                } else {
                    format!("Read as {printed}, since F of these cells is a multiple of 24. ")
                };
                let c = self.count(released);
                Some(format!(
                    "{read}Both printed numbers come out with normal cells of stride 2 in the place of stem and reduction cells, of which the paper says nothing; as released, {released} has {} and {}.",
                    c.parameters, c.multiply_adds
                ))
            }
            (Remark::FourInputs, _) => Some(
                "The cells are published as a drawing alone, so they can't be counted. They read four states and give four, which a file of cells can't say either; see docs/cells.md."
                    .into(),
            ),
            (Remark::DrawingOnly, _) => Some(
                "The cells are published as a drawing alone, so they can't be counted. For what a file of cells can say, see docs/cells.md."
                    .into(),
            ),
        }
    }

    fn count(&self, name: BackboneName) -> Counted {
        let classes = published_classes(name);
        let count =
            NetworkCount::new(&Plan::published(name), Size::new(self.side, self.side), classes)
                .expect("the paper's images are large enough");
        let multiply_adds = match self.multiply_adds {
            Some(printed) => printed.rounded(count.multiply_adds),
            None => Figure::of_multiply_adds(count.multiply_adds),
        };
        let parameters = self.parameters.cut(count.parameters_with_batch_norm_statistics as u64);
        Counted { name, classes, count, parameters, multiply_adds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nasnet::plan::published_size;

    #[test]
    fn figures_are_printed_as_in_the_paper() {
        let printed = |digits, power| Figure::new(digits, power).to_string();
        assert_eq!(printed(889, 5), "88.9M");
        assert_eq!(printed(33, 5), "3.3M");
        assert_eq!(printed(564, 6), "564M");
        assert_eq!(printed(238, 8), "23.8B");
        assert_eq!(printed(235, 7), "2.35B");
        assert_eq!(printed(205, 7), "2.05B");
        assert_eq!(Figure::new(1, 5).cut(3_383_786).to_string(), "3.3M");
        assert_eq!(Figure::new(1, 8).rounded(23_783_414_658).to_string(), "23.8B");
        assert_eq!(Figure::of_multiply_adds(544_333_312).to_string(), "544M");
        assert_eq!(Figure::of_multiply_adds(5_226_678_524).to_string(), "5.23B");
        assert_eq!(Figure::new(493, 7).value(), 4_930_000_000);
    }

    #[test]
    fn what_can_be_counted_agrees_but_for_one_network() {
        let agrees: Vec<Option<bool>> = ROWS.iter().map(Row::agrees).collect();
        let (yes, no, none) = (Some(true), Some(false), None);
        assert_eq!(agrees, [yes, yes, no, no, none, none, yes, yes, yes, yes, none, none]);
        for row in &ROWS {
            let said = row.note().is_some();
            assert_eq!(said, row.remark != Remark::None, "{}", row.network);
            if let Some(name) = row.name {
                assert_eq!(published_size(name), row.side, "{name}");
            }
        }
    }

    #[test]
    fn in_the_released_form_the_strided_rows_would_not_agree() {
        for row in ROWS.iter().filter(|row| row.remark == Remark::Strided) {
            let name = BackboneName { form: Form::ImageNet, ..row.name.unwrap() };
            let row = Row { name: Some(name), ..*row };
            assert_eq!(row.agrees(), Some(false));
        }
    }
}
