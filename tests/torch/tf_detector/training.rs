//! A training step.
