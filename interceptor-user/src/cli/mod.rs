//! The command line.
//!
//! It owns what can be typed ([`arguments`]) and what is printed. It must not know how the gateway
//! works: the commands that need it are handed in as [`Parts`].

mod approvals;
pub mod arguments;
mod audit;
mod ca;
mod doctor;
mod metrics;
mod output;
mod policy;
mod sessions;
mod status;
mod upgrade;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use interceptor_core::audit::verify::Finding;
use serde_json::Value;

use crate::admin::ClientError;
use crate::audit::StoreError;
use crate::policy_files::PolicyFilesError;
use crate::tls::AuthorityError;
use arguments::{
    ApprovalsCommand, Arguments, AuditCommand, Command, DetachArgs, RunArgs, SessionsCommand,
};

/// The parts of the program that the command line starts and does not contain.
pub struct Parts {
    /// Runs the gateway until it is told to stop.
    pub run: fn(RunArgs) -> anyhow::Result<()>,
    /// Removes the gateway's traces from the kernel.
    pub detach: fn(DetachArgs) -> anyhow::Result<()>,
    /// What the kernel says, from the objects pinned in this directory: an object.
    pub kernel_status: fn(&Path) -> anyhow::Result<Value>,
}

/// Why a command failed. Printed as `interceptor: what happened; what to do`.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Part(#[from] anyhow::Error),
    #[error("{0}; keep a copy of the log for examination, and ask who could write to it")]
    Tampered(Finding),
    #[error(
        "no gateway answers on {socket}, and there is no log in {directory}; give --run-dir, --state or --dir"
    )]
    NoLog { socket: PathBuf, directory: PathBuf },
    #[error("{path} cannot be written: {source}; give another --output")]
    Output { path: PathBuf, source: io::Error },
    #[error("{path} cannot be written: {source}; check the path and its permissions")]
    OutputFile { path: PathBuf, source: io::Error },
    #[error("this host cannot run the gateway: {0}; provide what is missing, and ask again")]
    Unfit(String),
    #[error(
        "the kernel plane is not as it should be (drift: {0}); a gateway that runs repairs it within --watch, otherwise start it"
    )]
    Drift(usize),
    /// Each with its own words, over several lines.
    #[error("{0}")]
    Refused(String),
    #[error(
        "files that are not in the one form: {0}; run `interceptor policy fmt` without --check, which changes no meaning"
    )]
    Unformatted(usize),
    #[error("the policy files were refused, and policy {hash} stays in force:\n{errors}")]
    PolicyRefused { hash: String, errors: String },
    #[error(
        "the policy files at hand were refused, so that older ones are in force; mend the files (`interceptor policy check`), or look at `interceptor policy reload`"
    )]
    PolicyStale,
    #[error(
        "the record holds no policy files{}; `interceptor policy show --list` lists them", match .0.as_str() { "" => String::new(), start => format!(" with a hash that begins with {start}") }
    )]
    NoSnapshot(String),
    #[error("several policies on record have a hash that begins with {0}; give more of it")]
    ManySnapshots(String),
    #[error(transparent)]
    PolicyFiles(#[from] PolicyFilesError),
    #[error("{failed} of {count} policy tests failed; correct the rules, or what the tests expect")]
    PolicyTests { failed: usize, count: usize },
    #[error("the policy holds errors: {count}; they are in the output")]
    PolicyBroken { count: usize },
    #[error("the policy holds warnings: {count}; mend what they say, or leave --deny-warnings out")]
    PolicyWarnings { count: usize },
    #[error("{0}")]
    NoPolicyTests(String),
    #[error(
        "no gateway answers on {0}, so no policy is in force that could be asked; name a directory of policy files, or give its --run-dir"
    )]
    NoPolicy(PathBuf),
    #[error("{0}")]
    Question(String),
    /// The answer is printed, and it is one that the exit status tells as well.
    #[error("the answer is no")]
    Answered,
    #[error("the output cannot be written: {0}; check where it goes")]
    Print(#[from] io::Error),
}

/// Does what the process's arguments say.
#[must_use]
pub fn run(parts: &Parts) -> ExitCode {
    run_from(std::env::args_os(), parts)
}

/// Does what `arguments` say; the first is the program's name.
#[must_use]
pub fn run_from(arguments: impl IntoIterator<Item = OsString>, parts: &Parts) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come as errors too. If they cannot be printed, nothing can.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // Not locked: the gateway runs in here, and its other threads may print.
    let mut out = io::BufWriter::new(io::stdout());
    let done = dispatch(arguments.command, parts, &mut out).and_then(|()| Ok(out.flush()?));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Answered) => ExitCode::FAILURE,
        // Who reads the output has seen enough, as `head` does.
        Err(CliError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = out.flush();
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command, parts: &Parts, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        Command::Run(arguments) => Ok((parts.run)(arguments)?),
        Command::Detach(arguments) => Ok((parts.detach)(arguments)?),
        Command::Upgrade { common } => upgrade::ask(&common, out),
        Command::Metrics { run_dir } => metrics::show(&run_dir, out),
        Command::Status(arguments) => status::show(&arguments, parts.kernel_status, out),
        Command::Doctor(arguments) => doctor::show(&arguments, out),
        Command::Approvals(command) => match command {
            ApprovalsCommand::List { common } => approvals::list(&common, out),
            ApprovalsCommand::Show { number, common } => approvals::show(number, &common, out),
            ApprovalsCommand::Approve(arguments) => approvals::resolve(arguments, true, out),
            ApprovalsCommand::Deny(arguments) => approvals::resolve(arguments, false, out),
        },
        Command::Sessions(SessionsCommand::List { common }) => sessions::list(&common, out),
        Command::Sessions(SessionsCommand::Kill { id, reason, common }) => {
            sessions::kill(id, reason, &common, out)
        }
        Command::Audit(command) => match command {
            AuditCommand::Tail {
                count,
                follow,
                source,
            } => audit::tail(count, follow, &source, out),
            AuditCommand::Verify { source } => audit::verify(&source, out),
            AuditCommand::Export {
                output,
                format,
                source,
            } => audit::export(output.as_deref(), format, &source, out),
        },
        Command::Policy(command) => policy::run(command, out),
        Command::Ca(command) => ca::run(command, out),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "interceptor", out);
            Ok(())
        }
        Command::Man { output } => manual(output.as_deref(), out),
    }
}

fn manual(directory: Option<&Path>, out: &mut impl Write) -> Result<(), CliError> {
    let Some(directory) = directory else {
        return Ok(clap_mangen::Man::new(Arguments::command()).render(out)?);
    };
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), directory))
        .map_err(|source| CliError::Output {
            path: directory.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    /// Longer ones would be broken once more by who shows them.
    #[test]
    fn the_lines_of_the_help_are_short_enough() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string);
            for line in help.unwrap_or_default().lines() {
                assert!(
                    line.chars().count() <= 100,
                    "{}: {line}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
    }

    #[test]
    fn advice_fits_the_command_that_was_typed() {
        let line = "interceptor policy diff running p --run-dir /nonexistent";
        let Command::Policy(command) = parse(line).unwrap() else {
            panic!("another command");
        };
        let error = policy::run(command, &mut Vec::new()).unwrap_err();
        assert!(!error.to_string().contains("--policies"), "{error}");
        let line = "interceptor policy explain x --target t --at tomorrow";
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains("such as 2026-"), "{error}");
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command)
    }

    #[test]
    fn run_has_the_documented_defaults() {
        let Command::Run(run) = parse("interceptor run --policies p").unwrap() else {
            panic!("another command");
        };
        assert_eq!(run.policies, Path::new("p"));
        assert_eq!(run.cgroup, None);
        assert_eq!(run.bpffs, Path::new("/sys/fs/bpf/interceptor"));
        assert_eq!(run.state, Path::new("/var/lib/interceptor"));
        assert_eq!(run.run_dir, Path::new("/run/interceptor"));
        assert_eq!(run.listen_port, 15001);
        assert_eq!(run.drain, std::time::Duration::from_secs(30));
        assert_eq!(run.log_format, arguments::LogFormat::Text);
        assert!(run.devices.is_empty());
    }

    #[test]
    fn every_documented_command_is_understood() {
        for line in [
            "interceptor run --policies p --cgroup /c --bpffs /b --state /s --run-dir /r \
             --admin-group root --device a --device b --listen-port 1 --drain 5m --log debug --log-format json",
            "interceptor detach --cgroup /c --bpffs /b",
            "interceptor status --bpffs /b --run-dir /r --json",
            "interceptor doctor --json",
            "interceptor upgrade --run-dir /r --json",
            "interceptor approvals list --run-dir /r --json",
            "interceptor approvals show 7",
            "interceptor approvals approve 7 --reason because",
            "interceptor approvals deny 7",
            "interceptor sessions list --json",
            "interceptor sessions kill 0199a2f0 --reason because --run-dir /r --json",
            "interceptor audit tail -n 5 --follow --json",
            "interceptor audit tail -n 5 --dir /d",
            "interceptor audit verify --dir /d",
            "interceptor audit export --output f --format protobuf",
            "interceptor policy check p",
            "interceptor metrics --run-dir /r",
            "interceptor run --policies p --metrics 127.0.0.1:9464",
            "interceptor run --policies p --metrics [::]:9464 --metrics-exposed",
            "interceptor policy check p --tests --deny-warnings --json",
            "interceptor policy schema",
            "interceptor policy reload --run-dir /r --json",
            "interceptor policy show",
            "interceptor policy show --list --json",
            "interceptor policy show 0199a2 --output /d --dir /l",
            "interceptor run --policies p --policy-watch off",
            "interceptor run --policies p --policy-watch 30s",
            "interceptor policy fmt",
            "interceptor policy fmt a.yaml dir --check",
            "interceptor policy fmt --stdin",
            "interceptor policy test p --filter drop --junit f --json",
            "interceptor policy diff a b --json",
            "interceptor policy explain SELECT --as alice --target t --policies p --uid 5 --at 2026-11-20T10:00:00Z --all",
            "interceptor policy backtest --policies p --since 30d --until 1h --log /d --exit-code --limit 5 --json",
            "interceptor policy diff running b --run-dir /r",
            "interceptor policy diff 5d1f20 b --log /d",
            "interceptor completions bash",
            "interceptor man",
        ] {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(parse(&line).is_ok(), "{line}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "interceptor",
            "interceptor run",
            "interceptor run --policies p --listen-port 0",
            "interceptor run --policies p --drain soon",
            "interceptor run --policies p --policy-watch 10ms",
            "interceptor run --policies p --metrics 9464",
            "interceptor run --policies p --metrics-exposed",
            "interceptor policy show 0199 --list",
            "interceptor run --policies p --admin-group no-such-group",
            "interceptor approvals approve seven",
            "interceptor sessions kill",
            "interceptor audit tail --follow --dir /d",
            "interceptor policy fmt --stdin a.yaml",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
