//! What can be typed to ask policy files something: test, explain, backtest, diff.
//!
//! It owns names, defaults and examples; nothing here does anything.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::super::arguments::LogArgs;

/// `interceptor policy test`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  interceptor policy test ./policies
  interceptor policy test ./policies --filter drop
  interceptor policy test ./policies --junit report.xml

Tests are documents of kind Test in DIR/tests/*.yaml: a client, a command, and the decision that is
expected. Other documents there, such as a Target, are policy for the tests only. Each folder in DIR
that holds policy files is tested by itself as well.

Exit status: 0 every test passed; 1 one failed, or there is none, or the files hold errors.")]
pub struct TestArgs {
    /// Directory of policy files, or of such directories
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
    /// Run only tests whose name holds this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Write the results to this file, in the form of JUnit
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub junit: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `interceptor policy diff`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  interceptor policy diff /etc/interceptor/policies ./policies
  interceptor policy diff running ./policies
  interceptor policy diff 5d1f20 running

A and B are directories, `running` for what the gateway decides by, or a hash on record (see
`interceptor policy show --list`). Documents are compared by kind and name, without comments and
layout: moving one to another file is no change.

Exit status: 0 they say the same; 1 they do not.")]
pub struct DiffArgs {
    /// The policy before
    #[arg(value_name = "A", value_hint = ValueHint::DirPath)]
    pub a: String,
    /// The policy after
    #[arg(value_name = "B", value_hint = ValueHint::DirPath)]
    pub b: String,
    /// Where the log is and how to print.
    #[command(flatten)]
    pub source: LogArgs,
}
