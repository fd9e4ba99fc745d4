//! What can be typed after `interceptor policy`, and the help that teaches it.
//!
//! It owns names, defaults and examples; nothing here does anything.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::super::arguments::{CommonArgs, LogArgs};
use super::questions::{BacktestArgs, DiffArgs, ExplainArgs, TestArgs};

/// `interceptor policy`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check policy files: errors, and what is hardly meant
    Check(CheckArgs),
    /// Bring policy files into the one form
    Fmt(FormatArgs),
    /// Print the JSON Schema of policy documents, for editors
    #[command(after_help = "Example:
  interceptor policy schema > /etc/interceptor/policy.schema.json

and in the first line of a policy file, for editors with a YAML language server:
  # yaml-language-server: $schema=/etc/interceptor/policy.schema.json

An editor sees one document at a time; `interceptor policy check` sees them all.")]
    Schema,
    /// Let the running gateway read its policy files now, and say what came of it
    #[command(after_help = "Example:
  interceptor policy check /etc/interceptor/policies && interceptor policy reload

It waits until the files are in force or refused. If they are refused, all errors are printed, those
in force stay, and this command ends with 1.")]
    Reload {
        /// How to reach the gateway and how to print.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Show policy files as they were, from the record
    Show(ShowArgs),
    /// Run the tests beside policy files
    Test(TestArgs),
    /// Tell what the policy says to a command, and why
    Explain(Box<ExplainArgs>),
    /// Tell which recorded commands a policy would decide in another way
    Backtest(BacktestArgs),
    /// Tell which documents of two policies differ
    Diff(DiffArgs),
}

/// `interceptor policy show`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  interceptor policy show                        those in force
  interceptor policy show --list                 all that are on record
  interceptor policy show 5d1f20 --output /tmp/then
  interceptor policy show --dir /backup/audit-2026-11

A command on record names the hash of the files that decided it. Without HASH it is the files that
the running gateway decides by; if none is asked, those that were recorded last.")]
pub struct ShowArgs {
    /// The files' hash, or as much of its start as no other has
    #[arg(value_name = "HASH", conflicts_with = "list")]
    pub hash: Option<String>,
    /// List all files on record by hash
    #[arg(long)]
    pub list: bool,
    /// Write the files into this directory, over nothing [default: print them]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "list")]
    pub output: Option<PathBuf>,
    /// Where the log is and how to print.
    #[command(flatten)]
    pub source: LogArgs,
}

/// `interceptor policy check`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  interceptor policy check ./policies
  interceptor policy check --deny-warnings ./policies   in CI
  interceptor policy check --tests ./policies           with the folders in it, and their tests

All errors are shown at once, with their places. A warning is about what loads and yet does nothing:
a rule that another one always decides before, one that no command can meet, a Grant that is over.

Exit status: 1 if there is an error; with --deny-warnings also if there is a warning.")]
pub struct CheckArgs {
    /// Directory of policy files (*.yaml)
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
    /// Take what is in the folder `tests` as part of it, and look into other folders as well
    #[arg(long)]
    pub tests: bool,
    /// Let a warning be an error
    #[arg(long)]
    pub deny_warnings: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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
