//! Patterns for names: exact, or with `*` for any run of characters.
//!
//! It owns how a pattern of a policy file meets a name of a command. It must not know which
//! rule asks; whether doubt counts as a match is a parameter.

use alloc::boxed::Box;
use core::fmt;

use crate::command::{Column, Relation};

/// What to do where a command leaves open which thing a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Treat it as a match: right for whatever restricts (deny, hold, mask).
    Matches,
    /// Treat it as no match: right for whatever permits.
    Differs,
}

/// A name, with `*` for any run of characters, the empty one included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern(Box<str>);

impl NamePattern {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The one name that it stands for, if there is no `*` in it.
    pub(crate) fn plain(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// Every letter as written.
    pub(crate) fn matches(&self, name: &str) -> bool {
        glob(self.0.as_bytes(), name.as_bytes(), u8::eq)
    }

    /// Identifiers: in doubt, letter case is not told apart. `Customers` in a rule is more often
    /// a slip for the folded `customers` than a quoted name, and a rule that never matches would
    /// let everything through.
    pub(crate) fn matches_identifier(&self, name: &str, doubt: Doubt) -> bool {
        match doubt {
            Doubt::Matches => glob(self.0.as_bytes(), name.as_bytes(), u8::eq_ignore_ascii_case),
            Doubt::Differs => self.matches(name),
        }
    }
}

/// A relation: `name`, which stands for that name in any schema, or `schema.name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelationPattern {
    schema: Option<NamePattern>,
    name: NamePattern,
}

impl RelationPattern {
    /// Reads `name` or `schema.name`; `None` if it has empty or more parts.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        if schema == Some("") || name.is_empty() || name.contains('.') {
            return None;
        }
        Some(Self {
            schema: schema.map(NamePattern::new),
            name: NamePattern::new(name),
        })
    }

    /// The one name that its relations have, whatever their schema.
    pub(crate) fn plain_name(&self) -> Option<&str> {
        self.name.plain()
    }

    /// The part before the dot; `None` for any schema.
    pub(crate) const fn schema(&self) -> Option<&NamePattern> {
        self.schema.as_ref()
    }

    /// The relation's own part.
    pub(crate) const fn name(&self) -> &NamePattern {
        &self.name
    }

    /// An unqualified name in a statement may lead to any schema by the session's search_path.
    /// So in doubt it meets a pattern with a schema; where doubt must not count, only a pattern
    /// that covers every schema will do.
    pub(crate) fn matches(&self, schema: Option<&str>, name: &str, doubt: Doubt) -> bool {
        let schema_matches = match (&self.schema, schema) {
            (None, _) => true,
            (Some(pattern), Some(schema)) => pattern.matches_identifier(schema, doubt),
            (Some(pattern), None) => doubt == Doubt::Matches || pattern.as_str() == "*",
        };
        schema_matches && self.name.matches_identifier(name, doubt)
    }

    pub(crate) fn matches_relation(&self, relation: &Relation, doubt: Doubt) -> bool {
        self.matches(relation.schema.as_deref(), &relation.name, doubt)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RelationPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        write!(f, "{}", self.name)
    }
}

/// A column: `table.column` or `schema.table.column`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnPattern {
    pub(crate) relation: RelationPattern,
    pub(crate) column: NamePattern,
}

impl ColumnPattern {
    /// `None` if it has fewer than two parts, more than three, or an empty one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (relation, column) = text.rsplit_once('.')?;
        let relation = RelationPattern::parse(relation)?;
        (!column.is_empty() && !text.contains(' ')).then(|| Self {
            relation,
            column: NamePattern::new(column),
        })
    }

    /// `relation` is where the column is taken to be from. Every column of a relation is in doubt this
    /// one, and certainly only `*`.
    pub(crate) fn matches(&self, relation: &Relation, column: &Column, doubt: Doubt) -> bool {
        self.relation.matches_relation(relation, doubt) && self.matches_name(column, doubt)
    }

    /// The same, whatever the relation.
    pub(crate) fn matches_name(&self, column: &Column, doubt: Doubt) -> bool {
        match &column.name {
            Some(name) => self.column.matches_identifier(name, doubt),
            None => doubt == Doubt::Matches || self.column.as_str() == "*",
        }
    }
}

impl fmt::Display for ColumnPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.relation, self.column)
    }
}

/// Greedy matching with one point to come back to: linear memory, no recursion.
fn glob(pattern: &[u8], name: &[u8], equal: fn(&u8, &u8) -> bool) -> bool {
    // A last character that is no `*` has to be the name's last: that settles most of what differs.
    match (pattern.last(), name.last()) {
        (Some(b'*') | None, _) => {}
        (Some(a), Some(b)) if equal(a, b) => {}
        _ => return false,
    }
    // Most patterns that end in a letter are told apart by it.
    if let Some(last) = pattern.last()
        && *last != b'*'
        && !name.last().is_some_and(|byte| equal(last, byte))
    {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // After the last `*`, and the first byte of the name that it does not yet stand for.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                p += 1;
                retry = Some((p, n));
                continue;
            }
            (Some(a), Some(b)) if equal(a, b) => {
                p += 1;
                n += 1;
                continue;
            }
            _ => {}
        }
        match retry {
            Some((after_star, from)) if from < name.len() => {
                p = after_star;
                n = from + 1;
                retry = Some((after_star, from + 1));
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, name, expected) in [
            ("orders", "orders", true),
            ("orders", "order", false),
            ("order*", "orders", true),
            ("*", "", true),
            ("*_log", "audit_log", true),
            ("*_log", "audit_log_2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(
                NamePattern::new(pattern).matches(name),
                expected,
                "{pattern} on {name}"
            );
        }
    }

    #[test]
    fn a_relation_pattern_has_one_or_two_parts() {
        for bad in ["", ".", "a.", ".a", "a.b.c"] {
            assert_eq!(RelationPattern::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn doubt_about_schema_and_case_counts_as_asked() {
        let cases = [
            // pattern, schema, name, in doubt a match, in doubt none
            ("customers", Some("public"), "customers", true, true),
            ("customers", None, "customers", true, true),
            ("public.customers", None, "customers", true, false),
            ("public.customers", Some("sales"), "customers", false, false),
            ("*.customers", None, "customers", true, true),
            ("public.*", None, "orders", true, false),
            ("Customers", None, "customers", true, false),
        ];
        for (pattern, schema, name, restricting, permitting) in cases {
            let relation = RelationPattern::parse(pattern).unwrap();
            assert_eq!(
                relation.matches(schema, name, Doubt::Matches),
                restricting,
                "{pattern}"
            );
            assert_eq!(
                relation.matches(schema, name, Doubt::Differs),
                permitting,
                "{pattern}"
            );
        }
    }
}
