//! Operators, functions and methods.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::parser::Expression as Syntax;
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use regex::RegexBuilder;

use super::{Checked, Checker, Typed, wants};
use crate::policy::expression::hint;
use crate::policy::expression::tree::{Clock, Condition, Moment, Number, Operation, Relation};

/// What can be called.
const FUNCTIONS: [&str; 13] = [
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "size",
    "exists",
    "all",
    "exists_one",
    "has",
    "timestamp",
    "getHours",
    "getMinutes",
    "getDayOfWeek",
];

/// The largest pattern that `matches` takes, compiled.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// The deepest nesting in it.
const PATTERN_DEPTH_MAX: u32 = 50;

impl Checker<'_> {
    pub(super) fn call(&mut self, syntax: &Syntax, call: &CallExpr) -> Checked<Typed> {
        let name = call.func_name.as_str();
        match (&call.target, call.args.as_slice()) {
            (None, [inner]) if name == operators::LOGICAL_NOT => Ok(Typed::Bool(Condition::Not(
                Box::new(self.bool(inner, "`!`")?),
            ))),
            (None, [inner]) if name == operators::NEGATE => Ok(Typed::Int(Number::Negative(
                Box::new(self.int(inner, "`-`")?),
            ))),
            (None, args) if name == operators::CONDITIONAL => self.choice(args),
            (None, [one, other]) if let Some(sign) = sign(name) => {
                self.operator(syntax, sign, one, other)
            }
            (None, [inner]) if name == "size" => self.size(inner),
            (None, [inner]) if name == "timestamp" => self.timestamp(inner),
            (Some(inner), []) if name == "size" => self.size(inner),
            (Some(target), args) if clock(name).is_some() => self.clock(syntax, target, name, args),
            (Some(target), [argument]) if name == "matches" => self.matches(target, argument),
            (Some(target), [argument])
                if ["startsWith", "endsWith", "contains"].contains(&name) =>
            {
                let by = format!("`{name}`");
                let both = Box::new((self.string(target, &by)?, self.string(argument, &by)?));
                Ok(Typed::Bool(match name {
                    "startsWith" => Condition::StartsWith(both),
                    "endsWith" => Condition::EndsWith(both),
                    _ => Condition::Contains(both),
                }))
            }
            _ => Err(self.unknown_call(syntax, call)),
        }
    }

    fn unknown_call(&self, syntax: &Syntax, call: &CallExpr) -> super::ExpressionError {
        let name = call.func_name.as_str();
        let shape: String = match name {
            operators::INDEX => "`[…]` takes one entry of a list, whose order means nothing; write `list.exists(x, x == …)`".into(),
            "exists" | "all" | "exists_one" => format!("write `{name}` as in `statement.tables.{name}(t, t == 'orders')`"),
            "has" => "write `has` as in `has(process.executable)`".into(),
            "startsWith" | "endsWith" | "contains" | "matches" => format!("write `{name}` as in `client.user.{name}('app')`"),
            "size" => "write `size` as in `size(statement.tables)`".into(),
            "timestamp" => "write `timestamp` as in `timestamp('2030-01-31T09:00:00Z')`".into(),
            _ if name.starts_with('@') || name.contains('_') && !name.contains(char::is_alphabetic) => "this operator means nothing here".into(),
            _ => format!("there is no function `{name}`{}", hint(name, FUNCTIONS)),
        };
        self.error(syntax, shape)
    }

    fn operator(
        &mut self,
        syntax: &Syntax,
        sign: Sign,
        one: &Syntax,
        other: &Syntax,
    ) -> Checked<Typed> {
        let by = format!("`{}`", sign.written());
        match sign {
            Sign::And => {
                let both = Box::new((self.bool(one, &by)?, self.bool(other, &by)?));
                Ok(Typed::Bool(Condition::And(both)))
            }
            Sign::Or => {
                let both = Box::new((self.bool(one, &by)?, self.bool(other, &by)?));
                Ok(Typed::Bool(Condition::Or(both)))
            }
            Sign::In => self.within(one, other),
            Sign::Relation(relation) => self.relation(syntax, relation, &by, one, other),
            Sign::Operation(operation) => match self.typed(one)? {
                Typed::Text(text) if operation == Operation::Add => {
                    let other = self.string(other, "`+` after a string")?;
                    Ok(Typed::Text(super::Text::Joined(Box::new((text, other)))))
                }
                Typed::Int(number) => {
                    let both = Box::new((number, self.int(other, &by)?));
                    Ok(Typed::Int(Number::Computed(operation, both)))
                }
                found => Err(self.error(one, wants(&by, "ints", &found))),
            },
        }
    }

    fn relation(
        &mut self,
        syntax: &Syntax,
        relation: Relation,
        by: &str,
        one: &Syntax,
        other: &Syntax,
    ) -> Checked<Typed> {
        let (first, second) = (self.typed(one)?, self.typed(other)?);
        let is_equality = matches!(relation, Relation::Equal | Relation::Different);
        let equality = |same: Condition| match relation {
            Relation::Equal => same,
            _ => Condition::Not(Box::new(same)),
        };
        Ok(Typed::Bool(match (first, second) {
            (Typed::Int(a), Typed::Int(b)) => Condition::Numbers(relation, Box::new((a, b))),
            (Typed::Text(a), Typed::Text(b)) => Condition::Texts(relation, Box::new((a, b))),
            (Typed::Moment(a), Typed::Moment(b)) => Condition::Moments(relation, Box::new((a, b))),
            (Typed::Bool(a), Typed::Bool(b)) if is_equality => {
                equality(Condition::Same(Box::new((a, b))))
            }
            (Typed::Texts(a), Typed::Texts(b)) if is_equality => {
                equality(Condition::SameLists(Box::new((a, b))))
            }
            (a, b) => {
                let message = match (&a, &b) {
                    (Typed::Texts(_), Typed::Text(_)) => format!(
                        "{by} cannot compare a list of strings with a string; write `… in …`"
                    ),
                    (Typed::Moment(_), Typed::Text(_)) => format!(
                        "{by} cannot compare a timestamp with a string; write `timestamp('…')`"
                    ),
                    _ => format!("{by} cannot compare {} with {}", a.name(), b.name()),
                };
                return Err(self.error(syntax, message));
            }
        }))
    }

    fn within(&mut self, one: &Syntax, other: &Syntax) -> Checked<Typed> {
        let (first, second) = (self.typed(one)?, self.typed(other)?);
        Ok(Typed::Bool(match (first, second) {
            (Typed::Text(text), Typed::Texts(list)) => Condition::TextIn(Box::new((text, list))),
            (Typed::Int(number), Typed::Ints(list)) => {
                Condition::NumberIn(Box::new((number, list)))
            }
            (Typed::Text(_), Typed::Text(_)) => {
                return Err(self.error(
                    other,
                    "`in` takes a list; to look for a text within a text write `….contains(…)`",
                ));
            }
            (first, second) => {
                return Err(self.error(
                    other,
                    format!("`in` cannot find {} in {}", first.name(), second.name()),
                ));
            }
        }))
    }

    fn size(&mut self, inner: &Syntax) -> Checked<Typed> {
        Ok(Typed::Int(match self.typed(inner)? {
            Typed::Text(text) => Number::SizeOfText(Box::new(text)),
            Typed::Texts(list) => Number::SizeOfList(Box::new(list)),
            other => {
                return Err(self.error(
                    inner,
                    wants("`size`", "a string or a list of strings", &other),
                ));
            }
        }))
    }

    fn timestamp(&mut self, inner: &Syntax) -> Checked<Typed> {
        let parsed = literal(inner).and_then(|text| text.parse::<Timestamp>().ok());
        match parsed {
            Some(time) => Ok(Typed::Moment(Moment::Literal(time.as_nanosecond()))),
            None => Err(self.error(inner, "`timestamp` takes a time of RFC 3339 in quotes, as in `timestamp('2030-01-31T09:00:00Z')`")),
        }
    }

    fn clock(
        &mut self,
        syntax: &Syntax,
        target: &Syntax,
        name: &str,
        args: &[Syntax],
    ) -> Checked<Typed> {
        let moment = match self.typed(target)? {
            Typed::Moment(moment) => moment,
            other => {
                let by = format!("`{name}`");
                return Err(self.error(target, wants(&by, "a timestamp", &other)));
            }
        };
        let [zone] = args else {
            return Err(self.error(syntax, format!("`{name}` takes a time zone, as in `now.{name}('Europe/Berlin')` or `now.{name}('UTC')`")));
        };
        let known = literal(zone).and_then(time_zone);
        match (clock(name), known) {
            (Some(clock), Some(zone)) => Ok(Typed::Int(Number::Clock(clock, Box::new((moment, zone))))),
            _ => Err(self.error(zone, "there is no such time zone; write a name in quotes, such as 'Europe/Berlin' or 'UTC'")),
        }
    }

    fn matches(&mut self, target: &Syntax, pattern: &Syntax) -> Checked<Typed> {
        let text = self.string(target, "`matches`")?;
        let Some(literal) = literal(pattern) else {
            return Err(self.error(pattern, "`matches` takes a pattern in quotes, so that it can be checked when the policy is loaded"));
        };
        let compiled = RegexBuilder::new(literal)
            .size_limit(PATTERN_BYTES_MAX)
            .nest_limit(PATTERN_DEPTH_MAX)
            .build();
        match compiled {
            Ok(regex) => Ok(Typed::Bool(Condition::Matches(Box::new((text, regex))))),
            Err(regex::Error::CompiledTooBig(_)) => Err(self.error(
                pattern,
                format!("the pattern takes more than {PATTERN_BYTES_MAX} bytes when compiled; repeat less"),
            )),
            Err(error) => {
                // The last line says what is wrong, those before it draw the place.
                let error = format!("{error}");
                let said = error.lines().last().unwrap_or_default();
                let said = said.strip_prefix("error: ").unwrap_or(said);
                Err(self.error(pattern, format!("this is no pattern: {said}")))
            }
        }
    }
}

/// What an operator's function stands for.
#[derive(Clone, Copy)]
enum Sign {
    And,
    Or,
    In,
    Relation(Relation),
    Operation(Operation),
}

impl Sign {
    const fn written(self) -> &'static str {
        match self {
            Self::And => "&&",
            Self::Or => "||",
            Self::In => "in",
            Self::Relation(Relation::Equal) => "==",
            Self::Relation(Relation::Different) => "!=",
            Self::Relation(Relation::Less) => "<",
            Self::Relation(Relation::LessOrEqual) => "<=",
            Self::Relation(Relation::Greater) => ">",
            Self::Relation(Relation::GreaterOrEqual) => ">=",
            Self::Operation(Operation::Add) => "+",
            Self::Operation(Operation::Subtract) => "-",
            Self::Operation(Operation::Multiply) => "*",
            Self::Operation(Operation::Divide) => "/",
            Self::Operation(Operation::Remainder) => "%",
        }
    }
}

fn sign(function: &str) -> Option<Sign> {
    Some(match function {
        operators::LOGICAL_AND => Sign::And,
        operators::LOGICAL_OR => Sign::Or,
        operators::IN => Sign::In,
        operators::EQUALS => Sign::Relation(Relation::Equal),
        operators::NOT_EQUALS => Sign::Relation(Relation::Different),
        operators::LESS => Sign::Relation(Relation::Less),
        operators::LESS_EQUALS => Sign::Relation(Relation::LessOrEqual),
        operators::GREATER => Sign::Relation(Relation::Greater),
        operators::GREATER_EQUALS => Sign::Relation(Relation::GreaterOrEqual),
        operators::ADD => Sign::Operation(Operation::Add),
        operators::SUBSTRACT => Sign::Operation(Operation::Subtract),
        operators::MULTIPLY => Sign::Operation(Operation::Multiply),
        operators::DIVIDE => Sign::Operation(Operation::Divide),
        operators::MODULO => Sign::Operation(Operation::Remainder),
        _ => return None,
    })
}

fn clock(function: &str) -> Option<Clock> {
    match function {
        "getHours" => Some(Clock::Hours),
        "getMinutes" => Some(Clock::Minutes),
        "getDayOfWeek" => Some(Clock::DayOfWeek),
        _ => None,
    }
}

fn literal(syntax: &Syntax) -> Option<&str> {
    match &syntax.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// From the data that the program carries, so that a policy means the same on every host.
fn time_zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}
