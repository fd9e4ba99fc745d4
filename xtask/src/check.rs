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
    /// Passed to `cargo test` in the end-to-end step, such as a part of a test's name
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
const NEED_ROOT: &[&str] = &["filters", "identity", "kernel_edge", "kernel_plane"];

/// The package whose integration tests are the end-to-end step.
const END_TO_END: &str = "interceptor-tests";

/// Each end-to-end test runs a gateway and a PostgreSQL of its own. Most only wait, so there may be
/// more of them than processors; with many more, the limits on time that they check are not met.
const WORLDS_AT_ONCE: &str = "4";

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
        let passed = step.run(options);
        timings.push((name, start.elapsed()));
        if passed.is_err() {
            print_timings(&timings);
        }
        passed?;
    }
    show::heading(match options.only {
        Some(_) => "This step passed; the others were not run",
        None => "All checks passed",
    });
    print_timings(&timings);
    if options.fast {
        println!("  not run: the kernel plane's and the end-to-end tests (--fast)");
    }
    Ok(())
}

/// Also of a run that failed: where the time went is of interest then as well.
fn print_timings(timings: &[(&str, Duration)]) {
    for (name, elapsed) in timings {
        println!("  {:>8}  {name}", show::duration(*elapsed));
    }
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

/// Always the whole workspace, and a choice of tests: another choice of packages would mean other
/// features of what they depend on, and everything would be built twice.
fn unit(fast: bool) -> Result<()> {
    let mut arguments = vec!["test", "--workspace", "--locked", "--lib", "--bins"];
    let tests = integration_tests(|package, test| {
        package != END_TO_END && !(fast && NEED_ROOT.contains(&test))
    })?;
    arguments.extend(tests.iter().flat_map(|name| ["--test", name]));
    cargo::run("cargo", &arguments)
}

/// The names of the workspace's integration tests that are `wanted`, by package and name.
fn integration_tests(wanted: impl Fn(&str, &str) -> bool) -> Result<Vec<String>> {
    let metadata = cargo::metadata(&["--no-deps"])?;
    let list = |value: &Value, key: &str| {
        let items = value.get(key).and_then(Value::as_array);
        items.cloned().unwrap_or_default()
    };
    let name = |value: &Value| value.get("name").and_then(Value::as_str).map(str::to_owned);
    let mut found = Vec::new();
    for package in list(&metadata, "packages") {
        let package_name = name(&package).unwrap_or_default();
        for target in list(&package, "targets") {
            let is_test = list(&target, "kind").iter().any(|kind| kind == "test");
            let Some(test) = name(&target).filter(|_| is_test) else {
                continue;
            };
            if wanted(&package_name, &test) {
                found.push(test);
            }
        }
    }
    ensure!(!found.is_empty(), "`cargo metadata` names no tests");
    Ok(found)
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
    let binary = cargo::build_gateway(cargo::Profile::Tests)?;
    let tests = integration_tests(|package, _| package == END_TO_END)?;
    let mut arguments = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    arguments.extend(tests.iter().flat_map(|name| ["--test", name]));
    arguments.extend(more.iter().map(String::as_str));
    let binary = binary.to_string_lossy();
    cargo::run_with(
        "cargo",
        &arguments,
        &[
            ("INTERCEPTOR_BIN", &binary),
            ("RUST_TEST_THREADS", WORLDS_AT_ONCE),
        ],
    )
}
