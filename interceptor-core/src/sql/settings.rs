//! How a text changes the way in which the server finds names: `search_path`, and relations of the
//! session's own.
//!
//! It owns the ways there are in SQL to say so. Whether what it says takes effect is the session's to
//! find out.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use pg_query::NodeEnum;
use pg_query::protobuf::{DiscardMode, Node, VariableSetKind, VariableSetStmt, a_const};

use super::copy;

const SEARCH_PATH: &str = "search_path";
/// Bytes of a name; the server cuts longer ones.
const NAME_BYTES_MAX: usize = 63;

/// What a text does to how names are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Changes of `search_path`, in order.
    pub paths: Vec<PathChange>,
    /// Names that relations of the session's own schema may have from then on.
    pub temporary: Vec<Box<str>>,
    /// Another role may be in force: `$user` means another schema.
    pub role: bool,
}

/// A change of `search_path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    /// The schemas; `None` for what the session began with.
    pub schemas: Option<Vec<Box<str>>>,
    /// Up to the end of the transaction.
    pub local: bool,
    /// It takes effect if the text runs without an error.
    pub certain: bool,
}

impl Finding {
    /// Nothing changes.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.temporary.is_empty() && !self.role
    }

    pub(super) fn append(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.temporary.extend(other.temporary);
        self.role |= other.role;
    }

    /// Of a statement by itself, what its kind says.
    pub(super) fn of(&mut self, node: &NodeEnum) {
        match node {
            NodeEnum::VariableSetStmt(set) => self.set(set),
            NodeEnum::DiscardStmt(discard) if discard.target() == DiscardMode::DiscardAll => {
                self.paths.push(RESET);
            }
            // What gets another name may be one of the session's own.
            NodeEnum::RenameStmt(rename) if rename.relation.is_some() => {
                self.temporary.push(rename.newname.as_str().into());
            }
            _ => {}
        }
    }

    fn set(&mut self, set: &VariableSetStmt) {
        let is = |name: &str| set.name.eq_ignore_ascii_case(name);
        let all = set.kind() == VariableSetKind::VarResetAll;
        // A reset takes it back to what it was.
        let gives = set.kind() == VariableSetKind::VarSetValue;
        self.role |= gives && (is("role") || is("session_authorization"));
        if !all && !is(SEARCH_PATH) {
            return;
        }
        let schemas = match set.kind() {
            VariableSetKind::VarSetValue => {
                let names = set.args.iter().map(schema);
                match names.collect::<Option<Vec<Box<str>>>>() {
                    Some(names) => Some(names),
                    // No constant that the server takes.
                    None => return,
                }
            }
            _ => None,
        };
        self.paths.push(PathChange {
            schemas,
            local: set.is_local,
            certain: true,
        });
    }

    /// A call of `set_config`: the setting, its value and whether it is for the transaction, each where
    /// the text has it as a constant. `false`: what it does cannot be told.
    pub(super) fn set_config(
        &mut self,
        setting: Option<&str>,
        value: Option<&str>,
        local: Option<bool>,
    ) -> bool {
        let Some(setting) = setting else {
            return false;
        };
        if !setting.eq_ignore_ascii_case(SEARCH_PATH) {
            self.role |= ["role", "session_authorization"]
                .iter()
                .any(|name| setting.eq_ignore_ascii_case(name));
            return true;
        }
        let Some(schemas) = value.and_then(schemas) else {
            return false;
        };
        self.paths.push(PathChange {
            schemas: Some(schemas),
            local: local == Some(true),
            // The row that it stands in may not come to be.
            certain: false,
        });
        true
    }
}

const RESET: PathChange = PathChange {
    schemas: None,
    local: false,
    certain: true,
};

/// A schema in SET. The server takes a number as it is written.
fn schema(arg: &Node) -> Option<Box<str>> {
    match arg.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            a_const::Val::Fval(number) => Some(cut(&number.fval.to_ascii_lowercase())),
            _ => copy::string(arg).map(|name| cut(&name)),
        },
        _ => copy::string(arg).map(|name| cut(&name)),
    }
}

/// A name as the server cuts it (`NAMEDATALEN`).
fn cut(name: &str) -> Box<str> {
    let end = name.floor_char_boundary(NAME_BYTES_MAX);
    name.get(..end).unwrap_or(name).into()
}

/// The schemas of a value of `search_path`; `None` where the server would refuse it, or where servers
/// differ: a vertical tab is white space from PostgreSQL 16 on.
pub fn schemas(value: &str) -> Option<Vec<Box<str>>> {
    if value.contains('\u{b}') {
        return None;
    }
    let mut rest = value.trim_start();
    let mut schemas = Vec::new();
    if rest.is_empty() {
        return Some(schemas);
    }
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_name(quoted)?,
            None => {
                let end = rest.find(|c: char| c == ',' || c.is_ascii_whitespace());
                let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
                // The server folds others by its locale.
                if name.is_empty() || !name.is_ascii() {
                    return None;
                }
                (name.to_ascii_lowercase(), after)
            }
        };
        schemas.push(cut(&name));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None => return rest.is_empty().then_some(schemas),
        }
    }
}

fn quoted_name(mut rest: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyze;

    fn names(schemas: &[&str]) -> Option<Vec<Box<str>>> {
        Some(schemas.iter().map(|&name| name.into()).collect())
    }

    #[test]
    fn values_are_split_as_the_server_splits_them() {
        assert_eq!(schemas("\"$user\", public"), names(&["$user", "public"]));
        assert_eq!(schemas(" A,\"b\"\"c, d\" "), names(&["a", "b\"c, d"]));
        assert_eq!(schemas(""), names(&[]));
        for bad in ["a,", ",", "a b", "\"a", "ä"] {
            assert_eq!(schemas(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_way_to_change_the_path_is_seen() {
        let change = |text: &str| analyze(text).unwrap().finding.paths;
        let path = |schemas, local, certain| PathChange {
            schemas,
            local,
            certain,
        };
        for (text, expected) in [
            (
                "set search_path = a, \"B\"",
                path(names(&["a", "B"]), false, true),
            ),
            (
                "SET Search_Path TO 'a, b'",
                path(names(&["a, b"]), false, true),
            ),
            (
                "set local search_path to a",
                path(names(&["a"]), true, true),
            ),
            ("set schema 'a'", path(names(&["a"]), false, true)),
            ("set search_path to default", path(None, false, true)),
            ("reset search_path", path(None, false, true)),
            ("reset all", path(None, false, true)),
            ("discard all", path(None, false, true)),
            (
                "select pg_catalog.set_config('search_path', 'a, b', false)",
                path(names(&["a", "b"]), false, false),
            ),
            (
                "select set_config('search_path', '', true)",
                path(names(&[]), true, false),
            ),
        ] {
            assert_eq!(change(text), [expected], "{text}");
        }
        assert!(change("set work_mem = 1").is_empty());
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        let unseen = |text: &str| analyze(text).unwrap().unseen_settings;
        assert!(unseen("select set_config($1, 'a', false)"));
        assert!(unseen("select set_config('search_path', $1, false)"));
        assert!(unseen(
            "select set_config('search_path', lower('A'), false)"
        ));
        assert!(!unseen("select set_config('a.b', $1, false)"));
        assert!(!unseen("select set_config('search_path', 'a', false)"));
    }

    #[test]
    fn relations_of_the_session_are_seen() {
        let made = |text: &str| analyze(text).unwrap().finding.temporary;
        for text in [
            "create temp table t (a int)",
            "create temporary table t as select 1",
            "select 1 as a into temp t",
            "create temp view t as select 1",
            "create table pg_temp.t (a int)",
            "create table pg_temp_3.t (a int)",
            "alter table x rename to t",
            "create temp sequence t",
        ] {
            assert_eq!(made(text), [Box::from("t")], "{text}");
        }
        assert!(made("create table t (a int); select * from pg_temp.t").len() <= 1);
        assert!(made("create table t (a int)").is_empty());
    }
}
