//! From the parser's tree to one with types.
//!
//! It owns which functions and operators there are, on which types, and what to say to somebody who
//! writes others. It must not know what a value is for a command.

mod calls;
mod entries;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use cel::common::ast::{Expr, LiteralValue, SelectExpr};
use cel::parser::Expression as Syntax;

use super::tree::{Condition, List, Moment, Number, Text};
use super::variable::{NOW, ROOTS, VARIABLES, Variable};
use super::{EXPRESSION_DEPTH_MAX, ExpressionError, guard, hint};

/// A value with its type.
enum Typed {
    Bool(Condition),
    Int(Number),
    Text(Text),
    Moment(Moment),
    Texts(List),
    Ints(Vec<Number>),
}

impl Typed {
    const fn name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Text(_) => "a string",
            Self::Moment(_) => "a timestamp",
            Self::Texts(_) => "a list of strings",
            Self::Ints(_) => "a list of ints",
        }
    }
}

/// The condition, and the variables that it names.
pub(super) fn check(
    text: &str,
    syntax: &Syntax,
) -> Result<(Condition, Vec<&'static str>), ExpressionError> {
    let mut checker = Checker {
        text,
        entries: Vec::new(),
        depth: 0,
        variables: Vec::new(),
    };
    let condition = match checker.typed(syntax)? {
        Typed::Bool(condition) => condition,
        other => {
            let message = format!(
                "the expression is {}, but it has to say yes or no; compare it with something",
                other.name()
            );
            return Err(checker.error(syntax, message));
        }
    };
    Ok((condition, checker.variables))
}

struct Checker<'t> {
    text: &'t str,
    /// The names of the entries of lists that are gone through, the innermost last.
    entries: Vec<String>,
    depth: usize,
    variables: Vec<&'static str>,
}

type Checked<T> = Result<T, ExpressionError>;

impl Checker<'_> {
    fn error(&self, at: &Syntax, message: impl Into<String>) -> ExpressionError {
        let mut offset = guard::place_of(self.text, place_id(at)).unwrap_or_default();
        // The parser's place of a method is its bracket; its name is before it.
        let before = self.text.get(..offset).unwrap_or_default();
        if let Expr::Call(call) = &at.expr
            && call.target.is_some()
            && before.ends_with(&call.func_name)
        {
            offset -= call.func_name.len();
        }
        ExpressionError::new(offset, message)
    }

    fn typed(&mut self, syntax: &Syntax) -> Checked<Typed> {
        if self.depth > 3 * EXPRESSION_DEPTH_MAX {
            return Err(self.error(
                syntax,
                format!(
                    "the expression is nested deeper than {EXPRESSION_DEPTH_MAX} levels; write several rules"
                ),
            ));
        }
        self.depth += 1;
        let typed = match &syntax.expr {
            Expr::Literal(literal) => self.literal(syntax, literal),
            Expr::Ident(name) => self.name(syntax, name),
            Expr::Select(select) => self.select(syntax, select),
            Expr::List(list) => self.list(syntax, &list.elements),
            Expr::Call(call) => self.call(syntax, call),
            Expr::Comprehension(macro_) => self.entries(syntax, macro_),
            Expr::Map(_) | Expr::Struct(_) => Err(self.error(
                syntax,
                "maps and messages mean nothing here; compare variables",
            )),
            Expr::Unspecified => Err(self.error(syntax, "something is missing here")),
        };
        self.depth -= 1;
        typed
    }

    fn bool(&mut self, syntax: &Syntax, by: &str) -> Checked<Condition> {
        match self.typed(syntax)? {
            Typed::Bool(condition) => Ok(condition),
            other => Err(self.error(syntax, wants(by, "a bool", &other))),
        }
    }

    fn int(&mut self, syntax: &Syntax, by: &str) -> Checked<Number> {
        match self.typed(syntax)? {
            Typed::Int(number) => Ok(number),
            other => Err(self.error(syntax, wants(by, "an int", &other))),
        }
    }

    fn string(&mut self, syntax: &Syntax, by: &str) -> Checked<Text> {
        match self.typed(syntax)? {
            Typed::Text(text) => Ok(text),
            other => Err(self.error(syntax, wants(by, "a string", &other))),
        }
    }

    fn literal(&self, syntax: &Syntax, literal: &LiteralValue) -> Checked<Typed> {
        Ok(match literal {
            LiteralValue::Boolean(value) => Typed::Bool(Condition::Literal(*value.inner())),
            LiteralValue::Int(value) => Typed::Int(Number::Literal(*value.inner())),
            LiteralValue::String(value) => Typed::Text(Text::Literal(value.inner().into())),
            LiteralValue::UInt(_) => {
                return Err(self.error(syntax, "numbers are ints here; leave the `u` out"));
            }
            LiteralValue::Double(_) => {
                return Err(self.error(syntax, "numbers are ints here; write a whole number"));
            }
            LiteralValue::Bytes(_) => {
                return Err(self.error(syntax, "texts are strings here; leave the `b` out"));
            }
            LiteralValue::Null => {
                return Err(self.error(
                    syntax,
                    "nothing is null here; ask whether a variable is known with `has(…)`",
                ));
            }
        })
    }

    fn name(&self, syntax: &Syntax, name: &str) -> Checked<Typed> {
        if let Some(up) = self.entries.iter().rev().position(|entry| entry == name) {
            return Ok(Typed::Text(Text::Entry(up)));
        }
        if name == NOW {
            return Ok(Typed::Moment(Moment::Now));
        }
        if ROOTS.contains(&name) {
            let parts = fields(name).map(|(full, _)| full);
            return Err(self.error(
                syntax,
                format!("`{name}` is no value; name a part of it: {}", listed(parts)),
            ));
        }
        // `user` for `client.user` is the commonest slip.
        let part = VARIABLES
            .iter()
            .find(|(full, _)| full.rsplit_once('.').is_some_and(|(_, part)| part == name));
        let help = match part {
            Some((full, _)) => format!("; did you mean `{full}`?"),
            None => hint(
                name,
                self.entries
                    .iter()
                    .map(String::as_str)
                    .chain(ROOTS)
                    .chain([NOW]),
            ),
        };
        Err(self.error(
            syntax,
            format!("there is no variable `{name}`{help}; texts stand in quotes"),
        ))
    }

    /// `client.user`, or `has(client.user)`.
    fn select(&mut self, syntax: &Syntax, select: &SelectExpr) -> Checked<Typed> {
        let variable = self.variable(syntax, select)?;
        if select.test {
            return Ok(Typed::Bool(Condition::Known(variable)));
        }
        Ok(match variable {
            Variable::Text(variable) => Typed::Text(Text::Variable(variable)),
            Variable::Number(variable) => Typed::Int(Number::Variable(variable)),
            Variable::Flag(variable) => Typed::Bool(Condition::Variable(variable)),
            Variable::List(variable) => Typed::Texts(List::Variable(variable)),
        })
    }

    fn variable(&mut self, syntax: &Syntax, select: &SelectExpr) -> Checked<Variable> {
        let field = &select.field;
        let root = match &select.operand.expr {
            Expr::Ident(name) if ROOTS.contains(&name.as_str()) => name,
            Expr::Ident(name) if *name != NOW && !self.entries.contains(name) => {
                let help = hint(name, ROOTS);
                return Err(self.error(
                    syntax,
                    format!("there is no variable `{name}.{field}`{help}"),
                ));
            }
            _ => {
                let inner = self.typed(&select.operand)?;
                return Err(self.error(
                    syntax,
                    format!(
                        "{} has no part `{field}`; a call needs brackets: `.{field}(…)`",
                        inner.name()
                    ),
                ));
            }
        };
        let full = format!("{root}.{field}");
        match fields(root).find(|(name, _)| *name == full) {
            Some((name, variable)) => {
                self.variables.push(name);
                Ok(variable)
            }
            None => {
                let help = hint(&full, fields(root).map(|(name, _)| name));
                Err(self.error(syntax, format!("there is no variable `{full}`{help}")))
            }
        }
    }

    fn list(&mut self, syntax: &Syntax, elements: &[Syntax]) -> Checked<Typed> {
        let Some((first, rest)) = elements.split_first() else {
            return Err(self.error(
                syntax,
                "an empty list has no type; write `size(…) == 0` to ask whether a list is empty",
            ));
        };
        match self.typed(first)? {
            Typed::Text(text) => {
                let mut texts = Vec::from([text]);
                for element in rest {
                    texts.push(self.string(element, "a list that begins with a string")?);
                }
                Ok(Typed::Texts(List::Literal(texts)))
            }
            Typed::Int(number) => {
                let mut numbers = Vec::from([number]);
                for element in rest {
                    numbers.push(self.int(element, "a list that begins with an int")?);
                }
                Ok(Typed::Ints(numbers))
            }
            other => Err(self.error(
                first,
                format!("lists hold strings or ints, and this is {}", other.name()),
            )),
        }
    }

    fn choice(&mut self, args: &[Syntax]) -> Checked<Typed> {
        let [condition, one, other] = args else {
            return Err(ExpressionError::new(
                0,
                "`?` needs a condition and two values",
            ));
        };
        let condition = self.bool(condition, "`?`")?;
        let first = self.typed(one)?;
        let second = self.typed(other)?;
        Ok(match (first, second) {
            (Typed::Bool(a), Typed::Bool(b)) => {
                Typed::Bool(Condition::Choose(Box::new((condition, a, b))))
            }
            (Typed::Int(a), Typed::Int(b)) => {
                Typed::Int(Number::Choose(Box::new((condition, a, b))))
            }
            (Typed::Text(a), Typed::Text(b)) => {
                Typed::Text(Text::Choose(Box::new((condition, a, b))))
            }
            (Typed::Moment(a), Typed::Moment(b)) => {
                Typed::Moment(Moment::Choose(Box::new((condition, a, b))))
            }
            (Typed::Texts(a), Typed::Texts(b)) => {
                Typed::Texts(List::Choose(Box::new((condition, a, b))))
            }
            (first, second) => {
                let (a, b) = (first.name(), second.name());
                return Err(self.error(
                    other,
                    format!("both values of `?` have to be of one type; here are {a} and {b}"),
                ));
            }
        })
    }
}

/// The variables of a root.
fn fields(root: &str) -> impl Iterator<Item = (&'static str, Variable)> {
    let of_root = move |name: &str| name.split_once('.').is_some_and(|(start, _)| start == root);
    VARIABLES
        .iter()
        .copied()
        .filter(move |(name, _)| of_root(name))
}

/// What stands for a place in the text: of a variable, its beginning.
fn place_id(syntax: &Syntax) -> u64 {
    match &syntax.expr {
        Expr::Select(select) => place_id(&select.operand),
        _ => syntax.id,
    }
}

fn wants(by: &str, type_: &str, found: &Typed) -> String {
    format!("{by} takes {type_}, and this is {}", found.name())
}

fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    format!("`{}`", names.join("`, `"))
}
