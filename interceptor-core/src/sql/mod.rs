//! What a PostgreSQL statement does, found by the server's own grammar (libpg_query).
//!
//! It owns the way from text to [`Facts`] and to what masking needs to know. It must not know
//! policy, sessions or bytes on the wire. Whatever it cannot determine it says is incomplete.

mod collect;
mod columns;
mod copy;
mod fields;
mod functions;
mod kinds;
mod position;
mod read_only;
mod settings;
mod uses;
mod walk;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pg_query::NodeEnum;
use pg_query::protobuf::{DiscardMode, Node, ObjectType, SelectStmt, SetOperation};

use collect::Collector;
pub use collect::References;
pub use columns::absorb_columns;
pub use copy::{CopyFormat, CopyOut, CopySource};
pub use functions::{Class, class, function_parts, is_harmless, is_opaque};
pub use read_only::lifts_read_only;
pub use settings::{Finding, PathChange, schemas};
pub use uses::{Use, Uses};

use crate::command::Facts;

/// Bytes of text that are analysed; a longer one is refused.
pub const TEXT_BYTES_MAX: usize = 16 << 20;
/// Tokens that are analysed, by an estimate from above. The tree takes some 700 bytes and half a
/// microsecond for each (`cargo run --release -p interceptor-core --example analysis_cost`), so
/// that a client could fill the memory with a text of a few megabytes.
pub const TOKENS_MAX: usize = 250_000;

/// A statement that is kept under a name to be run later: by PREPARE or DECLARE CURSOR.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    /// What it does when it runs.
    pub facts: Facts,
    /// What its results are made of.
    pub lineage: Lineage,
}

/// What the columns of a result are made of, as far as the text shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Each output column's own references; `None` where columns cannot be told apart by position.
    pub columns: Option<Vec<References>>,
    /// References anywhere in the statement.
    pub whole: References,
    /// A FROM clause derives columns, so that a column's name says little.
    pub derived: bool,
    /// Names by which a whole row can be referred to.
    pub row_names: Vec<Box<str>>,
    /// What a qualifier before a column stands for: a relation's name behind its alias; nothing
    /// where it may be any relation of the statement.
    pub qualifiers: Vec<(Box<str>, Box<str>)>,
    /// Names of common table expressions.
    pub common: Vec<Box<str>>,
    /// What is shown is a plan or a status, not rows of a table.
    pub no_rows: bool,
    /// Rows come from a statement that was not seen.
    pub opaque: bool,
    /// What the statement writes somewhere is made of these: see [`Lineage::moves`].
    pub moved: References,
    /// What the statement uses columns for, beside showing them.
    pub uses: Uses,
    /// Columns that an UPDATE sets; empty where the destination is not that plain.
    pub destinations: Vec<Box<str>>,
}

impl Lineage {
    /// Output column `index` is computed from columns; with `functions`, or from functions.
    pub fn depends(&self, index: usize, functions: bool) -> bool {
        let own = self.columns.as_ref().and_then(|columns| columns.get(index));
        let depends = |references: &References| {
            references.star
                || !references.columns.is_empty()
                || (functions && !references.functions.is_empty())
        };
        !self.no_rows
            && match own {
                Some(own) if !depends(own) => false,
                Some(own) if !self.derived => depends(own),
                _ => depends(&self.whole),
            }
    }

    /// Values may leave their columns for a place that the masks do not know.
    pub fn moves(&self) -> bool {
        self.moved.star || !self.moved.columns.is_empty() || !self.moved.functions.is_empty()
    }
}

/// All that the session needs to know of one text.
#[derive(Debug, Clone, Default)]
pub struct Analysis {
    /// What it does.
    pub facts: Facts,
    /// The text may hold a credential: it is recorded without its constants.
    pub sensitive: bool,
    /// What its results are made of, all together.
    pub lineage: Lineage,
    /// What the results of each statement are made of.
    pub results: Vec<Lineage>,
    /// Every COPY TO STDOUT in it, in order.
    pub copies_out: Vec<CopyOut>,
    /// It is one statement, so that there is one result at most.
    pub single: bool,
    /// A COPY FROM STDIN is in it.
    pub copies_in: bool,
    /// Statements kept under a name: PREPARE.
    pub prepares: Vec<(String, Arc<Body>)>,
    /// Names of prepared statements that it runs: EXECUTE.
    pub executes: Vec<String>,
    /// Cursors that it opens.
    pub declares: Vec<(String, Arc<Body>)>,
    /// Cursors that it fetches from.
    pub fetches: Vec<String>,
    /// Names that may mean something else after it.
    pub forgets: Vec<Forgotten>,
    /// How names of relations are found after it.
    pub finding: Finding,
    /// It may change settings that its text does not tell.
    pub unseen_settings: bool,
    /// A cursor of it may change settings whenever rows are fetched from it.
    pub cursor_settings: bool,
}

/// Names of the protocol that SQL can give another meaning, as both share one name space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgotten {
    /// One prepared statement: DEALLOCATE.
    Statement(String),
    /// Every prepared statement: DEALLOCATE ALL, DISCARD.
    Statements,
    /// One portal: DECLARE, CLOSE.
    Portal(String),
    /// Every portal: CLOSE ALL, DISCARD.
    Portals,
}

/// Why a text was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnalysisError {
    /// The server's grammar refuses it: its own words, without the text.
    #[error("{message}")]
    Syntax {
        /// What the grammar says.
        message: String,
        /// Where, in characters from 1; 0 if that is not known.
        position: usize,
    },
    /// Nested deeper than the gateway follows.
    #[error("the statement nests too deeply for the gateway to understand")]
    TooDeep,
    /// More tokens than the gateway reads.
    #[error(
        "the statement has more than the gateway's limit of {TOKENS_MAX} words and signs: send large values as parameters or by COPY"
    )]
    TooManyTokens,
    /// Longer than the gateway reads.
    #[error("the statement has {0} bytes, more than the gateway's limit of {TEXT_BYTES_MAX}")]
    TooLong(usize),
}

/// Analyses a text of zero or more statements.
pub fn analyze(text: &str) -> Result<Analysis, AnalysisError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(AnalysisError::TooLong(text.len()));
    }
    if tokens(text) > TOKENS_MAX {
        return Err(AnalysisError::TooManyTokens);
    }
    let tree = pg_query::parse(text, 0).map_err(|error| match error {
        pg_query::Error::Parse(message) if !message.starts_with("stack depth limit") => {
            let position = position::of_error(text, &message);
            AnalysisError::Syntax { message, position }
        }
        _ => AnalysisError::TooDeep,
    })?;
    let mut analysis = Analysis::default();
    let statements = &tree.protobuf.stmts;
    // A status or a plan in one result says nothing of the others.
    let mut no_rows = true;
    for statement in statements {
        if let Some(node) = statement.stmt.as_ref().and_then(|node| node.node.as_ref()) {
            let before = core::mem::take(&mut analysis.lineage);
            top_level(node, &mut analysis)?;
            let own = core::mem::replace(&mut analysis.lineage, before);
            no_rows &= own.no_rows;
            merge_lineage(&mut analysis.lineage, own.clone());
            analysis.results.push(own);
        }
    }
    analysis.lineage.no_rows = no_rows;
    if statements.is_empty() {
        analysis.facts.kinds.push("EMPTY");
    }
    collect::dedupe(&mut analysis.facts.reads);
    collect::dedupe(&mut analysis.facts.writes);
    collect::dedupe(&mut analysis.facts.functions);
    columns::dedupe_columns(&mut analysis.facts.columns_read);
    columns::dedupe_columns(&mut analysis.facts.columns_written);
    analysis.single = statements.len() == 1;
    // Positions of columns are told apart only where there is one result.
    match analysis.results.first() {
        Some(own) if analysis.single => analysis.lineage.clone_from(own),
        _ => analysis.lineage.columns = None,
    }
    Ok(analysis)
}

/// At least as many as the text has tokens: signs, and starts of words. What stands in quotes is
/// counted too, as a text can be made to look quoted that is not.
fn tokens(text: &str) -> usize {
    let mut in_word = false;
    let mut count = 0;
    for byte in text.bytes() {
        let word = byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        count += usize::from(if word {
            !in_word
        } else {
            !byte.is_ascii_whitespace()
        });
        in_word = word;
    }
    count
}

fn top_level(node: &NodeEnum, analysis: &mut Analysis) -> Result<(), AnalysisError> {
    match node {
        NodeEnum::PrepareStmt(prepare) => {
            add_kind(&mut analysis.facts, "PREPARE");
            analysis.prepares.push((
                prepare.name.clone(),
                Arc::new(body(prepare.query.as_deref())?.body),
            ));
            return Ok(());
        }
        NodeEnum::DeclareCursorStmt(declare) => {
            let read = body(declare.query.as_deref())?;
            analysis.cursor_settings |= read.unseen || !read.finding.paths.is_empty();
            let body = Arc::new(read.body);
            absorb(&mut analysis.facts, &body.facts);
            analysis
                .forgets
                .push(Forgotten::Portal(declare.portalname.clone()));
            analysis.declares.push((declare.portalname.clone(), body));
        }
        NodeEnum::ExecuteStmt(execute) => analysis.executes.push(execute.name.clone()),
        NodeEnum::CreateTableAsStmt(create) => {
            if let Some(NodeEnum::ExecuteStmt(execute)) = inner(create.query.as_deref()) {
                analysis.executes.push(execute.name.clone());
                analysis.facts.incomplete = Some(STORED);
            }
        }
        NodeEnum::ExplainStmt(explain) => return explained(explain, analysis),
        NodeEnum::FetchStmt(fetch) => analysis.fetches.push(fetch.portalname.clone()),
        NodeEnum::DeallocateStmt(deallocate) if !deallocate.isall => {
            analysis
                .forgets
                .push(Forgotten::Statement(deallocate.name.clone()));
        }
        NodeEnum::DeallocateStmt(_) => analysis.forgets.push(Forgotten::Statements),
        // DISCARD TEMP and its like leave them alone.
        NodeEnum::DiscardStmt(discard) if discard.target() == DiscardMode::DiscardAll => analysis
            .forgets
            .extend([Forgotten::Statements, Forgotten::Portals]),
        // CLOSE ALL names none.
        NodeEnum::ClosePortalStmt(close) if close.portalname.is_empty() => {
            analysis.forgets.push(Forgotten::Portals);
        }
        NodeEnum::ClosePortalStmt(close) => {
            analysis
                .forgets
                .push(Forgotten::Portal(close.portalname.clone()));
        }
        NodeEnum::CopyStmt(statement) => {
            let stream = !statement.is_program && statement.filename.is_empty();
            analysis.copies_in |= stream && statement.is_from;
            if stream && !statement.is_from {
                analysis.copies_out.push(copy::copy_out(statement)?);
            }
        }
        _ => {}
    }
    analysis.finding.of(node);
    let read = statement(node)?;
    let body = read.body;
    analysis.finding.append(read.finding);
    analysis.unseen_settings |= read.unseen;
    absorb(&mut analysis.facts, &body.facts);
    analysis.sensitive |= is_sensitive(&body.facts);
    analysis.lineage.no_rows = body.lineage.no_rows;
    analysis.lineage.columns.clone_from(&body.lineage.columns);
    merge_lineage(&mut analysis.lineage, body.lineage);
    Ok(())
}

/// EXPLAIN runs nothing, EXPLAIN ANALYZE does; what both show is a plan.
fn explained(
    explain: &pg_query::protobuf::ExplainStmt,
    analysis: &mut Analysis,
) -> Result<(), AnalysisError> {
    let runs = explain.options.iter().any(|option| match &option.node {
        Some(NodeEnum::DefElem(option)) => {
            option.defname == "analyze" && !copy::is_false(option.arg.as_deref())
        }
        _ => false,
    });
    add_kind(
        &mut analysis.facts,
        if runs { "EXPLAIN ANALYZE" } else { "EXPLAIN" },
    );
    let execute = match inner(explain.query.as_deref()) {
        Some(NodeEnum::CreateTableAsStmt(create)) => inner(create.query.as_deref()),
        other => other,
    };
    if let Some(NodeEnum::ExecuteStmt(execute)) = execute {
        analysis.executes.push(execute.name.clone());
    }
    let read = body(explain.query.as_deref())?;
    let body = read.body;
    if runs {
        analysis.finding.append(read.finding);
        analysis.unseen_settings |= read.unseen;
        absorb(&mut analysis.facts, &body.facts);
    } else {
        let mut facts = body.facts;
        facts.kinds.clear();
        facts.unfiltered = false;
        facts.locks = false;
        facts.reads.append(&mut facts.writes);
        let set = core::mem::take(&mut facts.columns_written);
        absorb_columns(&mut facts.columns_read, &set);
        absorb(&mut analysis.facts, &facts);
    }
    merge_lineage(&mut analysis.lineage, body.lineage);
    analysis.lineage.no_rows = true;
    Ok(())
}

fn inner(node: Option<&Node>) -> Option<&NodeEnum> {
    node?.node.as_ref()
}

/// What was found in one statement.
struct Read {
    body: Body,
    finding: Finding,
    /// It may change settings that it does not tell.
    unseen: bool,
}

fn body(node: Option<&Node>) -> Result<Read, AnalysisError> {
    match inner(node) {
        Some(node) => statement(node),
        None => Ok(Read {
            body: Body {
                facts: Facts::default(),
                lineage: Lineage::default(),
            },
            finding: Finding::default(),
            unseen: false,
        }),
    }
}

/// One statement's facts and lineage, with all that is nested in it.
fn statement(node: &NodeEnum) -> Result<Read, AnalysisError> {
    let mut collector = Collector::new(matches!(node, NodeEnum::CopyStmt(copy) if !copy.is_from));
    walk::walk(node, &mut collector).map_err(|_| AnalysisError::TooDeep)?;
    collector.dedupe();
    let (kind, incomplete) = kinds::kind(node);
    let mut facts = Facts {
        kinds: alloc::vec![kind],
        incomplete,
        ..Facts::default()
    };
    for nested in &collector.kinds {
        add_kind(&mut facts, nested);
    }
    for does in functions::kinds(&collector.references.functions) {
        add_kind(&mut facts, does);
    }
    if let NodeEnum::DropStmt(drop) = node {
        collector.writes.extend(dropped(drop));
    }
    facts.unfiltered = collector.unfiltered;
    facts.locks = collector.locks;
    facts.foreign_code = collector.foreign_code;
    facts.unknown_calls = collector.unknown_calls;
    facts.incomplete = facts
        .incomplete
        .or_else(|| opaque_function(&collector.references.functions));
    facts.functions.clone_from(&collector.references.functions);
    facts.reads = collector.reads;
    facts.writes = collector.writes;
    let derived = collector.derived_from || !collector.common.is_empty();
    (facts.columns_read, facts.columns_written) = collector.columns.finish(derived);
    let mut moved = collector.moved;
    let into = kind == "SELECT" && facts.kinds.contains(&"CREATE TABLE AS");
    if into
        || facts
            .functions
            .iter()
            .any(|function| functions::is_sink(function))
    {
        moved = collector.references.clone();
        // `count` tells only how many there are; what it calls on the way does what it does.
        moved.columns.append(&mut collector.only_counted.columns);
        moved
            .qualified
            .append(&mut collector.only_counted.qualified);
    } else if kind == "CREATE VIEW" {
        // A view's definition is in the catalogue, and its columns are traced through it.
        moved = References::default();
    } else if renames(node) {
        // Masks know columns by their names: under another one, all of a relation would be seen.
        moved.star = true;
    }
    let columns = match node {
        NodeEnum::SelectStmt(select) => output_columns(select)?,
        NodeEnum::CopyStmt(copy) => match inner(copy.query.as_deref()) {
            Some(NodeEnum::SelectStmt(select)) => output_columns(select)?,
            _ => None,
        },
        _ => None,
    };
    let lineage = Lineage {
        columns,
        whole: collector.references,
        derived: collector.derived_from,
        row_names: collector.row_names,
        qualifiers: collector.qualifiers,
        common: collector.common,
        no_rows: matches!(node, NodeEnum::VariableShowStmt(_)),
        opaque: false,
        moved,
        uses: collector.uses,
        destinations: collector.destinations,
    };
    Ok(Read {
        body: Body { facts, lineage },
        finding: collector.finding,
        unseen: collector.unseen_settings,
    })
}

/// The one relation in the FROM clause of a view's definition, if there is just that.
pub fn shown_relation(definition: &str) -> Option<crate::command::Relation> {
    let tree = pg_query::parse(definition, 0).ok()?;
    let [statement] = tree.protobuf.stmts.as_slice() else {
        return None;
    };
    let Some(NodeEnum::SelectStmt(select)) = inner(statement.stmt.as_deref()) else {
        return None;
    };
    let [from] = select.from_clause.as_slice() else {
        return None;
    };
    match &from.node {
        Some(NodeEnum::RangeVar(range)) => {
            let schema = (!range.schemaname.is_empty()).then(|| range.schemaname.as_str().into());
            let name = range.relname.as_str().into();
            Some(crate::command::Relation { schema, name })
        }
        _ => None,
    }
}

/// Gives a relation or its columns another name.
fn renames(node: &NodeEnum) -> bool {
    match node {
        NodeEnum::RenameStmt(rename) => rename.relation.is_some(),
        NodeEnum::AlterObjectSchemaStmt(alter) => alter.relation.is_some(),
        _ => false,
    }
}

/// Each output column's references, where the target list is plain and has no `*`.
fn output_columns(select: &SelectStmt) -> Result<Option<Vec<References>>, AnalysisError> {
    if select.op() != SetOperation::SetopNone || select.target_list.is_empty() {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(select.target_list.len());
    for target in &select.target_list {
        let mut collector = Collector::default();
        walk::walk(target, &mut collector).map_err(|_| AnalysisError::TooDeep)?;
        let mut references = collector.references;
        references.plain = is_column(target);
        // A `*` of its own stands for any number of columns; so does `row.*`.
        if references.star || !collector.reads.is_empty() {
            return Ok(None);
        }
        columns.push(references);
    }
    Ok(Some(columns))
}

fn is_column(target: &Node) -> bool {
    match &target.node {
        Some(NodeEnum::ResTarget(target)) => {
            matches!(inner(target.val.as_deref()), Some(NodeEnum::ColumnRef(_)))
        }
        _ => false,
    }
}

fn dropped(drop: &pg_query::protobuf::DropStmt) -> Vec<crate::command::Relation> {
    let of_relation = matches!(
        drop.remove_type(),
        ObjectType::ObjectTrigger | ObjectType::ObjectRule | ObjectType::ObjectPolicy
    );
    let mut relations = Vec::new();
    for object in &drop.objects {
        if let Some(NodeEnum::List(list)) = &object.node {
            let mut parts: Vec<String> = list.items.iter().filter_map(copy::string).collect();
            // `trigger ON relation`: the relation changes, and its name comes first.
            if of_relation {
                parts.pop();
            }
            relations.extend(collect::relation(&parts));
        }
    }
    relations
}

fn add_kind(facts: &mut Facts, kind: &'static str) {
    if !facts.kinds.contains(&kind) {
        facts.kinds.push(kind);
    }
}

/// Adds what `other` does to `facts`.
pub fn absorb(facts: &mut Facts, other: &Facts) {
    for kind in &other.kinds {
        add_kind(facts, kind);
    }
    absorb_each(&mut facts.reads, &other.reads);
    absorb_each(&mut facts.writes, &other.writes);
    absorb_each(&mut facts.functions, &other.functions);
    absorb_columns(&mut facts.columns_read, &other.columns_read);
    absorb_columns(&mut facts.columns_written, &other.columns_written);
    facts.unfiltered |= other.unfiltered;
    facts.locks |= other.locks;
    facts.foreign_code |= other.foreign_code;
    facts.unknown_calls |= other.unknown_calls;
    facts.incomplete = facts.incomplete.or(other.incomplete);
}

fn absorb_each<T: Clone + PartialEq>(list: &mut Vec<T>, others: &[T]) {
    for other in others {
        collect::push_once(list, other.clone());
    }
}

/// Joins the lineage of one more statement, except for what is true of a result of its own:
/// positions of columns, and whether there are rows.
pub fn merge_lineage(lineage: &mut Lineage, other: Lineage) {
    lineage.whole.columns.extend(other.whole.columns);
    lineage.whole.qualified.extend(other.whole.qualified);
    lineage.whole.functions.extend(other.whole.functions);
    lineage.whole.star |= other.whole.star;
    lineage.row_names.extend(other.row_names);
    lineage.qualifiers.extend(other.qualifiers);
    lineage.common.extend(other.common);
    lineage.derived |= other.derived;
    lineage.opaque |= other.opaque;
    lineage.moved.columns.extend(other.moved.columns);
    lineage.moved.qualified.extend(other.moved.qualified);
    lineage.moved.functions.extend(other.moved.functions);
    lineage.moved.star |= other.moved.star;
    lineage.uses.merge(other.uses);
    lineage.destinations.extend(other.destinations);
}

const STORED: &str = "it stores the rows of a prepared statement";

const OPAQUE: &str =
    "it calls a function that runs SQL or reaches data which the gateway cannot see";

fn opaque_function(called: &[String]) -> Option<&'static str> {
    let opaque = |function: &String| functions::is_opaque(function);
    called.iter().any(opaque).then_some(OPAQUE)
}

/// Kinds whose texts carry passwords or connection strings.
fn is_sensitive(facts: &Facts) -> bool {
    const SENSITIVE: &[&str] = &[
        "CREATE ROLE",
        "ALTER ROLE",
        "CREATE SUBSCRIPTION",
        "ALTER SUBSCRIPTION",
        "CREATE OTHER",
        "ALTER OTHER",
        "DO",
    ];
    facts.kinds.iter().any(|kind| SENSITIVE.contains(kind))
        || facts
            .functions
            .iter()
            .any(|function| function.contains("dblink") || function.contains("crypt"))
}

/// The text without its constants, for statements that may hold a credential.
pub fn without_constants(text: &str) -> Option<String> {
    pg_query::normalize(text).ok()
}

#[cfg(test)]
mod tests;
