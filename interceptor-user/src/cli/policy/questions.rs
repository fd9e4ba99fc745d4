//! What can be typed to ask policy files something: test, explain, backtest, diff.
//!
//! It owns names, defaults and examples; nothing here does anything.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::super::arguments::LogArgs;
use super::backtest::Moment;

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

/// `interceptor policy backtest`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  interceptor policy backtest --policies ./policies
  interceptor policy backtest --policies ./policies --since 30d --json
  interceptor policy backtest --policies ./policies --log /backup/audit --exit-code

Every recorded command of that time is decided on again, with what is on record of its client, its
facts and its time. Listed are those whose outcome or rule is another now. Nothing is sent anywhere.

Exit status: 0 done; with --exit-code 1 if anything changes; 1 as well if it could not be done.")]
pub struct BacktestArgs {
    /// Directory of policy files [default: the running gateway's policy]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub policies: Option<PathBuf>,
    /// From then on: so long ago, or a time in RFC 3339
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = Moment::parse)]
    pub since: Moment,
    /// Until then, likewise
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = Moment::parse)]
    pub until: Moment,
    /// Show so many kinds of change, the most frequent first
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// End with 1 if anything changes
    #[arg(long)]
    pub exit_code: bool,
    /// Where the log is and how to print.
    #[command(flatten)]
    pub source: LogArgs,
}

/// `interceptor policy explain`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  interceptor policy explain 'DROP TABLE x' --as alice --target orders
  interceptor policy explain 'DELETE FROM t' --as alice --target orders --policies ./policies
  interceptor policy explain 'SELECT 1' --as ci --target orders --at 2026-11-21T03:00:00Z --all

--as names a person: the facts of the first entry of the Identity that can be imitated are taken,
and printed. Where no Identity has the name, it is the target's user. Options come on top of that.")]
pub struct ExplainArgs {
    /// The statement; for a target that is not understood, leave it out
    #[arg(value_name = "SQL")]
    pub statement: Option<String>,
    /// A person, or a user of the target
    #[arg(long = "as", value_name = "NAME")]
    pub who: Option<String>,
    /// The target
    #[arg(long, value_name = "NAME")]
    pub target: String,
    /// Directory of policy files [default: the running gateway's policy]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub policies: Option<PathBuf>,
    /// The target's user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The target's database
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// The client's address
    #[arg(long, value_name = "ADDR")]
    pub client: Option<IpAddr>,
    /// The local process' real user id
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// The local process' executable
    #[arg(long, value_name = "PATH")]
    pub executable: Option<String>,
    /// The local process' cgroup
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// The local process' container
    #[arg(long, value_name = "ID")]
    pub container: Option<String>,
    /// The local process' systemd unit
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,
    /// When, in RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub at: Option<jiff::Timestamp>,
    /// The rows that the server's statistics give
    #[arg(long, value_name = "N")]
    pub estimated_rows: Option<u64>,
    /// Show every key of every rule
    #[arg(long)]
    pub all: bool,
    /// Where the log is and how to print.
    #[command(flatten)]
    pub source: LogArgs,
}

fn parse_moment(text: &str) -> Result<jiff::Timestamp, String> {
    let moment = text.parse();
    moment.map_err(|_| "write a time such as 2026-11-20T10:00:00Z".to_owned())
}
