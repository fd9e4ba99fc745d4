//! Wire formats: bounded decoders and encoders, a folder per protocol.
//!
//! It owns how bytes look. It must not know sessions, policy or masks.

pub mod postgres;
mod reader;
pub mod scram;

pub use reader::{DecodeError, Reader};
