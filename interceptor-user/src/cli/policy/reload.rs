//! `interceptor policy reload`: the running gateway reads its policy files now.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::super::arguments::CommonArgs;
use super::super::{CliError, approvals, output};
use crate::admin::{AdminRequest, Client, SOCKET};

/// Longer than the names of new targets may take to be looked up, twice: one reload may be under way.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(90);

pub(super) fn run(common: &CommonArgs, out: &mut impl Write) -> Result<(), CliError> {
    let socket = common.run_dir.join(SOCKET);
    let mut gateway = Client::connect_within(&socket, ANSWER_WAIT_MAX)?;
    let answer = gateway.call(&AdminRequest::Reload)?;
    let is_loaded = answer.get("loaded").and_then(Value::as_bool) == Some(true);
    if common.json {
        output::json(out, &answer)?;
    } else if is_loaded {
        print(&answer, out)?;
    }
    match is_loaded {
        true => Ok(()),
        false => Err(CliError::PolicyRefused {
            hash: short(&approvals::text(&answer, "hash")),
            errors: approvals::text(&answer, "error"),
        }),
    }
}

fn print(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    let hash = approvals::text(answer, "hash");
    if approvals::text(answer, "previous") == hash {
        writeln!(out, "policy {hash} is in force, as before")?;
    } else {
        writeln!(out, "policy {hash} is in force")?;
    }
    let number = |pointer: &str| answer.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    writeln!(
        out,
        "files: {} added, {} changed, {} removed",
        number("/files/added"),
        number("/files/changed"),
        number("/files/removed"),
    )?;
    for what in ["targets", "rules", "masks"] {
        let before = number(&format!("/before/{what}"));
        match number(&format!("/after/{what}")) {
            after if after == before => writeln!(out, "{what}: {after}")?,
            after => writeln!(out, "{what}: {after}, before {before}")?,
        }
    }
    Ok(())
}

/// As much of a hash as tells it from others.
pub(super) fn short(hash: &str) -> String {
    hash.get(..12).unwrap_or(hash).to_owned()
}
