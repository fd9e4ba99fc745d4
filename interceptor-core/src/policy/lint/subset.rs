//! Whether whatever meets one `match` meets another as well.
//!
//! It owns the proof, which is by the text of the keys alone: it never says yes where a command could
//! make a difference, and says no where it cannot tell. What it can see: lists with entries that
//! another list's entries take in, networks in networks, windows in windows, equal expressions and
//! regular expressions. What it cannot: that two expressions of different texts mean the same, and
//! that several rules together leave nothing over.

use alloc::vec::Vec;

use ipnet::IpNet;

use super::super::condition::{Condition, Conditions, ProcessConditions};
use super::super::name::ColumnPattern;
use super::super::times::{WEEK_MINUTES, Window};
use super::super::{NamePattern, RelationPattern};

/// Whatever meets `narrow`, by one reading of doubt, meets `wide` by the same.
pub(super) fn is_within(narrow: &Conditions, wide: &Conditions) -> bool {
    let met = |wide: &Condition| narrow.0.iter().any(|narrow| implies(narrow, wide));
    wide.0.iter().all(met)
}

/// The keys that what permits has to vouch by are the same in both.
pub(super) fn name_the_same_things(a: &Conditions, b: &Conditions) -> bool {
    let keys = |conditions: &Conditions| -> Vec<&'static str> {
        let mut keys: Vec<&'static str> = conditions
            .0
            .iter()
            .filter(|condition| names_things(condition))
            .map(Condition::key)
            .collect();
        keys.sort_unstable();
        keys
    };
    keys(a) == keys(b)
}

fn names_things(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::Statements(_)
            | Condition::Tables(_)
            | Condition::Reads(_)
            | Condition::Writes(_)
            | Condition::Functions(_)
            | Condition::ColumnsRead(_)
            | Condition::ColumnsWritten(_)
            | Condition::Incomplete(_)
    )
}

/// Whether a command that meets one key meets another, whatever else there is.
fn implies(narrow: &Condition, wide: &Condition) -> bool {
    use Condition as C;
    match (narrow, wide) {
        (C::Targets(a), C::Targets(b))
        | (C::Users(a), C::Users(b))
        | (C::Databases(a), C::Databases(b))
        | (C::Persons(a), C::Persons(b))
        | (C::Groups(a), C::Groups(b)) => each(a, b, is_name_within),
        (C::ClientNetworks(a), C::ClientNetworks(b)) => each(a, b, |a, b: &IpNet| b.contains(a)),
        (C::Process(a), C::Process(b)) => is_process_within(a, b),
        (C::Statements(a), C::Statements(b)) => each(a, b, |a, b| a == b),
        // Whatever is read or written is one of the tables.
        (C::Tables(a), C::Tables(b))
        | (C::Reads(a), C::Reads(b) | C::Tables(b))
        | (C::Writes(a), C::Writes(b) | C::Tables(b))
        | (C::Functions(a), C::Functions(b)) => each(a, b, is_relation_within),
        (C::ColumnsRead(a), C::ColumnsRead(b)) | (C::ColumnsWritten(a), C::ColumnsWritten(b)) => {
            each(a, b, is_column_within)
        }
        (C::MaskedUses(a), C::MaskedUses(b)) => each(a, b, |a, b| a == b),
        (C::NoWhere(a), C::NoWhere(b)) | (C::Incomplete(a), C::Incomplete(b)) => a == b,
        (C::EstimatedRows(a), C::EstimatedRows(b)) => a >= b,
        (C::Times(a), C::Times(b)) => are_windows_within(a, b),
        (C::Text(a), C::Text(b)) => a.as_str() == b.as_str(),
        (C::When(a), C::When(b)) => a == b,
        _ => false,
    }
}

/// Each entry of one list is within an entry of the other.
fn each<T>(narrow: &[T], wide: &[T], is_within: impl Fn(&T, &T) -> bool) -> bool {
    narrow
        .iter()
        .all(|narrow| wide.iter().any(|wide| is_within(narrow, wide)))
}

/// A pattern meets another as if that were a name: its `*` takes in any run of characters, with the
/// other's `*` in it, and nothing else does.
fn is_name_within(narrow: &NamePattern, wide: &NamePattern) -> bool {
    wide.matches(narrow.as_str())
}

/// What stands for a name that is not known is exactly `*`.
fn is_part_within(narrow: &NamePattern, wide: &NamePattern) -> bool {
    is_name_within(narrow, wide) && (narrow.as_str() != "*" || wide.as_str() == "*")
}

fn is_relation_within(narrow: &RelationPattern, wide: &RelationPattern) -> bool {
    let is_schema_within = match (narrow.schema(), wide.schema()) {
        (_, None) => true,
        (None, Some(wide)) => wide.as_str() == "*",
        (Some(narrow), Some(wide)) => is_part_within(narrow, wide),
    };
    is_schema_within && is_name_within(narrow.name(), wide.name())
}

fn is_column_within(narrow: &ColumnPattern, wide: &ColumnPattern) -> bool {
    is_relation_within(&narrow.relation, &wide.relation)
        && is_part_within(&narrow.column, &wide.column)
}

fn is_process_within(narrow: &ProcessConditions, wide: &ProcessConditions) -> bool {
    fn within<T>(
        narrow: &Option<Vec<T>>,
        wide: &Option<Vec<T>>,
        is_within: impl Fn(&T, &T) -> bool,
    ) -> bool {
        match (narrow, wide) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(narrow), Some(wide)) => each(narrow, wide, is_within),
        }
    }
    within(&narrow.uids, &wide.uids, |a, b| a == b)
        && within(&narrow.executables, &wide.executables, is_name_within)
        && within(&narrow.cgroups, &wide.cgroups, is_name_within)
        && within(&narrow.containers, &wide.containers, is_name_within)
        && within(&narrow.units, &wide.units, is_name_within)
}

/// Of one zone, or those that take in the whole week: what the clocks of two zones have in common
/// changes with the seasons.
fn are_windows_within(narrow: &[Window], wide: &[Window]) -> bool {
    let is_always = |windows: &[&Window]| {
        (0..WEEK_MINUTES).all(|minute| windows.iter().any(|window| window.has_minute(minute)))
    };
    narrow.iter().all(|narrow| {
        let same_zone = |wide: &&Window| wide.zone == narrow.zone;
        let same_zone: Vec<&Window> = wide.iter().filter(same_zone).collect();
        (0..WEEK_MINUTES).all(|minute| {
            !narrow.has_minute(minute) || same_zone.iter().any(|wide| wide.has_minute(minute))
        })
    }) || wide.iter().any(|window| {
        let same_zone: Vec<&Window> = wide.iter().filter(|w| w.zone == window.zone).collect();
        is_always(&same_zone)
    })
}
