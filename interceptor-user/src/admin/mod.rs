//! The administration socket: how the command line asks a running gateway.
//!
//! It owns the protocol (a JSON object a line, both ways), the socket and who may use it. It must
//! not know how answers are shown.

pub mod client;
mod kill;
pub mod place;
pub mod protocol;
pub mod server;

pub use client::{Client, ClientError};
pub use place::Place;
pub use protocol::{AdminRequest, Killing, SessionRow};
pub use server::{AdminContext, AdminError, Socket, UpgradeRequest, serve, serve_on};

/// The socket's name in the run directory.
pub const SOCKET: &str = "admin.sock";
