//! The gateway's shell: everything that touches the kernel, a socket, a clock or a file.

pub mod policy_files;
