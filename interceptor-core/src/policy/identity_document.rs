//! Documents of kind Identity: who a session's person is.
//!
//! It owns their keys, and how a session finds its person: exactly one identity fits, without doubt.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use saphyr_parser::Span;

use super::Who;
use super::condition::{Condition, Conditions};
use super::expression::Scope;
use super::match_document::{process, uid};
use super::name::Doubt;
use super::problem::Problem;
use super::read::Reader;
use super::reference::{Reference, Referent};
use super::yaml::Node;

pub(super) const IDENTITY_KEYS: [&str; 4] = ["groups", "is", "localUsers", "uids"];
pub(super) const IS_KEYS: [&str; 5] =
    ["targets", "users", "databases", "clientNetworks", "process"];

/// An identity as its document says.
pub(super) struct IdentityDocument {
    pub(super) groups: Vec<String>,
    pub(super) is: Vec<Conditions>,
    /// The targets that it names.
    pub(super) references: Vec<Reference>,
    /// With their places, for the errors of a later look; so are the numbers.
    pub(super) local_users: Vec<(String, Span)>,
    pub(super) uids: Vec<(u32, Span)>,
}

/// An identity, compiled.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) person: Arc<str>,
    pub(super) groups: Vec<Arc<str>>,
    /// Any of them makes a session this person's.
    pub(super) is: Vec<Conditions>,
    /// So does a local process of one of these users.
    pub(super) uids: Vec<u32>,
}

impl Identity {
    fn fits(&self, scope: &Scope<'_>) -> bool {
        let process = scope.subject.process.as_ref();
        process.is_some_and(|process| self.uids.contains(&process.uid))
            || self.is.iter().any(|is| is.match_all(scope, Doubt::Differs))
    }

    fn fits_by_process(&self, scope: &Scope<'_>) -> bool {
        let asks = |is: &&Conditions| {
            let mut conditions = is.0.iter();
            conditions.any(|condition| matches!(condition, Condition::Process(_)))
        };
        let process = scope.subject.process.as_ref();
        process.is_some_and(|process| self.uids.contains(&process.uid))
            || self
                .is
                .iter()
                .filter(asks)
                .any(|is| is.match_all(scope, Doubt::Differs))
    }
}

/// The kernel knows that a session is this identity's: its process fits, and not only what the client says
/// of itself.
pub(super) fn is_certain_by_process(identities: &[Identity], scope: &Scope<'_>) -> bool {
    let mut fitting = fitting(identities, scope);
    match (fitting.next(), fitting.next()) {
        (Some(identity), None) => identity.fits_by_process(scope),
        _ => false,
    }
}

/// Those that fit a session; its facts and its person do not count.
pub(super) fn fitting<'a>(
    identities: &'a [Identity],
    scope: &Scope<'_>,
) -> impl Iterator<Item = &'a Identity> {
    identities
        .iter()
        .filter(move |identity| identity.fits(scope))
}

/// The person of a session: nobody where several fit.
pub(super) fn who(identities: &[Identity], scope: &Scope<'_>) -> Who {
    let mut fitting = fitting(identities, scope);
    match (fitting.next(), fitting.next()) {
        (Some(identity), None) => Who {
            person: Some(Arc::clone(&identity.person)),
            groups: identity.groups.clone(),
        },
        _ => Who::default(),
    }
}

pub(super) fn read(reader: &mut Reader<'_>, spec: &Node, place: Span) -> Option<IdentityDocument> {
    let fields = reader.fields(spec, "an Identity's spec", IDENTITY_KEYS)?;
    let given = |key| fields.optional(key).is_some();
    if !given("is") && !given("localUsers") && !given("uids") {
        reader.report(place, Problem::EmptyIdentity);
    }
    let name = |reader: &mut Reader<'_>, node: &Node| reader.text(node).map(str::to_owned);
    let groups = reader.list(fields.optional("groups"), name);
    let mut references = Vec::new();
    let is = reader.list(fields.optional("is"), |reader, node| {
        let (is, targets) = entry(reader, node)?;
        references.extend(targets);
        Some(is)
    });
    let local_users = reader.list(fields.optional("localUsers"), |reader, node| {
        Some((reader.text(node)?.to_owned(), node.span))
    });
    let uids = reader.list(fields.optional("uids"), |reader, node| {
        Some((uid(reader, node)?, node.span))
    });
    Some(IdentityDocument {
        groups: groups.unwrap_or_default(),
        is: is.unwrap_or_default(),
        references,
        local_users: local_users.unwrap_or_default(),
        uids: uids.unwrap_or_default(),
    })
}

/// One entry of `is`: all its keys have to fit.
fn entry(reader: &mut Reader<'_>, node: &Node) -> Option<(Conditions, Vec<Reference>)> {
    let fields = reader.fields(node, "an entry of `is`", IS_KEYS)?;
    let targets = reader.references(fields.optional("targets"), Referent::Target);
    let patterns = |targets: &Vec<Reference>| targets.iter().map(Reference::pattern).collect();
    let conditions = [
        targets.as_ref().map(patterns).map(Condition::Targets),
        reader.names(fields.optional("users")).map(Condition::Users),
        reader
            .names(fields.optional("databases"))
            .map(Condition::Databases),
        reader
            .list(fields.optional("clientNetworks"), Reader::network)
            .map(Condition::ClientNetworks),
        fields
            .optional("process")
            .and_then(|node| process(reader, node))
            .map(Condition::Process),
    ];
    let any_process = conditions
        .iter()
        .flatten()
        .any(|condition| matches!(condition, Condition::Process(process) if process.is_empty()));
    if any_process || IS_KEYS.iter().all(|key| fields.optional(key).is_none()) {
        reader.report(node.span, Problem::IsEverybody);
    }
    let conditions: Vec<Condition> = conditions.into_iter().flatten().collect();
    Some((Conditions(conditions.into()), targets.unwrap_or_default()))
}
