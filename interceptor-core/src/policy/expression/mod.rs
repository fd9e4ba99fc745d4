//! CEL expressions over the facts of a command.
//!
//! It owns the variables that an expression may name, their types, and what an expression costs. It
//! must not know where an expression stands in a policy, or what doubt means there.

use alloc::string::String;

use super::{Input, Target, Who};
use crate::command::Subject;

/// A checked expression that says yes, no, or that it cannot tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    text: String,
}

/// Why a text is no expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// Byte in the text.
    pub offset: usize,
    /// In a sentence.
    pub message: String,
}

/// What an expression says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// It rests on something that is not known.
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
        Ok(Self { text: text.into() })
    }

    /// What it says of a command.
    pub fn evaluate(&self, _scope: &Scope<'_>) -> Truth {
        Truth::Unknown
    }
}
