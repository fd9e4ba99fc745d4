//! Documents of kind Target.
//!
//! It owns their keys. Their actions are [`super::action_document`]'s.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use saphyr_parser::Span;

use super::action_document::{ActionDocument, Reasons, Verb, read_target_action};
use super::endpoint::{self, Written};
use super::login_document::{self, LoginDocument};
use super::problem::Problem;
use super::read::{Fields, Reader};
use super::yaml::Node;
use super::{CatalogAccess, Endpoint, NamedEndpoint, Protocol, TargetTls, tls_document};

/// A target as its document says, before others are looked at.
pub(super) struct TargetDocument {
    pub(super) protocol: Protocol,
    /// With their places, for the errors of a later look; so are names and sockets.
    pub(super) endpoints: Vec<(Endpoint, Span)>,
    pub(super) names: Vec<(NamedEndpoint, Span)>,
    pub(super) unix_sockets: Vec<(String, Span)>,
    pub(super) preserve_client_address: bool,
    pub(super) default: ActionDocument,
    pub(super) incomplete: ActionDocument,
    pub(super) catalog: Option<CatalogAccess>,
    pub(super) login: LoginDocument,
    pub(super) tls: TargetTls,
}

const PROTOCOLS: &[(&str, Protocol)] = &[
    (Protocol::Postgres.name(), Protocol::Postgres),
    (Protocol::Tcp.name(), Protocol::Tcp),
];

pub(super) const TARGET_KEYS: [&str; 8] = [
    "protocol",
    "endpoints",
    "preserveClientAddress",
    "default",
    "incomplete",
    "catalog",
    "login",
    "tls",
];
pub(super) const CATALOG_KEYS: [&str; 2] = ["user", "passwordFile"];

pub(super) fn read(
    reader: &mut Reader<'_>,
    name: &str,
    spec: &Node,
    place: Span,
) -> Option<TargetDocument> {
    let within = "a Target's spec";
    let fields = reader.fields(spec, within, TARGET_KEYS)?;
    let protocol = reader.required(&fields, "protocol", within, place);
    let protocol = protocol.and_then(|node| reader.one_of(node, "protocol", PROTOCOLS));
    let endpoints = reader.required(&fields, "endpoints", within, place);
    let written = reader.list(endpoints, endpoint);
    let preserve_client_address = match fields.optional("preserveClientAddress") {
        Some(node) => reader.truth(node),
        None => Some(false),
    };
    let default = match fields.optional("default") {
        Some(node) => read_target_action(reader, node, &default_reasons(name)),
        // Nothing of what it carries is understood, so somebody has to say that it may pass.
        None if protocol == Some(Protocol::Tcp) => {
            Some(ActionDocument::new(Verb::Deny, default_reasons(name).deny))
        }
        None => Some(ActionDocument::new(
            Verb::Allow,
            default_reasons(name).allow,
        )),
    };
    let incomplete = match fields.optional("incomplete") {
        Some(node) => read_target_action(reader, node, &incomplete_reasons()),
        None => Some(ActionDocument::new(Verb::Deny, incomplete_reasons().deny)),
    };
    let catalog = match fields.optional("catalog") {
        Some(node) => catalog(reader, node).map(Some),
        None => Some(None),
    };
    let login = match fields.optional("login") {
        Some(node) => login_document::read(reader, node),
        None => Some(LoginDocument::default()),
    };
    let tls = match fields.optional("tls") {
        Some(node) => tls_document::read(reader, node),
        None => Some(TargetTls::default()),
    };
    let (default, incomplete) = (default?, incomplete?);
    if protocol == Some(Protocol::Tcp) {
        check_pass_through(reader, name, &fields, [&default, &incomplete]);
    } else if incomplete.verb < default.verb {
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
        login: login?,
        tls: tls?,
    })
}

/// What a target that is carried without being understood cannot have.
fn check_pass_through<const N: usize>(
    reader: &mut Reader<'_>,
    name: &str,
    fields: &Fields<'_, N>,
    [default, incomplete]: [&ActionDocument; 2],
) {
    for (key, action) in [("default", default), ("incomplete", incomplete)] {
        if let (Some(node), Verb::Allow) = (fields.optional(key), action.verb) {
            let target = name.to_owned();
            reader.report(node.span, Problem::PassThroughAllows { key, target });
        }
    }
    if let Some(node) = fields.optional("catalog") {
        reader.report(node.span, Problem::PassThroughCatalog);
    }
    if let Some(node) = fields.optional("login") {
        reader.report(node.span, Problem::PassThroughLogin);
    }
    if let Some(node) = fields.optional("tls") {
        reader.report(node.span, Problem::PassThroughTls);
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
    let fields = reader.fields(node, within, CATALOG_KEYS)?;
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

pub(super) fn absolute_path(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
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
