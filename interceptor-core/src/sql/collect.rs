//! What the walk gathers from a tree: relations, functions, columns and the statements inside.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use pg_query::protobuf::{CmdType, OnConflictAction};

use super::columns::Columns;
use super::fields::{READ_FIELDS, moves, sets_column};
use super::functions;
use super::settings::Finding;
use super::uses::Uses;
use super::walk::{Step, Visitor};
use crate::command::Relation;

/// What an expression or a whole statement refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Last names of the columns referred to, outside the arguments of `count`.
    pub columns: Vec<Box<str>>,
    /// Those of them that stand behind a qualifier, with it. `row.f` may also call the function `f`
    /// on the row.
    pub qualified: Vec<(Box<str>, Box<str>)>,
    /// It is a column as it is, and nothing is computed from it.
    pub plain: bool,
    /// A `*` is in it.
    pub star: bool,
    /// Functions called, schema-qualified where the text is.
    pub functions: Vec<String>,
}

impl References {
    pub(super) fn add(&mut self, column: &str, qualified: Option<(Box<str>, Box<str>)>) {
        push_once(&mut self.columns, column.into());
        if let Some(pair) = qualified {
            push_once(&mut self.qualified, pair);
        }
    }

    fn dedupe(&mut self) {
        dedupe(&mut self.columns);
        dedupe(&mut self.qualified);
        dedupe(&mut self.functions);
    }
}

/// How the schema of a session's own relations is called, and how its names begin.
const OWN_SCHEMA: &str = "pg_temp";

/// Entries of a list that are looked through for each further one.
const SCANNED_MAX: usize = 64;

/// Adds an entry. A list that grew long is not looked through each time: [`dedupe`] comes later.
pub(super) fn push_once<T: PartialEq>(list: &mut Vec<T>, entry: T) {
    if list.len() >= SCANNED_MAX || !list.contains(&entry) {
        list.push(entry);
    }
}

/// Keeps the first of equal entries of a list that [`push_once`] made.
pub(super) fn dedupe<T: Ord + Clone>(list: &mut Vec<T>) {
    if list.len() > SCANNED_MAX {
        let mut seen = BTreeSet::new();
        list.retain(|entry| seen.insert(entry.clone()));
    }
}

/// Gathers while the tree is walked.
#[derive(Default)]
pub(super) struct Collector {
    pub(super) reads: Vec<Relation>,
    pub(super) writes: Vec<Relation>,
    pub(super) references: References,
    /// What the statement writes somewhere is made of these.
    pub(super) moved: References,
    /// What columns are used for beside being shown.
    pub(super) uses: Uses,
    /// Columns that are only counted.
    pub(super) only_counted: References,
    /// Columns that an UPDATE sets.
    pub(super) destinations: Vec<Box<str>>,
    /// Names by which a whole row can be referred to: relations and their aliases.
    pub(super) row_names: Vec<Box<str>>,
    pub(super) qualifiers: Vec<(Box<str>, Box<str>)>,
    pub(super) common: Vec<Box<str>>,
    /// Data-modifying statements found anywhere, as kinds.
    pub(super) kinds: Vec<&'static str>,
    pub(super) unfiltered: bool,
    /// A FOR UPDATE or its like is in it.
    pub(super) locks: bool,
    /// Operators, types or sampling methods are in it that do not come with the server.
    pub(super) foreign_code: bool,
    /// A FROM clause has more in it than plain relations without renamed columns.
    pub(super) derived_from: bool,
    /// Columns read and set.
    pub(super) columns: Columns,
    /// Functions are called that do not come with the server.
    pub(super) unknown_calls: bool,
    copy_reads: bool,
    /// What changes in how names are found.
    pub(super) finding: Finding,
    /// It may change settings that the text does not tell.
    pub(super) unseen_settings: bool,
    schema: Option<Box<str>>,
    name: Box<str>,
    /// The relation at hand is of the session's own.
    temporary: bool,
    alias: Option<Box<str>>,
    /// The calls that are being read.
    functions_open: Vec<Call>,
    /// The parts of the column's name that is being read.
    column: Vec<Box<str>>,
    /// It ends in a `*`.
    column_star: bool,
    /// The relation at hand gives its columns other names.
    renames: bool,
    filters_open: Vec<bool>,
}

/// A call that is being read.
#[derive(Default)]
struct Call {
    /// The parts of its name.
    parts: Vec<Box<str>>,
    /// Its arguments so far.
    arguments: usize,
    /// Its first two arguments, where they are constants.
    constants: [Option<Box<str>>; 2],
    /// The third one is `true`.
    third: bool,
}

impl Collector {
    /// The walk is over: what was found more than once is kept once.
    pub(super) fn dedupe(&mut self) {
        dedupe(&mut self.reads);
        dedupe(&mut self.writes);
        dedupe(&mut self.destinations);
        self.references.dedupe();
        self.moved.dedupe();
    }

    /// `copy_reads`: the statement is a COPY that reads its relation; it writes it otherwise.
    pub(super) fn new(copy_reads: bool) -> Self {
        Self {
            copy_reads,
            ..Self::default()
        }
    }

    fn relation_ends(&mut self, path: &[Step]) {
        let name = core::mem::take(&mut self.name);
        // What is made for the session alone is in its own schema.
        let own = core::mem::take(&mut self.temporary);
        let schema = self
            .schema
            .take()
            .or_else(|| own.then(|| OWN_SCHEMA.into()));
        let relation = Relation { schema, name };
        let in_own = |schema: &str| schema.starts_with(OWN_SCHEMA);
        if relation.schema.as_deref().is_some_and(in_own) {
            self.finding.temporary.push(relation.name.clone());
        }
        let read = path.last().is_some_and(|step| {
            READ_FIELDS.contains(&(step.node, step.field))
                || (self.copy_reads && (step.node, step.field) == ("CopyStmt", "relation"))
        });
        self.columns
            .relation(path, &relation, self.alias.as_deref());
        if core::mem::take(&mut self.renames) {
            self.columns.renamed(Some(&relation));
        }
        self.row_names.push(relation.name.clone());
        self.qualifiers
            .push((relation.name.clone(), relation.name.clone()));
        if let Some(alias) = self.alias.take() {
            self.qualifiers.push((alias, relation.name.clone()));
        }
        let list = if read {
            &mut self.reads
        } else {
            &mut self.writes
        };
        push_once(list, relation);
    }

    fn column_ends(&mut self, path: &[Step]) {
        let mut parts = core::mem::take(&mut self.column);
        self.columns.reference(&parts, self.column_star);
        let Some(column) = parts.pop() else {
            return;
        };
        let qualified = parts.pop().map(|qualifier| (qualifier, column.clone()));
        self.uses.column(path, &column, qualified.clone());
        if self.counted() {
            return self.only_counted.add(&column, qualified);
        }
        if moves(path) {
            self.moved.add(&column, qualified.clone());
        }
        self.references.add(&column, qualified);
    }

    fn function_ends(&mut self, path: &[Step]) {
        if let Some(call) = self.functions_open.pop() {
            if call
                .parts
                .last()
                .is_some_and(|name| **name == *"set_config")
            {
                let [setting, value] = &call.constants;
                let (setting, value) = (setting.as_deref(), value.as_deref());
                self.sets(setting);
                let told = self.finding.set_config(setting, value, Some(call.third));
                self.unseen_settings |= !told;
            }
            let name = function_name(&call.parts);
            self.unknown_calls |= !functions::is_known(&name);
            self.calls(path, name);
        }
    }

    /// A setting changes: which one, if the text says so.
    fn sets(&mut self, setting: Option<&str>) {
        let is = |name: &str| setting.is_none_or(|setting| setting.eq_ignore_ascii_case(name));
        let role = is("role") || is("session_authorization");
        if role {
            self.kind("SET ROLE");
        }
        if !role || setting.is_none() {
            self.kind("SET");
        }
    }

    fn calls(&mut self, path: &[Step], function: String) {
        self.uses.function(path, &function);
        if moves(path) {
            push_once(&mut self.moved.functions, function.clone());
        }
        push_once(&mut self.references.functions, function);
    }

    /// Inside the arguments of `count`, which tells how many there are and not what they are. A
    /// call's name comes before its arguments in the tree, so it is complete by then.
    fn counted(&self) -> bool {
        let counts = |call: &Call| match call.parts.split_last() {
            Some((name, before)) => {
                &**name == "count" && before.last().is_none_or(|schema| &**schema == "pg_catalog")
            }
            None => false,
        };
        self.functions_open.iter().any(counts)
    }

    /// A name for a row of one of the relations, whichever.
    fn any_row(&mut self, name: &str) {
        self.columns.any_row(name);
        self.row_names.push(name.into());
        self.qualifiers.push((name.into(), "".into()));
    }

    /// An alias gives columns other names: of a relation, or of whatever a join joins. What is derived
    /// names its own where it is derived.
    fn renamed(&mut self, before: &[Step]) {
        match before.iter().rev().nth(1).map(|step| step.node) {
            Some("RangeVar") => self.renames = true,
            Some("JoinExpr") => self.columns.renamed(None),
            _ => {}
        }
    }

    /// A constant: an argument of the call at hand, cast or not.
    fn constant(&mut self, before: &[Step], value: &str) {
        if let Some(call) = self.functions_open.last_mut()
            && is_constant_argument(before)
            && let Some(constant) = call.constants.get_mut(call.arguments.wrapping_sub(1))
        {
            *constant = Some(value.into());
        }
    }

    fn kind(&mut self, kind: &'static str) {
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
    }
}

impl Visitor for Collector {
    fn enter(&mut self, path: &[Step], node: &'static str) {
        self.columns.enter(node);
        if let Some(call) = self.functions_open.last_mut()
            && is_argument(path)
        {
            call.arguments += 1;
        }
        match node {
            "RangeVar" => (self.schema, self.alias, self.renames) = (None, None, false),
            "FuncCall" => self.functions_open.push(Call::default()),
            "LockingClause" => self.locks = true,
            "ColumnRef" => {
                self.column.clear();
                self.column_star = false;
            }
            // RETURNING can speak of the rows before and after the change.
            "ReturningClause" => ["old", "new"].into_iter().for_each(|row| self.any_row(row)),
            "AStar" => {
                self.column_star = true;
                self.uses.star(path);
                if !self.counted() {
                    self.references.star = true;
                    self.moved.star |= moves(path);
                }
            }
            "InsertStmt" => self.kind("INSERT"),
            "MergeStmt" => self.kind("MERGE"),
            "UpdateStmt" => {
                self.kind("UPDATE");
                self.filters_open.push(false);
            }
            "DeleteStmt" => {
                self.kind("DELETE");
                self.filters_open.push(false);
            }
            "IntoClause" if path.last().is_some_and(|step| step.node == "SelectStmt") => {
                self.kind("CREATE TABLE AS");
            }
            "RangeSubselect" | "RangeFunction" | "RangeTableFunc" | "JsonTable"
            | "CommonTableExpr" => {
                self.derived_from = true;
            }
            _ => {}
        }
    }

    fn text(&mut self, path: &[Step], value: &str) {
        let Some((last, before)) = path.split_last() else {
            return;
        };
        self.columns.text(path, value, self.copy_reads);
        self.uses.text(path, value);
        match (last.node, last.field) {
            ("RangeVar", "schemaname") if !value.is_empty() => self.schema = Some(value.into()),
            ("RangeVar", "relname") => self.name = value.into(),
            ("RangeVar", "relpersistence") => self.temporary = value == "t",
            ("Alias", "aliasname") => {
                self.row_names.push(value.into());
                match before.last().map(|step| step.node) {
                    Some("RangeVar") => self.alias = Some(value.into()),
                    Some("JoinExpr") => self.any_row(value),
                    _ => {}
                }
            }
            ("Alias", _) => {}
            ("ReturningOption", "value") => self.any_row(value),
            ("ResTarget", "name") if sets_column(before) => self.destinations.push(value.into()),
            ("CommonTableExpr", "ctename") => {
                self.row_names.push(value.into());
                self.common.push(value.into());
            }
            ("String", "sval") => match before.last().map(|step| (step.node, step.field)) {
                Some(("FuncCall", "funcname")) => {
                    if let Some(call) = self.functions_open.last_mut() {
                        call.parts.push(value.into());
                    }
                }
                // `(value).f` is a part of the value, or calls the function `f` on it.
                Some(("AIndirection", "indirection")) => {
                    self.calls(path, function_name(&[value.into()]));
                }
                Some(("AConst", "val")) => self.constant(before, value),
                Some(("AExpr", "name") | ("SortBy", "use_op")) => {
                    self.foreign_code |= !is_built_in_operator(value);
                }
                Some(("SubLink", "oper_name")) => self.foreign_code |= !is_built_in_operator(value),
                Some(("TypeName", "names")) => self.foreign_code |= !is_built_in_type(value),
                Some(("RangeTableSample", "method")) => {
                    self.foreign_code |= !matches!(value, "bernoulli" | "system" | "pg_catalog");
                }
                Some(("ColumnRef", "fields")) => self.column.push(value.into()),
                Some(("Alias", "colnames")) => {
                    self.derived_from = true;
                    self.renamed(before);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn present(&mut self, path: &[Step]) {
        let filter = path.last().is_some_and(|step| {
            step.field == "where_clause" && matches!(step.node, "UpdateStmt" | "DeleteStmt")
        });
        if filter && let Some(open) = self.filters_open.last_mut() {
            *open = true;
        }
    }

    fn flag(&mut self, path: &[Step]) {
        if let Some((last, before)) = path.split_last()
            && (last.node, last.field) == ("Boolean", "boolval")
            && is_constant_argument(before)
            && let Some(call) = self.functions_open.last_mut()
        {
            call.third |= call.arguments == 3;
        }
        if path
            .last()
            .is_some_and(|step| (step.node, step.field) == ("JoinExpr", "is_natural"))
        {
            self.columns.natural_join();
            self.uses.natural_join();
        }
    }

    fn number(&mut self, path: &[Step], value: i32) {
        let field = path.last().map(|step| (step.node, step.field));
        if field == Some(("MergeWhenClause", "command_type")) {
            const KINDS: [(CmdType, &str); 3] = [
                (CmdType::CmdUpdate, "UPDATE"),
                (CmdType::CmdInsert, "INSERT"),
                (CmdType::CmdDelete, "DELETE"),
            ];
            let kind = KINDS.iter().find(|(command, _)| *command as i32 == value);
            if let Some((_, kind)) = kind {
                self.kind(kind);
            }
        }
        let updates = value == OnConflictAction::OnconflictUpdate as i32;
        if field == Some(("OnConflictClause", "action")) && updates {
            self.kind("UPDATE");
        }
        self.columns.number(path, value);
        self.uses.number(path);
    }

    fn leave(&mut self, path: &[Step], node: &'static str) {
        match node {
            "RangeVar" => self.relation_ends(path),
            "FuncCall" => self.function_ends(path),
            "ColumnRef" => self.column_ends(path),
            "UpdateStmt" | "DeleteStmt" => {
                self.unfiltered |= !self.filters_open.pop().unwrap_or(true);
            }
            _ => {}
        }
        self.columns.leave(node, self.copy_reads);
    }
}

/// The path to a constant's value is that of an argument, cast or not.
fn is_constant_argument(before: &[Step]) -> bool {
    let outside = before.split_last().map_or(before, |(_, outside)| outside);
    let uncast = outside.iter().rposition(|step| step.node != "TypeCast");
    let argument = uncast.and_then(|last| outside.get(..=last));
    argument.is_some_and(is_argument)
}

fn is_argument(path: &[Step]) -> bool {
    path.last()
        .is_some_and(|step| (step.node, step.field) == ("FuncCall", "args"))
}

/// Operators of the server, and what the grammar puts in their place. An operator in another schema has
/// that name among its parts.
fn is_built_in_operator(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "pg_catalog",
        "BETWEEN",
        "NOT BETWEEN",
        "BETWEEN SYMMETRIC",
        "NOT BETWEEN SYMMETRIC",
    ];
    const SIGNS: &[&str] = &[
        "=", "<>", "!=", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "^", "|/", "||/", "@",
        "!!", "&", "|", "#", "~", "<<", ">>", "||", "~*", "!~", "!~*", "~~", "!~~", "~~*", "!~~*",
        "^@", "->", "->>", "#>", "#>>", "@>", "<@", "?", "?|", "?&", "#-", "@?", "@@", "@@@", "&&",
        "&<", "&>", "-|-", "<->", "<<=", ">>=", "~=", "##", "<^", ">^", "<<|", "|>>", "&<|", "|&>",
        "?#", "?-", "?-|", "?||", "@-@", "~<~", "~<=~", "~>=~", "~>~", "*=", "*<>", "*<", "*>",
        "*<=", "*>=", "|",
    ];
    SIGNS.contains(&name) || WORDS.contains(&name)
}

/// Types of the server by their names in a statement. Enumerations and domains are somebody's.
fn is_built_in_type(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "pg_catalog",
        "bool",
        "boolean",
        "bit",
        "bpchar",
        "box",
        "bytea",
        "char",
        "cid",
        "cidr",
        "circle",
        "citext",
        "date",
        "daterange",
        "decimal",
        "float4",
        "float8",
        "hstore",
        "inet",
        "int2",
        "int4",
        "int8",
        "int4range",
        "int8range",
        "interval",
        "json",
        "jsonb",
        "jsonpath",
        "line",
        "lseg",
        "macaddr",
        "macaddr8",
        "money",
        "name",
        "numeric",
        "numrange",
        "oid",
        "path",
        "pg_lsn",
        "point",
        "polygon",
        "record",
        "refcursor",
        "regclass",
        "regcollation",
        "regconfig",
        "regnamespace",
        "regoper",
        "regoperator",
        "regproc",
        "regprocedure",
        "regrole",
        "regtype",
        "text",
        "tid",
        "time",
        "timestamp",
        "timestamptz",
        "timetz",
        "tsquery",
        "tsrange",
        "tstzrange",
        "tsvector",
        "unknown",
        "uuid",
        "varbit",
        "varchar",
        "void",
        "xid",
        "xid8",
        "xml",
        "int4multirange",
        "int8multirange",
        "nummultirange",
        "datemultirange",
        "tsmultirange",
        "tstzmultirange",
    ];
    NAMES.contains(&name)
}

/// `schema.name` or `name`, from `[database.][schema.]name`: the server takes no database but its own. A
/// part with a dot in it stays in quotes, so that it is not taken for two.
fn function_name(parts: &[Box<str>]) -> String {
    let last_two = parts.get(parts.len().saturating_sub(2)..).unwrap_or(parts);
    let mut name = String::new();
    for part in last_two {
        if !name.is_empty() {
            name.push('.');
        }
        match part.contains('.') {
            true => name.extend(["\"", part, "\""]),
            false => name.push_str(part),
        }
    }
    name
}

/// A relation from the parts of a name, as DROP lists them: `[catalog,] [schema,] name`.
pub(super) fn relation(parts: &[String]) -> Option<Relation> {
    let (name, before) = parts.split_last()?;
    Some(Relation {
        schema: before.last().map(|part| part.as_str().into()),
        name: name.to_owned().into_boxed_str(),
    })
}
