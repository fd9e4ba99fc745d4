//! Running Cargo and other programs in the workspace, with their output passed through.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::root;

/// Runs a program in the workspace's root; its output is the developer's.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    run_with(program, arguments, &[])
}

/// The same with environment variables.
pub(crate) fn run_with(program: &str, arguments: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .envs(env.iter().copied())
        .current_dir(root()?)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        status.success(),
        "`{program} {}`: {status}",
        arguments.join(" ")
    );
    Ok(())
}

/// What a program prints.
pub(crate) fn capture(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root()?)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "`{program} {}`: {}",
        arguments.join(" "),
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How the gateway is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As the tests have it, beside the end-to-end tests, so that nothing is built twice.
    Tests,
    /// Optimised, to be measured.
    Release,
}

/// Builds the gateway and gives the path of its binary.
pub(crate) fn build_gateway(profile: Profile) -> Result<PathBuf> {
    let mut arguments = vec!["build", "--locked", "--bin", "interceptor"];
    arguments.push("--message-format=json-render-diagnostics");
    arguments.extend(match profile {
        // Naming a test makes Cargo choose the features with which the tests are built.
        Profile::Tests => ["--workspace", "--test=end_to_end"],
        Profile::Release => ["--package=interceptor-user", "--release"],
    });
    let messages = capture("cargo", &arguments)?;
    executable(&messages, "interceptor")
}

/// The gateway to measure: `INTERCEPTOR_BIN`, or one that is built optimised.
pub(crate) fn gateway_to_measure() -> Result<PathBuf> {
    match std::env::var_os("INTERCEPTOR_BIN") {
        Some(path) => Ok(path.into()),
        None => build_gateway(Profile::Release),
    }
}

/// Builds a program of the tests' package, and gives its path.
pub(crate) fn build_beside_tests(name: &str) -> Result<PathBuf> {
    let bin = format!("--bin={name}");
    let format = "--message-format=json-render-diagnostics";
    let messages = capture("cargo", &["build", "--locked", "--workspace", &bin, format])?;
    executable(&messages, name)
}

fn executable(messages: &str, name: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .find(|path| path.file_name().is_some_and(|file| file == name))
        .ok_or_else(|| anyhow!("Cargo built no `{name}`"))
}

/// Builds the gateway and integration tests, as the tests have them; paths by name.
pub(crate) fn build_tests(tests: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut arguments = vec!["build", "--workspace", "--locked", "--bin", "interceptor"];
    arguments.extend(tests.iter().flat_map(|test| ["--test", test]));
    arguments.push("--message-format=json-render-diagnostics");
    let messages = capture("cargo", &arguments)?;
    Ok(messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let name = message.get("target")?.get("name")?.as_str()?.to_owned();
            Some((name, PathBuf::from(message.get("executable")?.as_str()?)))
        })
        .collect())
}

/// `cargo metadata` of the workspace.
pub(crate) fn metadata(options: &[&str]) -> Result<Value> {
    let mut arguments = vec!["metadata", "--format-version=1", "--locked"];
    arguments.extend(options);
    let text = capture("cargo", &arguments)?;
    serde_json::from_str(&text).context("`cargo metadata` printed no JSON")
}
