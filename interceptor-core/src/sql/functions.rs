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
    "setseed",
    "lo_creat",
    "lo_create",
    "pg_create_restore_point",
    "pg_backup_start",
    "pg_start_backup",
    "pg_replication_origin_create",
    "pg_replication_origin_session_setup",
];

/// Locks with numbers of one's own, which everybody sees in `pg_locks`.
const SINK_STARTS: &[&str] = &["pg_advisory_", "pg_try_advisory_"];

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

/// The schema and the name of a function as [`crate::command::Facts::functions`] has it, where a part
/// with a dot in it is in quotes.
pub fn function_parts(function: &str) -> (Option<&str>, &str) {
    let unquoted = |part: &'_ str| -> (usize, usize) {
        match part.len() > 2 && part.starts_with('"') && part.ends_with('"') && part.contains('.') {
            true => (1, part.len() - 1),
            false => (0, part.len()),
        }
    };
    let split = match function.strip_suffix('"').and_then(|rest| rest.rfind('"')) {
        Some(0) => None,
        Some(quote) => Some(quote - 1),
        None => function.rfind('.'),
    };
    let (schema, name) = match split {
        Some(dot) => (
            function.get(..dot),
            function.get(dot + 1..).unwrap_or_default(),
        ),
        None => (None, function),
    };
    let inside = |part| {
        let (start, end) = unquoted(part);
        part.get(start..end).unwrap_or(part)
    };
    (schema.map(inside), inside(name))
}

/// A name as [`crate::command::Facts::functions`] has it, without its schema.
pub(super) fn last_part(function: &str) -> &str {
    function_parts(function).1
}

/// The schema of such a name, if it has one.
fn schema(function: &str) -> Option<&str> {
    function_parts(function).0
}

/// A call of it changes nothing, unless somebody made another function of the same name.
pub fn is_harmless(function: &str) -> bool {
    schema(function).is_none_or(|schema| schema == "pg_catalog")
        && matches!(class(last_part(function)), Some(Class::Pure | Class::Reads))
}

/// It comes with the server, as far as the name tells.
pub(super) fn is_known(function: &str) -> bool {
    schema(function).is_none_or(|schema| schema == "pg_catalog")
        && class(last_part(function)).is_some()
}

/// It reaches what the statement does not show, whatever schema is before it: an extension can be
/// installed in any.
pub fn is_opaque(function: &str) -> bool {
    class(last_part(function)) == Some(Class::Reaches)
}

pub(super) fn is_sink(function: &str) -> bool {
    let name = last_part(function);
    SINKS.contains(&name) || SINK_STARTS.iter().any(|start| name.starts_with(start))
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
    fn names_are_taken_apart_at_the_right_dot() {
        for (function, parts) in [
            ("f", (None, "f")),
            ("s.f", (Some("s"), "f")),
            ("\"a.b\".f", (Some("a.b"), "f")),
            ("\"pg_catalog.lower\"", (None, "pg_catalog.lower")),
            ("s.\"a.b\"", (Some("s"), "a.b")),
            ("\"a.b\".\"c.d\"", (Some("a.b"), "c.d")),
        ] {
            assert_eq!(function_parts(function), parts, "{function}");
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
