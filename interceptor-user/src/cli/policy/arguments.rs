//! What can be typed after `interceptor policy`, and the help that teaches it.
//!
//! It owns names, defaults and examples; nothing here does anything.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::questions::TestArgs;

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
    /// Bring policy files into the one form
    Fmt(FormatArgs),
    /// Run the tests beside policy files
    Test(TestArgs),
}

/// `interceptor policy fmt`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  interceptor policy fmt ./policies            all *.yaml in it and the folders below
  interceptor policy fmt --check ./policies    in CI: list what is not in form, exit 1
  interceptor policy fmt --stdin < a.yaml      for editors

Comments, quotes' contents and the order of everything stay; a file that would say something else
afterwards is left as it is. A file that is broken, or is no policy, is an error and is not touched.
A part below the comment `# interceptor-fmt-ignore` keeps its form.")]
pub struct FormatArgs {
    /// Files, or directories with all below them [default: this directory]
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Change nothing; list the files that are not in form
    #[arg(long)]
    pub check: bool,
    /// Read from standard input and write to standard output
    #[arg(long, conflicts_with = "paths")]
    pub stdin: bool,
}
