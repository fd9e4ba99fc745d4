//! The record on this machine: where it is kept and who writes it.
//!
//! It owns the log ([`store`]): a [`journal`] in which events become durable and a [`database`] in
//! which they stay; the handles through which they come ([`recorder`]) and the one thread that
//! writes ([`writer`]); what a gateway that was replaced has in its place ([`relay`], [`counter`])
//! and the forms in which records leave ([`json`]). What an event is and how one proves the next is
//! `interceptor_core::audit`'s business.

mod block;
pub mod counter;
mod database;
mod error;
mod events;
mod journal;
pub mod json;
mod log;
mod mover;
mod pending;
mod queue;
pub mod recorder;
pub mod relay;
pub mod store;
mod tail;
mod writer;

pub use counter::Counter;
pub use log::Log;
pub use recorder::{AuditError, Pending, Recorder};
pub use store::{Durability, Store, StoreError};
