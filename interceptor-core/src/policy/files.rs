//! From files to documents.
//!
//! It owns what every document has: its kind, its name, its place. What a kind's keys mean is the kind's
//! own file's; what documents say of each other is [`super::load`]'s.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;
use saphyr_parser::Span;

use super::approver_document::{self, ApproverDocument};
use super::error::PolicyError;
use super::grant_document::{self, GrantDocument};
use super::identity_document::{self, IdentityDocument};
use super::mask_document::{self, MaskDocument};
use super::problem::Problem;
use super::read::Reader;
use super::rule_document::{self, RuleDocument};
use super::target_document::{self, TargetDocument};
use super::test_document::{self, TestDocument};
use super::yaml::{self, Node, Value};
use super::{
    DOCUMENTS_MAX, FILE_BYTES_MAX, NAME_CHARS_MAX, RuleReference, Source, detector_document,
};
use crate::mask::Detector;

pub(super) const DOCUMENT_KEYS: [&str; 3] = ["kind", "name", "spec"];

/// What every document has.
pub(super) struct Head<'a> {
    pub(super) name: String,
    pub(super) source: Source<'a>,
    /// Where the name stands: errors about the whole document point there.
    pub(super) place: Span,
    /// The line that the document starts on.
    line: usize,
}

impl Head<'_> {
    pub(super) fn reference(&self) -> Arc<RuleReference> {
        Arc::new(RuleReference {
            name: self.name.clone(),
            file: self.source.file.into(),
            line: u32::try_from(self.line).unwrap_or(u32::MAX),
        })
    }
}

/// Documents of one kind, without those that have errors in them.
pub(super) type Documents<'a, T> = Vec<(Head<'a>, T)>;

/// Everything read so far.
#[derive(Default)]
pub(super) struct Files<'a> {
    pub(super) targets: Documents<'a, TargetDocument>,
    pub(super) rules: Documents<'a, RuleDocument>,
    pub(super) masks: Documents<'a, MaskDocument>,
    pub(super) detectors: Documents<'a, Arc<Detector>>,
    pub(super) identities: Documents<'a, IdentityDocument>,
    pub(super) approver_groups: Documents<'a, ApproverDocument>,
    pub(super) grants: Documents<'a, GrantDocument>,
    pub(super) bypasses: Documents<'a, GrantDocument>,
    pub(super) tests: Documents<'a, TestDocument>,
    /// The files being read are those of a folder of tests.
    pub(super) among_tests: bool,
    /// `file:line` of every document by kind and name, of those with errors in them too.
    pub(super) places: HashMap<(&'static str, String), String>,
    document_count: usize,
    regex_count: usize,
    /// A document's kind or name could not be read, so a reference may rightly lead to it.
    pub(super) head_lost: bool,
    pub(super) errors: Vec<PolicyError>,
}

/// Reads a document's spec and keeps it.
type ReadKind = for<'a> fn(&mut Files<'a>, Head<'a>, &Node);

/// The kinds of documents. A new kind is an entry here and a file of its own.
const KINDS: &[(&str, ReadKind)] = &[
    ("Target", |files, head, spec| {
        let body = files.read_with(head.source, |reader| {
            target_document::read(reader, &head.name, spec, head.place)
        });
        files.targets.extend(body.map(|body| (head, body)));
    }),
    ("Rule", |files, head, spec| {
        let body = files.read_with(head.source, |reader| {
            rule_document::read(reader, &head.name, spec, head.place)
        });
        files.rules.extend(body.map(|body| (head, body)));
    }),
    ("Mask", |files, head, spec| {
        let body = files.read_with(head.source, |reader| {
            mask_document::read(reader, spec, head.place)
        });
        files.masks.extend(body.map(|body| (head, body)));
    }),
    ("Detector", |files, head, spec| {
        let body = files.read_with(head.source, |reader| {
            detector_document::read(reader, &head.name, spec, head.place)
        });
        files.detectors.extend(body.map(|body| (head, body)));
    }),
    ("Identity", |files, head, spec| {
        let body = files.read_with(head.source, |reader| {
            identity_document::read(reader, spec, head.place)
        });
        files.identities.extend(body.map(|body| (head, body)));
    }),
    ("ApproverGroup", |files, head, spec| {
        let body = files.read_with(head.source, |reader| {
            approver_document::read(reader, spec, head.place)
        });
        files.approver_groups.extend(body.map(|body| (head, body)));
    }),
    ("Grant", |files, head, spec| {
        let body = files.read_with(head.source, |reader| {
            grant_document::read_grant(reader, spec, head.place)
        });
        files.grants.extend(body.map(|body| (head, body)));
    }),
    ("Bypass", |files, head, spec| {
        let body = files.read_with(head.source, |reader| {
            grant_document::read_bypass(reader, spec, head.place)
        });
        files.bypasses.extend(body.map(|body| (head, body)));
    }),
    ("Test", |files, head, spec| {
        let among_tests = files.among_tests;
        let body = files.read_with(head.source, |reader| {
            if !among_tests {
                reader.report(head.place, Problem::TestAmongPolicy);
                return None;
            }
            test_document::read(reader, spec, head.place)
        });
        files.tests.extend(body.map(|body| (head, body)));
    }),
];

impl<'a> Files<'a> {
    fn read_with<T>(
        &mut self,
        source: Source<'a>,
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> Option<T> {
        let mut reader = Reader::new(source, &mut self.errors);
        reader.regex_count = self.regex_count;
        let body = read(&mut reader);
        self.regex_count = reader.regex_count;
        body
    }

    pub(super) fn read(&mut self, source: Source<'a>) {
        let mut reader = Reader::new(source, &mut self.errors);
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
        let mut reader = Reader::new(source, &mut self.errors);
        if matches!(document.value, Value::Null) {
            reader.report(document.span, Problem::EmptyDocument);
            return Some(());
        }
        let within = "a document";
        let fields = reader.fields(document, within, DOCUMENT_KEYS)?;
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
            let (name, first) = (name.clone(), first.clone());
            reader.report(place, Problem::DuplicateName { kind, name, first });
        }
        self.places.entry((kind, name.clone())).or_insert(here);
        if let Some(spec) = spec {
            let head = Head {
                name,
                source,
                place,
                line,
            };
            read(self, head, spec);
        }
        Some(())
    }

    /// Every name of a kind, of documents with errors in them too.
    pub(super) fn names_of(&self, kind: &'static str) -> impl Iterator<Item = &str> {
        let all = self.places.keys().filter(move |(known, _)| *known == kind);
        all.map(|(_, name)| name.as_str())
    }
}

/// The names of all kinds.
pub(super) fn kind_names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
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
