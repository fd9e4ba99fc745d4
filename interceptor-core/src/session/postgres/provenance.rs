//! What the masks say of a target's relations.
//!
//! It owns provenance: from a result column's (table OID, attribute number), or from what an
//! expression refers to, to "may be seen" or "masked".

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use super::catalog::{Catalog, CatalogColumn, CatalogRelation};
use crate::command::{Facts, Relation};
use crate::mask::{Masks, Method};
use crate::sql::{self, Lineage, References};

/// Object ids below this belong to the system catalogues (`FirstNormalObjectId`).
const FIRST_NORMAL_OID: u32 = 16_384;

/// Statistics hold values of every column, masked ones too.
const STATISTICS: &[&str] = &[
    "pg_statistic",
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
    "pg_statistic_ext_data",
];

/// Columns of [`STATISTICS`] that hold values, whatever their type: how their names start.
const STATISTICS_VALUES: &[&str] = &[
    "stavalues",
    "most_common_val",
    "most_common_elems",
    "histogram_bounds",
    "range_bounds_histogram",
    "stxdmcv",
    "stxdexpr",
];

/// What other sessions run, with the values that stand in it: relation and column.
const TEXTS_OF_OTHERS: &[(&str, &str)] = &[
    ("pg_stat_activity", "query"),
    ("pg_stat_statements", "query"),
];

/// Functions of the server that show what is in [`STATISTICS`] or [`TEXTS_OF_OTHERS`].
const TELLING: &[&str] = &[
    "pg_mcv_list_items",
    "pg_stat_get_activity",
    "pg_stat_get_backend_activity",
];

/// Columns of every table that its catalogue entry does not list.
const SYSTEM_COLUMNS: &[&str] = &["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// How often masks are carried from relations to those that show them before the rest is masked
/// whole. Relations come in the order in which they were made, which mostly is the order in which
/// they depend on each other: one round does for most.
const ROUNDS_MAX: usize = 16;

/// Whether a column may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It may.
    Clear,
    /// It may not.
    Masked(Method),
    /// The catalogue at hand does not know its relation: read it anew.
    Unknown,
}

/// What a COPY's column is: its type if known, and its mask.
pub(super) struct CopyColumn {
    /// Type, 0 if unknown.
    pub(super) type_oid: u32,
    /// Mask.
    pub(super) mask: Option<Method>,
}

/// Why the columns of a COPY cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyDoubt {
    /// The relation is not in the catalogue at hand: read it anew.
    UnknownRelation,
    /// The query's columns cannot be told apart, and something masked is in it.
    Unclear,
}

/// The masks of one target applied to one catalogue.
pub(super) struct Provenance {
    catalog: Arc<Catalog>,
    masked: HashMap<u32, HashMap<i16, Method>>,
}

impl Provenance {
    /// Compiles; views are resolved through their definitions.
    pub(super) fn new(catalog: Arc<Catalog>, masks: &Masks) -> Self {
        let mut provenance = Self {
            catalog: catalog.clone(),
            masked: HashMap::new(),
        };
        for relation in catalog.relations.values() {
            for column in &relation.columns {
                let method = if is_statistics(relation) {
                    let holds = column.type_oid == ANYARRAY
                        || STATISTICS_VALUES
                            .iter()
                            .any(|start| column.name.starts_with(start));
                    holds.then_some(Method::Null)
                } else if TEXTS_OF_OTHERS.contains(&(&*relation.name, &*column.name)) {
                    Some(Method::Full)
                } else {
                    masks.column(&relation.schema, &relation.name, &column.name)
                };
                if let Some(method) = method {
                    provenance
                        .masked
                        .entry(relation.oid)
                        .or_default()
                        .insert(column.attribute, method);
                }
            }
        }
        provenance.inherit();
        provenance.resolve_views();
        provenance
    }

    /// A child or partition holds rows that its parent shows: a column of either is masked if the
    /// other's of that name is.
    fn inherit(&mut self) {
        let catalog = self.catalog.clone();
        let pairs: Vec<_> = in_order(&catalog)
            .into_iter()
            .flat_map(|child| {
                let parents = child
                    .parents
                    .iter()
                    .filter_map(|oid| catalog.relations.get(oid));
                parents.map(move |parent| (child, parent))
            })
            .collect();
        for _ in 0..ROUNDS_MAX {
            let mut changed = false;
            for (child, parent) in &pairs {
                changed |= self.share(parent, child) | self.share(child, parent);
            }
            if !changed {
                return;
            }
        }
        for (child, parent) in pairs {
            self.mask_whole(child);
            self.mask_whole(parent);
        }
    }

    /// Masks the columns of `to` as those of the same name are in `from`. True if that is new.
    fn share(&mut self, from: &CatalogRelation, to: &CatalogRelation) -> bool {
        let Some(masked) = self.masked.get(&from.oid).cloned() else {
            return false;
        };
        let mut changed = false;
        for column in &from.columns {
            let Some(method) = masked.get(&column.attribute) else {
                continue;
            };
            if let Some(own) = to.columns.iter().find(|own| own.name == column.name) {
                changed |= self.mask(to.oid, own.attribute, *method);
            }
        }
        changed
    }

    /// Masks a column at least so. True if it was laxer.
    fn mask(&mut self, oid: u32, attribute: i16, method: Method) -> bool {
        let columns = self.masked.entry(oid).or_default();
        let stricter = columns.get(&attribute).is_none_or(|known| *known < method);
        if stricter {
            columns.insert(attribute, method);
        }
        stricter
    }

    fn mask_whole(&mut self, relation: &CatalogRelation) {
        for column in &relation.columns {
            self.mask(relation.oid, column.attribute, Method::Full);
        }
    }

    /// Views show what they select from: a view's column is masked if its expression is tainted.
    /// Repeated until nothing changes, as views stand on views.
    fn resolve_views(&mut self) {
        let catalog = self.catalog.clone();
        let views: Vec<_> = in_order(&catalog)
            .into_iter()
            .filter(|relation| relation.oid >= FIRST_NORMAL_OID)
            .filter_map(|relation| Some((relation, sql::analyze(relation.view.as_deref()?).ok())))
            .collect();
        for _ in 0..ROUNDS_MAX {
            let mut changed = false;
            for (view, analysis) in &views {
                for (index, column) in view.columns.iter().enumerate() {
                    let method = match analysis {
                        Some(analysis) => {
                            self.expression(index, &analysis.lineage, &analysis.facts)
                        }
                        None => Some(Method::Full),
                    };
                    if let Some(method) = method {
                        changed |= self.mask(view.oid, column.attribute, method);
                    }
                }
            }
            if !changed {
                return;
            }
        }
        for (view, _) in views {
            self.mask_whole(view);
        }
    }

    /// A result column that comes from (table OID, attribute number).
    pub(super) fn column(&self, table_oid: u32, attribute: i16) -> Origin {
        let masked = self.masked.get(&table_oid);
        match attribute {
            // A whole row.
            0 if masked.is_some() => Origin::Masked(Method::Full),
            _ if table_oid < FIRST_NORMAL_OID
                || self.catalog.relations.contains_key(&table_oid) =>
            {
                match masked.and_then(|columns| columns.get(&attribute)) {
                    Some(method) => Origin::Masked(*method),
                    None if attribute > 0 && !self.knows(table_oid, attribute) => Origin::Unknown,
                    None => Origin::Clear,
                }
            }
            _ => Origin::Unknown,
        }
    }

    /// The relation is a view, whose definition may have changed without its object id.
    pub(super) fn is_view(&self, table_oid: u32) -> bool {
        self.catalog
            .relations
            .get(&table_oid)
            .is_some_and(|relation| relation.view.is_some())
    }

    fn knows(&self, table_oid: u32, attribute: i16) -> bool {
        table_oid < FIRST_NORMAL_OID
            || self
                .catalog
                .relations
                .get(&table_oid)
                .is_some_and(|relation| {
                    relation
                        .columns
                        .iter()
                        .any(|column| column.attribute == attribute)
                })
    }

    /// The mask on output column `index` of a statement, if it is an expression that may carry
    /// something masked. What it is made of decides; where that cannot be told, the whole
    /// statement does.
    pub(super) fn expression(
        &self,
        index: usize,
        lineage: &Lineage,
        facts: &Facts,
    ) -> Option<Method> {
        if lineage.opaque {
            return Some(Method::Full);
        }
        if lineage.no_rows {
            // A plan shows what immutable functions came to.
            return self.calls_unknown(&lineage.whole).then_some(Method::Full);
        }
        let own = lineage
            .columns
            .as_ref()
            .and_then(|columns| columns.get(index));
        let references = match own {
            Some(own) if own.columns.is_empty() && !own.star && own.functions.is_empty() => {
                return None;
            }
            Some(own) if !lineage.derived => own,
            Some(own) if own.columns.is_empty() && !own.star => own,
            _ => &lineage.whole,
        };
        let calls_on_row = |(row, name): &(Box<str>, Box<str>)| {
            !self.is_trusted(name) && self.may_call(row, name, lineage, facts)
        };
        if self.calls_unknown(references) || references.qualified.iter().any(calls_on_row) {
            return Some(Method::Full);
        }
        let method = self.carried(references, lineage, facts)?;
        // A part of a value, masked in part, shows the value part by part.
        let plain = references.plain && !lineage.derived;
        Some(if plain {
            method
        } else {
            method.max(Method::Full)
        })
    }

    fn calls_unknown(&self, references: &References) -> bool {
        references
            .functions
            .iter()
            .any(|function| !self.is_trusted(function))
    }

    /// What is made of `references` may hold something masked: by its columns, or by a function that
    /// could have read it.
    pub(super) fn may_carry(
        &self,
        references: &References,
        lineage: &Lineage,
        facts: &Facts,
    ) -> bool {
        let mut functions = references.functions.iter();
        functions.any(|function| self.catalog.may_read_tables(function))
            || self.carried(references, lineage, facts).is_some()
    }

    /// What the statement uses masked columns for, beside showing them. Where names are another's, as
    /// of what a FROM clause derives, whatever the statement refers to counts.
    pub(super) fn masked_uses(&self, lineage: &Lineage, facts: &Facts) -> Vec<&'static str> {
        let is_column = |name: &str| {
            let named = facts.reads.iter().chain(&facts.writes);
            let mut relations = named.flat_map(|named| self.catalog.resolve(named));
            relations.any(|relation| relation.columns.iter().any(|column| *column.name == *name))
        };
        let is_masked = |references: &References| {
            self.may_carry(references, lineage, facts)
                || ((lineage.derived || !references.columns.iter().all(|name| is_column(name)))
                    && self.may_carry(&lineage.whole, lineage, facts))
        };
        let uses = lineage.uses.all();
        uses.filter(|(_, references)| is_masked(references))
            .map(|(used, _)| used.name())
            .collect()
    }

    /// The strictest mask among the columns that `references` may mean.
    pub(super) fn carried(
        &self,
        references: &References,
        lineage: &Lineage,
        facts: &Facts,
    ) -> Option<Method> {
        let whole_row = references.star
            || references
                .columns
                .iter()
                .any(|column| lineage.row_names.contains(column))
            || references
                .qualified
                .iter()
                .any(|(row, name)| self.may_call(row, name, lineage, facts));
        let mut strictest = None;
        for named in facts.reads.iter().chain(&facts.writes) {
            for relation in self.catalog.resolve(named) {
                let Some(masked) = self.masked.get(&relation.oid) else {
                    continue;
                };
                for column in &relation.columns {
                    if let Some(method) = masked.get(&column.attribute)
                        && (whole_row || references.columns.contains(&column.name))
                    {
                        strictest = strictest.max(Some(*method));
                    }
                }
            }
        }
        strictest
    }

    /// `row.name` is no column of the relation that `row` stands for: then it calls the function
    /// `name` on the whole row.
    fn may_call(&self, row: &str, name: &str, lineage: &Lineage, facts: &Facts) -> bool {
        if SYSTEM_COLUMNS.contains(&name) {
            return false;
        }
        lineage
            .qualifiers
            .iter()
            .filter(|(qualifier, relation)| {
                **qualifier == *row && !lineage.common.contains(relation)
            })
            .any(|(_, relation)| {
                let mut named = facts
                    .reads
                    .iter()
                    .chain(&facts.writes)
                    .filter(|named| relation.is_empty() || named.name == *relation)
                    .flat_map(|named| self.catalog.resolve(named));
                let known = |found: &CatalogRelation| {
                    found.columns.iter().any(|column| *column.name == *name)
                };
                if relation.is_empty() {
                    !named.any(known)
                } else {
                    !named.all(known)
                }
            })
    }

    /// The statement may speak of relations that are not what the catalogue says: those that the
    /// open transaction made or changed, which nobody else sees yet.
    pub(super) fn is_outdated(&self, changed: &[Box<str>], facts: &Facts) -> bool {
        const SYSTEM: &[&str] = &["pg_catalog", "information_schema"];
        facts
            .reads
            .iter()
            .chain(&facts.writes)
            .filter(|named| {
                !named
                    .schema
                    .as_deref()
                    .is_some_and(|schema| SYSTEM.contains(&schema))
            })
            .any(|named| {
                let mut found = self.catalog.resolve(named).peekable();
                changed.contains(&named.name)
                    || found.peek().is_none()
                    || found.any(|relation| relation.view.is_some())
            })
    }

    fn is_trusted(&self, function: &str) -> bool {
        let name = match function.rsplit_once('.') {
            Some(("pg_catalog", name)) => name,
            Some(_) => return false,
            None => function,
        };
        self.catalog.is_built_in(name) && !sql::is_opaque(name) && !TELLING.contains(&name)
    }

    /// The columns of COPY relation TO.
    pub(super) fn copy_relation(
        &self,
        named: &Relation,
        columns: &[Box<str>],
    ) -> Result<Vec<CopyColumn>, CopyDoubt> {
        let mut candidates = self.catalog.resolve(named).peekable();
        if candidates.peek().is_none() {
            return Err(CopyDoubt::UnknownRelation);
        }
        let mut result: Option<Vec<CopyColumn>> = None;
        for relation in candidates {
            let these = self.copied(relation, columns);
            result = Some(match result.take() {
                None => these,
                // The name means several relations, and which one the search path picks is not
                // known: the strictest of each position holds.
                Some(known) if known.len() == these.len() => known
                    .into_iter()
                    .zip(these)
                    .map(|(a, b)| CopyColumn {
                        type_oid: a.type_oid,
                        mask: a.mask.max(b.mask),
                    })
                    .collect(),
                Some(_) => return Err(CopyDoubt::Unclear),
            });
        }
        result.ok_or(CopyDoubt::UnknownRelation)
    }

    fn copied(&self, relation: &CatalogRelation, columns: &[Box<str>]) -> Vec<CopyColumn> {
        let masked = self.masked.get(&relation.oid);
        let column = |column: &CatalogColumn| CopyColumn {
            type_oid: column.type_oid,
            mask: masked
                .and_then(|masked| masked.get(&column.attribute))
                .copied(),
        };
        if columns.is_empty() {
            return relation
                .columns
                .iter()
                .filter(|column| !column.generated)
                .map(column)
                .collect();
        }
        columns
            .iter()
            .map(|name| {
                let found = relation.columns.iter().find(|column| column.name == *name);
                found.map_or(
                    CopyColumn {
                        type_oid: 0,
                        mask: masked.map(|_| Method::Full),
                    },
                    column,
                )
            })
            .collect()
    }

    /// The columns of COPY (query) TO; `count` as the server announced them.
    pub(super) fn copy_query(
        &self,
        count: usize,
        lineage: &Lineage,
        facts: &Facts,
    ) -> Result<Vec<CopyColumn>, CopyDoubt> {
        let known = lineage
            .columns
            .as_ref()
            .is_some_and(|columns| columns.len() == count);
        (0..count)
            .map(|index| match self.expression(index, lineage, facts) {
                Some(_) if !known => Err(CopyDoubt::Unclear),
                mask => Ok(CopyColumn { type_oid: 0, mask }),
            })
            .collect()
    }
}

const ANYARRAY: u32 = 2277;

fn in_order(catalog: &Catalog) -> Vec<&CatalogRelation> {
    let mut relations: Vec<_> = catalog.relations.values().collect();
    relations.sort_by_key(|relation| relation.oid);
    relations
}

fn is_statistics(relation: &CatalogRelation) -> bool {
    &*relation.schema == "pg_catalog" && STATISTICS.contains(&&*relation.name)
}
