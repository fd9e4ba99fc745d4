//! What happens to a command: outcomes, holds and what a command is bound to.

use serde_json::{Value, json};

use super::{Mapping, describe, list, reference, truth};

const OUTCOMES: [&str; 4] = ["allow", "deny", "hold", "terminate"];

pub(super) fn mappings() -> Vec<Mapping> {
    vec![
        then(),
        action(),
        hold(),
        on_timeout(),
        escalation(),
        limit(),
    ]
}

fn then() -> Mapping {
    let mut keys = outcome_keys(&OUTCOMES);
    keys.extend([
        (
            "mask",
            list("Masks with `when: named` that are in force for it.", "name"),
        ),
        ("limit", describe("What it may use up.", "limit")),
        (
            "readOnly",
            truth("It must not write, nor may anything that it calls."),
        ),
        ("notify", list("ApproverGroups that should know.", "name")),
    ]);
    Mapping::new(
        "thenMapping",
        "`then`",
        "An outcome, and what the command is bound to.",
        &[],
        keys,
    )
    .also(at_most_one(&OUTCOMES, json!({"minProperties": 1})))
}

fn action() -> Mapping {
    let outcomes = ["allow", "deny", "hold"];
    Mapping::new(
        "actionMapping",
        "an action",
        "An outcome with its words.",
        &[],
        outcome_keys(&outcomes),
    )
    .also(json!({"minProperties": 1, "maxProperties": 1}))
}

fn outcome_keys(outcomes: &[&'static str]) -> Vec<(&'static str, Value)> {
    let about = |outcome: &str| match outcome {
        "allow" => describe("It goes; the text is the reason on record.", "text"),
        "deny" => describe("It is refused with this message.", "text"),
        "hold" => {
            json!({"description": "It waits for people.", "anyOf": [reference("text"), reference("hold")]})
        }
        _ => describe(
            "It is refused with this message, and its session ends.",
            "text",
        ),
    };
    outcomes
        .iter()
        .map(|outcome| (*outcome, about(outcome)))
        .collect()
}

/// No two of these keys.
fn at_most_one(keys: &[&str], mut schema: Value) -> Value {
    let pairs = keys.iter().enumerate().flat_map(|(index, key)| {
        let others = keys.iter().skip(index + 1);
        others.map(move |other| json!({"not": {"required": [key, other]}}))
    });
    let pairs: Vec<Value> = pairs.collect();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("allOf".to_owned(), pairs.into());
    }
    schema
}

/// The words or mappings that can stand where something is to happen.
pub(super) fn forms() -> [(&'static str, Value); 3] {
    let either = |about: &str, words: &[&str], mapping: &str| json!({"description": about, "anyOf": [{"enum": words}, reference(mapping)]});
    [
        (
            "then",
            either(
                "What happens: a word, or a mapping.",
                &OUTCOMES,
                "thenMapping",
            ),
        ),
        (
            "action",
            either(
                "What happens: a word, or a mapping.",
                &["allow", "deny", "hold"],
                "actionMapping",
            ),
        ),
        (
            "onTimeout",
            either(
                "What comes after the wait. Default deny.",
                &["deny"],
                "onTimeoutMapping",
            ),
        ),
    ]
}

fn hold() -> Mapping {
    Mapping::new(
        "hold",
        "`hold`",
        "Who has to approve, within which time, and what comes after it.",
        &[],
        vec![
            ("message", describe("Why, for the client and the approver.", "text")),
            ("timeout", describe("How long it waits: `30s`, `10m`, at most `24h`. Default 10m.", "duration")),
            ("group", describe("The ApproverGroup that is asked. Default: anybody with access to the gateway.", "name")),
            ("groups", list("Several; each has to approve with the quorum.", "name")),
            ("quorum", describe("How many different members. Default 1.", "quorum")),
            ("requesterMayApprove", truth("Who sent the command may approve it. Default true without a group, false with one.")),
            ("onTimeout", reference("onTimeout")),
        ],
    )
    .also(at_most_one(&["group", "groups"], json!({})))
}

fn on_timeout() -> Mapping {
    Mapping::new(
        "onTimeoutMapping",
        "`onTimeout`",
        "Others are asked, or an expression decides.",
        &[],
        vec![
            ("escalate", describe("Others are asked.", "escalate")),
            (
                "automatic",
                describe(
                    "It goes if this holds at that moment, and is refused otherwise.",
                    "expression",
                ),
            ),
        ],
    )
    .also(json!({"minProperties": 1, "maxProperties": 1}))
}

fn escalation() -> Mapping {
    Mapping::new(
        "escalate",
        "`escalate`",
        "Who is asked next.",
        &[],
        vec![
            (
                "group",
                describe("The ApproverGroup that is asked.", "name"),
            ),
            (
                "groups",
                list("Several; each has to approve with the quorum.", "name"),
            ),
            (
                "quorum",
                describe("How many different members. Default 1.", "quorum"),
            ),
            (
                "timeout",
                describe("How long it waits for them.", "duration"),
            ),
            ("onTimeout", reference("onTimeout")),
        ],
    )
    .also(at_most_one(&["group", "groups"], json!({})))
}

fn limit() -> Mapping {
    Mapping::new(
        "limit",
        "`limit`",
        "What a command may use up; of several rules the lowest counts.",
        &[],
        vec![
            ("rows", describe("Rows sent to the client.", "count")),
            (
                "bytes",
                describe("Bytes sent to the client, as in `10MiB`.", "size"),
            ),
            ("duration", describe("How long it may run.", "duration")),
            (
                "rate",
                describe("Commands in a time for each person, as in `100/m`.", "rate"),
            ),
        ],
    )
    .also(json!({"minProperties": 1}))
}
