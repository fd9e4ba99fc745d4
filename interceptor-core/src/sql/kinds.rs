//! The kind of a top-level statement, and what its type alone tells.

use pg_query::NodeEnum;
use pg_query::protobuf::{ObjectType, TransactionStmtKind, VariableSetKind};

/// Dynamic code: what it does is not in the statement's text.
const DYNAMIC: &str = "it runs code whose text the gateway cannot see";
const SERVER_FILES: &str = "it reads or writes files or programs on the server";
const CODE: &str = "it defines code that runs later without the gateway seeing it";
const REMOTE: &str = "it gives data of another server a name that the gateway does not know";
const UNKNOWN: &str = "the gateway does not know this kind of statement";

/// The kind's name in [`crate::command::KINDS`], and why the facts are incomplete if they are.
pub(super) fn kind(node: &NodeEnum) -> (&'static str, Option<&'static str>) {
    let kind = match node {
        NodeEnum::SelectStmt(_) => "SELECT",
        NodeEnum::InsertStmt(_) => "INSERT",
        NodeEnum::UpdateStmt(_) => "UPDATE",
        NodeEnum::DeleteStmt(_) => "DELETE",
        NodeEnum::MergeStmt(_) => "MERGE",
        NodeEnum::CopyStmt(copy) if copy.is_program => return ("COPY PROGRAM", Some(SERVER_FILES)),
        NodeEnum::CopyStmt(copy) if !copy.filename.is_empty() => {
            return ("COPY FILE", Some(SERVER_FILES));
        }
        NodeEnum::CopyStmt(copy) if copy.is_from => "COPY FROM",
        NodeEnum::CopyStmt(_) => "COPY TO",
        NodeEnum::TruncateStmt(_) => "TRUNCATE",
        NodeEnum::DoStmt(_) => return ("DO", Some(DYNAMIC)),
        NodeEnum::CallStmt(_) => return ("CALL", Some(DYNAMIC)),
        NodeEnum::LoadStmt(_) => return ("LOAD", Some(SERVER_FILES)),
        NodeEnum::TransactionStmt(statement) => return transaction(statement.kind()),
        NodeEnum::VariableSetStmt(statement) => set(statement),
        NodeEnum::ConstraintsSetStmt(_) => "SET",
        NodeEnum::VariableShowStmt(_) => "SHOW",
        NodeEnum::DiscardStmt(_) => "DISCARD",
        NodeEnum::PrepareStmt(_) => "PREPARE",
        NodeEnum::ExecuteStmt(_) => "EXECUTE",
        NodeEnum::DeallocateStmt(_) => "DEALLOCATE",
        NodeEnum::DeclareCursorStmt(_) => "DECLARE CURSOR",
        NodeEnum::FetchStmt(fetch) if fetch.ismove => "MOVE",
        NodeEnum::FetchStmt(_) => "FETCH",
        NodeEnum::ClosePortalStmt(_) => "CLOSE",
        NodeEnum::ExplainStmt(_) => "EXPLAIN",
        NodeEnum::LockStmt(_) => "LOCK",
        NodeEnum::ListenStmt(_) => "LISTEN",
        NodeEnum::UnlistenStmt(_) => "UNLISTEN",
        NodeEnum::NotifyStmt(_) => "NOTIFY",
        NodeEnum::VacuumStmt(vacuum) if !vacuum.is_vacuumcmd => "ANALYZE",
        NodeEnum::VacuumStmt(_) => "VACUUM",
        NodeEnum::ReindexStmt(_) => "REINDEX",
        NodeEnum::CheckPointStmt(_) => "CHECKPOINT",
        NodeEnum::RefreshMatViewStmt(_) => "REFRESH MATERIALIZED VIEW",
        NodeEnum::CommentStmt(_) => "COMMENT",
        NodeEnum::SecLabelStmt(_) => "SECURITY LABEL",
        NodeEnum::ReassignOwnedStmt(_) => "REASSIGN OWNED",
        NodeEnum::ImportForeignSchemaStmt(_) => return ("IMPORT", Some(REMOTE)),
        NodeEnum::GrantStmt(grant) if grant.is_grant => "GRANT",
        NodeEnum::GrantStmt(_) => "REVOKE",
        NodeEnum::GrantRoleStmt(grant) if grant.is_grant => "GRANT",
        NodeEnum::GrantRoleStmt(_) => "REVOKE",
        _ => return definition(node),
    };
    (kind, None)
}

fn transaction(kind: TransactionStmtKind) -> (&'static str, Option<&'static str>) {
    use TransactionStmtKind as Kind;
    let kind = match kind {
        Kind::TransStmtBegin | Kind::TransStmtStart => "BEGIN",
        Kind::TransStmtCommit | Kind::TransStmtPrepare => "COMMIT",
        Kind::TransStmtCommitPrepared => "COMMIT PREPARED",
        Kind::TransStmtRollback | Kind::TransStmtRollbackTo => "ROLLBACK",
        Kind::TransStmtRollbackPrepared => "ROLLBACK PREPARED",
        Kind::TransStmtSavepoint => "SAVEPOINT",
        Kind::TransStmtRelease => "RELEASE",
        Kind::Undefined => return ("OTHER", Some(UNKNOWN)),
    };
    (kind, None)
}

fn set(statement: &pg_query::protobuf::VariableSetStmt) -> &'static str {
    match statement.name.as_str() {
        "role" | "session_authorization" => "SET ROLE",
        _ => match statement.kind() {
            VariableSetKind::VarReset | VariableSetKind::VarResetAll => "RESET",
            _ => "SET",
        },
    }
}

/// Statements that define, change or remove objects.
fn definition(node: &NodeEnum) -> (&'static str, Option<&'static str>) {
    let kind = match node {
        NodeEnum::DropStmt(drop) => object(drop.remove_type(), Verb::Drop),
        NodeEnum::DropdbStmt(_) => "DROP DATABASE",
        NodeEnum::DropRoleStmt(_) => "DROP ROLE",
        NodeEnum::DropOwnedStmt(_) => "DROP OWNED",
        NodeEnum::DropSubscriptionStmt(_) => "DROP SUBSCRIPTION",
        NodeEnum::DropUserMappingStmt(_) | NodeEnum::DropTableSpaceStmt(_) => "DROP OTHER",
        NodeEnum::AlterTableStmt(alter) => object(alter.objtype(), Verb::Alter),
        NodeEnum::RenameStmt(rename) => match rename.rename_type() {
            ObjectType::ObjectColumn | ObjectType::ObjectTabconstraint => {
                object(rename.relation_type(), Verb::Alter)
            }
            other => object(other, Verb::Alter),
        },
        NodeEnum::AlterOwnerStmt(alter) => object(alter.object_type(), Verb::Alter),
        NodeEnum::AlterObjectSchemaStmt(alter) => object(alter.object_type(), Verb::Alter),
        NodeEnum::AlterRoleStmt(_) | NodeEnum::AlterRoleSetStmt(_) => "ALTER ROLE",
        NodeEnum::AlterDatabaseStmt(_)
        | NodeEnum::AlterDatabaseSetStmt(_)
        | NodeEnum::AlterDatabaseRefreshCollStmt(_) => "ALTER DATABASE",
        NodeEnum::AlterSystemStmt(_) => "ALTER SYSTEM",
        NodeEnum::AlterFunctionStmt(_) => "ALTER FUNCTION",
        NodeEnum::AlterSeqStmt(_) => "ALTER SEQUENCE",
        NodeEnum::AlterPolicyStmt(_) => "ALTER POLICY",
        NodeEnum::AlterPublicationStmt(_) => "ALTER PUBLICATION",
        NodeEnum::AlterSubscriptionStmt(_) => "ALTER SUBSCRIPTION",
        NodeEnum::AlterExtensionStmt(_) | NodeEnum::AlterExtensionContentsStmt(_) => {
            "ALTER EXTENSION"
        }
        NodeEnum::AlterEnumStmt(_) | NodeEnum::AlterTypeStmt(_) | NodeEnum::AlterDomainStmt(_) => {
            "ALTER TYPE"
        }
        NodeEnum::AlterDefaultPrivilegesStmt(_)
        | NodeEnum::AlterForeignServerStmt(_)
        | NodeEnum::AlterFdwStmt(_)
        | NodeEnum::AlterUserMappingStmt(_)
        | NodeEnum::AlterTableSpaceOptionsStmt(_)
        | NodeEnum::AlterTableMoveAllStmt(_)
        | NodeEnum::AlterEventTrigStmt(_)
        | NodeEnum::AlterObjectDependsStmt(_)
        | NodeEnum::AlterOperatorStmt(_)
        | NodeEnum::AlterOpFamilyStmt(_)
        | NodeEnum::AlterCollationStmt(_)
        | NodeEnum::AlterStatsStmt(_)
        | NodeEnum::AlterTsdictionaryStmt(_)
        | NodeEnum::AlterTsconfigurationStmt(_) => "ALTER OTHER",
        NodeEnum::ClusterStmt(_) => "CLUSTER",
        NodeEnum::RuleStmt(_) => return ("CREATE RULE", Some(CODE)),
        NodeEnum::ViewStmt(_) => "CREATE VIEW",
        NodeEnum::IndexStmt(_) => "CREATE INDEX",
        _ => return creation(node),
    };
    (kind, None)
}

fn creation(node: &NodeEnum) -> (&'static str, Option<&'static str>) {
    let kind = match node {
        NodeEnum::CreateStmt(_) => "CREATE TABLE",
        NodeEnum::CreateForeignTableStmt(_) => return ("CREATE TABLE", Some(REMOTE)),
        NodeEnum::CreateTableAsStmt(create) if create.objtype() == ObjectType::ObjectMatview => {
            "CREATE VIEW"
        }
        NodeEnum::CreateTableAsStmt(_) => "CREATE TABLE AS",
        NodeEnum::CreatedbStmt(_) => "CREATE DATABASE",
        NodeEnum::CreateRoleStmt(_) => "CREATE ROLE",
        NodeEnum::CreateSchemaStmt(_) => "CREATE SCHEMA",
        NodeEnum::CreateSeqStmt(_) => "CREATE SEQUENCE",
        NodeEnum::CreateFunctionStmt(_) => return ("CREATE FUNCTION", Some(CODE)),
        NodeEnum::CreateTrigStmt(_) | NodeEnum::CreateEventTrigStmt(_) => {
            return ("CREATE TRIGGER", Some(CODE));
        }
        NodeEnum::CreateExtensionStmt(_) => "CREATE EXTENSION",
        NodeEnum::CreatePolicyStmt(_) => "CREATE POLICY",
        NodeEnum::CreatePublicationStmt(_) => "CREATE PUBLICATION",
        NodeEnum::CreateSubscriptionStmt(_) => "CREATE SUBSCRIPTION",
        NodeEnum::CreateEnumStmt(_)
        | NodeEnum::CreateRangeStmt(_)
        | NodeEnum::CompositeTypeStmt(_)
        | NodeEnum::CreateDomainStmt(_) => "CREATE TYPE",
        // Operators, casts and their like call a function without its name in the statement.
        NodeEnum::DefineStmt(_)
        | NodeEnum::CreateCastStmt(_)
        | NodeEnum::CreateConversionStmt(_)
        | NodeEnum::CreateOpClassStmt(_)
        | NodeEnum::CreateOpFamilyStmt(_)
        | NodeEnum::CreateTransformStmt(_)
        | NodeEnum::CreatePlangStmt(_)
        | NodeEnum::CreateAmStmt(_) => return ("CREATE OTHER", Some(CODE)),
        NodeEnum::CreateStatsStmt(_) | NodeEnum::CreateTableSpaceStmt(_) => "CREATE OTHER",
        NodeEnum::CreateFdwStmt(_)
        | NodeEnum::CreateForeignServerStmt(_)
        | NodeEnum::CreateUserMappingStmt(_) => return ("CREATE OTHER", Some(REMOTE)),
        _ => return ("OTHER", Some(UNKNOWN)),
    };
    (kind, None)
}

enum Verb {
    Alter,
    Drop,
}

fn object(object: ObjectType, verb: Verb) -> &'static str {
    use ObjectType as Object;
    let (alter, drop) = match object {
        Object::ObjectTable | Object::ObjectForeignTable => ("ALTER TABLE", "DROP TABLE"),
        Object::ObjectView | Object::ObjectMatview => ("ALTER VIEW", "DROP VIEW"),
        Object::ObjectIndex => ("ALTER INDEX", "DROP INDEX"),
        Object::ObjectSequence => ("ALTER SEQUENCE", "DROP SEQUENCE"),
        Object::ObjectSchema => ("ALTER SCHEMA", "DROP SCHEMA"),
        Object::ObjectDatabase => ("ALTER DATABASE", "DROP DATABASE"),
        Object::ObjectRole => ("ALTER ROLE", "DROP ROLE"),
        Object::ObjectExtension => ("ALTER EXTENSION", "DROP EXTENSION"),
        Object::ObjectPolicy => ("ALTER POLICY", "DROP POLICY"),
        Object::ObjectPublication => ("ALTER PUBLICATION", "DROP PUBLICATION"),
        Object::ObjectSubscription => ("ALTER SUBSCRIPTION", "DROP SUBSCRIPTION"),
        Object::ObjectTrigger | Object::ObjectEventTrigger => ("ALTER OTHER", "DROP TRIGGER"),
        Object::ObjectFunction
        | Object::ObjectProcedure
        | Object::ObjectRoutine
        | Object::ObjectAggregate => ("ALTER FUNCTION", "DROP FUNCTION"),
        Object::ObjectType | Object::ObjectDomain | Object::ObjectAttribute => {
            ("ALTER TYPE", "DROP TYPE")
        }
        _ => ("ALTER OTHER", "DROP OTHER"),
    };
    match verb {
        Verb::Alter => alter,
        Verb::Drop => drop,
    }
}
