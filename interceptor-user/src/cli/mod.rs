//! The command line.
//!
//! It owns what can be typed ([`arguments`]) and what is printed. It must not know how the gateway
//! works: the commands that need it are handed in as [`Parts`].

pub mod arguments;
