//! Errors of policy files, and how they are shown.
//!
//! It owns their form. Each error points at its place, as a compiler's does; colours are the
//! command line's business.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::problem::Problem;

/// One error: what is wrong, where, and perhaps what was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The file; empty for what is wrong with all of them together.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: Problem,
    /// What would be right here, where that can be told.
    pub help: Option<String>,
    /// The text of the line, or the part of a long line that the place is in.
    pub(super) text: String,
    /// How many characters of `text` are before the place.
    pub(super) lead: usize,
    /// How many characters to underline.
    pub(super) width: usize,
}

impl PolicyError {
    /// What is wrong with all files together.
    pub(super) fn of_all(problem: Problem) -> Self {
        Self {
            file: String::new(),
            line: 0,
            column: 0,
            problem,
            help: None,
            text: String::new(),
            lead: 0,
            width: 0,
        }
    }

    /// `error`, or `warning` for what keeps no policy from being in force.
    pub const fn severity(&self) -> &'static str {
        match self.problem {
            Problem::Warning(_) => "warning",
            _ => "error",
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.severity(), self.problem)?;
        if !self.file.is_empty() {
            let Self {
                file,
                line,
                column,
                text,
                width,
                ..
            } = self;
            // Tabs stay tabs, so that the marks stand below what they mark.
            let lead = text.chars().take(self.lead);
            let lead: String = lead.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, "  --> {file}:{line}:{column}")?;
            writeln!(f, "     |")?;
            writeln!(f, "{line:>4} | {text}")?;
            writeln!(f, "     | {lead}{:^<width$}", "")?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "     = {help}")?;
        }
        Ok(())
    }
}

impl core::error::Error for PolicyError {}

/// The errors of a load, by file and line; never empty, and never more than [`super::ERRORS_MAX`]
/// and a last one that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            write!(f, "{gap}{error}")?;
        }
        Ok(())
    }
}

impl core::error::Error for PolicyErrors {}
