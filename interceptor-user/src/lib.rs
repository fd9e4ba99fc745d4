//! The gateway's shell: everything that touches the kernel, a socket, a clock or a file.

pub mod admin;
pub mod approval;
pub mod audit;
pub mod cli;
pub mod credentials;
pub mod gateway;
pub mod identify;
pub mod kernel;
pub mod mask_keys;
pub mod metrics;
pub mod policy_files;
pub mod resolve;
pub mod telemetry;
pub mod tls;
