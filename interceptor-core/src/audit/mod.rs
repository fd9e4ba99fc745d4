//! The record: what an event is ([`event`]), how one proves the next ([`chain`], [`verify`]),
//! how a person reads it ([`render`]) and how policy files fit into it ([`snapshot`]).
//!
//! It owns the shape and the proof. It must not know where records are kept.

pub mod chain;
mod command;
pub mod event;
pub mod redecide;
pub mod render;
pub mod snapshot;
pub mod verify;
