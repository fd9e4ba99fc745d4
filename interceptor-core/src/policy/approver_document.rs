//! Documents of kind ApproverGroup: who may approve.
//!
//! It owns their keys, and how groups of groups become people. It must not know what is approved.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::{HashMap, HashSet};
use saphyr_parser::Span;

use super::error::PolicyError;
use super::match_document::uid;
use super::people::Person;
use super::problem::Problem;
use super::read::{Reader, report};
use super::reference::{Reference, Referent};
use super::yaml::Node;
use super::{ApproverGroup, Source};

pub(super) const APPROVER_GROUP_KEYS: [&str; 4] = ["persons", "localUsers", "uids", "groups"];

/// A group as its document says, before others are looked at.
pub(super) struct ApproverDocument {
    /// Names of identities.
    pub(super) persons: Vec<Reference>,
    local_users: Vec<String>,
    uids: Vec<u32>,
    /// Names of groups.
    pub(super) groups: Vec<Reference>,
}

/// A document with its name and place.
pub(super) struct Placed<'a> {
    pub(super) name: &'a str,
    pub(super) place: Span,
    pub(super) source: Source<'a>,
    pub(super) document: &'a ApproverDocument,
}

/// Every group by its name, with the number of people in it.
#[derive(Default)]
pub(super) struct ApproverGroups(HashMap<String, (Arc<ApproverGroup>, u64)>);

impl ApproverGroups {
    pub(super) fn of(&self, name: &str) -> Option<(&Arc<ApproverGroup>, u64)> {
        let (group, people) = self.0.get(name)?;
        Some((group, *people))
    }

    /// The same groups, with as many people as anybody asks for.
    pub(super) fn uncounted(mut self) -> Self {
        for (_, people) in self.0.values_mut() {
            *people = u64::MAX;
        }
        self
    }
}

pub(super) fn read(reader: &mut Reader<'_>, spec: &Node, place: Span) -> Option<ApproverDocument> {
    let fields = reader.fields(spec, "an ApproverGroup's spec", APPROVER_GROUP_KEYS)?;
    if APPROVER_GROUP_KEYS
        .iter()
        .all(|key| fields.optional(key).is_none())
    {
        reader.report(place, Problem::EmptyGroup);
    }
    let persons = reader.references(fields.optional("persons"), Referent::Identity);
    let local_users = reader.list(fields.optional("localUsers"), |reader, node| {
        reader.text(node).map(str::to_owned)
    });
    let uids = reader.list(fields.optional("uids"), uid);
    let groups = reader.references(fields.optional("groups"), Referent::ApproverGroup);
    Some(ApproverDocument {
        persons: persons.unwrap_or_default(),
        local_users: local_users.unwrap_or_default(),
        uids: uids.unwrap_or_default(),
        groups: groups.unwrap_or_default(),
    })
}

/// Makes groups of groups into people. Reports groups that lead back to themselves, and members who
/// could never approve.
pub(super) fn compile(
    documents: &[Placed<'_>],
    people: &[Person],
    errors: &mut Vec<PolicyError>,
) -> ApproverGroups {
    let people: HashMap<&str, &Person> = people
        .iter()
        .map(|person| (&*person.name, person))
        .collect();
    let by_name: HashMap<&str, &Placed<'_>> =
        documents.iter().map(|group| (group.name, group)).collect();
    for group in documents {
        let can = |person: &Person| !person.users.is_empty() || !person.uids.is_empty();
        for reference in &group.document.persons {
            if people
                .get(&*reference.name)
                .is_some_and(|person| !can(person))
            {
                let person = reference.name.clone();
                let problem = Problem::PersonCannotApprove { person };
                report(errors, group.source, reference.span, problem, None);
            }
        }
    }
    report_cycles(documents, &by_name, errors);
    let groups = documents.iter().map(|group| {
        let (members, count) = members(group, &by_name, &people);
        (group.name.to_owned(), (Arc::new(members), count))
    });
    ApproverGroups(groups.collect())
}

/// A cycle is reported once, at the group in it that is first by name.
fn report_cycles(
    documents: &[Placed<'_>],
    by_name: &HashMap<&str, &Placed<'_>>,
    errors: &mut Vec<PolicyError>,
) {
    let mut sorted: Vec<&Placed<'_>> = documents.iter().collect();
    sorted.sort_by_key(|group| group.name);
    let mut reported: HashSet<&str> = HashSet::new();
    for group in sorted {
        let Some(path) = way_back(group, by_name) else {
            continue;
        };
        if path.iter().any(|(name, _)| reported.contains(name)) {
            continue;
        }
        reported.extend(path.iter().map(|(name, _)| *name));
        let mut names: Vec<&str> = path.iter().map(|(name, _)| *name).collect();
        names.push(group.name);
        let cycle = names.join("` → `");
        let place = path.first().map_or(group.place, |(_, span)| *span);
        report(
            errors,
            group.source,
            place,
            Problem::GroupCycle { cycle },
            None,
        );
    }
}

/// The groups on the shortest way from a group to itself, each with the place that leads on.
fn way_back<'a>(
    start: &Placed<'a>,
    by_name: &HashMap<&str, &Placed<'a>>,
) -> Option<Vec<(&'a str, Span)>> {
    // Each with the step that led to it: an index, and the place of the name there.
    let mut steps: Vec<(&'a str, Option<(usize, Span)>)> = [(start.name, None)].into();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut at = 0;
    while let Some((name, _)) = steps.get(at).copied() {
        let references = by_name
            .get(name)
            .map_or(&[][..], |group| &group.document.groups);
        for reference in references {
            if reference.name == start.name {
                let mut path = [(name, reference.span)].to_vec();
                let mut back = at;
                while let Some((_, Some((previous, span)))) = steps.get(back).copied() {
                    path.extend(steps.get(previous).map(|(name, _)| (*name, span)));
                    back = previous;
                }
                path.reverse();
                return Some(path);
            }
            if let Some(next) = by_name
                .get(reference.name.as_str())
                .filter(|next| seen.insert(next.name))
            {
                steps.push((next.name, Some((at, reference.span))));
            }
        }
        at += 1;
    }
    None
}

/// Everybody in a group and the groups in it, and how many people they can be at most: a user who is
/// nobody known counts as one.
fn members(
    start: &Placed<'_>,
    by_name: &HashMap<&str, &Placed<'_>>,
    people: &HashMap<&str, &Person>,
) -> (ApproverGroup, u64) {
    let mut seen: HashSet<&str> = [start.name].into_iter().collect();
    let mut next: Vec<&ApproverDocument> = [start.document].into();
    let (mut users, mut uids): (Vec<String>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut persons: HashSet<&str> = HashSet::new();
    while let Some(document) = next.pop() {
        users.extend(document.local_users.iter().cloned());
        uids.extend(&document.uids);
        persons.extend(document.persons.iter().map(|person| person.name.as_str()));
        for group in &document.groups {
            if let Some(group) = by_name
                .get(group.name.as_str())
                .filter(|group| seen.insert(group.name))
            {
                next.push(group.document);
            }
        }
    }
    let known: Vec<&Person> = persons
        .iter()
        .filter_map(|name| people.get(name).copied())
        .collect();
    users.retain(|user| !known.iter().any(|person| person.users.contains(user)));
    uids.retain(|uid| !known.iter().any(|person| person.uids.contains(uid)));
    users.sort();
    users.dedup();
    uids.sort_unstable();
    uids.dedup();
    let count = known.len() + users.len() + uids.len();
    for person in known {
        users.extend(person.users.iter().cloned());
        uids.extend(&person.uids);
    }
    users.sort();
    uids.sort_unstable();
    let group = ApproverGroup {
        name: start.name.into(),
        users,
        uids,
    };
    (group, count as u64)
}
