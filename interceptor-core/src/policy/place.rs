//! From a place in a scalar's text to its place in the file.
//!
//! It owns how YAML writes a text: on one line plain, in single quotes or in double quotes; on several
//! lines plain or as a block. It must not know what the text means.

use saphyr_parser::{Marker, Span};

use super::Source;
use super::yaml::{Node, Value};

/// The place of the byte `offset` of a scalar's text, up to the end of the word there. `None` if the
/// scalar goes over several lines in quotes.
pub(super) fn of_byte(source: Source<'_>, node: &Node, offset: usize) -> Option<Span> {
    let Value::Scalar { text, .. } = &node.value else {
        return None;
    };
    let (start, end) = (node.span.start, node.span.end);
    if start.line() != end.line() {
        return over_lines(source, text, node.span, offset);
    }
    let before = text.get(..offset)?;
    let line = source.text.lines().nth(start.line().checked_sub(1)?)?;
    let written = line.chars().skip(start.col());
    let written_chars = written_before(written, before.chars().count())?;
    let word = word_length(text.get(offset..)?);
    let at = |chars: usize| Marker::new(start.index() + chars, start.line(), start.col() + chars);
    Some(Span::new(at(written_chars), at(written_chars + word)))
}

/// The same in a text of several lines without quotes. What may differ from the file is the space
/// between the lines alone.
fn over_lines(source: Source<'_>, text: &str, span: Span, offset: usize) -> Option<Span> {
    let (first, last) = (span.start.line(), span.end.line());
    let mut at = 0;
    let lines = source.text.lines().enumerate();
    for (number, line) in lines.skip(first.checked_sub(1)?).take(last + 1 - first) {
        let skipped = if number + 1 == first {
            line.char_indices().nth(span.start.col())?.0
        } else {
            0
        };
        let rest = line.get(skipped..)?;
        let written = rest.trim();
        let left = text.get(at..)?;
        at += left.len() - left.trim_start().len();
        if !text.get(at..)?.starts_with(written) {
            return None;
        }
        if offset < at + written.len() {
            let offset = offset.max(at);
            let before = line.len() - rest.trim_start().len();
            let before = line.get(..before)?.chars().count();
            let col = before + text.get(at..offset)?.chars().count();
            let word = word_length(text.get(offset..)?);
            // Only how far they are from each other counts of the indices.
            let index = span.start.index();
            let end = Marker::new(index + word, number + 1, col + word);
            return Some(Span::new(Marker::new(index, number + 1, col), end));
        }
        at += written.len();
    }
    None
}

/// Of the word that a text begins with; 1 if it begins with none.
fn word_length(text: &str) -> usize {
    let is_word = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '.');
    text.chars().take_while(is_word).count().max(1)
}

/// How many characters of the file stand before the character of that number of the text.
fn written_before(mut written: impl Iterator<Item = char>, chars: usize) -> Option<usize> {
    let quote = written.next()?;
    match quote {
        '\'' => {
            let mut count = 1;
            for _ in 0..chars {
                // A quote is written twice.
                count += match written.next()? {
                    '\'' => {
                        written.next()?;
                        2
                    }
                    _ => 1,
                };
            }
            Some(count)
        }
        '"' => {
            let mut count = 1;
            for _ in 0..chars {
                count += match written.next()? {
                    '\\' => {
                        let more = match written.next()? {
                            'x' => 2,
                            'u' => 4,
                            'U' => 8,
                            _ => 0,
                        };
                        for _ in 0..more {
                            written.next()?;
                        }
                        2 + more
                    }
                    _ => 1,
                };
            }
            Some(count)
        }
        // A block, whose text begins on the next line.
        '|' | '>' => None,
        _ => Some(chars),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::super::yaml;
    use super::*;

    /// The text of the file at the place of `needle` in the scalar's text.
    fn found(file: &str, needle: &str) -> Option<String> {
        let documents = yaml::read(file, |_, problem| panic!("{problem}"));
        let Value::Mapping(entries) = &documents[0].value else {
            panic!("a mapping");
        };
        let node = &entries[0].1;
        let Value::Scalar { text, .. } = &node.value else {
            panic!("a text");
        };
        let source = Source {
            file: "f",
            text: file,
        };
        let span = of_byte(source, node, text.find(needle).unwrap())?;
        let line = file.lines().nth(span.start.line() - 1).unwrap();
        Some(
            line.chars()
                .skip(span.start.col())
                .take(span.len())
                .collect(),
        )
    }

    #[test]
    fn a_word_is_found_however_it_is_written() {
        for (file, needle, expected) in [
            ("when: a.b == usr\n", "usr", Some("usr")),
            ("when: 'a == ''ü'' && usr.x'\n", "usr", Some("usr.x")),
            (
                "when: \"a == \\\"\\u00fc\\\" && usr\"\n",
                "usr",
                Some("usr"),
            ),
            ("# ü\nwhen: ü && usr # more\n", "usr", Some("usr")),
            ("when: a &&\n", "&&", Some("&")),
            ("when: >-\n  a && usr\n", "usr", Some("usr")),
            ("when: a &&\n  usr\n", "usr", Some("usr")),
            (
                "when: |\n  ü == 1 &&\n\n    b == usr.x\n",
                "usr",
                Some("usr.x"),
            ),
            ("when: >\n  a ==\n  1 && usr\nthen: x\n", "usr", Some("usr")),
            ("when: 'a ==\n  usr'\n", "usr", None),
            ("when: \"a ==\n  usr\"\n", "usr", None),
        ] {
            assert_eq!(found(file, needle).as_deref(), expected, "{file}");
        }
    }
}
