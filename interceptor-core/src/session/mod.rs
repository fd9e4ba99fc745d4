//! Sessions: a state machine per protocol, without I/O.
//!
//! It owns the flow of one connection. Bytes, times and answers come in; bytes and actions come
//! out. It must not know sockets, clocks or where the record is kept.

pub mod duties;
pub mod postgres;

use crate::policy::Rate;

/// The time, of two clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Of a clock that only goes forward: for how long things take.
    pub monotonic_ns: u64,
    /// The time of day, in nanoseconds since the Unix epoch: for what the policy says of it.
    pub unix_ns: u64,
}

/// Counts commands for limits on rates. It is shared by sessions: who opens another connection does
/// not begin anew.
pub trait Rates: Send + Sync {
    /// Counts one more command of `who` under the limit of `rule`. `false` if that is one too many, or
    /// if it cannot be counted.
    fn admit(&self, rule: &str, who: &str, rate: Rate, monotonic_ns: u64) -> bool;
}
