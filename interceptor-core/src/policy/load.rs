//! From files to a snapshot.
//!
//! It owns what concerns documents together: their kinds, unique names, references between
//! them. What a kind's keys mean is the kind's own file's.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::{HashMap, HashSet};
use saphyr_parser::Span;
use sha2::{Digest, Sha256};

use super::decide::{self, Rule};
use super::error::{PolicyError, PolicyErrors, Problem};
use super::mask_document::MaskDocument;
use super::read::{Reader, did_you_mean, report};
use super::rule_document::RuleDocument;
use super::target_document::TargetDocument;
use super::test_document::{Test, TestDocument};
use super::yaml::{Node, Value};
use super::{
    DOCUMENTS_MAX, FILE_BYTES_MAX, NAME_CHARS_MAX, NAMES_MAX, NamePattern, Protocol, RuleReference,
    Snapshot, Source, Target, mask_document, overlap, rule_document, target_document,
    test_document, yaml,
};
use crate::mask::{HashKey, Masks};

/// What every document has.
struct Head<'a> {
    name: String,
    source: Source<'a>,
    /// Where the name stands: errors about the whole document point there.
    place: Span,
    /// The line that the document starts on.
    line: usize,
}

/// Everything read so far.
#[derive(Default)]
struct Files<'a> {
    targets: Vec<(Head<'a>, TargetDocument)>,
    rules: Vec<(Head<'a>, RuleDocument)>,
    masks: Vec<(Head<'a>, MaskDocument)>,
    tests: Vec<(Head<'a>, TestDocument)>,
    /// The files being read are those of a folder of tests.
    among_tests: bool,
    /// `file:line` of every document by kind and name, of those with errors in them too.
    places: HashMap<(&'static str, String), String>,
    document_count: usize,
    /// A document's kind or name could not be read, so a reference may rightly lead to it.
    head_lost: bool,
    errors: Vec<PolicyError>,
}

/// Reads a document's spec and keeps it.
type ReadKind = for<'a> fn(&mut Files<'a>, Head<'a>, &Node);

/// The kinds of documents. A new kind is a line here and a file of its own.
const KINDS: &[(&str, ReadKind)] = &[
    ("Target", |files, head, spec| {
        let mut reader = Reader {
            source: head.source,
            errors: &mut files.errors,
        };
        let body = target_document::read(&mut reader, &head.name, spec, head.place);
        files.targets.extend(body.map(|body| (head, body)));
    }),
    ("Rule", |files, head, spec| {
        let mut reader = Reader {
            source: head.source,
            errors: &mut files.errors,
        };
        let body = rule_document::read(&mut reader, &head.name, spec, head.place);
        files.rules.extend(body.map(|body| (head, body)));
    }),
    ("Mask", |files, head, spec| {
        let mut reader = Reader {
            source: head.source,
            errors: &mut files.errors,
        };
        let body = mask_document::read(&mut reader, spec, head.place);
        files.masks.extend(body.map(|body| (head, body)));
    }),
    ("Test", |files, head, spec| {
        let mut reader = Reader {
            source: head.source,
            errors: &mut files.errors,
        };
        if !files.among_tests {
            return reader.report(head.place, Problem::TestAmongPolicy);
        }
        let body = test_document::read(&mut reader, spec, head.place);
        files.tests.extend(body.map(|body| (head, body)));
    }),
];

pub(super) fn load(sources: &[Source<'_>], hash_key: &HashKey) -> Result<Snapshot, PolicyErrors> {
    load_with_tests(sources, &[], hash_key).map(|(snapshot, _)| snapshot)
}

pub(super) fn load_with_tests(
    sources: &[Source<'_>],
    tests: &[Source<'_>],
    hash_key: &HashKey,
) -> Result<(Snapshot, Vec<Test>), PolicyErrors> {
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
    let target_names = files.target_names();
    files.check_endpoints();
    files.check_tests(&target_names);
    let Files {
        targets,
        mut rules,
        mut masks,
        tests,
        head_lost,
        mut errors,
        ..
    } = files;
    if !head_lost {
        for (head, rule) in &mut rules {
            check_targets(head, rule.targets.as_deref(), &target_names, &mut errors);
        }
        for (head, mask) in &mut masks {
            check_targets(head, mask.targets.as_deref(), &target_names, &mut errors);
        }
        if target_names.is_empty() && errors.is_empty() {
            errors.push(PolicyError::of_all(Problem::NoTarget));
        }
    }
    check_masks(&targets, &masks, &mut errors);
    if !errors.is_empty() {
        // What has no file comes last.
        errors.sort_by_cached_key(|e| (e.file.is_empty(), e.file.clone(), e.line, e.column));
        return Err(PolicyErrors(errors));
    }
    let mut targets: Vec<Arc<Target>> = targets
        .into_iter()
        .map(|target| Arc::new(compile_target(target, &masks, hash_key)))
        .collect();
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rules: Vec<Rule> = rules.into_iter().map(compile_rule).collect();
    decide::sort(&mut rules);
    let snapshot = Snapshot {
        targets,
        hash: hash(&sources),
        mask_count: masks.len(),
        files: sources
            .iter()
            .map(|source| (source.file.into(), source.text.into()))
            .collect(),
        observer: None,
        people: Arc::default(),
        rules,
    };
    Ok((snapshot, tests.into_iter().map(compile_test).collect()))
}

impl<'a> Files<'a> {
    fn read(&mut self, source: Source<'a>) {
        let mut reader = Reader {
            source,
            errors: &mut self.errors,
        };
        let start = Span::default();
        if source.text.len() > FILE_BYTES_MAX {
            reader.report(start, Problem::FileTooLarge);
            self.head_lost = true;
            return;
        }
        let mut stopped = false;
        let documents = yaml::read(source.text, |span, problem| {
            stopped = true;
            reader.report(span, problem);
        });
        if documents.is_empty() && !stopped {
            reader.report(start, Problem::EmptyDocument);
        }
        self.head_lost |= stopped;
        for document in &documents {
            self.document_count += 1;
            if self.document_count == DOCUMENTS_MAX + 1 {
                self.errors
                    .push(PolicyError::of_all(Problem::TooManyDocuments));
            }
            if self.document_count <= DOCUMENTS_MAX
                && self.read_document(source, document).is_none()
            {
                self.head_lost = true;
            }
        }
    }

    /// `None` if the document's kind or name could not be read.
    fn read_document(&mut self, source: Source<'a>, document: &Node) -> Option<()> {
        let mut reader = Reader {
            source,
            errors: &mut self.errors,
        };
        if matches!(document.value, Value::Null) {
            reader.report(document.span, Problem::EmptyDocument);
            return Some(());
        }
        let within = "a document";
        let fields = reader.fields(document, within, ["kind", "name", "spec"])?;
        let kind = reader.required(&fields, "kind", within, document.span);
        let kind = kind.and_then(|node| reader.one_of(node, "kind", &kinds()));
        let name_node = reader.required(&fields, "name", within, document.span);
        let name = name_node.and_then(|node| document_name(&mut reader, node));
        let place = name_node.map_or(document.span, |node| node.span);
        let spec = reader.required(&fields, "spec", within, place);
        let ((kind, read), name) = (kind?, name?);
        let line = document.span.start.line();
        let here = format!("{}:{line}", source.file);
        if let Some(first) = self.places.get(&(kind, name.clone())) {
            let first = first.clone();
            reader.report(
                place,
                Problem::DuplicateName {
                    kind,
                    name: name.clone(),
                    first,
                },
            );
        }
        self.places.entry((kind, name.clone())).or_insert(here);
        if let Some(spec) = spec {
            read(
                self,
                Head {
                    name,
                    source,
                    place,
                    line,
                },
                spec,
            );
        }
        Some(())
    }

    fn target_names(&self) -> Vec<String> {
        let targets = self.places.keys().filter(|(kind, _)| *kind == "Target");
        let mut names: Vec<String> = targets.map(|(_, name)| name.clone()).collect();
        names.sort();
        names
    }

    /// A test asks a target that is there for what it can do.
    fn check_tests(&mut self, target_names: &[String]) {
        for (head, test) in &self.tests {
            let name = &test.given.target;
            let (place, problem, help) = if !target_names.contains(name) && !self.head_lost {
                let help = did_you_mean(name, target_names.iter().map(String::as_str));
                let problem = Problem::UnknownTarget { name: name.clone() };
                (test.target_place, problem, help)
            } else {
                let mut targets = self.targets.iter();
                let target = targets.find(|(head, _)| head.name == *name);
                match target.and_then(|(_, target)| test.misfit(target.protocol)) {
                    Some(problem) => (test.command_place, problem, None),
                    None => continue,
                }
            };
            report(&mut self.errors, head.source, place, problem, help);
        }
    }

    /// What two entries claim, and more names than there may be.
    fn check_endpoints(&mut self) {
        let targets = self.targets.iter();
        let targets = targets.map(|(head, target)| (head.name.as_str(), head.source, target));
        overlap::check(targets, &mut self.errors);
        let names = self.targets.iter().flat_map(|(_, target)| &target.names);
        let names: HashSet<&str> = names.map(|(at, _)| at.name.as_str()).collect();
        if names.len() > NAMES_MAX {
            self.errors.push(PolicyError::of_all(Problem::TooManyNames));
        }
    }
}

/// The names of all kinds, with that of the documents that only tools read.
pub(super) fn kind_names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name).chain(["Test"])
}

/// The table of kinds with each name beside its function, as [`Reader::one_of`] wants it.
fn kinds() -> Vec<(&'static str, (&'static str, ReadKind))> {
    KINDS
        .iter()
        .map(|(name, read)| (*name, (*name, *read)))
        .collect()
}

fn document_name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.text(node)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.len() > NAME_CHARS_MAX || !name.chars().all(fits) {
        reader.report(node.span, Problem::BadName);
        return None;
    }
    Some(name.into())
}

/// A name that leads to no target is a slip, and the rule behind it would never speak.
fn check_targets(
    head: &Head<'_>,
    wanted: Option<&[(String, Span)]>,
    known: &[String],
    errors: &mut Vec<PolicyError>,
) {
    for (name, place) in wanted.unwrap_or_default() {
        let pattern = NamePattern::new(name);
        if !known.iter().any(|known| pattern.matches(known)) {
            let help = did_you_mean(name, known.iter().map(String::as_str));
            let problem = Problem::UnknownTarget { name: name.clone() };
            report(errors, head.source, *place, problem, help);
        }
    }
}

fn check_masks(
    targets: &[(Head<'_>, TargetDocument)],
    masks: &[(Head<'_>, MaskDocument)],
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

fn compile_target(
    (head, target): (Head<'_>, TargetDocument),
    masks: &[(Head<'_>, MaskDocument)],
    hash_key: &HashKey,
) -> Target {
    let here = || {
        masks
            .iter()
            .map(|(_, mask)| mask)
            .filter(|mask| mask.is_on(&head.name))
    };
    let columns = here()
        .flat_map(|mask| mask.columns.iter().cloned())
        .collect();
    let patterns = here().flat_map(|mask| mask.patterns.iter().copied());
    let masks = Arc::new(Masks::new(columns, patterns, hash_key.clone()));
    Target {
        name: head.name,
        protocol: target.protocol,
        endpoints: without_places(target.endpoints),
        names: without_places(target.names),
        unix_sockets: without_places(target.unix_sockets),
        preserve_client_address: target.preserve_client_address,
        default: target.default,
        incomplete: target.incomplete,
        catalog: target.catalog,
        masks,
    }
}

fn without_places<T>(entries: Vec<(T, Span)>) -> Vec<T> {
    entries.into_iter().map(|(entry, _)| entry).collect()
}

fn compile_test((head, test): (Head<'_>, TestDocument)) -> Test {
    Test {
        reference: reference(head),
        given: test.given,
        command: test.command,
        expect: test.expect,
    }
}

fn reference(head: Head<'_>) -> RuleReference {
    RuleReference {
        line: u32::try_from(head.line).unwrap_or(u32::MAX),
        name: head.name,
        file: head.source.file.into(),
    }
}

fn compile_rule((head, rule): (Head<'_>, RuleDocument)) -> Rule {
    let reference = reference(head);
    let targets = rule.targets.map(|names| {
        names
            .iter()
            .map(|(name, _)| NamePattern::new(name))
            .collect()
    });
    let mut conditions = rule.conditions;
    conditions.targets = targets;
    Rule {
        reference: Arc::new(reference),
        conditions,
        action: rule.action,
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
