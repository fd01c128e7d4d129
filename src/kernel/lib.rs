//! What computes in `detect`'s engine for CPUs: kernels over vectors of floats, and the steps of a program that are made
//! of them.
//!
//! It is a package of its own for two reasons: all unsafe code of the engine is here, and it is compiled with
//! optimisation in every profile, without which tests would take minutes. What makes it sound:
//! - instruction sets: [`Instructions`] are made where the processor has them, and `Instructions::run` alone calls
//!   code that needs them;
//! - places: a [`Step`] says by [`View`]s what it reads and writes, and [`Step::check`] holds the outermost floats of
//!   all of them against the memory that there is before a program is run;
//! - threads: a step's tiles write disjoint pixels, and steps that run at the same time write disjoint buffers, which
//!   the program's builder sees to (`detect::engine::program`).
//!
//! # Layers
//! A module uses only modules to its left:
//!
//! `aligned -> packed -> vector -> instructions, finish -> product, step -> matrix, window -> tile -> team`

#![expect(
    clippy::inline_always,
    reason = "what is not inlined is compiled without the instructions of its caller"
)]
#![expect(unsafe_code, reason = "SIMD intrinsics, and memory that threads share by tiles")]

mod aligned;
mod finish;
mod instructions;
mod matrix;
mod packed;
mod product;
mod step;
mod team;
mod tile;
mod vector;
mod window;

pub use self::aligned::{Aligned, zeros};
pub use self::instructions::Instructions;
pub use self::matrix::multiply;
pub use self::packed::{Packed, Packing, Reading, Segment};
pub use self::step::{Fold, Grid, OUTS, Operation, Out, Step, View};
pub use self::team::{Memory, run};
