//! `interceptor sessions`: who is connected, and the end of it.

use std::io::Write;

use super::approvals::{ask_all, ask_any, text};
use super::arguments::CommonArgs;
use super::{CliError, output};
use crate::admin::{AdminRequest, ClientError, SessionRow};
use crate::audit::json::time;

pub(super) fn list(common: &CommonArgs, out: &mut impl Write) -> Result<(), CliError> {
    let sessions = ask_all(common, &AdminRequest::Sessions)?;
    if common.json {
        return Ok(output::json(out, &sessions)?);
    }
    let sessions: Vec<SessionRow> =
        serde_json::from_value(sessions).map_err(|error| ClientError::Answer(error.to_string()))?;
    if sessions.is_empty() {
        return Ok(writeln!(out, "nobody is connected")?);
    }
    let rows: Vec<[String; 8]> = sessions
        .into_iter()
        .map(|session| {
            let user = if session.user.is_empty() {
                "-".to_owned()
            } else {
                format!("{}@{}", session.user, session.database)
            };
            let since = time(session.since_unix_ns);
            let commands = session.commands.to_string();
            [
                session.id,
                session.client,
                user,
                session.target,
                session.process,
                since,
                session.state,
                commands,
            ]
        })
        .collect();
    let titles = [
        "SESSION", "CLIENT", "USER", "TARGET", "PROCESS", "SINCE", "STATE", "COMMANDS",
    ];
    Ok(output::table(out, titles, &rows)?)
}

pub(super) fn kill(
    id: String,
    reason: String,
    common: &CommonArgs,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let killed = ask_any(common, &AdminRequest::Kill { id, reason })?;
    if common.json {
        return Ok(output::json(out, &killed)?);
    }
    Ok(writeln!(
        out,
        "session {} killed",
        text(&killed, "session")
    )?)
}
