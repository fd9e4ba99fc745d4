//! Whether a text would let a session write that the server was told to keep read-only.
//!
//! It owns the ways there are in SQL to say so. A function may say it as well, unseen: the server
//! reports the setting, and the session looks at that.

use alloc::string::String;
use alloc::vec::Vec;

use super::walk::{self, Step, Visitor};

/// Settings that decide whether a transaction may write.
const SETTINGS: &[&str] = &["default_transaction_read_only", "transaction_read_only"];

/// Large objects are written even in a transaction that is read-only, before PostgreSQL 16.
const WRITING: &[&str] = &[
    "lo_creat",
    "lo_create",
    "lo_from_bytea",
    "lo_put",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "lowrite",
];

/// The text sets or resets what keeps transactions read-only, begins one that is not, or calls a
/// function that writes in any. What cannot be read counts as that.
pub fn lifts_read_only(text: &str) -> bool {
    let mut finder = Finder::default();
    match pg_query::parse(text, 0) {
        Ok(tree) => walk::walk(&tree.protobuf, &mut finder).is_err() || finder.lifts,
        Err(_) => true,
    }
}

#[derive(Default)]
struct Finder {
    lifts: bool,
    /// Functions that are being read: names, and arguments so far.
    functions: Vec<(String, usize)>,
    /// The option that is being read is one of [`SETTINGS`].
    option: bool,
}

fn is_setting(name: &str) -> bool {
    SETTINGS
        .iter()
        .any(|setting| setting.eq_ignore_ascii_case(name))
}

impl Finder {
    /// The name of the setting is the first argument, and has to be there to be read.
    fn sets(&self, argument: usize) -> bool {
        let open = self.functions.last();
        open.is_some_and(|(name, arguments)| name == "set_config" && *arguments == argument)
    }
}

impl Visitor for Finder {
    fn enter(&mut self, path: &[Step], node: &'static str) {
        let argument = path
            .last()
            .is_some_and(|step| (step.node, step.field) == ("FuncCall", "args"));
        if argument && let Some((_, arguments)) = self.functions.last_mut() {
            *arguments += 1;
            self.lifts |= self.sets(1) && !matches!(node, "AConst" | "TypeCast");
        }
        match node {
            "FuncCall" => self.functions.push((String::new(), 0)),
            // Of a cast, the constant has to follow.
            "ColumnRef" | "ParamRef" | "AExpr" => {
                let cast = path
                    .iter()
                    .rev()
                    .take_while(|step| step.node == "TypeCast")
                    .count();
                self.lifts |= cast > 0 && self.sets(1);
            }
            _ => {}
        }
    }

    fn text(&mut self, path: &[Step], value: &str) {
        let Some((last, before)) = path.split_last() else {
            return;
        };
        let parent = before.last().map(|step| (step.node, step.field));
        match ((last.node, last.field), parent) {
            (("VariableSetStmt", "name"), _) => self.lifts |= is_setting(value),
            (("DefElem", "defname"), _) => self.option = is_setting(value),
            (("String", "sval"), Some(("FuncCall", "funcname"))) => {
                self.lifts |= WRITING.contains(&value);
                // The last part of the name stays.
                if let Some((name, _)) = self.functions.last_mut() {
                    name.clear();
                    name.push_str(value);
                }
            }
            // `(5).lo_unlink` calls it.
            (("String", "sval"), Some(("AIndirection", "indirection"))) => {
                self.lifts |= WRITING.contains(&value);
            }
            (("String", "sval"), _) => self.lifts |= self.sets(1) && is_setting(value),
            _ => {}
        }
    }

    fn number(&mut self, path: &[Step], value: i32) {
        let integer = path
            .last()
            .is_some_and(|step| (step.node, step.field) == ("Integer", "ival"));
        self.lifts |= integer && self.option && value == 0;
    }

    fn leave(&mut self, _path: &[Step], node: &'static str) {
        match node {
            "FuncCall" => drop(self.functions.pop()),
            "DefElem" => self.option = false,
            _ => {}
        }
    }

    fn present(&mut self, _path: &[Step]) {}

    fn flag(&mut self, _path: &[Step]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_it_is_found() {
        for text in [
            "set default_transaction_read_only = off",
            "SET \"Default_Transaction_Read_Only\" TO false",
            "set local transaction_read_only = 0",
            "reset transaction_read_only",
            "reset default_transaction_read_only",
            "set default_transaction_read_only to default",
            "set transaction read write",
            "set transaction isolation level serializable, read write",
            "set session characteristics as transaction read write",
            "begin read write",
            "start transaction isolation level repeatable read, read write",
            "select set_config('default_transaction_read_only', 'off', false)",
            "select pg_catalog.set_config('TRANSACTION_READ_ONLY'::text, 'off', true)",
            "select set_config('default_' || 'transaction_read_only', 'off', false)",
            "select set_config($1, 'off', false)",
            "select set_config($1::text, 'off', false)",
            "select set_config(name, setting, false) from t",
            "select set_config(setting_name => 'a', new_value => 'b', is_local => false)",
            "select set_config(lower('x'), 'off', false)",
            "explain analyze select set_config($1, 'off', false)",
            "select 1; begin read write",
            "select lo_unlink(5)",
            "select (5::oid).lo_unlink",
            "not a statement",
        ] {
            assert!(lifts_read_only(text), "{text}");
        }
    }

    #[test]
    fn what_says_nothing_of_it_is_let_go() {
        for text in [
            "select 1",
            "begin",
            "begin read only",
            "set transaction isolation level repeatable read, read only",
            "set search_path = x",
            "reset all",
            "select pg_catalog.set_config('search_path', '', false)",
            "select set_config('app.user'::text, $1, true)",
            "select set_config('app.user', name || 'x', true) from t",
            "select lower(set_config('a.b', lower('c'), true))",
            "commit",
            "vacuum (full 0) t",
        ] {
            assert!(!lifts_read_only(text), "{text}");
        }
    }
}
