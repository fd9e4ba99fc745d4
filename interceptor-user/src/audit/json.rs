//! Records as JSON objects: hashes and ids in hex, times in RFC 3339.
//!
//! It owns the form that `interceptor audit` prints with `--json` and exports. It must not know
//! where records come from.

use interceptor_core::audit::chain::Record;
use interceptor_core::audit::event::{Event, Kind, Process};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A record with its chain fields and its event. `event_bytes` is what was hashed: who verifies the
/// chain needs it and not `event`, which repeats it in readable form.
#[must_use]
pub fn record(record: &Record) -> Value {
    json!({
        "sequence": record.sequence,
        "previous": record.previous.to_string(),
        "hash": record.hash.to_string(),
        "event_bytes": hex::encode(&record.event),
        "event": record.event().map_or(Value::Null, |event| self::event(&event)),
    })
}

/// A time in nanoseconds since the Unix epoch in RFC 3339, in UTC.
#[must_use]
pub fn time(unix_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(unix_ns))
        .map_or_else(|_| format!("{unix_ns} ns"), |time| format!("{time:.6}"))
}

/// The current time in nanoseconds since the Unix epoch.
#[must_use]
pub fn now_unix_ns() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// A session id as people see it; empty for events of the gateway itself.
#[must_use]
pub fn session(bytes: &[u8]) -> String {
    match Uuid::from_slice(bytes) {
        Ok(id) => id.to_string(),
        Err(_) => hex::encode(bytes),
    }
}

fn event(event: &Event) -> Value {
    let mut object = Map::new();
    object.insert("time".into(), time(event.time_unix_ns).into());
    if !event.session.is_empty() {
        object.insert("session".into(), session(&event.session).into());
    }
    object.insert("kind".into(), event.kind_name().into());
    if let Value::Object(fields) = event.kind.as_ref().map_or(Value::Null, kind) {
        object.extend(fields);
    }
    Value::Object(object)
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Connection(connection) => json!({
            "client": connection.client,
            "target_address": connection.target_address,
            "target": connection.target,
            "protocol": connection.protocol,
            "process": connection.process.as_ref().map(process),
        }),
        Kind::Identity(identity) => json!({
            "user": identity.user,
            "database": identity.database,
            "application": identity.application,
            "authenticated": identity.authenticated,
            "error_code": identity.error_code,
            "login": identity.login,
            "method": identity.method,
            "server_user": identity.server_user,
            "client_tls": identity.client_tls,
            "target_tls": identity.target_tls,
        }),
        Kind::Command(command) => json!({
            "command": command.number,
            "text": command.text,
            "digest": hex::encode(&command.digest),
            "parameters": command.parameters,
            "kinds": command.kinds,
            "reads": command.reads,
            "writes": command.writes,
            "incomplete": command.incomplete,
            "decision": command.decision,
            "rule": command.rule,
            "rule_source": command.rule_source,
            "reason": command.reason,
            "policy": hex::encode(&command.policy),
            "functions": command.functions,
            "unfiltered": command.unfiltered,
            "masked_uses": command.masked_uses,
            "columns_read": command.columns_read,
            "columns_written": command.columns_written,
            "estimated_rows": command.estimated_rows,
            "person": command.person,
            "groups": command.groups,
            "lifted_by": command.lifted_by,
            "lifted_rule": command.lifted_rule,
            "obliged_by": command.obliged_by,
        }),
        Kind::Hold(hold) => json!({
            "request": hold.request,
            "command": hold.command,
            "timeout_ms": hold.timeout_ms,
            "required": hold.required,
            "stage": hold.stage,
        }),
        Kind::Approval(approval) => json!({
            "request": approval.request,
            "command": approval.command,
            "resolution": approval.resolution,
            "by": approval.by,
            "reason": approval.reason,
        }),
        Kind::Outcome(outcome) => json!({
            "command": outcome.command,
            "tag": outcome.tag,
            "rows": outcome.rows,
            "cells_masked": outcome.cells_masked,
            "error_code": outcome.error_code,
            "duration_us": outcome.duration_us,
        }),
        Kind::Close(close) => json!({
            "reason": close.reason,
            "violation": close.violation,
            "commands": close.commands,
            "bytes_up": close.bytes_up,
            "bytes_down": close.bytes_down,
        }),
        Kind::GatewayStarted(note)
        | Kind::GatewayStopped(note)
        | Kind::PolicyLoaded(note)
        | Kind::PolicyRefused(note)
        | Kind::KernelChanged(note) => {
            json!({ "detail": note.detail })
        }
        Kind::PolicySnapshot(snapshot) => json!({
            "policy": hex::encode(&snapshot.hash),
            "part": snapshot.part,
            "parts": snapshot.parts,
            "files": snapshot.files.iter().map(|file| json!({
                "name": file.name,
                "text": file.text,
            })).collect::<Vec<_>>(),
        }),
        Kind::Notification(notification) => json!({
            "command": notification.command,
            "rule": notification.rule,
            "groups": notification.groups,
        }),
        Kind::LimitReached(reached) => json!({
            "command": reached.command,
            "rule": reached.rule,
            "limit": reached.limit,
        }),
        Kind::Administration(act) => json!({ "by": act.by, "action": act.action }),
    }
}

/// A process, in events and in requests alike.
pub(crate) fn process(process: &Process) -> Value {
    json!({
        "uid": process.uid,
        "gid": process.gid,
        "pid": process.pid,
        "comm": process.comm,
        "executable": process.executable,
        "cgroup": process.cgroup,
        "tid": process.tid,
        "started": (process.started_unix_ns != 0).then(|| time(process.started_unix_ns)),
        "executable_elsewhere": process.executable_elsewhere,
        "executable_sha256": hex::encode(&process.executable_sha256),
        "command_line": process.command_line,
        "container": process.container,
        "pod": process.pod,
        "unit": process.unit,
        "netns": process.netns,
        "is_own_netns": process.is_own_netns,
    })
}
