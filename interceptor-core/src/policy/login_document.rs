//! The key `login` of a Target.
//!
//! It owns its forms. Where its paths lead is looked at when somebody logs in.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use saphyr_parser::Span;

use super::login::{ClientProof, GatewayLogin, Login, LoginCredential, PasswordSource};
use super::problem::Problem;
use super::read::{Fields, Reader};
use super::reference::{Reference, Referent};
use super::yaml::{Node, Value};

pub(super) const LOGIN_KEYS: [&str; 2] = ["gateway", "recover"];
pub(super) const RECOVER_KEYS: [&str; 1] = ["verifierFile"];
pub(super) const GATEWAY_KEYS: [&str; 3] = ["verifierFile", "trust", "credentials"];
pub(super) const CREDENTIAL_KEYS: [&str; 8] = [
    "users",
    "persons",
    "groups",
    "as",
    "passwordFile",
    "passwordEnv",
    "passwordCommand",
    "systemdCredential",
];

/// The logins that are a word.
const WORDS: &[(&str, bool)] = &[("relay", false), ("password", true)];
/// What is believed instead of a proof.
const TRUSTED: &[(&str, ())] = &[("process", ())];

/// How clients log in, and the documents that it names.
#[derive(Default)]
pub(super) struct LoginDocument {
    pub(super) login: Login,
    pub(super) references: Vec<Reference>,
}

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<LoginDocument> {
    if !matches!(node.value, Value::Mapping(_)) {
        let login = match reader.one_of(node, "login", WORDS)? {
            true => Login::Password,
            false => Login::Relay,
        };
        return Some(login.into());
    }
    let within = "`login`";
    let fields = reader.fields(node, within, LOGIN_KEYS)?;
    match (fields.optional("gateway"), fields.optional("recover")) {
        (Some(node), None) => gateway(reader, node),
        (None, Some(node)) => {
            let within = "`recover`";
            let fields = reader.fields(node, within, RECOVER_KEYS)?;
            let file = reader.required(&fields, "verifierFile", within, node.span)?;
            let verifier_file = path(reader, file)?.into();
            Some(Login::Recover { verifier_file }.into())
        }
        _ => {
            let keys = "`gateway` and `recover`";
            reader.report(node.span, Problem::OneOf { within, keys });
            None
        }
    }
}

impl From<Login> for LoginDocument {
    fn from(login: Login) -> Self {
        Self {
            login,
            references: Vec::new(),
        }
    }
}

fn gateway(reader: &mut Reader<'_>, node: &Node) -> Option<LoginDocument> {
    let within = "`gateway`";
    let fields = reader.fields(node, within, GATEWAY_KEYS)?;
    let proof = match (fields.optional("verifierFile"), fields.optional("trust")) {
        (Some(node), None) => path(reader, node).map(|file| ClientProof::Verifier(file.into())),
        (None, Some(node)) => reader
            .one_of(node, "proof to trust", TRUSTED)
            .map(|()| ClientProof::Process),
        _ => {
            let keys = "`verifierFile` and `trust`";
            reader.report(node.span, Problem::OneOf { within, keys });
            None
        }
    };
    let trusts = matches!(proof, Some(ClientProof::Process));
    let credentials = reader.required(&fields, "credentials", within, node.span);
    let mut references = Vec::new();
    let credentials = reader.list(credentials, |reader, node| {
        let (credential, names) = credential(reader, node, trusts)?;
        references.extend(names);
        Some(credential)
    });
    let gateway = GatewayLogin {
        proof: proof?,
        credentials: credentials?,
    };
    Some(LoginDocument {
        login: Login::Gateway(Arc::new(gateway)),
        references,
    })
}

fn credential(
    reader: &mut Reader<'_>,
    node: &Node,
    trusts: bool,
) -> Option<(LoginCredential, Vec<Reference>)> {
    let fields = reader.fields(node, "an entry of `credentials`", CREDENTIAL_KEYS)?;
    let given = |key| fields.optional(key).is_some();
    if trusts && !given("persons") && !given("groups") {
        // Any user could be named by whoever connects.
        reader.report(node.span, Problem::TrustWithoutPerson);
    }
    let source = source(reader, &fields, node.span);
    let users = optional(fields.optional("users"), |node| reader.names(Some(node)));
    let persons = optional(fields.optional("persons"), |node| {
        reader.references(Some(node), Referent::Person)
    });
    let groups = optional(fields.optional("groups"), |node| {
        reader.references(Some(node), Referent::Group)
    });
    let log_in_as = optional(fields.optional("as"), |node| {
        reader.text(node).map(str::to_owned)
    });
    let (persons, groups) = (persons?, groups?);
    let patterns = |names: &Option<Vec<Reference>>| {
        let names = names.as_ref()?.iter();
        Some(names.map(Reference::pattern).collect())
    };
    let credential = LoginCredential {
        users: users?,
        persons: patterns(&persons),
        groups: patterns(&groups),
        log_in_as: log_in_as?,
        source: source?,
    };
    let references = persons.into_iter().chain(groups).flatten();
    Some((credential, references.collect()))
}

/// A key that may be missing: outer `None` if it is wrong.
fn optional<T>(node: Option<&Node>, read: impl FnOnce(&Node) -> Option<T>) -> Option<Option<T>> {
    match node {
        Some(node) => read(node).map(Some),
        None => Some(None),
    }
}

fn source<const N: usize>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, N>,
    place: Span,
) -> Option<PasswordSource> {
    let given = [
        "passwordFile",
        "passwordEnv",
        "passwordCommand",
        "systemdCredential",
    ]
    .map(|key| fields.optional(key));
    match given {
        [Some(node), None, None, None] => path(reader, node).map(PasswordSource::File),
        [None, Some(node), None, None] => {
            let what = "a variable of the environment";
            name(reader, node, what, &['=']).map(PasswordSource::Environment)
        }
        [None, None, Some(node), None] => command(reader, node).map(PasswordSource::Command),
        [None, None, None, Some(node)] => {
            let what = "a credential of systemd";
            name(reader, node, what, &['/']).map(PasswordSource::SystemdCredential)
        }
        _ => {
            let within = "an entry of `credentials`";
            let keys = "`passwordFile`, `passwordEnv`, `passwordCommand` and `systemdCredential`";
            reader.report(place, Problem::OneOf { within, keys });
            None
        }
    }
}

fn name(
    reader: &mut Reader<'_>,
    node: &Node,
    what: &'static str,
    without: &[char],
) -> Option<String> {
    let text = reader.text(node)?;
    if text.contains(without) || text == "." || text == ".." {
        let value = text.to_owned();
        reader.report(node.span, Problem::BadCredentialName { value, what });
        return None;
    }
    Some(text.to_owned())
}

/// A program by its path, for the gateway's search path is nobody's business, and its arguments.
fn command(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<String>> {
    let words = reader.list(Some(node), |reader, node| {
        Some((reader.text(node)?.to_owned(), node.span))
    })?;
    if let Some((program, span)) = words.first()
        && !program.starts_with('/')
    {
        let value = program.clone();
        reader.report(*span, Problem::RelativePath { value });
        return None;
    }
    Some(words.into_iter().map(|(word, _)| word).collect())
}

fn path(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    super::target_document::absolute_path(reader, node)
}
