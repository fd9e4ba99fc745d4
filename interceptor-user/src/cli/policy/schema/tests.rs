use std::fs;
use std::path::{Path, PathBuf};

use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, Source};
use jsonschema::Validator;
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};

use super::*;

const EVERY_KEY: &str = include_str!("every-key.yaml");
const EVERY_KEY_OF_TESTS: &str = include_str!("every-key-tests.yaml");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn validator() -> Validator {
    jsonschema::validator_for(&schema()).unwrap()
}

/// What an editor's YAML reader makes of a document.
fn json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(truth)) => Value::from(*truth),
        Yaml::Value(Scalar::Integer(number)) => Value::from(*number),
        Yaml::Value(Scalar::FloatingPoint(number)) => Value::from(number.into_inner()),
        Yaml::Value(Scalar::String(text)) => Value::from(text.as_ref()),
        Yaml::Sequence(entries) => entries.iter().map(json).collect(),
        Yaml::Mapping(entries) => {
            let key = |key: &Yaml<'_>| match json(key) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            let entries = entries.iter().map(|(k, v)| (key(k), json(v)));
            Value::Object(entries.collect())
        }
        other => panic!("{other:?} is not part of the language"),
    }
}

fn documents(text: &str) -> Vec<Value> {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents.iter().map(json).collect()
}

fn complaints(validator: &Validator, text: &str) -> Vec<String> {
    let documents = documents(text);
    let found = documents.iter().flat_map(|document| {
        let errors = validator.iter_errors(document);
        errors.map(|error| format!("{}: {error}", error.instance_path()))
    });
    found.collect()
}

fn loads(text: &str) -> Result<(), String> {
    let source = Source {
        file: "a.yaml",
        text,
    };
    let loaded = policy::load(&[source], &HashKey::new([0; 32]));
    loaded.map(drop).map_err(|errors| errors.to_string())
}

#[test]
fn the_published_schema_is_this_one() {
    let path = root().join("policies/schema.json");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, text()).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap();
    assert!(
        published == text(),
        "policies/schema.json is not what `interceptor policy schema` prints; write it anew with UPDATE_EXPECTED=1"
    );
    jsonschema::meta::validate(&schema()).unwrap_or_else(|error| panic!("{error}"));
}

/// Each mapping of the schema has the keys that loading reads, and no other.
#[test]
fn no_key_is_missing_and_none_is_too_many() {
    let mut known: Vec<(&str, Vec<&str>)> = vocabulary::mappings()
        .into_iter()
        .map(|(within, keys)| (within, keys.to_vec()))
        .collect();
    for mapping in mappings() {
        let index = known
            .iter()
            .position(|(within, _)| *within == mapping.within);
        let index = index.unwrap_or_else(|| panic!("nobody reads {}", mapping.within));
        let (within, mut read) = known.swap_remove(index);
        let mut keys: Vec<&str> = mapping.keys.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        read.sort_unstable();
        assert_eq!(keys, read, "{within}");
    }
    assert!(known.is_empty(), "the schema lacks {known:?}");
}

/// The file of the tests below leaves nothing out.
#[test]
fn every_key_is_in_the_file_of_every_key() {
    loads(EVERY_KEY).unwrap_or_else(|errors| panic!("\n{errors}"));
    for mapping in mappings() {
        for (key, _) in &mapping.keys {
            let written = [format!("{key}:"), format!("{key}: ")];
            let all = [EVERY_KEY, EVERY_KEY_OF_TESTS].concat();
            assert!(all.contains(&written[0]), "{} {key}", mapping.within);
        }
    }
    assert_eq!(complaints(&validator(), EVERY_KEY), Vec::<String>::new());
    assert_eq!(
        complaints(&validator(), EVERY_KEY_OF_TESTS),
        Vec::<String>::new()
    );
}

#[test]
fn every_policy_of_the_repository_fits() {
    let validator = validator();
    let mut waiting = vec![root().join("policies")];
    let mut count = 0;
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let text = fs::read_to_string(&path).unwrap();
            let complaints = complaints(&validator, &text);
            assert!(complaints.is_empty(), "{}: {complaints:#?}", path.display());
            count += 1;
        }
    }
    assert!(count >= 4, "only {count} files were found");
}

/// One thing at a time is broken: both see it.
#[test]
fn what_loading_refuses_of_one_document_the_schema_refuses() {
    let validator = validator();
    let changes = [
        ("kind: Mask", "kind: Masks"),
        ("name: contact\n", "name: con tact\n"),
        ("kind: Bypass\nname: ci\n", "kind: Bypass\n"),
        ("name: no-truncate\nspec:", "name: no-truncate\nspecs:"),
        ("protocol: postgres", "protocol: postgresql"),
        ("  protocol: tcp\n", ""),
        ("endpoints: [\"10.0.0.7:6379\"]", "endpoints: []"),
        (
            "endpoints: [\"10.0.0.7:6379\"]",
            "endpoints: \"10.0.0.7:6379\"",
        ),
        ("\"10.0.0.7:6379\"", "\"10.0.0.7\""),
        ("preserveClientAddress: false", "preserveClientAddress: no"),
        ("preserveClientAddress: false", "preserveClient: false"),
        ("default: allow", "default: permit"),
        ("default: allow", "default: {allow: a, deny: b}"),
        ("default: allow", "default: terminate"),
        ("{timeout: 15m,", "{timeout: 15,"),
        ("{timeout: 15m,", "{after: 15m,"),
        ("passwordFile: /etc", "passwordFile: etc"),
        ("{user: interceptor_catalog, ", "{"),
        ("tls: {client: require", "tls: {client: always"),
        ("certificate: /etc/interceptor/orders.pem, ", ""),
        (", clientKey: /etc/interceptor/gateway.key", ""),
        (
            "certificate: /etc/interceptor/orders",
            "certificate: orders",
        ),
        (
            "upstream: verify-full, ca: system,",
            "upstream: verify-full,",
        ),
        ("upstream: verify-full, ca: system", "ca: system"),
        ("upstream: verify-full", "upstream: verify"),
        ("ca: system", "ca: roots.pem"),
        ("priority: 10", "priority: 1001"),
        ("priority: 10", "priority: high"),
        ("    persons: [\"ali*\"]", "    person: [\"ali*\"]"),
        (
            "groups: [oncall]\n    process",
            "groups: oncall\n    process",
        ),
        ("uids: [1000]\n      exe", "uids: [root]\n      exe"),
        ("units: [backup", "unit: [backup"),
        (
            "clientNetworks: [10.8.0.0/16]\n",
            "clientNetworks: [office]\n",
        ),
        ("statements: [DROP, ", "statements: [DORP, "),
        ("tables: [customers]", "tables: [a.b.customers]"),
        (
            "columnsRead: [customers.card_number]",
            "columnsRead: [card_number]",
        ),
        (
            "functions: [\"pg_read_*\", dblink]",
            "functions: [dblink()]",
        ),
        ("noWhere: true", "noWhere: yes"),
        ("noWhere: true", "noWhere: \"true\""),
        ("estimatedRows: {over: 10000}", "estimatedRows: 10000"),
        (
            "estimatedRows: {over: 10000}",
            "estimatedRows: {over: many}",
        ),
        ("estimatedRows: {over: 10000}", "estimatedRows: {}"),
        ("days: [mon-fri, sun]", "days: [mon-fry, sun]"),
        ("from: \"09:00\"", "from: \"9\""),
        (", zone: Europe/Berlin", ""),
        ("text: '(?i)drop\\s+table'", "text: ['drop']"),
        ("when: statement.", "unless: statement."),
        ("      quorum: 2", "      quorum: 0"),
        ("      quorum: 2", "      quorum: two"),
        (
            "      groups: [dba, security]",
            "      groups: [dba, security]\n      group: dba",
        ),
        ("timeout: 30m", "timeout: 30 minutes"),
        (
            "onTimeout: {automatic: statement.no_where == false}",
            "onTimeout: allow",
        ),
        (
            "onTimeout: {automatic: statement.no_where == false}",
            "onTimeout: {automatic: 'true', escalate: {group: dba}}",
        ),
        (
            "      onTimeout:\n        escalate:",
            "      onTimeout:\n        escalates:",
        ),
        ("mask: [strangers]", "mask: strangers"),
        ("limit: {rows: 1000, ", "limit: {rows: some, "),
        ("bytes: 10MiB", "bytes: 10 parsecs"),
        ("duration: 30s", "duration: soon"),
        ("rate: 100/m", "rate: 100"),
        (
            "limit: {rows: 1000, bytes: 10MiB, duration: 30s, rate: 100/m}",
            "limit: {}",
        ),
        ("readOnly: true", "readOnly: maybe"),
        ("then: {deny: Ask for a migration instead.}", "then: {}"),
        (
            "then: {deny: Ask for a migration instead.}",
            "then: {deny: a, allow: b}",
        ),
        ("then: {deny: Ask for a migration instead.}", "then: refuse"),
        ("then: {deny: Ask for a migration instead.}", "then: [deny]"),
        ("  then: {deny: Ask for a migration instead.}\n", ""),
        ("  match: {statements: [TRUNCATE]}\n", ""),
        ("with: partial", "with: half"),
        ("when: named", "when: sometimes"),
        ("columns: [customers.name]", "columns: [name]"),
        ("  columns: [customers.name]\n", ""),
        ("check: mod97", "check: mod10"),
        ("context: [account, Konto]", "context: [account no]"),
        ("context: [account, Konto]", "context: []"),
        ("  pattern: '\\b([A-Z]{2}[0-9]{2}[A-Z0-9]{11,30})\\b'\n", ""),
        ("localUsers: [sec]", "localUser: [sec]"),
        ("uids: [1001]", "uids: [sec]"),
        ("    - users: [bob]", "    - {}"),
        ("    - users: [bob]", "    - {statements: [SELECT]}"),
        ("  until: 2026-11-20T18:00:00+01:00\n", ""),
        ("until: 2026-11-20T18:00:00+01:00", "until: tomorrow"),
        ("  reason: The queue has to be emptied.\n", ""),
        ("lifts: [no-truncate, default]", "lifts: no-truncate"),
        ("  lifts: [updates]", "  until: 2026-11-20T10:00:00Z"),
    ];
    for (from, to) in changes {
        let changed = EVERY_KEY.replacen(from, to, 1);
        assert_ne!(changed, EVERY_KEY, "{from} is not in the file");
        assert!(
            loads(&changed).is_err(),
            "loading takes {to:?} for {from:?}"
        );
        assert!(
            !complaints(&validator, &changed).is_empty(),
            "the schema takes {to:?} for {from:?}"
        );
    }
}

#[test]
fn what_is_written_in_other_ways_fits_as_well() {
    let validator = validator();
    let changes = [
        ("users: [app, \"analyst_*\"]", "users: [4711, true, 1.5]"),
        ("uids: [1000]\n      exe", "uids: [\"1000\"]\n      exe"),
        ("with: partial", "with: \"null\""),
        ("statements: [DROP, ", "statements: [Drop, "),
        ("name: no-copy-program", "name: 4711"),
        ("then: {deny: Ask for a migration instead.}", "then: deny"),
        (
            "then: {terminate: This session is over.}",
            "then: terminate",
        ),
        ("lifts: [no-truncate, default]", "lifts: [\"no-*\"]"),
        (
            "onTimeout: {automatic: statement.no_where == false}",
            "onTimeout: deny",
        ),
    ];
    for (from, to) in changes {
        let changed = EVERY_KEY.replacen(from, to, 1);
        assert_ne!(changed, EVERY_KEY, "{from} is not in the file");
        loads(&changed).unwrap_or_else(|errors| panic!("{to}\n{errors}"));
        assert_eq!(
            complaints(&validator, &changed),
            Vec::<String>::new(),
            "{to}"
        );
    }
}
