//! The record on this machine: where it is kept and who writes it.
//!
//! It owns the sled database ([`store`]), the one thread that writes to it ([`recorder`]), what a
//! gateway that was replaced has in its place ([`relay`], [`counter`]) and the forms in which records
//! leave ([`json`]). What an event is and how one proves the next is
//! `interceptor_core::audit`'s business.

pub mod counter;
pub mod json;
mod log;
pub mod recorder;
pub mod relay;
pub mod store;

pub use counter::Counter;
pub use log::Log;
pub use recorder::{AuditError, Pending, Recorder};
pub use store::{Store, StoreError};
