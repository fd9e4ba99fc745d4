//! Sessions: a state machine per protocol, without I/O.
//!
//! It owns the flow of one connection. Bytes, times and answers come in; bytes and actions come
//! out. It must not know sockets, clocks or where the record is kept.

pub mod postgres;
