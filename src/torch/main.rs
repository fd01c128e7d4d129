//! `detect-torch`.
fn main() {}
