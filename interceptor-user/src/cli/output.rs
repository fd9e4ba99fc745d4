//! How things look: tables, colours, errors, progress.
//!
//! It owns form only.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use interceptor_core::audit::render::Escaped;
use serde_json::Value;

/// Prints `interceptor: what happened; what to do`. It may quote a peer, so it is escaped.
pub(super) fn error(error: &dyn std::error::Error) {
    // A chain of causes in one line, as anyhow's `{:#}` gives it.
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let source_text = source.to_string();
        if !text.contains(&source_text) {
            let _ = write!(text, ": {source_text}");
        }
        cause = source.source();
    }
    let mut stderr = io::stderr().lock();
    for (index, line) in text.lines().enumerate() {
        let prefix = if index == 0 { "interceptor: " } else { "  " };
        // If stderr is gone, there is nobody to tell.
        let _ = writeln!(stderr, "{prefix}{}", Escaped(line));
    }
}

/// Prints a value as JSON over several lines.
pub(super) fn json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Prints aligned columns under their titles. Cells are escaped.
pub(super) fn table<const N: usize>(
    out: &mut impl Write,
    titles: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let titles = titles.map(str::to_owned);
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.clone().map(|cell| Escaped(&cell).to_string()))
        .collect();
    let mut widths = [0_usize; N];
    for row in std::iter::once(&titles).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in std::iter::once(&titles).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Cuts a text for a table's cell.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A colour of the terminal's own palette.
#[derive(Clone, Copy)]
pub(super) enum Colour {
    Red,
    Green,
    Yellow,
    Dim,
}

/// Colours for standard output: on a terminal only, and not under NO_COLOR (no-color.org).
#[derive(Clone, Copy)]
pub(super) struct Colours {
    enabled: bool,
}

impl Colours {
    pub(super) fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            enabled: io::stdout().is_terminal() && !refused && !dumb,
        }
    }

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.enabled {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Red => "31",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A count on stderr, for work that takes longer than two seconds while a person watches.
pub(super) struct Progress {
    enabled: bool,
    next: Instant,
    shown: bool,
}

impl Progress {
    const BEGINS_AFTER: Duration = Duration::from_secs(2);
    const INTERVAL: Duration = Duration::from_millis(500);

    pub(super) fn new() -> Self {
        let enabled = io::stderr().is_terminal();
        Self {
            enabled,
            next: Instant::now() + Self::BEGINS_AFTER,
            shown: false,
        }
    }

    pub(super) fn records(&mut self, count: u64) {
        // A look at the clock for each record would cost as much as its hash.
        if !self.enabled || !count.is_multiple_of(1024) || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + Self::INTERVAL;
        self.shown = true;
        let _ = write!(io::stderr(), "\r{count} records");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            // Clears the line.
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_escaped() {
        let mut out = Vec::new();
        let rows = [
            ["1".to_owned(), "a\nb".to_owned()],
            ["200".to_owned(), "é".to_owned()],
        ];
        table(&mut out, ["NUMBER", "TEXT"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NUMBER  TEXT\n1       a\\nb\n200     é\n"
        );
    }

    #[test]
    fn a_cut_text_says_so() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü!", 3), "äöü…");
    }
}
