//! What a text has to be before it is parsed, and the parser's answer in our words.
//!
//! It owns the bounds on length and depth, which the parser, and whoever drops or walks its tree, pay
//! for with stack. It must not know what an expression means.

use alloc::format;
use alloc::vec::Vec;

use cel::parser::pratt_parser::{Lexer, PrattParser, Token, TokenKind};
use cel::parser::{Expression as Syntax, ParseError};

use super::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, ExpressionError};

/// Length, words, and depth.
pub(super) fn check(text: &str) -> Result<(), ExpressionError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(ExpressionError::new(
            EXPRESSION_BYTES_MAX,
            format!(
                "the expression is longer than {EXPRESSION_BYTES_MAX} bytes; write several rules"
            ),
        ));
    }
    if text.trim().is_empty() {
        return Err(ExpressionError::new(
            0,
            "the expression is empty; write a condition such as `statement.no_where`",
        ));
    }
    let mut levels = Vec::from([Level::default()]);
    let mut lexer = Lexer::new(text);
    loop {
        let token = lexer.lex();
        match token.kind {
            TokenKind::TokEnd => return Ok(()),
            TokenKind::TokError => return Err(unreadable(text, token, &lexer)),
            TokenKind::TokIdent
                if text
                    .get(token.start..)
                    .is_some_and(|rest| rest.starts_with('`')) =>
            {
                return Err(ExpressionError::new(
                    token.start,
                    "names stand without quotes, texts in ' or \"",
                ));
            }
            kind => count(kind, &mut levels),
        }
        let depth: usize = levels.iter().map(Level::depth).sum();
        if levels.len() - 1 > EXPRESSION_DEPTH_MAX || depth > 2 * EXPRESSION_DEPTH_MAX {
            return Err(ExpressionError::new(
                token.start,
                format!(
                    "the expression is nested deeper than {EXPRESSION_DEPTH_MAX} levels here; write several rules"
                ),
            ));
        }
    }
}

/// How deep the tree of what stands between two brackets can be: at most one level for each
/// operator. Terms of `&&` and `||` become a balanced tree, so the deepest of them counts.
#[derive(Default)]
struct Level {
    term: usize,
    deepest_term: usize,
    choices: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.term.max(self.deepest_term) + self.choices
    }
}

fn count(kind: TokenKind, levels: &mut Vec<Level>) {
    use TokenKind::*;
    let Some(level) = levels.last_mut() else {
        return;
    };
    match kind {
        TokLeftParen | TokLeftBracket | TokLeftBrace => levels.push(Level::default()),
        TokRightParen | TokRightBracket | TokRightBrace => {
            // An operand with brackets is below every operator that follows.
            let inside = level.depth() + 1;
            if levels.len() > 1 {
                levels.pop();
            }
            if let Some(outside) = levels.last_mut() {
                outside.term = outside.term.max(inside);
            }
        }
        TokLogicalAnd | TokLogicalOr | TokComma => {
            level.deepest_term = level.deepest_term.max(level.term);
            level.term = 0;
        }
        TokQuestion => level.choices += 1,
        TokDot | TokMinus | TokPlus | TokAsterisk | TokSlash | TokPercent | TokExclamation
        | TokEqualEqual | TokExclamationEqual | TokLess | TokLessEqual | TokGreater
        | TokGreaterEqual | TokIn => level.term += 1,
        _ => {}
    }
}

fn unreadable(text: &str, token: Token, lexer: &Lexer<'_>) -> ExpressionError {
    let rest = text.get(token.start..).unwrap_or_default();
    let first = rest.chars().next().unwrap_or_default();
    let message = match first {
        '&' => "write `&&` for and".into(),
        '|' => "write `||` for or".into(),
        '"' | '\'' => "the string has no end; close it with the quote that it began with".into(),
        _ => match lexer.get_error() {
            Some(error) if !error.message.contains("unexpected character") => {
                format!("this is no CEL: {}", error.message)
            }
            _ => format!("CEL has no sign `{first}`; texts stand in quotes"),
        },
    };
    ExpressionError::new(token.start, message)
}

/// Parses what [`check`] let through.
pub(super) fn parse(text: &str) -> Result<Syntax, ExpressionError> {
    let depth = 3 * EXPRESSION_DEPTH_MAX as u16;
    let parsed = PrattParser::new().max_recursion_depth(depth).parse(text);
    parsed.map_err(|errors| match errors.errors.first() {
        Some(first) => error(text, first),
        None => ExpressionError::new(0, "this is no CEL"),
    })
}

fn error(text: &str, error: &ParseError) -> ExpressionError {
    let offset = offset_of(text, error.pos);
    let found = text.get(offset..).unwrap_or_default();
    let said = error.msg.as_str();
    let message = if said.contains("recursion limit") {
        format!(
            "the expression is nested deeper than {EXPRESSION_DEPTH_MAX} levels; write several rules"
        )
    } else if found.is_empty() || said.contains("<EOF>") && said.contains("expecting expression") {
        "the expression ends too early: a value or a closing bracket is missing".into()
    } else if found.starts_with('=') {
        "write `==` to compare".into()
    } else if said.contains("argument must be a simple name") {
        "the first argument names the entry, as in `statement.tables.exists(t, t == 'orders')`"
            .into()
    } else if said.contains("has() macro") {
        "`has` takes a variable, as in `has(process.executable)`".into()
    } else if said.contains("reserved identifier") {
        format!(
            "`{}` is a word that CEL keeps for itself; choose another name",
            word(found)
        )
    } else if said.contains("int literal") {
        "this whole number is too large for 64 bits".into()
    } else if said.contains("unescape") || said.contains("code point") {
        "this text has a `\\` that means nothing; write `\\\\`, or a raw text as in r'\\d+'".into()
    } else if let Some(close) = ["')'", "']'", "'}'", "':'"].into_iter().find(|sign| {
        said.contains(&format!("expecting {sign}")) || said.contains(&format!("expected {sign}"))
    }) {
        format!("`{}` stands where {close} is missing", word(found))
    } else {
        format!(
            "`{}` cannot stand here; an operator such as `==`, `&&` or `in` may be missing before it",
            word(found)
        )
    };
    ExpressionError::new(offset, message)
}

/// The word or sign that a text begins with.
fn word(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let first = text.chars().next().map_or(0, char::len_utf8);
    text.get(..end.max(first)).unwrap_or_default()
}

/// The parser counts lines and bytes in them, from 1.
fn offset_of(text: &str, (line, column): (isize, isize)) -> usize {
    let before = usize::try_from(line - 1).unwrap_or_default();
    let lines = text.split_inclusive('\n').take(before);
    let start: usize = lines.map(str::len).sum();
    let within = usize::try_from(column - 1).unwrap_or_default();
    let mut offset = (start + within).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Where each node of the tree of `text` begins, by its id: the crate hands places out with errors
/// alone, so the text is parsed once more with an error behind it. Asked for only when there is
/// something to report.
pub(super) fn place_of(text: &str, id: u64) -> Option<usize> {
    let broken = format!("{text}\n)");
    let errors = PrattParser::new()
        .max_recursion_depth(3 * EXPRESSION_DEPTH_MAX as u16)
        .parse(&broken)
        .err()?;
    let places = errors
        .errors
        .iter()
        .find_map(|error| error.source_info.clone())?;
    let (start, _) = places.offset_for(id)?;
    usize::try_from(start)
        .ok()
        .filter(|start| *start <= text.len())
}
