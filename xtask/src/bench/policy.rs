//! `cargo xtask bench policy`: what a decision costs under 1,000 rules and 10,000 column masks, and what
//! 10,000 documents take to load.
//!
//! The core's example `decision_cost` measures; here its figures meet their goals.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::report::Measure;
use crate::{cargo, show};

/// The median of a decision, in nanoseconds.
const P50_NS_MAX: f64 = 1_000.0;
/// And what 99 of 100 stay below.
const P99_NS_MAX: f64 = 5_000.0;

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Write the measures to FILE as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<()> {
    show::progress("building and measuring; this takes minutes");
    // By all of the workspace, as whatever else is built.
    let build = [
        "build",
        "--release",
        "--workspace",
        "--example",
        "decision_cost",
    ];
    cargo::run("cargo", &build)?;
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let program = format!("{target}/release/examples/decision_cost");
    let printed = cargo::capture(&program, &[])?;
    let measures = printed.lines().map(measure).collect::<Result<Vec<_>>>()?;
    ensure!(!measures.is_empty(), "nothing was measured");
    for one in &measures {
        let goal = match (one.target, one.ok) {
            (Some(goal), Some(true)) => format!("goal: at most {goal}"),
            (Some(goal), _) => format!("misses its goal of at most {goal}"),
            _ => String::new(),
        };
        println!(
            "{:<32} {:>12.1} {:<6} {goal}",
            one.name, one.value, one.unit
        );
    }
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&measures)?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn measure(line: &str) -> Result<Measure> {
    let mut fields = line.split('\t');
    let (Some(name), Some(value), Some(unit)) = (fields.next(), fields.next(), fields.next())
    else {
        anyhow::bail!("`{line}` is no measure");
    };
    let value: f64 = value.parse()?;
    let target = match name {
        "select, p50" | "update, p50" | "join, p50" => Some(P50_NS_MAX),
        "select, p99" | "update, p99" | "join, p99" => Some(P99_NS_MAX),
        _ => None,
    };
    Ok(Measure {
        name: name.into(),
        value,
        unit: match unit {
            "us" => "us",
            "ms" => "ms",
            "MiB" => "MiB",
            "rules" => "rules",
            _ => "ns",
        },
        target,
        ok: target.map(|target| value <= target),
    })
}
