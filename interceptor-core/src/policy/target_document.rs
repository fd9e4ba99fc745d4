//! Documents of kind Target.
//!
//! It owns their keys, and the actions (`allow`, `deny`, `hold`) that rules share with them.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use saphyr_parser::Span;

use super::endpoint::{self, Written};
use super::error::Problem;
use super::read::{Fields, Reader};
use super::yaml::{Node, Value};
use super::{
    Action, CatalogAccess, Endpoint, HOLD_TIMEOUT_DEFAULT, HOLD_TIMEOUT_MAX, HoldPlan,
    NamedEndpoint, Outcome, Protocol,
};

/// A target as its document says, before others are looked at.
pub(super) struct TargetDocument {
    pub(super) protocol: Protocol,
    /// With their places, for the errors of a later look; so are names and sockets.
    pub(super) endpoints: Vec<(Endpoint, Span)>,
    pub(super) names: Vec<(NamedEndpoint, Span)>,
    pub(super) unix_sockets: Vec<(String, Span)>,
    pub(super) preserve_client_address: bool,
    pub(super) default: Action,
    pub(super) incomplete: Action,
    pub(super) catalog: Option<CatalogAccess>,
}

const PROTOCOLS: &[(&str, Protocol)] = &[
    (Protocol::Postgres.name(), Protocol::Postgres),
    (Protocol::Tcp.name(), Protocol::Tcp),
];

/// The words of an action where the file gives none.
pub(super) struct Reasons {
    pub(super) allow: String,
    pub(super) hold: String,
    pub(super) deny: String,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    name: &str,
    spec: &Node,
    place: Span,
) -> Option<TargetDocument> {
    let within = "a Target's spec";
    let keys = [
        "protocol",
        "endpoints",
        "preserveClientAddress",
        "default",
        "incomplete",
        "catalog",
    ];
    let fields = reader.fields(spec, within, keys)?;
    let protocol = reader.required(&fields, "protocol", within, place);
    let protocol = protocol.and_then(|node| reader.one_of(node, "protocol", PROTOCOLS));
    let endpoints = reader.required(&fields, "endpoints", within, place);
    let written = reader.list(endpoints, endpoint);
    let preserve_client_address = match fields.optional("preserveClientAddress") {
        Some(node) => reader.truth(node),
        None => Some(false),
    };
    let default = match fields.optional("default") {
        Some(node) => action(reader, node, &default_reasons(name)),
        // Nothing of what it carries is understood, so somebody has to say that it may pass.
        None if protocol == Some(Protocol::Tcp) => Some(Action {
            outcome: Outcome::Deny,
            reason: default_reasons(name).deny.into(),
        }),
        None => Some(Action {
            outcome: Outcome::Allow,
            reason: default_reasons(name).allow.into(),
        }),
    };
    let incomplete = match fields.optional("incomplete") {
        Some(node) => action(reader, node, &incomplete_reasons()),
        None => Some(Action {
            outcome: Outcome::Deny,
            reason: incomplete_reasons().deny.into(),
        }),
    };
    let catalog = match fields.optional("catalog") {
        Some(node) => catalog(reader, node).map(Some),
        None => Some(None),
    };
    let (default, incomplete) = (default?, incomplete?);
    if protocol == Some(Protocol::Tcp) {
        check_pass_through(reader, name, &fields, [&default, &incomplete]);
    } else if incomplete.outcome.strictness() < default.outcome.strictness() {
        let node = fields
            .optional("incomplete")
            .or(fields.optional("default"))?;
        reader.report(node.span, Problem::IncompleteLaxer);
    }
    let source = reader.source;
    let (mut endpoints, mut names, mut unix_sockets) = (Vec::new(), Vec::new(), Vec::new());
    for (written, span) in written? {
        match written {
            Written::Addresses(network, ports) => {
                endpoints.push((Endpoint { network, ports }, span))
            }
            Written::Name(name, ports) => {
                let place = format!("{}:{}", source.file, span.start.line());
                names.push((NamedEndpoint { name, ports, place }, span));
            }
            Written::Unix(path) => unix_sockets.push((path, span)),
        }
    }
    Some(TargetDocument {
        protocol: protocol?,
        endpoints,
        names,
        unix_sockets,
        preserve_client_address: preserve_client_address?,
        default,
        incomplete,
        catalog: catalog?,
    })
}

/// What a target that is carried without being understood cannot have.
fn check_pass_through<const N: usize>(
    reader: &mut Reader<'_>,
    name: &str,
    fields: &Fields<'_, N>,
    [default, incomplete]: [&Action; 2],
) {
    for (key, action) in [("default", default), ("incomplete", incomplete)] {
        if let (Some(node), Outcome::Allow) = (fields.optional(key), &action.outcome) {
            let target = name.to_owned();
            reader.report(node.span, Problem::PassThroughAllows { key, target });
        }
    }
    if let Some(node) = fields.optional("catalog") {
        reader.report(node.span, Problem::PassThroughCatalog);
    }
}

fn default_reasons(name: &str) -> Reasons {
    Reasons {
        allow: format!("no rule decides, and the target {name} allows by default"),
        hold: format!("no rule decides, and the target {name} asks for approval by default"),
        deny: format!("no rule allows this, and the target {name} denies by default"),
    }
}

fn incomplete_reasons() -> Reasons {
    let cannot_tell = "the gateway cannot tell all that this command does";
    Reasons {
        allow: cannot_tell.to_owned(),
        hold: cannot_tell.to_owned(),
        deny: cannot_tell.to_owned(),
    }
}

fn endpoint(reader: &mut Reader<'_>, node: &Node) -> Option<(Written, Span)> {
    let text = reader.text(node)?;
    match endpoint::parse(text) {
        Ok(Written::Addresses(network, ports)) => {
            let network = reader.without_host_bits(node, text, network)?;
            Some((Written::Addresses(network, ports), node.span))
        }
        Ok(other) => Some((other, node.span)),
        Err(problem) => {
            reader.report(node.span, problem);
            None
        }
    }
}

fn catalog(reader: &mut Reader<'_>, node: &Node) -> Option<CatalogAccess> {
    let within = "`catalog`";
    let fields = reader.fields(node, within, ["user", "passwordFile"])?;
    let user = reader.required(&fields, "user", within, node.span);
    let user = user.and_then(|node| reader.text(node));
    let password_file = match fields.optional("passwordFile") {
        Some(node) => absolute_path(reader, node).map(Some),
        None => Some(None),
    };
    Some(CatalogAccess {
        user: user?.to_owned(),
        password_file: password_file?,
    })
}

fn absolute_path(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    if !text.starts_with('/') {
        reader.report(
            node.span,
            Problem::RelativePath {
                value: text.to_owned(),
            },
        );
        return None;
    }
    Some(text.to_owned())
}

#[derive(Clone, Copy)]
enum Verb {
    Allow,
    Hold,
    Deny,
}

const VERBS: &[(&str, Verb)] = &[
    ("allow", Verb::Allow),
    ("hold", Verb::Hold),
    ("deny", Verb::Deny),
];

/// `allow`, `deny` or `hold`; or a mapping of one of them to its message, or for `hold` to
/// `timeout` and `message`.
pub(super) fn action(reader: &mut Reader<'_>, node: &Node, reasons: &Reasons) -> Option<Action> {
    let (verb, detail) = match &node.value {
        Value::Mapping(entries) => match entries.as_slice() {
            [(key, value)] => (reader.one_of(key, "action", VERBS)?, Some(value)),
            _ => {
                let (expected, found) = ("one of `allow`, `hold` and `deny`", "several keys");
                reader.report(node.span, Problem::WrongType { expected, found });
                return None;
            }
        },
        _ => (reader.one_of(node, "action", VERBS)?, None),
    };
    let mut timeout = HOLD_TIMEOUT_DEFAULT;
    let message = match (verb, detail) {
        (
            Verb::Hold,
            Some(
                hold @ Node {
                    value: Value::Mapping(_),
                    ..
                },
            ),
        ) => {
            let fields = reader.fields(hold, "`hold`", ["timeout", "message"])?;
            let message = fields.optional("message").map(|node| reader.text(node));
            if let Some(node) = fields.optional("timeout") {
                timeout = hold_timeout(reader, node)?;
            }
            message
        }
        (_, detail) => detail.map(|node| reader.text(node)),
    };
    let (outcome, reason) = match verb {
        Verb::Allow => (Outcome::Allow, &reasons.allow),
        Verb::Hold => (
            Outcome::Hold(HoldPlan::by_anybody(timeout).into()),
            &reasons.hold,
        ),
        Verb::Deny => (Outcome::Deny, &reasons.deny),
    };
    let reason = match message {
        Some(message) => message?,
        None => reason,
    };
    Some(Action {
        outcome,
        reason: reason.into(),
    })
}

fn hold_timeout(reader: &mut Reader<'_>, node: &Node) -> Option<Duration> {
    let text = reader.text(node)?;
    let Some(timeout) = parse_duration(text) else {
        reader.report(
            node.span,
            Problem::BadDuration {
                value: text.to_owned(),
            },
        );
        return None;
    };
    if timeout.is_zero() || timeout > HOLD_TIMEOUT_MAX {
        reader.report(node.span, Problem::TimeoutOutOfRange);
        return None;
    }
    Some(timeout)
}

pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit_seconds) = [('s', 1), ('m', 60), ('h', 3600)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(unit_seconds)?))
}
