//! `interceptor policy diff`: which documents two policies do not have in common.

use std::collections::BTreeSet;
use std::io::{self, Write};

use interceptor_core::audit::render::Escaped;
use interceptor_core::policy::{NormalDocument, normal_documents};
use serde_json::{Value, json};
use similar::TextDiff;

use super::super::CliError;
use super::super::output::{self, Colour, Colours};
use super::files::PolicyFiles;
use super::questions::DiffArgs;
use crate::policy_files::PolicyFilesError;

/// A document that is not the same on both sides.
struct Change {
    kind: String,
    name: String,
    before: Option<NormalDocument>,
    after: Option<NormalDocument>,
}

impl Change {
    fn word(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }

    /// A unified diff, with what both sides are called.
    fn diff(&self, [a, b]: [&str; 2]) -> String {
        let text = |side: &Option<NormalDocument>| {
            side.as_ref().map(|it| it.text.clone()).unwrap_or_default()
        };
        let place = |label: &str, side: &Option<NormalDocument>| match side {
            Some(document) => format!("{label} ({}:{})", document.file, document.line),
            None => "/dev/null".to_owned(),
        };
        let (before, after) = (text(&self.before), text(&self.after));
        TextDiff::from_lines(&before, &after)
            .unified_diff()
            .header(&place(a, &self.before), &place(b, &self.after))
            .to_string()
    }
}

pub(super) fn run(arguments: &DiffArgs, out: &mut impl Write) -> Result<(), CliError> {
    let [a, b] =
        [&arguments.a, &arguments.b].map(|word| PolicyFiles::named(word, &arguments.source));
    let (a, b) = (a?, b?);
    let changes = changes(&a, &b)?;
    let labels = [a.label.as_str(), b.label.as_str()];
    if arguments.source.common.json {
        output::json(out, &as_json(&changes, labels))?;
    } else {
        print(&changes, labels, out)?;
    }
    match changes.is_empty() {
        true => Ok(()),
        false => Err(CliError::Answered),
    }
}

fn changes(a: &PolicyFiles, b: &PolicyFiles) -> Result<Vec<Change>, CliError> {
    let mut before = normal_documents(&a.sources()).map_err(PolicyFilesError::Policy)?;
    let mut after = normal_documents(&b.sources()).map_err(PolicyFilesError::Policy)?;
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let changes = keys.into_iter().map(|key| {
        let (before, after) = (before.remove(&key), after.remove(&key));
        let (kind, name) = key;
        Change {
            kind,
            name,
            before,
            after,
        }
    });
    // Where a document stands makes no difference to it.
    let text = |side: &Option<NormalDocument>| side.as_ref().map(|it| it.text.clone());
    Ok(changes
        .filter(|change| text(&change.before) != text(&change.after))
        .collect())
}

fn print(changes: &[Change], labels: [&str; 2], out: &mut impl Write) -> io::Result<()> {
    let colours = Colours::for_stdout();
    for (index, change) in changes.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        let Change { kind, name, .. } = change;
        writeln!(out, "{gap}{} {kind} {name}", change.word())?;
        for line in change.diff(labels).lines() {
            let colour = match line.chars().next() {
                Some('+') => Some(Colour::Green),
                Some('-') => Some(Colour::Red),
                Some('@') => Some(Colour::Dim),
                _ => None,
            };
            let line = Escaped(line).to_string();
            let line = colour.map_or(line.clone(), |colour| colours.paint(colour, &line));
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn as_json(changes: &[Change], labels: [&str; 2]) -> Value {
    let place = |side: &Option<NormalDocument>| match side {
        Some(document) => json!({ "file": document.file, "line": document.line }),
        None => Value::Null,
    };
    let change = |change: &Change| {
        json!({
            "change": change.word(),
            "kind": change.kind,
            "name": change.name,
            "before": place(&change.before),
            "after": place(&change.after),
            "diff": change.diff(labels),
        })
    };
    json!({ "changes": changes.iter().map(change).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TARGET: &str =
        "kind: Target\nname: db\nspec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}\n";
    const RULE: &str = "kind: Rule\nname: r\nspec: {match: {statements: [DROP]}, then: deny}\n";

    fn policy(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn words(a: &[(&str, &str)], b: &[(&str, &str)]) -> Vec<String> {
        let [a, b] = [a, b].map(|files| {
            let directory = policy(files);
            PolicyFiles::of_directory(directory.path()).unwrap()
        });
        let changes = changes(&a, &b).unwrap();
        let word = |it: &Change| format!("{} {} {}", it.word(), it.kind, it.name);
        changes.iter().map(word).collect()
    }

    #[test]
    fn a_document_that_moves_or_is_laid_out_anew_is_no_change() {
        let one = format!("{TARGET}---\n{RULE}");
        let moved = "# the same\nname: r\nkind: Rule\nspec:\n  then: deny\n  match:\n    statements:\n    - DROP\n";
        assert!(
            words(
                &[("a.yaml", &one)],
                &[("t.yaml", TARGET), ("r.yaml", moved)]
            )
            .is_empty()
        );
    }

    #[test]
    fn what_comes_goes_and_changes_is_told_by_kind_and_name() {
        let laxer = RULE.replace("deny", "hold");
        let other = RULE.replace("name: r", "name: other");
        assert_eq!(
            words(
                &[
                    ("t.yaml", TARGET),
                    ("r.yaml", RULE),
                    ("m.yaml", "kind: Mask\nname: m\nspec: {patterns: [email]}\n")
                ],
                &[("t.yaml", TARGET), ("r.yaml", &laxer), ("o.yaml", &other)]
            ),
            ["removed Mask m", "added Rule other", "changed Rule r"]
        );
    }
}
