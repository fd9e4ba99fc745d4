//! What can be typed, and the help that teaches it.
//!
//! It owns names, defaults and examples; nothing here does anything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::policy::arguments::PolicyCommand;

/// A transparent policy gateway: holds, masks and records what clients ask of databases.
///
/// The kernel redirects connections to the targets that the policy files name; clients need no
/// change. Each command is allowed, held for a person, or refused by the policy files, and is on
/// record before it reaches the target.
#[derive(Debug, Parser)]
#[command(
    name = "interceptor",
    bin_name = "interceptor",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:
  interceptor doctor                           can this host run it?
  interceptor policy check ./policies          see whether the policy files are right
  interceptor run --policies ./policies        start the gateway (as root)
  interceptor status                           is it in force, and what did it decide?
  interceptor approvals list                   which commands wait for a person?
  interceptor approvals approve 7 --reason \"change 4711\"
  interceptor audit tail --follow              watch the record
  interceptor audit verify                     prove that nobody changed it

Exit status: 0 done; 1 the thing asked for failed; 2 the command line is wrong."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Run(RunArgs),
    /// Remove every trace of the gateway from this machine's kernel
    Detach(DetachArgs),
    /// Let the running gateway hand over to the binary that is installed now
    #[command(after_help = "Example:
  install -m 755 interceptor /usr/local/sbin/interceptor && interceptor upgrade

The gateway starts the file that it was started from, with the same arguments, and hands over: no
connection is refused, open sessions go on in the old process for --drain. The policy files are read
anew. If the new process fails before it serves, the old one goes on, and this command ends
with 1.")]
    Upgrade {
        /// How to reach the gateway and how to print.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Show whether the gateway is in force, and its counters
    Status(StatusArgs),
    /// Print what the running gateway counts, in the text format of OpenMetrics
    #[command(after_help = "Example:
  interceptor metrics | grep interceptor_decisions_total

`interceptor run --metrics` serves the same to scrapers.")]
    Metrics {
        /// The run directory of the gateway
        #[arg(long, value_name = "DIR", default_value = RUN_DIR, value_hint = ValueHint::DirPath)]
        run_dir: PathBuf,
    },
    /// Tell whether this host can run the gateway; changes nothing
    Doctor(DoctorArgs),
    /// Decide on commands that wait for a person
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// See who is connected
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Read, verify and export the record
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Work on policy files
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Make and show the certificate authority by which the gateway certifies targets to clients
    #[command(subcommand)]
    Ca(CaCommand),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  interceptor completions bash > /etc/bash_completion.d/interceptor"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(
        after_help = "Examples:\n  interceptor man | man -l -\n  interceptor man --output /usr/local/share/man/man1"
    )]
    Man {
        /// Write a page for each command into this directory instead.
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        output: Option<PathBuf>,
    },
}

/// `interceptor ca …`
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  interceptor ca init
  interceptor ca export > interceptor-ca.pem     for the clients to trust
  interceptor ca show --json

A gateway that runs takes a new authority within --policy-watch, or on SIGHUP.")]
pub enum CaCommand {
    /// Make an authority, unless there is one
    Init {
        /// Its name in certificates [default: interceptor CA, and this host's name]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Days until clients have to trust another
        #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
        /// Where it is and how to print.
        #[command(flatten)]
        place: CaPlace,
    },
    /// Print its certificate in PEM form, for clients to trust; how they do that goes to the error output
    Export {
        /// Where it is and how to print.
        #[command(flatten)]
        place: CaPlace,
    },
    /// Show what it is called, when it ends, and the fingerprint of its certificate
    Show {
        /// Where it is and how to print.
        #[command(flatten)]
        place: CaPlace,
    },
}

/// Where the authority is.
#[derive(Debug, Args)]
pub struct CaPlace {
    /// Directory of the authority
    #[arg(long, value_name = "DIR", default_value = CA, value_hint = ValueHint::DirPath)]
    pub ca: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// When a command that can only read goes to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditReads {
    /// Once it is recorded, as all others.
    Wait,
    /// At once; its reply waits for the record.
    Overlap,
}

/// `interceptor run`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  interceptor run --policies /etc/interceptor/policies
  interceptor run --policies ./policies --cgroup /sys/fs/cgroup/shop.slice --device eth1

It stays in the foreground. Changed policy files take effect by themselves, on SIGHUP and with
`interceptor policy reload`; if they are broken, those in force stay. SIGTERM stops: sessions get
--drain to end. While it is stopped, connections to the targets are refused; `interceptor detach`
lifts that.")]
pub struct RunArgs {
    /// Directory of policy files (*.yaml)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub policies: PathBuf,
    /// Cgroup whose processes are redirected [default: the cgroup2 root]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub cgroup: Option<PathBuf>,
    /// Directory on a BPF file system for the kernel objects, which outlive the process
    #[arg(long, value_name = "PATH", default_value = BPFFS, value_hint = ValueHint::DirPath)]
    pub bpffs: PathBuf,
    /// Directory for the record
    #[arg(long, value_name = "DIR", default_value = STATE, value_hint = ValueHint::DirPath)]
    pub state: PathBuf,
    /// When a command counts as recorded, and may go: once its event is on the disk, or once the kernel
    /// has it, which survives the gateway's death and not a power cut
    #[arg(
        long,
        value_name = "disk|process",
        default_value = "disk",
        hide_possible_values = true
    )]
    pub audit_durability: crate::audit::Durability,
    /// When a command that can only read goes to the target: once it is recorded, as all others, or while its
    /// record is on its way; then its reply waits for the record
    #[arg(
        long,
        value_name = "wait|overlap",
        default_value = "wait",
        hide_possible_values = true
    )]
    pub audit_reads: AuditReads,
    /// Directory of the gateway's own certificate authority, if it has one (`interceptor ca init`)
    #[arg(long, value_name = "DIR", default_value = CA, value_hint = ValueHint::DirPath)]
    pub ca: PathBuf,
    /// Directory for admin.sock, which exists while the gateway carries connections
    #[arg(long, value_name = "DIR", default_value = RUN_DIR, value_hint = ValueHint::DirPath)]
    pub run_dir: PathBuf,
    /// Group whose members may use `interceptor approvals`, by admin.sock's mode [default: root alone]
    #[arg(long, value_name = "GROUP", value_parser = crate::admin::SocketGroup::find)]
    pub admin_group: Option<crate::admin::SocketGroup>,
    /// Device that clients are routed through; repeatable [default: all but lo]
    #[arg(long = "device", value_name = "DEV")]
    pub devices: Vec<String>,
    /// Port that redirected connections are accepted on
    #[arg(long, value_name = "PORT", default_value_t = 15001, value_parser = clap::value_parser!(u16).range(1..))]
    pub listen_port: u16,
    /// DNS server to ask for the names of targets, port 53 unless given; repeatable [default: those
    /// of /etc/resolv.conf]
    #[arg(long = "dns-server", value_name = "ADDR[:PORT]", value_parser = crate::resolve::parse_server)]
    pub dns_servers: Vec<SocketAddr>,
    /// How long an address that a name has no more stays a target when nothing else needs it
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::resolve::parse_grace)]
    pub dns_grace: Duration,
    /// How long open sessions may go on after SIGTERM, and undisturbed after an upgrade
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
    /// How often to look for changes that others made in the kernel, and repair them
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub watch: Duration,
    /// Whether changes of the policy files take effect by themselves: `on`, `off`, or how often to look
    /// where the system does not tell of changes, as on network file systems [on: 10s]
    #[arg(long, value_name = "on|off|TIME", default_value = "on", value_parser = parse_policy_watch)]
    pub policy_watch: PolicyWatchMode,
    /// Serve metrics over HTTP on this address, at /metrics [default: they are not served]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Let the address of --metrics be one that other hosts reach: there is no login
    #[arg(long, requires = "metrics")]
    pub metrics_exposed: bool,
    /// What to log: a level, or levels by module (tracing's filter syntax)
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "INTERCEPTOR_LOG"
    )]
    pub log: String,
    /// How to log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Whether changes of the policy files take effect by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyWatchMode {
    /// They do when somebody asks.
    Off,
    /// They do at once where the system tells of them, and after this time elsewhere.
    On(Duration),
}

impl PolicyWatchMode {
    /// How often to look; `None` for never.
    #[must_use]
    pub const fn interval(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::On(interval) => Some(interval),
        }
    }
}

fn parse_policy_watch(text: &str) -> Result<PolicyWatchMode, String> {
    match text {
        "on" => Ok(PolicyWatchMode::On(Duration::from_secs(10))),
        "off" => Ok(PolicyWatchMode::Off),
        _ => match humantime::parse_duration(text) {
            Ok(time) if (1..=3600).contains(&time.as_secs()) => Ok(PolicyWatchMode::On(time)),
            _ => Err("`on`, `off`, or a time from 1s to 1h such as 30s".to_owned()),
        },
    }
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// An object a line for machines
    Json,
}

/// `interceptor detach`
#[derive(Debug, Args)]
#[command(
    after_help = "Removes links, pins, the nft table, ip rules and routes, and the proxy's cgroup. Afterwards the
targets can be reached past the policy, as if interceptor had never run. Stop the gateway first."
)]
pub struct DetachArgs {
    /// The cgroup that `run` was given [default: the cgroup2 root]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub cgroup: Option<PathBuf>,
    /// The directory that `run` was given
    #[arg(long, value_name = "PATH", default_value = BPFFS, value_hint = ValueHint::DirPath)]
    pub bpffs: PathBuf,
}

/// `interceptor status`
#[derive(Debug, Args)]
#[command(
    after_help = "The kernel's part works while the proxy is dead: it shows whether the targets are still guarded.

Exit status: 1 if something is not as the gateway set it (drift; the watchdog repairs that), or if
the policy files at hand were refused, so that older ones are in force."
)]
pub struct StatusArgs {
    /// The directory that `run` was given
    #[arg(long, value_name = "PATH", default_value = BPFFS, value_hint = ValueHint::DirPath)]
    pub bpffs: PathBuf,
    /// How to reach the gateway and how to print.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `interceptor doctor`
#[derive(Debug, Args)]
#[command(
    after_help = "It needs root, and no gateway. What has to be tried is tried in a network namespace, a mount
namespace and a cgroup that are made for it and removed afterwards.

  available  as it should be
  fallback   not there; the gateway does the same in another way
  weaker     not there; the detail says what is lost
  missing    not there; the gateway cannot run (exit status 1)"
)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Be the gateway of the trial, in this cgroup
    #[arg(long, hide = true, value_name = "CGROUP")]
    pub trial: Option<PathBuf>,
    /// Be the client of the trial, in this cgroup
    #[arg(long, hide = true, value_name = "CGROUP")]
    pub trial_client: Option<PathBuf>,
}

/// What all commands that ask the gateway take.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// The run directory of the gateway
    #[arg(long, value_name = "DIR", default_value = RUN_DIR, value_hint = ValueHint::DirPath)]
    pub run_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `interceptor approvals`
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  interceptor approvals list
  interceptor approvals show 7
  interceptor approvals approve 7 --reason \"change 4711\"
  interceptor approvals deny 7 --reason \"use the replica\"

A request is approved once, as it was shown: the same command sent again is a new request. Where its
hold names groups, so many different members of them have to approve, who sent it does not count,
and one denial ends it; `show` says who has approved and who may. Who answers is the user that
runs this.")]
pub enum ApprovalsCommand {
    /// List the commands that wait
    List {
        /// How to reach the gateway and how to print.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Show one of them whole
    Show {
        /// The request's number
        number: u64,
        /// How to reach the gateway and how to print.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Let it go to the target
    Approve(ResolveArgs),
    /// Refuse it
    Deny(ResolveArgs),
}

/// `interceptor approvals approve` and `deny`
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The request's number
    pub number: u64,
    /// Why; the client sees it and the record keeps it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// How to reach the gateway and how to print.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `interceptor sessions`
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  interceptor sessions list
  interceptor sessions kill 0199a2f0 --reason \"runaway export\"")]
pub enum SessionsCommand {
    /// List the open sessions
    List {
        /// How to reach the gateway and how to print.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// End a session on both sides at once
    #[command(
        after_help = "What the target is doing for the session is cancelled. A PostgreSQL client is told who ended it and
why (SQLSTATE 57P01); a client of a `tcp` target is reset. It is on record before it happens."
    )]
    Kill {
        /// The session's id, or as much of its start as no other has
        #[arg(value_name = "ID")]
        id: String,
        /// Why; the client sees it and the record keeps it
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// How to reach the gateway and how to print.
        #[command(flatten)]
        common: CommonArgs,
    },
}

/// `interceptor audit`
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  interceptor audit tail -n 50
  interceptor audit tail --follow --json | jq 'select(.event.decision == \"deny\")'
  interceptor audit verify
  interceptor audit export --output audit.jsonl
  cp -a /var/lib/interceptor/audit /tmp/copy && interceptor audit verify --dir /tmp/copy

The running gateway is asked; if none runs, the log in --state is opened. --dir opens a directory
that no gateway has open, such as a copy; make the copy while the gateway is stopped.")]
pub enum AuditCommand {
    /// Print the last events, one a line
    Tail {
        /// How many
        #[arg(short = 'n', value_name = "N", default_value_t = 20)]
        count: u64,
        /// Go on with new events as they come
        #[arg(long, short = 'f', conflicts_with = "dir")]
        follow: bool,
        /// Where the log is and how to print.
        #[command(flatten)]
        source: LogArgs,
    },
    /// Prove that no record was changed, removed or moved
    Verify {
        /// Where the log is and how to print.
        #[command(flatten)]
        source: LogArgs,
    },
    /// Write all records out, for verification and reading by other tools
    Export {
        /// File to write; it must not exist [default: standard output]
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
        /// Form of the records
        #[arg(long, value_name = "FORMAT", default_value = "json")]
        format: ExportFormat,
        /// Where the log is and how to print.
        #[command(flatten)]
        source: LogArgs,
    },
}

/// Form of exported records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// An object a line
    Json,
    /// Protobuf messages, each after its length as a varint
    Protobuf,
}

/// Where the log is.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Open this log directory instead of asking a gateway
    #[arg(long, visible_alias = "log", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    /// The state directory of the gateway, for when it does not run
    #[arg(long, value_name = "DIR", default_value = STATE, value_hint = ValueHint::DirPath)]
    pub state: PathBuf,
    /// How to reach the gateway and how to print.
    #[command(flatten)]
    pub common: CommonArgs,
}

const BPFFS: &str = "/sys/fs/bpf/interceptor";
const STATE: &str = "/var/lib/interceptor";
const CA: &str = "/var/lib/interceptor/ca";
const RUN_DIR: &str = "/run/interceptor";
