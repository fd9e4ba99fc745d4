//! Names of relations as the server will find them, and what stands behind them.
//!
//! It owns when a name without a schema means one relation for certain: what it then adds to a
//! command's facts is what rules on `schema.table` and on base tables go by. It must not know how
//! the catalogue is read, nor how `search_path` is followed.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Session;
use super::catalog::{
    Catalog, CatalogFunction, CatalogRelation, Language, RelationKind, Volatility,
};
use super::knowledge::Changes;
use super::search_path::{SearchPath, runs_unseen};
use super::standing::Parts;
use crate::command::{Facts, Relation};
use crate::sql::{self, Class};

/// Views behind views, and parents of parents, that are followed.
const BEHIND_MAX: usize = 16;
/// Relations that one command names, beyond which none is looked up.
const NAMED_MAX: usize = 1_000;

pub(super) const UNKNOWN_FUNCTION: &str = "it calls a function whose effects the gateway does not know: give \
     the target a `catalog`, or allow the function by a rule with `incomplete: true`";
const VOLATILE_FUNCTION: &str =
    "it calls a function that somebody made, and that may change anything";
const UNTRACED_VIEW: &str =
    "it writes through a view, and the gateway cannot tell into which table";

/// Views of `information_schema`, which a `search_path` can reach. They are in no catalogue here.
#[rustfmt::skip]
const INFORMATION_SCHEMA: &[&str] = &[
    "_pg_foreign_data_wrappers", "_pg_foreign_servers", "_pg_foreign_table_columns",
    "_pg_foreign_tables", "_pg_user_mappings", "administrable_role_authorizations",
    "applicable_roles", "attributes", "character_sets", "check_constraint_routine_usage",
    "check_constraints", "collation_character_set_applicability", "collations",
    "column_column_usage", "column_domain_usage", "column_options", "column_privileges",
    "column_udt_usage", "columns", "constraint_column_usage", "constraint_table_usage",
    "data_type_privileges", "domain_constraints", "domain_udt_usage", "domains", "element_types",
    "enabled_roles", "foreign_data_wrapper_options", "foreign_data_wrappers",
    "foreign_server_options", "foreign_servers", "foreign_table_options", "foreign_tables",
    "information_schema_catalog_name", "key_column_usage", "parameters", "referential_constraints",
    "role_column_grants", "role_routine_grants", "role_table_grants", "role_udt_grants",
    "role_usage_grants", "routine_column_usage", "routine_privileges", "routine_routine_usage",
    "routine_sequence_usage", "routine_table_usage", "routines", "schemata", "sequences",
    "sql_features", "sql_implementation_info", "sql_parts", "sql_sizing", "table_constraints",
    "table_privileges", "tables", "transforms", "triggered_update_columns", "triggers",
    "udt_privileges", "usage_privileges", "user_defined_types", "user_mapping_options",
    "user_mappings", "view_column_usage", "view_routine_usage", "view_table_usage", "views",
];

/// What names are looked up with.
struct Finder<'a> {
    catalog: &'a Catalog,
    path: &'a SearchPath,
    /// The schemas that may be looked through; `None` for any.
    schemas: Option<BTreeSet<Box<str>>>,
    changing: Option<&'a Changes>,
    /// Names that relations of the session's own may have before the text is over.
    own: &'a [Box<str>],
}

impl<'a> Finder<'a> {
    /// The one relation that a name without a schema can mean, if there is just one. A schema that the
    /// user may not use is passed over by the server, so that the first one of two is not certain.
    fn only(&self, name: &str) -> Option<&'a CatalogRelation> {
        let changed = self.changing.is_some_and(|changes| {
            changes.anything || changes.relations.iter().any(|known| **known == *name)
        });
        // The system's catalogue comes first, and all of its names begin so.
        let own = self.path.may_be_temporary(name) || self.own.iter().any(|own| **own == *name);
        if changed || own || name.starts_with("pg_") {
            return None;
        }
        let reachable = |schema: &str| match &self.schemas {
            Some(schemas) => schemas.contains(schema),
            None => true,
        };
        if reachable("information_schema") && INFORMATION_SCHEMA.binary_search(&name).is_ok() {
            return None;
        }
        let mut found = self.catalog.named(name).filter(|relation| {
            !relation.schema.starts_with("pg_temp") && reachable(&relation.schema)
        });
        let only = found.next();
        only.filter(|_| found.next().is_none())
    }
}

/// The name with its schema.
fn qualified(relation: &CatalogRelation) -> Relation {
    Relation {
        schema: Some(relation.schema.clone()),
        name: relation.name.clone(),
    }
}

/// It is incomplete only for the functions that it calls.
pub(super) fn is_about_functions(why: &str) -> bool {
    [UNKNOWN_FUNCTION, VOLATILE_FUNCTION].contains(&why)
}

impl Session {
    /// Finds relations that a command names without a schema, what it writes behind those that it
    /// names, and whether it calls what is not known. `None`: nothing is to be changed.
    pub(super) fn resolved(&self, parts: &Parts<'_>) -> Option<Facts> {
        let facts = parts.facts();
        let incomplete = facts.incomplete.or_else(|| self.functions_doubt(facts));
        let catalog = self.known_catalog();
        let few = facts.reads.len() + facts.writes.len() <= NAMED_MAX;
        let Some(catalog) = catalog.filter(|_| few) else {
            return (incomplete != facts.incomplete).then(|| Facts {
                incomplete,
                ..facts.clone()
            });
        };
        let user = self.server_user();
        // Within one text a name may be found in different ways.
        let several = !parts.analysis.single && changes_finding(parts);
        let finder = Finder {
            catalog,
            path: &self.search_path,
            schemas: match several {
                true => None,
                false => self.search_path.schemas(user),
            },
            changing: self.changes(),
            own: match parts.analysis.single {
                true => &[],
                false => &parts.analysis.finding.temporary,
            },
        };
        let mut own = facts.clone();
        own.incomplete = incomplete;
        qualify(&finder, &mut own, &parts.lineage().common);
        if own.kinds != ["EXPLAIN"] && self.read_only.is_none() && row_calls(catalog, &own) {
            own.incomplete.get_or_insert(VOLATILE_FUNCTION);
        }
        write_behind(catalog, &mut own);
        own.foreign_code |= own.reads.iter().any(|read| {
            let mut found = catalog.resolve(read);
            found.any(|relation| relation.kind == RelationKind::View)
        });
        (own != *facts).then_some(own)
    }

    /// Why a command's calls leave open what it does. What is only explained is not called.
    fn functions_doubt(&self, facts: &Facts) -> Option<&'static str> {
        // Where the session is kept read-only, the server itself keeps functions from writing.
        let kept = self.read_only.is_some();
        if kept || facts.functions.is_empty() || facts.kinds == ["EXPLAIN"] {
            return None;
        }
        match self.any_catalog() {
            Some((catalog, newest)) => {
                // What the open transaction made, nobody else sees yet.
                let changing = self.changes().is_some_and(|changes| changes.anything);
                let fresh = newest && !changing;
                let functions = &mut facts.functions.iter();
                functions.find_map(|function| {
                    let made = |known: &CatalogFunction| *known.schema != *"pg_catalog";
                    let mut known = catalog.functions(sql::function_parts(function).1).iter();
                    if changing && known.any(made) {
                        return Some(VOLATILE_FUNCTION);
                    }
                    function_doubt(catalog, fresh, facts, function)
                })
            }
            None => facts.unknown_calls.then_some(UNKNOWN_FUNCTION),
        }
    }
}

/// A part of the text may change how the names behind it are found.
fn changes_finding(parts: &Parts<'_>) -> bool {
    let analysis = parts.analysis;
    let by_name = !analysis.executes.is_empty() || !analysis.fetches.is_empty();
    !analysis.finding.is_empty()
        || analysis.unseen_settings
        || analysis.cursor_settings
        || by_name
        || runs_unseen(parts.facts())
}

/// Gives names their schemas, where these are certain.
fn qualify(finder: &Finder<'_>, facts: &mut Facts, common: &[Box<str>]) {
    let creates = facts.kinds.iter().any(|kind| kind.starts_with("CREATE"));
    let certain = |relation: &Relation| match relation.schema {
        None if !common.contains(&relation.name) => finder.only(&relation.name).map(qualified),
        _ => None,
    };
    // What is made takes the first schema of the path, whatever else has that name.
    let made: Vec<Box<str>> = match creates {
        true => facts.writes.iter().map(|made| made.name.clone()).collect(),
        false => Vec::new(),
    };
    let find = |relation: &mut Relation| {
        if !made.contains(&relation.name)
            && let Some(found) = certain(relation)
        {
            *relation = found;
        }
    };
    facts.reads.iter_mut().for_each(find);
    facts.writes.iter_mut().for_each(find);
    let columns = facts
        .columns_read
        .iter_mut()
        .chain(&mut facts.columns_written);
    columns
        .filter_map(|column| column.relation.as_mut())
        .for_each(find);
    once(&mut facts.reads);
    once(&mut facts.writes);
}

/// `s.t` and `t` may have become the same.
fn once(relations: &mut Vec<Relation>) {
    let mut seen = BTreeSet::new();
    relations.retain(|relation| seen.insert(relation.clone()));
}

/// Adds the relations whose rows are written under another name: the table behind a view, and the
/// parents of a partition.
fn write_behind(catalog: &Catalog, facts: &mut Facts) {
    let mut index = 0;
    let mut rounds = 0;
    while let Some(written) = facts.writes.get(index).cloned() {
        index += 1;
        for relation in catalog.resolve(&written) {
            rounds += 1;
            if rounds > BEHIND_MAX * NAMED_MAX {
                facts.incomplete.get_or_insert(UNTRACED_VIEW);
                return;
            }
            let behind = match relation.kind {
                RelationKind::View if changes_rows(facts) => match base(relation) {
                    Some(base) => alloc::vec![base],
                    None => {
                        facts.incomplete.get_or_insert(UNTRACED_VIEW);
                        Vec::new()
                    }
                },
                RelationKind::View => Vec::new(),
                _ => catalog.parents(relation).map(qualified).collect(),
            };
            for relation in behind {
                if !facts.writes.contains(&relation) {
                    facts.writes.push(relation);
                }
            }
        }
    }
}

/// Rows change, and not only what is known of the relation.
fn changes_rows(facts: &Facts) -> bool {
    const KINDS: &[&str] = &["INSERT", "UPDATE", "DELETE", "MERGE", "COPY FROM"];
    facts.kinds.iter().any(|kind| KINDS.contains(kind))
}

/// The one relation that a view shows: the server writes to that one, unless a trigger does otherwise.
fn base(view: &CatalogRelation) -> Option<Relation> {
    sql::shown_relation(view.view.as_deref()?)
}

/// Why a call leaves open what the command does. The server keeps a function that is declared immutable
/// or stable from changing anything itself, but not from calling one that does.
fn function_doubt(
    catalog: &Catalog,
    fresh: bool,
    facts: &Facts,
    function: &str,
) -> Option<&'static str> {
    let (schema, name) = sql::function_parts(function);
    let class = sql::class(name);
    // The session's own schema has a number behind its name.
    let own = schema.is_some_and(|schema| schema.starts_with("pg_temp"));
    let meant = |made: &&CatalogFunction| match schema {
        Some(_) if own => made.schema.starts_with("pg_temp"),
        Some(schema) => *made.schema == *schema,
        None => true,
    };
    let mut found = catalog.functions(name).iter().filter(meant).peekable();
    if found.peek().is_none() {
        // `(value).name` is a part of the value then. A call of what is not there fails, unless it was
        // made since.
        let built_in = class.is_some() && schema.is_none_or(|schema| schema == "pg_catalog");
        return (facts.unknown_calls && !fresh && !built_in).then_some(UNKNOWN_FUNCTION);
    }
    found
        .any(|made| may_change(made, class))
        .then_some(VOLATILE_FUNCTION)
}

/// `row.f` is a column of the row, or calls the function `f` on it where there is no such column.
fn row_calls(catalog: &Catalog, facts: &Facts) -> bool {
    let has = |relation: &CatalogRelation, name: &str| {
        relation.columns.iter().any(|column| *column.name == *name)
    };
    facts.columns_read.iter().any(|column| {
        let Some(name) = column.name.as_deref() else {
            return false;
        };
        let class = sql::class(name);
        let made = catalog.functions(name).iter();
        if !made.clone().any(|made| may_change(made, class)) {
            return false;
        }
        let named = match &column.relation {
            Some(relation) => core::slice::from_ref(relation),
            None => &facts.reads,
        };
        let mut relations = named
            .iter()
            .flat_map(|named| catalog.resolve(named))
            .peekable();
        relations.peek().is_none() || !relations.all(|relation| has(relation, name))
    })
}

fn may_change(made: &CatalogFunction, class: Option<Class>) -> bool {
    // Of those that come with the server and its extensions it is known what they do. Superusers alone
    // make functions in their languages.
    let comes_with_server =
        *made.schema == *"pg_catalog" || matches!(made.language, Language::C | Language::Internal);
    made.volatility == Volatility::Volatile && !(comes_with_server && class.is_some())
}
