//! `interceptor doctor`: whether this host can run the gateway, before it does.

use std::io::Write;

use super::arguments::DoctorArgs;
use super::{CliError, output};
use crate::kernel::doctor::{Check, State, examine};
use crate::kernel::trial;

pub(super) fn show(arguments: &DoctorArgs, out: &mut impl Write) -> Result<(), CliError> {
    if let Some(cgroup) = &arguments.trial {
        let checks = trial::gateway(cgroup).map_err(anyhow::Error::from)?;
        return Ok(serde_json::to_writer(out, &checks).map_err(std::io::Error::from)?);
    }
    if let Some(cgroup) = &arguments.trial_client {
        let said = trial::client(cgroup).map_err(anyhow::Error::from)?;
        return Ok(writeln!(out, "{said}")?);
    }
    let checks = examine();
    print(&checks, arguments.json, out)?;
    let missing: Vec<&str> = checks
        .iter()
        .filter(|check| check.state == State::Missing)
        .map(|check| check.name.as_str())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(CliError::Unfit(missing.join(", ")))
    }
}

fn print(checks: &[Check], as_json: bool, out: &mut impl Write) -> Result<(), CliError> {
    if as_json {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let value = serde_json::json!({ "kernel": release.trim(), "checks": checks });
        return Ok(output::json(out, &value)?);
    }
    let rows: Vec<[String; 3]> = checks
        .iter()
        .map(|check| {
            let Check {
                name,
                state,
                detail,
            } = check;
            [name.clone(), state.name().to_owned(), detail.clone()]
        })
        .collect();
    Ok(output::table(out, ["CHECK", "STATE", "DETAIL"], &rows)?)
}
