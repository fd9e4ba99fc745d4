//! Documents of kind Test, in the folder `tests` beside policy.

use serde_json::json;

use super::{Mapping, describe, list, reference, truth};

pub(super) fn mappings() -> Vec<Mapping> {
    vec![test(), given(), process(), facts(), expect(), limits()]
}

fn test() -> Mapping {
    Mapping::new(
        "Test",
        "a Test's spec",
        "A client, a command, and the decision that is expected.",
        &["given", "expect"],
        vec![
            ("given", reference("given")),
            ("statement", json!({"description": "The command's text; the gateway's own analysis finds the facts.", "type": ["string", "number", "boolean"]})),
            ("facts", reference("facts")),
            ("connect", json!({"description": "A connection to a target with `protocol: tcp`.", "const": true})),
            ("expect", reference("expect")),
        ],
    )
    .also(json!({"oneOf": [{"required": ["statement"]}, {"required": ["facts"]}, {"required": ["connect"]}]}))
}

fn given() -> Mapping {
    Mapping::new(
        "given",
        "`given`",
        "Who sends it, to what and when.",
        &["target"],
        vec![
            ("target", describe("The target's name.", "text")),
            ("user", describe("The target's user. Default app.", "text")),
            ("database", describe("The database. Default shop.", "text")),
            (
                "client",
                describe("The client's address. Default 203.0.113.7.", "address"),
            ),
            (
                "process",
                describe(
                    "The local process. Default none: a client on another machine.",
                    "testProcess",
                ),
            ),
            (
                "at",
                describe(
                    "The time. Default 2026-01-05T12:00:00Z, a Monday.",
                    "timestamp",
                ),
            ),
            (
                "estimatedRows",
                describe(
                    "What the server's statistics say of the largest table.",
                    "count",
                ),
            ),
        ],
    )
}

fn process() -> Mapping {
    Mapping::new(
        "testProcess",
        "a Test's `process`",
        "The local process.",
        &[],
        vec![
            ("uid", describe("Real user id. Default 0.", "uid")),
            ("gid", describe("Real group id. Default 0.", "uid")),
            ("pid", describe("Process id. Default 0.", "uid")),
            ("comm", describe("The thread's name.", "text")),
            ("executable", describe("Path of the executable.", "text")),
            ("cgroup", describe("Path below the cgroup2 mount.", "text")),
            ("container", describe("Runtime and id.", "text")),
            ("unit", describe("The systemd service or scope.", "text")),
            ("commandLine", describe("The command line.", "text")),
        ],
    )
}

fn facts() -> Mapping {
    Mapping::new(
        "facts",
        "`facts`",
        "What an analysis would find.",
        &["kinds"],
        vec![
            ("kinds", list("The kinds of statements.", "kind")),
            ("reads", list("Relations that are read.", "relation")),
            ("writes", list("Relations that are written.", "relation")),
            ("functions", list("Functions that are called.", "text")),
            ("columnsRead", list("Columns that are read.", "text")),
            ("columnsWritten", list("Columns that are written.", "text")),
            (
                "noWhere",
                truth("An UPDATE or DELETE without WHERE is in it."),
            ),
            (
                "maskedUses",
                list("What masked columns are used for.", "maskedUse"),
            ),
            (
                "incomplete",
                truth("The gateway cannot tell all that it does."),
            ),
        ],
    )
}

fn expect() -> Mapping {
    let word = |about: &str, words: &[&str]| json!({"description": about, "enum": words});
    let pairs = |about: &str, value: &str| json!({"description": about, "type": "object", "additionalProperties": reference(value)});
    Mapping::new(
        "expect",
        "`expect`",
        "What is to become of it. What is not given is not looked at.",
        &["outcome"],
        vec![
            (
                "outcome",
                word(
                    "What happens to it.",
                    &["allow", "hold", "deny", "terminate"],
                ),
            ),
            (
                "rule",
                describe(
                    "The rule that decides; `none` for the target's default.",
                    "text",
                ),
            ),
            ("reason", describe("A part of the reason.", "text")),
            (
                "person",
                describe("The person; `unknown` for none.", "text"),
            ),
            ("groups", list("The person's groups.", "text")),
            ("timeout", describe("How long it waits.", "duration")),
            (
                "approvers",
                list(
                    "Who has to approve, as in `2 of dba`; `anybody` without a group.",
                    "text",
                ),
            ),
            (
                "onTimeout",
                word(
                    "What comes after the wait.",
                    &["deny", "escalate", "automatic"],
                ),
            ),
            (
                "liftedBy",
                describe(
                    "The Grant or Bypass that lifts a rule; `none` for none.",
                    "text",
                ),
            ),
            (
                "limits",
                describe("Limits, each as a policy file writes it.", "testLimits"),
            ),
            ("readOnly", truth("It must not write.")),
            (
                "masks",
                json!({"description": "Columns with the method that hides them; `none` for one that may be seen.", "type": "object", "additionalProperties": {"anyOf": [reference("method"), {"const": "none"}]}}),
            ),
            (
                "shown",
                pairs("Texts with what the client sees in their place.", "text"),
            ),
            ("notify", list("ApproverGroups that should know.", "text")),
        ],
    )
}

fn limits() -> Mapping {
    Mapping::new(
        "testLimits",
        "`limits`",
        "Limits that are expected, each as a policy file writes it; `none` for none.",
        &[],
        vec![
            ("rows", reference("text")),
            ("bytes", reference("text")),
            ("duration", reference("text")),
            ("rate", reference("text")),
        ],
    )
}
