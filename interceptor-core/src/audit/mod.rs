//! The record: what an event is ([`event`]) and how one proves the next.
//!
//! It owns the shape and the proof. It must not know where records are kept.

pub mod event;
