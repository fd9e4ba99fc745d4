//! Documents that nobody uses.
//!
//! It owns which kinds of documents are for the use of others, and who uses them.

use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashSet;

use super::super::action_document::ActionDocument;
use super::super::files::Files;
use super::super::reference::Reference;
use super::{Notes, Warning};

pub(super) fn check<'a>(files: &Files<'a>, notes: &mut Notes<'a>) {
    check_masks(files, notes);
    let groups = groups_in_use(files);
    for (head, _) in &files.approver_groups {
        if !groups.contains(head.name.as_str()) {
            let name = head.name.clone();
            notes.warn_at(head.source, head.place, Warning::UnusedGroup { name });
        }
    }
    let mut members: HashSet<&str> = HashSet::new();
    for (_, group) in &files.approver_groups {
        members.extend(names(&group.persons));
    }
    for (head, identity) in &files.identities {
        let has_sessions = !identity.is.is_empty() || !identity.uids.is_empty();
        if !has_sessions && !members.contains(head.name.as_str()) {
            let name = head.name.clone();
            notes.warn_at(head.source, head.place, Warning::UselessIdentity { name });
        }
    }
}

fn check_masks<'a>(files: &Files<'a>, notes: &mut Notes<'a>) {
    let mut named: HashSet<&str> = HashSet::new();
    for (_, rule) in &files.rules {
        named.extend(names(&rule.obligations.masks));
    }
    let mut patterns: HashSet<&str> = HashSet::new();
    for (head, mask) in &files.masks {
        patterns.extend(mask.pattern_names());
        if !mask.is_always && !named.contains(head.name.as_str()) {
            let name = head.name.clone();
            notes.warn_at(head.source, head.place, Warning::UnnamedMask { name });
        }
    }
    for (head, _) in &files.detectors {
        if !patterns.contains(head.name.as_str()) {
            let name = head.name.clone();
            notes.warn_at(head.source, head.place, Warning::UnusedDetector { name });
        }
    }
}

/// The approver groups that somebody asks or tells. Groups of groups count, whoever uses those.
fn groups_in_use(files: &Files<'_>) -> HashSet<String> {
    let mut all: Vec<Reference> = Vec::new();
    for (_, rule) in &files.rules {
        all.extend_from_slice(&rule.obligations.notify);
        all.extend(rule.action.iter().flat_map(ActionDocument::references));
    }
    for (_, target) in &files.targets {
        all.extend(target.default.references());
        all.extend(target.incomplete.references());
    }
    for (_, grant) in &files.grants {
        all.extend_from_slice(&grant.notify);
    }
    for (_, group) in &files.approver_groups {
        all.extend_from_slice(&group.groups);
    }
    all.into_iter().map(|reference| reference.name).collect()
}

fn names(references: &[Reference]) -> impl Iterator<Item = &str> {
    references.iter().map(|reference| reference.name.as_str())
}
