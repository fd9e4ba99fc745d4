//! What a decision costs, told to somebody who has a clock.
//!
//! It owns where the time begins and ends. It must not know what is made of it.

use core::fmt;

/// Is called around each decision. The core has no clock, so that whoever observes reads one.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A decision begins. What it gives comes back at the end.
    fn begin(&self) -> u64;
    /// It has ended.
    fn end(&self, begun: u64);
}
