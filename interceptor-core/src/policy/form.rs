//! What a formatter may change in a policy file, and what it must keep.
//!
//! It owns the question whether two texts say the same: the same documents, scalar for scalar, and
//! the same comments. It must not know how a text should look, nor what a document means.

use alloc::string::String;
use alloc::vec::Vec;

use saphyr_parser::Span;

use super::error::PolicyErrors;
use super::read::Reader;
use super::yaml::{Node, Value};
use super::{FILE_BYTES_MAX, Problem, Source, files, yaml};

/// What a file says, without how it is laid out.
#[derive(Debug)]
pub struct Form {
    documents: Vec<Node>,
    comments: Vec<String>,
}

impl Form {
    /// Reads a file of documents that have `kind`, `name` and `spec`. What stands in `spec` is not
    /// looked at: a file may be brought into form before it is right.
    ///
    /// # Errors
    /// If the text is no YAML of the language, or a document is none of policy.
    pub fn read(source: Source<'_>) -> Result<Self, PolicyErrors> {
        let mut errors = Vec::new();
        let mut reader = Reader::new(source, &mut errors);
        let mut documents = Vec::new();
        if source.text.len() > FILE_BYTES_MAX {
            reader.report(Span::default(), Problem::FileTooLarge);
        } else {
            documents = yaml::read(source.text, |span, problem| reader.report(span, problem));
        }
        if reader.errors.is_empty() && documents.is_empty() {
            reader.report(Span::default(), Problem::EmptyDocument);
        }
        for document in &documents {
            check_head(&mut reader, document);
        }
        if !errors.is_empty() {
            return Err(PolicyErrors(errors));
        }
        let comments = comments(source.text, &documents);
        Ok(Self {
            documents,
            comments,
        })
    }

    /// Whether another text has the same documents and the same comments, in the same order.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.comments == other.comments
            && self.documents.len() == other.documents.len()
            && self.documents.iter().zip(&other.documents).all(same)
    }
}

/// Each document is one of policy, or the file is somebody else's.
fn check_head(reader: &mut Reader<'_>, document: &Node) {
    if matches!(document.value, Value::Null) {
        reader.report(document.span, Problem::EmptyDocument);
        return;
    }
    let within = "a document";
    let Some(fields) = reader.fields(document, within, ["kind", "name", "spec"]) else {
        return;
    };
    for key in ["kind", "name", "spec"] {
        reader.required(&fields, key, within, document.span);
    }
    if let Some(kind) = fields.optional("kind") {
        let known: Vec<(&str, ())> = files::kind_names().map(|name| (name, ())).collect();
        reader.one_of(kind, "kind", &known);
    }
}

/// Recursion is bounded by the depth that reading allows.
fn same((a, b): (&Node, &Node)) -> bool {
    match (&a.value, &b.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar { text: a, plain: p }, Value::Scalar { text: b, plain: q }) => {
            a == b && p == q
        }
        (Value::Sequence(a), Value::Sequence(b)) => a.len() == b.len() && a.iter().zip(b).all(same),
        (Value::Mapping(a), Value::Mapping(b)) => {
            let pair =
                |((k, v), (l, w)): (&(Node, Node), &(Node, Node))| same((k, l)) && same((v, w));
            a.len() == b.len() && a.iter().zip(b).all(pair)
        }
        _ => false,
    }
}

/// Every comment's text. A comment begins with a `#` at the start of a line or after a space, outside
/// of scalars.
fn comments(text: &str, documents: &[Node]) -> Vec<String> {
    let mut scalars = Vec::new();
    let mut waiting: Vec<&Node> = documents.iter().rev().collect();
    while let Some(node) = waiting.pop() {
        match &node.value {
            Value::Null => {}
            Value::Scalar { .. } => {
                scalars.push(node.span.start.index()..node.span.end.index());
            }
            Value::Sequence(entries) => waiting.extend(entries.iter().rev()),
            Value::Mapping(entries) => {
                for (key, value) in entries.iter().rev() {
                    waiting.extend([value, key]);
                }
            }
        }
    }
    let mut scalars = scalars.into_iter().peekable();
    let mut found = Vec::new();
    let mut comment: Option<String> = None;
    let mut before = '\n';
    for (index, c) in text.chars().enumerate() {
        while scalars.next_if(|scalar| scalar.end <= index).is_some() {}
        let in_scalar = scalars.peek().is_some_and(|scalar| scalar.contains(&index));
        match &mut comment {
            Some(words) if matches!(c, '\n' | '\r') => {
                found.push(words.trim_end().into());
                comment = None;
            }
            Some(words) => words.push(c),
            None if c == '#' && !in_scalar && before.is_whitespace() => {
                comment = Some(String::from(c));
            }
            None => {}
        }
        before = c;
    }
    found.extend(comment.map(|words| words.trim_end().into()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        Form::read(Source { file: "a", text }).unwrap()
    }

    const RULE: &str = "kind: Rule # it\nname: r\nspec: {match: {users: ['a # b', \"c\"]}}\n# end";

    #[test]
    fn layout_is_no_difference() {
        let other = "# it\nkind:   Rule\nname: r\nspec:\n  match:\n    users:\n      - \"a # b\"\n      - 'c'\n# end\n";
        let (form, other) = (form(RULE), form(other));
        assert_eq!(form.comments, ["# it", "# end"]);
        assert!(form.says_the_same(&other));
    }

    #[test]
    fn words_quotes_comments_and_order_are() {
        for (from, to) in [
            ("name: r", "name: s"),
            ("\"c\"", "c"),
            ("# end", "# and"),
            (" # it", ""),
            ("['a # b', \"c\"]", "[\"c\", 'a # b']"),
        ] {
            let changed = RULE.replace(from, to);
            assert_ne!(changed, RULE);
            assert!(!form(RULE).says_the_same(&form(&changed)), "{changed}");
        }
    }

    #[test]
    fn a_block_of_text_holds_no_comment() {
        let text = "kind: Rule\nname: r\nspec: # why\n  when: |\n    a\n    # no comment\n  b: >-\n    # none\n    c # none\n# last\n";
        assert_eq!(form(text).comments, ["# why", "# last"]);
    }

    #[test]
    fn what_is_not_policy_is_not_read() {
        for text in [
            "",
            "a: b",
            "services: {web: {image: nginx}}",
            "kind: Deployment\nname: web\nspec: {}",
            "kind: Rule\nname: r\nspec: &a {}",
            "kind: Rule\nname: r\nspec: {",
            "kind: Rule\nname: r\nspec: {}\n---\n[a]",
        ] {
            let read = Form::read(Source { file: "a", text });
            assert!(!read.unwrap_err().0.is_empty(), "{text}");
        }
    }
}
