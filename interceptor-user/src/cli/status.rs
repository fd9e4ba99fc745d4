//! `interceptor status`: what the kernel does, and how the gateway is.

use std::io::{self, Write};
use std::path::Path;

use interceptor_core::audit::render::Escaped;
use serde_json::{Value, json};

use super::CliError;
use super::approvals::{ask, text};
use super::arguments::StatusArgs;
use super::output::{self, Colour, Colours};
use crate::admin::{AdminRequest, ClientError};
use crate::audit::json::time;

/// The kernel's part does not need the gateway: it tells whether the guard is up while that is dead.
pub(super) fn show(
    arguments: &StatusArgs,
    kernel_status: fn(&Path) -> anyhow::Result<Value>,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let gateway = match ask(&arguments.common, &AdminRequest::Status) {
        Ok(status) => json!({ "running": true, "status": status }),
        Err(CliError::Client(ClientError::NotRunning(_))) => json!({ "running": false }),
        Err(error) => return Err(error),
    };
    let kernel = kernel_status(&arguments.bpffs)?;
    let drift = drift(&gateway, &kernel);
    let status = json!({ "kernel": kernel, "gateway": gateway, "drift": drift });
    match arguments.common.json {
        true => output::json(out, &status)?,
        false => print(&status, out)?,
    }
    let is_refused = status.pointer("/gateway/status/policy/refused");
    match drift.len() {
        0 if is_refused.is_some_and(|refused| !refused.is_null()) => Err(CliError::PolicyStale),
        0 => Ok(()),
        count => Err(CliError::Drift(count)),
    }
}

/// What is not as it should be. A gateway that runs knows better than the pins what it should be.
fn drift(gateway: &Value, kernel: &Value) -> Vec<Value> {
    let known = gateway.pointer("/status/drift").and_then(Value::as_array);
    known
        .or_else(|| kernel.get("drift").and_then(Value::as_array))
        .cloned()
        .unwrap_or_default()
}

fn print(status: &Value, out: &mut impl Write) -> io::Result<()> {
    let part = |pointer: &str| status.pointer(pointer).unwrap_or(&Value::Null);
    print_gateway(part("/gateway"), out)?;
    print_enforcement(status, out)?;
    print_names(part("/gateway/status/names"), out)?;
    let kernel = part("/kernel");
    print_links(list(kernel, "links"), out)?;
    print_order(list(kernel, "devices"), out)?;
    print_maps(list(kernel, "maps"), out)?;
    print_verdicts(list(kernel, "verdicts"), out)
}

fn print_gateway(gateway: &Value, out: &mut impl Write) -> io::Result<()> {
    let Some(status) = gateway.get("status") else {
        return field(out, "gateway", "does not run");
    };
    let running = format!(
        "process {}, interceptor {}, up {} s",
        text(status, "pid"),
        text(status, "version"),
        text(status, "uptime_seconds"),
    );
    field(out, "gateway", &running)?;
    let sessions = format!(
        "{} of at most {}, {} requests wait for approval",
        text(status, "sessions"),
        text(status, "sessions_max"),
        text(status, "requests_waiting"),
    );
    field(out, "sessions", &sessions)?;
    let record = match status.get("record_failed") {
        Some(Value::Bool(true)) => "FAILED: commands are refused; see the gateway's log",
        _ if text(status, "record_durability") == "process" => {
            "is written; a power cut can take the last of it (--audit-durability process)"
        }
        _ => "is written",
    };
    field(out, "record", record)?;
    let policy = status.get("policy").unwrap_or(&Value::Null);
    let targets: Vec<&str> = list(policy, "targets")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let files = format!(
        "{} ({} rules, {} masks, {} files) in {}, since {}",
        text(policy, "hash").get(..12).unwrap_or_default(),
        text(policy, "rules"),
        text(policy, "masks"),
        text(policy, "files"),
        text(policy, "directory"),
        text(policy, "since"),
    );
    field(out, "policy", &files)?;
    print_refused(policy.get("refused").unwrap_or(&Value::Null), out)?;
    field(out, "targets", &targets.join(", "))?;
    match text(status, "repairs").as_str() {
        "" | "0" => Ok(()),
        count => field(
            out,
            "watchdog",
            &format!("put {count} things right since the start"),
        ),
    }
}

/// The files at hand, if they are not those in force.
fn print_refused(refused: &Value, out: &mut impl Write) -> io::Result<()> {
    if refused.is_null() {
        return Ok(());
    }
    let colours = Colours::for_stdout();
    let since = format!(
        "the files at hand are refused since {}; what is in force is older:",
        text(refused, "since")
    );
    field(out, "refused", &colours.paint(Colour::Red, &since))?;
    let lines = list(refused, "errors");
    for line in lines.iter().filter_map(Value::as_str) {
        writeln!(out, "          {}", Escaped(line))?;
    }
    let all = refused.get("lines").and_then(Value::as_u64).unwrap_or(0);
    match all.saturating_sub(u64::try_from(lines.len()).unwrap_or(u64::MAX)) {
        0 => Ok(()),
        more => writeln!(
            out,
            "          and {more} lines more: `interceptor policy check`"
        ),
    }
}

fn print_enforcement(status: &Value, out: &mut impl Write) -> io::Result<()> {
    let colours = Colours::for_stdout();
    let kernel = status.get("kernel").unwrap_or(&Value::Null);
    let is = |name: &str| kernel.get(name).and_then(Value::as_bool).unwrap_or(false);
    let drift = list(status, "drift");
    if list(kernel, "links").is_empty() {
        let text = "detached: nothing is intercepted or guarded";
        return field(out, "kernel", &colours.paint(Colour::Yellow, text));
    }
    let carries = match is("listener") {
        true => "targets are carried",
        false => "targets are refused: no gateway listens",
    };
    let summary = format!(
        "{carries}; {} prefixes, {} ip rules, nft table {}",
        text(kernel, "target_prefixes"),
        text(kernel, "routing_rules"),
        if is("nft_table") {
            "in place"
        } else {
            "missing"
        },
    );
    field(out, "kernel", &summary)?;
    if drift.is_empty() {
        return field(out, "drift", &colours.paint(Colour::Green, "none"));
    }
    for one in drift {
        let line = format!("{}: {}", text(one, "what"), text(one, "detail"));
        field(
            out,
            "drift",
            &colours.paint(Colour::Red, &Escaped(&line).to_string()),
        )?;
    }
    Ok(())
}

/// What the names of targets stand for.
fn print_names(names: &Value, out: &mut impl Write) -> io::Result<()> {
    let mut rows = Vec::new();
    for (name, row) in names.as_object().into_iter().flatten() {
        let trouble = text(row, "trouble");
        let addresses = row.get("addresses").and_then(Value::as_object);
        for (address, state) in addresses.into_iter().flatten() {
            let is_current = state.get("in_answer").and_then(Value::as_bool);
            let state_text = match is_current {
                Some(true) => "in the answer",
                _ => "kept",
            };
            let since = format!("{} s", text(state, "seconds"));
            rows.push([
                name.clone(),
                address.clone(),
                state_text.to_owned(),
                since,
                trouble.clone(),
            ]);
        }
    }
    section(out, ["NAME", "ADDRESS", "STATE", "SINCE", "TROUBLE"], &rows)
}

fn print_links(links: &[Value], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<[String; 7]> = links
        .iter()
        .map(|link| {
            let loaded = link.get("loaded_unix_s").and_then(Value::as_u64);
            [
                text(link, "name"),
                text(link, "program"),
                text(link, "place"),
                text(link, "link_id"),
                text(link, "program_id"),
                text(link, "tag"),
                loaded.map_or_else(String::new, |seconds| {
                    time(seconds.saturating_mul(1_000_000_000)).replace(".000000Z", "Z")
                }),
            ]
        })
        .collect();
    let titles = ["PIN", "PROGRAM", "PLACE", "LINK", "ID", "TAG", "LOADED"];
    section(out, titles, &rows)
}

fn print_order(devices: &[Value], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<[String; 3]> = devices
        .iter()
        .map(|device| {
            let order: Vec<&str> = list(device, "order")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            [
                text(device, "device"),
                text(device, "direction"),
                order.join(", "),
            ]
        })
        .collect();
    section(out, ["DEVICE", "HOOK", "ORDER"], &rows)
}

fn print_maps(maps: &[Value], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<[String; 3]> = maps
        .iter()
        .filter(|map| map.get("entries").is_some_and(Value::is_number))
        .map(|map| [text(map, "name"), text(map, "entries"), text(map, "max")])
        .collect();
    section(out, ["MAP", "ENTRIES", "MAX"], &rows)
}

/// Counters that are zero say nothing.
fn print_verdicts(verdicts: &[Value], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<[String; 2]> = verdicts
        .iter()
        .filter(|verdict| verdict.get("count").and_then(Value::as_u64) != Some(0))
        .map(|verdict| [text(verdict, "name"), text(verdict, "count")])
        .collect();
    section(out, ["VERDICT", "COUNT"], &rows)
}

fn section<const N: usize>(
    out: &mut impl Write,
    titles: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    output::table(out, titles, rows)
}

fn field(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<10}{value}")
}

fn list<'v>(object: &'v Value, field: &str) -> &'v [Value] {
    let items = object.get(field).and_then(Value::as_array);
    items.map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(status: &Value) -> String {
        let mut out = Vec::new();
        print(status, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn counters_that_are_zero_are_left_out_and_drift_is_not() {
        let status = json!({
            "kernel": {
                "links": [{ "name": "connect4", "program": "connect4", "place": null, "link_id": 1,
                    "program_id": 2, "tag": "ab", "loaded_unix_s": 0 }],
                "listener": true, "nft_table": true, "routing_rules": 4, "target_prefixes": 2,
                "verdicts": [{ "name": "seen", "count": 3 }, { "name": "never", "count": 0 }],
                "drift": [],
            },
            "gateway": { "running": false },
            "drift": [{ "what": "link connect4", "detail": "it is detached" }],
        });
        let text = printed(&status);
        assert!(text.contains("does not run"), "{text}");
        assert!(
            text.contains("drift     link connect4: it is detached\n"),
            "{text}"
        );
        assert!(text.contains("\nVERDICT  COUNT\nseen     3\n"), "{text}");
        assert!(!text.contains("never"), "{text}");
    }

    #[test]
    fn a_gateway_that_runs_knows_better_what_drifted() {
        let kernel = json!({ "drift": [{ "what": "nft table" }] });
        let gateway = json!({ "running": true, "status": { "drift": [] } });
        assert!(drift(&gateway, &kernel).is_empty());
        assert_eq!(drift(&json!({ "running": false }), &kernel).len(), 1);
    }

    #[test]
    fn names_are_listed_with_their_addresses() {
        let names = json!({ "db.internal": {
            "addresses": {
                "10.0.0.1": { "seconds": 5, "in_answer": true },
                "10.0.0.2": { "seconds": 9, "in_answer": false },
            },
            "trouble": "no answer",
        } });
        let mut out = Vec::new();
        print_names(&names, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\nNAME         ADDRESS   STATE          SINCE  TROUBLE\n\
             db.internal  10.0.0.1  in the answer  5 s    no answer\n\
             db.internal  10.0.0.2  kept           9 s    no answer\n"
        );
    }

    #[test]
    fn refused_files_are_said_with_their_first_errors() {
        let refused = json!({ "since": "2026-01-01T00:00:00.000000Z", "lines": 3,
            "errors": ["error: unknown key", "  --> a.yaml:3:1"] });
        let mut out = Vec::new();
        print_refused(&refused, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "refused   the files at hand are refused since 2026-01-01T00:00:00.000000Z; what is in force \
             is older:\n          error: unknown key\n            --> a.yaml:3:1\n          \
             and 1 lines more: `interceptor policy check`\n"
        );
    }

    #[test]
    fn detached_is_said() {
        let status = json!({ "kernel": { "links": [] }, "gateway": {}, "drift": [] });
        assert!(printed(&status).contains("detached"));
    }
}
