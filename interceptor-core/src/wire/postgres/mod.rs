//! PostgreSQL's frontend/backend protocol, version 3
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
//!
//! ```text
//!  type  length (incl. itself)   body
//! ┌────┬────┬────┬────┬────┬────────────┐
//! │ 'Q'│      i32, ≥ 4     │ …          │     the startup packet has no type byte
//! └────┴────┴────┴────┴────┴────────────┘
//! ```

pub mod backend;
pub mod encode;
pub mod frame;
pub mod frontend;
pub mod sasl;
pub mod startup;
