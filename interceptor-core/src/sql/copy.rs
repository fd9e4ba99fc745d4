//! COPY TO STDOUT: what leaves, and in which format. Its replies carry neither names nor object
//! ids, so the statement's own text is all there is.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use pg_query::NodeEnum;
use pg_query::protobuf::{CopyStmt, DefElem, Node, a_const};

use super::AnalysisError;
use crate::command::Relation;

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A relation, with the columns named; all of them if none is.
    Relation(Relation, Vec<Box<str>>),
    /// A query, whose lineage the analysis holds.
    Query,
}

/// How rows are laid out in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFormat {
    /// CSV; the text format if it is not binary either.
    pub csv: bool,
    /// PostgreSQL's binary format.
    pub binary: bool,
    /// Between two fields.
    pub delimiter: u8,
    /// How NULL is written.
    pub null: Vec<u8>,
    /// CSV: around a field.
    pub quote: u8,
    /// CSV: before a quote inside a field.
    pub escape: u8,
    /// The first line holds names.
    pub header: bool,
    /// The encoding of the stream, in lower case, where it is not that of the session.
    pub encoding: Option<String>,
}

/// A COPY TO STDOUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOut {
    /// What is copied.
    pub source: CopySource,
    /// How.
    pub format: CopyFormat,
}

/// Reads the statement's source and options.
pub(super) fn copy_out(statement: &CopyStmt) -> Result<CopyOut, AnalysisError> {
    let source = match &statement.relation {
        Some(relation) => {
            let schema =
                (!relation.schemaname.is_empty()).then(|| relation.schemaname.as_str().into());
            let relation = Relation {
                schema,
                name: relation.relname.as_str().into(),
            };
            let columns = statement
                .attlist
                .iter()
                .filter_map(string)
                .map(String::into_boxed_str);
            CopySource::Relation(relation, columns.collect())
        }
        None => CopySource::Query,
    };
    Ok(CopyOut {
        source,
        format: format(&statement.options)?,
    })
}

fn format(options: &[Node]) -> Result<CopyFormat, AnalysisError> {
    let options = || {
        options.iter().filter_map(|option| match &option.node {
            Some(NodeEnum::DefElem(option)) => Some(option.as_ref()),
            _ => None,
        })
    };
    let has_format = |name: &str| {
        options()
            .any(|option| option.defname == "format" && value(option).eq_ignore_ascii_case(name))
    };
    let csv = has_format("csv");
    let mut format = CopyFormat {
        csv,
        binary: has_format("binary"),
        delimiter: if csv { b',' } else { b'\t' },
        null: if csv { Vec::new() } else { b"\\N".to_vec() },
        quote: b'"',
        escape: b'"',
        header: false,
        encoding: None,
    };
    let mut escape = None;
    for option in options() {
        match option.defname.as_str() {
            "delimiter" => format.delimiter = byte(option)?,
            "null" => format.null = value(option).into_bytes(),
            "quote" => format.quote = byte(option)?,
            "escape" => escape = Some(byte(option)?),
            "encoding" => format.encoding = Some(value(option).to_ascii_lowercase()),
            "header" => format.header = !is_false(option.arg.as_deref()),
            _ => {}
        }
    }
    format.escape = escape.unwrap_or(format.quote);
    Ok(format)
}

fn value(option: &DefElem) -> String {
    option.arg.as_deref().and_then(string).unwrap_or_default()
}

fn byte(option: &DefElem) -> Result<u8, AnalysisError> {
    match value(option).as_bytes() {
        [byte] => Ok(*byte),
        // The server refuses it in these words, roughly.
        _ => Err(AnalysisError::Syntax {
            message: alloc::format!(
                "COPY {} must be a single one-byte character",
                option.defname
            ),
            position: 0,
        }),
    }
}

/// A node that is a string, a boolean or a number, as text.
pub(super) fn string(node: &Node) -> Option<String> {
    match node.node.as_ref()? {
        NodeEnum::String(string) => Some(string.sval.clone()),
        NodeEnum::Boolean(boolean) => Some(if boolean.boolval { "true" } else { "false" }.into()),
        NodeEnum::Integer(integer) => Some(alloc::format!("{}", integer.ival)),
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            a_const::Val::Sval(string) => Some(string.sval.clone()),
            a_const::Val::Boolval(boolean) => {
                Some(if boolean.boolval { "true" } else { "false" }.into())
            }
            a_const::Val::Ival(integer) => Some(alloc::format!("{}", integer.ival)),
            _ => None,
        },
        _ => None,
    }
}

/// An option's value that means "off"; an option without a value means "on".
pub(super) fn is_false(node: Option<&Node>) -> bool {
    node.and_then(string).is_some_and(|value| {
        ["false", "off", "no", "0"].contains(&value.to_ascii_lowercase().as_str())
    })
}
