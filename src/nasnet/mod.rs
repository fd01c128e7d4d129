//! NASNet-A as data: the searched cells, and how a network is stacked from them.
//!
//! Zoph et al. 2018. [`genotype`] has the two tables of the paper's Figure 4, [`plan`] turns a name
//! such as `nasnet-a-6@4032` into a list of cells with widths, strides and inputs, [`layers`] that into a flat
//! list of layers with weights, and [`names`] gives every tensor its published name. All executors,
//! counts and importers are built from a [`Plan`]. [`published`] has what the paper prints of its networks.

pub mod count;
pub mod genotype;
pub mod layers;
pub mod name;
pub mod names;
pub mod notation;
pub mod plan;
pub mod published;

pub use count::NetworkCount;
pub use genotype::Cells;
pub use name::{BackboneName, Family, Form};
pub use plan::{Plan, PlanError, Wiring};
