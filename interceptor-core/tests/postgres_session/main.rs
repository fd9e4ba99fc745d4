//! The PostgreSQL session machine between a scripted client and a scripted server, under a clock
//! that the test moves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

mod effects;
mod encryption;
mod finding;
mod garbage;
mod logins;
mod masks;
mod names;
mod negotiation;
mod obligations;
mod overlap;
mod pair;
mod replication;
mod scram;
mod splits;
mod standing;
mod text;
mod uses;
mod verdicts;
