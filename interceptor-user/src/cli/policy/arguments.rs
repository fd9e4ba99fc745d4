//! What can be typed after `interceptor policy`, and the help that teaches it.
//!
//! It owns names, defaults and examples; nothing here does anything.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};

/// `interceptor policy`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check policy files
    #[command(after_help = "Example:\n  interceptor policy check ./policies")]
    Check {
        /// Directory of policy files (*.yaml)
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}
