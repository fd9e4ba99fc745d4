//! The record on this machine: where it is kept and who writes it.
//!
//! It owns the sled database ([`store`]), the one thread that writes to it ([`recorder`]) and the
//! forms in which records leave ([`json`]). What an event is and how one proves the next is
//! `interceptor_core::audit`'s business.

pub mod json;
pub mod recorder;
pub mod store;

pub use recorder::{AuditError, Pending, Recorder};
pub use store::{Store, StoreError};
