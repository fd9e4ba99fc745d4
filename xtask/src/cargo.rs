//! Running Cargo and other programs in the workspace, with their output passed through.

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

/// Builds the gateway and gives the path of its binary.
pub(crate) fn build_gateway(release: bool) -> Result<PathBuf> {
    let mut arguments = vec!["build", "--package", "interceptor-user"];
    arguments.push("--message-format=json-render-diagnostics");
    if release {
        arguments.push("--release");
    }
    let messages = capture("cargo", &arguments)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .find(|path| path.file_name().is_some_and(|name| name == "interceptor"))
        .ok_or_else(|| anyhow!("Cargo built no `interceptor`"))
}

/// `cargo metadata` of the workspace.
pub(crate) fn metadata() -> Result<Value> {
    let text = capture("cargo", &["metadata", "--format-version=1", "--locked"])?;
    serde_json::from_str(&text).context("`cargo metadata` printed no JSON")
}
