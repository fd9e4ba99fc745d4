//! The harness: a small world of network namespaces with a real PostgreSQL and a real gateway.
//!
//! It is used by the end-to-end tests, by `cargo xtask demo` and by `cargo xtask bench`. It knows
//! the gateway by its command line only, so nothing in here may depend on the gateway's crates,
//! nor on anything that `cargo xtask setup` has yet to install.
//!
//! ```text
//!  icpt-<name>-client        icpt-<name>-gateway           icpt-<name>-target
//!  10.77.1.2 ─────────────── 10.77.1.1   10.77.2.1 ─────── 10.77.2.2  PostgreSQL
//!  fd77:1::2                 fd77:1::1   fd77:2::1         fd77:2::2
//!                                                          10.77.2.3  the same, named by no policy
//! ```
//!
//! A [`World`] is known by its name alone: whatever a killed run left behind is found by that
//! name and swept away when the next one starts.

pub mod cgroup;
pub mod clients;
pub mod dns;
pub mod gateway;
pub mod interrupt;
pub mod messages;
pub mod netns;
pub mod policies;
pub mod postgres;
pub mod process;
pub mod psql;
pub mod wire;
pub mod world;

pub use dns::Dns;
pub use gateway::Gateway;
pub use process::{Finished, Running, wait_until};
pub use psql::Psql;
pub use world::{
    From, World, with_gateway, with_gateway_of, with_own_binary, with_world, with_world_of,
};
