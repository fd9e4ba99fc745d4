//! What functions can do, as far as their names tell.
//!
//! It owns the classes of the functions that come with the server. Whether a name means one of those
//! and nothing else is not known here: a catalogue can tell.

use alloc::string::String;

mod names;

/// What a call can do beside giving a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nothing.
    Pure,
    /// It looks at the catalogue, at settings or at counters.
    Reads,
    /// It changes what the statement does not name as a relation: a sequence, a lock, a large object,
    /// a setting.
    Writes,
    /// It acts on the server or on other sessions.
    Administers,
    /// It runs SQL given as text, or reaches files, other servers, or data by another way than its
    /// table.
    Reaches,
}

/// Functions that put their arguments where another statement can read them.
const SINKS: &[&str] = &[
    "set_config",
    "pg_notify",
    "pg_logical_emit_message",
    "setval",
];

/// The class of a function that comes with the server or one of its extensions; `None` for others.
/// `name` has no schema before it.
pub fn class(name: &str) -> Option<Class> {
    let is_in = |list: &[&str]| list.binary_search(&name).is_ok();
    if name.starts_with("dblink") || is_in(names::REACHES) {
        Some(Class::Reaches)
    } else if is_in(names::PURE) {
        Some(Class::Pure)
    } else if is_in(names::READS) {
        Some(Class::Reads)
    } else if is_in(names::WRITES) {
        Some(Class::Writes)
    } else if is_in(names::ADMIN) {
        Some(Class::Administers)
    } else {
        None
    }
}

/// A name as [`crate::command::Facts::functions`] has it, without its schema.
pub(super) fn last_part(function: &str) -> &str {
    // A part with a dot in it is in quotes, and no name of a built-in function has one.
    function.rsplit('.').next().unwrap_or(function)
}

/// The schema of such a name, if it has one.
fn schema(function: &str) -> Option<&str> {
    function.rsplit_once('.').map(|(schema, _)| schema)
}

/// A call of it changes nothing, unless somebody made another function of the same name.
pub fn is_harmless(function: &str) -> bool {
    schema(function).is_none_or(|schema| schema == "pg_catalog")
        && matches!(class(last_part(function)), Some(Class::Pure | Class::Reads))
}

/// It reaches what the statement does not show, whatever schema is before it: an extension can be
/// installed in any.
pub fn is_opaque(function: &str) -> bool {
    class(last_part(function)) == Some(Class::Reaches)
}

pub(super) fn is_sink(function: &str) -> bool {
    SINKS.contains(&last_part(function))
}

/// Kinds of statements that do what these functions do.
pub(super) fn kinds(functions: &[String]) -> impl Iterator<Item = &'static str> {
    functions.iter().filter_map(|function| {
        let name = last_part(function);
        match class(name)? {
            Class::Administers => Some("ALTER SYSTEM"),
            Class::Writes if name == "pg_notify" => Some("NOTIFY"),
            Class::Writes if name.contains("advisory_") => Some("LOCK"),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_in_one_class() {
        let lists = [
            names::PURE,
            names::READS,
            names::WRITES,
            names::ADMIN,
            names::REACHES,
        ];
        for (number, list) in lists.iter().enumerate() {
            assert!(list.is_sorted(), "list {number}");
            for name in *list {
                let holders = lists.iter().filter(|list| list.contains(name)).count();
                assert_eq!(holders, 1, "{name}");
            }
        }
    }

    #[test]
    fn a_schema_of_somebody_is_not_trusted() {
        assert!(is_harmless("lower") && is_harmless("pg_catalog.lower"));
        assert!(!is_harmless("s.lower") && !is_harmless("\"pg_catalog.lower\""));
        assert!(!is_harmless("wipe_orders") && !is_harmless("nextval"));
        assert!(is_opaque("s.crosstab") && is_opaque("dblink_exec") && is_opaque("pg_read_file"));
    }
}
