//! The administration socket: how the command line asks a running gateway.
//!
//! It owns the protocol (a JSON object a line, both ways), the socket and who may use it. It must
//! not know how answers are shown.

pub mod client;
mod kill;
mod peer;
pub mod place;
pub mod protocol;
mod reload;
mod resolve;
pub mod server;
mod socket;

pub use client::{Client, ClientError};
pub use place::Place;
pub use protocol::{AdminRequest, Killing, SessionRow};
pub use server::{AdminContext, ReloadRequest, UpgradeRequest, serve, serve_on};
pub use socket::{AdminError, Socket, SocketGroup};

/// The socket's name in the run directory.
pub const SOCKET: &str = "admin.sock";
