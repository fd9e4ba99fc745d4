//! Documents in one form, so that two of them can be compared line by line.
//!
//! It owns that form: what a document says, without comments, quotes, layout and the order of keys.
//! It must not know what a document means; one that is wrong has a form, too.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use saphyr_parser::Span;

use super::error::PolicyErrors;
use super::problem::Problem;
use super::read::Reader;
use super::yaml::{Node, Value};
use super::{FILE_BYTES_MAX, Source, files, yaml};

/// A document in its one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalDocument {
    /// The file that it stands in.
    pub file: String,
    /// The line that it starts on, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

/// Every document of some files, by kind and name.
///
/// # Errors
/// If a text is no YAML of the language, a document has no kind and name, or two have the same.
pub fn normal_documents(
    sources: &[Source<'_>],
) -> Result<BTreeMap<(String, String), NormalDocument>, PolicyErrors> {
    let mut documents = BTreeMap::new();
    let mut errors = Vec::new();
    for source in sources {
        let mut reader = Reader::new(*source, &mut errors);
        if source.text.len() > FILE_BYTES_MAX {
            reader.report(Span::default(), Problem::FileTooLarge);
            continue;
        }
        let nodes = yaml::read(source.text, |span, problem| reader.report(span, problem));
        for node in &nodes {
            keep(&mut reader, node, &mut documents);
        }
    }
    match errors.is_empty() {
        true => Ok(documents),
        false => Err(PolicyErrors(errors)),
    }
}

fn keep(
    reader: &mut Reader<'_>,
    node: &Node,
    documents: &mut BTreeMap<(String, String), NormalDocument>,
) -> Option<()> {
    let within = "a document";
    let fields = reader.fields(node, within, ["kind", "name", "spec"])?;
    let known: Vec<(&str, &str)> = files::kind_names().map(|name| (name, name)).collect();
    let kind = reader.required(&fields, "kind", within, node.span);
    let kind = kind.and_then(|node| reader.one_of(node, "kind", &known));
    let name_node = reader.required(&fields, "name", within, node.span)?;
    let name = reader.text(name_node)?;
    let kind = kind?;
    let mut text = String::new();
    write_entries(node, 0, &mut text);
    let document = NormalDocument {
        file: reader.source.file.into(),
        line: node.span.start.line(),
        text,
    };
    let key = (String::from(kind), String::from(name));
    if let Some(first) = documents.get(&key) {
        let first = format!("{}:{}", first.file, first.line);
        let name = key.1;
        reader.report(name_node.span, Problem::DuplicateName { kind, name, first });
        return None;
    }
    documents.insert(key, document);
    Some(())
}

/// Writes a mapping's or list's entries, each on lines of its own. Recursion is bounded by the depth
/// that reading allows.
fn write_entries(node: &Node, depth: usize, out: &mut String) {
    match &node.value {
        Value::Mapping(entries) => {
            let mut entries: Vec<(String, &Node)> = entries
                .iter()
                .map(|(key, value)| (inline(key), value))
                .collect();
            entries.sort_by(|(a, _), (b, _)| (rank(a), a).cmp(&(rank(b), b)));
            for (key, value) in entries {
                indent(depth, out);
                let _ = write!(out, "{key}:");
                write_value(value, depth, out);
            }
        }
        Value::Sequence(entries) => {
            for entry in entries {
                indent(depth, out);
                out.push('-');
                write_value(entry, depth, out);
            }
        }
        Value::Null | Value::Scalar { .. } => {
            indent(depth, out);
            let _ = writeln!(out, "{}", inline(node));
        }
    }
}

fn write_value(value: &Node, depth: usize, out: &mut String) {
    match &value.value {
        Value::Mapping(entries) if !entries.is_empty() => {
            out.push('\n');
            write_entries(value, depth + 1, out);
        }
        Value::Sequence(entries) if !entries.is_empty() => {
            out.push('\n');
            write_entries(value, depth + 1, out);
        }
        _ => {
            let _ = writeln!(out, " {}", inline(value));
        }
    }
}

/// The keys that every document begins with.
fn rank(key: &str) -> usize {
    let first = ["kind", "name", "spec"];
    let place = first.iter().position(|known| *known == key);
    place.unwrap_or(first.len())
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// What has no lines of its own.
fn inline(node: &Node) -> String {
    match &node.value {
        Value::Null => "~".into(),
        Value::Mapping(_) => "{}".into(),
        Value::Sequence(_) => "[]".into(),
        Value::Scalar { text, plain } if needs_quotes(text, *plain) => quoted(text),
        Value::Scalar { text, .. } => text.clone(),
    }
}

/// Quotes stay where they make a difference to the language, and where YAML would read something else.
fn needs_quotes(text: &str, plain: bool) -> bool {
    let special = |c: char| matches!(c, '"' | '\'' | '\\' | '{' | '}' | '[' | ']' | ',' | '`');
    let leads = |c: char| matches!(c, '*' | '&' | '!' | '|' | '>' | '%' | '@' | '-' | '?' | '#');
    text.is_empty()
        || (!plain && matches!(text, "true" | "false" | "~"))
        || text.starts_with(leads)
        || text.trim() != text
        || text.contains(|c: char| c.is_control() || special(c))
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let source = Source { file: "f", text };
        let documents = normal_documents(&[source]).unwrap();
        documents.into_values().map(|it| it.text).collect()
    }

    const WRITTEN: &str = "
# A comment.
name: r
kind: 'Rule'
spec: {then: {deny: \"no: never\"}, match: {targets: [a, \"*b\"], noWhere: true, users: ['true']}}
";

    #[test]
    fn comments_quotes_layout_and_the_order_of_keys_are_no_difference() {
        let same = "
kind: Rule
name: r
spec:
  match:
    noWhere: true   # really
    users:
      - \"true\"
    targets: [ 'a' , '*b' ]
  then:
    deny: 'no: never'
";
        assert_eq!(texts(WRITTEN), texts(same));
        assert_eq!(
            texts(WRITTEN),
            [
                "kind: Rule\nname: r\nspec:\n  match:\n    noWhere: true\n    targets:\n      - a\n      - \"*b\"\n    users:\n      - \"true\"\n  then:\n    deny: \"no: never\"\n"
            ]
        );
    }

    #[test]
    fn the_form_says_what_was_written() {
        // What is in the form is in the form of the form.
        assert_eq!(texts(&texts(WRITTEN)[0]), texts(WRITTEN));
    }

    #[test]
    fn a_difference_in_a_value_an_entry_or_its_order_is_one() {
        for (from, to) in [
            ("noWhere: true", "noWhere: \"true\""),
            ("never", "no"),
            ("[a, ", "[a, c, "),
            ("[a, \"*b\"]", "[\"*b\", a]"),
        ] {
            assert_ne!(texts(WRITTEN), texts(&WRITTEN.replace(from, to)), "{from}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        for (text, expected) in [
            ("kind: Rule", "needs the key `name`"),
            ("kind: [", "not valid YAML"),
            (
                "kind: Rule\nname: r\nspec: {}\n---\nkind: Rule\nname: r\nspec: {}",
                "the Rule `r` is defined twice; first at f:1",
            ),
        ] {
            let errors = normal_documents(&[Source { file: "f", text }]).unwrap_err();
            assert!(errors.to_string().contains(expected), "{errors}");
        }
    }
}
