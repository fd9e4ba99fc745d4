//! End to end: real clients, real servers, a real gateway, each test in a world of its own.
//!
//! It is one program, so that a test that mostly waits does so beside all the others.

mod backtest;
mod clients;
mod deny;
mod detours;
mod doors;
mod drift;
mod durability;
mod edges;
mod effects;
mod flow;
mod harness;
mod hold;
mod hostile;
mod kill;
mod lifecycle;
mod load;
mod login;
mod masks;
mod metrics;
mod names;
mod obligations;
mod older;
mod pass;
mod protocol;
mod quorum;
mod reload;
mod replacements;
mod replication;
mod support;
mod tls;
mod upgrade;
mod versions;
