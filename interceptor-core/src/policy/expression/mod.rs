//! CEL expressions over the facts of a command.
//!
//! It owns the variables that an expression may name, their types, and what an expression costs. It
//! must not know where an expression stands in a policy, or what doubt means there.
//!
//! The way of a text: [`guard`] bounds it, the `cel` crate parses it, [`check`] turns the crate's tree
//! into the [`tree`] of this module, which holds nothing that has no type or no meaning here, and
//! [`evaluate`] computes that tree for a command. [Why](../../../../docs/adr/0019-own-checker-for-cel.md)
//! only the crate's parser is used.

mod check;
mod cost;
mod evaluate;
mod guard;
mod text;
mod tree;
mod variable;

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use super::{Input, Target, Who};
use crate::command::Subject;

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 2_000;
/// The deepest nesting of brackets, and of operators below each other, in an expression.
pub const EXPRESSION_DEPTH_MAX: usize = 32;
/// The most steps that an expression may be estimated to take, and may take: running out is a doubt.
pub const EXPRESSION_STEPS_MAX: u32 = 10_000;

/// A checked expression that says yes, no, or that it cannot tell.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    condition: Arc<tree::Condition>,
    variables: Arc<[&'static str]>,
}

/// The tree says nothing that the text does not.
impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

/// Equal texts mean the same.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

/// Why a text is no expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// Byte in the text.
    pub offset: usize,
    /// In a sentence.
    pub message: String,
}

impl ExpressionError {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        Self {
            offset,
            message: message.into(),
        }
    }
}

/// What an expression says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// It rests on something that is not known, or on a value that there is not (a quotient by zero).
    Unknown,
}

/// What an expression is about.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The target.
    pub target: &'a Target,
    /// The client.
    pub subject: &'a Subject,
    /// The person behind it.
    pub who: &'a Who,
    /// The command.
    pub input: &'a Input<'a>,
}

impl Expression {
    /// Parses and checks an expression.
    ///
    /// # Errors
    /// If it is no CEL, its types do not fit, or it could cost too much.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        guard::check(text)?;
        let syntax = guard::parse(text)?;
        let (condition, mut variables) = check::check(text, &syntax)?;
        let steps = cost::condition(&condition);
        if steps > u64::from(EXPRESSION_STEPS_MAX) {
            return Err(ExpressionError::new(
                0,
                alloc::format!(
                    "the expression may take {steps} steps, more than {EXPRESSION_STEPS_MAX}; go through fewer lists inside each other, or write several rules"
                ),
            ));
        }
        variables.sort_unstable();
        variables.dedup();
        Ok(Self {
            text: text.into(),
            condition: Arc::new(condition),
            variables: variables.into(),
        })
    }

    /// It, as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The variables that it names, in the order of the alphabet.
    pub fn variables(&self) -> &[&'static str] {
        &self.variables
    }

    /// What it says of a command.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Truth {
        match evaluate::evaluate(&self.condition, scope) {
            Some(true) => Truth::Yes,
            Some(false) => Truth::No,
            None => Truth::Unknown,
        }
    }
}

/// A word that was probably meant, for the end of a message.
fn hint<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let help = super::read::did_you_mean(word, known);
    help.map(|help| alloc::format!("; {help}"))
        .unwrap_or_default()
}
