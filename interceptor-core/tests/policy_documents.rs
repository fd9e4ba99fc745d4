//! What the documents for people show of the language, loads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers may fail by panicking"
)]

use std::fs;
use std::path::Path;

use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, Source};

/// What the examples speak of without showing it.
const STAGE: &str = "\
kind: Target
name: orders
spec: {protocol: postgres, endpoints: [\"192.0.2.5:5432\"], catalog: {user: interceptor_catalog}}
---
kind: ApproverGroup
name: dba
spec: {localUsers: [dana, diego]}
---
kind: ApproverGroup
name: security
spec: {localUsers: [sam]}
---
kind: Identity
name: alice
spec: {groups: [oncall, ci, analysts], is: [{users: [alice]}]}
---
kind: Rule
name: no-truncate
spec: {match: {statements: [TRUNCATE]}, then: deny}
---
kind: Rule
name: customer-deletes
spec: {match: {statements: [DELETE], writes: [customers]}, then: hold}
";

/// The pieces between lines of `---`, each with its kind and name.
fn documents(text: &str) -> Vec<(String, String, &str)> {
    let value = |document: &str, key: &str| {
        let mut lines = document.lines();
        let line = lines.find_map(|line| line.strip_prefix(key).map(str::to_owned));
        let value = line.unwrap_or_else(|| panic!("no `{key}` in\n{document}"));
        value
            .split('#')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let pieces = text.split("\n---\n");
    pieces
        .map(|piece| (value(piece, "kind:"), value(piece, "name:"), piece))
        .collect()
}

fn check(file: &str, text: &str) {
    let shown = documents(text);
    let is_shown = |kind: &str, name: &str| {
        let mut shown = shown.iter();
        shown.any(|(shown_kind, shown_name, _)| shown_kind == kind && shown_name == name)
    };
    let stage: Vec<&str> = documents(STAGE)
        .into_iter()
        .filter(|(kind, name, _)| !is_shown(kind, name))
        .map(|(_, _, piece)| piece)
        .collect();
    let sources = [
        Source { file, text },
        Source {
            file: "stage.yaml",
            text: &stage.join("\n---\n"),
        },
    ];
    let loaded = policy::load(&sources, &HashKey::new([0; 32]));
    loaded.unwrap_or_else(|errors| panic!("{file}\n{text}\n{errors}"));
}

/// The blocks of a document that are YAML, without the indentation of a list.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(fence) = lines.next() {
        if fence.trim_start() != "```yaml" {
            continue;
        }
        let indent = fence.len() - fence.trim_start().len();
        let inside = lines.by_ref().take_while(|line| line.trim_start() != "```");
        let inside: Vec<&str> = inside
            .map(|line| line.get(indent..).unwrap_or_default())
            .collect();
        blocks.push(inside.join("\n"));
    }
    blocks
}

#[test]
fn every_example_loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for file in [
        "README.md",
        "docs/policies.md",
        "docs/packs.md",
        "docs/guide.md",
    ] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        for block in blocks(&text) {
            // Other tools' files stand in the documents as well.
            if block.lines().any(|line| line.starts_with("kind:")) {
                check(file, &block);
                count += 1;
            }
        }
    }
    assert!(count >= 18, "only {count} examples were found");
}
