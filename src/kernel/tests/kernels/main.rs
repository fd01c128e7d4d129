//! The kernels against plain code, for each instruction set of this processor, on one thread and on three.
//!
//! All maps of a case lie in one memory of just the size that they need. Between their pixels, rows and images are gaps,
//! and in each float that no map has stands a NaN of its own: what reads one gives a wrong result, what writes one is
//! found. What reads beyond the memory is found under valgrind or `AddressSanitizer` (`make sanitize`).

#![expect(unsafe_code, reason = "running a step is unsafe")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod maps;
mod matrix;
mod nan;
mod pixels;
mod products;
mod refusals;
mod windows;
