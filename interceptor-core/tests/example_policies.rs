//! The example policies in `policies/` decide what `policies/tests/` says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use interceptor_core::command::{Facts, KINDS, Relation, Subject};
use interceptor_core::mask::{HashKey, Method};
use interceptor_core::policy::{self, Input, Outcome, Snapshot, Source, View};
use saphyr::{LoadableYamlNode, Yaml};

fn examples() -> Arc<Snapshot> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut files: Vec<(String, String)> = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read_to_string(path).unwrap()));
        }
    }
    let sources: Vec<Source<'_>> = files
        .iter()
        .map(|(file, text)| Source { file, text })
        .collect();
    let loaded = policy::load(&sources, &HashKey::new([0; 32]));
    Arc::new(loaded.unwrap_or_else(|errors| panic!("\n{errors}")))
}

fn text<'a>(node: &'a Yaml<'_>, key: &str) -> Option<&'a str> {
    node.as_mapping_get(key)
        .map(|value| value.as_str().expect("a text"))
}

fn texts<'a>(node: &'a Yaml<'_>, key: &str) -> Vec<&'a str> {
    let list = node
        .as_mapping_get(key)
        .map(|value| value.as_sequence().expect("a list"));
    list.into_iter()
        .flatten()
        .map(|entry| entry.as_str().expect("a text"))
        .collect()
}

fn relations(node: &Yaml<'_>, key: &str) -> Vec<Relation> {
    let relation = |name: &str| match name.split_once('.') {
        Some((schema, name)) => Relation {
            schema: Some(schema.into()),
            name: name.into(),
        },
        None => Relation {
            schema: None,
            name: name.into(),
        },
    };
    texts(node, key).into_iter().map(relation).collect()
}

fn facts(case: &Yaml<'_>) -> Facts {
    let node = case.as_mapping_get("facts").expect("facts");
    let kind = |name: &str| {
        *KINDS
            .iter()
            .find(|kind| **kind == name)
            .expect("a statement kind")
    };
    Facts {
        kinds: texts(node, "kinds").into_iter().map(kind).collect(),
        reads: relations(node, "reads"),
        writes: relations(node, "writes"),
        functions: texts(node, "functions")
            .into_iter()
            .map(String::from)
            .collect(),
        unfiltered: node
            .as_mapping_get("unfiltered")
            .is_some_and(|it| it.as_bool().unwrap()),
        incomplete: text(node, "incomplete").map(|why| &*String::from(why).leak()),
        ..Facts::default()
    }
}

fn subject(case: &Yaml<'_>) -> Subject {
    let client = text(case, "client").unwrap_or("203.0.113.7");
    Subject {
        client: (client.parse::<std::net::IpAddr>().unwrap(), 50_000).into(),
        process: None,
        user: text(case, "user").unwrap_or("app").into(),
        database: text(case, "database").unwrap_or("shop").into(),
    }
}

#[test]
fn the_examples_decide_as_expected() {
    let snapshot = examples();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/tests/expected.yaml");
    let expected = fs::read_to_string(path).unwrap();
    let documents = Yaml::load_from_str(&expected).unwrap();
    let cases = documents[0].as_sequence().unwrap();
    assert!(cases.len() >= 20, "cases were lost");
    for case in cases {
        let name = text(case, "case").unwrap();
        let target = text(case, "target").unwrap_or("orders");
        let view = View::new(Arc::clone(&snapshot), target, subject(case)).unwrap();
        let decision = view.decide(&Input {
            facts: &facts(case),
            text: "",
            now_unix_ns: 0,
        });
        let rule = decision.rule.as_ref().map_or("none", |rule| &rule.name);
        assert_eq!(rule, text(case, "rule").unwrap(), "{name}");
        let (outcome, timeout) = match decision.outcome {
            Outcome::Allow => ("allow", None),
            Outcome::Deny | Outcome::Terminate => ("deny", None),
            Outcome::Hold(plan) => ("hold", Some(plan.timeout)),
        };
        assert_eq!(outcome, text(case, "outcome").unwrap(), "{name}");
        if let Some(minutes) = text(case, "timeout") {
            let minutes: u64 = minutes.strip_suffix('m').unwrap().parse().unwrap();
            assert_eq!(timeout.unwrap().as_secs(), minutes * 60, "{name}");
        }
        assert!(!decision.reason.is_empty(), "{name}");
    }
}

#[test]
fn the_examples_mask_as_they_say() {
    let snapshot = examples();
    let masks = &snapshot.target("orders").unwrap().masks;
    for (schema, table, column, method) in [
        ("public", "customers", "email", Some(Method::Partial)),
        ("archive", "customers", "email", None),
        ("archive", "customers", "card_number", Some(Method::Partial)),
        ("public", "customers", "tax_id", Some(Method::Hash)),
        ("public", "customers", "ssn", Some(Method::Null)),
        ("auth", "users", "password_hash", Some(Method::Null)),
        ("public", "customers", "name", None),
    ] {
        assert_eq!(
            masks.column(schema, table, column),
            method,
            "{schema}.{table}.{column}"
        );
    }
    assert!(masks.has_columns() && masks.has_patterns());
    assert!(
        masks.may_mask(None, "customers", "email"),
        "the schema is open, so it may be public"
    );
    let names: Vec<&str> = masks.column_names(None, "orders").collect();
    assert_eq!(names, ["password*", "api_key"]);
}
