//! `cargo xtask test`: every check there is, in the order of their cost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use nix::unistd::geteuid;
use serde_json::Value;

use crate::{cargo, root, setup, show, tidy};

/// How to test.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out what needs root: the kernel plane's and the end-to-end tests
    #[arg(long)]
    fast: bool,
    /// Run this step only
    #[arg(long, value_enum)]
    only: Option<Step>,
    /// Passed to `cargo test` in the end-to-end step, such as a test's name
    #[arg(last = true)]
    end_to_end: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting of the workspace and of the eBPF crate
    Fmt,
    /// File lengths, words, and the core's dependencies
    Tidy,
    /// Clippy on everything, warnings are errors
    Clippy,
    /// Unit, property and integration tests of the crates
    Unit,
    /// cargo-deny, where it is installed
    Deny,
    /// End-to-end tests in network namespaces
    EndToEnd,
}

const STEPS: &[Step] = &[
    Step::Fmt,
    Step::Tidy,
    Step::Deny,
    Step::Clippy,
    Step::Unit,
    Step::EndToEnd,
];

/// The tests of the gateway's crate that make network namespaces and load eBPF programs.
const NEED_ROOT: &[&str] = &["kernel_plane"];

/// Each end-to-end test runs a gateway and a PostgreSQL of its own: more at a time than this only
/// makes each slower, and their time limits are real.
const WORLDS_AT_ONCE: &str = "2";

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        options.fast || geteuid().is_root(),
        "the kernel plane's and the end-to-end tests need root; run this as root, or with --fast without them"
    );
    setup::run()?;
    let mut timings: Vec<(&str, Duration)> = Vec::new();
    for step in STEPS {
        if options.only.is_some_and(|only| only != *step) {
            continue;
        }
        if options.fast && *step == Step::EndToEnd {
            continue;
        }
        let name = step.name();
        show::heading(name);
        let start = Instant::now();
        step.run(options)?;
        timings.push((name, start.elapsed()));
    }
    show::heading(match options.only {
        Some(_) => "This step passed; the others were not run",
        None => "All checks passed",
    });
    for (name, elapsed) in timings {
        println!("  {:>8}  {name}", show::seconds(elapsed));
    }
    if options.fast {
        println!("  not run: the kernel plane's and the end-to-end tests (--fast)");
    }
    Ok(())
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "formatting",
            Self::Tidy => "tidiness",
            Self::Clippy => "lints",
            Self::Unit => "tests of the crates",
            Self::Deny => "dependencies",
            Self::EndToEnd => "end-to-end tests",
        }
    }

    fn run(self, options: &Options) -> Result<()> {
        match self {
            Self::Fmt => fmt(),
            Self::Tidy => tidy::run(),
            Self::Clippy => cargo::run(
                "cargo",
                &[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--locked",
                    "--",
                    "-Dwarnings",
                ],
            ),
            Self::Unit => unit(options.fast),
            Self::Deny => deny(),
            Self::EndToEnd => end_to_end(&options.end_to_end),
        }
    }
}

fn fmt() -> Result<()> {
    cargo::run("cargo", &["fmt", "--all", "--check"])?;
    // It is no member of the workspace: it builds with another compiler.
    let ebpf = root()?.join("interceptor-ebpf/Cargo.toml");
    let manifest = ebpf.to_string_lossy();
    cargo::run("cargo", &["fmt", "--manifest-path", &manifest, "--check"])
}

fn unit(fast: bool) -> Result<()> {
    if !fast {
        let all = [
            "test",
            "--workspace",
            "--exclude",
            "interceptor-tests",
            "--locked",
        ];
        return cargo::run("cargo", &all);
    }
    let gateway_tests = integration_tests("interceptor-user")?;
    let mut arguments = vec!["test", "--locked", "--package", "interceptor-user"];
    arguments.extend(["--lib", "--bins"]);
    for name in &gateway_tests {
        if !NEED_ROOT.contains(&name.as_str()) {
            arguments.extend(["--test", name]);
        }
    }
    cargo::run("cargo", &arguments)?;
    let rest = ["interceptor-tests", "interceptor-user"];
    let mut arguments = vec!["test", "--workspace", "--locked"];
    for package in rest {
        arguments.extend(["--exclude", package]);
    }
    cargo::run("cargo", &arguments)
}

fn integration_tests(package: &str) -> Result<Vec<String>> {
    let metadata = cargo::metadata()?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    let targets = packages
        .into_iter()
        .flatten()
        .filter(|found| found.get("name").and_then(Value::as_str) == Some(package))
        .filter_map(|found| found.get("targets")?.as_array())
        .flatten();
    let is_test = |target: &Value| {
        let kinds = target.get("kind").and_then(Value::as_array);
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"))
    };
    Ok(targets
        .filter(|target| is_test(target))
        .filter_map(|target| target.get("name")?.as_str().map(str::to_owned))
        .collect())
}

fn deny() -> Result<()> {
    // Building cargo-deny takes longer than all else here, so it is the developer's choice.
    if setup::find("cargo-deny").is_none() {
        println!(
            "cargo-deny is not installed, so deny.toml was not checked: cargo install cargo-deny --locked"
        );
        return Ok(());
    }
    cargo::run(
        "cargo",
        &["deny", "--offline", "check", "bans", "licenses", "sources"],
    )
}

fn end_to_end(more: &[String]) -> Result<()> {
    let binary = cargo::build_gateway(false)?;
    let mut arguments = vec![
        "test",
        "--package",
        "interceptor-tests",
        "--locked",
        "--no-fail-fast",
    ];
    if more.is_empty() {
        arguments.extend(["--", "--test-threads", WORLDS_AT_ONCE]);
    }
    arguments.extend(more.iter().map(String::as_str));
    let path = binary.to_string_lossy();
    cargo::run_with("cargo", &arguments, &[("INTERCEPTOR_BIN", &path)])
}
