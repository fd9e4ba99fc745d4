//! Masking: which cells may not be seen, and what is shown instead.
//!
//! It owns methods and patterns. It must not know how a protocol frames a cell.

/// The masks in force on one target, compiled.
#[derive(Debug, Default)]
pub struct Masks {}
