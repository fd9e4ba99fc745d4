//! The pure core of interceptor.
//!
//! It owns what the gateway *means*: how a protocol's bytes look ([`wire`]), how a session
//! flows ([`session`]), what a command does ([`command`]), what policy says of it ([`policy`]),
//! what may be shown ([`mask`]) and what is written down ([`audit`]).
//!
//! It must not know sockets, tokio, clocks, files or logging. The crate is `no_std`, so that
//! those are out of reach; time comes in as a parameter.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod audit;
pub mod command;
pub mod mask;
pub mod policy;
pub mod session;
pub mod sql;
pub mod wire;
pub mod written;
