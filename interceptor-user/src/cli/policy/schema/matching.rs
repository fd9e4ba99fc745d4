//! What a rule, a grant or a bypass asks of a command.

use serde_json::json;

use super::{Mapping, describe, list, reference, truth};

pub(super) fn mappings() -> Vec<Mapping> {
    vec![conditions(), process(), estimated_rows(), times()]
}

fn conditions() -> Mapping {
    Mapping::new(
        "match",
        "`match`",
        "All keys have to match, of a list one entry. Names may hold `*`.",
        &[],
        vec![
            ("targets", list("The target's name.", "text")),
            (
                "users",
                list("The target's user that the client logs in as.", "text"),
            ),
            ("databases", list("The database.", "text")),
            (
                "persons",
                list("The person, as the Identities tell.", "text"),
            ),
            ("groups", list("A group that the person is in.", "text")),
            (
                "process",
                describe("The local process that connected.", "process"),
            ),
            ("clientNetworks", list("The client's address.", "network")),
            ("statements", list("The kind of statement.", "statement")),
            (
                "tables",
                list("A relation that is read or written.", "relation"),
            ),
            ("reads", list("A relation that is read.", "relation")),
            (
                "writes",
                list(
                    "A relation that is written, created, altered or dropped.",
                    "relation",
                ),
            ),
            ("columnsRead", list("A column that is read.", "column")),
            (
                "columnsWritten",
                list("A column that is written.", "column"),
            ),
            ("functions", list("A function that is called.", "relation")),
            (
                "noWhere",
                truth("An UPDATE or DELETE without WHERE is in it, or none is."),
            ),
            (
                "maskedUses",
                list("What a masked column is used for.", "maskedUse"),
            ),
            (
                "incomplete",
                truth("The gateway cannot tell all that it does, or it can."),
            ),
            (
                "estimatedRows",
                describe(
                    "How large the largest table named is, by the server's statistics.",
                    "estimatedRows",
                ),
            ),
            ("times", list("When it is sent.", "times")),
            ("text", describe("Found in the command's text.", "regex")),
            ("when", reference("expression")),
        ],
    )
}

fn process() -> Mapping {
    Mapping::new(
        "process",
        "`process`",
        "The local process that connected. All keys have to match.",
        &[],
        vec![
            ("uids", list("Real user ids.", "uid")),
            (
                "executables",
                list("Paths as the gateway sees them, with `*`.", "text"),
            ),
            (
                "cgroups",
                list("Paths below the cgroup2 mount, with `*`.", "text"),
            ),
            (
                "containers",
                list("Runtime and id, as in `docker://0123…`, with `*`.", "text"),
            ),
            (
                "units",
                list("systemd services and scopes, with `*`.", "text"),
            ),
        ],
    )
}

fn estimated_rows() -> Mapping {
    Mapping::new(
        "estimatedRows",
        "`estimatedRows`",
        "A table's size in rows.",
        &["over"],
        vec![("over", describe("More rows than this.", "count"))],
    )
}

fn times() -> Mapping {
    Mapping::new(
        "times",
        "an entry of `times`",
        "A time of the week. An end that is not after the start is on the next day.",
        &["zone"],
        vec![
            (
                "days",
                list(
                    "Days and ranges of days, such as `mon-fri`. Default all.",
                    "days",
                ),
            ),
            (
                "from",
                describe("From this time on, as in \"09:00\".", "timeOfDay"),
            ),
            ("to", describe("Until before this time.", "timeOfDay")),
            (
                "zone",
                json!({"description": "The time zone, as in `Europe/Berlin` or `UTC`.", "$ref": "#/$defs/text"}),
            ),
        ],
    )
}
