//! Where in a text the grammar stopped understanding it, as the server's errors tell.
//!
//! The parser's wrapper drops the position. But whatever comes before the offending token is the
//! start of some sentence of the grammar, so a text that is cut there does not fail *at* a token,
//! and one that is cut behind it does: the token is found by bisection.

/// Bytes of a text whose error is looked for; parsing it some ten times must stay cheap.
const TEXT_BYTES_MAX: usize = 64 << 10;

const AT_TOKEN: &str = "syntax error at or near";
const AT_END: &str = "syntax error at end of input";

/// The position in characters from 1, or 0 if it is not found.
pub(super) fn of_error(text: &str, message: &str) -> usize {
    if text.len() > TEXT_BYTES_MAX {
        return 0;
    }
    if message.starts_with(AT_END) {
        return text.chars().count() + 1;
    }
    let Ok(scanned) = pg_query::scan(text) else {
        return 0;
    };
    if !message.starts_with(AT_TOKEN) {
        return 0;
    }
    let offending = scanned.tokens.partition_point(|token| {
        let cut = usize::try_from(token.end)
            .ok()
            .and_then(|end| text.get(..end));
        !cut.is_some_and(fails_at_token)
    });
    let start = scanned
        .tokens
        .get(offending)
        .and_then(|token| usize::try_from(token.start).ok());
    start
        .and_then(|start| text.get(..start))
        .map_or(0, |before| before.chars().count() + 1)
}

fn fails_at_token(text: &str) -> bool {
    matches!(pg_query::parse(text, 0), Err(pg_query::Error::Parse(message)) if message.starts_with(AT_TOKEN))
}
