//! What a broken policy file is answered with, word for word.
//!
//! Each `policy_errors/*.yaml` is loaded alone and has its errors beside it in `*.expected`.
//! After a deliberate change, `UPDATE_EXPECTED=1 cargo test --test policy_errors` writes them anew:
//! read the difference before you commit it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers may fail by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use interceptor_core::mask::HashKey;
use interceptor_core::policy::{
    self, Counts, DOCUMENTS_MAX, EXPRESSION_BYTES_MAX, FILE_BYTES_MAX, LIST_ENTRIES_MAX, NAMES_MAX,
    PolicyErrors, Problem, REGEXES_MAX, Source,
};
use proptest::prelude::*;

fn load(file: &str, text: &str) -> Result<policy::Snapshot, PolicyErrors> {
    policy::load(&[Source { file, text }], &HashKey::new([0; 32]))
}

fn fixtures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy_errors");
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    paths.sort();
    paths
}

#[test]
fn every_broken_file_gives_the_errors_beside_it() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let fixtures = fixtures();
    assert!(fixtures.len() >= 10, "fixtures were lost");
    for path in fixtures {
        let file = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let errors = load(file, &text)
            .err()
            .unwrap_or_else(|| panic!("{file} has no error"));
        let shown = errors.to_string();
        let expected = path.with_extension("expected");
        if update {
            fs::write(&expected, &shown).unwrap();
        }
        let expected = fs::read_to_string(&expected).expect("a file of expected errors");
        assert_eq!(shown, expected, "{file}");
    }
}

/// Every kind with every key.
const EVERY_KEY: &str = include_str!("policy_every_key.yaml");

#[test]
fn every_key_of_every_kind_is_read() {
    let snapshot = load("every-key.yaml", EVERY_KEY).unwrap_or_else(|errors| panic!("\n{errors}"));
    let expected = Counts {
        targets: 6,
        rules: 7,
        masks: 4,
        detectors: 1,
        identities: 2,
        approver_groups: 2,
        grants: 1,
        bypasses: 1,
    };
    assert_eq!(snapshot.counts, expected);
}

fn only_problem(text: &str) -> Problem {
    let mut errors = load("policy.yaml", text).unwrap_err().0;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0).problem
}

#[test]
fn sizes_have_limits() {
    let target =
        "kind: Target\nname: t\nspec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}\n";
    assert!(load("policy.yaml", target).is_ok());

    let large = target.to_owned() + &"#".repeat(FILE_BYTES_MAX);
    assert_eq!(only_problem(&large), Problem::FileTooLarge);

    let mut many = target.to_owned();
    for number in 0..DOCUMENTS_MAX {
        many +=
            &format!("---\n{{kind: Rule, name: r{number}, spec: {{match: {{}}, then: deny}}}}\n");
    }
    assert_eq!(only_problem(&many), Problem::TooManyDocuments);

    let rule = |users: &str, message: &str| {
        let spec = format!("{{match: {{users: [{users}]}}, then: {{deny: '{message}'}}}}");
        format!("{target}---\n{{kind: Rule, name: r, spec: {spec}}}\n")
    };
    assert!(load("policy.yaml", &rule("a, b", "no")).is_ok());
    let long = "a, ".repeat(LIST_ENTRIES_MAX + 1);
    assert_eq!(only_problem(&rule(&long, "no")), Problem::ListTooLong);
    assert_eq!(
        only_problem(&rule("a", &"m".repeat(501))),
        Problem::TextTooLong
    );

    let named = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("'db{n}.internal:1'")).collect();
        let lists = names.chunks(500).enumerate().map(|(number, list)| {
            let list = list.join(", ");
            format!("---\nkind: Target\nname: t{number}\nspec: {{protocol: postgres, endpoints: [{list}]}}\n")
        });
        lists.collect::<String>()
    };
    assert!(load("policy.yaml", &named(NAMES_MAX)).is_ok());
    assert_eq!(only_problem(&named(NAMES_MAX + 1)), Problem::TooManyNames);

    let texts = |count: usize| {
        let rule = |number| {
            format!(
                "---\n{{kind: Rule, name: t{number}, spec: {{match: {{text: a{number}}}, then: deny}}}}\n"
            )
        };
        target.to_owned() + &(0..count).map(rule).collect::<String>()
    };
    assert!(load("policy.yaml", &texts(REGEXES_MAX)).is_ok());
    assert_eq!(
        only_problem(&texts(REGEXES_MAX + 1)),
        Problem::TooManyRegexes
    );

    let when = |text: &str| {
        format!(
            "{target}---\n{{kind: Rule, name: w, spec: {{match: {{when: \"{text}\"}}, then: deny}}}}\n"
        )
    };
    let padding = " ".repeat(EXPRESSION_BYTES_MAX);
    assert_eq!(
        only_problem(&when(&format!("true{padding}"))),
        Problem::ExpressionTooLong
    );

    let deep = "- ".repeat(100_000);
    assert_eq!(only_problem(&deep), Problem::TooDeep);
}

#[test]
fn every_file_is_read_before_the_errors_are_given() {
    let sources = [
        Source {
            file: "b.yaml",
            text: "kind: Rule",
        },
        Source {
            file: "a.yaml",
            text: "}",
        },
        Source {
            file: "c.yaml",
            text: "",
        },
    ];
    let errors = policy::load(&sources, &HashKey::new([0; 32]))
        .unwrap_err()
        .0;
    let files: Vec<&str> = errors.iter().map(|error| error.file.as_str()).collect();
    assert_eq!(files, ["a.yaml", "b.yaml", "b.yaml", "c.yaml"]);
}

#[test]
fn no_source_at_all_is_an_error() {
    let errors = policy::load(&[], &HashKey::new([0; 32])).unwrap_err();
    assert_eq!(errors.0.len(), 1);
    assert!(
        errors
            .to_string()
            .starts_with("error: there is no document of kind Target")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in a file, loading ends with a snapshot or with errors that can be shown.
    #[test]
    fn no_text_breaks_loading(text in "(?s).{0,200}") {
        if let Err(errors) = load("policy.yaml", &text) {
            prop_assert!(!errors.0.is_empty());
            prop_assert!(errors.to_string().starts_with("error: "));
        }
    }

    /// The same for texts that are nearly right: a file with every key in it, and a piece cut out.
    #[test]
    fn no_damage_breaks_loading(from in 0..EVERY_KEY.len(), length in 0_usize..80) {
        let (before, rest) = EVERY_KEY.split_at(EVERY_KEY.floor_char_boundary(from));
        let damaged = before.to_owned() + rest.get(length..).unwrap_or_default();
        if let Err(errors) = load("policy.yaml", &damaged) {
            prop_assert!(errors.to_string().starts_with("error: "));
        }
    }
}
