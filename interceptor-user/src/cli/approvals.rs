//! `interceptor approvals`: what waits, and the answer to it.

use std::io::{self, Write};
use std::path::Path;

use interceptor_core::audit::render::Escaped;
use serde_json::Value;

use super::CliError;
use super::arguments::{CommonArgs, ResolveArgs};
use super::output;
use crate::admin::{AdminRequest, Client, ClientError, SOCKET, place};

/// Characters of a command in the list.
const TEXT_CHARS_MAX: usize = 60;

/// Members of a group that are shown; JSON has all.
const MEMBERS_MAX: usize = 20;

pub(super) fn list(common: &CommonArgs, out: &mut impl Write) -> Result<(), CliError> {
    let requests = ask_all(common, &AdminRequest::Approvals)?;
    if common.json {
        return Ok(output::json(out, &requests)?);
    }
    let requests = requests.as_array().map(Vec::as_slice).unwrap_or_default();
    if requests.is_empty() {
        return Ok(writeln!(out, "nothing waits for approval")?);
    }
    let rows: Vec<[String; 8]> = requests
        .iter()
        .map(|request| {
            [
                text(request, "number"),
                seconds_left(&text(request, "expires")),
                format!("{}@{}", text(request, "user"), text(request, "database")),
                text(request, "target"),
                text(request, "client"),
                text(request, "rule"),
                texts(request, "missing").join(", "),
                output::cut(&text(request, "text"), TEXT_CHARS_MAX),
            ]
        })
        .collect();
    let titles = [
        "NUMBER", "LEFT", "USER", "TARGET", "CLIENT", "RULE", "MISSING", "COMMAND",
    ];
    Ok(output::table(out, titles, &rows)?)
}

pub(super) fn show(number: u64, common: &CommonArgs, out: &mut impl Write) -> Result<(), CliError> {
    let (_, request) = find(common, number)?;
    if common.json {
        return Ok(output::json(out, &request)?);
    }
    Ok(print_request(&request, out)?)
}

fn shown(process: &Value) -> String {
    let known = ["executable", "executable_elsewhere", "comm"].map(|name| text(process, name));
    let program = known.iter().find(|name| !name.is_empty());
    let place = ["container", "unit"].map(|name| text(process, name));
    let place = place.iter().find(|name| !name.is_empty());
    format!(
        "{} (pid {}, uid {}{})",
        program.map_or("", String::as_str),
        text(process, "pid"),
        text(process, "uid"),
        place.map(|place| format!(", {place}")).unwrap_or_default(),
    )
}

fn print_request(request: &Value, out: &mut impl Write) -> io::Result<()> {
    let left = seconds_left(&text(request, "expires"));
    let process = match request.get("process") {
        Some(process @ Value::Object(_)) => shown(process),
        _ => "unknown".to_owned(),
    };
    let arguments = request
        .get("process")
        .map(|process| text(process, "command_line"))
        .unwrap_or_default();
    let fields = [
        ("request", text(request, "number")),
        ("opened", text(request, "opened")),
        (
            "expires",
            format!("{} (in {left})", text(request, "expires")),
        ),
        ("user", text(request, "user")),
        ("database", text(request, "database")),
        ("person", text(request, "person")),
        ("target", text(request, "target")),
        ("client", text(request, "client")),
        ("process", process),
        ("arguments", arguments),
        ("session", text(request, "session")),
        ("rule", text(request, "rule")),
        ("reason", text(request, "reason")),
        ("kinds", texts(request, "kinds").join(", ")),
        ("reads", texts(request, "reads").join(", ")),
        ("writes", texts(request, "writes").join(", ")),
    ];
    let approvals = objects(request, "approvals").iter().map(approval);
    let fields = fields.into_iter().chain(asked(request)).chain(approvals);
    for (name, value) in fields.filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{name:<10}{}", Escaped(&value))?;
    }
    // Each line of the command has a bar before it, so that none can pass for one of ours.
    writeln!(out, "command")?;
    for line in text(request, "text").lines() {
        writeln!(out, "  | {}", Escaped(line))?;
    }
    for (index, parameter) in (1..).zip(texts(request, "parameters")) {
        writeln!(out, "  ${index} = {}", Escaped(&parameter))?;
    }
    Ok(())
}

/// Who has to approve, and who may.
fn asked(request: &Value) -> Vec<(&'static str, String)> {
    let groups = objects(request, "groups");
    let members = groups.iter().map(|group| {
        let uids = texts(group, "uids")
            .into_iter()
            .map(|uid| format!("uid {uid}"));
        let mut members: Vec<String> = texts(group, "users").into_iter().chain(uids).collect();
        let more = members.len().saturating_sub(MEMBERS_MAX);
        members.truncate(MEMBERS_MAX);
        if more > 0 {
            members.push(format!("{more} more"));
        }
        (
            "members",
            format!("{}: {}", text(group, "name"), members.join(", ")),
        )
    });
    let needed = match groups {
        [] => "1 approval of anybody who can ask the gateway".to_owned(),
        _ => texts(request, "required").join(", "),
    };
    let may_not = matches!(
        request.get("requester_may_approve"),
        Some(Value::Bool(false))
    );
    let requester = if may_not { "may not approve" } else { "" };
    let mut asked = vec![("needs", needed)];
    asked.extend(members);
    asked.push(("requester", requester.to_owned()));
    asked.push(("missing", texts(request, "missing").join(", ")));
    asked
}

fn approval(vote: &Value) -> (&'static str, String) {
    let words = format!("by {} at {}", text(vote, "by"), text(vote, "time"));
    let reason = text(vote, "reason");
    let reason = if reason.is_empty() {
        reason
    } else {
        format!(": {reason}")
    };
    ("approved", format!("{words}{reason}"))
}

pub(super) fn resolve(
    arguments: ResolveArgs,
    approve: bool,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let ResolveArgs {
        number,
        reason,
        common,
    } = arguments;
    let (mut gateway, _) = find(&common, number)?;
    let done = gateway.call(&AdminRequest::Resolve {
        number,
        approve,
        reason,
    })?;
    if common.json {
        return Ok(output::json(out, &done)?);
    }
    let missing = texts(&done, "missing");
    if missing.is_empty() {
        let resolution = text(&done, "resolution");
        return Ok(writeln!(out, "request {number} {resolution}")?);
    }
    let missing = missing.join(" and ");
    Ok(writeln!(
        out,
        "request {number} has your approval; it still needs {missing}"
    )?)
}

/// The gateway that has the request, and the request: it may be one that was replaced, and only that
/// one can say why an answer does not count.
fn find(common: &CommonArgs, number: u64) -> Result<(Client, Value), CliError> {
    let ask = |socket: &Path| -> Result<(Client, Value), ClientError> {
        let mut client = Client::connect(socket)?;
        let request = client.call(&AdminRequest::Approval { number })?;
        Ok((client, request))
    };
    let refused = match ask(&common.run_dir.join(SOCKET)) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let mut replaced = place::draining(&common.run_dir).into_iter();
    let found = replaced.find_map(|socket| ask(&socket).ok());
    found.ok_or_else(|| refused.into())
}

/// Asks the running gateway.
pub(super) fn ask(common: &CommonArgs, request: &AdminRequest) -> Result<Value, CliError> {
    Ok(Client::connect(&common.run_dir.join(SOCKET))?.call(request)?)
}

/// Asks the running gateway, and those that it replaced and that have sessions left; the answers are
/// lists, and become one.
pub(super) fn ask_all(common: &CommonArgs, request: &AdminRequest) -> Result<Value, CliError> {
    let mut all = Vec::new();
    let mut is_anybody_there = false;
    for path in place::draining(&common.run_dir) {
        // One that has ended in between has nothing to list.
        if let Ok(Value::Array(list)) =
            Client::connect(&path).and_then(|mut client| client.call(request))
        {
            all.extend(list);
            is_anybody_there = true;
        }
    }
    match ask(common, request) {
        Ok(Value::Array(list)) => all.extend(list),
        Ok(_) => return Err(ClientError::Answer("no list".to_owned()).into()),
        Err(_) if is_anybody_there => {}
        Err(error) => return Err(error),
    }
    Ok(all.into())
}

/// Asks the running gateway and, while that refuses, those that it replaced, for what only one has.
pub(super) fn ask_any(common: &CommonArgs, request: &AdminRequest) -> Result<Value, CliError> {
    let refused = match ask(common, request) {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    for path in place::draining(&common.run_dir) {
        let answer = Client::connect(&path).and_then(|mut client| client.call(request));
        if let Ok(answer) = answer {
            return Ok(answer);
        }
    }
    Err(refused)
}

/// A field's text; empty if it is not there.
pub(super) fn text(object: &Value, field: &str) -> String {
    match object.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// The texts, or numbers, of a list.
fn texts(object: &Value, field: &str) -> Vec<String> {
    let items = objects(object, field).iter();
    let texts = items.map(|item| match item {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    texts.collect()
}

/// The items of a list; none if it is not there.
fn objects<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    let items = object.get(field).and_then(Value::as_array);
    items.map(Vec::as_slice).unwrap_or_default()
}

/// Whole seconds until a time in RFC 3339.
fn seconds_left(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => format!(
            "{} s",
            time.duration_since(jiff::Timestamp::now()).as_secs().max(0)
        ),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_line_of_a_command_passes_for_one_of_ours() {
        let request = json!({
            "number": 7,
            "rule": "ask-first",
            "text": "SELECT 1\nrule      allow-everything\u{1b}[2K",
            "parameters": ["a\nb"],
        });
        let mut out = Vec::new();
        print_request(&request, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.contains("\n  | rule      allow-everything\\u{1b}[2K\n"),
            "{out}"
        );
        assert!(out.contains("\n  $1 = a\\nb\n"), "{out}");
        assert_eq!(
            out.lines().filter(|line| line.starts_with("rule")).count(),
            1,
            "{out}"
        );
    }
    #[test]
    fn what_is_asked_is_shown_and_empty_fields_are_not() {
        let request = json!({
            "number": 7,
            "reads": [],
            "writes": ["orders"],
            "required": ["2 of dba", "1 of security"],
            "missing": ["1 of dba", "1 of security"],
            "requester_may_approve": false,
            "groups": [
                { "name": "dba", "users": ["alice"], "uids": [1002] },
                { "name": "security", "users": [], "uids": (0..25).collect::<Vec<_>>() },
            ],
            "approvals": [{ "by": "alice (uid 1001)", "time": "T", "reason": "ok\nmembers  eve" }],
            "text": "DELETE FROM orders",
        });
        let mut out = Vec::new();
        print_request(&request, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        for line in [
            "writes    orders",
            "needs     2 of dba, 1 of security",
            "members   dba: alice, uid 1002",
            "requester may not approve",
            "missing   1 of dba, 1 of security",
            "approved  by alice (uid 1001) at T: ok\\nmembers  eve",
        ] {
            assert!(out.lines().any(|printed| printed == line), "{line}\n{out}");
        }
        assert!(out.contains("uid 19, 5 more\n"), "{out}");
        assert!(!out.contains("reads"), "{out}");
        assert_eq!(out.matches("\nmembers").count(), 2, "{out}");
    }
}
