//! Names of a command's facts from their written form: what their `Display` writes, read back.
//!
//! It owns that form only. Test documents and the record both use it.

use alloc::borrow::ToOwned;

use crate::command::{Column, KINDS, Relation};

/// The statement kind of that name, if there is one.
pub fn kind(text: &str) -> Option<&'static str> {
    KINDS.iter().find(|kind| **kind == text).copied()
}

/// `name` or `schema.name`. A dot within a name cannot be told from the one between two: the first
/// one counts.
pub fn relation(text: &str) -> Option<Relation> {
    let (schema, name) = match text.split_once('.') {
        Some((schema, name)) => (Some(schema), name),
        None => (None, text),
    };
    if schema == Some("") || name.is_empty() {
        return None;
    }
    Some(Relation {
        schema: schema.map(Into::into),
        name: name.into(),
    })
}

/// `column`, `table.column` or `schema.table.column`, with `*` for every column.
pub fn column(text: &str) -> Option<Column> {
    let (before, name) = match text.rsplit_once('.') {
        Some((before, name)) => (Some(relation(before)?), name),
        None => (None, text),
    };
    if name.is_empty() {
        return None;
    }
    Some(Column {
        relation: before,
        name: (name != "*").then(|| name.to_owned().into()),
    })
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["orders", "public.orders"] {
            assert_eq!(relation(text).unwrap().to_string(), text);
        }
        for text in [
            "email",
            "*",
            "customers.email",
            "customers.*",
            "public.customers.email",
        ] {
            assert_eq!(column(text).unwrap().to_string(), text);
        }
        for text in ["", ".orders", "orders.", "."] {
            assert!(relation(text).is_none(), "{text}");
            assert!(column(text).is_none(), "{text}");
        }
        assert_eq!(kind("DROP TABLE"), Some("DROP TABLE"));
        assert_eq!(kind("drop table"), None);
    }
}
