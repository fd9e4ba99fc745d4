//! The `spec` of every kind of document.

use interceptor_core::policy::vocabulary;
use serde_json::json;

use super::{Mapping, describe, list, reference, truth};

pub(super) fn mappings() -> Vec<Mapping> {
    vec![
        target(),
        catalog(),
        login(),
        recover(),
        gateway(),
        credential(),
        tls(),
        rule(),
        mask(),
        mask_key(),
        detector(),
        identity(),
        identity_entry(),
        approver_group(),
        grant(),
        bypass(),
    ]
}

fn target() -> Mapping {
    let protocols: Vec<&str> = vocabulary::protocols().collect();
    Mapping::new(
        "Target",
        "a Target's spec",
        "A protected server.",
        &["protocol", "endpoints"],
        vec![
            (
                "protocol",
                json!({"description": "What it speaks; `tcp` is carried without being understood.", "enum": protocols}),
            ),
            (
                "endpoints",
                list(
                    "Where it listens: `address:port`, `network/bits:port`, `[ipv6]:port`, `name:port`, with a range of ports, or `unix:/path`.",
                    "endpoint",
                ),
            ),
            (
                "preserveClientAddress",
                truth(
                    "The server sees the client's own address instead of the gateway's. Default false.",
                ),
            ),
            (
                "default",
                describe(
                    "What happens to a command that no rule decides. Default allow; deny with `protocol: tcp`.",
                    "action",
                ),
            ),
            (
                "incomplete",
                describe(
                    "The same for a command that the gateway cannot see through. Default deny.",
                    "action",
                ),
            ),
            (
                "catalog",
                describe(
                    "How to read the server's catalogue; needed by masks on columns.",
                    "catalog",
                ),
            ),
            (
                "login",
                json!({"description": "How its clients log in. Default relay.", "anyOf": [{"enum": ["relay", "password"]}, reference("loginMapping")]}),
            ),
            (
                "tls",
                describe(
                    "How its connections are encrypted. Default: as client and server can.",
                    "tls",
                ),
            ),
        ],
    )
}

fn login() -> Mapping {
    Mapping::new(
        "loginMapping",
        "`login`",
        "The gateway asks clients for their proof, and logs in at the server itself.",
        &[],
        vec![
            (
                "gateway",
                describe("With credentials that the gateway holds.", "gateway"),
            ),
            (
                "recover",
                describe(
                    "With what the client's own proof lets it recover.",
                    "recover",
                ),
            ),
        ],
    )
    .also(json!({"minProperties": 1, "maxProperties": 1}))
}

fn recover() -> Mapping {
    Mapping::new(
        "recover",
        "`recover`",
        "The users' verifiers, as the server has them.",
        &["verifierFile"],
        vec![verifier_file()],
    )
}

fn verifier_file() -> (&'static str, serde_json::Value) {
    (
        "verifierFile",
        describe(
            "File of lines `user SCRAM-SHA-256$…`: an absolute path.",
            "path",
        ),
    )
}

fn gateway() -> Mapping {
    Mapping::new(
        "gateway",
        "`gateway`",
        "How clients prove to the gateway who they are, and the credentials for the server.",
        &["credentials"],
        vec![
            verifier_file(),
            (
                "trust",
                json!({"description": "Instead of a verifier: the process, by which exactly one Identity knows the person.", "enum": ["process"]}),
            ),
            (
                "credentials",
                list("The first one that fits is used.", "credential"),
            ),
        ],
    )
    .also(json!({"oneOf": [{"required": ["verifierFile"]}, {"required": ["trust"]}]}))
}

fn credential() -> Mapping {
    let sources = [
        "passwordFile",
        "passwordEnv",
        "passwordCommand",
        "systemdCredential",
    ];
    let sources = sources.map(|key| json!({"required": [key]}));
    Mapping::new(
        "credential",
        "an entry of `credentials`",
        "A password for the server, and who may log in with it.",
        &[],
        vec![
            (
                "users",
                list("Users that clients name, with `*`. Default all.", "text"),
            ),
            ("persons", list("Names of Identities, with `*`.", "text")),
            ("groups", list("Groups of Identities, with `*`.", "text")),
            (
                "as",
                describe("The server's user, if it is another one.", "text"),
            ),
            (
                "passwordFile",
                describe("File that holds the password: an absolute path.", "path"),
            ),
            (
                "passwordEnv",
                describe("A variable of the gateway's environment.", "text"),
            ),
            (
                "passwordCommand",
                list(
                    "A program that prints it: an absolute path, and arguments.",
                    "text",
                ),
            ),
            (
                "systemdCredential",
                describe("The name of a credential of the gateway's unit.", "text"),
            ),
        ],
    )
    .also(json!({"oneOf": sources}))
}

fn catalog() -> Mapping {
    Mapping::new(
        "catalog",
        "`catalog`",
        "Credentials of a role that needs only CONNECT.",
        &["user"],
        vec![
            ("user", describe("The role.", "text")),
            (
                "passwordFile",
                describe("File that holds its password: an absolute path.", "path"),
            ),
        ],
    )
}

fn tls() -> Mapping {
    let client: Vec<&str> = vocabulary::client_tls().collect();
    let upstream: Vec<&str> = vocabulary::upstream_tls().collect();
    Mapping::new(
        "tls",
        "`tls`",
        "How a target's connections are encrypted.",
        &[],
        vec![
            (
                "client",
                json!({
                    "description": "Whether clients may encrypt, or have to. Default allow.",
                    "enum": client,
                }),
            ),
            (
                "certificate",
                describe(
                    "The target's own certificate to show to clients: an absolute path of a PEM file. Default: one that the gateway issues.",
                    "path",
                ),
            ),
            (
                "key",
                describe("The private key of `certificate`: an absolute path of a PEM file.", "path"),
            ),
            (
                "upstream",
                json!({
                    "description": "Whether the gateway encrypts towards the server, in the words of libpq's sslmode. Default prefer.",
                    "enum": upstream,
                }),
            ),
            (
                "ca",
                json!({
                    "description": "Who certifies the server, for verify-ca and verify-full: an absolute path of a PEM file, or system.",
                    "anyOf": [{ "const": "system" }, reference("path")],
                }),
            ),
            (
                "serverName",
                describe("The name in the server's certificate, where it is another than the endpoint's.", "text"),
            ),
            (
                "clientCertificate",
                describe("What the gateway shows to a server that asks for a client's certificate: an absolute path of a PEM file.", "path"),
            ),
            (
                "clientKey",
                describe("The private key of `clientCertificate`: an absolute path of a PEM file.", "path"),
            ),
        ],
    )
    .also(json!({
        "dependentRequired": {
            "certificate": ["key"],
            "key": ["certificate"],
            "clientCertificate": ["clientKey"],
            "clientKey": ["clientCertificate"],
        },
        "if": {
            "properties": { "upstream": { "enum": ["verify-ca", "verify-full"] } },
            "required": ["upstream"],
        },
        "then": { "required": ["ca"] },
        "else": { "not": { "required": ["ca"] } },
    }))
}

fn rule() -> Mapping {
    Mapping::new(
        "Rule",
        "a Rule's spec",
        "What happens to commands.",
        &["match", "then"],
        vec![
            (
                "priority",
                json!({"description": "Of the rules with an outcome, those of the highest priority decide. Default 0.", "type": ["integer", "string"], "minimum": -1000, "maximum": 1000, "pattern": "^-?[0-9]+$"}),
            ),
            (
                "match",
                describe(
                    "Which commands: all keys have to match, of a list one entry. `{}` is every command.",
                    "match",
                ),
            ),
            ("then", reference("then")),
        ],
    )
}

fn mask() -> Mapping {
    Mapping::new(
        "Mask",
        "a Mask's spec",
        "What nobody sees in replies.",
        &[],
        vec![
            ("targets", list("Names of targets, with `*`. Default all.", "text")),
            ("columns", list("`table.column` or `schema.table.column`, each part with `*`.", "column")),
            ("patterns", list("What values look like, wherever they stand in a text.", "pattern")),
            ("with", describe("What is shown instead. Default full.", "method")),
            ("key", describe("The key of `token` and `preserve`.", "maskKey")),
            (
                "placeholder",
                json!({"description": "What `placeholder` shows. Default the name of the column or pattern in `<>`.", "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[^\"\\\\{}(),]*$"}),
            ),
            ("when", json!({"description": "`named`: only where a Rule's `mask` names it. Default always.", "enum": ["always", "named"]})),
        ],
    )
    .also(json!({"anyOf": [{"required": ["columns"]}, {"required": ["patterns"]}]}))
}

fn mask_key() -> Mapping {
    Mapping::new(
        "maskKey",
        "`key`",
        "A key of masks.",
        &["file"],
        vec![(
            "file",
            json!({"description": "A file of 32 to 4096 bytes on the gateway's host; an absolute path.", "type": "string", "pattern": "^/"}),
        )],
    )
}

fn detector() -> Mapping {
    Mapping::new(
        "Detector",
        "a Detector's spec",
        "A pattern for masks.",
        &["pattern"],
        vec![
            ("pattern", reference("regex")),
            (
                "check",
                json!({"description": "A check of what is found. Default none.", "enum": vocabulary::checks().collect::<Vec<_>>()}),
            ),
            (
                "group",
                describe(
                    "The capture group that is the value. Default 0, the whole.",
                    "count",
                ),
            ),
            (
                "context",
                list(
                    "Words, one of which has to stand near, in any case.",
                    "word",
                ),
            ),
        ],
    )
}

fn identity() -> Mapping {
    Mapping::new(
        "Identity",
        "an Identity's spec",
        "A person: how they are known in sessions, and which users of the gateway host they are.",
        &[],
        vec![
            ("groups", list("The groups that the person is in.", "name")),
            (
                "is",
                list(
                    "A session is theirs if any entry matches, with all its keys.",
                    "identityEntry",
                ),
            ),
            (
                "localUsers",
                list("Users of the gateway host, for approving.", "text"),
            ),
            (
                "uids",
                list(
                    "User ids of the gateway host: for approving, and for processes there.",
                    "uid",
                ),
            ),
        ],
    )
}

fn identity_entry() -> Mapping {
    Mapping::new(
        "identityEntry",
        "an entry of `is`",
        "What a session of this person looks like.",
        &[],
        vec![
            ("targets", list("Names of targets, with `*`.", "text")),
            ("users", list("Users of the target, with `*`.", "text")),
            ("databases", list("Databases, with `*`.", "text")),
            ("clientNetworks", list("The client's address.", "network")),
            (
                "process",
                describe("The local process that connected.", "process"),
            ),
        ],
    )
    .also(json!({"minProperties": 1}))
}

fn approver_group() -> Mapping {
    Mapping::new(
        "ApproverGroup",
        "an ApproverGroup's spec",
        "People who may approve.",
        &[],
        vec![
            ("persons", list("Names of Identities.", "name")),
            ("localUsers", list("Users of the gateway host.", "text")),
            ("uids", list("User ids of the gateway host.", "uid")),
            ("groups", list("Other ApproverGroups.", "name")),
        ],
    )
    .also(json!({"minProperties": 1}))
}

fn grant() -> Mapping {
    Mapping::new(
        "Grant",
        "a Grant's spec",
        "Rules that do not count for somebody, for a time.",
        &["match", "until", "lifts", "reason"],
        vec![
            (
                "match",
                describe(
                    "For whom and what; it names persons, groups, users, process or clientNetworks.",
                    "match",
                ),
            ),
            (
                "from",
                describe("When it begins, as in `2026-11-20T10:00:00Z`.", "timestamp"),
            ),
            (
                "until",
                describe("When it ends; at most 90 days later.", "timestamp"),
            ),
            (
                "lifts",
                list(
                    "Names of rules, with `*`; `default` for the target's default and incomplete.",
                    "text",
                ),
            ),
            ("reason", describe("Why, for the record.", "text")),
            (
                "notify",
                list("ApproverGroups that should know of its use.", "name"),
            ),
        ],
    )
}

fn bypass() -> Mapping {
    Mapping::new(
        "Bypass",
        "a Bypass's spec",
        "Holds that do not count for a trusted client; denials, masks, limits and the record stay.",
        &["match"],
        vec![
            (
                "match",
                describe(
                    "For whom and what; it names persons, groups, process or clientNetworks.",
                    "match",
                ),
            ),
            (
                "lifts",
                list("Names of rules, with `*`. Default every hold.", "text"),
            ),
        ],
    )
}
