//! What a policy that loads is warned about, word for word, and that a warning is never wrong.
//!
//! Each `policy_warnings/*.yaml` is checked alone and has its warnings beside it in `*.expected`.
//! After a deliberate change, `UPDATE_EXPECTED=1 cargo test --test policy_warnings` writes them anew:
//! read the difference before you commit it.
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

use interceptor_core::command::{Column, Facts, Process, Relation, Subject};
use interceptor_core::mask::HashKey;
use interceptor_core::policy::{
    self, Input, PolicyError, Problem, Snapshot, Source, View, Warning,
};
use proptest::prelude::*;

/// 2026-11-20T12:00:00Z, a Friday.
const NOON: u64 = 1_795_176_000_000_000_000;

fn check(text: &str) -> (Arc<Snapshot>, Vec<PolicyError>) {
    let source = Source {
        file: "policy.yaml",
        text,
    };
    let checked = policy::check(&[source], &[], &HashKey::new([0; 32]), NOON);
    let (snapshot, warnings) = checked.unwrap_or_else(|errors| panic!("{text}\n{errors}"));
    (Arc::new(snapshot), warnings)
}

#[test]
fn every_file_gives_the_warnings_beside_it() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy_warnings");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let (_, warnings) = check(&fs::read_to_string(&path).unwrap());
        let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let shown = shown.join("\n");
        let expected = path.with_extension("expected");
        if update {
            fs::write(&expected, &shown).unwrap();
        }
        let expected = fs::read_to_string(&expected).expect("a file of expected warnings");
        assert_eq!(shown, expected, "{}", path.display());
        count += 1;
    }
    assert!(count >= 7, "fixtures were lost");
}

#[test]
fn a_file_with_errors_has_no_warnings() {
    let text = "kind: Rule\nname: r\nspec: {match: {}, then: dny}";
    let source = Source { file: "a", text };
    let checked = policy::check(&[source], &[], &HashKey::new([0; 32]), NOON);
    let errors = checked.unwrap_err();
    assert!(errors.0.iter().all(|error| error.severity() == "error"));
}

/// A test says at what time it asks, so that its Grants are not over for it.
#[test]
fn a_grant_among_tests_may_be_over() {
    let policy = format!(
        "{TARGET}---\nkind: Rule\nname: r\nspec: {{match: {{statements: [DROP]}}, then: deny}}\n"
    );
    let grants = "kind: Grant\nname: over\nspec: {match: {users: [a]}, until: 2026-01-01T00:00:00Z, lifts: [r], reason: w}\n\
                  ---\nkind: Grant\nname: later\nspec: {match: {users: [a]}, from: 2027-01-01T00:00:00Z, until: 2027-01-02T00:00:00Z, lifts: [r], reason: w}\n";
    let sources = [("policy.yaml", policy.as_str()), ("tests/g.yaml", grants)];
    let sources = sources.map(|(file, text)| Source { file, text });
    let key = HashKey::new([0; 32]);
    let count = |(_, warnings): (Snapshot, Vec<PolicyError>)| warnings.len();
    assert_eq!(count(policy::check(&sources, &[], &key, NOON).unwrap()), 2);
    let (policy, tests) = sources.split_at(1);
    assert_eq!(count(policy::check(policy, tests, &key, NOON).unwrap()), 0);
}

#[test]
fn there_is_a_limit() {
    let mut text = String::from(TARGET);
    for number in 0..policy::ERRORS_MAX + 10 {
        text += &format!("---\nkind: ApproverGroup\nname: g{number}\nspec: {{uids: [1]}}\n");
    }
    let (_, warnings) = check(&text);
    assert_eq!(warnings.len(), policy::ERRORS_MAX + 1);
    assert_eq!(
        warnings.last().unwrap().problem,
        Problem::Warning(Warning::More)
    );
}

const TARGET: &str = "kind: Target\nname: db\nspec: {protocol: postgres, endpoints: ['10.0.0.5:5432'], default: {hold: d}}\n\
                      ---\nkind: Target\nname: raw\nspec: {protocol: tcp, endpoints: ['10.0.0.6:1']}\n";

/// A word of a small world, so that rules often have to do with each other.
fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

fn list(key: &'static str, words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(words), 1..3)
        .prop_map(move |words| format!("{key}: [{}]", words.join(", ")))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        list("targets", &["db", "raw", "'*'", "'d*'"]),
        list("users", &["app", "'a*'", "'*'", "etl"]),
        list(
            "clientNetworks",
            &["10.0.0.0/8", "10.1.0.0/16", "'::/0'", "0.0.0.0/0"]
        ),
        list("groups", &["dba", "'*'", "oncall"]),
        list(
            "statements",
            &[
                "SELECT",
                "UPDATE",
                "SET",
                "SET ROLE",
                "DROP",
                "DROP TABLE",
                "CONNECT"
            ]
        ),
        list(
            "tables",
            &["t", "public.t", "'*.t'", "'*'", "'public.*'", "T"]
        ),
        list("reads", &["t", "public.t", "'*.t'", "'t*'", "'**.t'"]),
        list("writes", &["t", "public.t", "'*.t'", "'*'"]),
        list("functions", &["f", "s.f", "'*'", "F"]),
        list(
            "columnsRead",
            &["t.c", "public.t.c", "'*.c'", "'*.*'", "'t.*'", "'t.**'"]
        ),
        list("columnsWritten", &["t.c", "'*.*.c'"]),
        one_of(&[
            "noWhere: true",
            "noWhere: false",
            "incomplete: true",
            "incomplete: false"
        ]),
        one_of(&["estimatedRows: {over: 10}", "estimatedRows: {over: 100}"]),
        one_of(&[
            "times: [{zone: UTC}]",
            "times: [{days: [fri], zone: UTC}]",
            "times: [{from: '09:00', to: '17:00', zone: UTC}, {from: '17:00', to: '09:00', zone: UTC}]",
            "times: [{from: '11:00', to: '13:00', zone: UTC}]",
            "times: [{from: '11:00', to: '13:00', zone: Europe/Berlin}]",
        ]),
        one_of(&[
            "text: drop",
            "text: '.'",
            "when: client.user == 'app'",
            "when: statement.no_where"
        ]),
        one_of(&[
            "process: {uids: [1]}",
            "process: {uids: [1, 2]}",
            "process: {executables: ['/usr/*']}",
            "process: {uids: [1], executables: ['/usr/bin/psql']}",
        ]),
    ]
}

fn rule() -> impl Strategy<Value = (Vec<String>, String)> {
    let then = one_of(&[
        "allow",
        "deny",
        "hold",
        "terminate",
        "{hold: {timeout: 1m}}",
        "{deny: no, readOnly: true}",
        "{limit: {rows: 5}}",
    ]);
    let priority = prop::sample::select(&[0, 0, 0, 5][..]);
    (prop::collection::vec(key(), 0..4), then, priority).prop_map(|(mut keys, then, priority)| {
        keys.sort();
        keys.dedup_by_key(|key| key.split(':').next().unwrap_or_default().to_owned());
        (keys, format!("priority: {priority}, then: {then}"))
    })
}

/// Rules, of which some are others with more keys.
fn rules() -> impl Strategy<Value = Vec<String>> {
    let pair = (rule(), rule(), any::<bool>()).prop_map(|((wide, a), (more, b), related)| {
        let mut narrow = more;
        if related {
            narrow.extend(wide.iter().cloned());
            narrow.sort();
            narrow.dedup_by_key(|key| key.split(':').next().unwrap_or_default().to_owned());
        }
        [(wide, a), (narrow, b)]
    });
    prop::collection::vec(pair, 1..4).prop_map(|pairs| {
        let rules = pairs.into_iter().flatten().enumerate();
        let rule = |(index, (keys, rest)): (usize, (Vec<String>, String))| {
            let keys = keys.join(", ");
            format!("---\nkind: Rule\nname: r{index}\nspec: {{match: {{{keys}}}, {rest}}}\n")
        };
        rules.map(rule).collect()
    })
}

fn lifters() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        1 => Just("---\nkind: Bypass\nname: b\nspec: {match: {clientNetworks: [10.1.0.0/16]}}\n".to_owned()),
        1 => Just("---\nkind: Grant\nname: g\nspec: {match: {users: [app]}, until: 2030-01-01T00:00:00Z, lifts: [r0, default], reason: x}\n".to_owned()),
    ]
}

fn relation() -> impl Strategy<Value = Relation> {
    let schema = prop::option::of(prop::sample::select(&["public", "s"][..]));
    (schema, prop::sample::select(&["t", "T", "u"][..])).prop_map(|(schema, name)| Relation {
        schema: schema.map(Into::into),
        name: name.into(),
    })
}

fn column() -> impl Strategy<Value = Column> {
    let name = prop::option::of(prop::sample::select(&["c", "d"][..]));
    (prop::option::of(relation()), name).prop_map(|(relation, name)| Column {
        relation,
        name: name.map(Into::into),
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let kinds = &[
        "SELECT",
        "UPDATE",
        "SET",
        "SET ROLE",
        "DROP TABLE",
        "DROP INDEX",
    ][..];
    let few = |strategy| prop::collection::vec(strategy, 0..3);
    let functions = prop::collection::vec(prop::sample::select(&["f", "s.f", "g"][..]), 0..2);
    (
        prop::collection::vec(prop::sample::select(kinds), 1..3),
        few(relation().boxed()),
        few(relation().boxed()),
        prop::collection::vec(column(), 0..3),
        prop::collection::vec(column(), 0..2),
        functions,
        any::<bool>(),
        prop::option::of(0_u64..200),
        prop::option::weighted(0.2, Just("a block")),
    )
        .prop_map(
            |(
                kinds,
                reads,
                writes,
                columns_read,
                columns_written,
                functions,
                unfiltered,
                estimated_rows,
                incomplete,
            )| Facts {
                kinds,
                reads,
                writes,
                columns_read,
                columns_written,
                functions: functions.into_iter().map(Into::into).collect(),
                unfiltered,
                estimated_rows,
                incomplete,
                ..Facts::default()
            },
        )
}

fn subject() -> impl Strategy<Value = Subject> {
    let client =
        prop::sample::select(&["10.0.0.1:9", "10.1.0.1:9", "192.0.2.1:9", "[fd00::1]:9"][..]);
    let executable = prop::option::of(prop::sample::select(&["/usr/bin/psql", "/bin/sh"][..]));
    let process = prop::option::of((1_u32..4, executable));
    let user = prop::sample::select(&["app", "alice", "etl"][..]);
    (client, process, user).prop_map(|(client, process, user)| Subject {
        client: client.parse().unwrap(),
        process: process.map(|(uid, executable)| Process {
            uid,
            executable: executable.map(Into::into),
            ..Process::default()
        }),
        user: user.into(),
        database: "shop".into(),
    })
}

/// All of a decision that anybody could notice.
fn shown(
    snapshot: &Arc<Snapshot>,
    target: &str,
    subject: &Subject,
    facts: &Facts,
    now: u64,
) -> String {
    let view = View::new(Arc::clone(snapshot), target, subject.clone()).unwrap();
    let connect = Facts {
        kinds: vec!["CONNECT"],
        ..Facts::default()
    };
    let decision = view.decide(&Input {
        facts: if target == "raw" { &connect } else { facts },
        text: "drop it",
        now_unix_ns: now,
    });
    let rule = decision.rule.as_ref().map(|rule| rule.name.clone());
    let obligations = decision.obligations.as_ref();
    let obliging: Vec<&str> = obligations
        .map(|all| all.rules.iter().map(|rule| rule.name.as_str()).collect())
        .unwrap_or_default();
    let lift = decision
        .lift
        .as_ref()
        .map(|lift| (lift.by.name.clone(), lift.rule.clone()));
    format!(
        "{:?} {rule:?} {} {obliging:?} {lift:?}",
        decision.outcome, decision.reason
    )
}

const PEOPLE: &str = "---\nkind: Identity\nname: alice\nspec: {groups: [dba], is: [{users: [alice]}]}\n\
                      ---\nkind: Identity\nname: ops\nspec: {groups: [oncall], is: [{users: [etl]}]}\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// A rule that is said to decide nothing can be removed, and one that is said to match nothing as
    /// well: no decision changes.
    #[test]
    fn what_is_said_to_be_without_effect_is(
        rules in rules(),
        lifters in lifters(),
        commands in prop::collection::vec((subject(), facts(), 0_u64..7 * 24 * 60), 12),
    ) {
        let base = format!("{TARGET}{PEOPLE}");
        let whole = format!("{base}{}{lifters}", rules.concat());
        let (snapshot, warnings) = check(&whole);
        for warning in &warnings {
            let name = match &warning.problem {
                Problem::Warning(
                    Warning::Shadowed { rule, .. }
                    | Warning::Contradiction { rule, .. }
                    | Warning::Unreachable { kind: "Rule", name: rule, .. },
                ) => rule,
                _ => continue,
            };
            let index: usize = name[1..].parse().unwrap();
            // Of two that contradict each other, the weaker one's obligations stay in force.
            if rules[index].contains("readOnly") {
                continue;
            }
            let mut fewer = rules.clone();
            let removed = fewer.remove(index);
            if lifters.contains("lifts: [r0") && index == 0 {
                continue;
            }
            let (without, _) = check(&format!("{base}{}{lifters}", fewer.concat()));
            for (subject, facts, minute) in &commands {
                let now = NOON + minute * 60_000_000_000;
                for target in ["db", "raw"] {
                    prop_assert_eq!(
                        shown(&snapshot, target, subject, facts, now),
                        shown(&without, target, subject, facts, now),
                        "{}\n{}\n{:?}", warning, removed, facts
                    );
                }
            }
        }
    }
}
