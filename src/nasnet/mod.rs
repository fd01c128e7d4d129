//! NASNet-A as data: the searched cells, and how a network is stacked from them.
//!
//! Zoph et al. 2018. [`genotype`] has the two tables of the paper's Figure 4, [`plan`] turns a name
//! such as `nasnet-a-6@4032` into a list of cells with widths, strides and inputs, and [`names`] gives
//! every tensor its published name. All executors are built from a [`Plan`].

pub mod genotype;
pub mod name;
pub mod names;
pub mod plan;

pub use name::BackboneName;
pub use plan::{Plan, Wiring};
