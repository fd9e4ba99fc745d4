//! From documents to a snapshot.
//!
//! It owns the order of that: first all that documents say of each other is checked, then everything is
//! compiled. What a kind's keys mean is the kind's own file's.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::{HashMap, HashSet};
use saphyr_parser::Span;
use sha2::{Digest, Sha256};

use super::approver_document::{self, ApproverGroups, Placed};
use super::decide::{self, Rule, RuleObligations};
use super::error::{PolicyError, PolicyErrors};
use super::files::{Documents, Files, Head};
use super::grant_document::GrantDocument;
use super::identity_document::{Identity, IdentityDocument};
use super::lift::Lifter;
use super::mask_document::MaskDocument;
use super::mask_lists::{self, MaskLists};
use super::people::{People, Person};
use super::problem::Problem;
use super::read::{did_you_mean, report};
use super::reference::{Names, Reference, Referent};
use super::rule_document::RuleDocument;
use super::target_document::TargetDocument;
use super::test_document::{Test, TestDocument};
use super::{
    Counts, NAMES_MAX, Protocol, Snapshot, Source, Target, estimates, obligation_document, overlap,
};
use crate::mask::{HashKey, KeyRing, Layer};

pub(super) fn load(sources: &[Source<'_>], hash_key: &HashKey) -> Result<Snapshot, PolicyErrors> {
    load_with_tests(sources, &[], hash_key).map(|(snapshot, _)| snapshot)
}

pub(super) fn load_with_tests(
    sources: &[Source<'_>],
    tests: &[Source<'_>],
    hash_key: &HashKey,
) -> Result<(Snapshot, Vec<Test>), PolicyErrors> {
    let noted = load_noting(sources, tests, hash_key, |_| ());
    noted.map(|(snapshot, tests, ())| (snapshot, tests))
}

/// As [`load_with_tests`], with what `note` makes of the documents before they are compiled.
pub(super) fn load_noting<'a, T>(
    sources: &[Source<'a>],
    tests: &[Source<'a>],
    hash_key: &HashKey,
    note: impl FnOnce(&Files<'a>) -> T,
) -> Result<(Snapshot, Vec<Test>, T), PolicyErrors> {
    let mut sources = sources.to_vec();
    sources.sort_by_key(|source| source.file);
    let mut files = Files::default();
    for source in &sources {
        files.read(*source);
    }
    files.among_tests = true;
    for source in tests {
        files.read(*source);
    }
    let mut errors = core::mem::take(&mut files.errors);
    check_endpoints(&files.targets, &mut errors);
    check_tests(&files, &mut errors);
    let references_lead = check_references(&files, &mut errors);
    if !files.head_lost && files.names_of("Target").next().is_none() && errors.is_empty() {
        errors.push(PolicyError::of_all(Problem::NoTarget));
    }
    let people = people(&files.identities, &mut errors);
    let groups = approver_groups(&files, &people, references_lead, &mut errors);
    check_masks(&files.targets, &files.masks, &mut errors);
    let mut ring = KeyRing::new(hash_key);
    let layers = layers(&files, &mut ring, &mut errors);
    let mask_keys = ring.finish();
    let lists = MaskLists::of(&files.rules);
    let targets = compile_targets(&files, &groups, &layers, &lists, &mask_keys, &mut errors);
    let counts = counts(&files);
    let noted = note(&files);
    let mut rules: Vec<Rule> = Vec::new();
    for (head, rule) in files.rules {
        rules.push(compile_rule(&head, rule, &groups, &lists, &mut errors));
    }
    decide::sort(&mut rules);
    if !errors.is_empty() {
        // What has no file comes last.
        errors.sort_by_cached_key(|e| (e.file.is_empty(), e.file.clone(), e.line, e.column));
        return Err(PolicyErrors(errors));
    }
    let tests = files.tests.into_iter();
    let tests = tests
        .map(|(head, test)| compile_test(&head, test))
        .collect();
    let lifters = compile_lifters(files.grants, files.bypasses);
    let snapshot = Snapshot {
        targets,
        hash: hash(&sources),
        mask_count: counts.masks,
        mask_keys: mask_keys
            .ids()
            .map(|(file, id)| (file.into(), id.into()))
            .collect(),
        counts,
        files: sources
            .iter()
            .map(|source| (source.file.into(), source.text.into()))
            .collect(),
        people: Arc::new(People(people)),
        observer: None,
        identities: compile_identities(files.identities),
        is_timeless: lifters.is_empty() && rules.iter().all(decide::Rule::is_timeless),
        lifters,
        index: super::index::Index::new(&rules),
        rules,
    };
    Ok((snapshot, tests, noted))
}

/// What two entries claim, and more names than there may be.
fn check_endpoints(targets: &Documents<'_, TargetDocument>, errors: &mut Vec<PolicyError>) {
    let documents = targets.iter();
    let documents = documents.map(|(head, target)| (head.name.as_str(), head.source, target));
    overlap::check(documents, errors);
    let names = targets.iter().flat_map(|(_, target)| &target.names);
    let names: HashSet<&str> = names.map(|(at, _)| at.name.as_str()).collect();
    if names.len() > NAMES_MAX {
        errors.push(PolicyError::of_all(Problem::TooManyNames));
    }
}

/// A test asks a target that is there for what it can do.
fn check_tests(files: &Files<'_>, errors: &mut Vec<PolicyError>) {
    let mut names: Vec<&str> = files.names_of("Target").collect();
    names.sort_unstable();
    for (head, test) in &files.tests {
        let name = &test.given.target;
        let (place, problem, help) = if !names.contains(&name.as_str()) && !files.head_lost {
            let help = did_you_mean(name, names.iter().copied());
            let problem = Problem::UnknownReference {
                what: Referent::Target.noun(),
                name: name.clone(),
            };
            (test.target_place, problem, help)
        } else {
            let mut targets = files.targets.iter();
            let target = targets.find(|(head, _)| head.name == *name);
            match target.and_then(|(_, target)| test.misfit(target.protocol)) {
                Some(problem) => (test.command_place, problem, None),
                None => continue,
            }
        };
        report(errors, head.source, place, problem, help);
    }
}

/// Reports names that lead nowhere. `false` if there are some, or could be.
fn check_references(files: &Files<'_>, errors: &mut Vec<PolicyError>) -> bool {
    let mut names = Names::default();
    for (kind, referents) in [
        ("Target", &[Referent::Target][..]),
        ("Identity", &[Referent::Person, Referent::Identity]),
        ("ApproverGroup", &[Referent::ApproverGroup]),
        ("Mask", &[Referent::Mask]),
        ("Rule", &[Referent::Rule]),
    ] {
        for name in files.names_of(kind) {
            for referent in referents {
                names.add(*referent, name);
            }
        }
    }
    for (_, identity) in &files.identities {
        for group in &identity.groups {
            names.add(Referent::Group, group);
        }
    }
    let identities_lost = files.names_of("Identity").count() > files.identities.len();
    if identities_lost {
        names.lose(Referent::Group);
    }
    names.sort();
    if files.head_lost {
        return false;
    }
    let before = errors.len();
    let mut check = |head: &Head<'_>, references: &[Reference]| {
        names.check(head.source, references, errors);
    };
    for (head, rule) in &files.rules {
        check(head, &rule.conditions.references);
        check(head, &rule.obligations.masks);
        check(head, &rule.obligations.notify);
        check(
            head,
            &rule
                .action
                .as_ref()
                .map_or(Vec::new(), |action| action.references()),
        );
    }
    for (head, target) in &files.targets {
        check(head, &target.default.references());
        check(head, &target.incomplete.references());
        check(head, &target.login.references);
    }
    for (head, mask) in &files.masks {
        check(head, mask.targets.as_deref().unwrap_or_default());
    }
    for (head, identity) in &files.identities {
        check(head, &identity.references);
    }
    for (head, group) in &files.approver_groups {
        check(head, &group.persons);
        check(head, &group.groups);
    }
    for (head, grant) in files.grants.iter().chain(&files.bypasses) {
        check(head, &grant.conditions.references);
        check(head, grant.lifts.as_deref().unwrap_or_default());
        check(head, &grant.notify);
    }
    errors.len() == before && !identities_lost
}

/// Who is behind the users of the gateway host. A user who would be two people is reported.
fn people(
    identities: &Documents<'_, IdentityDocument>,
    errors: &mut Vec<PolicyError>,
) -> Vec<Person> {
    let mut taken: HashMap<(&'static str, String), (&Head<'_>, usize)> = HashMap::new();
    for (head, identity) in identities {
        let users = identity.local_users.iter();
        let users = users.map(|(user, span)| ("user of the gateway host", user.clone(), *span));
        let uids = identity.uids.iter();
        let uids = uids.map(|(uid, span)| ("user id", alloc::format!("{uid}"), *span));
        for (what, value, span) in users.chain(uids) {
            let first = *taken
                .entry((what, value.clone()))
                .or_insert((head, span.start.line()));
            let (other, line) = first;
            if other.name != head.name {
                let problem = Problem::SharedHostUser {
                    what,
                    value,
                    other: other.name.clone(),
                    place: alloc::format!("{}:{line}", other.source.file),
                };
                report(errors, head.source, span, problem, None);
            }
        }
    }
    let person = |(head, identity): &(Head<'_>, IdentityDocument)| Person {
        name: head.name.as_str().into(),
        users: without_places(identity.local_users.clone()),
        uids: without_places(identity.uids.clone()),
    };
    let mut people: Vec<Person> = identities.iter().map(person).collect();
    people.sort_by(|a, b| a.name.cmp(&b.name));
    people
}

/// The people in each group. With names that lead nowhere, nobody can be counted: then a quorum is
/// nobody's error.
fn approver_groups(
    files: &Files<'_>,
    people: &[Person],
    references_lead: bool,
    errors: &mut Vec<PolicyError>,
) -> ApproverGroups {
    let documents = files.approver_groups.iter();
    let documents = documents.map(|(head, document)| Placed {
        name: &head.name,
        place: head.place,
        source: head.source,
        document,
    });
    let documents: Vec<Placed<'_>> = documents.collect();
    let groups = approver_document::compile(&documents, people, errors);
    match references_lead && errors.is_empty() {
        true => groups,
        false => groups.uncounted(),
    }
}

fn check_masks(
    targets: &Documents<'_, TargetDocument>,
    masks: &Documents<'_, MaskDocument>,
    errors: &mut Vec<PolicyError>,
) {
    let is_tcp = |target: &TargetDocument| target.protocol == Protocol::Tcp;
    for (head, mask) in masks {
        for (target_head, _) in targets.iter().filter(|(_, target)| is_tcp(target)) {
            if mask.is_on(&target_head.name) {
                let problem = Problem::MaskOnPassThrough {
                    mask: head.name.clone(),
                    target: target_head.name.clone(),
                };
                report(errors, head.source, head.place, problem, None);
            }
        }
    }
    for (head, mask) in masks.iter().filter(|(_, mask)| !mask.columns.is_empty()) {
        for (target_head, target) in targets {
            if target.catalog.is_none() && !is_tcp(target) && mask.is_on(&target_head.name) {
                let problem = Problem::MaskWithoutCatalog {
                    mask: head.name.clone(),
                    target: target_head.name.clone(),
                };
                report(errors, head.source, mask.columns_place, problem, None);
            }
        }
    }
}

/// What each mask hides, in the order of the documents.
fn layers(files: &Files<'_>, ring: &mut KeyRing, errors: &mut Vec<PolicyError>) -> Vec<Layer> {
    let detectors = files.detectors.iter();
    let detectors: HashMap<&str, &Arc<_>> = detectors
        .map(|(head, detector)| (head.name.as_str(), detector))
        .collect();
    let mut names: Vec<&str> = files.names_of("Detector").collect();
    names.sort_unstable();
    let names = (!files.head_lost).then_some(names.as_slice());
    let layer = |(head, mask): &(Head<'_>, MaskDocument)| {
        mask.compile(&detectors, names, ring, head.source, errors)
    };
    files.masks.iter().map(layer).collect()
}

fn compile_targets(
    files: &Files<'_>,
    groups: &ApproverGroups,
    layers: &[Layer],
    lists: &MaskLists,
    hash_key: &HashKey,
    errors: &mut Vec<PolicyError>,
) -> Vec<Arc<Target>> {
    let mut targets = Vec::new();
    for (head, target) in &files.targets {
        let default = target.default.compile(groups, head.source, errors);
        let incomplete = target.incomplete.compile(groups, head.source, errors);
        let masks = mask_lists::on_target(files, &head.name, layers, lists, hash_key);
        let Some(masks) = masks else {
            let target = head.name.clone();
            report(
                errors,
                head.source,
                head.place,
                Problem::TooManyMaskLists { target },
                None,
            );
            continue;
        };
        targets.push(Arc::new(Target {
            name: head.name.clone(),
            protocol: target.protocol,
            endpoints: without_places(target.endpoints.clone()),
            names: without_places(target.names.clone()),
            unix_sockets: without_places(target.unix_sockets.clone()),
            preserve_client_address: target.preserve_client_address,
            default,
            incomplete,
            catalog: target.catalog.clone(),
            login: target.login.login.clone(),
            tls: target.tls.clone(),
            masks: Arc::clone(masks.always()),
            masks_by_rule: masks,
            needs_estimates: estimates::are_needed(files, &head.name),
        }));
    }
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    targets
}

fn without_places<T>(entries: Vec<(T, Span)>) -> Vec<T> {
    entries.into_iter().map(|(entry, _)| entry).collect()
}

fn compile_rule(
    head: &Head<'_>,
    rule: RuleDocument,
    groups: &ApproverGroups,
    lists: &MaskLists,
    errors: &mut Vec<PolicyError>,
) -> Rule {
    let reference = head.reference();
    let action = rule
        .action
        .map(|action| action.compile(groups, head.source, errors));
    let obligations = (!rule.obligations.is_empty()).then(|| RuleObligations {
        alone: Arc::new(rule.obligations.compile(&reference)),
        mask_list: lists.number(&rule.obligations.masks),
    });
    Rule {
        reference,
        priority: rule.priority,
        conditions: rule.conditions.conditions,
        action,
        obligations,
    }
}

fn compile_test(head: &Head<'_>, test: TestDocument) -> Test {
    Test {
        reference: head.reference().as_ref().clone(),
        given: test.given,
        command: test.command,
        expect: test.expect,
    }
}

fn compile_lifters(
    grants: Documents<'_, GrantDocument>,
    bypasses: Documents<'_, GrantDocument>,
) -> Vec<Lifter> {
    let mut lifters: Vec<Lifter> = Vec::new();
    for (documents, only_holds) in [(grants, false), (bypasses, true)] {
        let lifter = |(head, grant)| compile_lifter(&head, grant, only_holds);
        lifters.extend(documents.into_iter().map(lifter));
    }
    lifters.sort_by(|a, b| {
        let order = |lifter: &Lifter| (lifter.only_holds, lifter.reference.name.clone());
        order(a).cmp(&order(b))
    });
    lifters
}

fn compile_lifter(head: &Head<'_>, grant: GrantDocument, only_holds: bool) -> Lifter {
    let patterns = |lifts: Vec<Reference>| lifts.iter().map(Reference::pattern).collect();
    Lifter {
        reference: head.reference(),
        only_holds,
        conditions: grant.conditions.conditions,
        from_unix_ns: grant.from_unix_ns,
        until_unix_ns: grant.until_unix_ns,
        rules: grant.lifts.map(patterns),
        default: grant.lifts_default,
        notify: obligation_document::names(&grant.notify),
        reason: grant.reason,
    }
}

fn compile_identities(documents: Documents<'_, IdentityDocument>) -> Vec<Identity> {
    let documents = documents.into_iter();
    let identities = documents.map(|(head, identity)| compile_identity(&head, identity));
    let mut identities: Vec<Identity> = identities.collect();
    identities.sort_by(|a, b| a.person.cmp(&b.person));
    identities
}

fn compile_identity(head: &Head<'_>, identity: IdentityDocument) -> Identity {
    let groups = identity.groups.iter();
    Identity {
        person: head.name.as_str().into(),
        groups: groups.map(|group| group.as_str().into()).collect(),
        is: identity.is,
        uids: without_places(identity.uids),
    }
}

fn counts(files: &Files<'_>) -> Counts {
    Counts {
        targets: files.targets.len(),
        rules: files.rules.len(),
        masks: files.masks.len(),
        detectors: files.detectors.len(),
        identities: files.identities.len(),
        approver_groups: files.approver_groups.len(),
        grants: files.grants.len(),
        bypasses: files.bypasses.len(),
    }
}

/// Over each text with its length before it, in the order of the file names.
fn hash(sources: &[Source<'_>]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for source in sources {
        hasher.update((source.text.len() as u64).to_be_bytes());
        hasher.update(source.text.as_bytes());
    }
    hasher.finalize().into()
}
