//! Which fields of a tree read, write, move or filter.

use super::walk::Step;

/// Fields through which a relation is only read. Any other field that names one is a write: what
/// is not known here errs on the strict side.
pub(super) const READ_FIELDS: &[(&str, &str)] = &[
    ("SelectStmt", "from_clause"),
    ("JoinExpr", "larg"),
    ("JoinExpr", "rarg"),
    ("RangeTableSample", "relation"),
    ("UpdateStmt", "from_clause"),
    ("DeleteStmt", "using_clause"),
    ("MergeStmt", "source_relation"),
    ("LockingClause", "locked_rels"),
    ("Constraint", "pktable"),
    ("CreateStmt", "inh_relations"),
    ("TableLikeClause", "relation"),
];

/// Fields whose expressions end up in a table: through them a value leaves its column.
const MOVING_FIELDS: &[(&str, &str)] = &[
    ("InsertStmt", "select_stmt"),
    ("UpdateStmt", "target_list"),
    ("OnConflictClause", "target_list"),
    ("MergeWhenClause", "target_list"),
    ("MergeWhenClause", "values"),
    ("CreateTableAsStmt", "query"),
    // Generated columns and defaults; ALTER COLUMN TYPE … USING.
    ("Constraint", "raw_expr"),
    ("ColumnDef", "raw_default"),
];

/// Fields that decide which rows are taken, not what is in them.
const FILTER_FIELDS: &[(&str, &str)] = &[
    ("SelectStmt", "where_clause"),
    ("SelectStmt", "having_clause"),
    ("SelectStmt", "sort_clause"),
    ("JoinExpr", "quals"),
];

/// What stands here ends up in a table.
pub(super) fn moves(path: &[Step]) -> bool {
    let last = |fields: &[(&str, &str)]| {
        path.iter()
            .rposition(|step| fields.contains(&(step.node, step.field)))
    };
    match (last(MOVING_FIELDS), last(FILTER_FIELDS)) {
        (Some(moving), Some(filter)) => moving > filter,
        (moving, None) => moving.is_some(),
        (None, Some(_)) => false,
    }
}

/// What stands below is set by an UPDATE.
pub(super) fn sets_column(before: &[Step]) -> bool {
    before
        .last()
        .is_some_and(|step| (step.node, step.field) == ("UpdateStmt", "target_list"))
}
