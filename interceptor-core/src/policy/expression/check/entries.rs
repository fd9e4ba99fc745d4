//! `exists`, `all` and `exists_one`.
//!
//! The parser writes them out as a fold over the list. Nobody else can make one, so its start tells
//! which of them was written, and its step holds the condition.

use alloc::boxed::Box;
use alloc::format;

use cel::common::ast::{ComprehensionExpr, Expr, LiteralValue};
use cel::parser::Expression as Syntax;

use super::{Checked, Checker, Typed};
use crate::policy::expression::tree::{Condition, Entries};
use crate::policy::expression::variable::{NOW, ROOTS};

impl Checker<'_> {
    pub(super) fn entries(&mut self, syntax: &Syntax, fold: &ComprehensionExpr) -> Checked<Typed> {
        let Expr::Call(step) = &fold.loop_step.expr else {
            return Err(self.no_such(syntax));
        };
        let (which, condition) = match (&fold.accu_init.expr, step.args.as_slice()) {
            (Expr::Literal(LiteralValue::Boolean(start)), [_, condition]) => match *start.inner() {
                false => (Entries::Some, condition),
                true => (Entries::All, condition),
            },
            (Expr::Literal(LiteralValue::Int(_)), [condition, _, _]) => (Entries::One, condition),
            _ => return Err(self.no_such(syntax)),
        };
        let list = match self.typed(&fold.iter_range)? {
            Typed::Texts(list) => list,
            other => {
                let message = format!(
                    "this goes through a list of strings such as `statement.tables`, and not through {}",
                    other.name()
                );
                return Err(self.error(&fold.iter_range, message));
            }
        };
        let name = fold.iter_var.as_str();
        if name == NOW || ROOTS.contains(&name) || self.entries.iter().any(|entry| entry == name) {
            let message = format!("the name `{name}` is taken; choose another for the entry");
            return Err(self.error(syntax, message));
        }
        self.entries.push(name.into());
        let condition = self.bool(condition, "the second argument");
        self.entries.pop();
        let both = Box::new((list, condition?));
        Ok(Typed::Bool(Condition::Entries(which, both)))
    }

    fn no_such(&self, syntax: &Syntax) -> super::ExpressionError {
        let message = "`map` and `filter` make lists, which nothing here needs; write `list.exists(x, …)` or `list.all(x, …)`";
        self.error(syntax, message)
    }
}
