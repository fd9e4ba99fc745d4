//! A target database's relations and functions.
//!
//! It owns what is known of them and how they are found by name. The rows come from a side
//! connection; who reads them is not known here, nor what masks say of them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::command::Relation;

/// One relation of the catalogue.
#[derive(Debug, Clone)]
pub struct CatalogRelation {
    /// Its object id.
    pub oid: u32,
    /// Its schema.
    pub schema: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// What it is.
    pub kind: RelationKind,
    /// Its live columns in order: attribute number, name, type.
    pub columns: Vec<CatalogColumn>,
    /// The query behind it, for a view.
    pub view: Option<String>,
    /// The tables it inherits from or is a partition of.
    pub parents: Vec<u32>,
    /// Its own rows by the server's statistics, without those of its children; `None` if they are not
    /// known.
    pub rows: Option<u64>,
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

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// Rows of its own.
    Table,
    /// A table whose rows are in its partitions.
    Partitioned,
    /// A query.
    View,
    /// The rows that a query gave when it was last refreshed.
    MaterializedView,
    /// Rows of another server or a file.
    Foreign,
}

/// Functions of one name and schema that are alike in all that is told of them here. Overloads may
/// differ, so that a name can have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogFunction {
    /// Schema.
    pub schema: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// What they are.
    pub kind: FunctionKind,
    /// What the server was told of their effects; it does not check it.
    pub volatility: Volatility,
    /// What they are written in.
    pub language: Language,
    /// They run with their owner's rights.
    pub definer: bool,
}

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    /// A function.
    Function,
    /// An aggregate.
    Aggregate,
    /// A window function.
    Window,
    /// A procedure.
    Procedure,
}

/// A function's declared volatility, the most harmless first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// Of its arguments alone.
    Immutable,
    /// The same within a statement.
    Stable,
    /// Anything, effects too.
    Volatile,
}

/// What a function is written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Language {
    /// Part of the server.
    Internal,
    /// A library that the server loads.
    C,
    /// SQL.
    Sql,
    /// Another, by name.
    Other(Box<str>),
}

/// A setting of `search_path` that a new session begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPath {
    /// Whose; `None` for whoever has no other.
    pub role: Option<Box<str>>,
    /// The setting, as the server shows it.
    pub path: Box<str>,
}

/// All that is read of a database's catalogue.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// User relations, and the system's that hold values of user columns.
    pub relations: Vec<CatalogRelation>,
    /// Every function, the system's too.
    pub functions: Vec<CatalogFunction>,
    /// What `search_path` sessions begin with, roles' own before what holds for the others.
    pub search_paths: Vec<SearchPath>,
}

/// A target database's relations and functions, at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    pub(super) relations: HashMap<u32, CatalogRelation>,
    by_name: HashMap<Box<str>, Vec<u32>>,
    children: HashMap<u32, Vec<u32>>,
    functions: Vec<CatalogFunction>,
    search_paths: Vec<SearchPath>,
}

impl Catalog {
    /// From what was read.
    pub fn new(contents: Contents) -> Self {
        let mut catalog = Self {
            functions: contents.functions,
            search_paths: contents.search_paths,
            ..Self::default()
        };
        let by_name = |a: &CatalogFunction, b: &CatalogFunction| a.name.cmp(&b.name);
        catalog.functions.sort_unstable_by(by_name);
        for relation in contents.relations {
            catalog
                .by_name
                .entry(relation.name.clone())
                .or_default()
                .push(relation.oid);
            for parent in &relation.parents {
                let children = catalog.children.entry(*parent).or_default();
                children.push(relation.oid);
            }
            catalog.relations.insert(relation.oid, relation);
        }
        catalog
    }

    /// Every function of this name, in all schemas.
    pub fn functions(&self, name: &str) -> &[CatalogFunction] {
        let start = self
            .functions
            .partition_point(|function| *function.name < *name);
        let rest = self.functions.get(start..).unwrap_or_default();
        let count = rest.partition_point(|function| *function.name == *name);
        rest.get(..count).unwrap_or_default()
    }

    /// The name means functions that come with the server, and nothing else.
    pub fn is_built_in(&self, name: &str) -> bool {
        let functions = self.functions(name);
        !functions.is_empty()
            && functions
                .iter()
                .all(|function| *function.schema == *"pg_catalog")
    }

    /// A function that this may mean was written by somebody in a language in which it can read
    /// tables, whatever it says of itself.
    pub(super) fn may_read_tables(&self, function: &str) -> bool {
        let (schema, name) = match function.rsplit_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, function),
        };
        self.functions(name).iter().any(|found| {
            *found.schema != *"pg_catalog"
                && schema.is_none_or(|schema| *found.schema == *schema)
                && !matches!(found.language, Language::Internal | Language::C)
        })
    }

    /// The `search_path` that a new session of this role begins with, as the server shows it, if its
    /// startup packet sets none. `None` if that is not known.
    pub fn search_path(&self, role: &str) -> Option<&str> {
        let of = |wanted: Option<&str>| {
            let mut paths = self.search_paths.iter();
            paths
                .find(|path| path.role.as_deref() == wanted)
                .map(|path| &*path.path)
        };
        of(Some(role)).or_else(|| of(None))
    }

    /// Every relation of this name, in all schemas.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &CatalogRelation> {
        let oids = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        oids.iter().filter_map(|oid| self.relations.get(oid))
    }

    /// The tables that one inherits from, or is a partition of.
    pub(super) fn parents<'a>(
        &'a self,
        relation: &'a CatalogRelation,
    ) -> impl Iterator<Item = &'a CatalogRelation> {
        let parents = relation.parents.iter();
        parents.filter_map(|oid| self.relations.get(oid))
    }

    /// Every relation that `named` can mean: without a schema, those of that name in any.
    pub(super) fn resolve<'a>(
        &'a self,
        named: &'a Relation,
    ) -> impl Iterator<Item = &'a CatalogRelation> {
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

    /// The tables that inherit from one, or are its partitions.
    pub(super) fn children(&self, oid: u32) -> impl Iterator<Item = &CatalogRelation> {
        let oids = self.children.get(&oid).map_or(&[][..], Vec::as_slice);
        oids.iter().filter_map(|oid| self.relations.get(oid))
    }
}
