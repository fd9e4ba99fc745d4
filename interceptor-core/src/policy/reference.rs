//! Names of other documents.
//!
//! It owns what a name in one document may lead to in another, and the errors about names that lead
//! nowhere. It must not know why a document names another.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::{HashMap, HashSet};
use saphyr_parser::Span;

use super::error::PolicyError;
use super::problem::Problem;
use super::read::{Reader, did_you_mean, report};
use super::yaml::Node;
use super::{NamePattern, Source};

/// What is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Referent {
    Target,
    /// An Identity, by a pattern.
    Person,
    /// A group of an Identity, by a pattern.
    Group,
    /// An Identity.
    Identity,
    ApproverGroup,
    Mask,
    /// A rule, by a pattern.
    Rule,
}

impl Referent {
    /// In an error.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Person | Self::Identity => "Identity",
            Self::Group => "Identity with the group",
            Self::ApproverGroup => "ApproverGroup",
            Self::Mask => "mask",
            Self::Rule => "rule",
        }
    }

    /// A `*` stands for any run of characters.
    const fn is_pattern(self) -> bool {
        matches!(self, Self::Target | Self::Person | Self::Group | Self::Rule)
    }
}

/// A name with its place.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) referent: Referent,
    pub(super) name: String,
    pub(super) span: Span,
}

impl Reference {
    pub(super) fn read(reader: &mut Reader<'_>, node: &Node, referent: Referent) -> Option<Self> {
        Some(Self {
            referent,
            name: reader.text(node)?.to_owned(),
            span: node.span,
        })
    }

    pub(super) fn pattern(&self) -> NamePattern {
        NamePattern::new(&self.name)
    }
}

/// The names that there are.
#[derive(Default)]
pub(super) struct Names {
    names: HashMap<Referent, Vec<String>>,
    exact: HashSet<(Referent, String)>,
    /// What a document with errors in it may have named as well.
    uncertain: HashSet<Referent>,
}

impl Names {
    pub(super) fn add(&mut self, referent: Referent, name: &str) {
        if self.exact.insert((referent, name.to_owned())) {
            self.names
                .entry(referent)
                .or_default()
                .push(name.to_owned());
        }
    }

    /// Some names of a kind could not be read: no error about one that is missing.
    pub(super) fn lose(&mut self, referent: Referent) {
        self.uncertain.insert(referent);
    }

    /// Sorted, so that errors do not depend on the order of documents.
    pub(super) fn sort(&mut self) {
        for names in self.names.values_mut() {
            names.sort();
        }
    }

    fn known(&self, referent: Referent) -> &[String] {
        self.names.get(&referent).map_or(&[], Vec::as_slice)
    }

    /// Reports each name that leads nowhere. A slip here would otherwise be a document that never
    /// speaks.
    pub(super) fn check(
        &self,
        source: Source<'_>,
        references: &[Reference],
        errors: &mut Vec<PolicyError>,
    ) {
        for reference in references {
            let Reference {
                referent,
                name,
                span,
            } = reference;
            let leads = if referent.is_pattern() && name.contains('*') {
                let pattern = reference.pattern();
                self.known(*referent)
                    .iter()
                    .any(|known| pattern.matches(known))
            } else {
                self.exact.contains(&(*referent, name.clone()))
            };
            if leads || self.uncertain.contains(referent) {
                continue;
            }
            let known = self.known(*referent).iter().map(String::as_str);
            let problem = Problem::UnknownReference {
                what: referent.noun(),
                name: name.clone(),
            };
            report(errors, source, *span, problem, did_you_mean(name, known));
        }
    }
}
