//! A target database's relations, and what the masks say of them.
//!
//! It owns provenance: from a result column's (table OID, attribute number), or from what an
//! expression refers to, to "may be seen" or "masked". The rows come from a side connection; who
//! reads them is not known here.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::{HashMap, HashSet};

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

/// How often views are resolved through other views before the rest is masked whole.
const VIEW_DEPTH_MAX: usize = 16;

/// One relation of the catalogue.
#[derive(Debug, Clone)]
pub struct CatalogRelation {
    /// Its object id.
    pub oid: u32,
    /// Its schema.
    pub schema: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its live columns in order: attribute number, name, type.
    pub columns: Vec<CatalogColumn>,
    /// The query behind it, for a view.
    pub view: Option<String>,
    /// The tables it inherits from or is a partition of.
    pub parents: Vec<u32>,
}

/// One column of a relation.
#[derive(Debug, Clone)]
pub struct CatalogColumn {
    /// Attribute number, from 1.
    pub attribute: i16,
    /// Name.
    pub name: Box<str>,
    /// Type.
    pub type_oid: u32,
    /// COPY of the whole relation leaves it out.
    pub generated: bool,
}

/// A target database's relations and trusted functions, at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    relations: HashMap<u32, CatalogRelation>,
    by_name: HashMap<Box<str>, Vec<u32>>,
    functions: HashSet<Box<str>>,
}

impl Catalog {
    /// From the relations, and the names of the functions that are built in and nothing else.
    pub fn new(relations: Vec<CatalogRelation>, functions: Vec<Box<str>>) -> Self {
        let mut catalog = Self {
            functions: functions
                .into_iter()
                .filter(|name| !sql::is_opaque(name))
                .collect(),
            ..Self::default()
        };
        for relation in relations {
            catalog
                .by_name
                .entry(relation.name.clone())
                .or_default()
                .push(relation.oid);
            catalog.relations.insert(relation.oid, relation);
        }
        catalog
    }

    /// Every relation that `named` can mean: without a schema, those of that name in any.
    fn resolve<'a>(&'a self, named: &'a Relation) -> impl Iterator<Item = &'a CatalogRelation> {
        let oids = self.by_name.get(&named.name).map_or(&[][..], Vec::as_slice);
        oids.iter()
            .filter_map(|oid| self.relations.get(oid))
            .filter(move |relation| {
                named
                    .schema
                    .as_ref()
                    .is_none_or(|schema| *schema == relation.schema)
            })
    }
}

/// Whether a column may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It may.
    Clear,
    /// It may not.
    Masked(Method),
    /// The catalogue at hand does not know its relation: read it anew.
    Unknown,
}

/// What a COPY's column is: its type if known, and its mask.
pub struct CopyColumn {
    /// Type, 0 if unknown.
    pub type_oid: u32,
    /// Mask.
    pub mask: Option<Method>,
}

/// Why the columns of a COPY cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDoubt {
    /// The relation is not in the catalogue at hand: read it anew.
    UnknownRelation,
    /// The query's columns cannot be told apart, and something masked is in it.
    Unclear,
}

/// The masks of one target applied to one catalogue.
pub struct Provenance {
    catalog: Arc<Catalog>,
    masked: HashMap<u32, HashMap<i16, Method>>,
}

impl Provenance {
    /// Compiles; views are resolved through their definitions.
    pub fn new(catalog: Arc<Catalog>, masks: &Masks) -> Self {
        let mut provenance = Self {
            catalog: catalog.clone(),
            masked: HashMap::new(),
        };
        for relation in catalog.relations.values() {
            for column in &relation.columns {
                let method = if is_statistics(relation) {
                    (column.type_oid == ANYARRAY || column.name.starts_with("stavalues"))
                        .then_some(Method::Null)
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

    /// A partition's or child's column holds its parent's values.
    fn inherit(&mut self) {
        let catalog = self.catalog.clone();
        for _ in 0..VIEW_DEPTH_MAX {
            let mut changed = false;
            for child in catalog.relations.values() {
                for parent in child
                    .parents
                    .iter()
                    .filter_map(|oid| catalog.relations.get(oid))
                {
                    let Some(masked) = self.masked.get(&parent.oid).cloned() else {
                        continue;
                    };
                    let named = |attribute: i16| {
                        parent
                            .columns
                            .iter()
                            .find(|column| column.attribute == attribute)
                    };
                    for (attribute, method) in masked {
                        let same = named(attribute).and_then(|column| {
                            child.columns.iter().find(|own| own.name == column.name)
                        });
                        if let Some(own) = same {
                            let columns = self.masked.entry(child.oid).or_default();
                            changed |= columns.insert(own.attribute, method).is_none();
                        }
                    }
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Views show what they select from: a view's column is masked if its expression is tainted.
    /// Repeated until nothing changes, as views stand on views.
    fn resolve_views(&mut self) {
        let catalog = self.catalog.clone();
        let views: Vec<_> = catalog
            .relations
            .values()
            .filter(|relation| relation.oid >= FIRST_NORMAL_OID)
            .filter_map(|relation| Some((relation, sql::analyze(relation.view.as_deref()?).ok())))
            .collect();
        for _ in 0..VIEW_DEPTH_MAX {
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
                        let columns = self.masked.entry(view.oid).or_default();
                        changed |= columns.insert(column.attribute, method).is_none();
                    }
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// A result column that comes from (table OID, attribute number).
    pub fn column(&self, table_oid: u32, attribute: i16) -> Origin {
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
    pub fn is_view(&self, table_oid: u32) -> bool {
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
    pub fn expression(&self, index: usize, lineage: &Lineage, facts: &Facts) -> Option<Method> {
        if lineage.opaque {
            return Some(Method::Full);
        }
        if lineage.no_rows {
            return None;
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
        if references
            .functions
            .iter()
            .any(|function| !self.is_trusted(function))
        {
            return Some(Method::Full);
        }
        self.carried(references, lineage, facts)
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
                .any(|column| lineage.row_names.contains(column));
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

    fn is_trusted(&self, function: &str) -> bool {
        let name = match function.rsplit_once('.') {
            Some(("pg_catalog", name)) => name,
            Some(_) => return false,
            None => function,
        };
        self.catalog.functions.contains(name)
    }

    /// The columns of COPY relation TO.
    pub fn copy_relation(
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
    pub fn copy_query(
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

fn is_statistics(relation: &CatalogRelation) -> bool {
    &*relation.schema == "pg_catalog" && STATISTICS.contains(&&*relation.name)
}
